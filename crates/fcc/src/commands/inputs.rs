//! The inputs of a run: an npz, single files, or seeded random values.
use super::Failure;
use super::common::SetArg;
use super::files::CommandFiles;
use super::out::note;
use super::shape::{self, ShapeArg};
use fcc_ir::interp::{Values, by_slot};
use fcc_ir::limits::Watch;
use fcc_ir::{Model, Tensor, Value, ValueType, infer, random};
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
    /// Inputs by name, from a NumPy archive. An optional input is given by an array of its name, and is without a value
    /// where there is none; a sequence by arrays NAME.0, NAME.1, …
    #[arg(long, value_name = "IN.npz", conflicts_with_all = ["input", "random"])]
    pub inputs: Option<PathBuf>,
    /// One input from a NumPy array or an ONNX tensor; give it once for each input
    #[arg(long, value_name = "NAME=FILE.npy|FILE.pb", conflicts_with = "random")]
    pub input: Vec<NamedFile>,
    /// Random inputs from a seed: floats in [-1, 1), small integers; the same on every machine. Extents without a name are
    /// 1 where --shape gives no others
    #[arg(long, value_name = "SEED")]
    pub random: Option<u64>,
    #[command(flatten)]
    pub set: SetArg,
    #[command(flatten)]
    shape: ShapeArg,
}

impl InputArgs {
    /// Notes the files, before anything is read.
    pub fn note(&self, files: &mut CommandFiles) {
        let single = self.input.iter().map(|i| i.file.as_path());
        self.inputs.as_deref().into_iter().chain(single).for_each(|path| files.reads(path));
    }

    /// The values, after binding `--set` and `--shape` in the model. Errors where they do not fit the model, and if an
    /// output of the command is a file that they are read from.
    pub fn read(&self, model: &mut Model, files: &mut CommandFiles) -> Result<Values, Failure> {
        self.note(files);
        files.check()?;
        self.set.apply(model)?;
        self.shape.apply(model)?;
        let values = match (&self.inputs, self.random) {
            (Some(path), _) => {
                let values = as_declared(model, Watch::default().within(|| fcc_onnx::read_npz(path))?);
                check(model, &values).map_err(|e| e.in_file(path))?;
                return Ok(values);
            }
            (None, Some(seed)) => {
                shape::default_extents(model);
                random::random_inputs(&model.graph, seed)?
            }
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
                Some("npy") => held(&input.info.ty, fcc_onnx::read_npy(file)?.into()),
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

/// A value as an input of this type takes it: an optional input holds it.
fn held(declared: &ValueType, value: Value) -> Value {
    match declared {
        ValueType::Optional(ty) => Value::Optional((**ty).clone(), Some(Box::new(held(ty, value)))),
        _ => value,
    }
}

/// The type of the items of an input that is a sequence, or may be one.
fn items_of(declared: &ValueType) -> Option<&ValueType> {
    match declared {
        ValueType::Sequence(item) => Some(item),
        ValueType::Optional(ty) => items_of(ty),
        _ => None,
    }
}

/// The arrays as the model's inputs take them. An optional input has a value if there is an array of its name. The items
/// of a sequence are arrays `NAME.0`, `NAME.1`, …, as `--outputs` writes them.
fn as_declared(model: &Model, arrays: Vec<(String, Tensor)>) -> Values {
    let mut values: Values = arrays.into_iter().map(|(name, t)| (name, t.into())).collect();
    for input in &model.graph.inputs {
        let (name, ty) = (&input.info.name, &input.info.ty);
        let item = |i: usize| format!("{name}.{i}");
        if let Some(item_ty) = items_of(ty)
            && !values.contains_key(name)
        {
            let items: Vec<Value> = (0..).map_while(|i| values.remove(&item(i))).collect();
            if !items.is_empty() {
                values.insert(name.clone(), held(ty, Value::Sequence(item_ty.clone(), items)));
            }
        } else if let Some(value) = values.remove(name) {
            values.insert(name.clone(), held(ty, value));
        }
    }
    values
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
