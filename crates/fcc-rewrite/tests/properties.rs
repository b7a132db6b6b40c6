//! Convolutions and linear layers of all kinds: each rule keeps every bit on small integers, and each rule applies.
mod common;
use common::{Net, Rng, assert_same, fired, inputs, rewrite};
use fcc_ir::Model;
use fcc_ir::attr::Attrs;

/// A random Conv: rank 1 to 3, groups, strides, dilations, every kind of padding, kernels larger than the input.
struct ConvCase {
    model: Model,
    symbolic_batch: bool,
    spatial: Vec<usize>,
    text: String,
}

fn conv_case(seed: u64, symbolic_spatial: bool) -> ConvCase {
    let mut rng = Rng::new(seed);
    let rank = rng.range(1, 3);
    let group = rng.pick(&[1, 1, 2, 3]);
    let (cg, mg) = (rng.range(1, 3), rng.range(1, 3));
    let (c, m) = (cg * group, mg * group);
    let kernel: Vec<usize> = (0..rank).map(|_| rng.range(1, 3)).collect();
    let strides: Vec<usize> = (0..rank).map(|_| rng.range(1, 3)).collect();
    let dilations: Vec<usize> = (0..rank).map(|_| rng.range(1, 2)).collect();
    let spatial: Vec<usize> = (0..rank).map(|_| rng.range(1, 6)).collect();
    let auto = rng.pick(&["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]);
    let span = |i: usize| (kernel[i] - 1) * dilations[i] + 1;
    let mut pads = vec![0; 2 * rank];
    let mut spatial = spatial;
    for i in 0..rank {
        if auto == "NOTSET" {
            (pads[i], pads[rank + i]) = (rng.range(0, 3), rng.range(0, 3));
        }
        // the padded input must hold the kernel; the input alone need not
        if !auto.starts_with("SAME") && spatial[i] + pads[i] + pads[rank + i] < span(i) {
            if auto == "NOTSET" && rng.range(0, 1) == 0 {
                pads[i] += span(i) - spatial[i] - pads[i] - pads[rank + i];
            } else {
                spatial[i] = span(i);
            }
        }
    }
    let symbolic_batch = rng.range(0, 2) > 0;
    let mut net = Net::new(rng.pick(&[11, 13, 17, 21]), seed);
    let n = if symbolic_batch { None } else { Some(rng.range(0, 3)) };
    let mut shape = vec![n, Some(c)];
    shape.extend(spatial.iter().map(|s| if symbolic_spatial { None } else { Some(*s) }));
    let x = net.input("x", &shape);
    let w = net.weight("w", &[&[m, cg], kernel.as_slice()].concat());
    let mut operands = vec![x, w];
    if rng.range(0, 2) > 0 {
        operands.push(net.weight("b", &[m]));
    }
    let list = |v: &[usize]| v.iter().map(|v| *v as i64).collect::<Vec<i64>>();
    let mut attrs = Attrs::new().with("strides", list(&strides)).with("dilations", list(&dilations));
    if group > 1 || rng.range(0, 1) == 0 {
        attrs.set("group", group as i64);
    }
    if rng.range(0, 1) == 0 {
        attrs.set("kernel_shape", list(&kernel));
    }
    if auto == "NOTSET" {
        attrs.set("pads", list(&pads));
    } else {
        attrs.set("auto_pad", auto);
    }
    let text = format!(
        "seed {seed}: x {shape:?}, c {c}, m {m}, kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}, {auto} {pads:?}, group {group}, spatial {spatial:?}"
    );
    let y = net.op("Conv", "y", &operands, attrs);
    ConvCase { model: net.output(y), symbolic_batch, spatial, text }
}

/// Runs a rule on many convolutions; answers with how often it applied.
fn check_conv_rule(rule: &str, cases: u64, symbolic_spatial: bool) -> usize {
    let mut applied = 0;
    for seed in 0..cases {
        let case = conv_case(seed, symbolic_spatial);
        let (rewritten, report) = rewrite(&case.model, &[rule]);
        applied += usize::from(fired(&report, rule));
        println!("{}\n{report}", case.text);
        if fired(&report, rule) {
            assert_eq!(common::count(&rewritten, "Conv"), 0, "{}", case.text);
        }
        let symbols: Vec<(&str, usize)> =
            ["H", "W", "D"].into_iter().zip(case.spatial.iter().copied()).collect();
        let batches: &[usize] = if case.symbolic_batch { &[0, 1, 3] } else { &[1] };
        for n in batches {
            let extents: Vec<(&str, usize)> = [("N", *n)].into_iter().chain(symbols.clone()).collect();
            assert_same(&case.model, &rewritten, &inputs(&case.model, &mut Rng::new(seed + 1), &extents));
        }
        if symbolic_spatial {
            let larger: Vec<(&str, usize)> = symbols.iter().map(|(s, n)| (*s, n + 3)).collect();
            assert_same(&case.model, &rewritten, &inputs(&case.model, &mut Rng::new(seed + 2), &larger));
        }
    }
    applied
}

#[test]
fn im2col_keeps_every_convolution() {
    assert_eq!(check_conv_rule("conv-to-im2col-gemm", 200, false), 200);
}

#[test]
fn im2col_keeps_convolutions_of_symbolic_extent() {
    let applied = check_conv_rule("conv-to-im2col-gemm", 120, true);
    assert!((60..120).contains(&applied), "SAME padding with strides is left: {applied} of 120");
}

#[test]
fn toeplitz_keeps_every_convolution() {
    assert_eq!(check_conv_rule("conv-to-toeplitz-gemm", 200, false), 200);
}

#[test]
fn toeplitz_per_channel_keeps_every_convolution() {
    assert_eq!(check_conv_rule("conv-to-toeplitz-gemm-per-channel", 200, false), 200);
}

#[test]
fn toeplitz_declines_symbolic_extents() {
    assert_eq!(check_conv_rule("conv-to-toeplitz-gemm", 10, true), 0);
}

#[test]
fn pointwise_conv_becomes_matmul_where_it_is_one() {
    let applied = check_conv_rule("pointwise-conv-to-matmul", 400, false)
        + check_conv_rule("pointwise-conv-to-matmul", 400, true);
    assert!(applied >= 8, "{applied}");
}
