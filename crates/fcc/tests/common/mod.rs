//! Runs the fcc binary and looks at what it answers.
#![allow(dead_code)] // each test file uses its own part
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of fcc answered.
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs fcc. Panics if it was killed, or panicked itself.
pub fn fcc<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Answer {
    let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_os_string()).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_fcc"))
        .args(&args)
        .env_remove("COLUMNS")
        .output()
        .expect("fcc starts");
    answer(&output, &format!("{args:?}"))
}

pub fn answer(output: &Output, what: &str) -> Answer {
    let stderr = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    let code = output.status.code().unwrap_or_else(|| panic!("{what}: killed, {stderr}"));
    assert_ne!(code, 101, "{what}: {stderr}");
    Answer { code, stdout: String::from_utf8(output.stdout.clone()).expect("UTF-8"), stderr }
}

impl Answer {
    /// The answer of a run that must have done its work.
    pub fn ok(self) -> Answer {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }
    /// The message of a run that must have refused its input: one line, nothing else.
    pub fn refusal(self) -> String {
        assert_eq!(self.code, 2, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        let line = self.stderr.strip_suffix('\n').expect("a line");
        assert!(!line.contains('\n'), "one line: {line}");
        line.strip_prefix("fcc: error: ").unwrap_or_else(|| panic!("{line}")).to_string()
    }
    /// The output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// A path in `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A file in a folder, made of text.
pub fn text_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
