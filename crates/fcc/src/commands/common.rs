//! Loading a model and binding its symbols.
use super::Failure;
use fcc_ir::{Bindings, Dim, Graph, Model, infer, text, verify};
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

/// Loads a model, as text if its name ends in `.onnxtxt`, and verifies it.
pub fn load(path: &Path) -> Result<Model, Failure> {
    let model = if path.extension().is_some_and(|e| e == "onnxtxt") {
        let bytes =
            std::fs::read(path).map_err(|e| Failure::input(format!("cannot read: {e}")).in_file(path))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::input("got bytes that are not UTF-8, wanted text").in_file(path))?;
        text::parse(&text).map_err(|e| Failure::from(e).in_file(path))?
    } else {
        fcc_onnx::load(path, &fcc_onnx::LoadOptions::default())?
    };
    verify::verify(&model).map_err(|e| Failure::from(e).in_file(path))?;
    Ok(model)
}

/// `SYM=N`.
#[derive(Debug, Clone)]
pub struct Binding {
    name: String,
    extent: usize,
}

impl FromStr for Binding {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("got `{text}`, wanted SYM=N such as batch=4");
        let (name, extent) = text.rsplit_once('=').ok_or_else(wanted)?;
        let extent = extent.trim().parse().map_err(|_| wanted())?;
        if name.is_empty() {
            return Err(wanted());
        }
        Ok(Binding { name: name.into(), extent })
    }
}

/// The option `--set`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SetArg {
    /// Give a symbolic dimension of the inputs an extent, for example batch=4
    #[arg(long = "set", value_name = "SYM=N")]
    set: Vec<Binding>,
}

impl SetArg {
    /// The bindings. Errors on a symbol that is given twice or that no input has.
    pub fn bindings(&self, model: &Model) -> Result<Bindings, Failure> {
        let symbols = symbols(&model.graph);
        let mut bindings = Bindings::new();
        for Binding { name, extent } in &self.set {
            if !symbols.contains(name) {
                let known: Vec<String> = symbols.iter().map(|s| format!("`{s}`")).collect();
                let known =
                    if known.is_empty() { "none: no dimension has a name".into() } else { known.join(", ") };
                return Err(Failure::input(format!("--set: got symbol `{name}`, wanted one of {known}")));
            }
            if bindings.insert(name.clone(), *extent).is_some() {
                return Err(Failure::input(format!("--set: got symbol `{name}` twice, wanted it once")));
            }
        }
        Ok(bindings)
    }
    /// Binds the symbols in the model.
    pub fn apply(&self, model: &mut Model) -> Result<(), Failure> {
        let bindings = self.bindings(model)?;
        if !bindings.is_empty() {
            infer::bind_symbols(&mut model.graph, &bindings);
        }
        Ok(())
    }
}

/// The symbols in the shapes of a graph's inputs.
pub fn symbols(graph: &Graph) -> BTreeSet<String> {
    let mut symbols = BTreeSet::new();
    for input in &graph.inputs {
        input.info.ty.clone().for_each_dim(&mut |dim| {
            if let Dim::Sym(e) = dim {
                e.visit_symbols(&mut |name| {
                    symbols.insert(name.to_string());
                });
            }
        });
    }
    symbols
}

/// Errors if the two paths are one file: outputs never replace inputs unasked.
pub fn not_the_same(output: &Path, input: &Path, option: &str) -> Result<(), Failure> {
    let same = match (output.canonicalize(), input.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => output == input,
    };
    if same {
        let message = format!("{option}: got the input file itself, wanted another file");
        return Err(Failure::input(message).in_file(output));
    }
    Ok(())
}
