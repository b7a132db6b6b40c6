//! Linear layers of all kinds: both Linear -> Conv rules keep every bit on small integers, and apply.
mod common;
use common::{Net, Rng, assert_same, count, fired, inputs, rewrite};
use fcc_ir::attr::Attrs;
use fcc_ir::{Model, Tensor, ValueId};

const FULL: &str = "linear-to-full-kernel-conv";
const POINTWISE: &str = "linear-to-pointwise-conv";

fn int64(net: &mut Net, name: &str, values: &[i64]) -> ValueId {
    net.graph.add_constant(name, Tensor::from_i64s(values)).unwrap()
}

/// `y = x @ w (+ b)` in one of the ways models write it; x is `[N, k]`.
fn linear_of_rows(net: &mut Net, x: ValueId, k: usize, m: usize, n: Option<usize>, name: &str) -> ValueId {
    if net.rng.range(0, 1) == 0 {
        let trans = net.rng.range(0, 1);
        let shape = if trans == 1 { [m, k] } else { [k, m] };
        let w = net.weight(&format!("{name}.w"), &shape);
        let (alpha, beta) = (net.rng.pick(&[1.0, 1.0, 0.5, 3.0]), net.rng.pick(&[1.0, 1.0, 2.0]));
        let attrs = Attrs::new().with("transB", trans as i64).with("alpha", alpha).with("beta", beta);
        let shapes: &[&[usize]] = &[&[m], &[1], &[1, m], &[], &[n.unwrap_or(1), m], &[n.unwrap_or(1), 1]];
        let shape = net.rng.pick(shapes);
        let mut inputs = vec![x, w];
        // before opset 11 Gemm has its bias always
        if net.rng.range(0, 3) > 0 || net.graph.opsets[""] < 11 {
            inputs.push(net.weight(&format!("{name}.b"), shape));
        }
        return net.op("Gemm", name, &inputs, attrs);
    }
    let w = net.weight(&format!("{name}.w"), &[k, m]);
    let has_bias = net.rng.range(0, 2) > 0;
    let y = net.op(
        "MatMul",
        &if has_bias { format!("{name}.product") } else { name.into() },
        &[x, w],
        Attrs::new(),
    );
    if !has_bias {
        return y;
    }
    let shapes: &[&[usize]] = &[&[m], &[1], &[1, m], &[]];
    let shape = net.rng.pick(shapes);
    let b = net.weight(&format!("{name}.b"), shape);
    let operands = if net.rng.range(0, 1) == 0 { [y, b] } else { [b, y] };
    net.op("Add", name, &operands, Attrs::new())
}

/// An image, perhaps channels last, flattened in one of the ways models write it, into a linear layer.
fn image_case(seed: u64) -> (Model, bool, usize) {
    let opset = Rng::new(seed).pick(&[11, 13, 17, 21]);
    let mut net = Net::new(opset, seed);
    let rank = net.rng.range(1, 3);
    let mut dims: Vec<usize> = (0..=rank).map(|_| net.rng.range(1, 4)).collect();
    let n = if net.rng.range(0, 1) == 0 { None } else { Some(net.rng.range(1, 3)) };
    let shape: Vec<Option<usize>> = [n].into_iter().chain(dims.iter().map(|d| Some(*d))).collect();
    let mut x = net.input("x", &shape);
    if net.rng.range(0, 1) == 0 {
        // channels last
        let perm: Vec<usize> = std::iter::once(0).chain(2..=rank + 1).chain([1]).collect();
        dims.rotate_left(1);
        let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        x = net.op("Transpose", "last", &[x], Attrs::new().with("perm", perm));
    }
    let k: usize = dims.iter().product();
    let flat = match net.rng.range(0, 3) {
        0 => net.op("Flatten", "flat", &[x], Attrs::new()),
        1 => {
            let shape = int64(&mut net, "shape", &[0, -1]);
            net.op("Reshape", "flat", &[x, shape], Attrs::new())
        }
        2 => {
            let shape = int64(&mut net, "shape", &[-1, k as i64]);
            net.op("Reshape", "flat", &[x, shape], Attrs::new())
        }
        _ => {
            let shape = int64(&mut net, "shape", &[n.map_or(0, |n| n as i64), k as i64]);
            net.op("Reshape", "flat", &[x, shape], Attrs::new())
        }
    };
    let m = net.rng.range(1, 5);
    let y = linear_of_rows(&mut net, flat, k, m, n, "y");
    (net.output(y), n.is_none(), rank)
}

