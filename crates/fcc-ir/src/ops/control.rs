//! `If` and `Loop`. <https://onnx.ai/onnx/operators/onnx__If.html>, <https://onnx.ai/onnx/operators/onnx__Loop.html>
use super::movement;
use crate::limits;
use crate::op::{EvalCtx, Fact, InferCtx, InferSubgraph, Operator, Schema, need_outputs};
use crate::{DType, Dim, Error, Graph, OpNode, Result, Tensor, TensorType, Value, ValueType};

/// `If`.
pub struct If;
/// `Loop`.
pub struct Loop;

const SINCE: &[i64] = &[1, 11, 13, 16, 19, 21, 23, 24, 25];

/// The type of a value that is of either type: what both agree on.
pub fn join(a: &ValueType, b: &ValueType) -> ValueType {
    use ValueType::*;
    match (a, b) {
        (Tensor(a), Tensor(b)) => {
            let shape = match (&a.shape, &b.shape) {
                (Some(x), Some(y)) if x.len() == y.len() => {
                    let dim = |(x, y): (&Dim, &Dim)| if x.same(y) { x.clone() } else { Dim::Unknown };
                    Some(x.iter().zip(y).map(dim).collect())
                }
                _ => None,
            };
            let dtype = if a.dtype == b.dtype { a.dtype } else { DType::Undefined };
            Tensor(TensorType { dtype, shape })
        }
        (Sequence(a), Sequence(b)) => Sequence(Box::new(join(a, b))),
        (Optional(a), Optional(b)) => Optional(Box::new(join(a, b))),
        (a, b) if a == b => a.clone(),
        _ => Unknown,
    }
}

/// The single truth value of a condition.
fn truth(t: &Tensor) -> Result<bool> {
    match t.as_bools()?[..] {
        [b] => Ok(b),
        _ => Err(Error::mismatch("condition", t.tensor_type(), "one bool")),
    }
}

/// Both branches of a node with this many outputs.
fn branches(node: &OpNode, n_outputs: usize) -> Result<(&Graph, &Graph)> {
    let (then, other) = (node.attrs.need_graph("then_branch")?, node.attrs.need_graph("else_branch")?);
    need_outputs(n_outputs, then.outputs.len())?;
    need_outputs(n_outputs, other.outputs.len())?;
    Ok((then, other))
}

