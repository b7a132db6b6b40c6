//! What ONNX forbids is refused by both engines, with one message, whether the operands are known when the plan is made
//! or come with the run: nothing is lowered that the interpreter refuses.
mod common;

use common::levels;
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp::{self, Values};
use fcc_ir::op::default_opsets;
use fcc_ir::{DType, Dim, Graph, Model, NewNode, Tensor, TensorType, ValueId, ValueInfo, ValueType};
use fcc_jit::{Options, compile};

/// How the model declares its operands.
#[derive(Debug, Clone, Copy)]
enum Operands {
    /// All inputs of fixed shape.
    Fixed,
    /// All inputs of unknown extents.
    Open,
    /// The first is an input, the others are initializers.
    Constant,
}

fn model(op: &str, opset: i64, attrs: &Attrs, given: &[Tensor], how: Operands) -> (Model, Values) {
    let mut graph = Graph::new("g", default_opsets(opset));
    let mut inputs = Values::new();
    let mut operands = vec![];
    for (i, t) in given.iter().enumerate() {
        let name = format!("x{i}");
        operands.push(if matches!(how, Operands::Constant) && i > 0 {
            graph.add_constant(&name, t.clone()).unwrap()
        } else {
            let open = matches!(how, Operands::Open);
            let dims: Vec<Dim> =
                t.shape().iter().map(|d| if open { Dim::Unknown } else { Dim::Known(*d) }).collect();
            let info = ValueInfo::new(&name, ValueType::Tensor(TensorType::new(t.dtype(), dims)));
            inputs.insert(name, t.clone().into());
            graph.add_input(info).unwrap()
        });
    }
    let new = NewNode {
        op_type: op,
        domain: "",
        name: op.into(),
        inputs: operands.into_iter().map(Some).collect(),
        outputs: vec!["y".into()],
        attrs: attrs.clone(),
    };
    let y = ValueId { node: graph.add_op(new).unwrap(), output: 0 };
    graph.add_output(y, ValueInfo::new("y", ValueType::Unknown));
    (Model::new(graph), inputs)
}

/// Both engines refuse the node with a message that holds `wanted`.
fn refused(op: &str, opset: i64, attrs: Attrs, given: &[Tensor], wanted: &str) {
    for how in [Operands::Fixed, Operands::Open, Operands::Constant] {
        let (model, inputs) = model(op, opset, &attrs, given, how);
        let want = interp::run(&model, &inputs).expect_err(op).to_string();
        assert!(want.contains(wanted), "{op}, {how:?}: {want}");
        for isa in levels() {
            let mut options = Options::with_threads(1);
            options.isa = isa;
            let got = compile(&model, &options).and_then(|m| m.run(&inputs)).expect_err(op).to_string();
            assert_eq!(got, want, "{op}, {how:?} at {isa}");
        }
    }
}

fn real(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (i % 5) as f32 + 1.0).collect::<Vec<f32>>()).unwrap()
}

fn bytes(shape: &[usize]) -> Tensor {
    Tensor::new(shape, vec![3u8; shape.iter().product()]).unwrap()
}

fn with(name: &str, value: impl Into<AttrValue>) -> Attrs {
    Attrs::new().with(name, value)
}

#[test]
fn element_types() {
    let none = Attrs::new;
    refused("Not", 17, none(), &[real(&[4])], "element type of input 0: got float, wanted bool");
    let ints = Tensor::new([2], vec![0i32, 1]).unwrap();
    refused("Not", 17, none(), &[ints], "element type of input 0: got int32, wanted bool");
    let (scale, zero) = (Tensor::scalar(2f32), Tensor::scalar(1f32));
    let quantised = [bytes(&[2, 3]), scale.clone(), zero.clone()];
    refused("DequantizeLinear", 17, none(), &quantised, "element type of input 2: got float");
    refused(
        "QuantizeLinear",
        17,
        none(),
        &[real(&[2, 3]), scale.clone(), zero],
        "element type of input 2: got float",
    );
    let of_other_sign = [bytes(&[2, 3]), scale, Tensor::scalar(1i8)];
    refused(
        "DequantizeLinear",
        17,
        none(),
        &of_other_sign,
        "element type of input 2: got int8, wanted uint8",
    );
    let axes = Tensor::new([1], vec![1f32]).unwrap();
    refused(
        "ReduceSum",
        17,
        none(),
        &[real(&[2, 3]), axes],
        "element type of input 1: got float, wanted int64",
    );
    refused("Add", 7, none(), &[bytes(&[2]), bytes(&[2])], "element type of input 0: got uint8");
    let doubles = Tensor::new([3], vec![1f64; 3]).unwrap();
    refused(
        "Mul",
        17,
        none(),
        &[real(&[2, 3]), doubles],
        "element type of input 1: got double, wanted float",
    );
}

