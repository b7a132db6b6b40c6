//! What a run leaves to the interpreter, and how much of its time that takes.
use super::out::note;
use fcc::Runner;
use fcc_ir::interp::Values;
use fcc_jit::{Profile, StepInfo, Work};
use std::time::Duration;

/// Runs a model; of compiled ones with the time of each step.
pub fn run(runner: &Runner<'_>, given: &Values) -> fcc_ir::Result<(Values, Option<Interpreted>)> {
    match runner {
        Runner::Jit(compiled) => {
            let (made, profile) = compiled.run_profiled(given, false)?;
            Ok((made, Some(Interpreted::of(&profile))))
        }
        Runner::Interpreter(_) => Ok((runner.run(given)?, None)),
    }
}

/// The steps of a run that the interpreter computes.
pub struct Interpreted {
    /// How many there are, those in the bodies of loops and branches each once.
    pub steps: usize,
    /// How many of them are in bodies.
    in_bodies: usize,
    /// How many steps there are in all, without those in bodies.
    of: usize,
    /// The part of the time of all steps that they take, 0 to 1.
    pub share: f64,
    /// What they compute, those that take longest first, with how often.
    what: Vec<(String, usize)>,
    /// Why there is no plan at all.
    whole: Option<String>,
}

impl Interpreted {
    fn of(profile: &Profile) -> Interpreted {
        let mut what: Vec<(String, usize, Duration)> = vec![];
        let (mut steps, mut time, mut all) = (0, Duration::ZERO, Duration::ZERO);
        let mut whole = None;
        for step in &profile.steps {
            all += step.time;
        }
        for step in profile.steps.iter().chain(&profile.in_bodies) {
            let Work::Interpret { why } = &step.info.work else { continue };
            steps += 1;
            time += step.time;
            if step.info.nodes.is_empty() {
                whole.get_or_insert_with(|| why.got.clone());
            }
            let name = title(&step.info);
            match what.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, n, t)) => (*n, *t) = (*n + 1, *t + step.time),
                None => what.push((name, 1, step.time)),
            }
        }
        what.sort_by_key(|(_, _, time)| std::cmp::Reverse(*time));
        let share = if all.is_zero() { 0.0 } else { time.as_secs_f64() / all.as_secs_f64() };
        let what = what.into_iter().map(|(name, n, _)| (name, n)).collect();
        Interpreted { steps, in_bodies: profile.in_bodies.len(), of: profile.steps.len(), share, what, whole }
    }

    /// Says so in one line on standard error, if there are any.
    pub fn tell(&self) {
        /// So many kinds of steps are named.
        const NAMED: usize = 5;
        if self.steps == 0 {
            return;
        }
        if let (Some(why), 1) = (&self.whole, self.of) {
            return note(&format!("all of it runs in the interpreter, which is slow: {why}"));
        }
        let name = |(name, n): &(String, usize)| if *n == 1 { name.clone() } else { format!("{n} {name}") };
        let mut what: Vec<String> = self.what.iter().take(NAMED).map(name).collect();
        if self.what.len() > NAMED {
            what.push("…".into());
        }
        let (here, of, what) = (self.steps - self.in_bodies, self.of, what.join(", "));
        let which = match (here, self.in_bodies) {
            (_, 0) => format!("{here} of {of} steps run"),
            (0, 1) => "a step in the body of a loop or branch runs".into(),
            (0, n) => format!("{n} steps in the bodies of loops and branches run"),
            (_, n) => format!("{here} of {of} steps, and {n} in the bodies of loops and branches, run"),
        };
        note(&format!("{which} in the interpreter, which is slow: {what} (`fcc explain` says why)"));
    }
}

/// `Conv (float16)`: the operators, and the type of what they make.
fn title(step: &StepInfo) -> String {
    if step.nodes.is_empty() {
        return "a region".into();
    }
    let ty = step.output.split(['[', ',', ' ']).next().unwrap_or_default();
    if ty.is_empty() { step.ops() } else { format!("{} ({ty})", step.ops()) }
}
