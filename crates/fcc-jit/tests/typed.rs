//! Integers, truth values and mixed types against the interpreter, and the errors of what is forbidden.
mod common;

use common::net::{Net, Within, attrs, check};
use fcc_ir::attr::Attrs;
use fcc_ir::convert::{Narrowing, cast};
use fcc_ir::{DType, Tensor, ValueId, interp};
use fcc_jit::{Options, compile};

const TYPES: [DType; 7] = [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8, DType::I8, DType::Bool];

/// Values that meet in every type, extremes among them.
fn values(net: &mut Net, shape: &[usize], dtype: DType) -> Tensor {
    let n: usize = shape.iter().product();
    let special = [0.0, 1.0, -1.0, 127.0, -128.0, 3e9, -3e9, 1e19, f64::NAN, f64::INFINITY, 0.5, -0.0];
    let all = (0..n).map(|i| match special.get(i) {
        Some(v) if dtype.is_float() => *v,
        _ => (net.next() % 7) as f64 - 3.0,
    });
    let wide = Tensor::new(shape, all.collect::<Vec<f64>>()).unwrap();
    cast(&wide, dtype, Narrowing::default()).unwrap()
}

fn input(net: &mut Net, shape: &[usize], dtype: DType) -> ValueId {
    let t = values(net, shape, dtype);
    net.given(t)
}

#[test]
fn casts_between_all_types() {
    for from in TYPES {
        for to in TYPES {
            let mut net = Net::new();
            let x = input(&mut net, &[3, 23], from);
            let y = net.node("Cast", &[x], Attrs::new().with("to", to as i64));
            net.check(&[y], Within::Exact);
        }
    }
}

const SHAPES: [(&[usize], &[usize]); 7] = [
    (&[5], &[5]),
    (&[2, 3, 5], &[5]),
    (&[3, 1], &[2, 3, 5]),
    (&[2, 1, 5], &[3, 1]),
    (&[1], &[2, 19]),
    (&[], &[7]),
    (&[3, 70], &[3, 1]),
];

#[test]
fn comparisons_broadcast() {
    for op in ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"] {
        for dtype in TYPES {
            if dtype == DType::Bool && op != "Equal" {
                continue;
            }
            for (a, b) in SHAPES {
                let mut net = Net::new();
                let (a, b) = (input(&mut net, a, dtype), input(&mut net, b, dtype));
                let y = net.op(op, &[a, b]);
                net.check(&[y], Within::Exact);
            }
        }
    }
}

#[test]
fn integers_wrap_and_truth_values_combine() {
    for (a, b) in SHAPES {
        for dtype in [DType::I32, DType::I64, DType::U8, DType::I8] {
            for op in ["Add", "Sub", "Mul", "Min", "Max"] {
                let mut net = Net::new();
                let (a, b) = (input(&mut net, a, dtype), input(&mut net, b, dtype));
                let y = net.op(op, &[a, b]);
                net.check(&[y], Within::Exact);
            }
        }
        for op in ["And", "Or", "Xor"] {
            let mut net = Net::new();
            let (a, b) = (input(&mut net, a, DType::Bool), input(&mut net, b, DType::Bool));
            let y = net.op(op, &[a, b]);
            let z = net.op("Not", &[y]);
            net.check(&[y, z], Within::Exact);
        }
    }
}

#[test]
fn integer_division_truncates_and_refuses_zero() {
    for op in ["Div", "Mod"] {
        for dtype in [DType::I32, DType::I64, DType::I8] {
            let mut net = Net::new();
            let x = input(&mut net, &[2, 9], dtype);
            let y = Tensor::new([9], vec![1i64, 2, -3, 4, 5, -6, 7, 8, 9]).unwrap();
            let y = net.given(cast(&y, dtype, Narrowing::default()).unwrap());
            let z = net.op(op, &[x, y]);
            net.check(&[z], Within::Exact);
        }
        let mut net = Net::new();
        let x = input(&mut net, &[4], DType::I64);
        let zero = net.given(Tensor::new([4], vec![1i64, 2, 0, 3]).unwrap());
        let y = net.op(op, &[x, zero]);
        let (model, inputs) = net.model(&[y]);
        let got = compile(&model, &Options::with_threads(1)).unwrap().run(&inputs).unwrap_err().to_string();
        assert_eq!(got, interp::run(&model, &inputs).unwrap_err().to_string());
    }
}

