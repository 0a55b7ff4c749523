//! The bytes of a snapshot.
//!
//! ```text
//! magic "QRTSNAP\0" | format (1 byte) | length (4) | what it covers (postcard)
//! length (4) | record                                              ... any number of times
//! ff ff ff ff | number of records (8) | BLAKE3 of everything before (32)
//! ```
//!
//! Lengths and numbers are big endian. What the records mean is the state's business.

use std::io::{self, Read, Write};

use super::Snapshot;
use crate::raft::SnapshotMeta;

const MAGIC: &[u8; 8] = b"QRTSNAP\0";
const FORMAT: u8 = 1;
/// Stands where a record's length would.
const END: u32 = u32::MAX;
/// Largest record. A state's largest row is a value of half a megabyte.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Writes a snapshot, record by record.
#[derive(Debug)]
pub struct RecordWriter<W: Write> {
    out: W,
    hasher: blake3::Hasher,
    records: u64,
}

impl<W: Write> RecordWriter<W> {
    /// Begins a snapshot that covers `meta`. Many small writes follow: give it a buffered writer.
    pub fn new(out: W, meta: &SnapshotMeta) -> io::Result<Self> {
        let mut writer = Self { out, hasher: blake3::Hasher::new(), records: 0 };
        writer.write(MAGIC)?;
        writer.write(&[FORMAT])?;
        let meta = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        writer.write_sized(&meta)?;
        Ok(writer)
    }

    /// Adds a record of at most [`RECORD_BYTES_MAX`] bytes.
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        self.records += 1;
        self.write_sized(record)
    }

    /// Writes the end; without it the snapshot is not valid.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&END.to_be_bytes())?;
        self.write(&self.records.to_be_bytes())?;
        let hash = self.hasher.finalize();
        self.out.write_all(hash.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(invalid(format!("a record of {} bytes is too large", bytes.len())));
        }
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&len.to_be_bytes())?;
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a snapshot, record by record.
#[derive(Debug, Clone)]
pub struct RecordReader<R: Read> {
    input: R,
    hasher: blake3::Hasher,
    meta: SnapshotMeta,
    records: u64,
    ended: bool,
}

impl<R: Read> RecordReader<R> {
    /// Reads the head. Give it a buffered reader.
    pub fn new(input: R) -> io::Result<Self> {
        let meta = SnapshotMeta::default();
        let mut reader =
            Self { input, hasher: blake3::Hasher::new(), meta, records: 0, ended: false };
        if reader.read::<8>()? != *MAGIC {
            return Err(invalid("it is not a snapshot"));
        }
        let [format] = reader.read::<1>()?;
        if format != FORMAT {
            return Err(invalid(format!(
                "its format is {format}, and this program reads {FORMAT}"
            )));
        }
        let len = reader.read_len()?.ok_or_else(|| invalid("it has no head"))?;
        let meta = reader.read_sized(len)?;
        reader.meta = postcard::from_bytes(&meta)
            .map_err(|e| invalid(format!("its head cannot be decoded: {e}")))?;
        Ok(reader)
    }

    /// Where the bytes come from.
    pub(crate) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// What the snapshot says it covers; to be trusted only after the last record.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The next record; `None` after the last one, and only if the checksum of the whole matches.
    pub fn next_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        if let Some(len) = self.read_len()? {
            self.records += 1;
            return self.read_sized(len).map(Some);
        }
        self.ended = true;
        self.check_end().map(|()| None)
    }

    fn check_end(&mut self) -> io::Result<()> {
        let records = u64::from_be_bytes(self.read()?);
        let hash = self.hasher.finalize();
        if self.read::<32>()? != *hash.as_bytes() {
            return Err(invalid("its checksum does not match"));
        }
        if records != self.records {
            return Err(invalid("it does not have as many records as it says"));
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(invalid("there is data after its end")),
        }
    }

    fn read_len(&mut self) -> io::Result<Option<usize>> {
        match u32::from_be_bytes(self.read()?) {
            END => Ok(None),
            len if len as usize > RECORD_BYTES_MAX => {
                Err(invalid("it has a record that is too large"))
            }
            len => Ok(Some(len as usize)),
        }
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(cut_off)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn read_sized(&mut self, len: usize) -> io::Result<Vec<u8>> {
        // The length may lie: memory grows with what is really there.
        let mut bytes = Vec::new();
        (&mut self.input).take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() < len {
            return Err(invalid("it is truncated"));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}

/// Bytes before the text of the head.
const HEAD_BYTES: usize = MAGIC.len() + 1 + LENGTH_BYTES;
/// Bytes of a length.
const LENGTH_BYTES: usize = 4;
/// Bytes behind the mark of the end.
const END_BYTES: usize = 8 + blake3::OUT_LEN;

/// Whether so many bytes that begin like this have a whole head, or none that could be read.
pub(crate) fn has_head(first: Option<[u8; HEAD_BYTES]>, length: usize) -> bool {
    first.is_some_and(|first| {
        let (magic, rest) = first.split_at(MAGIC.len());
        let [_, len @ ..] = rest else { return true };
        magic != MAGIC || length - HEAD_BYTES >= whole(len)
    })
}

/// Whether so many bytes that begin like this have a whole record or the end, or none that could be
/// read.
pub(crate) fn has_record(first: Option<[u8; LENGTH_BYTES]>, length: usize) -> bool {
    first.is_some_and(|first| {
        let is_end = u32::from_be_bytes(first) == END;
        length - LENGTH_BYTES >= if is_end { END_BYTES } else { whole(&first) }
    })
}

/// How many bytes must be there to read what has this length: none, if it is too large anyway.
fn whole(length: &[u8]) -> usize {
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > RECORD_BYTES_MAX { 0 } else { length }
}

/// Reads a snapshot to its end and says what it covers; an error of kind `InvalidData` says what is
/// wrong with it. To be called on what another server sent, before it is given to openraft.
pub fn verify(snapshot: &Snapshot) -> io::Result<SnapshotMeta> {
    let mut reader = RecordReader::new(io::BufReader::new(snapshot.open()?))?;
    while reader.next_record()?.is_some() {}
    Ok(reader.meta)
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot is damaged: {}", what.into()))
}

fn cut_off(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { invalid("it is truncated") } else { error }
}
