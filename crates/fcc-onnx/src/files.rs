//! Which files are the same: by what they are, not by how their paths are spelt.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// What tells a file from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    #[cfg(unix)]
    Inode(u64, u64),
    #[cfg(not(unix))]
    Path(PathBuf),
}

#[cfg(unix)]
fn id_of(metadata: &std::fs::Metadata, _: &Path) -> Option<Id> {
    use std::os::unix::fs::MetadataExt;
    Some(Id::Inode(metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id_of(_: &std::fs::Metadata, path: &Path) -> Option<Id> {
    path.canonicalize().ok().map(Id::Path)
}

/// A set of files, such as those that a model was read from: the model and every file of its external data.
///
/// Files are told apart by device and inode (elsewhere than on Unix by canonical path), so a symbolic link, a hard link
/// and another spelling of a path all name the same file.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeSet<Id>);

impl Files {
    /// Adds the file that a path leads to; one that is not there is no file.
    pub fn add(&mut self, path: &Path) {
        self.0.extend(std::fs::metadata(path).ok().and_then(|m| id_of(&m, path)));
    }
    /// Adds a file that is open.
    pub(crate) fn add_open(&mut self, file: &File, path: &Path) {
        self.0.extend(file.metadata().ok().and_then(|m| id_of(&m, path)));
    }
    /// Adds all files of another set.
    pub fn add_all(&mut self, other: &Files) {
        self.0.extend(other.0.iter().cloned());
    }
    /// Errors if a path leads to one of the files, which must not be replaced.
    pub(crate) fn refuse(&self, target: &Path) -> Result<()> {
        if self.hold(target) {
            let got = "a file that the model is read from";
            return Err(Error::mismatch(ErrorKind::Io, "cannot write", got, "another").in_file(target));
        }
        Ok(())
    }
    /// Whether a path leads to one of the files.
    pub fn hold(&self, path: &Path) -> bool {
        let id = std::fs::metadata(path).ok().and_then(|m| id_of(&m, path));
        id.is_some_and(|id| self.0.contains(&id))
    }
}

/// Whether two paths name the same file, now or once both are written.
pub fn same_file(a: &Path, b: &Path) -> bool {
    let mut files = Files::default();
    files.add(a);
    files.hold(b) || (place(a).is_some() && place(a) == place(b))
}

/// The folder of a file that need not be there, by its canonical path, and the name in it.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = crate::stage::folder(path).canonicalize().ok()?;
    Some(folder.join(path.file_name()?))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn links_and_other_spellings_are_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("a"), "x").unwrap();
        std::fs::write(at("b"), "x").unwrap();
        std::os::unix::fs::symlink("../a", at("sub/link")).unwrap();
        std::fs::hard_link(at("a"), at("hard")).unwrap();
        let mut files = Files::default();
        files.add(&at("a"));
        files.add(&at("none"));
        for name in ["a", "sub/../a", "sub/link", "hard"] {
            assert!(files.hold(&at(name)) && same_file(&at("a"), &at(name)), "{name}");
        }
        for name in ["b", "none", "sub"] {
            assert!(!files.hold(&at(name)) && !same_file(&at("a"), &at(name)), "{name}");
        }
        // neither is there yet
        assert!(same_file(&at("new"), &at("sub/../new")));
        assert!(!same_file(&at("new"), &at("sub/new")) && !same_file(&at("no/x"), &at("no/y")));
    }
}
