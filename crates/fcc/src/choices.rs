//! Files of choices that were measured.
use crate::Error;
use fcc_jit::Choices;
use std::io::Read;
use std::path::Path;

/// No table is longer: one line for each problem of many models.
const MOST_BYTES: u64 = 64 << 20;

/// Reads the choices that [`save_choices`] wrote; `None` if there is no such file.
///
/// # Errors
/// What the system says; a file that is no table of choices, with the line; one of another machine or version of fcc.
pub fn load_choices(path: impl AsRef<Path>) -> Result<Option<Choices>, Error> {
    let path = path.as_ref();
    let at = |e: fcc_ir::Error| Error::from(e.at(path.display().to_string()));
    let io = |e: std::io::Error| at(fcc_ir::Error::invalid(format!("cannot read: {e}")));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = vec![];
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(at(fcc_ir::Error::mismatch(
            "choices",
            "a larger file",
            format!("at most {MOST_BYTES} bytes"),
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| at(fcc_ir::Error::mismatch("choices", "bytes that are not UTF-8", "text")))?;
    text.parse().map(Some).map_err(at)
}

/// Writes choices to a file, which is replaced only once the new one is complete.
///
/// # Errors
/// A target that is a folder or a special file, and what the system says.
pub fn save_choices(choices: &Choices, path: impl AsRef<Path>) -> Result<(), Error> {
    Ok(fcc_onnx::write_file(path, choices.to_string().as_bytes())?)
}
