//! Channels in another order: the kernel at every level, and the graphs that become it.
mod common;

use common::net::{Net, Within, attrs, check};
use common::{Rng, from_layout, levels, run, to_layout};
use fcc_ir::ValueId;
use fcc_jit::asm::Isa;
use fcc_jit::kernels::channels::Channels;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;
use fcc_jit::{Options, compile};

fn check_kernel(isa: Isa, n: usize, c: usize, spatial: [usize; 3], sources: &[usize], rng: &mut Rng) {
    let cb = isa.lanes();
    let mut halo = || [0, 1, 2].map(|_| (rng.below(2) * rng.below(2), rng.below(2)));
    let xl = BlockedLayout::blocked(n, c, spatial, cb).with_halo(halo());
    let yl = BlockedLayout::blocked(n, sources.len(), spatial, cb).with_halo(halo());
    let problem = Channels { x: xl, y: yl, sources: sources.to_vec() };
    let threads = 1 + rng.below(3);
    let mut code = Code::new(isa).expect("code");
    let kernel = problem.build(code.emitter(), threads).expect("build");
    code.finalize().expect("finalize");
    let plane: usize = spatial.iter().product();
    let x = rng.floats(n * c * plane);
    let mut buffers = vec![to_layout(&xl, &x), vec![f32::NAN; yl.bytes() / 4]];
    run(&code, &kernel, &Pool::new(threads), &mut buffers);
    let got = from_layout(&yl, &buffers[1]);
    for (i, got) in got.iter().enumerate() {
        let (image, channel, at) = (i / plane / sources.len(), i / plane % sources.len(), i % plane);
        let want = x[(image * c + sources[channel]) * plane + at];
        assert!(got.to_bits() == want.to_bits(), "{problem:?}: element {i} is {got}, not {want}");
    }
}

#[test]
fn any_order_of_channels() {
    let mut rng = Rng(31);
    for isa in levels() {
        for (c, groups) in [(12, 3), (136, 4), (40, 8), (34, 2), (64, 4)] {
            let sources: Vec<usize> = (0..c).map(|i| i % groups * (c / groups) + i / groups).collect();
            check_kernel(isa, 1 + rng.below(3), c, [1, 5, 7], &sources, &mut rng);
        }
        // slices, from any channel
        for (c, start, len) in [(116, 58, 58), (20, 3, 9), (70, 15, 33), (33, 32, 1)] {
            check_kernel(isa, 1, c, [1, 3, 11], &(start..start + len).collect::<Vec<_>>(), &mut rng);
        }
        // repeated, reversed, from anywhere; a vector then has up to as many parts as lanes
        for c in [1, 7, 40, 300] {
            for len in [1, 16, 29] {
                let sources: Vec<usize> = (0..len).map(|_| rng.below(c)).collect();
                check_kernel(isa, 2, c, [2, 3, 4], &sources, &mut rng);
            }
            check_kernel(isa, 1, c, [1, 1, 9], &(0..c).rev().collect::<Vec<_>>(), &mut rng);
        }
    }
}

#[test]
fn channels_that_are_not_there_are_refused() {
    for isa in levels() {
        let l = BlockedLayout::blocked(1, 5, [1, 2, 2], isa.lanes());
        let mut code = Code::new(isa).expect("code");
        for sources in [vec![0, 1, 2, 3, 5], vec![0, 1, 2, 3]] {
            let problem = Channels { x: l, y: l, sources };
            assert!(problem.build(code.emitter(), 1).is_err(), "{problem:?}");
        }
    }
}

/// A convolution by 1x1 to `to` channels.
fn conv(net: &mut Net, x: ValueId, from: usize, to: usize) -> ValueId {
    let w = net.weight(&[to, from, 1, 1]);
    net.op("Conv", &[x, w])
}

/// The channel shuffle of ShuffleNet, of `[2, c, 6, 7]`.
fn shuffle(net: &mut Net, x: ValueId, c: usize, groups: usize) -> ValueId {
    let (c, g) = (c as i64, groups as i64);
    let (apart, whole) = (net.ints(&[2, g, c / g, 6, 7]), net.ints(&[2, c, 6, 7]));
    let apart = net.op("Reshape", &[x, apart]);
    let turned = net.node("Transpose", &[apart], attrs([("perm", vec![0, 2, 1, 3, 4].into())]));
    net.op("Reshape", &[turned, whole])
}

