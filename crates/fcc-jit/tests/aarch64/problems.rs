//! The kernels that are compiled for another machine, with their inputs and what they should make of them.

use crate::common::{ConvCase, Rng, from_layout, to_layout};
use cranelift_module::Module;
use fcc_jit::asm::Isa;
use fcc_jit::error::Result;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins, Unary};
use fcc_jit::kernels::gemm::{BStorage, Gemm, GemmBias};
use fcc_jit::kernels::lanewise::{GroupConv, Pool, PoolKind};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::rows::{Fold, Normalise, Reduce};
use fcc_jit::kernels::softmax::Softmax;
use fcc_jit::kernels::winograd::{Winograd, bilinear::Scheme};
use fcc_jit::module::{Emitter, Kernel};

const ISA: Isa = Isa::Baseline;

/// Any of the problems.
#[allow(clippy::large_enum_variant)] // a few, in a test
pub enum Problem {
    Gemm(Gemm),
    Conv(Conv),
    Winograd(Winograd),
    Group(GroupConv),
    Pool(Pool),
    Elementwise(Elementwise),
    Softmax(Softmax),
    Reduce(Reduce),
    Normalise(Normalise),
}

impl Problem {
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        match self {
            Problem::Gemm(p) => p.build(e, threads),
            Problem::Conv(p) => p.build(e, threads),
            Problem::Winograd(p) => p.build(e, threads),
            Problem::Group(p) => p.build(e, threads),
            Problem::Pool(p) => p.build(e, threads),
            Problem::Elementwise(p) => p.build(e, threads),
            Problem::Softmax(p) => p.build(e, threads),
            Problem::Reduce(p) => p.build(e, threads),
            Problem::Normalise(p) => p.build(e, threads),
        }
    }
}

/// A problem, its operands up to the result, and the result.
pub struct Case {
    pub name: String,
    pub problem: Problem,
    pub buffers: Vec<Vec<f32>>,
    want: Vec<f32>,
    /// The layout of the result, where it is blocked.
    layout: Option<BlockedLayout>,
    /// Distance allowed, relative to the larger of the value and 1; 0 where all is exact.
    within: f64,
}

