//! The vector functions against f64: errors in units in the last place, NaN, infinities and the ends of the range.

mod common;
use common::{levels, run};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::gemm::{BStorage, Gemm};
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

/// `act(x)` for each value, through a product with 1.
fn apply(isa: Isa, act: Activation, x: &[f32]) -> Vec<f32> {
    let mut gemm = Gemm::new(1, x.len(), 1, BStorage::InPlace { row: x.len() });
    gemm.activation = Some(act);
    let mut code = Code::new(isa).expect("code");
    let kernel = gemm.build(code.emitter(), 1).expect("build");
    code.finalize().expect("finalize");
    let mut buffers = vec![vec![1.0], x.to_vec(), vec![0.0; x.len()]];
    run(&code, &kernel, &Pool::new(1), &mut buffers);
    buffers.pop().expect("y")
}

/// Every exponent, and a dense grid where the functions bend.
fn inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (0..200_000).map(|i| (i as f32 - 100_000.0) / 900.0).collect();
    x.extend((0..50_000).map(|i| (i as f32 - 25_000.0) / 3000.0));
    for exponent in 1..255u32 {
        for mantissa in [0, 1, 0x2a_aaaa, 0x7f_ffff] {
            let v = f32::from_bits(exponent << 23 | mantissa);
            x.extend([v, -v]);
        }
    }
    x
}

/// erf by its series, or the continued fraction of erfc; about 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let y = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut f = 0.0;
        for n in (1..60).rev() {
            f = f64::from(n) / 2.0 / (a + f);
        }
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + f)
    };
    y.copysign(x)
}

fn ulp(y: f64) -> f64 {
    let bits = (y.abs() as f32).to_bits();
    if bits >= 0x7f80_0000 {
        return f64::INFINITY;
    }
    f64::from(f32::from_bits(bits + 1)) - f64::from(f32::from_bits(bits))
}

/// The largest error in ulp, not counting what is below `tiny`.
fn worst(isa: Isa, act: Activation, exact: impl Fn(f64) -> f64, tiny: f64) -> (f64, f32) {
    let x = inputs();
    let y = apply(isa, act, &x);
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(&y) {
        let want = exact(f64::from(x));
        let error = (f64::from(y) - want).abs();
        let error = if error <= tiny || f64::from(y) == want { 0.0 } else { error / ulp(want) };
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

#[test]
fn errors_stay_within_what_the_docs_state() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let cases: [(Activation, &dyn Fn(f64) -> f64, f64, f64); 4] = [
        (Activation::Sigmoid, &sigmoid, 4.0, 1.2e-38),
        (Activation::Silu, &silu, 5.0, 1e-36),
        (Activation::Tanh, &f64::tanh, common::tanh_bound(), 1.2e-38),
        (Activation::Gelu, &|x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())), f64::INFINITY, 0.0),
    ];
    for isa in levels() {
        for (act, exact, bound, tiny) in &cases {
            let (error, at) = worst(isa, *act, exact, *tiny);
            println!("{isa} {act:?}: {error:.2} ulp at {at:e}");
            assert!(error <= *bound, "{isa} {act:?}: {error} ulp at {at:e}");
        }
        let x = inputs();
        for (&x, y) in x.iter().zip(apply(isa, Activation::Gelu, &x)) {
            let want = 0.5 * f64::from(x) * (1.0 + erf(f64::from(x) / 2f64.sqrt()));
            let error = (f64::from(y) - want).abs();
            assert!(
                error <= 3e-7 * f64::from(x.abs()).max(1.0) || f64::from(x).abs() > 1e38,
                "{isa} gelu({x:e}) is {y:e}, not {want:e}"
            );
        }
    }
}

#[test]
fn limits_and_nan() {
    use Activation::*;
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = [nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 3e38, -3e38];
    let relu = |x: f32| if x.is_nan() { x } else { x.max(0.0) };
    for isa in levels() {
        let check = |act: Activation, want: &dyn Fn(f32) -> f32| {
            for (&x, y) in x.iter().zip(apply(isa, act, &x)) {
                let w = want(x);
                assert!(y == w || (y.is_nan() && w.is_nan()), "{isa} {act:?}({x}) is {y}, not {w}");
            }
        };
        check(Relu, &relu);
        check(Clip { low: -0.5, high: 2.0 }, &|x| x.clamp(-0.5, 2.0));
        check(Clip { low: f32::NEG_INFINITY, high: 6.0 }, &|x| if x.is_nan() { x } else { x.min(6.0) });
        check(Clip { low: 3.0, high: 2.0 }, &|x| if x.is_nan() { x } else { 2.0 });
        check(LeakyRelu { alpha: 0.25 }, &|x| if x < 0.0 { x * 0.25 } else { x });
        check(LeakyRelu { alpha: -2.0 }, &|x| if x < 0.0 { x * -2.0 } else { x });
        check(HardSigmoid { alpha: 0.5, beta: 0.25 }, &|x| (x * 0.5 + 0.25).clamp(0.0, 1.0));
        let few = |act: Activation, x: f32, want: f32| {
            let y = apply(isa, act, &[x])[0];
            assert!(
                (y - want).abs() < 1e-6 || y == want || (y.is_nan() && want.is_nan()),
                "{isa} {act:?}({x}) is {y}, not {want}"
            );
        };
        for (x, y) in [(nan, nan), (inf, 1.0), (-inf, 0.0), (0.0, 0.5)] {
            few(Sigmoid, x, y);
        }
        for (x, y) in [(nan, nan), (inf, 1.0), (-inf, -1.0), (0.0, 0.0)] {
            few(Tanh, x, y);
        }
        for (x, y) in [(nan, nan), (inf, inf), (0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_25)] {
            few(Gelu, x, y);
        }
        for (x, y) in [(nan, nan), (inf, inf), (-4.0, 0.0), (-1.0, -1.0 / 3.0), (4.0, 4.0)] {
            few(HardSwish, x, y);
        }
        for (x, y) in [(nan, nan), (inf, inf), (0.0, 0.0), (1.0, 0.731_058_6)] {
            few(Silu, x, y);
        }
    }
}
