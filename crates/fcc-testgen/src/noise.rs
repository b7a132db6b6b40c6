//! How far two engines may lie apart on a graph: measured by computing it again with every rounding disturbed.
//!
//! Each node is computed in the order of the file on the values of the nodes before it. What a node rounds is moved by
//! some units in the last place, before and after: the spread of the model's outputs over several such runs is what
//! rounding explains. Values that no rounding touches do not move, and are held to equality: movement, integers, and
//! sums and products of small integers in floats.
use crate::case::Case;
use crate::draw;
use crate::step::Step;
use fcc_ir::convert::{Narrowing, from_f64s, to_f64s};
use fcc_ir::interp::Values;
use fcc_ir::random::Random;
use fcc_ir::{DType, Tensor, Value};
use std::collections::BTreeSet;

/// A case whose nodes are ready to be computed one by one.
pub struct Steps {
    steps: Vec<Step>,
    start: Values,
    outputs: Vec<String>,
}

/// The greatest distance that rounding explains, for each element of each tensor of each output.
pub type Bounds = Vec<Vec<Vec<f64>>>;

/// Operators that move or choose elements, or round none: their results are the same in every engine.
const MOVES: &[&str] = &[
    "Identity",
    "Reshape",
    "Transpose",
    "Slice",
    "Concat",
    "Split",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Expand",
    "Tile",
    "Gather",
    "GatherElements",
    "GatherND",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
    "Neg",
    "Abs",
    "Relu",
    "Max",
    "Min",
    "Clip",
    "Where",
    "Sign",
    "Floor",
    "Ceil",
    "Round",
    "Shape",
    "Size",
    "Constant",
    "ConstantOfShape",
    "ReduceMax",
    "ReduceMin",
    "MaxPool",
    "GlobalMaxPool",
    "Cast",
    "CastLike",
    "Not",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "Compress",
    "Trilu",
    "EyeLike",
    "OneHot",
    "ReverseSequence",
    "ScatterElements",
    "ScatterND",
    "TopK",
    "Unique",
    "NonZero",
    "Range",
    "SequenceConstruct",
    "SequenceAt",
    "SequenceInsert",
    "SequenceErase",
    "SequenceLength",
    "SequenceEmpty",
    "ConcatFromSequence",
    "SplitToSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "IsNaN",
    "IsInf",
    "BitCast",
    "CenterCropPad",
    "MaxUnpool",
    "Scatter",
    "ArgMax",
    "ArgMin",
    "Hardmax",
];

/// Sums and products of elements: exact where all are small integers.
const LINEAR: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Sum",
    "MatMul",
    "Gemm",
    "Conv",
    "ConvTranspose",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL1",
    "CumSum",
    "Einsum",
    "PRelu",
    "LeakyRelu",
    "ThresholdedRelu",
    "HardSwish",
    "Col2Im",
    "Det",
    "Mod",
];

/// Operators of one number or two, computed in one way.
const SINGLE: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Log",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Asin",
    "Acos",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "ThresholdedRelu",
    "HardSigmoid",
    "Softplus",
];

/// What may stand where a term overflowed.
const ANY: [f64; 6] = [f64::NAN, f64::INFINITY, -f64::INFINITY, 0.0, 0.5, -1.0];

/// Operators that choose between elements: of two zeros of different signs they may take either.
const CHOOSES: &[&str] =
    &["Max", "Min", "Relu", "Clip", "ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool"];

/// Products of numbers of this size overflow in f32.
const HUGE: f64 = 1e17;

impl Steps {
    /// Prepares a case.
    pub fn new(case: &Case) -> Result<Steps, String> {
        let graph = case.model.graph.clone().unwrap_or_default();
        let mut start = case.inputs.clone();
        for i in &graph.initializer {
            if !start.contains_key(i.name()) {
                start.insert(i.name().into(), crate::case::tensor_of(i)?.into());
            }
        }
        let mut known: BTreeSet<String> = start.keys().cloned().collect();
        let mut steps = vec![];
        for node in &graph.node {
            let step =
                Step::new(node, &case.model.opset_import, &case.model.functions, &|n| known.contains(n))?;
            known.extend(node.output.iter().filter(|o| !o.is_empty()).cloned());
            steps.push(step);
        }
        let outputs = graph.output.iter().map(|o| o.name().to_string()).collect();
        Ok(Steps { steps, start, outputs })
    }

