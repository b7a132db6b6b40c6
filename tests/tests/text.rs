//! The text form of real models: printed whole, read back, and the same. The models of the cache are looked at when
//! they are there; those of `fixtures/` always.
use fcc_ir::Model;
use fcc_ir::text::{Constants, PrintOptions, parse, print, same};
use std::path::{Path, PathBuf};

/// Models above this size are printed abbreviated only: whole they are gigabytes of digits.
const WHOLE_BYTES: usize = 2 << 20;

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

fn size(model: &Model) -> usize {
    let graph = &model.graph;
    let bytes = |id| match &graph.node(id).kind {
        fcc_ir::NodeKind::Constant(c) => c.tensor.byte_len(),
        _ => 0,
    };
    graph.nodes().into_iter().map(bytes).sum()
}

fn check(path: &Path) -> Result<(), String> {
    // what fcc refuses to load is not this test's matter
    let Ok(model) = fcc_onnx::load(path, &fcc_onnx::LoadOptions::default()) else { return Ok(()) };
    let readable = print(&model, &PrintOptions::readable());
    if readable.len() > 64 << 20 {
        return Err(format!("abbreviated it has {} bytes", readable.len()));
    }
    if size(&model) > WHOLE_BYTES {
        let hashes = PrintOptions { constants: Constants::Abbreviated(0), ..PrintOptions::whole() };
        let error = parse(&print(&model, &hashes)).map(|_| ()).expect_err("hashes stand for constants");
        return if error.to_string().contains("an abbreviated constant") {
            Ok(())
        } else {
            Err(error.to_string())
        };
    }
    let text = print(&model, &PrintOptions { types: true, ..PrintOptions::whole() });
    let again = parse(&text).map_err(|e| e.to_string())?;
    same(&model, &again).map_err(|e| e.to_string())
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
fn real_models_read_back_the_same() {
    println!("{} models", all_below(&cache().join("models")));
}
