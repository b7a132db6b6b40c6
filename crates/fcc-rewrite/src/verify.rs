//! Compares a rewritten model with the original on seeded inputs, value by value.
//!
//! Both graphs keep the names of the values that a rewrite replaces, so what they share is known by name. The
//! original runs once; then each stretch of changed nodes is computed on the original's own values in `f64`, on both
//! sides, and compared where the sides meet again. Rewrites are equal as functions of real numbers, so the bound is
//! that of `f64` sums, `4 * 2^-53 * terms * sum |x*w|`: a single wrong weight among 25,088 stands out, which in `f32`
//! it would not. At the end the rewritten model runs as a whole, in the engine the caller chose, and its outputs are
//! compared with the original's up to the rounding of their type.
use crate::stretch::{Compared, Stretches};
use fcc_ir::attr::AttrValue;
use fcc_ir::interp::{self, Values};
use fcc_ir::limits::Stopped;
use fcc_ir::random::Random;
use fcc_ir::{
    Bindings, DType, Dim, Error, Graph, Model, NodeId, NodeKind, Result, RunLimits, Tensor, Value, ValueInfo,
    ValueType, printable,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Runs a model: what [`Options::engine`] is.
pub type Engine<'e> = dyn Fn(&Model, &Values) -> Result<Values> + 'e;

/// How to compare.
pub struct Options<'e> {
    /// Seed of the inputs.
    pub seed: u64,
    /// Sizes for symbols that are the first extent of an input, one trial each.
    pub batches: Vec<usize>,
    /// Values of symbols that the caller fixed.
    pub bindings: Bindings,
    /// What runs whole models; the interpreter if there is none.
    pub engine: Option<&'e Engine<'e>>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { seed: 1, batches: vec![1, 3], bindings: Bindings::new(), engine: None }
    }
}

/// The outcome of [`compare`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// One entry for each set of input sizes.
    pub trials: Vec<Trial>,
    /// The first place where the models differ.
    pub difference: Option<Difference>,
}

/// One run on inputs of one set of sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Values of the symbols.
    pub bindings: BTreeMap<String, usize>,
    /// Why the trial was left out: the original itself does not run at these sizes.
    pub skipped: Option<String>,
    /// Values compared in `f64`.
    pub values: usize,
    /// Elements compared in `f64`.
    pub elements: usize,
    /// The largest error in parts of its bound.
    pub worst: f64,
    /// The largest difference of an output of the whole run, in parts of the output's largest element.
    pub outputs_differ_by: f64,
    /// Elements of integer outputs that differ after rounding (as where the largest of two is chosen).
    pub integer_flips: usize,
}

/// A place where the models differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Values of the symbols.
    pub bindings: BTreeMap<String, usize>,
    /// The value's name in both models.
    pub value: String,
    /// The node that makes it in the rewritten model.
    pub place: String,
    /// Index of the first element that differs; empty where the types differ.
    pub index: Vec<usize>,
    /// The original's element or type.
    pub original: String,
    /// The rewritten model's.
    pub rewritten: String,
    /// The largest difference that rounding explains.
    pub bound: f64,
}

