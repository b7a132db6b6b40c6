//! The files of one command: what it reads is never replaced, no two of its outputs are one file, and what a target
//! lacks is said before the work. `-` is standard output.
use super::Failure;
use super::out::Out;
use fcc_onnx::{Files, check_target, same_file, write_file};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Target {
    /// The target that a path names: `-` and `/dev/stdout` are standard output.
    pub fn of(path: &Path) -> Target {
        let standard = ["-", "/dev/stdout"].iter().any(|name| path == Path::new(name));
        if standard { Target::Stdout } else { Target::File(path.into()) }
    }
}

struct Output {
    option: &'static str,
    path: PathBuf,
    /// Whether it may replace what is read.
    in_place: bool,
}

/// What a command reads and writes.
#[derive(Default)]
pub struct CommandFiles {
    read: Files,
    outputs: Vec<Output>,
    stdout: Option<&'static str>,
}

impl CommandFiles {
    /// No files; with `json`, standard output is taken.
    pub fn new(json: bool) -> Self {
        CommandFiles { stdout: json.then_some("--json"), ..Default::default() }
    }

    /// Notes a file that is read.
    pub fn reads(&mut self, path: &Path) {
        self.read.add(path);
    }

    /// Notes files that were read.
    pub fn reads_all(&mut self, files: &Files) {
        self.read.add_all(files);
    }

    /// Takes the target of an option. Errors if another output goes there or it cannot be written.
    pub fn output(&mut self, option: &'static str, path: &Path) -> Result<Target, Failure> {
        let target = Target::of(path);
        match &target {
            Target::File(path) => {
                check_target(path)?;
                self.claim(option, path.clone(), false)?;
            }
            Target::Stdout => {
                if let Some(other) = self.stdout.replace(option) {
                    let message = format!("{option}: got standard output, which {other} has, wanted a file");
                    return Err(Failure::input(message));
                }
            }
        }
        Ok(target)
    }

    /// As [`CommandFiles::output`], for an output that must be a file.
    pub fn file(&mut self, option: &'static str, path: &Path) -> Result<(), Failure> {
        match self.output(option, path)? {
            Target::File(_) => Ok(()),
            Target::Stdout => Err(Failure::input(format!("{option}: got standard output, wanted a file"))),
        }
    }

    /// Takes the input itself as a target, for `--in-place`, or a file beside it.
    pub fn in_place(&mut self, path: &Path) -> Result<(), Failure> {
        check_target(path)?;
        self.claim("--in-place", path.into(), true)
    }

    /// Takes a folder, which is made where it is missing, and the files that are to be in it.
    pub fn folder<'n>(
        &mut self,
        option: &'static str,
        folder: &Path,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), Failure> {
        // the first folder that is there must let others be made
        let there = folder.ancestors().find(|f| f.as_os_str().is_empty() || f.symlink_metadata().is_ok());
        let there = there.filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check_target(there.join(".fcc"))?;
        names.into_iter().try_for_each(|name| self.claim(option, folder.join(name), false))
    }

    fn claim(&mut self, option: &'static str, path: PathBuf, in_place: bool) -> Result<(), Failure> {
        if let Some(other) = self.outputs.iter().find(|o| same_file(&o.path, &path)) {
            let message = format!("{option}: got the file that {} writes, wanted another", other.option);
            return Err(Failure::input(message).in_file(&path));
        }
        self.outputs.push(Output { option, path, in_place });
        Ok(())
    }

    /// Errors if an output is a file that is read.
    pub fn check(&self) -> Result<(), Failure> {
        match self.outputs.iter().find(|o| !o.in_place && self.read.hold(&o.path)) {
            None => Ok(()),
            Some(Output { option, path, .. }) => {
                let hint = if *option == "-o" { " (or give --in-place)" } else { "" };
                let message = format!("{option}{hint}: got a file that is read, wanted another");
                Err(Failure::input(message).in_file(path))
            }
        }
    }

    /// What an output must not replace: what is read, unless it is written in place, and the other outputs.
    pub fn keep(&self, output: &Path) -> Files {
        let (own, others): (Vec<&Output>, Vec<_>) = self.outputs.iter().partition(|o| o.path == output);
        let mut keep = Files::default();
        if !own.iter().any(|o| o.in_place) {
            keep.add_all(&self.read);
        }
        others.iter().filter(|o| !o.in_place).for_each(|o| keep.add(&o.path));
        keep
    }

    /// Writes an output whole.
    pub fn write(&self, target: &Target, bytes: &[u8]) -> Result<(), Failure> {
        match target {
            Target::File(path) => Ok(write_file(path, bytes)?),
            Target::Stdout => {
                let mut stdout = std::io::stdout().lock();
                Ok(stdout.write_all(bytes).and_then(|()| stdout.flush())?)
            }
        }
    }

    /// Where a command tells people what it did: standard error where an output has standard output.
    pub fn told(&self) -> Out {
        match self.stdout {
            None | Some("--json") => Out::new(),
            Some(_) => Out::stderr(),
        }
    }
}

/// Errors if bytes that are no text would go to a terminal.
pub fn refuse_terminal(option: &str, target: &Target) -> Result<(), Failure> {
    if *target == Target::Stdout && std::io::stdout().is_terminal() {
        return Err(Failure::input(format!("{option}: got a terminal, wanted a file or a pipe")));
    }
    Ok(())
}
