//! Normalisation: `BatchNormalization` with constant statistics is a multiply-add for each channel; `Softmax`.
use super::Cx;
use crate::kernels::ew::{Binary, Expr, Ins};
use crate::plan::ir::Kind;
use fcc_ir::Tensor;
use fcc_ir::ops::softmax::SoftmaxProblem;

pub(super) fn batch(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let training = cx.op.version >= 14 && cx.op.attrs.flag("training_mode", false).ok()?;
    if training || x.len() < 2 || (cx.op.version < 9 && !cx.op.attrs.flag("spatial", true).ok()?) {
        return None;
    }
    let mut params: Vec<Vec<f64>> = vec![];
    for i in 1..5 {
        let t = cx.constant(i)?.as_slice::<f32>().ok()?.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        if t.len() != x[1] {
            return None;
        }
        params.push(t);
    }
    let epsilon = f64::from(cx.op.attrs.float_or("epsilon", 1e-5).ok()?);
    let [scale, bias, mean, var] = params.try_into().ok()?;
    // y = x * a + b
    let a: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let b = bias.iter().zip(&mean).zip(&a).map(|((b, m), a)| (b - m * a) as f32).collect();
    let shape: Vec<usize> = std::iter::once(x[1]).chain(x[2..].iter().map(|_| 1)).collect();
    let name = cx.program.val(y).name.clone();
    let a: Vec<f32> = a.into_iter().map(|v| v as f32).collect();
    let a = cx.program.constant(format!("{name}.scale"), Tensor::new(shape.clone(), a).ok()?);
    let b = cx.program.constant(format!("{name}.shift"), Tensor::new(shape, b).ok()?);
    let expr = Expr {
        code: vec![
            Ins::Input(0),
            Ins::Input(1),
            Ins::Binary(Binary::Mul, 0, 1),
            Ins::Input(2),
            Ins::Binary(Binary::Add, 2, 3),
        ],
    };
    let x = cx.input(0)?;
    cx.push_ew(expr, vec![x, a, b], y);
    Some(())
}

pub(super) fn softmax(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let p = SoftmaxProblem::new(cx.op, &x).ok()?;
    let kind = Kind::Softmax { log: cx.op.op_type == "LogSoftmax", outer: p.outer, n: p.len, inner: p.inner };
    let x = cx.input(0);
    cx.push(kind, vec![x], y);
    Some(())
}
