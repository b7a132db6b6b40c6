//! Products and convolutions of bytes by tiles, bit for bit those of the interpreter.

use crate::common::amx::{amx, assert_released};
use crate::common::net::{Net, run_guarded};
use fcc_ir::attr::Attrs;
use fcc_ir::{Tensor, ValueId, interp};
use fcc_jit::{Isa, Options, compile};

/// Bytes of which a third are the extremes; signed ones are the same less 128.
fn bytes(net: &mut Net, signed: bool, shape: &[usize]) -> Tensor {
    let mut one = || match net.next() % 6 {
        0 => 255,
        1 => 0,
        _ => net.next() as u8,
    };
    let values: Vec<u8> = (0..shape.iter().product()).map(|_| one()).collect();
    match signed {
        false => Tensor::new(shape, values),
        true => Tensor::new(shape, values.into_iter().map(|v| (v ^ 0x80) as i8).collect::<Vec<i8>>()),
    }
    .expect("tensor")
}

/// Compares with the interpreter on one and two threads; at least `least` kernels are of tiles.
fn check(net: Net, outputs: &[ValueId], least: usize) {
    let (model, inputs) = net.model(outputs);
    let want = interp::run(&model, &inputs).expect("interpreter");
    for threads in [1, 2] {
        let mut options = Options::with_threads(threads);
        options.isa = Isa::Amx;
        let compiled = compile(&model, &options).expect("compile");
        let plan = compiled.plan_for(&inputs).expect("plan");
        let tiles = plan.steps().filter(|s| s.kernel.contains(" amx ")).count();
        assert!(tiles >= least, "{tiles} of {least}\n{plan}");
        for _ in 0..2 {
            assert_eq!(run_guarded(&compiled, &inputs).expect("run"), want, "{plan}");
            assert_released();
        }
    }
}

#[test]
fn products_are_exact() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let mut out = vec![];
    for (signed_a, signed_b) in [(false, false), (false, true), (true, false), (true, true)] {
        for (m, n, k) in [(8, 16, 64), (9, 5, 33), (17, 33, 127), (33, 40, 65), (40, 1, 200)] {
            let (a, b) = (bytes(&mut net, signed_a, &[m, k]), bytes(&mut net, signed_b, &[k, n]));
            // zero points far from the middle: weights are sums of two or three bytes
            let (za, zb) = (bytes(&mut net, signed_a, &[1]), bytes(&mut net, signed_b, &[n]));
            let (a, b) = (net.given(a), net.constant(b));
            let (za, zb) = (if m % 2 == 0 { net.given(za) } else { net.constant(za) }, net.constant(zb));
            out.push(net.op("MatMulInteger", &[a, b, za, zb]));
        }
    }
    // matrices of a batch, one A for all of them, one B for all of them
    for (a, b) in [
        (vec![3, 9, 70], vec![3, 70, 20]),
        (vec![1, 8, 64], vec![2, 64, 7]),
        (vec![2, 3, 8, 40], vec![40, 7]),
    ] {
        let (a, b) = (bytes(&mut net, false, &a), bytes(&mut net, true, &b));
        let (a, b) = (net.given(a), net.constant(b));
        out.push(net.op("MatMulInteger", &[a, b]));
    }
    let all = out.len();
    check(net, &out, all);
}

#[test]
fn convolutions_pad_with_the_zero_point() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let mut out = vec![];
    for (signed_a, signed_b) in [(false, false), (false, true), (true, false), (true, true)] {
        for (shape, w, strides) in [
            ([1, 32, 5, 7], [9, 32, 3, 3], 1i64),
            ([2, 40, 4, 19], [33, 40, 1, 3], 1),
            ([1, 100, 6, 5], [16, 100, 3, 1], 2),
            ([1, 64, 7, 7], [20, 64, 1, 1], 1),
        ] {
            let (x, w) = (bytes(&mut net, signed_a, &shape), bytes(&mut net, signed_b, &w));
            let (zx, zw) = (bytes(&mut net, signed_a, &[]), bytes(&mut net, signed_b, &[w.shape()[0]]));
            let pads = vec![w.shape()[2] as i64 / 2, 0, 1, w.shape()[3] as i64 - 1];
            let attrs = Attrs::new().with("strides", vec![strides; 2]).with("pads", pads);
            let (x, w) = (net.given(x), net.constant(w));
            let zx = if shape[0] == 2 { net.given(zx) } else { net.constant(zx) };
            let zw = net.constant(zw);
            out.push(net.node("ConvInteger", &[x, w, zx, zw], attrs));
        }
    }
    // groups of whole tiles
    let (x, w) = (bytes(&mut net, true, &[1, 128, 3, 5]), bytes(&mut net, true, &[32, 64, 2, 2]));
    let (x, w) = (net.given(x), net.constant(w));
    out.push(net.node("ConvInteger", &[x, w], Attrs::new().with("group", 2i64)));
    let all = out.len();
    check(net, &out, all);
}

/// The same value around which convolutions want different zero points, each in rows of tiles of its own.
#[test]
fn two_zero_points_of_one_value_stay_apart() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let x = bytes(&mut net, false, &[1, 48, 4, 5]);
    let x = net.given(x);
    let mut out = vec![];
    for zero in [3u8, 250, 3] {
        let w = bytes(&mut net, true, &[6, 48, 3, 3]);
        let (w, z) = (net.constant(w), net.constant(Tensor::scalar(zero)));
        out.push(net.node("ConvInteger", &[x, w, z], Attrs::new().with("pads", vec![1i64; 4])));
    }
    check(net, &out, 3);
}

/// Requantised, with the next convolution reading what the first one made.
#[test]
fn requantised_convolutions_agree() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let x = bytes(&mut net, false, &[1, 35, 6, 9]);
    let mut y = net.given(x);
    for (m, c) in [(50, 35), (33, 50)] {
        let w = bytes(&mut net, true, &[m, c, 3, 3]);
        let scales: Vec<f32> = (0..m).map(|_| (net.next() % 1000 + 1) as f32 / 70000.0).collect();
        let bias: Vec<i32> = (0..m).map(|_| net.next() as i32 % 9000 - 4500).collect();
        let zw = net.constant(Tensor::new([m], vec![0i8; m]).expect("zeros"));
        let (w, sw) = (net.constant(w), net.constant(Tensor::new([m], scales).expect("scales")));
        let bias = net.constant(Tensor::new([m], bias).expect("bias"));
        let (sx, zx) = (net.constant(Tensor::scalar(0.02f32)), net.constant(Tensor::scalar(120u8)));
        let (sy, zy) = (net.constant(Tensor::scalar(0.9f32)), net.constant(Tensor::scalar(100u8)));
        let inputs = [y, sx, zx, w, sw, zw, sy, zy, bias];
        y = net.node("QLinearConv", &inputs, Attrs::new().with("pads", vec![1i64; 4]));
    }
    check(net, &[y], 2);
}
