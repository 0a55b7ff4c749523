//! Small files that survive a power cut: written whole, checksummed, replaced atomically.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::advice;

/// Length of the magic bytes that open a sealed record.
const MAGIC_LEN: usize = 8;
/// Magic bytes, format version, payload length, checksum.
const HEADER_LEN: usize = MAGIC_LEN + 1 + 4 + 4;

/// What a sealed record is of: eight bytes that name it, and its format version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: &'static [u8; MAGIC_LEN],
    pub(crate) format: u8,
}

/// Encodes `value` behind a header that names its kind and has a CRC-32 over kind and payload.
pub(crate) fn seal<T: Serialize>(kind: Kind, value: &T) -> io::Result<Vec<u8>> {
    let payload = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut sealed = Vec::with_capacity(HEADER_LEN + payload.len());
    sealed.extend_from_slice(kind.magic);
    sealed.push(kind.format);
    sealed.extend_from_slice(&len.to_be_bytes());
    let checksum = checksum(&sealed, &payload);
    sealed.extend_from_slice(&checksum.to_be_bytes());
    sealed.extend_from_slice(&payload);
    Ok(sealed)
}

/// Whether a record says that it is of this kind.
pub(crate) fn is_of(kind: Kind, bytes: &[u8]) -> bool {
    bytes.starts_with(kind.magic) && bytes.get(MAGIC_LEN) == Some(&kind.format)
}

/// Decodes what [`seal`] made; bytes after the record are ignored. The error says what is wrong.
pub(crate) fn unseal<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, String> {
    let (header, rest) = bytes
        .split_at_checked(HEADER_LEN)
        .ok_or_else(|| format!("it is truncated after {} bytes", bytes.len()))?;
    if header[..MAGIC_LEN] != kind.magic[..] {
        return Err("it has the wrong magic bytes".to_owned());
    }
    if header[MAGIC_LEN] != kind.format {
        return Err(format!(
            "its format is {}, and this program reads {}",
            header[MAGIC_LEN], kind.format
        ));
    }
    let (named, sum) = header.split_at(HEADER_LEN - 4);
    let len = read_u32(&named[MAGIC_LEN + 1..]) as usize;
    let payload = rest.get(..len).ok_or_else(|| "it is truncated".to_owned())?;
    if checksum(named, payload) != read_u32(sum) {
        return Err("its checksum does not match".to_owned());
    }
    postcard::from_bytes(payload).map_err(|e| format!("it cannot be decoded: {e}"))
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

fn read_u32(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    u32::from_be_bytes(word)
}

/// Replaces a file by one with these bytes. When it returns the new content is on the disk; when it
/// fails, or the power does, the old one is still there.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Whether an operation failed for want of something that may be there again: descriptors, room on the
/// disk, memory, threads. The same operation may succeed later; a failing device is no shortage.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    /// `ENFILE` and `EMFILE`: the system's descriptors, the process' own. They have no kind.
    const NO_DESCRIPTORS: [i32; 2] = [23, 24];
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::Interrupted => true,
        _ => error.raw_os_error().is_some_and(|number| NO_DESCRIPTORS.contains(&number)),
    }
}

/// Names the path of an error of the file system, and what can be done about it.
pub(crate) fn at_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}{}", path.display(), advice::on_data(error)))
}

/// The error of a disk that does not take what a server cannot do without, in words for the operator.
pub(crate) fn cannot_be_written(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{what} cannot be written: {error}{}", advice::on_data(error)),
    )
}

/// Makes the names in a directory durable: a file that was created, renamed or removed there.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a path's own name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let synced = match path.parent() {
        // A relative path of one component lies in the current directory.
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    };
    match synced {
        // A service's data directory often lies in one that the service may not read. Then whoever
        // made it answers for its name.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: b"QRTTEST\0", format: 3 };

    #[test]
    fn what_was_sealed_can_be_read_back() {
        let sealed = seal(KIND, &(7u64, "name".to_owned())).unwrap();
        assert_eq!(unseal::<(u64, String)>(KIND, &sealed), Ok((7, "name".to_owned())));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = seal(KIND, &(7u64, "name".to_owned())).unwrap();
        for cut in 0..sealed.len() {
            assert!(unseal::<(u64, String)>(KIND, &sealed[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<(u64, String)>(KIND, &damaged).is_err(), "bit {bit}");
        }
    }
}
