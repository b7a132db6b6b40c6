//! What must hold for a case.
use crate::case::Case;
use crate::noise::{Bounds, Steps, agree};
use fcc_ir::infer::infer;
use fcc_ir::interp::{self, Values, run_observed};
use fcc_ir::text::{PrintOptions, parse, print, same};
use fcc_ir::verify::verify;
use fcc_ir::{Bindings, Dim, Model, RunLimits, Value};
use fcc_jit::{Isa, Precision};
use fcc_rewrite::passes;
use fcc_rewrite::registry::REMOVE_UNUSED;
use prost::Message;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A law that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which law, at which instruction set or after which rule: what stays the same while a case shrinks.
    pub kind: String,
    /// What was found.
    pub why: String,
}

/// What a case reached: one word for each operator with its types, step of a plan and rule that rewrote.
pub type Seen = BTreeSet<String>;

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only what can fail in this way.
    pub only: Option<String>,
    /// A number by which what costs much is chosen: two threads, the less exact precision, AMX.
    pub number: u64,
}

fn failure<T>(kind: impl Into<String>, why: impl ToString) -> Result<T, Failure> {
    Err(Failure { kind: kind.into(), why: why.to_string() })
}

/// How long a case may run.
const CASE: Duration = Duration::from_secs(10);

/// A message without names and numbers.
fn gist(message: &str) -> String {
    let words = message.split('`').step_by(2).collect::<String>();
    words.chars().filter(|c| !c.is_ascii_digit()).take(100).collect()
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Checks a case; a panic is a failure too, named by its place.
pub fn guarded(case: &Case, options: &Options) -> Result<Seen, Failure> {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        PANIC.with(|p| {
            *p.borrow_mut() = Some(format!("{place}: {}", info.payload_as_str().unwrap_or_default()))
        });
    }));
    let limits = RunLimits { deadline: Some(Instant::now() + CASE), ..RunLimits::default() };
    let done = limits.within(|| catch_unwind(AssertUnwindSafe(|| check(case, options))));
    let _ = std::panic::take_hook();
    if limits.deadline.is_some_and(|end| Instant::now() > end) {
        // a loop without end, or a machine that is too busy: no law says how long a case may take
        return Ok(Seen::new());
    }
    done.unwrap_or_else(|_| {
        let why = PANIC.with(|p| p.borrow_mut().take()).unwrap_or_default();
        let place: String = why.split(": ").next().unwrap_or_default().into();
        failure(format!("panic {place}"), why)
    })
}

/// Checks a case.
pub fn check(case: &Case, options: &Options) -> Result<Seen, Failure> {
    let wants = |kind: &str| {
        options.only.as_ref().is_none_or(|only| only.starts_with(kind) || only.starts_with("panic"))
    };
    let bytes = case.model.encode_to_vec();
    let model = match fcc_onnx::load_bytes(bytes) {
        Ok(model) => model,
        Err(e) => return failure(format!("import {}", gist(&e.to_string())), e),
    };
    if let Err(e) = verify(&model) {
        return failure(format!("verify {}", gist(&e.to_string())), e);
    }
    let mut seen = Seen::new();
    if wants("text") || wants("file") {
        round_trips(&model)?;
    }
    let steps = match Steps::new(case) {
        Ok(steps) => steps,
        Err(e) => return failure(format!("steps {}", gist(&e)), e),
    };
    let ran = run_whole(&model, case, wants("inferred"))?;
    let by_node = steps.run(None);
    let (want, bounds) = match (&ran, by_node) {
        (Ok(whole), Ok(by_node)) => {
            for ((w, n), zero) in whole.iter().zip(&by_node).zip(steps.bounds(&by_node, 0, 0.0)) {
                if let Err(e) = agree(w, n, &zero) {
                    return failure("whole", e);
                }
            }
            (by_node.clone(), steps.bounds(&by_node, 4, UNITS))
        }
        (Ok(_), Err(e)) => return failure("whole runs alone", e),
        (Err(e), Ok(_)) => return failure("whole refuses alone", e),
        (Err(_), Err(_)) => (vec![], vec![]),
    };
    let ran = ran.map(|_| want);
    let judge = Judge { case, steps: &steps, bounds: &bounds, ran: &ran, finite: steps.is_finite() };
    if wants("jit") {
        jit(&model, &judge, options, &mut seen)?;
    }
    if wants("rule") {
        rewrites(&model, &judge, options, &mut seen)?;
    }
    Ok(seen)
}

/// By how many units in the last place a rounding is moved.
const UNITS: f64 = 16.0;

struct Judge<'c> {
    case: &'c Case,
    steps: &'c Steps,
    bounds: &'c Bounds,
    ran: &'c Result<Vec<Value>, String>,
    /// Whether all numbers on the way are finite, and their products.
    finite: bool,
}