    /// Computes the outputs node by node; with a generator, every rounding is disturbed by so many units.
    pub fn run(&self, mut noise: Option<(&mut Random, f64)>) -> Result<Vec<Value>, String> {
        let mut values = self.start.clone();
        for step in &self.steps {
            let made = match &mut noise {
                None => step.run(&values).map_err(|e| e.to_string())?,
                Some((r, units)) => disturbed(step, &values, r, *units)?,
            };
            values.extend(made);
        }
        let value =
            |n: &String| values.get(n).cloned().ok_or_else(|| format!("output `{n}` is not computed"));
        self.outputs.iter().map(value).collect()
    }

    /// Every value that is computed before the first node that is refused.
    pub fn values(&self) -> Values {
        let mut values = self.start.clone();
        for step in &self.steps {
            let Ok(made) = step.run(&values) else { break };
            values.extend(made);
        }
        values
    }

    /// Whether all numbers on the way are finite, and no products of two of them overflow.
    pub fn is_finite(&self) -> bool {
        let values = self.values();
        let floats = values.values().flat_map(tensors).filter(|t| t.dtype().is_float());
        floats.filter_map(|t| to_f64s(t).ok()).flatten().all(|v| v.abs() < HUGE)
    }

    /// The bounds of this many runs around these outputs, with this many units.
    pub fn bounds(&self, want: &[Value], runs: u64, units: f64) -> Bounds {
        let zero = |v: &Value| tensors(v).iter().map(|t| vec![0.0; t.len()]).collect::<Vec<_>>();
        let mut bounds: Bounds = want.iter().map(zero).collect();
        let anything =
            |bounds: &mut Vec<Vec<f64>>| bounds.iter_mut().flatten().for_each(|b| *b = f64::INFINITY);
        for seed in 0..runs {
            let got = self.run(Some((&mut Random::new(seed), units)));
            for (i, (want, bounds)) in want.iter().zip(&mut bounds).enumerate() {
                let got = got.as_ref().ok().map(|g| tensors(&g[i])).unwrap_or_default();
                let want = tensors(want);
                let same = |(g, w): (&&Tensor, &&Tensor)| g.shape() == w.shape() && g.dtype() == w.dtype();
                if got.len() != want.len() || !got.iter().zip(&want).all(same) {
                    anything(bounds);
                    continue;
                }
                for ((g, w), b) in got.iter().zip(&want).zip(bounds) {
                    spread(g, w, b);
                }
            }
        }
        bounds
    }
}

/// Widens bounds to the distance of two tensors; what is not finite in one of them alone has no bound.
fn spread(got: &Tensor, want: &Tensor, bounds: &mut [f64]) {
    let (Ok(g), Ok(w)) = (to_f64s(got), to_f64s(want)) else {
        if got != want {
            bounds.iter_mut().for_each(|b| *b = f64::INFINITY);
        }
        return;
    };
    // where an integer or a truth value flips, others may
    let whole = !want.dtype().is_float();
    for ((g, w), b) in g.iter().zip(&w).zip(bounds.iter_mut()) {
        let d = if g == w || g.is_nan() && w.is_nan() { 0.0 } else { (g - w).abs() };
        *b = b.max(if d.is_nan() { f64::INFINITY } else { d });
    }
    if whole && bounds.iter().any(|b| *b > 0.0) {
        bounds.iter_mut().for_each(|b| *b = f64::INFINITY);
    }
}

