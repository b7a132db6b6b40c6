//! The text form of real models: printed whole, read back, and the same. The models of the cache are looked at when
//! they are there; those of `fixtures/` and the file tests always; those below `FCC_MODELS` by the ignored test.
use fcc_ir::text::{PrintOptions, parse, print, same};
use fcc_ir::{Graph, Model, NodeKind, Tensor};
use std::path::{Path, PathBuf};

/// Larger initializers are cut short, to this number of elements.
const WHOLE_BYTES: usize = 8 << 10;
const KEPT_ELEMS: usize = 1000;

fn models_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        // the entry's own type: a link to a folder may lead back here
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            models_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
}

/// Cuts large initializers short: whole they are gigabytes of digits. No operator asks about them here.
fn cut_weights(graph: &mut Graph) {
    for id in graph.nodes() {
        if let NodeKind::Constant(c) = &mut graph.node_mut(id).kind
            && c.tensor.byte_len() > WHOLE_BYTES
            && let Some(bytes) = c.tensor.dtype().byte_len(KEPT_ELEMS)
        {
            let head = c.tensor.bytes().slice(..bytes);
            c.tensor = Tensor::from_bytes(c.tensor.dtype(), [KEPT_ELEMS], head).expect("as many bytes");
        }
    }
}

fn check(path: &Path) -> Result<(), String> {
    // what fcc refuses to load is not this test's matter
    let options = fcc_onnx::LoadOptions { follow_links: true, ..Default::default() };
    let Ok(mut model) = fcc_onnx::load(path, &options) else { return Ok(()) };
    let readable = print(&model, &PrintOptions::readable());
    if readable.len() > 64 << 20 {
        return Err(format!("abbreviated it has {} bytes", readable.len()));
    }
    cut_weights(&mut model.graph);
    let text = print(&model, &PrintOptions { types: true, ..PrintOptions::whole() });
    let again = parse(&text).map_err(|e| e.to_string())?;
    same(&model, &again).map_err(|e| e.to_string())?;
    // and both write the same file, whatever `same` looks at
    let bytes = |m: &Model| fcc_onnx::to_bytes(m).map_err(|e| e.to_string());
    if bytes(&model)? == bytes(&again)? { Ok(()) } else { Err("the text writes another file".into()) }
}

fn all_below(folder: &Path) -> usize {
    let mut models = vec![];
    models_below(folder, &mut models);
    let mut failures = vec![];
    for path in &models {
        if let Err(e) = check(path) {
            failures.push(format!("{}: {e}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {} models:\n{}", failures.len(), models.len(), failures.join("\n"));
    models.len()
}

fn cache() -> PathBuf {
    let given = std::env::var_os("FCC_CACHE").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache"))
}

#[test]
fn fixtures_read_back_the_same() {
    assert!(all_below(&fcc_tests::fixtures::path("")) >= 18);
}

#[test]
fn node_cases_read_back_the_same() {
    println!("{} models", all_below(&cache().join("node")));
}

#[test]
fn other_backend_cases_read_back_the_same() {
    for folder in ["simple", "ml", "pytorch-converted", "pytorch-operator", "real"] {
        println!("{folder}: {} models", all_below(&cache().join(folder)));
    }
}

#[test]
fn real_models_read_back_the_same() {
    println!("{} models", all_below(&cache().join("models")));
}

#[test]
fn file_tests_read_back_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(model) = parse(&text) else { continue };
        let text = print(&model, &PrintOptions::whole());
        let again = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        same(&model, &again).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

/// `FCC_MODELS=folder cargo nextest run -p fcc-tests --run-ignored only --test text`
#[test]
#[ignore = "needs models: FCC_MODELS names their folder"]
fn given_models_read_back_the_same() {
    let folder = std::env::var_os("FCC_MODELS").expect("FCC_MODELS names a folder");
    let seen = all_below(Path::new(&folder));
    println!("{seen} models");
    assert!(seen > 0);
}
