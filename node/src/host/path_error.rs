//! Errors of a file that the operator named, such as the log file: which one, and what to do about it.

use std::io;
use std::path::Path;

use quorate_storage::advice;

/// Names the setting and the path of an error of the file system, and what can be done about it.
#[must_use]
pub fn at_path(setting: &str, path: &Path, error: &io::Error) -> io::Error {
    let text = format!("{setting} {}: {error}{}", path.display(), advice::on_named_file(error));
    io::Error::new(error.kind(), text)
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