#[test]
fn choices_broadcast() {
    for dtype in TYPES {
        for shapes in [
            [&[2, 3, 5][..], &[2, 3, 5], &[2, 3, 5]],
            [&[2, 3, 5], &[], &[2, 3, 5]],
            [&[2, 3, 5], &[5], &[1]],
            [&[3, 1], &[2, 1, 5], &[5]],
            [&[1], &[4, 20], &[4, 1]],
        ] {
            let mut net = Net::new();
            let c = input(&mut net, shapes[0], DType::Bool);
            let (x, y) = (input(&mut net, shapes[1], dtype), input(&mut net, shapes[2], dtype));
            let z = net.op("Where", &[c, x, y]);
            net.check(&[z], Within::Exact);
        }
    }
}

fn gather(x: &[usize], dtype: DType, indices: Tensor, axis: i64) -> (Net, ValueId) {
    let mut net = Net::new();
    let x = input(&mut net, x, dtype);
    let indices = net.given(indices);
    let y = net.node("Gather", &[x, indices], attrs([("axis", axis.into())]));
    (net, y)
}

#[test]
fn indices_that_come_with_the_run() {
    for dtype in TYPES {
        for (shape, axis) in [(&[7, 5][..], 0), (&[3, 7], 1), (&[2, 7, 3], -2), (&[7], 0), (&[7, 64], 0)] {
            let wide = Tensor::new([2, 3], vec![0i64, -1, 6, -7, 3, 3]).unwrap();
            let narrow = cast(&wide, DType::I32, Narrowing::default()).unwrap();
            for indices in [wide, narrow, Tensor::scalar(-2i64)] {
                let (net, y) = gather(shape, dtype, indices, axis);
                net.check(&[y], Within::Exact);
            }
        }
    }
}

#[test]
fn indices_outside_are_the_interpreters_error() {
    for bad in [7i64, -8, i64::MIN, i64::MAX] {
        let (net, y) = gather(&[7, 5], DType::F32, Tensor::new([2], vec![1, bad]).unwrap(), 0);
        let (model, inputs) = net.model(&[y]);
        let compiled = compile(&model, &Options::with_threads(1)).unwrap();
        assert!(compiled.plan_for(&inputs).unwrap().interpreted_steps().is_empty());
        let got = compiled.run(&inputs).unwrap_err().to_string();
        assert_eq!(got, interp::run(&model, &inputs).unwrap_err().to_string());
        // the model runs on afterwards
        let good = inputs.into_iter().map(|(n, v)| match v.as_tensor().unwrap().dtype() {
            DType::I64 => (n, Tensor::new([2], vec![1i64, 2]).unwrap().into()),
            _ => (n, v),
        });
        check(&model, &good.collect(), Within::Exact);
    }
}

#[test]
fn the_greatest_and_the_least() {
    for op in ["ArgMax", "ArgMin"] {
        for dtype in [DType::F32, DType::I32, DType::I64, DType::U8] {
            for axis in [0i64, 1, -1] {
                for last in [0i64, 1] {
                    let mut net = Net::new();
                    let x = input(&mut net, &[3, 13, 2], dtype);
                    let list = [
                        ("axis", axis.into()),
                        ("select_last_index", last.into()),
                        ("keepdims", last.into()),
                    ];
                    let y = net.node(op, &[x], attrs(list));
                    net.check(&[y], Within::Exact);
                }
            }
        }
    }
}

#[test]
fn logarithms() {
    for n in [1, 16, 70, 3000] {
        let mut net = Net::new();
        let special = [0.0, -0.0, 1.0, -1.0, 1e-40, f32::MIN_POSITIVE, f32::MAX, f32::NAN, f32::INFINITY];
        let mut all: Vec<f32> = (0..n).map(|i| 10f32.powf(i as f32 / 40.0 - 37.0)).collect();
        all.iter_mut().zip(special).for_each(|(v, s)| *v = s);
        let x = net.given(Tensor::new([n], all).unwrap());
        let y = net.op("Log", &[x]);
        net.check(&[y], Within::Relative(3e-7));
    }
    for shape in [&[3, 160][..], &[2, 7, 5], &[4, 33]] {
        for axis in [1i64, -1] {
            let mut net = Net::new();
            let x = net.real_input(shape);
            let y = net.node("LogSoftmax", &[x], attrs([("axis", axis.into())]));
            net.check(&[y], Within::Relative(1e-6));
        }
    }
}
