//! Reading external data: files beside a model that hold its large tensors.
//!
//! The location comes out of the model, so it is treated as hostile: only a relative path below the model's
//! folder, walked one component at a time without following links, opened without waiting, and a regular file.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::error::quoted;
use crate::files::Files;
use crate::map::{check_regular, map};
use crate::proto::StringStringEntryProto;
use crate::{Error, ErrorKind, Result};

/// Where external data may come from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The model's folder; `None` for a model that did not come from a file.
    folder: Option<PathBuf>,
    follow_links: bool,
    files: HashMap<String, DataFile>,
    /// The files that were read.
    read: Files,
}

#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    bytes: Bytes,
    sha1: Option<String>,
}

/// The parsed `external_data` entries of one tensor.
#[derive(Debug, PartialEq, Eq)]
struct Entries<'a> {
    location: &'a str,
    offset: usize,
    length: Option<usize>,
    checksum: Option<&'a str>,
}

fn refuse(what: &str, got: impl std::fmt::Display, wanted: &str) -> Error {
    Error::mismatch(ErrorKind::ExternalData, format!("external data {what}"), got, wanted)
}

fn linked(got: impl std::fmt::Display, wanted: &str) -> Error {
    Error::mismatch(ErrorKind::Linked, "external data location", got, wanted)
}

impl Source {
    pub(crate) fn new(folder: Option<PathBuf>, follow_links: bool) -> Self {
        Source { folder, follow_links, files: HashMap::new(), read: Files::default() }
    }

    /// The files that were read.
    pub(crate) fn into_files(self) -> Files {
        self.read
    }

    /// The bytes that `entries` describe, shared with the mapping of their file. `wanted_len` is the size in bytes
    /// by the tensor's type and dims.
    pub(crate) fn read(&mut self, entries: &[StringStringEntryProto], wanted_len: usize) -> Result<Bytes> {
        let entries = parse(entries)?;
        if let Some(length) = entries.length
            && length != wanted_len
        {
            return Err(refuse(
                "length",
                length,
                &format!("{wanted_len} bytes, by the tensor's type and dims"),
            ));
        }
        let file = self.file(entries.location)?;
        let end = entries.offset.checked_add(wanted_len).filter(|&end| end <= file.bytes.len());
        let Some(end) = end else {
            let got = format!("{wanted_len} bytes at offset {}", entries.offset);
            let wanted = format!("a range within the file's {} bytes", file.bytes.len());
            return Err(refuse("range", got, &wanted).in_file(&file.path));
        };
        if let Some(wanted) = entries.checksum {
            file.verify(wanted)?;
        }
        Ok(file.bytes.slice(entries.offset..end))
    }

    fn file(&mut self, location: &str) -> Result<&mut DataFile> {
        // not `entry`: the borrow of `self.files` must end before the file is opened
        if !self.files.contains_key(location) {
            let folder = self.folder.as_deref().ok_or_else(|| {
                refuse(
                    "location",
                    quoted(location),
                    "no external data in a model that is not read from a file",
                )
            })?;
            let parts = components(location)?;
            let path = folder.join(location);
            let file = open_below(folder, &parts, self.follow_links)?;
            check_regular(&file, &path)?;
            if !self.follow_links {
                refuse_hard_links(&file, &path)?;
            }
            let bytes = map(&file, &path)?;
            self.read.add_open(&file, &path);
            self.files.insert(location.to_string(), DataFile { path, bytes, sha1: None });
        }
        self.files.get_mut(location).ok_or_else(|| refuse("location", quoted(location), "an open file"))
    }
}

impl DataFile {
    fn verify(&mut self, wanted: &str) -> Result<()> {
        let got = self.sha1.get_or_insert_with(|| {
            let digest = Sha1::digest(&self.bytes);
            digest.iter().map(|b| format!("{b:02x}")).collect()
        });
        if got.eq_ignore_ascii_case(wanted.trim()) {
            return Ok(());
        }
        Err(refuse("SHA1", got, &quoted(wanted)).in_file(&self.path))
    }
}

fn parse(entries: &[StringStringEntryProto]) -> Result<Entries<'_>> {
    let mut found: [Option<&str>; 4] = [None; 4];
    for entry in entries {
        // other keys (`basepath`, runtimes' own) do not say where the data is
        let slot = match entry.key() {
            "location" => 0,
            "offset" => 1,
            "length" => 2,
            "checksum" => 3,
            _ => continue,
        };
        if found[slot].replace(entry.value()).is_some() {
            return Err(refuse("entries", format!("`{}` twice", entry.key()), "each key once"));
        }
    }
    let [location, offset, length, checksum] = found;
    Ok(Entries {
        location: location.ok_or_else(|| refuse("entries", "no `location`", "one"))?,
        offset: offset.map_or(Ok(0), |text| number("offset", text))?,
        length: length.map(|text| number("length", text)).transpose()?,
        checksum: checksum.filter(|text| !text.is_empty()),
    })
}

