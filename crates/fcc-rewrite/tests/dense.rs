//! Classifiers that slide: equal to the original on every window, or declined with the values that are in the way.
mod common;
use common::{Net, ops, parse, rewrite};
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::{Dim, Model, NodeKind, Tensor};
use fcc_rewrite::Declined;
use fcc_rewrite::dense::{Dense, Padding, check, check_alone, dense};

fn ints(values: &[i64]) -> Vec<i64> {
    values.to_vec()
}

/// LeNet without padding on 16x20 images: 5x5, pool, 3x3, pool, three linear layers, Softmax.
fn lenet(batch: Option<usize>) -> Model {
    let mut net = Net::new(17, 3);
    let x = net.input("x", &[batch, Some(1), Some(16), Some(20)]);
    let pool = || Attrs::new().with("kernel_shape", ints(&[2, 2])).with("strides", ints(&[2, 2]));
    let (w1, b1) = (net.weight("w1", &[4, 1, 5, 5]), net.weight("b1", &[4]));
    let v = net.op("Conv", "conv1", &[x, w1, b1], Attrs::new());
    let v = net.op("Relu", "relu1", &[v], Attrs::new());
    let v = net.op("MaxPool", "pool1", &[v], pool());
    let w2 = net.weight("w2", &[6, 4, 3, 3]);
    let v = net.op("Conv", "conv2", &[v, w2], Attrs::new());
    let v = net.op("MaxPool", "pool2", &[v], pool());
    let v = net.op("Flatten", "flat", &[v], Attrs::new());
    let (w3, b3) = (net.weight("w3", &[36, 10]), net.weight("b3", &[10]));
    let v = net.op("Gemm", "fc1", &[v, w3, b3], Attrs::new());
    let v = net.op("Relu", "relu3", &[v], Attrs::new());
    let (w4, b4) = (net.weight("w4", &[10, 5]), net.weight("b4", &[5]));
    let v = net.op("MatMul", "fc2", &[v, w4], Attrs::new());
    let v = net.op("Add", "fc2b", &[v, b4], Attrs::new());
    let scale =
        net.graph.add_constant("scale", Tensor::new([1, 5], vec![2e-6f32, 5e-6, 1e-5, 1e-6, -5e-6]).unwrap());
    let v = net.op("Mul", "scaled", &[v, scale.unwrap()], Attrs::new());
    let y = net.op("Softmax", "y", &[v], Attrs::new().with("axis", -1i64));
    net.output(y)
}

/// The model before and after, as `fcc rewrite --dense` makes it.
fn made(original: &Model) -> (Model, Dense) {
    let (rewritten, report) = rewrite(original, &["clean-up", "linear-to-conv", "clean-up"]);
    let dense = dense(&rewritten, Padding::Decline).unwrap_or_else(|d| panic!("{d}\n{report}"));
    assert_eq!(check(original, &rewritten, &dense.model, &dense.windows).unwrap(), None);
    (rewritten, dense)
}

fn declined(text: &str) -> Declined {
    let (rewritten, _) = rewrite(&parse(text), &["clean-up", "linear-to-conv", "clean-up"]);
    dense(&rewritten, Padding::Decline).err().unwrap_or_else(|| panic!("dense: {:?}", ops(&rewritten)))
}

#[test]
fn a_classifier_slides_over_larger_images() {
    for batch in [None, Some(1), Some(3)] {
        let (_, Dense { model, windows }) = made(&lenet(batch));
        assert_eq!((windows.extents, windows.strides), (vec![16, 20], vec![4, 4]));
        assert_eq!(windows.symbols, ["H", "W"]);
        let dims = model.graph.inputs[0].info.ty.as_tensor().unwrap().shape.clone().unwrap();
        assert!(dims[2].same(&Dim::symbol("H")) && dims[3].same(&Dim::symbol("W")));
        assert!(!ops(&model).iter().any(|op| op == "Flatten" || op == "Gemm"), "{:?}", ops(&model));
        let y = model.graph.outputs[0].info.ty.as_tensor().unwrap().shape.clone().unwrap();
        assert_eq!((y.len(), &y[1]), (4, &Dim::Known(5)));
        let n = batch.unwrap_or(2);
        let image = Tensor::new([n, 1, 40, 24], vec![0.5f32; n * 960]).unwrap();
        let run = interp::run(&model, &Values::from([("x".into(), image.into())])).unwrap();
        assert_eq!(run["y"].as_tensor().unwrap().shape(), [n, 5, 7, 2]);
    }
}