#[test]
fn attributes() {
    let x = [real(&[2, 3])];
    refused(
        "ReduceSum",
        13,
        with("axes", vec![1i64]),
        &x,
        "attribute `axes`: got one that ReduceSum of opset 13",
    );
    refused(
        "Relu",
        17,
        with("alpha", 1f32),
        &x,
        "attribute `alpha`: got one that Relu of opset 17 does not have",
    );
    refused("Flatten", 17, with("axis", 1f32), &x, "attribute `axis`: got Float, wanted an int");
    refused("Transpose", 17, with("perm", 1i64), &x, "attribute `perm`: got Int, wanted a list of ints");
    refused("Cast", 17, Attrs::new(), &x, "attribute `to`: got none");
    refused("Softmax", 10, with("axes", vec![1i64]), &x, "attribute `axes`");
    // 0 would leave nothing of any value
    for clip in [0f32, -1.0, f32::NAN] {
        let layer = |rows: usize| [real(&[2, 1, 3]), real(&[1, rows * 2, 3]), real(&[1, rows * 2, 2])];
        let attrs = || with("hidden_size", 2i64).with("clip", clip);
        refused("LSTM", 14, attrs(), &layer(4), "attribute `clip`");
        refused("GRU", 14, attrs(), &layer(3), "attribute `clip`");
    }
}

#[test]
fn shapes_of_parameters() {
    let none = Attrs::new;
    for (scale, zero) in
        [(&[3][..], &[1][..]), (&[3], &[]), (&[], &[3]), (&[2], &[2]), (&[1, 3], &[1, 3]), (&[], &[1, 1])]
    {
        refused("DequantizeLinear", 17, none(), &[bytes(&[2, 3]), real(scale), bytes(zero)], "shape of");
        refused("QuantizeLinear", 17, none(), &[real(&[2, 3]), real(scale), bytes(zero)], "shape of");
    }
    // [3,1] has as many elements as a row and stretches over the other axis; [6] is all rows at once
    for scale in [&[6][..], &[2, 1, 3], &[4]] {
        let attrs = with("axis", -1i64);
        refused("LayerNormalization", 17, attrs, &[real(&[2, 3]), real(scale)], "shape of input 1");
    }
    let bias = [real(&[2, 3]), real(&[3]), real(&[2, 2])];
    refused("LayerNormalization", 17, none(), &bias, "shape of input 2");
    for wrong in 1..5 {
        let mut given: Vec<Tensor> =
            std::iter::once(real(&[2, 3, 4])).chain((0..4).map(|_| real(&[3]))).collect();
        given[wrong] = real(&[1, 3]);
        let at = format!("shape of input {wrong}: got [1,3], wanted [3]");
        refused("BatchNormalization", 15, none(), &given, &at);
    }
    refused(
        "InstanceNormalization",
        17,
        none(),
        &[real(&[1, 3, 4]), real(&[1, 3]), real(&[3])],
        "shape of input 1",
    );
    refused("Gemm", 17, none(), &[real(&[2, 3]), real(&[3, 4]), real(&[1, 1, 1])], "shape of input 2");
    refused("PRelu", 17, none(), &[real(&[2, 3]), real(&[4, 2, 3])], "shape of input 1");
    let pads = Tensor::from_i64s([0, 1, 0, 1]);
    refused("Pad", 17, none(), &[real(&[2, 3]), pads, real(&[2])], "shape of input 2");
    refused("Clip", 17, none(), &[real(&[2, 3]), real(&[2])], "shape of input 1");
}

#[test]
fn values() {
    let none = Attrs::new;
    for ratio in [-0.5f32, 1.0, 1.5, f32::NAN] {
        for training in [None, Some(false), Some(true)] {
            let mut given = vec![real(&[2, 3]), Tensor::scalar(ratio)];
            given.extend(training.map(|t| Tensor::from_bools([], [t]).unwrap()));
            refused("Dropout", 13, none(), &given, "ratio: got");
        }
    }
}

/// A row's scale that lies along the other axis of a square is no row's scale.
#[test]
fn a_scale_across_the_rows_of_a_square() {
    for (scale, bias) in [(&[3, 1][..], &[3][..]), (&[3], &[3, 1]), (&[1, 3], &[1]), (&[1], &[1, 3])] {
        let given = [real(&[3, 3]), real(scale), real(bias)];
        for how in [Operands::Fixed, Operands::Open, Operands::Constant] {
            let (model, inputs) = model("LayerNormalization", 17, &Attrs::new(), &given, how);
            let want = interp::run(&model, &inputs).unwrap();
            let want = want["y"].as_tensor().unwrap().as_slice::<f32>().unwrap().into_owned();
            let got = compile(&model, &Options::with_threads(1)).unwrap().run(&inputs).unwrap();
            let got = got["y"].as_tensor().unwrap().as_slice::<f32>().unwrap().into_owned();
            assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5), "{want:?} became {got:?}");
        }
    }
}

/// Before opset 7 the slopes of PRelu lie along the channels, also where the last axis has as many elements.
#[test]
fn slopes_of_old_versions_lie_along_the_channels() {
    let x = Tensor::new([1, 3, 3], (0..9).map(|i| -(i as f32)).collect::<Vec<_>>()).unwrap();
    let slope = Tensor::new([3], vec![1f32, 2.0, 3.0]).unwrap();
    for how in [Operands::Fixed, Operands::Constant] {
        let (model, inputs) = model("PRelu", 6, &Attrs::new(), &[x.clone(), slope.clone()], how);
        let want = [0f32, -1.0, -2.0, -6.0, -8.0, -10.0, -18.0, -21.0, -24.0];
        for got in [
            interp::run(&model, &inputs).unwrap(),
            compile(&model, &Options::with_threads(1)).unwrap().run(&inputs).unwrap(),
        ] {
            let y = got["y"].as_tensor().unwrap();
            assert_eq!((y.dtype(), &*y.as_slice::<f32>().unwrap()), (DType::F32, &want[..]));
        }
    }
}
