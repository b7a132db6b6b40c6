//! Every operator on tensors without elements whose extents are as large as any tensor's may be: inference and
//! evaluation answer or err. Made from the tables, so that a new operator is tried too.
use super::facts::{OpFacts, Param, Times};
use super::*;
use crate::attr::{AttrValue, Attrs};
use crate::infer::infer_op;
use crate::interp::eval_op;
use crate::limits::RunLimits;
use crate::ops::testing::node_in;
use crate::{Tensor, TensorType, Value};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The largest extent beside a 0. Inference takes no time that grows with it.
const MOST: usize = 1 << 27;
/// What is evaluated: loops over an extent of [`MOST`] end too, but 200 operators would take minutes.
const MANY: usize = 1 << 17;

fn shapes(n: usize) -> [Vec<usize>; 4] {
    [vec![0, n], vec![n, 0], vec![0], vec![1, n, 0, 1]]
}

fn type_of(param: &Param, first: DType) -> Option<DType> {
    let all = [first, DType::I64, DType::F32, DType::Bool, DType::U8, DType::I8, DType::String, DType::F16];
    all.into_iter().find(|d| param.types.has(&ValueType::Tensor(TensorType::unranked(*d))))
}

/// `ones`: integers that come after the first input are ones, for each axis one, rather than of the same shape.
fn input(param: &Param, place: usize, first: DType, shape: &[usize], ones: bool) -> Option<Tensor> {
    let dtype = type_of(param, first)?;
    if ones && place > 0 && dtype == DType::I64 {
        return Some(Tensor::from_i64s(vec![1; shape.len()]));
    }
    match dtype {
        DType::String => Tensor::from_strings(shape.to_vec(), Vec::<String>::new()).ok(),
        _ => Tensor::from_bytes(dtype, shape.to_vec(), Bytes::new()).ok(),
    }
}

fn attrs(facts: &OpFacts) -> Attrs {
    let mut attrs = Attrs::new();
    for a in facts.attrs.iter().filter(|a| a.required) {
        let value: AttrValue = match a.kind {
            AttrKind::Int => 1i64.into(),
            AttrKind::Float => 1f32.into(),
            AttrKind::Ints => vec![1i64, 1].into(),
            AttrKind::String if a.name == "equation" => "...->...".into(),
            _ => continue,
        };
        attrs = attrs.with(a.name, value);
    }
    attrs
}

/// Tries an operator in all ways. Whether some input was computed, be it until a limit of time or memory was reached.
fn is_computed(facts: &OpFacts) -> bool {
    let mut computed = false;
    let variadic = facts.takes.iter().any(|p| p.times == Times::Variadic);
    let most = facts.takes.len() + usize::from(variadic);
    for n in [facts.inputs.0.max(usize::from(variadic)), most] {
        for dtype in [DType::F32, DType::I64, DType::Bool] {
            let cases =
                [MOST, MANY].into_iter().flat_map(|extent| shapes(extent).map(|shape| (extent, shape)));
            for ((extent, shape), ones) in cases.flat_map(|case| [(case.clone(), false), (case, true)]) {
                let params =
                    facts.takes.iter().chain(std::iter::repeat_n(facts.takes.last(), most).flatten());
                let made = params.take(n).enumerate().map(|(i, p)| input(p, i, dtype, &shape, ones));
                let Some(inputs) = made.collect::<Option<Vec<Tensor>>>() else { continue };
                let node = node_in(facts.domain, facts.name, facts.since, attrs(facts), n);
                let outputs = facts.outputs.0.max(1);
                let types = inputs.iter().map(|t| Some(Fact::from(t.tensor_type()))).collect::<Vec<_>>();
                let known = inputs.iter().map(|t| Some(Fact::constant(t.clone()))).collect::<Vec<_>>();
                let values: Vec<Option<Value>> = inputs.into_iter().map(|t| Some(t.into())).collect();
                let _ = infer_op(&node, &[], &types, &[], outputs);
                let _ = infer_op(&node, &[], &known, &[], outputs);
                if extent == MOST {
                    continue;
                }
                let limits = RunLimits {
                    deadline: Some(Instant::now() + Duration::from_millis(200)),
                    memory_bytes: Some(64 << 20),
                    ..RunLimits::default()
                };
                computed |= limits.within(|| {
                    eval_op(&node, &[], &values, &[], &vec![true; outputs])
                        .map_or_else(|e| e.is_stopped(), |_| true)
                });
            }
        }
    }
    computed
}

#[test]
fn every_operator_answers_on_extents_around_nothing() {
    let (mut computed, mut panicked) = (vec![], vec![]);
    for op in Op::ALL {
        let Some(facts) = BY_OP[*op as usize].iter().rev().find(|f| !f.deprecated) else { continue };
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| is_computed(facts))) {
            Ok(true) => computed.push(facts.name),
            Ok(false) => {}
            Err(_) => panicked.push(facts.name),
        }
        eprintln!("{} {} ms", facts.name, started.elapsed().as_millis());
    }
    assert!(panicked.is_empty(), "{panicked:?}");
    eprintln!("{} of {} operators computed something", computed.len(), Op::ALL.len());
    // the others want sequences, bodies or inputs that fit each other
    assert!(2 * computed.len() > Op::ALL.len(), "{computed:?}");
}