#[test]
fn full_kernel_keeps_every_layer_behind_an_image() {
    for seed in 0..300 {
        let (model, symbolic, rank) = image_case(seed);
        let (rewritten, report) = rewrite(&model, &[FULL]);
        assert!(fired(&report, FULL), "seed {seed}\n{report}");
        assert_eq!(
            (count(&rewritten, "Conv"), count(&rewritten, "Gemm"), count(&rewritten, "MatMul")),
            (1, 0, 0)
        );
        let conv = rewritten
            .graph
            .ops()
            .unwrap()
            .into_iter()
            .find(|id| rewritten.graph.op(*id).unwrap().op_type == "Conv");
        let kernel =
            rewritten.graph.op(conv.unwrap()).unwrap().attrs.ints("kernel_shape").unwrap().unwrap().len();
        assert_eq!(kernel, rank, "seed {seed}");
        for n in if symbolic { &[0, 1, 3][..] } else { &[1] } {
            let given = inputs(&model, &mut Rng::new(seed), &[("N", *n)]);
            // `Reshape` to [0, -1] has no answer for an empty batch; the rewritten model has one
            if *n > 0 || fcc_ir::interp::run(&model, &given).is_ok() {
                assert_same(&model, &rewritten, &given);
            }
        }
    }
}

#[test]
fn pointwise_keeps_every_chain_of_rows() {
    for seed in 0..300 {
        let opset = Rng::new(seed).pick(&[9, 11, 13, 17, 21]);
        let mut net = Net::new(opset, seed);
        let n = if net.rng.range(0, 1) == 0 { None } else { Some(net.rng.range(1, 3)) };
        let mut k = net.rng.range(1, 5);
        let mut x = net.input("x", &[n, Some(k)]);
        let layers = net.rng.range(1, 3);
        for i in 0..layers {
            let m = net.rng.range(1, 5);
            x = linear_of_rows(&mut net, x, k, m, n, &format!("fc{i}"));
            if i + 1 < layers {
                x = net.op("Relu", &format!("relu{i}"), &[x], Attrs::new());
            }
            k = m;
        }
        let model = net.output(x);
        let (rewritten, report) = rewrite(&model, &[POINTWISE]);
        assert_eq!(report.rewritten(POINTWISE).count(), layers, "seed {seed}\n{report}");
        assert_eq!(count(&rewritten, "Conv"), layers);
        for n in if n.is_none() { &[0, 1, 3][..] } else { &[1] } {
            assert_same(&model, &rewritten, &inputs(&model, &mut Rng::new(seed), &[("N", *n)]));
        }
    }
}

#[test]
fn pointwise_keeps_products_of_every_rank_and_side() {
    for seed in 0..300 {
        let mut net = Net::new(17, seed);
        let rank = net.rng.range(1, 5);
        let (k, m) = (net.rng.range(1, 4), net.rng.range(1, 4));
        let left = net.rng.range(0, 2) == 0;
        let vector = net.rng.range(0, 3) == 0;
        let feature = if left && rank > 1 { rank - 2 } else { rank - 1 };
        let symbolic = net.rng.range(0, 1) == 0;
        let shape: Vec<Option<usize>> = (0..rank)
            .map(|i| {
                if i == feature {
                    Some(k)
                } else if symbolic {
                    None
                } else {
                    Some(net.rng.range(1, 3))
                }
            })
            .collect();
        let x = net.input("x", &shape);
        let w_shape = match (left, vector) {
            (_, true) => vec![k],
            (true, false) => vec![m, k],
            (false, false) => vec![k, m],
        };
        let w = net.weight("w", &w_shape);
        let operands = if left { [w, x] } else { [x, w] };
        let mut y = net.op("MatMul", "product", &operands, Attrs::new());
        if !vector && net.rng.range(0, 1) == 0 {
            let shape = if left && rank > 1 { vec![m, 1] } else { vec![m] };
            let b = net.weight("b", &shape);
            y = net.op("Add", "y", &[b, y], Attrs::new());
        }
        let model = net.output(y);
        let (rewritten, report) = rewrite(&model, &[POINTWISE]);
        assert!(fired(&report, POINTWISE), "seed {seed}\n{report}");
        assert_eq!(
            (count(&rewritten, "Conv"), count(&rewritten, "MatMul"), count(&rewritten, "Add")),
            (1, 0, 0),
            "seed {seed}"
        );
        for n in [1, 2] {
            let extents = [("N", n), ("C", n + 1), ("H", 3), ("W", 2), ("D", 1)];
            assert_same(&model, &rewritten, &inputs(&model, &mut Rng::new(seed), &extents));
        }
    }
}