impl Judge<'_> {
    /// Holds what an engine or a rewritten model did against what the interpreter did.
    fn judge(&self, kind: &str, got: Result<Values, String>, units: f64) -> Result<(), Failure> {
        let names = self.case.model.graph.iter().flat_map(|g| &g.output).map(|o| o.name());
        match (self.ran, got) {
            (Err(_), Err(_)) => Ok(()),
            (Err(e), Ok(_)) => failure(format!("{kind} accepts"), format!("the interpreter: {e}")),
            (Ok(_), Err(e)) => failure(format!("{kind} refuses"), e),
            (Ok(want), Ok(got)) => {
                let wide = (units > UNITS).then(|| self.steps.bounds(want, 8, units));
                let bounds = wide.as_ref().unwrap_or(self.bounds);
                let mut more: Option<Bounds> = None;
                for (i, (name, want_value)) in names.zip(want).enumerate() {
                    let Some(got) = got.get(name) else {
                        return failure(format!("{kind} differs"), format!("`{name}` is not computed"));
                    };
                    if agree(got, want_value, &bounds[i]).is_ok() {
                        continue;
                    }
                    // more disturbances: a rare flip may not have been among the first
                    let more = more.get_or_insert_with(|| self.steps.bounds(want, 60, units));
                    if let Err(e) = agree(got, want_value, &more[i]) {
                        return failure(format!("{kind} differs"), format!("`{name}`: {e}"));
                    }
                }
                Ok(())
            }
        }
    }
}

/// What the interpreter computes of a case, and for each element of it the greatest distance that rounding explains.
///
/// # Errors
/// What the interpreter refuses, with its reason.
pub fn expected(case: &Case) -> Result<(Vec<Value>, Bounds), String> {
    let steps = Steps::new(case)?;
    let want = steps.run(None)?;
    let bounds = steps.bounds(&want, 16, UNITS);
    Ok((want, bounds))
}

/// What is printed is read back, and what is written.
fn round_trips(model: &Model) -> Result<(), Failure> {
    let text = print(model, &PrintOptions::whole());
    match parse(&text) {
        Err(e) => return failure("text unread", e),
        Ok(again) => {
            if let Err(e) = same(model, &again) {
                return failure("text differs", e);
            }
        }
    }
    let again = fcc_onnx::to_bytes(model).and_then(fcc_onnx::load_bytes);
    match again {
        Err(e) => failure("file unread", e),
        Ok(again) => same(model, &again).or_else(|e| failure("file differs", e)),
    }
}

/// Runs the interpreter; what inference said of each value must be so.
fn run_whole(model: &Model, case: &Case, inferred: bool) -> Result<Result<Vec<Value>, String>, Failure> {
    let mut typed = model.clone();
    let known = infer(&mut typed.graph, &typed.functions);
    if !inferred || known.is_err() {
        let ran = interp::run(model, &case.inputs).map_err(|e| e.to_string());
        if let (Err(e), Ok(_)) = (&known, &ran) {
            return failure("inferred refuses", e);
        }
        return Ok(ran.map(|v| in_order(model, v)));
    }
    let mut bindings = Bindings::new();
    for info in model.graph.inputs.iter().map(|i| &i.info) {
        let Some(Ok(tensor)) = case.inputs.get(&info.name).map(Value::as_tensor) else { continue };
        let declared = info.ty.as_tensor().and_then(|t| t.shape.as_deref()).unwrap_or_default();
        for (dim, extent) in declared.iter().zip(tensor.shape()) {
            if let Dim::Sym(e) = dim
                && let Some(symbol) = e.as_symbol()
            {
                bindings.entry(symbol.to_string()).or_insert(*extent);
            }
        }
    }
    let mut clash = None;
    let mut observer = |id: fcc_ir::ValueId, name: &str, value: &Value| {
        if typed.graph.op(id.node).is_none() || clash.is_some() {
            return;
        }
        let (inferred, found) = (typed.graph.ty(id), value.value_type());
        let mut bound = inferred.clone();
        bound.for_each_dim(&mut |d| *d = d.bind(&bindings));
        if bound.merge(&found).is_err() {
            clash = Some(format!(
                "value `{name}`, {}: inferred {inferred}, computed {found}",
                typed.graph.place(id.node)
            ));
        }
    };
    let ran = run_observed(&typed, &case.inputs, &mut observer).map_err(|e| e.to_string());
    match clash {
        Some(why) => failure("inferred wrong", why),
        None => Ok(ran.map(|v| in_order(model, v))),
    }
}

fn in_order(model: &Model, mut values: Values) -> Vec<Value> {
    model.graph.outputs.iter().filter_map(|o| values.remove(&o.info.name)).collect()
}