impl Comparison {
    /// Whether no difference was found and at least one trial ran.
    pub fn is_same(&self) -> bool {
        self.difference.is_none() && self.trials.iter().any(|t| t.skipped.is_none())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { value, place, index, original, rewritten, bound, bindings } = self;
        let (value, place) = (printable(value), printable(place));
        write!(f, "`{value}`{index:?}, {place}: original {original}, rewritten {rewritten}")?;
        write!(f, ", rounding explains {bound:.3e}")?;
        if !bindings.is_empty() {
            let set: Vec<String> = bindings.iter().map(|(s, n)| format!("{}={n}", printable(s))).collect();
            write!(f, " (at {})", set.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for t in &self.trials {
            let set: Vec<String> = t.bindings.iter().map(|(s, n)| format!("{}={n}", printable(s))).collect();
            let at = if set.is_empty() { "fixed sizes".into() } else { set.join(", ") };
            match &t.skipped {
                Some(why) => writeln!(f, "{at}: left out, the original does not run: {}", printable(why))?,
                None => writeln!(
                    f,
                    "{at}: {} values, {} elements, largest error {:.2} of its bound, outputs within {:.1e}",
                    t.values, t.elements, t.worst, t.outputs_differ_by
                )?,
            }
        }
        match &self.difference {
            Some(d) => writeln!(f, "differs at {d}"),
            None => Ok(()),
        }
    }
}

/// Extents tried for symbols that are not the first extent of an input, until the original runs: unequal ones first.
const EXTENTS: &[&[usize]] =
    &[&[5, 7], &[8, 12], &[16, 24], &[32, 64], &[64, 96], &[224, 256], &[320], &[640]];

/// The most elements of all inputs of a trial whose extents are chosen here.
const MOST_INPUT_ELEMS: usize = 1 << 24;
/// A comparison holds at most this much beside the models, and in addition as much again as the file asks for: this
/// many times the bytes of its constants.
const MEMORY_BYTES: usize = 1 << 30;
const MEMORY_PER_WEIGHT_BYTE: usize = 16;

/// Compares two models. Errors if no trial runs in the original, the rewritten model does not run where it does, or a
/// limit of the run is reached ([`fcc_ir::RunLimits`]).
///
/// Extents that the caller left open are chosen small, and memory is limited: a few bytes of a model can ask for any
/// amount of both.
pub fn compare(original: &Model, rewritten: &Model, options: &Options<'_>) -> Result<Comparison> {
    let bytes: usize = [original, rewritten].iter().map(|m| constant_bytes(&m.graph)).sum();
    let memory_bytes = Some(bytes.saturating_mul(MEMORY_PER_WEIGHT_BYTE).saturating_add(MEMORY_BYTES));
    let limits = RunLimits { memory_bytes, ..RunLimits::default() };
    let compared = limits.within(|| compare_within(original, rewritten, options));
    compared.map_err(|e| match e.stopped() {
        // the limit of this comparison, not of whoever asked for it
        Some(Stopped::Memory { limit_bytes, .. }) if Some(limit_bytes) == memory_bytes => {
            Error::unsupported(format!("a comparison in more than {} MiB", limit_bytes >> 20))
        }
        _ => e,
    })
}

fn constant_bytes(graph: &Graph) -> usize {
    let bytes = |id: NodeId| match &graph.node(id).kind {
        NodeKind::Constant(c) => c.tensor.byte_len(),
        NodeKind::Op(op) => {
            let own = match op.attrs.get("value") {
                Some(AttrValue::Tensor(t)) => t.tensor.byte_len(),
                _ => 0,
            };
            own + op.attrs.graphs().map(constant_bytes).sum::<usize>()
        }
        NodeKind::Input | NodeKind::SparseConstant(_) | NodeKind::Capture(_) => 0,
    };
    graph.nodes().into_iter().map(bytes).sum()
}

/// Whether other extents cannot help: what fcc does not compute at all, or had too little memory for at smaller ones.
fn is_final(why: &Error) -> bool {
    matches!(why.root(), Error::Unsupported(_) | Error::Stopped(_))
}

fn compare_within(original: &Model, rewritten: &Model, options: &Options<'_>) -> Result<Comparison> {
    let stretches = Stretches::new(original, rewritten)?;
    let observed = stretches.observed_model();
    let symbols = Symbols::of(original, &options.bindings);
    let mut done = Comparison { trials: vec![], difference: None };
    let batches = if symbols.leading.is_empty() { &[1][..] } else { &options.batches };
    let mut extents: Option<&[usize]> = None;
    for (number, batch) in batches.iter().enumerate() {
        let candidates: Vec<&[usize]> = match extents {
            Some(known) => vec![known],
            None if symbols.inner.is_empty() => vec![&[1]],
            None => EXTENTS.to_vec(),
        };
        let seed = options.seed.wrapping_add(number as u64);
        let mut trial = Err(Error::unsupported(format!(
            "inputs of more than {MOST_INPUT_ELEMS} elements at any extents"
        )));
        for sizes in candidates {
            let bindings = symbols.bind(*batch, sizes, &options.bindings);
            // sizes grow from one set to the next
            if !symbols.inner.is_empty() && input_elems(original, &bindings)? > MOST_INPUT_ELEMS {
                break;
            }
            let given = inputs(original, &bindings, seed).map_err(|e| e.at("verification"))?;
            trial = run(options, &observed, &given).map(|made| (bindings, given, made));
            match &trial {
                Ok(_) => extents = Some(sizes),
                Err(why) if is_final(why) => {}
                Err(_) => continue,
            }
            break;
        }
        match trial {
            Ok((bindings, given, made)) => {
                let (trial, difference) =
                    compare_run(&stretches, rewritten, options, bindings, &given, &made)?;
                done.trials.push(trial);
                if difference.is_some() {
                    done.difference = difference;
                    return Ok(done);
                }
            }
            Err(why) if why.is_stopped() => return Err(why.at("verification: the original")),
            Err(why) => done.trials.push(Trial {
                bindings: symbols.bind(*batch, extents.unwrap_or(&[1]), &options.bindings),
                skipped: Some(why.to_string()),
                values: 0,
                elements: 0,
                worst: 0.0,
                outputs_differ_by: 0.0,
                integer_flips: 0,
            }),
        }
    }
    match done.trials.iter().find(|t| t.skipped.is_none()) {
        Some(_) => Ok(done),
        None => {
            let why = done.trials.first().and_then(|t| t.skipped.clone()).unwrap_or_default();
            Err(Error::invalid(format!("the original does not run: {why}")))
        }
    }
}

fn run(options: &Options<'_>, model: &Model, given: &Values) -> Result<Values> {
    match options.engine {
        Some(engine) => engine(model, given),
        None => interp::run(model, given),
    }
}

fn compare_run(
    stretches: &Stretches<'_>,
    rewritten: &Model,
    options: &Options<'_>,
    bindings: Bindings,
    given: &Values,
    made: &Values,
) -> Result<(Trial, Option<Difference>)> {
    let mut trial = Trial {
        bindings: bindings.clone(),
        skipped: None,
        values: 0,
        elements: 0,
        worst: 0.0,
        outputs_differ_by: 0.0,
        integer_flips: 0,
    };
    for compared in stretches.compare(given, made) {
        let Compared { value, place, elements, worst, differs, .. } = compared?;
        trial.values += 1;
        trial.elements += elements;
        trial.worst = trial.worst.max(worst);
        if let Some(d) = differs {
            let difference = Difference {
                bindings,
                value,
                place,
                index: d.index,
                original: d.original,
                rewritten: d.rewritten,
                bound: d.bound,
            };
            return Ok((trial, Some(difference)));
        }
    }
    let whole = run(options, rewritten, given).map_err(|e| e.at("the rewritten model"))?;
    for o in &rewritten.graph.outputs {
        let name = &o.info.name;
        let (Some(want), Some(got)) = (made.get(name), whole.get(name)) else {
            return Err(Error::invalid(format!("output `{name}` is missing")));
        };
        let place = rewritten.graph.place(o.value.node);
        if let Some(difference) = compare_outputs(&mut trial, name, place, want, got) {
            return Ok((trial, Some(difference)));
        }
    }
    Ok((trial, None))
}

/// Compares an output of two whole runs, up to rounding of its type: `sqrt(eps)` of its largest element. The exact
/// comparison was made value by value; this one finds what only a whole run shows.
fn compare_outputs(
    trial: &mut Trial,
    name: &str,
    place: String,
    want: &Value,
    got: &Value,
) -> Option<Difference> {
    let differs = |index: Vec<usize>, original: String, rewritten: String, bound: f64| {
        let (bindings, value) = (trial.bindings.clone(), name.to_string());
        Some(Difference { bindings, value, place, index, original, rewritten, bound })
    };
    let (Value::Tensor(a), Value::Tensor(b)) = (want, got) else {
        let (a, b) = (want.value_type(), got.value_type());
        return if a == b { None } else { differs(vec![], a.to_string(), b.to_string(), 0.0) };
    };
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return differs(vec![], a.tensor_type().to_string(), b.tensor_type().to_string(), 0.0);
    }
    let (Some(x), Some(y)) = (as_f64s(a), as_f64s(b)) else {
        trial.integer_flips += a.bytes().iter().zip(b.bytes()).filter(|(a, b)| a != b).count();
        return None;
    };
    let largest = x.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let bound = epsilon(a.dtype()).sqrt() * largest;
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan());
        let error = (x - y).abs();
        let explained = same || error <= bound;
        if !explained {
            return differs(index_of(i, a.shape()), x.to_string(), y.to_string(), bound);
        }
        if !same && largest > 0.0 {
            trial.outputs_differ_by = trial.outputs_differ_by.max(error / largest);
        }
    }
    None
}

