//! The ONNX backend tests in the interpreter, held against `conformance/manifest.txt`: every case that the
//! manifest does not name must pass, and none that it names may.
//!
//! `scripts/backend_cases.py` writes the cases (the nine `real` networks are left to `scripts/conformance.py`, which runs
//! a release build); `FCC_CACHE` says where (`.cache` by default). With
//! `FCC_CASES=substring` only those run, each with its outcome.
use fcc_tests::cases::{Status, backend, interpret};
use std::path::Path;

struct Entry {
    status: String,
    pattern: String,
}

/// The lines of the manifest that are meant for the interpreter.
fn manifest() -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/manifest.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut entries = vec![];
    for line in text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty()) {
        let mut words = line.split_whitespace();
        let (status, pattern) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        assert!(words.next().is_some(), "no reason in `{line}`");
        let (status, engine) = status.split_once('@').unwrap_or((status, "interpreter"));
        if engine == "interpreter" {
            entries.push(Entry { status: status.into(), pattern: pattern.into() });
        }
    }
    entries
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))
        }),
    }
}

#[test]
#[ignore = "needs the cases that scripts/backend_cases.py writes"]
fn every_backend_case_is_as_the_manifest_says() {
    let only = std::env::var("FCC_CASES").ok();
    let entries = manifest();
    let (mut passed, mut total, mut wrong) = (0, 0, vec![]);
    for case in backend() {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let outcome = interpret(&case);
        total += 1;
        passed += usize::from(outcome.status == Status::Passed);
        let wanted = entries.iter().find(|e| matches(&e.pattern, &name)).map_or("passed", |e| &e.status);
        let status = match outcome.status {
            Status::Passed => "passed",
            Status::Unsupported => "unsupported",
            Status::Failed => "failed",
            Status::Stopped => "stopped",
        };
        let why = outcome.reason;
        if status != wanted || only.is_some() {
            wrong.push((status != wanted, format!("{name}: {status}, wanted {wanted} {why}")));
        }
    }
    println!("{passed} of {total} pass");
    wrong.iter().for_each(|(_, line)| println!("{line}"));
    let wrong = wrong.iter().filter(|(w, _)| *w).count();
    assert!(total > 0 && wrong == 0, "{wrong} cases are not as the manifest says");
}

#[test]
fn patterns_match_whole_names() {
    assert!(matches("test_a*_b", "test_a_x_b") && matches("*", "x") && matches("a*", "a"));
    assert!(!matches("a", "ab") && !matches("a*b", "abc"));
}
