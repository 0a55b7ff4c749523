//! Files that commands read, and those that they write as a whole or not at all.

use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::failure::Failure;

/// Standard input or standard output in place of a file.
const STANDARD: &str = "-";

/// Whether a path means a standard stream.
pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// The content of a file, or of standard input.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if !is_standard(path) {
        return std::fs::read(path).map_err(|error| Failure::of_file(path, &error));
    }
    let mut content = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut content);
    read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    Ok(content)
}

/// The same, of JSON.
///
/// # Errors
/// It cannot be read, or is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// A file beside `path` that takes its place when it is [put there](replace), and is gone otherwise.
///
/// # Errors
/// The directory cannot be written to.
pub(super) fn beside(path: &Path) -> Result<NamedTempFile, Failure> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    NamedTempFile::new_in(directory).map_err(|error| Failure::of_file(path, &error))
}

/// Gives a file that is complete its name.
///
/// # Errors
/// It cannot be renamed.
pub(super) fn replace(path: &Path, new: NamedTempFile) -> Result<(), Failure> {
    new.persist(path).map(drop).map_err(|error| Failure::of_file(path, &error.error))
}