/// The code generator at every instruction set of the machine.
fn jit(model: &Model, judge: &Judge<'_>, options: &Options, seen: &mut Seen) -> Result<(), Failure> {
    for isa in Isa::ALL {
        if Isa::within(isa) != isa || isa == Isa::Amx && !options.number.is_multiple_of(4) {
            continue;
        }
        let kind = format!("jit {isa}");
        if options
            .only
            .as_ref()
            .is_some_and(|only| only.starts_with("jit") && !only.starts_with(&format!("{kind} ")))
        {
            continue;
        }
        let mut how = fcc_jit::Options::with_threads(1 + usize::from(options.number % 8 == 7));
        how.isa = isa;
        how.vnni = !options.number.is_multiple_of(3);
        let got = compiled(model, judge, &how, seen);
        judge.judge(&kind, got, UNITS)?;
        if options.number % 16 == 5 {
            how.precision = Precision::Fast;
            let got = compiled(model, judge, &how, seen);
            judge.judge(&format!("{kind} fast"), got, FAST_UNITS)?;
        }
    }
    Ok(())
}

/// The terms of a sum may be rounded to bf16: 2^16 units of f32.
const FAST_UNITS: f64 = 65536.0 * 4.0;

fn compiled(
    model: &Model,
    judge: &Judge<'_>,
    how: &fcc_jit::Options,
    seen: &mut Seen,
) -> Result<Values, String> {
    let compiled = fcc_jit::compile(model, how).map_err(|e| e.to_string())?;
    let first = compiled.run(&judge.case.inputs).map_err(|e| e.to_string())?;
    if let Ok(plan) = compiled.plan_for(&judge.case.inputs) {
        for step in plan.steps() {
            let ty = step.output.split('[').next().unwrap_or_default();
            let kernel = step.kernel.split(' ').next().unwrap_or_default();
            seen.insert(format!("{} {kernel} {} {ty}", how.isa, step.ops()));
        }
    }
    // a plan that was used must give the same again
    let second = compiled.run(&judge.case.inputs).map_err(|e| format!("the second run: {e}"))?;
    if first != second {
        return Err("the second run gives other values".into());
    }
    Ok(first)
}

/// The rule that makes spatial axes of tokens, and says of it: where their number is open, the rewritten layer refuses a
/// run with none, for ONNX has no Conv of an image without pixels. It declines where inference finds no tokens.
const POINTWISE: &str = "linear-to-pointwise-conv";

/// Whether a rewritten model refuses what [`POINTWISE`] says it does: the one thing that a rewrite takes away.
fn is_image_of_no_tokens(refused: &str) -> bool {
    refused.contains("(Conv)")
        && refused.contains("padded input along spatial axis")
        && refused.contains("got 0,")
}

fn rewrote(report: &fcc_rewrite::Report, rule: &str) -> bool {
    report.rows.iter().any(|r| r.rule == rule && r.outcome == fcc_rewrite::Outcome::Rewritten)
}

/// Each rule, each group and the default pipeline.
fn rewrites(model: &Model, judge: &Judge<'_>, options: &Options, seen: &mut Seen) -> Result<(), Failure> {
    for name in passes::names() {
        let steps = passes::named(&name).unwrap_or_default();
        let kind = format!("rule {name}");
        if options
            .only
            .as_ref()
            .is_some_and(|only| only.starts_with("rule") && !only.starts_with(&format!("{kind} ")))
        {
            continue;
        }
        let mut rewritten = model.clone();
        let report = match fcc_rewrite::run(&mut rewritten, &steps, fcc_rewrite::Options::default()) {
            Ok(report) => report,
            Err(_) if judge.ran.is_err() => continue,
            Err(e) => return failure(format!("{kind} errs"), e),
        };
        if let Err(e) = verify(&rewritten) {
            return failure(format!("{kind} invalid"), e);
        }
        let changed = same(model, &rewritten).is_err();
        let says = report.rows.iter().any(|r| r.outcome == fcc_rewrite::Outcome::Rewritten);
        let removes = report.passes.iter().any(|p| {
            p.nodes_before != p.nodes_after || p.constants_before != p.constants_after || p.rewritten > 0
        });
        if changed && !says && !removes {
            return failure(format!("{kind} report"), "the model has changed and the report says nothing");
        }
        if !changed {
            continue;
        }
        for row in report.rows.iter().filter(|r| r.outcome == fcc_rewrite::Outcome::Rewritten) {
            seen.insert(format!("rule {} {}", row.rule, row.op));
        }
        // what a rewrite makes is a model like any other; what nothing reads any more is not written
        let mut kept = rewritten.clone();
        let unused = passes::named(REMOVE_UNUSED).unwrap_or_default();
        if let Err(e) = fcc_rewrite::run(&mut kept, &unused, fcc_rewrite::Options::default()) {
            return failure(format!("{kind} errs"), e);
        }
        round_trips(&kept).map_err(|f| Failure { kind: format!("{kind} {}", f.kind), why: f.why })?;
        if judge.ran.is_ok() {
            let got = interp::run(&rewritten, &judge.case.inputs).map_err(|e| e.to_string());
            if got.as_ref().is_err_and(|e| is_image_of_no_tokens(e)) && rewrote(&report, POINTWISE) {
                continue;
            }
            // the rules' laws are those of real numbers: infinity times a zero that a rule brings in is NaN
            if judge.finite {
                judge.judge(&kind, got, UNITS)?;
            }
        }
    }
    Ok(())
}
