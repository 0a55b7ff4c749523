//! How entries lie in sled.
//!
//! An entry is cut into chunks, because sled writes a large value to a file of its own that it
//! neither syncs nor removes. Key: index (8 bytes, big endian), chunk number (2 bytes, big endian).
//! Value: the next part of
//!
//! ```text
//! format (1 byte) | CRC-32 of the payload (4) | length of the payload (4) | payload (postcard)
//! ```

use std::io;

use crate::raft::Entry;

/// Largest value given to sled. With segments of 8 MiB and pages of at most 16 values a page stays
/// below the 2 MiB from which sled uses files of their own.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Largest entry, encoded.
pub(crate) const ENTRY_BYTES_MAX: usize = 1 << 30;
/// Length of a key.
pub(crate) const KEY_LEN: usize = 10;

/// Entries encoded with postcard.
const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + 4 + 4;

/// An entry as it is written.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) index: u64,
    bytes: Vec<u8>,
}

impl Encoded {
    pub(crate) fn new(entry: &Entry) -> io::Result<Self> {
        let header = vec![0; HEADER_LEN];
        let mut bytes = postcard::to_extend(entry, header).map_err(io::Error::other)?;
        let payload = bytes.len() - HEADER_LEN;
        if payload > ENTRY_BYTES_MAX {
            let what = format!("a log entry of {payload} bytes is too large");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let len = u32::try_from(payload).map_err(io::Error::other)?;
        let checksum = crc32fast::hash(&bytes[HEADER_LEN..]);
        bytes[0] = FORMAT;
        bytes[1..5].copy_from_slice(&checksum.to_be_bytes());
        bytes[5..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        Ok(Self { index: entry.log_id.index, bytes })
    }

    /// Size in sled, without keys.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Keys and values, in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ([u8; KEY_LEN], &[u8])> {
        // ENTRY_BYTES_MAX is far below 65,536 chunks, so the counter cannot run out.
        (0u16..).zip(self.bytes.chunks(CHUNK_BYTES)).map(|(n, chunk)| (key(self.index, n), chunk))
    }
}

/// The key of a chunk.
pub(crate) fn key(index: u64, chunk: u16) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// What a key names: the entry's index and the chunk's number.
pub(crate) fn parse_key(key: &[u8]) -> io::Result<(u64, u16)> {
    let key: &[u8; KEY_LEN] = key.try_into().map_err(|_| damaged("a key of the wrong length"))?;
    let (index, chunk) = key.split_at(8);
    let index = index.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    Ok((index, u16::from(chunk[0]) << 8 | u16::from(chunk[1])))
}

/// Puts chunks together again, as they come out of sled in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    index: u64,
    chunks: u16,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes the next chunk; returns the whole of an entry (see [`decode`]) with its last one.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<Option<(u64, Vec<u8>)>> {
        let (index, chunk) = parse_key(key)?;
        if self.bytes.is_empty() {
            self.index = index;
            self.chunks = 0;
        }
        if index != self.index || chunk != self.chunks {
            return Err(damaged(format!(
                "part {} of entry {} is missing",
                self.chunks, self.index
            )));
        }
        self.chunks += 1;
        self.bytes.extend_from_slice(value);
        let missing = total_len(&self.bytes)?.cmp(&self.bytes.len());
        match missing {
            std::cmp::Ordering::Greater => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some((index, std::mem::take(&mut self.bytes)))),
            std::cmp::Ordering::Less => Err(damaged(format!("entry {index} is too long"))),
        }
    }

    /// Whether no entry is half read.
    pub(crate) fn is_complete(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn total_len(bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        [_, _, _, _, _, a, b, c, d, ..] => {
            Ok(HEADER_LEN + u32::from_be_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => Err(damaged("an entry without a header")),
    }
}

/// Decodes what [`Assembly`] put together.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<Entry> {
    let [format, a, b, c, d, _, _, _, _, payload @ ..] = bytes else {
        return Err(damaged("an entry without a header"));
    };
    if *format != FORMAT {
        return Err(damaged(format!(
            "an entry of format {format}, which this program cannot read"
        )));
    }
    if crc32fast::hash(payload) != u32::from_be_bytes([*a, *b, *c, *d]) {
        return Err(damaged("an entry whose checksum does not match"));
    }
    postcard::from_bytes(payload)
        .map_err(|e| damaged(format!("an entry that cannot be decoded: {e}")))
}

pub(crate) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log is damaged: {}", what.into()))
}
