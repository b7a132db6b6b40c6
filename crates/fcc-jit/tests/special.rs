//! What sums of products seldom see, in both engines and at every level: tensors without elements, NaN and infinities,
//! denormal numbers, shapes and indices that do not fit.
mod common;

use common::levels;
use common::net::{Net, Within, attrs, close, run_guarded};
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp::{self, Values};
use fcc_ir::{Dim, Model, Tensor, TensorType, Value, ValueId, ValueInfo, ValueType};
use fcc_jit::asm::Isa;
use fcc_jit::{Options, compile};

fn jit(model: &Model, inputs: &Values, isa: Isa) -> fcc_ir::Result<Values> {
    let mut options = Options::with_threads(2);
    options.isa = isa;
    run_guarded(&compile(model, &options)?, inputs)
}

/// As `Net::check`, whoever computes the steps. `place` says where in a failure.
fn check_at(net: Net, outputs: &[ValueId], place: &str) {
    let (model, inputs) = net.model(outputs);
    let want = interp::run(&model, &inputs).unwrap();
    for isa in levels() {
        let got = jit(&model, &inputs, isa).unwrap_or_else(|e| panic!("{place}, {isa}: {e}"));
        for (name, want) in &want {
            let (got, want) = (got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
            close(got, want, Within::Exact, &format!("{place}, {name} at {isa}"));
        }
    }
}

fn ints(name: &'static str, values: &[i64]) -> (&'static str, AttrValue) {
    (name, values.to_vec().into())
}

#[test]
fn tensors_without_elements() {
    let cases: &[(&str, &[&[usize]], Attrs)] = &[
        ("MatMul", &[&[0, 5], &[5, 7]], Attrs::new()),
        ("MatMul", &[&[4, 0], &[0, 7]], Attrs::new()),
        ("MatMul", &[&[4, 5], &[5, 0]], Attrs::new()),
        ("MatMul", &[&[0, 3, 5], &[0, 5, 2]], Attrs::new()),
        ("Gemm", &[&[0, 5], &[5, 7], &[7]], Attrs::new()),
        ("Gemm", &[&[4, 0], &[0, 7], &[7]], Attrs::new()),
        ("Conv", &[&[0, 3, 5, 6], &[4, 3, 3, 3], &[4]], Attrs::new()),
        ("Conv", &[&[1, 3, 5, 6], &[0, 3, 3, 3]], Attrs::new()),
        ("ConvTranspose", &[&[0, 3, 5, 6], &[3, 4, 2, 2]], Attrs::new()),
        ("MaxPool", &[&[0, 3, 5, 6]], attrs([ints("kernel_shape", &[2, 2])])),
        ("AveragePool", &[&[2, 0, 5, 6]], attrs([ints("kernel_shape", &[2, 2])])),
        ("GlobalAveragePool", &[&[0, 3, 5, 6]], Attrs::new()),
        ("BatchNormalization", &[&[0, 3, 5, 6], &[3], &[3], &[3], &[3]], Attrs::new()),
        ("LayerNormalization", &[&[0, 5], &[5], &[5]], Attrs::new()),
        ("InstanceNormalization", &[&[0, 3, 4], &[3], &[3]], Attrs::new()),
        ("Softmax", &[&[0, 5]], Attrs::new()),
        ("Softmax", &[&[5, 0]], Attrs::new()),
        ("Add", &[&[0, 5], &[5]], Attrs::new()),
        ("Mul", &[&[3, 1], &[3, 0]], Attrs::new()),
        ("Relu", &[&[2, 0, 3]], Attrs::new()),
        ("Concat", &[&[2, 0], &[2, 3]], attrs([("axis", 1.into())])),
        ("Concat", &[&[0, 3], &[0, 3]], attrs([("axis", 0.into())])),
        ("Transpose", &[&[2, 0, 3]], Attrs::new()),
        ("ReduceSum", &[&[0, 3]], attrs([("keepdims", 0.into())])),
        ("ReduceSum", &[&[3, 0, 2]], Attrs::new()),
        ("ReduceMean", &[&[0, 3]], attrs([ints("axes", &[1])])),
        ("DepthToSpace", &[&[0, 4, 2, 3]], attrs([("blocksize", 2.into())])),
        ("Flatten", &[&[0, 3, 2]], Attrs::new()),
    ];
    for (op, shapes, list) in cases {
        let mut net = Net::new();
        if list.ints("axes").ok().flatten().is_some() {
            net.graph = fcc_ir::Graph::new("test", fcc_ir::op::default_opsets(17));
        }
        let operands: Vec<ValueId> = shapes.iter().map(|s| net.input(s)).collect();
        let y = net.node(op, &operands, list.clone());
        // and what reads it
        let z = net.op("Neg", &[y]);
        check_at(net, &[y, z], &format!("{op} {shapes:?}"));
    }
}

#[test]
fn a_network_on_a_batch_of_none() {
    let mut net = Net::new();
    let x = net.input(&[0, 3, 12, 12]);
    let (w, b) = (net.weight(&[64, 3, 3, 3]), net.weight(&[64]));
    let y = net.node("Conv", &[x, w, b], attrs([ints("pads", &[1, 1, 1, 1])]));
    let y = net.op("Relu", &[y]);
    let w = net.weight(&[64, 64, 3, 3]);
    let y = net.op("Conv", &[y, w]);
    let y = net.node("MaxPool", &[y], attrs([ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]));
    let y = net.op("GlobalAveragePool", &[y]);
    let y = net.op("Flatten", &[y]);
    let m = net.weight(&[64, 10]);
    let y = net.op("MatMul", &[y, m]);
    let z = net.op("Softmax", &[y]);
    check_at(net, &[y, z], "a batch of none");
}

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Small integers with one of them replaced.
fn spoilt(net: &mut Net, shape: &[usize], at: usize, bad: f32) -> Tensor {
    let mut v = net.integers(shape).as_slice::<f32>().unwrap().into_owned();
    let n = v.len();
    v[at % n] = bad;
    Tensor::new(shape, v).unwrap()
}

/// One bad number in each operand of each sum, an input or a weight: the same elements are NaN and infinite.
#[test]
fn nan_and_infinities_in_sums() {
    let conv = |pads: i64, group: i64| attrs([("pads", vec![pads; 4].into()), ("group", group.into())]);
    let cases: &[(&str, &[&[usize]], Attrs)] = &[
        ("MatMul", &[&[7, 19], &[19, 21]], Attrs::new()),
        ("MatMul", &[&[1, 70], &[70, 17]], Attrs::new()),
        ("MatMul", &[&[33, 5], &[5, 1]], Attrs::new()),
        ("Gemm", &[&[5, 19], &[19, 21], &[21]], Attrs::new()),
        ("Conv", &[&[1, 3, 6, 7], &[20, 3, 3, 3], &[20]], conv(0, 1)),
        ("Conv", &[&[1, 20, 6, 7], &[17, 20, 1, 1], &[17]], conv(0, 1)),
        ("Conv", &[&[1, 18, 6, 7], &[18, 1, 3, 3], &[18]], conv(0, 18)),
        ("Conv", &[&[1, 8, 6, 7], &[12, 2, 3, 3], &[12]], conv(0, 4)),
        ("Conv", &[&[1, 5, 6, 40], &[3, 5, 3, 3], &[3]], conv(0, 1)),
        ("Conv", &[&[1, 64, 6, 5], &[64, 64, 3, 3], &[64]], conv(0, 1)),
        ("Conv", &[&[1, 20, 6, 7], &[17, 20, 3, 3], &[17]], conv(1, 1)),
        ("Conv", &[&[1, 18, 6, 7], &[18, 1, 3, 3], &[18]], conv(1, 18)),
        ("Conv", &[&[1, 5, 6, 40], &[3, 5, 3, 3], &[3]], conv(1, 1)),
        ("Conv", &[&[1, 64, 6, 5], &[64, 64, 3, 3], &[64]], conv(1, 1)),
        ("ConvTranspose", &[&[1, 19, 4, 5], &[19, 18, 2, 2], &[18]], Attrs::new()),
        ("ConvTranspose", &[&[1, 19, 4, 5], &[19, 18, 3, 3], &[18]], attrs([ints("strides", &[2, 2])])),
    ];
    for (op, shapes, list) in cases {
        for (operand, bad) in (0..shapes.len()).flat_map(|o| BAD.map(|b| (o, b))) {
            // convolutions whose weights come with the run are the interpreter's
            let computed = matches!(*op, "MatMul" | "Gemm");
            for constants in [true, false].into_iter().filter(|c| *c || computed) {
                let mut net = Net::new();
                let operands: Vec<ValueId> = shapes
                    .iter()
                    .enumerate()
                    .map(|(i, s)| {
                        let at = net.next() as usize;
                        let t = if i == operand { spoilt(&mut net, s, at, bad) } else { net.integers(s) };
                        if i > 0 && constants { net.constant(t) } else { net.given(t) }
                    })
                    .collect();
                let y = net.node(op, &operands, list.clone());
                let z = net.op("Relu", &[y]);
                let place =
                    format!("{op} {shapes:?}: operand {operand} holds {bad}, weights fixed {constants}");
                check_at(net, &[y, z], &place);
            }
        }
    }
}

#[test]
fn nan_and_infinities_in_rows() {
    let cases: &[(&str, &[usize], Attrs)] = &[
        ("Softmax", &[3, 37], Attrs::new()),
        ("LogSoftmax", &[3, 37], Attrs::new()),
        ("Softmax", &[3, 5, 19], attrs([("axis", 1.into())])),
        ("ReduceSum", &[3, 37], Attrs::new()),
        ("ReduceMax", &[3, 37], Attrs::new()),
        ("ReduceMin", &[3, 37], Attrs::new()),
        ("ReduceMean", &[3, 37], Attrs::new()),
        ("MaxPool", &[1, 18, 6, 7], attrs([ints("kernel_shape", &[3, 2])])),
        ("AveragePool", &[1, 18, 6, 7], attrs([ints("kernel_shape", &[2, 2])])),
        ("GlobalAveragePool", &[1, 18, 6, 7], Attrs::new()),
        ("GlobalMaxPool", &[1, 18, 6, 7], Attrs::new()),
    ];
    for (op, shape, list) in cases {
        for bad in BAD {
            for at in [0, 36, 17 + 37] {
                let mut net = Net::new();
                let t = spoilt(&mut net, shape, at, bad);
                let x = net.given(t);
                let y = net.node(op, &[x], list.clone());
                let (model, inputs) = net.model(&[y]);
                let want = interp::run(&model, &inputs).unwrap();
                for isa in levels() {
                    let got = jit(&model, &inputs, isa).unwrap();
                    for (name, want) in &want {
                        let (got, want) = (got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
                        let place = format!("{op} {shape:?} of {bad} at {at}, {isa}");
                        close(got, want, Within::Relative(1e-6), &place);
                    }
                }
            }
        }
    }
}

/// Multiples of the smallest denormal number are sums like any others: nothing flushes them to zero.
#[test]
fn denormal_numbers_in_sums() {
    let least = f32::from_bits(1);
    let conv = |group: i64| attrs([("pads", vec![1i64; 4].into()), ("group", group.into())]);
    let cases: &[(&str, &[&[usize]], Attrs)] = &[
        ("MatMul", &[&[7, 19], &[19, 21]], Attrs::new()),
        ("Gemm", &[&[5, 19], &[19, 21]], Attrs::new()),
        ("Conv", &[&[1, 3, 6, 7], &[20, 3, 3, 3]], conv(1)),
        ("Conv", &[&[1, 18, 6, 7], &[18, 1, 3, 3]], conv(18)),
        ("Conv", &[&[1, 8, 6, 7], &[12, 2, 3, 3]], conv(4)),
        ("Conv", &[&[1, 5, 6, 40], &[3, 5, 3, 3]], conv(1)),
        ("Conv", &[&[1, 64, 6, 5], &[64, 64, 3, 3]], conv(1)),
        ("ConvTranspose", &[&[1, 19, 4, 5], &[19, 18, 3, 3]], Attrs::new()),
        ("MaxPool", &[&[1, 18, 6, 7]], attrs([ints("kernel_shape", &[3, 2])])),
        ("Neg", &[&[70]], Attrs::new()),
        ("Relu", &[&[70]], Attrs::new()),
        ("ReduceSum", &[&[3, 37]], Attrs::new()),
        ("Transpose", &[&[3, 37]], Attrs::new()),
    ];
    for (op, shapes, list) in cases {
        let mut net = Net::new();
        let operands: Vec<ValueId> = shapes
            .iter()
            .enumerate()
            .map(|(i, s)| {
                // halves of halves of weights stay whole
                let by = if i == 0 { least } else { 4.0 };
                let t = net.integers(s);
                let v: Vec<f32> = t.as_slice::<f32>().unwrap().iter().map(|v| v * by).collect();
                let t = Tensor::new(s.to_vec(), v).unwrap();
                if i == 0 { net.given(t) } else { net.constant(t) }
            })
            .collect();
        let y = net.node(op, &operands, list.clone());
        let (model, inputs) = net.model(&[y]);
        let want = interp::run(&model, &inputs).unwrap();
        let some = want.values().any(|v| {
            v.as_tensor().unwrap().as_slice::<f32>().unwrap().iter().any(|v| *v != 0.0 && v.abs() < 1e-38)
        });
        assert!(some, "{op}: no denormal results");
        for isa in levels() {
            let got = jit(&model, &inputs, isa).unwrap();
            for (name, want) in &want {
                let (got, want) = (got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
                close(got, want, Within::Exact, &format!("{op} {shapes:?} at {isa}"));
            }
        }
    }
}

/// Extents that come with the run and do not fit: the interpreter's error, from either engine.
#[test]
fn shapes_and_indices_that_do_not_fit() {
    let ix = |v: &[i64]| Tensor::from_i64s(v.to_vec());
    let real = |shape: &[usize]| Tensor::new(shape, vec![1f32; shape.iter().product()]).unwrap();
    let cases: Vec<(&str, Vec<Tensor>, Attrs)> = vec![
        ("MatMul", vec![real(&[2, 3]), real(&[4, 5])], Attrs::new()),
        ("MatMul", vec![real(&[2, 3, 4]), real(&[3, 4, 5])], Attrs::new()),
        ("Gemm", vec![real(&[2, 3]), real(&[4, 5])], Attrs::new()),
        ("Gemm", vec![real(&[2, 3]), real(&[3, 5]), real(&[4])], Attrs::new()),
        ("Conv", vec![real(&[1, 3, 5, 5]), real(&[4, 2, 3, 3])], Attrs::new()),
        ("Conv", vec![real(&[1, 3, 2, 2]), real(&[4, 3, 3, 3])], Attrs::new()),
        ("Conv", vec![real(&[1, 3, 5, 5]), real(&[4, 3, 3, 3]), real(&[5])], Attrs::new()),
        ("Conv", vec![real(&[1, 3, 5, 5]), real(&[4, 3, 3, 3])], attrs([ints("strides", &[0, 1])])),
        ("Conv", vec![real(&[1, 3, 5, 5]), real(&[4, 3, 3, 3])], attrs([ints("dilations", &[1, -1])])),
        ("Conv", vec![real(&[1, 3, 5, 5]), real(&[4, 1, 3, 3])], attrs([("group", 2.into())])),
        ("ConvTranspose", vec![real(&[1, 3, 5, 5]), real(&[4, 3, 3, 3])], Attrs::new()),
        ("MaxPool", vec![real(&[1, 3, 2, 2])], attrs([ints("kernel_shape", &[3, 3])])),
        ("Add", vec![real(&[2, 3]), real(&[4])], Attrs::new()),
        ("Concat", vec![real(&[2, 3]), real(&[3, 3])], attrs([("axis", 1.into())])),
        ("Transpose", vec![real(&[2, 3])], attrs([ints("perm", &[0, 2])])),
        ("Softmax", vec![real(&[2, 3])], attrs([("axis", 2.into())])),
        ("Reshape", vec![real(&[2, 3]), ix(&[4, 2])], Attrs::new()),
        ("Reshape", vec![real(&[2, 3]), ix(&[-1, 4])], Attrs::new()),
        ("Expand", vec![real(&[2, 3]), ix(&[3, 3])], Attrs::new()),
        ("Gather", vec![real(&[2, 3]), ix(&[0, 2])], Attrs::new()),
        ("Gather", vec![real(&[2, 3]), ix(&[-3])], Attrs::new()),
        ("Slice", vec![real(&[2, 3]), ix(&[0]), ix(&[1]), ix(&[2])], Attrs::new()),
        ("Tile", vec![real(&[2, 3]), ix(&[2, -1])], Attrs::new()),
        ("Pad", vec![real(&[2, 3]), ix(&[0, 0, -3, 0])], Attrs::new()),
        ("Split", vec![real(&[2, 4]), ix(&[1, 2])], attrs([("axis", 1.into())])),
        ("Squeeze", vec![real(&[2, 3]), ix(&[0])], Attrs::new()),
        ("DepthToSpace", vec![real(&[1, 3, 2, 2])], attrs([("blocksize", 2.into())])),
        ("LayerNormalization", vec![real(&[2, 3]), real(&[4])], Attrs::new()),
    ];
    for (op, given, list) in cases {
        for known in [false, true] {
            let mut net = Net::new();
            let operands: Vec<ValueId> = given
                .iter()
                .map(|t| {
                    let name = net.graph.fresh_name("x");
                    let dims = t.shape().iter().map(|d| if known { Dim::Known(*d) } else { Dim::Unknown });
                    let ty = ValueType::Tensor(TensorType::new(t.dtype(), dims.collect::<Vec<_>>()));
                    net.inputs.insert(name.clone(), Value::Tensor(t.clone()));
                    net.graph.add_input(ValueInfo::new(name, ty)).unwrap()
                })
                .collect();
            let n = if op == "Split" { 2 } else { 1 };
            let outputs = net.nodes(op, &operands, list.clone(), n);
            let (model, inputs) = net.model(&outputs);
            let want = interp::run(&model, &inputs).expect_err(op).to_string();
            for isa in levels() {
                let got = jit(&model, &inputs, isa).expect_err(op).to_string();
                assert!(
                    got == want,
                    "{op} at {isa}, extents known {known}: {got}\nbut the interpreter: {want}"
                );
            }
        }
    }
}
