//! Normalisation: `BatchNormalization` with constant statistics is a multiply-add for each channel; `Softmax`.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::kernels::ew::{Binary, Expr, Ins};
use crate::kernels::rows::Fold;
use crate::plan::ir::{Kind, PoolKind};
use fcc_ir::Tensor;
use fcc_ir::ops::softmax::SoftmaxProblem;

pub(super) fn batch(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let training = cx.op.version >= 14 && cx.op.attrs.flag("training_mode", false)?;
    if training || (cx.op.version < 9 && !cx.op.attrs.flag("spatial", true)?) {
        return Err(Declined::new(
            "statistics",
            "those of the batch, or of each pixel",
            "one constant a channel",
        ));
    }
    if x.len() < 2 {
        return Err(Declined::new("rank", x.len(), "2 or more"));
    }
    let mut params: Vec<Vec<f64>> = vec![];
    for i in 1..5 {
        let t = cx.fixed(i)?.as_slice::<f32>()?.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        if t.len() != x[1] {
            return Err(Declined::new(
                format!("input {i}"),
                format!("{} elements", t.len()),
                format!("one for each of {} channels", x[1]),
            ));
        }
        params.push(t);
    }
    let epsilon = f64::from(cx.op.attrs.float_or("epsilon", 1e-5)?);
    let [scale, bias, mean, var] = &params[..] else {
        return Err(Declined::new("inputs", params.len(), "scale, bias, mean and variance"));
    };
    // y = x * a + b
    let a: Vec<f64> = scale.iter().zip(var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let b = bias.iter().zip(mean).zip(&a).map(|((b, m), a)| (b - m * a) as f32).collect();
    let shape: Vec<usize> = std::iter::once(x[1]).chain(x[2..].iter().map(|_| 1)).collect();
    let name = cx.program.val(y).name.clone();
    let a: Vec<f32> = a.into_iter().map(|v| v as f32).collect();
    let a = cx.program.constant(format!("{name}.scale"), Tensor::new(shape.clone(), a)?);
    let b = cx.program.constant(format!("{name}.shift"), Tensor::new(shape, b)?);
    let expr = Expr {
        code: vec![
            Ins::Input(0),
            Ins::Input(1),
            Ins::Binary(Binary::Mul, 0, 1),
            Ins::Input(2),
            Ins::Binary(Binary::Add, 2, 3),
        ],
    };
    let x = cx.need(0)?;
    cx.push_ew(expr, vec![x, a, b], y);
    Ok(())
}

pub(super) fn softmax(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let p = SoftmaxProblem::new(cx.op, &x)?;
    let kind = Kind::Softmax { log: cx.op.op_type == "LogSoftmax", outer: p.outer, n: p.len, inner: p.inner };
    let x = cx.input(0);
    cx.push(kind, vec![x], y);
    Ok(())
}

/// Reductions over neighbouring axes.
pub(super) fn reduce(cx: &mut Cx<'_>) -> Lowered {
    use fcc_ir::ops::reduce;
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let given = if reduce::axes_are_input(cx.op) { cx.list(1)? } else { None };
    let axes = reduce::axes(cx.op, given.as_deref(), x.len())?;
    let fold = match cx.op.op_type.as_str() {
        "ReduceMean" => Fold::Mean,
        "ReduceSum" => Fold::Sum,
        "ReduceMax" => Fold::Max,
        "ReduceMin" => Fold::Min,
        "ReduceSumSquare" => Fold::SumSquare,
        "ReduceL1" => Fold::L1,
        _ => Fold::L2,
    };
    let input = cx.input(0);
    let (Some(first), Some(last)) = (axes.first().copied(), axes.last().copied()) else {
        return Err(Declined::new("axes", "none", "at least one"));
    };
    if last - first + 1 != axes.len() {
        return Err(Declined::new("axes", format!("{axes:?}"), "axes beside one another"));
    }
    let alone = x[first..=last].iter().all(|n| *n == 1);
    if alone && matches!(fold, Fold::Mean | Fold::Sum | Fold::Max | Fold::Min) {
        cx.push(Kind::View, vec![input], y);
        return Ok(());
    }
    let keeps = cx.shape(y).len() == x.len();
    let pool = match fold {
        Fold::Mean => Some(PoolKind::Average { include_pad: false }),
        Fold::Max => Some(PoolKind::Max),
        _ => None,
    };
    if let Some(kind) = pool.filter(|_| keeps && first == 2 && last + 1 == x.len() && x.len() <= 5) {
        cx.push(Kind::GlobalPool(kind), vec![input], y);
        return Ok(());
    }
    let product = |s: &[usize]| s.iter().product();
    let kind = Kind::Reduce {
        fold,
        outer: product(&x[..first]),
        n: product(&x[first..=last]),
        inner: product(&x[last + 1..]),
    };
    cx.push(kind, vec![input], y);
    Ok(())
}

/// `LayerNormalization` with its first output only.
pub(super) fn layer(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let p = fcc_ir::ops::layer_normalization::params(cx.op, x.len())?;
    let n: usize = x[p.axis..].iter().product();
    // one element for each place of a row: the normalised extents, and 1 before them
    let whole = |s: Vec<usize>| {
        let (ones, rest) = s.split_at(s.len().saturating_sub(x.len() - p.axis));
        match rest == &x[p.axis..] && ones.iter().all(|d| *d == 1) {
            true => Ok(()),
            false => {
                Err(Declined::new("scale or bias", format!("shape {s:?}"), format!("{:?}", &x[p.axis..])))
            }
        }
    };
    whole(cx.f32(1)?)?;
    let mut inputs = vec![cx.input(0), cx.input(1)];
    inputs.push(match cx.input(2) {
        Some(b) => {
            whole(cx.f32(2)?)?;
            Some(b)
        }
        None => {
            let name = format!("{}.zero", cx.program.val(y).name);
            Some(cx.program.constant(name, Tensor::new(vec![n], vec![0f32; n])?))
        }
    });
    if p.stash != fcc_ir::DType::F32 {
        return Err(Declined::new("stash_type", p.stash, "float"));
    }
    cx.push(Kind::Normalise { n, epsilon: p.epsilon, per_row: false }, inputs, y);
    Ok(())
}

/// `InstanceNormalization` with constant scale and bias: rows are planes.
pub(super) fn instance(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let [batch, c, spatial @ ..] = &x[..] else { return Err(Declined::new("rank", x.len(), "2 or more")) };
    let n: usize = spatial.iter().product();
    let epsilon = cx.op.attrs.float_or("epsilon", 1e-5)?;
    let mut inputs = vec![cx.input(0)];
    for i in 1..3 {
        let values = cx.fixed(i)?.as_slice::<f32>()?.into_owned();
        if values.len() != *c {
            return Err(Declined::new(
                format!("input {i}"),
                format!("{} elements", values.len()),
                format!("one for each of {c} channels"),
            ));
        }
        let all = values.repeat(*batch);
        let name = format!("{}.rows{i}", cx.program.val(y).name);
        inputs.push(Some(cx.program.constant(name, Tensor::new(vec![batch * c], all)?)));
    }
    cx.push(Kind::Normalise { n, epsilon, per_row: true }, inputs, y);
    Ok(())
}

pub(super) fn lrn(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let p = fcc_ir::ops::lrn::params(cx.op)?;
    if x.len() < 3 || ![0.5, 0.75, 1.0].contains(&p.beta) || p.size > 9 {
        return Err(Declined::new(
            "beta and size",
            format!("{} and {}, rank {}", p.beta, p.size, x.len()),
            "0.5, 0.75 or 1, at most 9, rank 3 or more",
        ));
    }
    let x = cx.input(0);
    cx.push(Kind::Lrn(p), vec![x], y);
    Ok(())
}