#[test]
fn shuffles_between_convolutions_stay_blocked() {
    for (c, groups) in [(12, 3), (40, 4), (34, 2), (136, 4)] {
        let mut net = Net::new();
        let x = net.input(&[2, 5, 6, 7]);
        let x = conv(&mut net, x, 5, c);
        let shuffled = shuffle(&mut net, x, c, groups);
        let w = net.weight(&[c, 1, 3, 3]);
        let group = attrs([("group", (c as i64).into()), ("pads", vec![1; 4].into())]);
        let y = net.node("Conv", &[shuffled, w], group);
        let z = net.op("Add", &[y, x]);
        let (model, inputs) = net.model(&[z]);
        check(&model, &inputs, Within::Exact);
        let plan = compile(&model, &Options::with_threads(1)).unwrap().plan_for(&inputs).unwrap();
        let kernels: Vec<String> = plan.steps().map(|s| s.kernel.clone()).collect();
        let count = |word: &str| kernels.iter().filter(|k| k.starts_with(word)).count();
        if Isa::detect() == Isa::Baseline {
            // five channels are no whole number of its blocks: their copy into blocks is another step
            continue;
        }
        // one copy brings the result back to row-major
        assert_eq!((count("channels"), count("copy")), (1, 1), "{kernels:?}");
    }
}

#[test]
fn shuffles_of_what_is_row_major() {
    let mut net = Net::new();
    let x = net.input(&[2, 136, 6, 7]);
    let y = shuffle(&mut net, x, 136, 4);
    let z = shuffle(&mut net, y, 136, 2);
    net.check(&[z, y], Within::Exact);
}

#[test]
fn a_view_that_moves_no_whole_channels_is_no_shuffle() {
    // the same extents, but rows and channels change places
    let mut net = Net::new();
    let x = net.input(&[1, 5, 6, 6]);
    let x = conv(&mut net, x, 5, 6);
    let turned = net.node("Transpose", &[x], attrs([("perm", vec![0, 2, 1, 3].into())]));
    let y = conv(&mut net, turned, 6, 3);
    // images change places, channels do not
    let pairs = net.input(&[2, 2, 4, 4]);
    let pairs = conv(&mut net, pairs, 2, 2);
    let swapped = net.node("Transpose", &[pairs], attrs([("perm", vec![1, 0, 2, 3].into())]));
    let z = conv(&mut net, swapped, 2, 3);
    net.check(&[y, z], Within::Exact);
}

#[test]
fn slices_inside_a_block_of_channels() {
    let mut net = Net::new();
    let x = net.input(&[2, 5, 6, 7]);
    let x = conv(&mut net, x, 5, 116);
    let halves = net.nodes("Split", &[x], attrs([("axis", 1i64.into()), ("num_outputs", 2i64.into())]), 2);
    let w = net.weight(&[58, 58, 3, 3]);
    let a = net.node("Conv", &[halves[1], w], attrs([("pads", vec![1; 4].into())]));
    let joined = net.node("Concat", &[halves[0], a], attrs([("axis", 1i64.into())]));
    let y = shuffle(&mut net, joined, 116, 2);
    let z = conv(&mut net, y, 116, 9);
    // backwards
    let [start, end, axis, step] = [-1, -200, 1, -1].map(|v| net.ints(&[v]));
    let reversed = net.op("Slice", &[x, start, end, axis, step]);
    let r = conv(&mut net, reversed, 116, 3);
    net.check(&[z, halves[0], r], Within::Exact);
}

#[test]
fn views_to_the_same_shape_are_their_input() {
    let mut net = Net::new();
    let x = net.input(&[1, 5, 6, 7]);
    let y = conv(&mut net, x, 5, 20);
    let same = net.op("Dropout", &[y]);
    let again = net.op("Identity", &[same]);
    let relu = net.op("Relu", &[again]);
    let z = conv(&mut net, relu, 20, 3);
    // of an input, and of an output
    let straight = net.op("Identity", &[x]);
    let w = conv(&mut net, straight, 5, 2);
    let out = net.op("Identity", &[z]);
    let (model, inputs) = net.model(&[z, w, out]);
    check(&model, &inputs, Within::Exact);
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    let plan = compiled.plan_for(&inputs).unwrap();
    if Isa::detect() == Isa::Baseline {
        // its blocks of four channels need a copy here, which bears the same nodes
        return;
    }
    let with_dropout = plan.steps().filter(|s| s.nodes.iter().any(|n| n.op_type == "Dropout"));
    assert_eq!(with_dropout.map(|s| s.ops()).collect::<Vec<_>>(), ["Conv+Dropout+Identity+Relu"]);
}