fn number(what: &str, text: &str) -> Result<usize> {
    // `parse` alone would accept a leading `+`
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| refuse(what, quoted(text), "a decimal number of bytes that fits this machine"))
}

/// The folders and the file of a location, or why it is not one below the model's folder.
fn components(location: &str) -> Result<Vec<&str>> {
    let bad = |wanted: &str| Err(refuse("location", quoted(location), wanted));
    if location.contains(['\\', '\0']) || location.as_bytes().get(1) == Some(&b':') {
        return bad("a path with `/` between its parts and no drive");
    }
    if location.starts_with('/') {
        return bad("a path relative to the model's folder");
    }
    let parts: Vec<&str> = location.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return bad("a path that stays in the model's folder");
    }
    if parts.is_empty() || location.ends_with('/') {
        return bad("the path of a file");
    }
    Ok(parts)
}

#[cfg(unix)]
fn open_below(folder: &Path, parts: &[&str], follow_links: bool) -> Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let base = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let common = OFlags::RDONLY | OFlags::CLOEXEC;
    let links = if follow_links { OFlags::empty() } else { OFlags::NOFOLLOW };
    let mut path = base.to_path_buf();
    let mut at = openat(CWD, base, common | OFlags::DIRECTORY, Mode::empty())
        .map_err(|e| Error::io("open", base, &e.into()))?;
    for (i, part) in parts.iter().enumerate() {
        path.push(part);
        let kind = if i + 1 == parts.len() { OFlags::NONBLOCK } else { OFlags::DIRECTORY };
        at = openat(&at, *part, common | links | kind, Mode::empty()).map_err(|e| {
            if !follow_links && path.is_symlink() {
                return linked("a symbolic link", "a regular file").in_file(&path);
            }
            let mut error = Error::io("open external data", &path, &e.into());
            error.set_kind(ErrorKind::ExternalData);
            error
        })?;
    }
    Ok(File::from(at))
}

#[cfg(not(unix))]
fn open_below(folder: &Path, parts: &[&str], follow_links: bool) -> Result<File> {
    let mut path = folder.to_path_buf();
    for part in parts {
        path.push(part);
        if !follow_links && path.is_symlink() {
            return Err(linked("a symbolic link", "a regular file").in_file(&path));
        }
    }
    crate::map::open_regular(&path)
}

