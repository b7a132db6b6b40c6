//! The inputs of a run: an npz, single files, or seeded random values.
use super::Failure;
use super::common::SetArg;
use super::files::CommandFiles;
use super::out::note;
use fcc_ir::interp::{Values, by_slot};
use fcc_ir::{Model, Value, infer, random};
use std::path::PathBuf;
use std::str::FromStr;

/// `NAME=FILE`.
#[derive(Debug, Clone)]
pub struct NamedFile {
    name: String,
    file: PathBuf,
}

impl FromStr for NamedFile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(NamedFile { name: name.into(), file: file.into() })
            }
            _ => Err(format!("got `{text}`, wanted NAME=FILE.npy or NAME=FILE.pb")),
        }
    }
}

/// Where the inputs come from.
#[derive(Debug, Clone, clap::Args)]
pub struct InputArgs {
    /// Inputs by name, from a NumPy archive
    #[arg(long, value_name = "IN.npz", conflicts_with_all = ["input", "random"])]
    pub inputs: Option<PathBuf>,
    /// One input from a NumPy array or an ONNX tensor; give it once for each input
    #[arg(long, value_name = "NAME=FILE.npy|FILE.pb", conflicts_with = "random")]
    pub input: Vec<NamedFile>,
    /// Random inputs from a seed: floats in [-1, 1), small integers; the same on every machine
    #[arg(long, value_name = "SEED")]
    pub random: Option<u64>,
    #[command(flatten)]
    pub set: SetArg,
}

impl InputArgs {
    /// Notes the files, before anything is read.
    pub fn note(&self, files: &mut CommandFiles) {
        let single = self.input.iter().map(|i| i.file.as_path());
        self.inputs.as_deref().into_iter().chain(single).for_each(|path| files.reads(path));
    }

    /// The values, after binding `--set` in the model. Errors where they do not fit the model, and if an output of the
    /// command is a file that they are read from.
    pub fn read(&self, model: &mut Model, files: &mut CommandFiles) -> Result<Values, Failure> {
        self.note(files);
        files.check()?;
        self.set.apply(model)?;
        let values = match (&self.inputs, self.random) {
            (Some(path), _) => {
                let arrays = fcc_onnx::read_npz(path)?;
                let values: Values = arrays.into_iter().map(|(name, t)| (name, t.into())).collect();
                check(model, &values).map_err(|e| e.in_file(path))?;
                return Ok(values);
            }
            (None, Some(seed)) => random::random_inputs(&model.graph, seed)?,
            (None, None) => self.single_files(model, files)?,
        };
        check(model, &values)?;
        Ok(values)
    }

    fn single_files(&self, model: &Model, files: &mut CommandFiles) -> Result<Values, Failure> {
        let mut values = Values::new();
        let declared = &model.graph.inputs;
        if self.input.is_empty() && model.required_inputs().next().is_some() {
            let names: Vec<String> =
                model.required_inputs().map(|i| format!("`{}` {}", i.name, i.ty)).collect();
            let wanted = "--inputs FILE.npz, --input NAME=FILE or --random SEED for";
            return Err(Failure::input(format!("inputs: got none, wanted {wanted} {}", names.join(", "))));
        }
        for NamedFile { name, file } in &self.input {
            let Some(input) = declared.iter().find(|i| i.info.name == *name) else {
                let names: Vec<String> = declared.iter().map(|i| format!("`{}`", i.info.name)).collect();
                return Err(Failure::input(format!(
                    "--input: got name `{name}`, wanted one of {}",
                    names.join(", ")
                )));
            };
            let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
            let value: Value = match extension.as_deref() {
                Some("npy") => fcc_onnx::read_npy(file)?.into(),
                Some("pb") => {
                    let (value, read) = fcc_onnx::read_value_pb_with_files(file, &input.info.ty)?;
                    files.reads_all(&read);
                    files.check()?;
                    value
                }
                _ => {
                    let message = "--input: got another kind of file, wanted .npy or .pb";
                    return Err(Failure::input(message).in_file(file));
                }
            };
            if values.insert(name.clone(), value).is_some() {
                return Err(Failure::input(format!("--input: got `{name}` twice, wanted it once")));
            }
        }
        Ok(values)
    }
}

/// Names, types and shapes against the model. Says where the names that the file gives to dimensions do not hold.
fn check(model: &Model, values: &Values) -> Result<(), Failure> {
    by_slot(&model.graph, values)?;
    let given = model.graph.inputs.iter().filter_map(|i| match values.get(&i.info.name) {
        Some(Value::Tensor(t)) => Some((&i.info, t.shape())),
        _ => None,
    });
    for contradiction in infer::contradicted_names(given) {
        note(&format!("{contradiction}: the file's name for both does not hold"));
    }
    Ok(())
}
