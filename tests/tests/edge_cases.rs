//! `docs/edge-cases.md` names tests that exist: file tests, `FILE.rs: FUNCTION`, whole files, functions.
use std::path::{Path, PathBuf};

/// A Rust file of this repository, by path, with its text.
type Sources = Vec<(PathBuf, String)>;

fn sources_below(folder: &Path, found: &mut Sources) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// What stands between backticks in the last column of the tables.
fn named(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(['|', ' ']).rsplit(" | ").next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

fn exists(name: &str, root: &Path, sources: &Sources) -> bool {
    let of_file =
        |file: &str| sources.iter().filter(move |(path, _)| path.ends_with(file)).collect::<Vec<_>>();
    if let Some((file, function)) = name.split_once(".rs: ") {
        let wanted = format!("fn {function}(");
        // a path within a crate may leave `crates/` out
        return of_file(&format!("{file}.rs")).iter().any(|(_, text)| text.contains(&wanted));
    }
    // a case that a script makes: its name, up to a `*`, stands in one of the scripts whose names begin alike
    if let Some((script, case)) = name.split_once(".py: ") {
        let case = case.trim_end_matches('*').split('_').skip(1).collect::<Vec<_>>().join("_");
        let stem = script.rsplit('/').next().unwrap_or_default();
        let scripts = std::fs::read_dir(root.join("scripts")).unwrap().map(|f| f.unwrap());
        let mut alike = scripts.filter(|f| f.file_name().to_string_lossy().starts_with(stem));
        return !case.is_empty()
            && alike.any(|f| {
                std::fs::read_to_string(f.path()).is_ok_and(|text| text.contains(case.trim_end_matches('_')))
            });
    }
    if name.starts_with("scripts/") {
        return root.join(name).is_file();
    }
    if name.ends_with(".rs") {
        return !of_file(name).is_empty();
    }
    if let Some(prefix) = name.strip_suffix('*') {
        let mut files = std::fs::read_dir(root.join("tests/filetests")).unwrap();
        return files.any(|f| f.unwrap().file_name().to_string_lossy().starts_with(prefix));
    }
    let (function, text) = (format!("fn {name}("), format!("\"{name}\""));
    root.join(format!("tests/filetests/{name}.onnxtxt")).exists()
        || sources.iter().any(|(_, s)| s.contains(&function) || s.contains(&text))
}

#[test]
fn every_test_that_the_page_of_edge_cases_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/edge-cases.md")).unwrap();
    let mut sources = vec![];
    for folder in ["crates", "tests"] {
        sources_below(&root.join(folder), &mut sources);
    }
    let names: Vec<&str> = named(&page).into_iter().filter(|n| !n.starts_with("cargo ")).collect();
    assert!(names.len() > 40, "{names:?}");
    let gone: Vec<&&str> = names.iter().filter(|name| !exists(name, &root, &sources)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert!(
        !exists("driver.rs: no_such_test", &root, &sources)
            && !exists("no_such_rule_at_all_*", &root, &sources)
            && !exists("scripts/microsoft.py: gqa_no_such_case", &root, &sources)
            && !exists("scripts/no_such_script.py", &root, &sources)
    );
}
