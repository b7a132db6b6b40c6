//! Loading a model and binding its symbols.
use super::Failure;
use super::files::CommandFiles;
use fcc_ir::limits::{self, Watch};
use fcc_ir::{At, Bindings, Dim, Graph, Model, infer, text, verify};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The model, and how it is read.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArg {
    /// The model, .onnx or .onnxtxt; - is standard input, of either kind
    model: PathBuf,
    /// Read external data through symbolic and hard links, as package caches have them. A model from elsewhere could
    /// name a link to any file that you may read; its bytes then are weights
    #[arg(long)]
    follow_links: bool,
}

/// No protobuf message is longer, and no text need be.
const MOST_STDIN_BYTES: u64 = i32::MAX as u64;

impl ModelArg {
    /// The file. Errors if the model comes from standard input.
    pub fn file(&self, option: &str) -> Result<&Path, Failure> {
        if self.is_stdin() {
            return Err(Failure::input(format!("{option}: got a model from standard input, wanted a file")));
        }
        Ok(&self.model)
    }

    /// What errors call it.
    pub fn name(&self) -> &Path {
        if self.is_stdin() { Path::new("standard input") } else { &self.model }
    }

    /// Whether it is read to its end as a stream: standard input, or an open file by its number.
    fn is_stdin(&self) -> bool {
        let path = &self.model;
        ["-", "/dev/stdin", "/proc/self/fd/0"].iter().any(|name| path == Path::new(name))
            || path.starts_with("/dev/fd")
    }

    /// Notes the file, before anything is read.
    pub fn note(&self, files: &mut CommandFiles) {
        files.reads(if self.model == Path::new("-") { Path::new("/dev/stdin") } else { &self.model });
    }

    /// Loads the model, as text if its name ends in `.onnxtxt`, and verifies it. Notes every file that it consists of,
    /// and errors if one of them is an output of the command. What is read does not count as memory of a run.
    pub fn load(&self, files: &mut CommandFiles) -> Result<Model, Failure> {
        let model = Watch::default().within(|| self.read(files))?;
        limits::check_now().at(|| "loading").map_err(|e| Failure::from(e).in_file(self.name()))?;
        Ok(model)
    }

    fn read(&self, files: &mut CommandFiles) -> Result<Model, Failure> {
        self.note(files);
        files.check()?;
        let path = self.name();
        let model = if self.is_stdin() {
            let bytes = self.stream().map_err(|e| e.in_file(path))?;
            match as_text(&bytes) {
                Some(text) => text::parse(text).map_err(|e| Failure::from(e).in_file(path))?,
                None => fcc_onnx::load_bytes(bytes).map_err(|e| Failure::from(e).in_file(path))?,
            }
        } else if path.extension().is_some_and(|e| e == "onnxtxt") {
            text::parse(&text_file(path).map_err(|e| e.in_file(path))?)
                .map_err(|e| Failure::from(e).in_file(path))?
        } else {
            let options = fcc_onnx::LoadOptions { follow_links: self.follow_links, ..Default::default() };
            let (model, read) = fcc_onnx::load_with_files(path, &options).map_err(|e| {
                let link = e.kind() == fcc_onnx::ErrorKind::Linked;
                Failure::input(format!("{e}{}", if link { " (--follow-links reads through it)" } else { "" }))
            })?;
            files.reads_all(&read);
            files.check()?;
            model
        };
        verify::verify(&model).map_err(|e| Failure::from(e).in_file(path))?;
        Ok(model)
    }

    fn stream(&self) -> Result<Vec<u8>, Failure> {
        let unreadable = |e: std::io::Error| Failure::input(format!("cannot read: {e}"));
        let mut bytes = vec![];
        if self.model == Path::new("-") {
            std::io::stdin().lock().take(MOST_STDIN_BYTES + 1).read_to_end(&mut bytes)
        } else {
            let file = std::fs::File::open(&self.model).map_err(unreadable)?;
            file.take(MOST_STDIN_BYTES + 1).read_to_end(&mut bytes)
        }
        .map_err(unreadable)?;
        if bytes.len() as u64 > MOST_STDIN_BYTES {
            return Err(Failure::input(format!("got more bytes, wanted at most {MOST_STDIN_BYTES}")));
        }
        Ok(bytes)
    }
}

fn text_file(path: &Path) -> Result<String, Failure> {
    let unreadable = |e: std::io::Error| Failure::input(format!("cannot read: {e}"));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Failure::input("cannot read: got a folder or a special file, wanted a regular file"));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| Failure::input("got bytes that are not UTF-8, wanted text"))
}

/// The bytes as text. A protobuf model is none: its first field, the IR version, begins with a control character.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.chars().take(64).any(control))
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