#[test]
fn the_check_finds_a_wrong_weight_and_names_the_window() {
    let original = lenet(None);
    let (rewritten, mut dense) = made(&original);
    let value = dense.model.graph.value("w2").unwrap();
    let NodeKind::Constant(c) = &mut dense.model.graph.node_mut(value.node).kind else { panic!() };
    let mut data = c.tensor.as_slice::<f32>().unwrap().into_owned();
    data[7] += 0.5;
    c.tensor = Tensor::new(c.tensor.shape().to_vec(), data).unwrap();
    let why = check(&original, &rewritten, &dense.model, &dense.windows).unwrap().unwrap();
    assert!(why.starts_with("`y` of the window at [0, 0]: "), "{why}");
}

#[test]
fn one_and_three_spatial_axes_slide_too() {
    for (spatial, kernel, k) in [(vec![9], vec![4], 2 * 6), (vec![5, 6, 4], vec![2, 3, 4], 2 * 4 * 4)] {
        let mut net = Net::new(17, 9);
        let shape: Vec<Option<usize>> =
            [None, Some(3)].into_iter().chain(spatial.iter().map(|n| Some(*n))).collect();
        let x = net.input("x", &shape);
        let w = net.weight("w", &[&[2, 3], &kernel[..]].concat());
        let v = net.op("Conv", "conv", &[x, w], Attrs::new());
        let v = net.op("Flatten", "flat", &[v], Attrs::new());
        let w = net.weight("w2", &[k, 4]);
        let y = net.op("MatMul", "y", &[v, w], Attrs::new());
        let (_, dense) = made(&net.output(y));
        assert_eq!(dense.windows.strides, vec![1; spatial.len()]);
    }
}

#[test]
fn rows_of_two_branches_are_joined_and_features_slide_too() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,2,6,5] x) => (float[N,5] y, float[N,3,2,2] c)
        <float[3,2,3,2] k = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9},
         float[12,2] a = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6},
         float[12,3] b = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9},
         float[5] s = {1,2,3,4,5}> {
            c = Conv<strides = [2, 3]>(x, k)
            f = Flatten(c)
            p = Gemm(f, a)
            q = MatMul(f, b)
            j = Concat<axis = -1>(p, q)
            y = Add(s, j)
        }"#;
    let (_, dense) = made(&parse(text));
    assert_eq!(dense.windows.strides, [2, 3]);
}

#[test]
fn what_sees_more_than_a_window_is_declined_with_its_values() {
    let model = |opset: usize, body: &str| {
        format!(
            r#"<ir_version: 8, opset_import: ["" : {opset}]>
            main (float[N,2,4,6] x) => (y) <float[2,2,3,3] k = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}},
            float[2,3] w = {{1,2,3,4,5,6}}, float[2,1,4] s = {{1,2,3,4,5,6,7,8}}, int64[2] three = {{-1, 48}}, float[4,4] v = {{1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}}> {{ {body} }}"#
        )
    };
    for (opset, body, what, got) in [
        (17, "y = Conv<pads = [1, 1, 1, 1]>(x, k)", "pads of ", "[1, 1, 1, 1]"),
        (17, "y = Conv<auto_pad = \"SAME_UPPER\">(x, k)", "pads of ", "SameUpper"),
        (
            17,
            "p = GlobalAveragePool(x) f = Flatten(p) y = MatMul(f, w)",
            "GlobalAveragePool",
            "GlobalAveragePool",
        ),
        (17, "y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)", "ceil_mode", "1"),
        (17, "y = Reshape(x, three)", "Reshape", "[N,2,4,6] to "),
        (17, "y = Transpose(x)", "Transpose", "may read the whole image"),
        (17, "c = Conv(x, k) y = Add(c, s)", "Add", "[2, 1, 4]"),
        (17, "y = Softmax<axis = 2>(x)", "axis of", "2"),
        (11, "y = Softmax<axis = 1>(x)", "opset of", "11"),
        (17, "y = Shape(x)", "output `y`", "extents"),
        (
            17,
            "a = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(x) b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) c = MaxPool<kernel_shape = [3, 4]>(x) y = Add(a, b)",
            "",
            "",
        ),
        (
            17,
            "a = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(x) c = MaxPool<kernel_shape = [3, 4]>(x) y = Add(a, c)",
            "Add",
            "beside",
        ),
    ] {
        if what.is_empty() {
            let (rewritten, _) = rewrite(&parse(&model(opset, body)), &["clean-up"]);
            assert!(dense(&rewritten, Padding::Decline).is_ok(), "{body}");
            continue;
        }
        let why = declined(&model(opset, body));
        assert!(why.what.contains(what) && why.got.contains(got), "{body}: {why}");
    }
}