#[test]
fn a_chain_of_layers_becomes_a_chain_of_convolutions() {
    let mut net = Net::new(17, 1);
    let mut x = net.input("x", &[None, Some(2), Some(3), Some(3)]);
    x = net.op("Flatten", "flat", &[x], Attrs::new());
    let w1 = net.weight("w1", &[5, 18]);
    x = net.op("Gemm", "fc1", &[x, w1], Attrs::new().with("transB", 1i64));
    x = net.op("Relu", "r1", &[x], Attrs::new());
    let w2 = net.weight("w2", &[5, 4]);
    x = net.op("MatMul", "fc2", &[x, w2], Attrs::new());
    x = net.op("Sigmoid", "r2", &[x], Attrs::new());
    let w3 = net.weight("w3", &[4, 3]);
    let b3 = net.weight("b3", &[3]);
    x = net.op("Gemm", "fc3", &[x, w3, b3], Attrs::new());
    let model = net.output(x);
    let (rewritten, report) = rewrite(&model, &["linear-to-conv"]);
    let after = common::ops(&rewritten);
    assert_eq!(after, ["Conv", "Relu", "Conv", "Sigmoid", "Conv", "Flatten"], "{report}");
}

#[test]
fn a_chain_over_tokens_becomes_a_chain_of_convolutions() {
    let mut net = Net::new(17, 2);
    let x = net.input("x", &[None, None, Some(4)]);
    let (w1, b1, w2) = (net.weight("w1", &[4, 6]), net.weight("b1", &[6]), net.weight("w2", &[6, 4]));
    let half = net.graph.add_constant("half", Tensor::scalar(0.5f32)).unwrap();
    let h = net.op("MatMul", "h", &[x, w1], Attrs::new());
    let h = net.op("Add", "hb", &[b1, h], Attrs::new());
    // the parts of a gelu: two paths that meet again
    let e = net.op("Erf", "e", &[h], Attrs::new());
    let g = net.op("Mul", "g", &[h, e], Attrs::new());
    let g = net.op("Mul", "scaled", &[g, half], Attrs::new());
    let y = net.op("MatMul", "y", &[g, w2], Attrs::new());
    let model = net.output(y);
    let (rewritten, report) = rewrite(&model, &[POINTWISE]);
    let after = common::ops(&rewritten);
    assert_eq!(after, ["Transpose", "Conv", "Erf", "Mul", "Mul", "Conv", "Transpose"], "{report}");
    for (n, t) in [(1, 1), (2, 5), (0, 3)] {
        assert_same(&model, &rewritten, &inputs(&model, &mut Rng::new(3), &[("N", n), ("C", t)]));
    }
}

/// Where an axis that would become spatial has the extent 0 there would be an image without pixels, which no Conv takes.
#[test]
fn pointwise_declines_a_product_of_no_tokens() {
    let declines = [
        ("float[2,0,4] x", "MatMul (x, w)"),
        ("float[N,3,0,4] x", "MatMul (x, w)"),
        ("float[N,0,3,4] x", "MatMul (x, w)"),
        ("float[4,0] x", "MatMul (w, x)"),
        ("float[N,4,0] x", "MatMul (w, x)"),
        ("float[N,0,4,3] x", "MatMul (w, x)"),
    ];
    let taken = [
        ("float[0,4] x", "MatMul (x, w)"),
        ("float[0,3,4] x", "MatMul (x, w)"),
        ("float[0,4,3] x", "MatMul (w, x)"),
        ("float[0,4] x", "Gemm (x, w)"),
    ];
    let run = |input: &str, product: &str| {
        let w = "float[4,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}";
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]> g ({input}) => (y) <{w}> {{ y = {product} }}"
        );
        let model = common::parse(&text);
        let (rewritten, report) = rewrite(&model, &[POINTWISE]);
        assert_same(&model, &rewritten, &inputs(&model, &mut Rng::new(3), &[("N", 2)]));
        report
    };
    for (input, product) in declines {
        let report = run(input, product);
        let reason = report.rows.iter().find_map(|r| r.reason.clone()).unwrap();
        assert_eq!(reason.what, "shape of x", "{input}: {report}");
        assert!(reason.got.contains('0') && reason.need.contains("at least 1"), "{report}");
    }
    for (input, product) in taken {
        assert!(fired(&run(input, product), POINTWISE), "{input}");
    }
}
