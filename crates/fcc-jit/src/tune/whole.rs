//! Choices that are measured by running the whole model.
use super::race::{Entrant, Rules, fastest, race};
use super::{Tuner, decide};
use crate::choices::problem::{Asked, Problem, lanes_by_count};
use crate::choices::{Choice, Way};
use crate::compiled::{CompiledModel, compile};
use fcc_ir::compare::{Tolerance, close};
use fcc_ir::interp::Values;
use fcc_ir::{Error, Result};
use std::time::Duration;

/// A whole run is steadier than one kernel, and its parts are small shares of it.
const MARGIN: f64 = 0.01;
const RULES: Rules =
    Rules { rounds: 21, least: 5, time: Duration::from_secs(3), sample: Duration::from_micros(200) };

impl Tuner<'_> {
    /// The model compiled with a way for this problem.
    fn in_way(&self, asked: &Asked, way: Way) -> Result<CompiledModel> {
        let mut options = self.options();
        if let Some(choices) = options.choices.as_mut().map(std::sync::Arc::make_mut) {
            let choice = Choice { way, ns: 0, estimate: way, estimate_ns: 0, line: 0 };
            choices.insert(asked.key.clone(), choice);
        }
        compile(self.model, &options)
    }

    /// The estimate's choice.
    fn estimated(&self, asked: &Asked) -> Result<Option<Way>> {
        Ok(match &asked.problem {
            Problem::Lanes(conv) => Some(Way::Lanes(lanes_by_count(conv, asked.key.isa))),
            _ => {
                let mut options = self.options();
                if let Some(choices) = options.choices.as_mut().map(std::sync::Arc::make_mut) {
                    choices.remove(&asked.key);
                }
                let plan = compile(self.model, &options)?.plan_for(self.inputs)?;
                let info = plan.info();
                info.isa.map(|isa| Way::Plan { isa, alone: info.alone || asked.key.threads == 1 })
            }
        })
    }

    /// Runs the model in each way; `None` where there is nothing to choose.
    pub(super) fn whole(&mut self, asked: &Asked) -> Result<Option<Choice>> {
        let setting = asked.setting();
        let Some(estimate) = self.estimated(asked)? else { return Ok(None) };
        let mut ways = vec![estimate];
        ways.extend(asked.problem.starts(setting).into_iter().filter(|w| *w != estimate));
        let mut models: Vec<(Way, CompiledModel)> = vec![];
        let mut want: Option<Values> = None;
        for way in ways {
            let model = self.in_way(asked, way)?;
            let made = model.run(self.inputs)?;
            match &want {
                None => want = Some(made),
                Some(want) => {
                    if let Err(why) = near(&made, want) {
                        self.tuned.notes.push(format!("{}: {way}: {why}", asked.key.problem));
                        continue;
                    }
                }
            }
            models.push((way, model));
        }
        let inputs = self.inputs;
        let mut entrants: Vec<Entrant> = vec![];
        for (_, model) in &models {
            entrants.push(Box::new(move || {
                // it has run on these inputs before
                let _ = std::hint::black_box(model.run(inputs));
            }));
        }
        let times = race(&mut entrants, &RULES);
        drop(entrants);
        let (Some(Some(own)), Some((best, ns))) = (times.first().copied(), fastest(&times)) else {
            return Ok(None);
        };
        Ok(Some(decide((estimate, own), (models[best].0, ns), MARGIN)))
    }
}

/// Whether two runs of one model by kernels that round in another order may be the same computation: within a
/// thousandth of the largest value. Errs with the first output that is not.
fn near(made: &Values, want: &Values) -> Result<()> {
    for (name, want) in want {
        let got = made.get(name).ok_or_else(|| Error::invalid(format!("output `{name}` is missing")))?;
        let largest = match want.as_tensor().map(fcc_ir::convert::to_f64s) {
            Ok(Ok(values)) => values.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs())),
            _ => 0.0,
        };
        close(got, want, Tolerance { rtol: 1e-3, atol: 1e-3 * largest })
            .map_err(|e| e.at(format!("output `{name}`")))?;
    }
    Ok(())
}