impl Case {
    pub fn check(&self, y: &[f32]) {
        let y = self.layout.map_or_else(|| y.to_vec(), |l| from_layout(&l, y));
        assert_eq!(y.len(), self.want.len(), "{}", self.name);
        for (i, (&got, &want)) in y.iter().zip(&self.want).enumerate() {
            let same = got == want || (got.is_nan() && want.is_nan());
            let near = f64::from((got - want).abs()) <= self.within * f64::from(want.abs().max(1.0));
            assert!(same || near, "{}: element {i} is {got}, not {want}", self.name);
        }
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut rng = Rng(64);
    let mut all = Vec::new();
    for (m, n, k) in [(1, 1, 1), (13, 31, 17), (30, 26, 40), (1, 70, 33), (7, 3, 2500), (5, 18, 9)] {
        for packed in [true, false] {
            all.push(gemm(&mut rng, m, n, k, packed));
        }
    }
    // channels, maps, extents, kernel, stride, dilation, padding
    for (c, m, h, w, k, s, d, p) in [
        (5, 9, 9, 13, 3, 1, 1, 1),
        (16, 24, 11, 7, 3, 2, 1, 1),
        (3, 6, 12, 10, 5, 2, 1, 2),
        (7, 5, 10, 8, 3, 1, 2, 2),
        (33, 12, 6, 5, 1, 1, 1, 0),
    ] {
        let window = case(c, m, [1, h, w], [1, k, k], s, d, p, 1);
        all.push(conv(&mut rng, &window, Form::Direct));
        if k == 3 && s == 1 && d == 1 {
            all.push(conv(&mut rng, &window, Form::Winograd));
        }
    }
    for (c, m, group, k, s) in [(10, 10, 10, 3, 1), (9, 9, 9, 5, 2), (6, 12, 6, 3, 2), (10, 15, 5, 3, 1)] {
        all.push(conv(&mut rng, &case(c, m, [1, 8, 11], [1, k, k], s, 1, k / 2, group), Form::Grouped));
    }
    for kind in [PoolKind::Max, PoolKind::Average] {
        all.push(pool(&mut rng, kind));
    }
    for n in [1, 2, 3, 4, 5, 18, 67] {
        all.push(chain(&mut rng, n));
        all.push(softmax(&mut rng, n, 1));
        all.push(softmax(&mut rng, n, 5));
        all.extend([Fold::Max, Fold::Sum].map(|fold| reduce(&mut rng, fold, n)));
        all.push(normalise(&mut rng, n));
    }
    all
}

fn gemm(rng: &mut Rng, m: usize, n: usize, k: usize, packed: bool) -> Case {
    let mut gemm = Gemm::new(m, n, k, if packed { BStorage::Packed } else { BStorage::InPlace { row: n } });
    gemm.bias = GemmBias::Columns;
    gemm.activation = Some(Activation::Relu);
    let (a, b, bias) = (rng.ints(m * k), rng.ints(k * n), rng.ints(n));
    let mut want = Vec::new();
    for i in 0..m * n {
        let sum: f32 = (0..k).map(|q| a[i / n * k + q] * b[q * n + i % n]).sum();
        want.push((sum + bias[i % n]).max(0.0));
    }
    let b = if packed {
        let mut out = vec![f32::NAN; gemm.packed_elems(ISA)];
        gemm.pack_b(ISA, &b, (n, 1), 1.0, &mut out, |_| {}).expect("pack");
        out
    } else {
        b
    };
    let name = format!("gemm {m}x{n}x{k} packed {packed}");
    Case { name, problem: Problem::Gemm(gemm), buffers: vec![a, b, bias], want, layout: None, within: 0.0 }
}

enum Form {
    Direct,
    Winograd,
    Grouped,
}

fn case(
    c: usize,
    m: usize,
    input: [usize; 3],
    kernel: [usize; 3],
    stride: usize,
    dilation: usize,
    pad: usize,
    group: usize,
) -> ConvCase {
    let (strides, dilations) = ([1, stride, stride], [1, dilation, dilation]);
    let (begin, end) = ([0, pad, pad], [0, pad, pad]);
    ConvCase { n: 2, c, m, input, kernel, strides, dilations, begin, end, group }
}

fn conv(rng: &mut Rng, case: &ConvCase, form: Form) -> Case {
    let halo = [0, 1, 2].map(|d| (case.begin[d], case.end[d]));
    let out = case.out().expect("output");
    let xl = BlockedLayout::blocked(case.n, case.c, case.input, ISA.lanes()).with_halo(halo);
    let yl = BlockedLayout::blocked(case.n, case.m, out, ISA.lanes()).with_halo([(0, 0), (1, 0), (0, 2)]);
    let x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
    let w = rng.ints(case.m * case.c / case.group * case.kernel.iter().product::<usize>());
    let bias = rng.ints(case.m);
    let want = case.reference(&x, &w, &bias).into_iter().map(|v| v.max(0.0)).collect();
    let dense = Conv {
        x: xl,
        y: yl,
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group: case.group,
        bias: true,
        residual: None,
        activation: Some(Activation::Relu),
        cut: None,
    };
    let (problem, weights) = match form {
        Form::Direct => {
            let mut packed = vec![f32::NAN; dense.packed_elems(ISA)];
            dense.pack_weights(ISA, &w, &mut packed).expect("pack");
            (Problem::Conv(dense), packed)
        }
        Form::Winograd => {
            let spec = Winograd::new(&dense, ISA, [Scheme::Two; 2]).expect("a form of Winograd");
            let mut packed = vec![f32::NAN; spec.packed_elems(ISA)];
            spec.pack_weights(ISA, 2, &w, &mut packed).expect("pack");
            (Problem::Winograd(spec), packed)
        }
        Form::Grouped => {
            let Conv {
                x,
                y,
                kernel,
                strides,
                dilations,
                pads_begin,
                group,
                bias,
                residual,
                activation,
                cut: _,
            } = dense;
            let spec =
                GroupConv { x, y, kernel, strides, dilations, pads_begin, group, bias, residual, activation };
            let mut packed = vec![f32::NAN; spec.packed_elems(ISA)];
            spec.pack_weights(ISA, &w, &mut packed).expect("pack");
            (Problem::Group(spec), packed)
        }
    };
    let buffers = vec![to_layout(&xl, &x), weights, bias];
    Case { name: format!("{case:?}"), problem, buffers, want, layout: Some(yl), within: 0.0 }
}

fn pool(rng: &mut Rng, kind: PoolKind) -> Case {
    let (c, h, w, out) = (6, 9, 12, [1, 5, 6]);
    let spec = Pool {
        x: BlockedLayout::blocked(1, c, [1, h, w], ISA.lanes()),
        y: BlockedLayout::blocked(1, c, out, ISA.lanes()),
        kernel: [1, 3, 3],
        strides: [1, 2, 2],
        dilations: [1; 3],
        pads_begin: [0, 1, 1],
        pads_end: [0, 1, 1],
        kind,
    };
    let x = rng.ints(c * h * w);
    let mut want = Vec::new();
    for i in 0..c * out[1] * out[2] {
        let (channel, oh, ow) = (i / (out[1] * out[2]), i / out[2] % out[1], i % out[2]);
        let mut window = Vec::new();
        for k in 0..9 {
            // 1 more than the position in the input, for the padding
            let (y, x_) = (oh * 2 + k / 3, ow * 2 + k % 3);
            if (1..=h).contains(&y) && (1..=w).contains(&x_) {
                window.push(x[(channel * h + y - 1) * w + x_ - 1]);
            }
        }
        want.push(match kind {
            PoolKind::Max => window.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            _ => window.iter().sum::<f32>() / window.len() as f32,
        });
    }
    let (buffers, layout) = (vec![to_layout(&spec.x, &x)], Some(spec.y));
    Case { name: format!("{kind:?} pool"), problem: Problem::Pool(spec), buffers, want, layout, within: 0.0 }
}

/// `tanh(x * scale) + exp(-|x|)`, the scale standing still.
fn chain(rng: &mut Rng, n: usize) -> Case {
    let code = vec![
        Ins::Input(0),
        Ins::Input(1),
        Ins::Binary(Binary::Mul, 0, 1),
        Ins::Unary(Unary::Act(Activation::Tanh), 2),
        Ins::Unary(Unary::Abs, 0),
        Ins::Unary(Unary::Neg, 4),
        Ins::Unary(Unary::Exp, 5),
        Ins::Binary(Binary::Add, 3, 6),
    ];
    let rows = 300;
    let mut x: Vec<f32> = rng.floats(rows * n).iter().map(|v| v * 12.0).collect();
    x[0] = f32::NAN;
    let scale = rng.floats(n);
    let exact = |(i, &v): (usize, &f32)| {
        let v = f64::from(v);
        ((v * f64::from(scale[i % n])).tanh() + (-v.abs()).exp()) as f32
    };
    let want = x.iter().enumerate().map(exact).collect();
    let (row, all) = (4 * n as i64, 4 * rows * n);
    let spec = Elementwise {
        expr: Expr { code },
        dims: vec![Dim { count: rows, steps: vec![row, 0, row] }, Dim { count: n, steps: vec![4; 3] }],
        base: vec![0; 3],
        bytes: vec![all, 4 * n, all],
        types: vec![],
    };
    let name = format!("chain of {n}");
    let buffers = vec![x, scale];
    Case { name, problem: Problem::Elementwise(spec), buffers, want, layout: None, within: 1e-6 }
}

fn softmax(rng: &mut Rng, n: usize, inner: usize) -> Case {
    let outer = 3;
    let x: Vec<f32> = rng.floats(outer * n * inner).iter().map(|v| v * 20.0).collect();
    let line = |i: usize| (0..n).map(move |k| (i / (n * inner) * n + k) * inner + i % inner);
    let exact = |i: usize| {
        let largest = line(i).map(|at| f64::from(x[at])).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = line(i).map(|at| (f64::from(x[at]) - largest).exp()).sum();
        ((f64::from(x[i]) - largest).exp() / sum) as f32
    };
    let want = (0..x.len()).map(exact).collect();
    let problem = Problem::Softmax(Softmax { outer, n, inner, log: false });
    Case { name: format!("softmax {n}x{inner}"), problem, buffers: vec![x], want, layout: None, within: 1e-6 }
}

fn reduce(rng: &mut Rng, fold: Fold, n: usize) -> Case {
    let outer = 4;
    let mut x = rng.ints(outer * n);
    if fold == Fold::Max {
        x[n] = f32::NAN;
    }
    let row = |r: &[f32]| match fold {
        Fold::Max if r.iter().any(|v| v.is_nan()) => f32::NAN,
        Fold::Max => r.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        _ => r.iter().sum(),
    };
    let want = x.chunks(n).map(row).collect();
    let problem = Problem::Reduce(Reduce { fold, outer, n, inner: 1 });
    Case { name: format!("{fold:?} of {n}"), problem, buffers: vec![x], want, layout: None, within: 0.0 }
}

fn normalise(rng: &mut Rng, n: usize) -> Case {
    let (rows, epsilon) = (4, 1e-3);
    let (x, scale, bias) = (rng.floats(rows * n), rng.floats(n), rng.floats(n));
    let mut want = Vec::new();
    for row in x.chunks(n) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let var = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        let one = |(i, &v): (usize, &f32)| {
            let unit = (f64::from(v) - mean) / (var + f64::from(epsilon)).sqrt();
            (unit * f64::from(scale[i]) + f64::from(bias[i])) as f32
        };
        want.extend(row.iter().enumerate().map(one));
    }
    let problem = Problem::Normalise(Normalise { rows, n, epsilon, per_row: false });
    let buffers = vec![x, scale, bias];
    Case { name: format!("normalise {n}"), problem, buffers, want, layout: None, within: 1e-5 }
}
