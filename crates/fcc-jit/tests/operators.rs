//! Every lowering against the interpreter: small graphs at several shapes, levels and thread counts.
mod common;

use common::net::{Net, Within, attrs};
use fcc_ir::Tensor;
use fcc_ir::attr::Attrs;

#[test]
fn elementwise_functions() {
    let special =
        [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 90.0, -90.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for (op, within) in [
        ("Relu", Within::Exact),
        ("LeakyRelu", Within::Exact),
        ("Abs", Within::Exact),
        ("Neg", Within::Exact),
        ("Sqrt", Within::Exact),
        ("Floor", Within::Exact),
        ("Ceil", Within::Exact),
        ("Round", Within::Exact),
        ("Sign", Within::Exact),
        ("Reciprocal", Within::Exact),
        ("HardSigmoid", Within::Relative(1e-6)),
        ("HardSwish", Within::Relative(1e-6)),
        ("Sigmoid", Within::Relative(1e-6)),
        ("Tanh", Within::Relative(1e-6)),
        ("Erf", Within::Relative(1e-6)),
        ("Exp", Within::Relative(1e-6)),
        ("Softsign", Within::Relative(1e-6)),
    ] {
        for n in [1, 15, 16, 17, 70, 3000] {
            let mut net = Net::new();
            let mut values = net.reals(&[n]).as_slice::<f32>().unwrap().into_owned();
            values.iter_mut().zip(special).for_each(|(v, s)| *v = s);
            let x = net.given(Tensor::new(vec![n], values).unwrap());
            let y = net.op(op, &[x]);
            net.check(&[y], within);
        }
    }
}

#[test]
fn binary_operators_broadcast() {
    let shapes: [(&[usize], &[usize]); 8] = [
        (&[5], &[5]),
        (&[2, 3, 5], &[5]),
        (&[2, 3, 5], &[3, 1]),
        (&[2, 1, 5], &[3, 1]),
        (&[4, 17, 3, 5], &[1, 17, 1, 1]),
        (&[1], &[2, 19]),
        (&[2, 40, 6, 7], &[2, 1, 6, 7]),
        (&[3, 9000], &[3, 1]),
    ];
    for op in ["Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu"] {
        for (a, b) in shapes {
            // the slope stretches to x, not the other way
            let grows =
                a.len() < b.len() || a.iter().product::<usize>() < b.iter().product() || a == [2, 1, 5];
            if op == "PRelu" && grows {
                continue;
            }
            let mut net = Net::new();
            let (a, b) = (net.input(a), net.input(b));
            let y = net.op(op, &[a, b]);
            net.check(&[y], Within::Exact);
        }
    }
}

#[test]
fn minimum_and_maximum_keep_nan() {
    for op in ["Min", "Max"] {
        let mut net = Net::new();
        let values = |a: f32, b: f32| Tensor::new(vec![4], vec![a, b, 1.0, f32::NAN]).unwrap();
        let (a, b) = (net.given(values(f32::NAN, 2.0)), net.given(values(3.0, f32::NAN)));
        let y = net.op(op, &[a, b]);
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn chains_become_one_step() {
    let mut net = Net::new();
    let x = net.input(&[3, 33]);
    let c = net.weight(&[33]);
    let a = net.op("Mul", &[x, c]);
    let b = net.op("Abs", &[a]);
    let d = net.op("Add", &[b, x]);
    let y = net.op("Relu", &[d]);
    net.check(&[y], Within::Exact);
}

fn conv_attrs(strides: i64, pads: i64, group: i64, dilation: i64) -> Attrs {
    attrs([
        ("strides", vec![strides, strides].into()),
        ("pads", vec![pads; 4].into()),
        ("group", group.into()),
        ("dilations", vec![dilation, dilation].into()),
    ])
}

#[test]
fn convolutions_take_batch_norm_activation_and_residual() {
    for (c, m, k, stride, pad) in [(3, 8, 3, 2, 1), (16, 32, 3, 1, 1), (20, 24, 1, 1, 0), (64, 40, 3, 1, 1)] {
        let mut net = Net::new();
        let x = net.input(&[2, c, 9, 11]);
        let (w, b) = (net.weight(&[m, c, k, k]), net.weight(&[m]));
        let y = net.node("Conv", &[x, w, b], conv_attrs(stride, pad, 1, 1));
        let one = |net: &mut Net| {
            let t =
                Tensor::new(vec![m], (0..m).map(|i| [1.0f32, 2.0, 0.5][i % 3]).collect::<Vec<_>>()).unwrap();
            net.constant(t)
        };
        let (scale, mean) = (one(&mut net), one(&mut net));
        let shift = net.weight(&[m]);
        let var = net.constant(Tensor::new(vec![m], vec![1.0f32; m]).unwrap());
        let y =
            net.node("BatchNormalization", &[y, scale, shift, mean, var], attrs([("epsilon", 0f32.into())]));
        let z = net.op("Relu", &[y]);
        let w2 = net.weight(&[m, m, 1, 1]);
        let r = net.op("Conv", &[z, w2]);
        let sum = net.op("Add", &[r, z]);
        let out = net.op("Relu", &[sum]);
        net.check(&[out], Within::Exact);
    }
}

#[test]
fn grouped_and_depthwise_convolutions() {
    for (c, m, group) in [(32, 32, 32), (24, 24, 24), (32, 64, 2), (12, 24, 3), (20, 40, 20)] {
        let mut net = Net::new();
        let x = net.input(&[1, c, 7, 8]);
        let w = net.weight(&[m, c / group, 3, 3]);
        let y = net.node("Conv", &[x, w], conv_attrs(1, 1, group as i64, 1));
        let y = net.op("Relu", &[y]);
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn convolutions_of_one_and_three_spatial_axes() {
    let mut net = Net::new();
    let x = net.input(&[2, 5, 20]);
    let w = net.weight(&[18, 5, 3]);
    let y = net.node("Conv", &[x, w], attrs([("pads", vec![1, 2].into())]));
    net.check(&[y], Within::Exact);
    let mut net = Net::new();
    let x = net.input(&[1, 17, 4, 5, 6]);
    let w = net.weight(&[6, 17, 2, 3, 1]);
    let y = net.node("Conv", &[x, w], attrs([("pads", vec![1, 1, 0, 0, 1, 0].into())]));
    net.check(&[y], Within::Exact);
}

#[test]
fn transposed_convolutions() {
    // where windows do not overlap and a vector holds all of one, it is a 1x1 convolution
    let cases = [
        (1, 16, 24, [2, 2], [2, 2]),
        (1, 24, 1, [2, 2], [2, 2]),
        (3, 5, 2, [1, 3], [1, 3]),
        (3, 37, 1, [3, 2], [3, 2]),
        (1, 20, 18, [4, 4], [2, 2]),
    ];
    for (n, c, m, [kh, kw], strides) in cases {
        let mut net = Net::new();
        let x = net.input(&[n, c, 5, 6]);
        let (w, b) = (net.weight(&[c, m, kh, kw]), net.weight(&[m]));
        let y = net.node("ConvTranspose", &[x, w, b], attrs([("strides", strides.to_vec().into())]));
        let s = net.weight(&[m, 1, 1]);
        let y = net.op("Mul", &[y, s]);
        let y = net.op("Relu", &[y]);
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn pools_between_convolutions() {
    for op in ["MaxPool", "AveragePool"] {
        for (k, stride, pad, ceil) in [(2, 2, 0, 0), (3, 2, 1, 0), (3, 1, 1, 0), (3, 2, 0, 1)] {
            let mut net = Net::new();
            let x = net.input(&[1, 20, 8, 9]);
            let w = net.weight(&[20, 20, 1, 1]);
            let y = net.op("Conv", &[x, w]);
            let list = attrs([
                ("kernel_shape", vec![k, k].into()),
                ("strides", vec![stride, stride].into()),
                ("pads", vec![pad; 4].into()),
                ("ceil_mode", i64::into(ceil)),
            ]);
            let y = net.node(op, &[y], list);
            let z = net.op("GlobalAveragePool", &[y]);
            net.check(&[y, z], Within::Relative(1e-6));
        }
    }
}

#[test]
fn concatenation_along_channels_aligned_or_not() {
    for channels in [[16, 32, 16], [24, 24, 8], [3, 20, 40], [16, 5, 16]] {
        let mut net = Net::new();
        let x = net.input(&[2, 16, 5, 6]);
        let mut parts = vec![];
        for m in channels {
            let w = net.weight(&[m, 16, 3, 3]);
            parts.push(net.node("Conv", &[x, w], conv_attrs(1, 1, 1, 1)));
        }
        let y = net.node("Concat", &parts, attrs([("axis", 1i64.into())]));
        let total: usize = channels.iter().sum();
        let w = net.weight(&[17, total, 3, 3]);
        let z = net.node("Conv", &[y, w], conv_attrs(1, 1, 1, 1));
        // parts are read besides, and the whole again in another concatenation
        let again = net.node("Concat", &[y, parts[0], z], attrs([("axis", 1i64.into())]));
        net.check(&[y, z, again, parts[1]], Within::Exact);
    }
}

#[test]
fn splits_of_channels_are_views_and_come_together_again() {
    let mut net = Net::new();
    let x = net.input(&[1, 16, 6, 5]);
    let w = net.weight(&[64, 16, 1, 1]);
    let y = net.op("Conv", &[x, w]);
    let halves = net.nodes("Split", &[y], attrs([("axis", 1i64.into()), ("num_outputs", 2i64.into())]), 2);
    let w = net.weight(&[32, 32, 3, 3]);
    let a = net.node("Conv", &[halves[1], w], conv_attrs(1, 1, 1, 1));
    let b = net.op("Add", &[a, halves[1]]);
    let y = net.node("Concat", &[halves[0], halves[1], b], attrs([("axis", 1i64.into())]));
    let w = net.weight(&[20, 96, 3, 3]);
    let z = net.node("Conv", &[y, w], conv_attrs(1, 1, 1, 1));
    net.check(&[z, y], Within::Exact);
}

#[test]
fn squeeze_and_excite() {
    let mut net = Net::new();
    let x = net.input(&[2, 24, 6, 7]);
    let w = net.weight(&[24, 24, 1, 1]);
    let y = net.op("Conv", &[x, w]);
    let p = net.op("GlobalAveragePool", &[y]);
    let w = net.weight(&[24, 24, 1, 1]);
    let g = net.op("Conv", &[p, w]);
    let g = net.op("HardSigmoid", &[g]);
    // means of large sums go through a product: their rounding is what differs
    let z = net.op("Mul", &[y, g]);
    net.check(&[z], Within::Relative(2e-4));
}

#[test]
fn matrix_products() {
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[5, 7], &[7, 9]),
        (&[3, 5, 7], &[7, 33]),
        (&[2, 3, 5, 7], &[2, 3, 7, 4]),
        (&[2, 1, 5, 7], &[3, 7, 4]),
        (&[1, 40], &[40, 1]),
        (&[2, 3, 1, 7], &[7, 16]),
    ];
    for (a, b) in shapes {
        for constant in [false, true] {
            let mut net = Net::new();
            let x = net.input(a);
            let w = if constant { net.weight(b) } else { net.input(b) };
            let y = net.op("MatMul", &[x, w]);
            let bias = net.weight(&b[b.len() - 1..]);
            let z = net.op("Add", &[y, bias]);
            let z = net.op("Relu", &[z]);
            net.check(&[z], Within::Exact);
        }
    }
}

#[test]
fn general_matrix_products() {
    for (ta, tb) in [(0i64, 0i64), (0, 1), (1, 0), (1, 1)] {
        for constant in [false, true] {
            for c in [&[9usize][..], &[5, 9], &[1], &[1, 9]] {
                let mut net = Net::new();
                let a = net.input(if ta == 1 { &[7, 5] } else { &[5, 7] });
                let shape: &[usize] = if tb == 1 { &[9, 7] } else { &[7, 9] };
                let b = if constant { net.weight(shape) } else { net.input(shape) };
                let c = net.weight(c);
                let list = attrs([
                    ("transA", ta.into()),
                    ("transB", tb.into()),
                    ("alpha", 2f32.into()),
                    ("beta", 0.5f32.into()),
                ]);
                let y = net.node("Gemm", &[a, b, c], list);
                net.check(&[y], Within::Exact);
            }
        }
    }
}

#[test]
fn softmax_along_any_axis() {
    for shape in [&[3, 10][..], &[2, 70], &[2, 5, 33], &[1, 1000], &[4, 1]] {
        for axis in 0..shape.len() as i64 {
            let mut net = Net::new();
            let x = net.real_input(shape);
            let y = net.node("Softmax", &[x], attrs([("axis", axis.into())]));
            net.check(&[y], Within::Relative(2e-6));
        }
    }
}

#[test]
fn reductions() {
    for op in ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2"]
    {
        for (shape, axes) in
            [(&[3, 70][..], &[1i64][..]), (&[4, 5, 33], &[1]), (&[2, 3, 4, 5], &[1, 2]), (&[200], &[0])]
        {
            let mut net = Net::new();
            let x = net.input(shape);
            let a = net.ints(axes);
            let y = net.op(op, &[x, a]);
            net.check(&[y], Within::Relative(1e-6));
        }
    }
}

#[test]
fn extremes_keep_nan_in_reductions() {
    for op in ["ReduceMax", "ReduceMin"] {
        for at in [0, 5, 20, 69] {
            let mut net = Net::new();
            let mut values = net.reals(&[2, 70]).as_slice::<f32>().unwrap().into_owned();
            values[at] = f32::NAN;
            let x = net.given(Tensor::new(vec![2, 70], values).unwrap());
            let a = net.ints(&[1]);
            let y = net.op(op, &[x, a]);
            net.check(&[y], Within::Exact);
        }
    }
}

#[test]
fn normalisations() {
    for n in [5, 16, 70, 384] {
        let mut net = Net::new();
        let x = net.real_input(&[3, 7, n]);
        let (s, b) = (net.reals(&[n]), net.reals(&[n]));
        let (s, b) = (net.constant(s), net.constant(b));
        let y = net.op("LayerNormalization", &[x, s, b]);
        net.check(&[y], Within::Relative(5e-6));
        let mut net = Net::new();
        let x = net.real_input(&[2, 3, n, 2]);
        let (s, b) = (net.reals(&[3]), net.reals(&[3]));
        let (s, b) = (net.constant(s), net.constant(b));
        let y = net.op("InstanceNormalization", &[x, s, b]);
        net.check(&[y], Within::Relative(5e-6));
    }
    for size in [3i64, 5] {
        let mut net = Net::new();
        let x = net.real_input(&[2, 9, 4, 5]);
        let y = net.node("LRN", &[x], attrs([("size", size.into()), ("alpha", 0.5f32.into())]));
        net.check(&[y], Within::Relative(2e-6));
    }
}

#[test]
fn transposes() {
    let shapes: [(&[usize], &[i64]); 6] = [
        (&[5, 7], &[1, 0]),
        (&[33, 40], &[1, 0]),
        (&[2, 3, 4, 5], &[0, 2, 3, 1]),
        (&[2, 9, 8, 5], &[0, 3, 1, 2]),
        (&[2, 6, 3, 16], &[0, 2, 1, 3]),
        (&[4, 3, 5], &[2, 1, 0]),
    ];
    for (shape, perm) in shapes {
        let mut net = Net::new();
        let x = net.input(shape);
        let y = net.node("Transpose", &[x], attrs([("perm", perm.to_vec().into())]));
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn concatenation_of_many() {
    for axis in [0i64, 2] {
        let mut net = Net::new();
        let parts: Vec<_> =
            (0..40).map(|i| net.input(&if axis == 0 { [i % 3, 5, 7] } else { [2, 5, i % 4] })).collect();
        let y = net.node("Concat", &parts, attrs([("axis", axis.into())]));
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn slices_pads_and_tiles() {
    let mut net = Net::new();
    let x = net.input(&[4, 9, 10]);
    let lists = [[1i64, 8, 0], [4, 0, 10], [0, 1, 2], [1, -2, 3]].map(|l| net.ints(&l));
    let a = net.op("Slice", &[x, lists[0], lists[1], lists[2], lists[3]]);
    let lists = [[2i64], [4], [0]].map(|l| net.ints(&l));
    let b = net.op("Slice", &[x, lists[0], lists[1], lists[2]]);
    let b = net.op("Relu", &[b]);
    let pads = net.ints(&[0, 2, 1, 1, 3, 2]);
    let mut padded = vec![];
    for mode in ["constant", "reflect", "edge", "wrap"] {
        padded.push(net.node("Pad", &[x, pads], attrs([("mode", mode.into())])));
    }
    let repeats = net.ints(&[2, 1, 3]);
    let t = net.op("Tile", &[x, repeats]);
    let shape = net.ints(&[5, 4, 9, 10]);
    let e = net.op("Expand", &[x, shape]);
    let indices = net.ints(&[1, 3]);
    let g = net.node("Gather", &[x, indices], attrs([("axis", 1i64.into())]));
    let parts = net.nodes("Split", &[x], attrs([("axis", 2i64.into()), ("num_outputs", 3i64.into())]), 3);
    let all = [vec![a, b, t, e, g], padded, parts].concat();
    net.check(&all, Within::Exact);
}

#[test]
fn space_and_depth() {
    for mode in ["DCR", "CRD"] {
        let mut net = Net::new();
        // the first one in which both operators have a mode
        net.graph.opsets = fcc_ir::op::default_opsets(28);
        let x = net.input(&[2, 12, 3, 5]);
        let y = net.node("DepthToSpace", &[x], attrs([("blocksize", 2i64.into()), ("mode", mode.into())]));
        let z = net.input(&[1, 3, 4, 6]);
        let z = net.node("SpaceToDepth", &[z], attrs([("blocksize", 2i64.into()), ("mode", mode.into())]));
        net.check(&[y, z], Within::Exact);
    }
}

#[test]
fn resizing() {
    for (mode, coordinates) in [
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("cubic", "half_pixel"),
    ] {
        let mut net = Net::new();
        let x = net.real_input(&[1, 20, 4, 5]);
        let w = net.weight(&[18, 20, 1, 1]);
        let y = net.op("Conv", &[x, w]);
        let empty = net.constant(Tensor::new(vec![0], Vec::<f32>::new()).unwrap());
        let scales = net.constant(Tensor::new(vec![4], vec![1f32, 1.0, 2.0, 3.0]).unwrap());
        let list = attrs([("mode", mode.into()), ("coordinate_transformation_mode", coordinates.into())]);
        let y = net.node("Resize", &[y, empty, scales], list);
        let w = net.weight(&[3, 18, 3, 3]);
        let y = net.node("Conv", &[y, w], conv_attrs(1, 1, 1, 1));
        net.check(&[y], Within::Relative(5e-6));
    }
}

#[test]
fn activations_spelt_as_several_operators() {
    let scalar = |net: &mut Net, v: f32| net.constant(Tensor::scalar(v));
    for spelling in 0..4 {
        let mut net = Net::new();
        let x = net.real_input(&[1, 16, 5, 6]);
        let w = net.weight(&[24, 16, 1, 1]);
        let x = net.op("Conv", &[x, w]);
        let y = match spelling {
            0 => {
                let s = net.op("Sigmoid", &[x]);
                net.op("Mul", &[x, s])
            }
            1 => {
                let (three, six) = (scalar(&mut net, 3.0), scalar(&mut net, 6.0));
                let (zero, top) = (scalar(&mut net, 0.0), scalar(&mut net, 6.0));
                let a = net.op("Add", &[x, three]);
                let a = net.op("Clip", &[a, zero, top]);
                let a = net.op("Mul", &[x, a]);
                let a = net.op("Div", &[a, six]);
                let (k, c) = (scalar(&mut net, 0.75), scalar(&mut net, -0.25));
                let a = net.op("Mul", &[a, k]);
                net.op("Add", &[a, c])
            }
            2 => {
                let (root, one, half) = (
                    scalar(&mut net, std::f32::consts::SQRT_2),
                    scalar(&mut net, 1.0),
                    scalar(&mut net, 0.5),
                );
                let a = net.op("Div", &[x, root]);
                let a = net.op("Erf", &[a]);
                let a = net.op("Add", &[a, one]);
                let a = net.op("Mul", &[x, a]);
                net.op("Mul", &[a, half])
            }
            _ => {
                let h = net.node("HardSigmoid", &[x], attrs([("alpha", (1.0f32 / 6.0).into())]));
                net.op("Mul", &[x, h])
            }
        };
        net.check(&[y], Within::Relative(2e-6));
    }
}

#[test]
fn values_read_in_two_forms() {
    let mut net = Net::new();
    let x = net.input(&[2, 20, 4, 6]);
    let w = net.weight(&[20, 20, 3, 3]);
    let y = net.node("Conv", &[x, w], conv_attrs(1, 1, 1, 1));
    let z = net.node("Conv", &[y, w], conv_attrs(1, 1, 1, 1));
    let shape = net.ints(&[2, -1]);
    let flat = net.op("Reshape", &[y, shape]);
    let m = net.weight(&[480, 7]);
    let out = net.op("MatMul", &[flat, m]);
    let sum = net.op("Add", &[y, x]);
    net.check(&[z, out, sum, y], Within::Exact);
}

/// What Winograd's transforms cannot carry is computed by plain sums, in the same run.
#[test]
fn infinities_and_nan_go_through_convolutions_as_through_plain_sums() {
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let mut net = Net::new();
        let (n, c, h, w) = (1, 64, 12, 14);
        let mut values: Vec<f32> = (0..n * c * h * w).map(|i| ((i * 7) % 9) as f32 - 4.0).collect();
        values[3 * h * w + 5 * w + 6] = bad;
        let x = net.given(Tensor::new(vec![n, c, h, w], values).unwrap());
        let w = net.weight(&[48, 64, 3, 3]);
        let y = net.node("Conv", &[x, w], conv_attrs(1, 1, 1, 1));
        let relu = net.op("Relu", &[y]);
        net.check(&[y, relu], Within::Exact);
    }
}
