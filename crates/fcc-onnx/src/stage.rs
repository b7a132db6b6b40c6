//! Writing files so that the target is either the old file or the whole new one, never a part.
//!
//! The bytes go to a file beside the target, which is synced and then renamed over it. On Linux that file has no
//! name until it is complete, so that a killed process leaves nothing behind; elsewhere (and on file systems
//! without such files) it has a dotted name that is removed on any error.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, ErrorKind, Result};

/// Writes a file beside its target and renames it. Errors if the target is a folder or a special file, and on what
/// the system says.
pub fn write_file(target: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut staged = Staged::create(target.as_ref())?;
    staged.write(bytes)?;
    staged.complete()?.publish()
}

/// A file being written beside its target.
pub(crate) struct Staged {
    writer: BufWriter<File>,
    target: PathBuf,
    /// The name it has for now; `None` while it has none.
    temporary: Option<PathBuf>,
}

/// A complete file on disk, one rename away from its target. Dropping it removes it.
pub(crate) struct Complete {
    target: PathBuf,
    temporary: Option<PathBuf>,
}

impl Staged {
    /// Starts a file that is to become `target`. Errors if `target` is a folder or a special file.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        if let Ok(metadata) = std::fs::metadata(target)
            && !metadata.is_file()
        {
            let got = if metadata.is_dir() { "a folder" } else { "a special file" };
            let error = Error::mismatch(ErrorKind::Io, "cannot write", got, "a regular file or a new name");
            return Err(error.in_file(target));
        }
        let (file, temporary) = match unnamed(target) {
            Some(file) => (file, None),
            None => {
                let name = temporary_name(target)?;
                let file = File::create_new(&name).map_err(|e| Error::io("write", target, &e))?;
                (file, Some(name))
            }
        };
        Ok(Staged {
            writer: BufWriter::with_capacity(1 << 18, file),
            target: target.to_path_buf(),
            temporary,
        })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|e| Error::io("write", &self.target, &e))
    }

    /// The writer itself, for formats that go back to what they wrote.
    pub(crate) fn writer(&mut self) -> &mut BufWriter<File> {
        &mut self.writer
    }

    /// Syncs the bytes to disk and gives the file its temporary name.
    pub(crate) fn complete(mut self) -> Result<Complete> {
        self.writer.flush().map_err(|e| Error::io("write", &self.target, &e))?;
        self.writer.get_ref().sync_all().map_err(|e| Error::io("sync", &self.target, &e))?;
        if self.temporary.is_none() {
            let name = temporary_name(&self.target)?;
            give_name(self.writer.get_ref(), &name).map_err(|e| Error::io("write", &self.target, &e))?;
            self.temporary = Some(name);
        }
        Ok(Complete { target: self.target.clone(), temporary: self.temporary.take() })
    }
}

impl Complete {
    /// Replaces the target.
    pub(crate) fn publish(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.target).map_err(|e| Error::io("rename to", &self.target, &e))?;
            self.temporary = None;
        }
        // the rename itself reaches the disk with the folder; not every system can sync one
        if let Some(folder) = self.target.parent().filter(|f| !f.as_os_str().is_empty())
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        remove(&self.temporary);
    }
}

impl Drop for Complete {
    fn drop(&mut self) {
        remove(&self.temporary);
    }
}

fn remove(temporary: &Option<PathBuf>) {
    if let Some(path) = temporary {
        let _ = std::fs::remove_file(path);
    }
}

/// `.name.onnx.1234-0.tmp` in the target's folder.
fn temporary_name(target: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(name) = target.file_name() else {
        return Err(Error::mismatch(ErrorKind::Io, "cannot write", "a path without a file name", "one")
            .in_file(target));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(target.with_file_name(hidden))
}

#[cfg(target_os = "linux")]
fn unnamed(target: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};
    target.file_name()?;
    let folder = target.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH; // less the umask
    let file = open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode).ok()?;
    Path::new("/proc/self/fd").is_dir().then(|| File::from(file))
}

#[cfg(target_os = "linux")]
fn give_name(file: &File, name: &Path) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let open_file = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open_file, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn give_name(_: &File, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn target_changes_only_when_published() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.onnx");
        std::fs::write(&target, "old").unwrap();
        let mut staged = Staged::create(&target).unwrap();
        staged.write(b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        let complete = staged.complete().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        complete.publish().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a.onnx"]);
    }

    #[test]
    fn dropping_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.onnx");
        let mut staged = Staged::create(&target).unwrap();
        staged.write(b"half").unwrap();
        drop(staged);
        assert!(names(dir.path()).is_empty());
        drop(Staged::create(&target).unwrap().complete().unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn folders_and_devices_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Staged::create(dir.path()).err().unwrap().to_string();
        assert!(folder.contains("got a folder"), "{folder}");
        assert!(Staged::create(Path::new("/dev/null")).err().unwrap().to_string().contains("a special file"));
        assert!(Staged::create(&dir.path().join("none/a.onnx")).is_err());
    }
}