fn disturbed(
    step: &Step,
    values: &Values,
    r: &mut Random,
    units: f64,
) -> Result<Vec<(String, Value)>, String> {
    let op = step.node.op_type();
    let plain = || step.run(values).map_err(|e| e.to_string());
    if CHOOSES.contains(&op) {
        let mut sign = |t: &Tensor| signs(t, r);
        return Ok(plain()?.into_iter().map(|(name, v)| (name, map(&v, &mut sign))).collect());
    }
    if MOVES.contains(&op) {
        return plain();
    }
    let inputs = step.inputs(values);
    let floats = inputs.iter().any(|v| tensors(v).iter().any(|t| t.dtype().is_float()));
    let made = plain()?;
    let rounded = made.iter().any(|(_, v)| tensors(v).iter().any(|t| t.dtype().is_float()));
    if !floats && !rounded || LINEAR.contains(&op) && is_exact(&inputs, &made) {
        return Ok(made);
    }
    let mut moved = values.clone();
    for name in step.reads() {
        // one disturbance for a value, wherever it is read
        if let Some(v) = moved.get_mut(name) {
            *v = map(v, &mut |t| disturb(t, r, units / 4.0, (0.0, 0.0)));
        }
    }
    // a value at the edge of what the operator takes
    let made = step.run(&moved).unwrap_or(made);
    if !SINGLE.contains(&op) && inputs.iter().any(|v| most(v) > HUGE) && r.below(2) == 0 {
        // whether a term overflows on the way depends on the order of the terms and on fused multiplication; in the
        // other half of the runs none does, so that a node behind this one sees its large numbers too
        let mut lost = |t: &Tensor| match t.dtype().is_float() {
            true => {
                let any = (0..t.len()).map(|_| *draw::one(r, &ANY)).collect();
                from_f64s(t.dtype(), t.shape().to_vec(), any, Narrowing::default())
                    .unwrap_or_else(|_| t.clone())
            }
            false => t.clone(),
        };
        return Ok(made.into_iter().map(|(name, v)| (name, map(&v, &mut lost))).collect());
    }
    let scale = inputs.iter().map(|v| most(v)).product::<f64>();
    let largest = inputs.iter().map(|v| most(v)).fold(0.0, f64::max);
    let after = |(name, v): (String, Value)| {
        // the greatest term of a sum that the node may have made
        let around = match () {
            () if SINGLE.contains(&op) => 0.0,
            () if LINEAR.contains(&op) => scale.max(most(&v)),
            () => largest.max(most(&v)),
        };
        let around = if around.is_finite() { around } else { 0.0 };
        // functions may flush denormal numbers to 0, by which others divide; products and quotients do not
        let tiny =
            if matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Sqrt" | "Reciprocal") { 0.0 } else { 2e-38 };
        (name, map(&v, &mut |t| disturb(t, r, units, (around, tiny))))
    };
    Ok(made.into_iter().map(after).collect())
}

/// Whether all elements are integers so small that every sum of products of them is exact.
fn is_exact(inputs: &[&Value], made: &[(String, Value)]) -> bool {
    let all = inputs.iter().copied().chain(made.iter().map(|(_, v)| v));
    let whole = |t: &Tensor| {
        !t.dtype().is_float() || to_f64s(t).is_ok_and(|v| v.iter().all(|v| v.fract() == 0.0 && v.abs() < 1e6))
    };
    if !all.clone().all(|v| tensors(v).iter().all(|t| whole(t))) {
        return false;
    }
    let terms = inputs.iter().flat_map(|v| tensors(v)).map(Tensor::len).max().unwrap_or(1) as f64;
    let product: f64 = inputs.iter().map(|v| most(v) + 1.0).product();
    // the narrowest type of those read and made says how far integers are exact
    let bits = all.flat_map(|v| tensors(v)).filter(|t| t.dtype().is_float()).map(|t| mantissa(t.dtype()));
    product * terms < 2f64.powi(bits.min().unwrap_or(53))
}

fn mantissa(dtype: DType) -> i32 {
    match dtype {
        DType::F64 => 53,
        DType::F32 => 24,
        DType::F16 => 11,
        DType::BF16 => 8,
        _ => 2,
    }
}

/// The greatest magnitude of a finite element; 1 for what holds no numbers.
fn most(v: &Value) -> f64 {
    let elems = tensors(v).into_iter().filter_map(|t| to_f64s(t).ok()).flatten();
    elems
        .map(f64::abs)
        .filter(|v| v.is_finite())
        .fold(None, |m: Option<f64>, v| Some(m.unwrap_or(v).max(v)))
        .unwrap_or(1.0)
}