/// Unit roundoff of a floating element type.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// The elements of a floating tensor of 16 to 64 bits; `None` for other types.
pub(crate) fn as_f64s(t: &Tensor) -> Option<Vec<f64>> {
    use fcc_ir::half::{bf16, f16};
    Some(match t.dtype() {
        DType::F64 => t.as_slice::<f64>().ok()?.into_owned(),
        DType::F32 => t.as_slice::<f32>().ok()?.iter().map(|v| f64::from(*v)).collect(),
        DType::F16 => t.as_slice::<f16>().ok()?.iter().map(|v| v.to_f64()).collect(),
        DType::BF16 => t.as_slice::<bf16>().ok()?.iter().map(|v| v.to_f64()).collect(),
        _ => return None,
    })
}

pub(crate) fn index_of(mut linear: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (slot, &n) in index.iter_mut().zip(shape).rev() {
        (*slot, linear) = (linear % n.max(1), linear / n.max(1));
    }
    index
}

/// The symbols of a model's inputs that the caller left open.
struct Symbols {
    leading: BTreeSet<String>,
    inner: BTreeSet<String>,
}

impl Symbols {
    fn of(model: &Model, fixed: &Bindings) -> Symbols {
        let mut symbols = Symbols { leading: BTreeSet::new(), inner: BTreeSet::new() };
        for info in model.required_inputs() {
            let shape = info.ty.as_tensor().and_then(|t| t.shape.as_ref());
            for (axis, dim) in shape.into_iter().flatten().enumerate() {
                match dim {
                    Dim::Sym(e) => e.visit_symbols(&mut |s| {
                        if !fixed.contains_key(s) {
                            let set = if axis == 0 { &mut symbols.leading } else { &mut symbols.inner };
                            set.insert(s.to_string());
                        }
                    }),
                    // an extent without a name is tried as if it had one
                    Dim::Unknown => {
                        let set = if axis == 0 { &mut symbols.leading } else { &mut symbols.inner };
                        set.insert(nameless(info, axis));
                    }
                    Dim::Known(_) => {}
                }
            }
        }
        symbols.inner = symbols.inner.difference(&symbols.leading).cloned().collect();
        symbols
    }
    fn bind(&self, batch: usize, extents: &[usize], fixed: &Bindings) -> Bindings {
        let mut bindings = fixed.clone();
        bindings.extend(self.leading.iter().map(|s| (s.clone(), batch)));
        let cycle = extents.iter().copied().cycle();
        bindings.extend(self.inner.iter().cloned().zip(cycle));
        bindings
    }
}

