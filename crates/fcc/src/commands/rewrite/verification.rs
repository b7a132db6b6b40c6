//! Holds the rewritten model against the original.
use super::super::Failure;
use super::super::out::{Out, complain, warn};
use super::Args;
use fcc_ir::Model;
use fcc_ir::interp::{self, Values};
use fcc_rewrite::dense::{self, Dense};
use fcc_rewrite::verify::{self, Comparison};
use serde_json::{Value as Json, json};

/// What came of the verification.
pub enum Verified {
    NotAsked,
    /// The original does not run, so there is nothing to compare with.
    Impossible(String),
    /// The original runs, the rewritten model does not.
    Broken(String),
    Compared(Comparison),
}

/// Runs whole models: compiled where that works, else in the interpreter.
fn engine(model: &Model, inputs: &Values, options: &fcc_jit::Options) -> fcc_ir::Result<Values> {
    match fcc_jit::compile(model, options).and_then(|c| c.run(inputs)) {
        Err(why) if !why.is_stopped() => interp::run(model, inputs),
        done => done,
    }
}

/// Compares the two models on seeded inputs. Errors if a limit of the run is reached.
pub fn compare(original: &Model, rewritten: &Model, options: &fcc_jit::Options) -> fcc_ir::Result<Verified> {
    let engine = |model: &Model, inputs: &Values| engine(model, inputs, options);
    let options = verify::Options { engine: Some(&engine), ..Default::default() };
    match verify::compare(original, rewritten, &options) {
        Ok(comparison) => Ok(Verified::Compared(comparison)),
        Err(e) if e.is_stopped() => Err(e),
        Err(e) => {
            let original = matches!(e.root(), fcc_ir::Error::Unsupported(_))
                || e.root().to_string().starts_with("the original does not run");
            let why = e.to_string();
            Ok(if original { Verified::Impossible(why) } else { Verified::Broken(why) })
        }
    }
}

/// Compares a dense model whose layers pad with the original, on an image of the original's size.
pub fn dense_alone(
    original: &Model,
    made: &Dense,
    options: &fcc_jit::Options,
) -> fcc_ir::Result<Option<String>> {
    let engine = |model: &Model, inputs: &Values| engine(model, inputs, options);
    dense::check_alone(original, &made.model, &made.windows, &engine)
}

/// Says what verification found; errs where the output must not be written.
pub fn tell(out: &mut Out, args: &Args, verified: &Verified) -> Result<(), Failure> {
    match verified {
        Verified::NotAsked => Ok(()),
        Verified::Compared(c) if c.is_same() => {
            if !args.json {
                out.text(&c.to_string())?;
                out.line("verified: the rewritten model computes what the original does")?;
            }
            Ok(())
        }
        Verified::Compared(c) => {
            match &c.difference {
                Some(d) => complain(&format!("verification: differs at {d}")),
                None => complain("verification: got no run to compare, wanted at least one"),
            }
            Err(Failure::Check)
        }
        Verified::Broken(why) => {
            complain(&format!("verification: the rewritten model does not run: {why}"));
            Err(Failure::Check)
        }
        Verified::Impossible(why) if args.verify => {
            complain(&format!("verification: not possible: {why}"));
            Err(Failure::Check)
        }
        Verified::Impossible(why) => {
            warn(&format!("not verified: {why}"));
            Ok(())
        }
    }
}

/// As `--json` and `--report` have it: null, `{"impossible": why}`, `{"broken": why}`, or the comparison.
pub fn as_json(verified: &Verified) -> Json {
    match verified {
        Verified::NotAsked => Json::Null,
        Verified::Impossible(why) => json!({ "impossible": why }),
        Verified::Broken(why) => json!({ "broken": why }),
        Verified::Compared(c) => serde_json::to_value(c).unwrap_or_default(),
    }
}
