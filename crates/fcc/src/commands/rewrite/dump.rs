//! `--dump`: the model as text, as it was and after each pass.
use super::super::Failure;
use super::super::files::CommandFiles;
use fcc_ir::Model;
use fcc_ir::text::{PrintOptions, print};
use fcc_onnx::write_file;
use std::path::{Path, PathBuf};

/// Takes the folder, and the files that are to be in it, named in the order in which they are written.
pub fn claim<'n>(
    files: &mut CommandFiles,
    folder: &Path,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<(), Failure> {
    let names: Vec<String> = names.into_iter().enumerate().map(|(number, name)| file(number, name)).collect();
    files.folder("--dump", folder, names.iter().map(String::as_str))
}

fn file(number: usize, name: &str) -> String {
    format!("{number:02}-{name}.txt")
}

/// A folder that texts of models are written into, numbered.
pub struct Dump {
    folder: PathBuf,
    written: usize,
    failed: Option<fcc_onnx::Error>,
}

impl Dump {
    /// Makes the folder. Errors if that does not work.
    pub fn new(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::input(format!("cannot make the folder: {e}")).in_file(folder))?;
        Ok(Dump { folder: folder.into(), written: 0, failed: None })
    }

    /// Writes `NN-NAME.txt`, beside the target and renamed. The first error is kept for [`Dump::finish`].
    pub fn add(&mut self, name: &str, model: &Model) {
        let path = self.folder.join(file(self.written, name));
        self.written += 1;
        let text = print(model, &PrintOptions::readable());
        if let (None, Err(e)) = (&self.failed, write_file(&path, text.as_bytes())) {
            self.failed = Some(e);
        }
    }

    /// The first error of writing.
    pub fn finish(&mut self) -> Result<(), fcc_onnx::Error> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
