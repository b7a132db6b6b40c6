//! `--tune`: the fastest kernels, measured on this machine and kept in a file.
use super::files::CommandFiles;
use super::out::warn;
use super::progress::Progress;
use super::{EngineArg, Failure};
use fcc_ir::Model;
use fcc_ir::interp::Values;
use fcc_jit::Options;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `--tune` and `--tune-seconds`.
#[derive(Debug, Clone, clap::Args)]
pub struct TuneArgs {
    /// Take the fastest kernels by the measurements in FILE, a text file; what it lacks for this model, these shapes and
    /// threads is measured first and added
    #[arg(long, value_name = "FILE")]
    tune: Option<PathBuf>,
    /// Begin no measurement after S seconds; 0 measures nothing and takes what FILE has [default: no limit]
    #[arg(long, value_name = "S", requires = "tune", value_parser = seconds)]
    tune_seconds: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|v| (0.0..=86_400.0).contains(v));
    value.ok_or_else(|| format!("got `{text}`, wanted 0 to 86400 seconds"))
}

impl TuneArgs {
    /// Notes the file: it is written unless nothing is to be measured.
    pub fn note(&self, files: &mut CommandFiles) -> Result<(), Failure> {
        match &self.tune {
            Some(path) if self.measures() => files.file("--tune", path),
            Some(path) => {
                files.reads(path);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn measures(&self) -> bool {
        self.tune_seconds != Some(0.0)
    }

    /// The options with the choices of the file, after what was missing has been measured and written to it.
    pub fn apply(
        &self,
        engine: EngineArg,
        mut options: Options,
        model: &Model,
        inputs: &Values,
        progress: &mut Progress,
    ) -> Result<Options, Failure> {
        let Some(path) = &self.tune else { return Ok(options) };
        if let EngineArg::Interpreter = engine {
            return Err(Failure::input(
                "--tune: got --engine interpreter, wanted jit: it has no kernels to choose",
            ));
        }
        let saved = fcc::load_choices(path).map_err(Failure::input)?;
        if saved.is_none() && !self.measures() {
            return Err(Failure::input("got no such file, wanted one that has been tuned").in_file(path));
        }
        options.choices = Some(Arc::new(saved.unwrap_or_default()));
        if !self.measures() {
            return Ok(options);
        }
        let limit = self.tune_seconds.map(Duration::from_secs_f64);
        let tuned = fcc_jit::tune::tune(model, &options, inputs, limit, &mut |p| {
            progress.show(|| format!("measuring {} of {}: {}", p.done + 1, p.of, p.problem));
        })?;
        progress.clear();
        for note in tuned.notes.iter().chain(&tuned.replaced) {
            warn(&format!("{}: {note}", path.display()));
        }
        if tuned.left > 0 {
            let (measured, left) = (tuned.measured, tuned.left);
            warn(&format!("{}: {measured} problems measured, no time for {left}", path.display()));
        }
        if tuned.measured > 0 {
            fcc::save_choices(&tuned.choices, path).map_err(Failure::input)?;
        }
        options.choices = Some(Arc::new(tuned.choices));
        Ok(options)
    }
}