/// Moves each element by some units of the larger of it and `around`, and by `tiny`; what is below `tiny` may become 0.
fn disturb(t: &Tensor, r: &mut Random, units: f64, (around, tiny): (f64, f64)) -> Tensor {
    let dtype = t.dtype();
    if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return t.clone();
    }
    let Ok(v) = to_f64s(t) else { return t.clone() };
    let epsilon = 2f64.powi(1 - mantissa(dtype));
    let tiny = if dtype == DType::F64 { 0.0 } else { tiny };
    let moved = v.into_iter().map(|v| {
        let sign = if r.below(2) == 0 { 1.0 } else { -1.0 };
        if v.abs() < tiny && r.below(4) == 0 {
            return 0.0;
        }
        let by = (v.abs().max(around) * epsilon * units + tiny) * (0.5 + r.unit() / 2.0);
        if v.is_finite() { v + sign * by } else { v }
    });
    from_f64s(dtype, t.shape().to_vec(), moved.collect(), Narrowing::default()).unwrap_or_else(|_| t.clone())
}

/// Gives each zero of a float tensor either sign.
fn signs(t: &Tensor, r: &mut Random) -> Tensor {
    let Ok(v) = to_f64s(t) else { return t.clone() };
    if !t.dtype().is_float() || !v.contains(&0.0) {
        return t.clone();
    }
    let v = v.into_iter().map(|v| if v == 0.0 && r.below(2) == 0 { -v } else { v }).collect();
    from_f64s(t.dtype(), t.shape().to_vec(), v, Narrowing::default()).unwrap_or_else(|_| t.clone())
}

/// Every tensor of a value, in order.
pub fn tensors(v: &Value) -> Vec<&Tensor> {
    match v {
        Value::Tensor(t) => vec![t],
        Value::Sequence(_, items) | Value::Map(_, items) => items.iter().flat_map(tensors).collect(),
        Value::Optional(_, Some(v)) => tensors(v),
        Value::Optional(_, None) => vec![],
    }
}

fn map(v: &Value, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Value {
    match v {
        Value::Tensor(t) => f(t).into(),
        Value::Sequence(ty, items) => Value::Sequence(ty.clone(), items.iter().map(|v| map(v, f)).collect()),
        Value::Optional(ty, Some(v)) => Value::Optional(ty.clone(), Some(Box::new(map(v, f)))),
        other => other.clone(),
    }
}

/// Compares what was computed with what is wanted: the types, and each element within its bound.
/// The error names the first place.
pub fn agree(got: &Value, want: &Value, bounds: &[Vec<f64>]) -> Result<(), String> {
    let (gt, wt) = (got.value_type(), want.value_type());
    if gt != wt && bounds.iter().flatten().all(|b| b.is_finite()) {
        return Err(format!("got {gt}, wanted {wt}"));
    }
    let (got, want) = (tensors(got), tensors(want));
    if got.len() != want.len() {
        return Err(format!("got {} tensors, wanted {}", got.len(), want.len()));
    }
    for ((g, w), bounds) in got.into_iter().zip(want).zip(bounds) {
        let (Ok(gv), Ok(wv)) = (to_f64s(g), to_f64s(w)) else {
            // strings and complex numbers
            if g != w && bounds.iter().all(|b| b.is_finite()) {
                return Err(format!("got {g:?}, wanted {w:?}").chars().take(200).collect());
            }
            continue;
        };
        if gv.len() != wv.len() {
            continue;
        }
        for (i, ((g, w), b)) in gv.iter().zip(&wv).zip(bounds).enumerate() {
            let same = g == w || g.is_nan() && w.is_nan();
            let near = same || *b > 0.0 && ((g - w).abs() <= 8.0 * b || *b == f64::INFINITY);
            if !near {
                return Err(format!(
                    "element {i} of {}: got {g}, wanted {w}, rounding explains {b:e}",
                    gv.len()
                ));
            }
        }
    }
    Ok(())
}
