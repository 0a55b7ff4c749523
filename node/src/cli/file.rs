//! Files that commands read, and those that they write as a whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::failure::Failure;

/// Standard input or standard output in place of a file.
const STANDARD: &str = "-";
/// What of a file's mode is no type.
const MODE_BITS: u32 = 0o7777;

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
        return fs::read(path).map_err(|error| Failure::of_file(path, &error));
    }
    let mut content = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut content);
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

/// A file that is made for a destination: it takes its place as a whole when it is [put there](Self::publish), and is gone
/// otherwise. A symbolic link stays, and its target is replaced. Devices, pipes and standard output get its content.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    destination: Destination,
    file: NamedTempFile,
}

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Standard,
    /// Something that is written into, such as a device or a pipe.
    Stream,
    /// A file, or nothing yet, where this leads.
    File(PathBuf),
}

impl Draft {
    /// An empty one. A new file will have this mode, one that exists keeps its own, and its owner where the system lets
    /// us.
    ///
    /// # Errors
    /// The destination is a directory, or nothing can be written beside it.
    pub(super) fn new(path: &Path, mode: u32) -> Result<Self, Failure> {
        let of_file = |error: io::Error| Failure::of_file(path, &error);
        let destination = Destination::at(path).map_err(of_file)?;
        let file = match &destination {
            Destination::Standard | Destination::Stream => NamedTempFile::new(),
            Destination::File(target) => new_beside(target, mode),
        };
        Ok(Self { path: path.to_owned(), destination, file: file.map_err(of_file)? })
    }

    /// The draft itself.
    pub(super) fn file(&mut self) -> &mut NamedTempFile {
        &mut self.file
    }

    /// Whether the destination is a file that holds just this.
    pub(super) fn is_same_as(&self, content: &[u8]) -> bool {
        match &self.destination {
            Destination::File(target) => fs::read(target).is_ok_and(|present| present == content),
            Destination::Standard | Destination::Stream => false,
        }
    }

    /// Puts it where it belongs, durably.
    ///
    /// # Errors
    /// It cannot be renamed or written.
    pub(super) fn publish(self) -> Result<(), Failure> {
        let Self { path, destination, mut file } = self;
        let published = match destination {
            Destination::Standard => copy(&mut file, &mut io::stdout().lock()),
            Destination::Stream => {
                let out = fs::File::options().write(true).open(&path);
                out.and_then(|mut out| copy(&mut file, &mut out))
            }
            Destination::File(target) => {
                let synced = file.as_file().sync_all();
                synced.and_then(|()| Ok(file.persist(target).map(drop)?))
            }
        };
        published.map_err(|error| Failure::of_file(&path, &error))
    }
}

impl Destination {
    fn at(path: &Path) -> io::Result<Self> {
        if is_standard(path) {
            return Ok(Self::Standard);
        }
        match fs::metadata(path) {
            Ok(present) if present.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(present) if !present.is_file() => Ok(Self::Stream),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => target(path).map(Self::File),
        }
    }
}

/// Where a path leads, also if nothing is there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), fs::read_link(path)) {
        (Err(error), Ok(link)) if error.kind() == io::ErrorKind::NotFound => {
            target(&directory(path).join(link))
        }
        (Err(error), Err(_)) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        (leads_to, _) => leads_to,
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A temporary file with mode and owner of the one that it will replace.
fn new_beside(target: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let new = NamedTempFile::new_in(directory(target))?;
    let mode = match fs::metadata(target) {
        Ok(present) => {
            // Only root gives files away; whoever may replace this one anyway is its owner then.
            let _ = fchown(new.as_file(), Some(present.uid()), Some(present.gid()));
            present.mode()
        }
        Err(_) => mode,
    };
    new.as_file().set_permissions(Permissions::from_mode(mode & MODE_BITS))?;
    Ok(new)
}

/// Copies a draft. A reader that has enough is no error.
fn copy(draft: &mut NamedTempFile, out: &mut impl Write) -> io::Result<()> {
    draft.as_file_mut().rewind()?;
    match io::copy(draft.as_file_mut(), out).and_then(|_| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use nix::sys::stat::Mode;

    use super::*;

    fn publish(path: &Path, content: &[u8]) -> Result<(), Failure> {
        let mut draft = Draft::new(path, 0o640)?;
        draft.file().write_all(content).unwrap();
        draft.publish()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & MODE_BITS
    }

    #[test]
    fn a_file_is_replaced_where_its_links_lead_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link, dangling) =
            (dir.path().join("real"), dir.path().join("link"), dir.path().join("dangling"));
        publish(&real, b"1").unwrap();
        assert_eq!(mode(&real), 0o640);
        fs::set_permissions(&real, Permissions::from_mode(0o604)).unwrap();
        symlink("real", &link).unwrap();
        publish(&link, b"2").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read(&real).unwrap(), mode(&real)), (b"2".to_vec(), 0o604));
        symlink("absent", &dangling).unwrap();
        publish(&dangling, b"3").unwrap();
        assert_eq!(fs::read(dir.path().join("absent")).unwrap(), b"3");
        assert!(Draft::new(dir.path(), 0o640).is_err(), "a directory is none");
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(Draft::new(&dir.path().join("loop"), 0o640).is_err());
        assert!(Draft::new(&real, 0o640).unwrap().is_same_as(b"2"));
    }

    #[test]
    fn devices_and_pipes_get_the_content_and_stay_what_they_are() {
        assert!(publish(Path::new("/dev/full"), b"x").is_err());
        publish(Path::new("/dev/null"), b"x").unwrap();
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        publish(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