/// What messages call an extent without a name.
fn nameless(info: &ValueInfo, axis: usize) -> String {
    format!("{}[{axis}]", info.name)
}

/// Inputs of a model as [`Random::tensor`] draws them; the same for the same seed.
pub fn inputs(model: &Model, bindings: &Bindings, seed: u64) -> Result<Values> {
    let mut random = Random::new(seed);
    let draw = |input: Result<(&ValueInfo, DType, Vec<usize>)>| {
        let (info, dtype, shape) = input?;
        let drawn = random.tensor(dtype, shape).map_err(|e| e.at(format!("input `{}`", info.name)))?;
        Ok((info.name.clone(), drawn.into()))
    };
    input_shapes(model, bindings).map(draw).collect()
}

/// The number of elements of all inputs.
fn input_elems(model: &Model, bindings: &Bindings) -> Result<usize> {
    input_shapes(model, bindings).try_fold(0usize, |sum, input| {
        let (_, _, shape) = input?;
        Ok(sum.saturating_add(shape.iter().fold(1usize, |n, d| n.saturating_mul(*d))))
    })
}

fn input_shapes<'m>(
    model: &'m Model,
    bindings: &'m Bindings,
) -> impl Iterator<Item = Result<(&'m ValueInfo, DType, Vec<usize>)>> {
    let drawn = model.required_inputs().filter(|info| !matches!(info.ty, ValueType::Optional(_)));
    drawn.map(move |info| {
        let place = || format!("input `{}`", info.name);
        let ty = info.ty.as_tensor().filter(|t| t.shape.is_some());
        let ty = ty.ok_or_else(|| Error::mismatch(place(), &info.ty, "a tensor of known rank"))?;
        let extent = |(axis, d): (usize, &Dim)| match d.bind(bindings) {
            Dim::Known(n) => Ok(n),
            Dim::Unknown => Ok(bindings.get(&nameless(info, axis)).copied().unwrap_or(1)),
            Dim::Sym(e) => Err(Error::mismatch(place(), &e, "an extent that is bound")),
        };
        let dims = ty.shape.iter().flatten().enumerate();
        Ok((info, ty.dtype, dims.map(extent).collect::<Result<_>>()?))
    })
}
