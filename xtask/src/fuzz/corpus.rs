//! What cases are made of: the models of the file tests and of the fixtures.
use fcc_ir::Model;
use std::path::{Path, PathBuf};

/// Models that fcc reads, in an order that does not change.
pub struct Corpus {
    /// Texts.
    pub texts: Vec<String>,
    /// Files.
    pub files: Vec<Vec<u8>>,
    /// Both, read.
    pub models: Vec<Model>,
}

/// Files above this size are left out: mutations of weights find nothing.
const MAX_BYTES: usize = 1 << 16;

/// Reads the corpus. Errors where a file that should be a model is none.
pub fn read() -> Result<Corpus, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut corpus = Corpus { texts: vec![], files: vec![], models: vec![] };
    for path in with_ending(&root.join("tests/filetests"), "onnxtxt")? {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let model = fcc_ir::text::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        // as a file too, where it is a whole model
        if let Ok(bytes) = fcc_onnx::to_bytes(&model) {
            corpus.files.push(bytes);
        }
        corpus.texts.push(text);
        corpus.models.push(model);
    }
    for path in with_ending(&root.join("fixtures/seeds"), "onnx")? {
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if bytes.len() > MAX_BYTES {
            continue;
        }
        let model = fcc_onnx::load_bytes(bytes.clone()).map_err(|e| format!("{}: {e}", path.display()))?;
        corpus.texts.push(fcc_ir::text::print(&model, &fcc_ir::text::PrintOptions::whole()));
        corpus.files.push(bytes);
        corpus.models.push(model);
    }
    Ok(corpus)
}

/// Files of this ending in a folder and in the folders of it, sorted.
fn with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found = vec![];
    for path in entries.filter_map(|entry| entry.ok().map(|e| e.path())) {
        if path.is_dir() {
            found.extend(with_ending(&path, ending)?);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
