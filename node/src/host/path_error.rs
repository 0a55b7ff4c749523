//! Errors of a file that the operator named, such as the log file: which one, and what to do about it.

use std::io;
use std::path::Path;

/// Names the setting and the path of an error of the file system, and what can be done about it.
#[must_use]
pub fn at_path(setting: &str, path: &Path, error: &io::Error) -> io::Error {
    let text = format!("{setting} {}: {error}{}", path.display(), advice(error));
    io::Error::new(error.kind(), text)
}

/// What an operator can do; empty where nothing general can be said. (What is said of the data directory is
/// in `storage/src/durable.rs`.)
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; make the directory that it is to lie in (`mkdir -p`)",
        io::ErrorKind::PermissionDenied => {
            "; the user that Quorate runs as must be allowed to write this file, and to create it in its directory"
        }
        io::ErrorKind::IsADirectory => "; name a file, not a directory",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; what leads to it must be directories"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; mount the file system so that it can be written, or name a path on another one"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on the disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_the_path_and_what_to_do_are_named() {
        let told = |kind| at_path("-pid-file", Path::new("/run/q"), &io::Error::from(kind));
        let denied = told(io::ErrorKind::PermissionDenied);
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        let text = denied.to_string();
        assert!(text.starts_with("-pid-file /run/q: permission denied; the user"), "{text}");
        let read_only = told(io::ErrorKind::ReadOnlyFilesystem).to_string();
        assert!(read_only.contains("; mount the file system"), "{read_only}");
        let full = told(io::ErrorKind::StorageFull).to_string();
        assert!(full.ends_with("; make room on the disk"), "{full}");
    }
}
