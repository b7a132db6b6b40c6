//! Opening files for reading: memory-mapped, shared, and regular files only.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// Opens a regular file without waiting: a fifo or a device is an error, not a hang.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path).map_err(|e| Error::io("open", path, &e))?;
    check_regular(&file, path)?;
    Ok(file)
}

/// Errors unless the open file is a regular one.
pub(crate) fn check_regular(file: &File, path: &Path) -> Result<()> {
    let kind = file.metadata().map_err(|e| Error::io("read", path, &e))?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let got = if kind.is_dir() { "a folder" } else { "a special file" };
    Err(Error::mismatch(ErrorKind::Io, "cannot read", got, "a regular file").in_file(path))
}

/// The file's bytes as they lie on disk: pages are read when touched and shared by all clones.
///
/// The mapping stays valid when the file is renamed over or deleted. A file that another program
/// *shortens in place* while it is mapped ends the process with `SIGBUS`; writers that replace files by
/// renaming, as this crate does, are safe.
#[allow(unsafe_code)]
pub(crate) fn map(file: &File, path: &Path) -> Result<Bytes> {
    let len = file.metadata().map_err(|e| Error::io("read", path, &e))?.len();
    if len == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only, and nothing in this process writes to a file in
    // place (`save` writes beside the target and renames). `Mmap` itself keeps the pages mapped until the last
    // clone of the `Bytes` is dropped. That no other process changes the bytes while they are borrowed cannot
    // be enforced by any program that maps files; all values read from them are checked plain data
    // (any bit pattern is valid), so a change gives wrong numbers or SIGBUS, not memory unsafety of our own.
    let mapping = unsafe { memmap2::Mmap::map(file) }.map_err(|e| Error::io("map", path, &e))?;
    let mapping = Arc::new(mapping);
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    live.retain(|m| m.strong_count() > 0);
    live.push(Arc::downgrade(&mapping));
    Ok(Bytes::from_owner(Mapped(mapping)))
}

struct Mapped(Arc<memmap2::Mmap>);
impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The mappings that something still reads.
static LIVE: Mutex<Vec<Weak<memmap2::Mmap>>> = Mutex::new(vec![]);

/// Lets go of the memory behind bytes of a mapped file; whoever reads them again gets them from the file again. Bytes
/// that lie elsewhere are left alone.
#[allow(unsafe_code)]
pub fn release(bytes: &[u8]) {
    #[cfg(unix)]
    {
        let start = bytes.as_ptr() as usize;
        let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        for mapping in live.iter().filter_map(Weak::upgrade) {
            let base = mapping.as_ptr() as usize;
            let Some(offset) = start.checked_sub(base).filter(|o| o + bytes.len() <= mapping.len()) else {
                continue;
            };
            // SAFETY: the mapping is of a file, read-only, and never written, so its pages hold nothing that is not in
            // the file: dropping them changes no byte that anyone reads, now or later. What is said above of files that
            // other programs change holds here too.
            let done = unsafe {
                mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len())
            };
            // it was advice: memory that stays is no error
            drop(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_are_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let numbers: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &numbers).unwrap();
        let bytes = map(&open_regular(&path).unwrap(), &path).unwrap();
        assert_eq!(&bytes[..], &numbers[..]);
        release(&bytes[5000..300_000]);
        // and bytes of nobody's mapping
        release(&numbers);
        assert_eq!(&bytes[..], &numbers[..]);
    }

    #[test]
    fn folders_and_devices_are_refused() {
        let folder = open_regular(Path::new(".")).unwrap_err();
        assert_eq!(folder.to_string(), ".: cannot read: got a folder, wanted a regular file");
        #[cfg(unix)]
        assert!(open_regular(Path::new("/dev/zero")).unwrap_err().to_string().contains("a special file"));
    }

    #[test]
    fn missing_file_is_named() {
        let error = open_regular(Path::new("no/such.onnx")).unwrap_err();
        assert!(error.to_string().starts_with("no/such.onnx: cannot open: "), "{error}");
    }
}
