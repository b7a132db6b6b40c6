//! Elementwise operators: a table from operators to expressions.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::kernels::activation::Activation;
use crate::kernels::ew::{Binary, Expr, Ins, MAX_INPUTS, Unary};
use crate::plan::ir::Vx;
use fcc_ir::{OpNode, ops};

pub(super) fn elementwise(cx: &mut Cx<'_>) -> Lowered {
    let y = cx.only_out()?;
    let out = cx.f32_value(y, "output")?;
    if let Some(expr) = one_input(cx) {
        let x = cx.need(0)?;
        cx.f32(0)?;
        cx.push_ew(expr, vec![x], y);
        return Ok(());
    }
    let fold = match cx.op.op_type.as_str() {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "PRelu" => Binary::PRelu,
        "Pow" => return power(cx),
        _ => return Err(cx.no_kernel()),
    };
    // before opset 7 the second input is broadcast only when asked, from an axis; PRelu's along the channels
    if cx.op.version < 7 && (cx.op.attrs.get("axis").is_some() || cx.op.op_type == "PRelu") {
        return Err(Declined::new(
            "axis",
            "a broadcast from an axis (opset 6 and before)",
            "broadcasting from the last axis",
        ));
    }
    if fold == Binary::PRelu && cx.op.version < 7 {
        let (x, slope) = (cx.f32(0)?, cx.f32(1)?);
        if x.len() > 1 && slope.len() == 1 && slope != [1] {
            return Err(Declined::new(
                "slope",
                "one for each channel (opset 6 and before)",
                "broadcasting from the last axis",
            ));
        }
    }
    let inputs: Vec<Vx> = (0..cx.inputs.len()).map(|i| cx.need(i)).collect::<Result<_, _>>()?;
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(Declined::new("inputs", inputs.len(), format!("1 to {MAX_INPUTS}")));
    }
    let mut expr = Expr::default();
    let mut kept = vec![];
    let mut last = None;
    for v in inputs {
        let shape = cx.f32_value(v, "input")?;
        if !broadcasts(&shape, &out) {
            return Err(Declined::new(
                "input",
                format!("shape {shape:?}"),
                format!("one that stretches to {out:?}"),
            ));
        }
        let at = operand(cx, &mut expr, &mut kept, v);
        last = Some(match last {
            None => at,
            Some(l) => {
                expr.code.push(Ins::Binary(fold, l, at));
                expr.code.len() - 1
            }
        });
    }
    if kept.is_empty() {
        return Err(Declined::new("inputs", "constants of one element", "a value that a run gives"));
    }
    cx.push_ew(expr, kept, y);
    Ok(())
}

/// A constant of one element becomes part of the expression, any other value an input.
fn operand(cx: &Cx<'_>, expr: &mut Expr, kept: &mut Vec<Vx>, v: Vx) -> usize {
    let scalar = cx
        .program
        .constant_of(v)
        .filter(|t| t.len() == 1)
        .and_then(|t| t.as_slice::<f32>().ok()?.first().copied());
    if let Some(c) = scalar {
        return expr.push(Ins::Const(c));
    }
    let at = kept.iter().position(|k| *k == v).unwrap_or_else(|| {
        kept.push(v);
        kept.len() - 1
    });
    expr.push(Ins::Input(at))
}

/// Whether `shape` stretches to `out` by ONNX's rule.
pub(crate) fn broadcasts(shape: &[usize], out: &[usize]) -> bool {
    shape.len() <= out.len()
        && shape.iter().zip(&out[out.len() - shape.len()..]).all(|(a, b)| a == b || *a == 1)
}

/// `Pow` with a constant exponent that products and roots give.
fn power(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    cx.f32(0)?;
    let t = cx.fixed(1)?;
    let exponent = match t.dtype() {
        _ if t.len() != 1 => return Err(Declined::new("exponent", format!("{} elements", t.len()), "one")),
        fcc_ir::DType::F32 => t.as_slice::<f32>()?.first().map_or(f64::NAN, |v| f64::from(*v)),
        _ => t.to_i64s()?.first().map_or(f64::NAN, |v| *v as f64),
    };
    let out = cx.shape(y);
    if cx.shape(x).len() != out.len() {
        return Err(Declined::new("rank of x", cx.shape(x).len(), out.len()));
    }
    let (square, mul) = (Ins::Binary(Binary::Mul, 0, 0), |a, b| Ins::Binary(Binary::Mul, a, b));
    let x0 = Ins::Input(0);
    let code = match exponent {
        1.0 => vec![x0],
        2.0 => vec![x0, square],
        3.0 => vec![x0, square, mul(1, 0)],
        4.0 => vec![x0, square, mul(1, 1)],
        0.5 => vec![x0, Ins::Unary(Unary::Sqrt, 0)],
        -1.0 => vec![x0, Ins::Unary(Unary::Reciprocal, 0)],
        _ => return Err(Declined::new("exponent", exponent, "1, 2, 3, 4, 0.5 or -1")),
    };
    cx.push_ew(Expr { code }, vec![x], y);
    Ok(())
}

/// The expression of an operator of one f32 input.
fn one_input(cx: &Cx<'_>) -> Option<Expr> {
    let act = |a: Activation| Some(Unary::Act(a));
    let op = cx.op;
    let f = match op.op_type.as_str() {
        "Relu" => act(Activation::Relu),
        "LeakyRelu" => act(Activation::LeakyRelu { alpha: ops::activation::LEAKY_RELU.params(op).ok()?[0] }),
        "HardSigmoid" => {
            let [alpha, beta] = ops::activation::HARD_SIGMOID.params(op).ok()?;
            act(Activation::HardSigmoid { alpha, beta })
        }
        "HardSwish" => act(Activation::HardSwish),
        "Sigmoid" => act(Activation::Sigmoid),
        "Tanh" => act(Activation::Tanh),
        "Gelu" if ops::activation::GELU.params(op).ok()?[0] == 0.0 => act(Activation::Gelu),
        "Swish" if ops::activation::SWISH.params(op).ok()?[0] == 1.0 => act(Activation::Silu),
        "Clip" => clip(cx, op),
        "Abs" => Some(Unary::Abs),
        "Neg" => Some(Unary::Neg),
        "Sqrt" => Some(Unary::Sqrt),
        "Exp" => Some(Unary::Exp),
        "Log" => Some(Unary::Log),
        "Reciprocal" => Some(Unary::Reciprocal),
        "Erf" => Some(Unary::Erf),
        "Floor" => Some(Unary::Floor),
        "Ceil" => Some(Unary::Ceil),
        "Round" => Some(Unary::Round),
        "Sign" => Some(Unary::Sign),
        "Softsign" => Some(Unary::Softsign),
        _ => None,
    }?;
    Some(Expr { code: vec![Ins::Input(0), Ins::Unary(f, 0)] })
}

fn clip(cx: &Cx<'_>, op: &OpNode) -> Option<Unary> {
    if cx.inputs.iter().skip(1).flatten().any(|v| cx.program.constant_of(*v).is_none()) {
        return None;
    }
    let (low, high) = ops::clip::float_bounds(op, cx.constant(1), cx.constant(2)).ok()?;
    let (low, high) = (low as f32, high as f32);
    if low.is_nan() || high.is_nan() { None } else { Some(Unary::Act(Activation::Clip { low, high })) }
}
