//! Files of a data directory are regular ones, of the size that is expected.
//!
//! A pipe in the place of a file keeps whoever opens it waiting, and a device such as `/dev/zero` has no end. Neither gets
//! there by itself, but a start that hangs, or takes all memory, does not say what is wrong.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// A file for a few names and numbers has fewer bytes.
pub const SMALL_BYTES_MAX: u64 = 64 << 10;

/// Whether there is a regular file, perhaps behind a link.
///
/// # Errors
/// There is none, or something else.
pub fn check(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Opens a regular file to read it.
///
/// # Errors
/// As [`check`]; it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    check(path)?;
    File::open(path)
}

/// All of a regular file that has at most so many bytes.
///
/// # Errors
/// As [`open`]; it is larger, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes, which such a file never has");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_a_regular_file_of_the_expected_size_is_read() {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"12345").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        fs::create_dir(at("directory")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&at(name), 5).unwrap(), b"12345");
            assert!(read(&at(name), 4).unwrap_err().to_string().contains("more than 4 bytes"));
        }
        for name in ["zero", "pipe", "directory"] {
            let refused = read(&at(name), 5).unwrap_err().to_string();
            assert!(refused.contains("no regular file"), "{name}: {refused}");
            assert!(open(&at(name)).is_err());
        }
        assert_eq!(read(&at("absent"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