#[test]
fn a_model_without_a_single_image_is_declined() {
    let two = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,2,4,6] x, float[N,2,4,6] z) => (y) { y = Add(x, z) }"#;
    assert_eq!(declined(two).got, "`x`, `z`");
    let open = r#"<ir_version: 8, opset_import: ["" : 17]> main (float[N,2,H,6] x) => (y) { y = Relu(x) }"#;
    assert_eq!(declined(open).what, "input `x`");
}

/// Padding, a strided pool with its last place beyond the image, and Softmax as it was before opset 13.
fn padded(pads: &str) -> Model {
    parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 11]>
        main (float[N,1,5,7] x) => (float[N,3] y)
        <float[2,1,3,3] k = {{1,-2,3,-4,5,-6,7,-8,9,1,2,3,4,-5,6,7,8,-9}}, float[2] c = {{-3, 2}},
         float[16,3] w = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,-1,-2,-3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}},
         float[1] scale = {{0.0009765625}}> {{
            a = Conv<{pads}>(x, k, c)
            r = Relu(a)
            p = MaxPool<kernel_shape = [3, 2], strides = [3, 2], ceil_mode = 1>(r)
            f = Flatten(p)
            g = MatMul(f, w)
            s = Mul(g, scale)
            y = Softmax(s)
        }}"#
    ))
}

#[test]
fn layers_that_pad_stay_where_that_is_asked_for() {
    for pads in ["pads = [1, 1, 1, 1]", "auto_pad = \"SAME_LOWER\""] {
        let original = padded(pads);
        let (rewritten, _) = rewrite(&original, &["clean-up", "linear-to-conv", "clean-up"]);
        let why = dense(&rewritten, Padding::Decline).unwrap_err();
        assert!(why.what.starts_with("pads of "), "{why}");
        let made = dense(&rewritten, Padding::Keep).unwrap_or_else(|d| panic!("{d}"));
        assert!(made.windows.padded);
        assert_eq!((&made.windows.extents, &made.windows.strides), (&vec![5, 7], &vec![3, 2]));
        let run = |m: &Model, v: &Values| interp::run(m, v);
        assert_eq!(check_alone(&original, &made.model, &made.windows, &run).unwrap(), None);
        // each place is a distribution over the three channels, as the original's Softmax gave one row by row
        let image: Vec<f32> = (0..2 * 11 * 11).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let image = Tensor::new([2, 1, 11, 11], image).unwrap();
        let run = interp::run(&made.model, &Values::from([("x".into(), image.into())])).unwrap();
        let y = run["y"].as_tensor().unwrap();
        assert_eq!(y.shape(), [2, 3, 3, 3]);
        let data = y.as_slice::<f32>().unwrap();
        for (n, place) in (0..2).flat_map(|n| (0..9).map(move |p| (n, p))) {
            let sum: f32 = (0..3).map(|k| data[(n * 3 + k) * 9 + place]).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
    }
}

#[test]
fn the_check_of_a_padded_model_finds_a_wrong_weight() {
    let original = padded("pads = [1, 1, 1, 1]");
    let (rewritten, _) = rewrite(&original, &["clean-up", "linear-to-conv", "clean-up"]);
    let mut made = dense(&rewritten, Padding::Keep).unwrap();
    let value = made.model.graph.value("k").unwrap();
    let NodeKind::Constant(c) = &mut made.model.graph.node_mut(value.node).kind else { panic!() };
    let mut data = c.tensor.as_slice::<f32>().unwrap().into_owned();
    data[4] += 1.0;
    c.tensor = Tensor::new(c.tensor.shape().to_vec(), data).unwrap();
    let run = |m: &Model, v: &Values| interp::run(m, v);
    let why = check_alone(&original, &made.model, &made.windows, &run).unwrap().unwrap();
    assert!(why.starts_with("`y` of an image of the original's size: "), "{why}");
}

#[test]
fn padding_that_moves_with_the_extents_is_declined() {
    let original = parse(
        r#"<ir_version: 8, opset_import: ["" : 17]> main (float[N,1,5,7] x) => (y)
        <float[1,1,2,2] k = {1,2,3,4}> { y = Conv<auto_pad = "SAME_UPPER", strides = [2, 1]>(x, k) }"#,
    );
    let (rewritten, _) = rewrite(&original, &["clean-up"]);
    let why = dense(&rewritten, Padding::Keep).unwrap_err();
    assert!(why.what.starts_with("auto_pad of "), "{why}");
}
