//! Writing files so that the target is either the old file or the whole new one, never a part.
//!
//! The bytes go to a file beside the target, which is synced and then renamed over it. On Linux that file has no
//! name until it is complete, so that a killed process leaves nothing behind; elsewhere (and on file systems
//! without such files) it has a dotted name that is removed on any error. A target that is replaced keeps its
//! permissions; a new one has those that the umask leaves.

use std::fs::{File, Metadata};
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

/// Errors if a file cannot be written at `target`, as far as that can be told before: its folder is not there or not
/// writable, its name is too long, or it is a folder or a special file itself.
pub fn check_target(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    existing(target)?;
    temporary_name(target)?;
    let folder = folder(target);
    let metadata = std::fs::metadata(folder).map_err(|e| Error::io("write into the folder", folder, &e))?;
    if !metadata.is_dir() {
        let error = Error::mismatch(ErrorKind::Io, "cannot write into the folder", "a file", "a folder");
        return Err(error.in_file(folder));
    }
    writable(folder).map_err(|e| Error::io("write into the folder", folder, &e))
}

/// The folder that a path's file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file that is at the target now, if there is one. Errors on a folder, a special file and a name that cannot be.
fn existing(target: &Path) -> Result<Option<Metadata>> {
    match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(metadata) => {
            let got = if metadata.is_dir() { "a folder" } else { "a special file" };
            let error = Error::mismatch(ErrorKind::Io, "cannot write", got, "a regular file or a new name");
            Err(error.in_file(target))
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidFilename => Err(Error::io("write", target, &e)),
        Err(_) => Ok(None),
    }
}

#[cfg(unix)]
fn writable(folder: &Path) -> std::io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn writable(_: &Path) -> std::io::Result<()> {
    Ok(())
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
        let replaced = existing(target)?;
        let mode = replaced.as_ref().map_or(NEW_FILE_MODE, mode_of);
        let (file, temporary) = match unnamed(target, mode) {
            Some(file) => (file, None),
            None => {
                let name = temporary_name(target)?;
                let file = create_new(&name, mode).map_err(|e| Error::io("write", target, &e))?;
                (file, Some(name))
            }
        };
        let staged = Staged {
            writer: BufWriter::with_capacity(1 << 18, file),
            target: target.to_path_buf(),
            temporary,
        };
        // what the umask took from the permissions of the file that is replaced
        if replaced.is_some() {
            set_mode(staged.writer.get_ref(), mode).map_err(|e| Error::io("write", target, &e))?;
        }
        Ok(staged)
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
        if let Ok(folder) = File::open(folder(&self.target)) {
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

/// `.fcc-1234-0.tmp` in the target's folder: short, whatever the length of the target's name.
fn temporary_name(target: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if target.file_name().is_none() {
        return Err(Error::mismatch(ErrorKind::Io, "cannot write", "a path without a file name", "one")
            .in_file(target));
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(target.with_file_name(format!(".fcc-{}-{count}.tmp", std::process::id())))
}

/// Permissions of a new file, less the umask.
const NEW_FILE_MODE: u32 = 0o666;

#[cfg(unix)]
fn mode_of(metadata: &Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o777
}

#[cfg(unix)]
fn create_new(name: &Path, mode: u32) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(mode).open(name)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn mode_of(_: &Metadata) -> u32 {
    NEW_FILE_MODE
}

#[cfg(not(unix))]
fn create_new(name: &Path, _: u32) -> std::io::Result<File> {
    File::create_new(name)
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn unnamed(target: &Path, mode: u32) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};
    target.file_name()?;
    let mode = Mode::from_raw_mode(mode);
    let file = open(folder(target), OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode).ok()?;
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
fn unnamed(_: &Path, _: u32) -> Option<File> {
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

    #[test]
    fn what_a_target_lacks_is_told_before() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        for (target, wanted) in [
            (at("none/a.onnx"), "none: cannot write into the folder: "),
            (at("file/a.onnx"), "file: cannot write into the folder: "),
            (dir.path().to_path_buf(), "cannot write: got a folder"),
            (at(&"n".repeat(256)), ": cannot write: "),
            (PathBuf::from("/"), "cannot write: got a folder"),
        ] {
            let error = check_target(&target).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        check_target(at("a.onnx")).unwrap();
        check_target(at("file")).unwrap();
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_read_only_is_told_before() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        let told = check_target(dir.path().join("a.onnx"));
        // root may write everywhere
        let may = File::create(dir.path().join("probe")).is_ok();
        assert_eq!(told.is_ok(), may, "{told:?}");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.onnx");
        let mode = || std::fs::metadata(&target).unwrap().permissions().mode() & 0o777;
        write_file(&target, b"new").unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        assert_eq!(mode(), std::fs::metadata(&plain).unwrap().permissions().mode() & 0o777);
        for kept in [0o600, 0o640, 0o666, 0o755, 0o444] {
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(kept)).unwrap();
            write_file(&target, b"newer").unwrap();
            assert_eq!(mode(), kept);
        }
    }

    #[test]
    fn the_longest_names_are_written() {
        let dir = tempfile::tempdir().unwrap();
        for len in [244, 245, 250, 255] {
            let target = dir.path().join("n".repeat(len));
            write_file(&target, b"x").unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"x");
            // the way of systems without unnamed files
            let name = temporary_name(&target).unwrap();
            create_new(&name, NEW_FILE_MODE).unwrap();
            std::fs::rename(name, &target).unwrap();
        }
    }
}