#[cfg(unix)]
fn refuse_hard_links(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let links = file.metadata().map_err(|e| Error::io("read", path, &e))?.nlink();
    if links > 1 {
        return Err(linked(format!("a file with {links} hard links"), "a file with one").in_file(path));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_hard_links(_: &File, _: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto {
            key: Some(k.to_string()),
            value: Some(v.to_string()),
        };
        pairs.iter().map(entry).collect()
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("w.bin"), [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        std::fs::write(dir.path().join("sub/v.bin"), [9; 4]).unwrap();
        dir
    }

    fn read(dir: &Path, pairs: &[(&str, &str)], len: usize) -> Result<Bytes> {
        Source::new(Some(dir.to_path_buf()), false).read(&entries(pairs), len)
    }

    #[test]
    fn reads_ranges_of_one_shared_mapping() {
        let dir = folder();
        let mut source = Source::new(Some(dir.path().to_path_buf()), false);
        let a = source.read(&entries(&[("location", "w.bin"), ("offset", "1"), ("length", "3")]), 3).unwrap();
        let b = source.read(&entries(&[("location", "w.bin"), ("offset", "4")]), 4).unwrap();
        assert_eq!((&a[..], &b[..]), (&[2, 3, 4][..], &[5, 6, 7, 8][..]));
        assert_eq!(a.as_ptr().wrapping_add(3), b.as_ptr());
        assert_eq!(&read(dir.path(), &[("location", "./sub/v.bin")], 4).unwrap()[..], [9; 4]);
        assert_eq!(read(dir.path(), &[("location", "w.bin"), ("offset", "8")], 0).unwrap().len(), 0);
    }

    #[test]
    fn hostile_entries_are_refused() {
        let dir = folder();
        let huge = "99999999999999999999999";
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], "no `location`"),
            (&[("location", "")], "the path of a file"),
            (&[("location", ".")], "the path of a file"),
            (&[("location", "sub/")], "the path of a file"),
            (&[("location", "sub")], "a folder"),
            (&[("location", "/etc/passwd")], "relative to the model's folder"),
            (&[("location", "../w.bin")], "stays in the model's folder"),
            (&[("location", "sub/../../w.bin")], "stays in the model's folder"),
            (&[("location", "sub/../w.bin")], "stays in the model's folder"),
            (&[("location", "..\\w.bin")], "with `/` between its parts"),
            (&[("location", "C:w.bin")], "no drive"),
            (&[("location", "w.bin\0.txt")], "with `/` between its parts"),
            (&[("location", "none.bin")], "cannot open external data"),
            (&[("location", "w.bin/x")], "cannot open external data"),
            (&[("location", "w.bin"), ("location", "w.bin")], "`location` twice"),
            (&[("location", "w.bin"), ("offset", "-1")], "decimal number"),
            (&[("location", "w.bin"), ("offset", "+1")], "decimal number"),
            (&[("location", "w.bin"), ("offset", "0x1")], "decimal number"),
            (&[("location", "w.bin"), ("offset", "")], "decimal number"),
            (&[("location", "w.bin"), ("offset", huge)], "decimal number"),
            (&[("location", "w.bin"), ("offset", "5")], "4 bytes at offset 5"),
            (&[("location", "w.bin"), ("offset", "18446744073709551615")], "at offset 18446744073709551615"),
            (&[("location", "w.bin"), ("length", "3")], "external data length: got 3, wanted 4 bytes"),
            (&[("location", "w.bin"), ("length", "-4")], "decimal number"),
            (&[("location", "w.bin"), ("checksum", "00")], "external data SHA1: got "),
        ];
        for (pairs, wanted) in table {
            let error = read(dir.path(), pairs, 4).unwrap_err().to_string();
            assert!(error.contains(wanted), "{pairs:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let bytes = Source::new(None, false).read(&entries(&[("location", "w.bin")]), 4).unwrap_err();
        assert!(bytes.to_string().contains("not read from a file"), "{bytes}");
        let size = read(dir.path(), &[("location", "w.bin")], usize::MAX).unwrap_err();
        assert!(size.to_string().contains("within the file's 8 bytes"), "{size}");
    }

    #[test]
    fn other_keys_change_nothing() {
        let dir = folder();
        let plain = [("location", "w.bin"), ("offset", "2"), ("length", "4")];
        let keys = [("basepath", "/etc"), ("location ", "x"), ("Offset", "0"), ("__class__", "x"), ("", "")];
        let all: Vec<(&str, &str)> = keys.into_iter().chain(plain).chain(keys).collect();
        assert_eq!(read(dir.path(), &all, 4).unwrap(), read(dir.path(), &plain, 4).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_special_files_are_refused() {
        let dir = folder();
        let outside = folder();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(outside.path().join("w.bin"), at("link.bin")).unwrap();
        std::os::unix::fs::symlink("w.bin", at("inner.bin")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("linked")).unwrap();
        std::fs::hard_link(outside.path().join("w.bin"), at("hard.bin")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        let table = [
            ("link.bin", "a symbolic link"),
            ("inner.bin", "a symbolic link"),
            ("linked/w.bin", "a symbolic link"),
            ("hard.bin", "2 hard links"),
            ("fifo", "a special file"),
        ];
        for (location, wanted) in table {
            let error = read(dir.path(), &[("location", location)], 4).unwrap_err().to_string();
            assert!(error.contains(wanted), "{location}: {error}");
        }
        let mut following = Source::new(Some(dir.path().to_path_buf()), true);
        for location in ["link.bin", "inner.bin", "linked/w.bin", "hard.bin"] {
            assert_eq!(&following.read(&entries(&[("location", location)]), 4).unwrap()[..], [1, 2, 3, 4]);
        }
        let fifo = following.read(&entries(&[("location", "fifo")]), 4).unwrap_err().to_string();
        assert!(fifo.contains("a special file"), "{fifo}");
    }

    #[test]
    fn checksum_is_of_the_whole_file() {
        let dir = folder();
        let sha1 = "DD5783BCF1E9002BC00AD5B83A95ED6E4EBB4AD5";
        let read = |sum| read(dir.path(), &[("location", "w.bin"), ("offset", "2"), ("checksum", sum)], 4);
        assert_eq!(&read(sha1).unwrap()[..], [3, 4, 5, 6]);
        assert!(read("dd5783bcf1e9002bc00ad5b83a95ed6e4ebb4ad6").is_err());
    }
}