impl Operator for If {
    fn schema(&self) -> Schema {
        Schema { name: "If", domain: "", since: SINCE, inputs: (1, 1), outputs: (1, usize::MAX) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (then, other) = branches(cx.node, cx.n_outputs)?;
        if let Some(cond) = cx.value(0) {
            return (cx.subgraph)(if truth(cond)? { then } else { other }, &[]);
        }
        let (a, b) = match ((cx.subgraph)(then, &[]), (cx.subgraph)(other, &[])) {
            (Ok(a), Ok(b)) => (a, b),
            // a branch that cannot run with these shapes: where the node makes anything, the other branch does
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => return Ok(one.iter().map(varying).collect()),
            (Err(why), Err(_)) => return Err(why),
        };
        let both = |(a, b): (Fact, Fact)| if a == b { a } else { join(&a.ty, &b.ty).into() };
        Ok(a.into_iter().zip(b).map(both).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (then, other) = branches(cx.node, cx.wanted.len())?;
        (cx.subgraph)(if truth(cx.tensor(0)?)? { then } else { other }, vec![])
    }
}

/// The body of a loop with the number of its loop-carried values, for a node with this many inputs and outputs.
fn body(node: &OpNode, n_inputs: usize, n_outputs: usize) -> Result<(&Graph, usize)> {
    let body = node.attrs.need_graph("body")?;
    let states = n_inputs.saturating_sub(2);
    if body.inputs.len() != states + 2 || body.outputs.len() < states + 1 {
        return Err(Error::mismatch(
            "inputs and outputs of the body",
            format!("{} and {}", body.inputs.len(), body.outputs.len()),
            format!("{} and at least {}", states + 2, states + 1),
        ));
    }
    need_outputs(n_outputs, body.outputs.len() - 1)?;
    Ok((body, states))
}

/// The shape in which a body takes the iteration's number (input 0) and the condition (input 1): ONNX allows scalars
/// and vectors of one element, and the body declares which.
fn single(body: &Graph, input: usize) -> Vec<usize> {
    let declared = body.inputs.get(input).and_then(|i| i.info.ty.as_tensor()?.rank());
    if declared.unwrap_or(0) == 0 { vec![] } else { vec![1] }
}

/// A fact without what may change from one iteration to the next.
fn varying(fact: &Fact) -> Fact {
    fact.ty.clone().into()
}

/// The types of the loop-carried values after any number of iterations, given those before the first, and what an
/// iteration makes of them.
fn settled(
    body: &Graph,
    mut carried: Vec<Fact>,
    infer: &InferSubgraph<'_>,
) -> Result<(Vec<Fact>, Vec<Fact>)> {
    let single = |d, i| Fact::from(ValueType::tensor(d, single(body, i)));
    // the carried types widen until an iteration leaves them as they are
    loop {
        let given = [vec![single(DType::I64, 0), single(DType::Bool, 1)], carried.clone()].concat();
        let made = infer(body, &given)?;
        let next: Vec<Fact> =
            carried.iter().zip(&made[1..]).map(|(a, b)| join(&a.ty, &b.ty).into()).collect();
        if next == carried {
            return Ok((carried, made));
        }
        carried = next;
    }
}

impl Operator for Loop {
    fn schema(&self) -> Schema {
        Schema { name: "Loop", domain: "", since: SINCE, inputs: (2, usize::MAX), outputs: (1, usize::MAX) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (body, states) = body(cx.node, cx.inputs.len(), cx.n_outputs)?;
        let carried = (2..2 + states).map(|i| Ok(varying(cx.fact(i)?))).collect::<Result<_>>()?;
        let (carried, made) = settled(body, carried, cx.subgraph)?;
        let endless = |f: Option<&Tensor>| f.is_some_and(|t| truth(t).unwrap_or(false));
        let runs_through = endless(made[0].value.as_ref()) && (!cx.has(1) || endless(cx.value(1)));
        let trips = match cx.dims(0).filter(|_| runs_through) {
            Some(d) => d.first(),
            None => Dim::Unknown,
        };
        let stacked = |f: &Fact| match &f.ty {
            ValueType::Tensor(t) => {
                let shape = t.shape.as_ref().map(|s| [std::slice::from_ref(&trips), s.as_slice()].concat());
                Fact::from(TensorType { dtype: t.dtype, shape })
            }
            _ => Fact::default(),
        };
        Ok(carried.into_iter().chain(made[1 + states..].iter().map(stacked)).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (body, states) = body(cx.node, cx.inputs.len(), cx.wanted.len())?;
        let (number, condition) = (single(body, 0), single(body, 1));
        let limit = match cx.opt_tensor(0)? {
            Some(t) => match t.to_i64s()?[..] {
                [limit] => Some(limit),
                _ => return Err(Error::mismatch("trip count", t.tensor_type(), "one number")),
            },
            None => None,
        };
        let mut go_on = cx.opt_tensor(1)?.map(truth).transpose()?.unwrap_or(true);
        let mut carried: Vec<Value> = (2..2 + states).map(|i| cx.value(i).cloned()).collect::<Result<_>>()?;
        let mut scans: Vec<Vec<Value>> = vec![vec![]; body.outputs.len() - 1 - states];
        let mut i = 0i64;
        while go_on && limit.is_none_or(|m| i < m) {
            limits::check_now()?;
            let mut given = vec![
                Tensor::new(number.clone(), vec![i])?.into(),
                Tensor::from_bools(condition.clone(), [true])?.into(),
            ];
            given.append(&mut carried);
            let mut made = (cx.subgraph)(body, given)?.into_iter();
            go_on =
                truth(made.next().ok_or_else(|| Error::invalid("the body has no outputs"))?.as_tensor()?)?;
            carried = made.by_ref().take(states).collect();
            scans.iter_mut().zip(made).for_each(|(scan, value)| scan.push(value));
            i += 1;
        }
        let types = match i == 0 && !scans.is_empty() {
            // what the body would refuse, nothing runs: the declared types are left
            true => settled(body, carried.iter().map(|v| v.value_type().into()).collect(), cx.infer)
                .map_or(vec![], |(_, made)| made),
            false => vec![],
        };
        for (k, scan) in scans.into_iter().enumerate() {
            let output = 1 + states + k;
            let inferred = types.get(output).map_or(ValueType::Unknown, |f| f.ty.clone());
            carried.push(stack(&scan, 0, || empty(body, output, inferred))?.into());
        }
        Ok(carried)
    }
}

/// Tensors of one shape joined along a new axis; without any, what `empty` makes.
pub(super) fn stack(parts: &[Value], axis: usize, empty: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    if parts.is_empty() {
        return empty();
    }
    let one = |v: &Value| {
        let t = v.as_tensor()?;
        let mut shape = t.shape().to_vec();
        if axis > shape.len() {
            return Err(Error::mismatch("axis to stack along", axis, format!("at most {}", shape.len())));
        }
        shape.insert(axis, 1);
        t.reshaped(shape)
    };
    let parts: Vec<Tensor> = parts.iter().map(one).collect::<Result<_>>()?;
    movement::concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// The stack of no iterations of a body's output, of which inference knows this: as in ONNX Runtime it has the rank of
/// the output behind the axis of iterations, and extents that are not known are 0.
fn empty(body: &Graph, output: usize, inferred: ValueType) -> Result<Tensor> {
    let output = &body.outputs[output];
    let known = [&output.info.ty, body.ty(output.value)]
        .into_iter()
        .fold(inferred, |known, declared| known.merge(declared).unwrap_or(known));
    let Some(t) = known.as_tensor().filter(|t| t.dtype != DType::Undefined) else {
        let name = &output.info.name;
        return Err(Error::unsupported(format!(
            "a loop of no iterations with output `{name}` of unknown type"
        )));
    };
    let tail = t.shape.iter().flatten().map(|d| d.known().unwrap_or(0));
    movement::Elems::empty(t.dtype, 0).into_tensor(t.dtype, [0].into_iter().chain(tail).collect::<Vec<_>>())
}
