//! The functions of one number, as operators: their errors in units in the last place over every exponent, at every
//! level. The bounds are those that `asm/math.rs` states.
mod common;

use common::levels;
use common::net::run_guarded;
use fcc_ir::attr::Attrs;
use fcc_ir::interp::Values;
use fcc_ir::{Model, Tensor, Value};
use fcc_jit::{Options, compile};

/// Every exponent, denormal numbers too, with mantissas at both ends and between, of both signs; and a dense grid
/// where the functions bend.
fn inputs() -> Vec<f32> {
    let mantissas = (0..48).map(|i| i * 0x2_aaab).chain([1, 2, 0x40_0000, 0x7f_fffe, 0x7f_ffff]);
    let mantissas: Vec<u32> = mantissas.filter(|m| *m < 1 << 23).collect();
    let mut x = vec![0.0];
    for exponent in 0..255u32 {
        x.extend(mantissas.iter().map(|m| f32::from_bits(exponent << 23 | m)));
    }
    x.extend((0..60_000).map(|i| i as f32 / 500.0));
    x.extend((0..40_000).map(|i| i as f32 / 9000.0));
    let negative: Vec<f32> = x.iter().map(|v| -v).collect();
    x.extend(negative);
    x
}

/// erf by its series, or the continued fraction of erfc; about 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let series = || {
        let (mut term, mut sum) = (a, a);
        for n in 1..120 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    };
    let fraction = || {
        let f = (1..60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + f)
    };
    let y = if a > 6.0 {
        1.0
    } else if a < 3.0 {
        series()
    } else {
        fraction()
    };
    y.copysign(x)
}

/// The distance of neighbours at y, at least that of denormal numbers.
fn ulp(y: f64) -> f64 {
    let bits = (y.abs() as f32).to_bits().min(0x7f7f_ffff);
    f64::from(f32::from_bits(bits + 1).min(f32::MAX)) - f64::from(f32::from_bits(bits.min(0x7f7f_fffe)))
}

#[test]
fn functions_stay_within_what_is_stated_at_every_exponent() {
    // what a result below `tiny` is off by is not counted in units
    type Function = (&'static str, fn(f64) -> f64, f64, f64);
    // the product of HardSigmoid is rounded before its sum cancels, where nothing fuses the two
    let apart = if levels() == [fcc_jit::Isa::Baseline] { f64::from(f32::EPSILON) / 2.0 } else { 0.0 };
    let functions: [Function; 9] = [
        ("Exp", f64::exp, 2.0, 0.0),
        ("Log", f64::ln, 3.0, 0.0),
        ("Sigmoid", |x| 1.0 / (1.0 + (-x).exp()), 4.0, 1.2e-38),
        ("Tanh", f64::tanh, common::tanh_bound(), 0.0),
        ("Erf", erf, 6.0, 0.0),
        ("Sqrt", f64::sqrt, 0.5, 0.0),
        ("Reciprocal", |x| 1.0 / x, 0.5, 0.0),
        ("Softsign", |x| x / (1.0 + x.abs()), 1.5, 0.0),
        ("HardSigmoid", |x| (f64::from(0.2f32) * x + 0.5).clamp(0.0, 1.0), 1.0, apart),
    ];
    let x = inputs();
    for (op, exact, bound, tiny) in functions {
        let mut net = common::net::Net::new();
        let given = net.given(Tensor::new(vec![x.len()], x.clone()).unwrap());
        let y = net.node(op, &[given], Attrs::new());
        let (model, values) = net.model(&[y]);
        for isa in levels() {
            let (worst, at) = worst(&model, &values, isa, &x, exact, tiny);
            println!("{isa} {op}: {worst:.2} ulp at {at:e}");
            assert!(worst <= bound, "{isa} {op}: {worst} ulp at {at:e}");
        }
    }
}

/// The largest error in units in the last place, and where. Not a number, or infinite, exactly where the function is.
fn worst(
    model: &Model,
    inputs: &Values,
    isa: fcc_jit::asm::Isa,
    x: &[f32],
    exact: fn(f64) -> f64,
    tiny: f64,
) -> (f64, f32) {
    let mut options = Options::with_threads(1);
    options.isa = isa;
    let compiled = compile(model, &options).unwrap();
    assert!(compiled.plan_for(inputs).unwrap().interpreted_steps().is_empty());
    let made = run_guarded(&compiled, inputs).unwrap();
    let Some(Value::Tensor(y)) = made.values().next() else { panic!("no output") };
    let y = y.as_slice::<f32>().unwrap();
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y.iter()) {
        let want = exact(f64::from(x));
        let rounded = want as f32;
        if rounded.is_nan() || !rounded.is_finite() {
            assert!(y == rounded || (y.is_nan() && rounded.is_nan()), "{isa} f({x:e}) is {y}, not {rounded}");
            continue;
        }
        let error = (f64::from(y) - want).abs();
        let error = if error <= tiny || f64::from(y) == want { 0.0 } else { error / ulp(want) };
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

/// Where the function is 1 in f32, it is 1: a result in the last place beside it would move the zero point of what is
/// quantised to the range of the results.
#[test]
fn functions_that_saturate_reach_their_limits() {
    let x: Vec<f32> = (0..4000).map(|i| 9.1 + i as f32 * 0.01).flat_map(|v| [v, -v]).collect();
    for (op, low) in [("Tanh", -1.0), ("Erf", -1.0)] {
        let mut net = common::net::Net::new();
        let given = net.given(Tensor::new(vec![x.len()], x.clone()).unwrap());
        let y = net.node(op, &[given], Attrs::new());
        let (model, inputs) = net.model(&[y]);
        for isa in levels() {
            let mut options = Options::with_threads(1);
            options.isa = isa;
            let made = compile(&model, &options).unwrap().run(&inputs).unwrap();
            let Some(Value::Tensor(y)) = made.values().next() else { panic!("no output") };
            for (x, y) in x.iter().zip(y.as_slice::<f32>().unwrap().iter()) {
                assert_eq!(*y, if *x > 0.0 { 1.0 } else { low }, "{isa} {op}({x})");
            }
        }
    }
}
