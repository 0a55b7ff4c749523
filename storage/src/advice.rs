//! What an operator can do about an error of the file system, to follow the error in a message. Empty where nothing
//! general can be said.

use std::io;

/// About a server whose data are damaged.
pub(crate) const REPLACE_NODE: &str = "remove this server from the cluster (DELETE /v1/operator/raft/peer?id=ID at another server) and add it again with an empty data directory under a new node id";

/// About a file or directory below the data directory.
pub(crate) fn on_data(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the disk (the file `ballast` of the data directory may be deleted) and start the server again"
        }
        io::ErrorKind::PermissionDenied => {
            "; the user that the server runs as must own the data directory and all files in it (`chown -R`)"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; the data directory and what leads to it must be directories"
        }
        _ => on_any(error),
    }
}

/// About a file that the operator has named, such as the log file.
#[must_use]
pub fn on_named_file(error: &io::Error) -> &'static str {
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
        _ => on_any(error),
    }
}

fn on_any(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            "; raise the process' limit on the size of files (LimitFSIZE, `ulimit -f`) and start the server again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system so that it can be written",
        _ => "",
    }
}
