//! The archive in which a backup is handed out: a compressed tar of `meta.json`, `state.bin` and
//! `SHA256SUMS`, as Consul's is, so that its command line can save and check it. What `state.bin`
//! holds is Quorate's own.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use quorate_storage::backup;
use quorate_storage::machine::Published;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::host::clock::wall_time;
use crate::host::hexadecimal::hexadecimal;

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";

/// Blocks of a tar archive.
const TAR_BLOCK: u64 = 512;

/// How much is collected before it is sent on.
const WRITE_BYTES: usize = 64 * 1024;

/// The largest of the small files.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;

/// What an archive may have beside its state, unpacked.
const FRAME_BYTES_MAX: u64 = 4 * SMALL_FILE_BYTES;

/// Writes the archive of one version of the state.
///
/// # Errors
/// The first error of `out`.
pub(super) fn pack(version: &Published, out: impl Write) -> io::Result<()> {
    // The size and the sum come before the bytes, so they are made twice: a version never changes.
    let measured = backup::write(version, Measure::default())?;
    let (size, state_sum) = (measured.bytes, hexadecimal(&measured.sum.finalize()));
    let meta = meta(version, size);
    let sums = format!("{}  {META}\n{state_sum}  {STATE}\n", hexadecimal(&Sha256::digest(&meta)));
    let out = GzEncoder::new(BufWriter::with_capacity(WRITE_BYTES, out), Compression::fast());
    let mut tar = Builder::new(out);
    tar.append_data(&mut header(meta.len() as u64), META, meta.as_slice())?;
    let mut head = header(size);
    head.set_path(STATE)?;
    head.set_cksum();
    tar.get_mut().write_all(head.as_bytes())?;
    backup::write(version, BufWriter::with_capacity(WRITE_BYTES, tar.get_mut()))?.flush()?;
    let padding = size.next_multiple_of(TAR_BLOCK) - size;
    io::copy(&mut io::repeat(0).take(padding), tar.get_mut())?;
    tar.append_data(&mut header(sums.len() as u64), SUMS, sums.as_bytes())?;
    tar.into_inner()?.finish()?.flush()
}

/// What Consul's command line shows of a snapshot.
fn meta(version: &Published, size: u64) -> Vec<u8> {
    let (term, index) = version
        .last_applied
        .as_ref()
        .map_or((0, 0), |applied| (applied.leader_id.term, applied.index));
    let meta = json!({
        "Version": 1,
        "ID": format!("{term}-{index}-{}", version.state.time().0),
        "Index": index,
        "Term": term,
        "Peers": null,
        "Configuration": { "Servers": [] },
        "ConfigurationIndex": 0,
        "Size": size,
    });
    meta.to_string().into_bytes()
}

fn header(size: u64) -> Header {
    const OWNER_READS_AND_WRITES: u32 = 0o600;
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(OWNER_READS_AND_WRITES);
    header.set_mtime(wall_time().unix_millis() / 1_000);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    header
}

/// Counts and hashes what is written to it.
#[derive(Default)]
struct Measure {
    bytes: u64,
    sum: Sha256,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an archive whose sums fit. `take` reads what `state.bin` holds, as it is unpacked: nothing else is
/// held of an archive than its list of sums, whatever it unpacks to. What `take` was given is to be believed
/// only once this has returned.
///
/// # Errors
/// Consul's sentence about the step that failed, or the error of `take`.
pub(super) fn unpack(
    archive: impl Read,
    state_bytes_max: u64,
    take: impl FnOnce(&mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = GzDecoder::new(archive);
    // The head of the compressed data is read here, so that garbage is told from a broken archive.
    let mut first = [0];
    reader
        .read_exact(&mut first)
        .map_err(|error| format!("failed to decompress snapshot: {error}"))?;
    let unpacked_max = state_bytes_max + FRAME_BYTES_MAX;
    let unpacked =
        Bounded { input: first.as_slice().chain(reader), left: unpacked_max, max: unpacked_max };
    let mut tar = Archive::new(unpacked);
    let (mut take, mut list, mut sums) = (Some(take), String::new(), BTreeMap::new());
    // Raw: entries that only describe the next one are taken in whole otherwise.
    for entry in tar.entries().map_err(unreadable)?.raw(true) {
        let entry = entry.map_err(unreadable)?;
        if matches!(entry.header().entry_type(), EntryType::XHeader | EntryType::XGlobalHeader) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_size(&name, entry.size(), state_bytes_max)?;
        let mut content = Summed { input: entry, sum: Sha256::new() };
        match (name.as_str(), take.take_if(|_| name == STATE)) {
            (_, Some(take)) => take(&mut content)?,
            (SUMS, None) => {
                content.read_to_string(&mut list).map_err(unreadable)?;
            }
            _ => {}
        }
        io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
        let sum = hexadecimal(&content.sum.finalize());
        if sums.insert(name.clone(), sum).is_some() {
            return Err(format!("failed to read snapshot file: {name} comes twice"));
        }
    }
    // To the end, where the compressed data has its own sum: what was cut off is no whole archive.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(unreadable)?;
    check_sums(&list, &sums)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unreadable(error: io::Error) -> String {
    format!("failed to read snapshot file: {error}")
}

/// Refuses a file that an archive does not have, or not as large.
fn check_size(name: &str, size: u64, state_bytes_max: u64) -> Result<(), String> {
    let limit = match name {
        STATE => state_bytes_max,
        META | SUMS => SMALL_FILE_BYTES,
        other => {
            return Err(format!("failed to read snapshot file: unexpected file {other:?}"));
        }
    };
    if size > limit {
        return Err(format!(
            "failed to read snapshot file: {name} is too large: {size} bytes unpacked (limit: {limit} bytes)"
        ));
    }
    Ok(())
}

/// Every file must have the sum that the list says.
fn check_sums(list: &str, sums: &BTreeMap<String, String>) -> Result<(), String> {
    let missing = |name: &str| format!("failed to read snapshot file: {name} is missing");
    sums.get(SUMS).ok_or_else(|| missing(SUMS))?;
    let listed: BTreeMap<&str, &str> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name, sum))
        .collect();
    for name in [META, STATE] {
        let sum = sums.get(name).ok_or_else(|| missing(name))?;
        if listed.get(name) != Some(&sum.as_str()) {
            return Err(format!("failed to read snapshot file: hash check failed for {name:?}"));
        }
    }
    Ok(())
}

/// Fails where there is more than so many bytes.
struct Bounded<R> {
    input: R,
    left: u64,
    max: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        let left = self.left.checked_sub(length as u64);
        self.left = left.ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {} bytes", self.max))
        })?;
        Ok(length)
    }
}

/// Sums up what is read of it.
struct Summed<R> {
    input: R,
    sum: Sha256,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.sum.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1024 * 1024;

    fn packed() -> Vec<u8> {
        let mut archive = Vec::new();
        pack(&Published::default(), &mut archive).unwrap();
        archive
    }

    /// All that an archive holds.
    fn unpacked(archive: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        let mut state = Vec::new();
        unpack(archive, limit, |content| {
            content.read_to_end(&mut state).map(drop).map_err(|error| error.to_string())
        })?;
        Ok(state)
    }

    fn try_restore(content: &mut dyn Read) -> Result<(), String> {
        Published::default().state.try_restore(content).map_err(|error| error.to_string())
    }

    /// An archive of one file of zeros.
    fn of_zeros(kind: EntryType, name: &str, bytes: u64) -> Vec<u8> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = header(bytes);
        header.set_entry_type(kind);
        tar.append_data(&mut header, name, io::repeat(0).take(bytes)).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    /// Counts what is read of an archive.
    struct Counted<'a>(&'a [u8], &'a mut usize);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.read(buffer)?;
            *self.1 += length;
            Ok(length)
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_can_be_restored() {
        unpack(packed().as_slice(), LIMIT, try_restore).unwrap();
        assert_eq!(unpack(packed().as_slice(), LIMIT, |_| Err("no".into())), Err("no".to_owned()));
    }

    #[test]
    fn an_archive_of_zeros_is_refused_where_it_is_no_backup() {
        const ZEROS: u64 = 64 * 1024 * 1024;
        let archive = of_zeros(EntryType::Regular, STATE, ZEROS);
        let mut read = 0;
        let error = unpack(Counted(&archive, &mut read), ZEROS, try_restore).unwrap_err();
        assert!(error.ends_with("it is not a snapshot"), "{error}");
        assert!(read < archive.len() / 2, "{read} of {} bytes were read", archive.len());
    }

    #[test]
    fn a_name_of_many_bytes_is_not_taken_in() {
        let bytes = 64 * SMALL_FILE_BYTES;
        for (kind, name) in [(EntryType::GNULongName, "name"), (EntryType::GNULongLink, "link")] {
            let archive = of_zeros(kind, name, bytes);
            let mut read = 0;
            let error = unpack(Counted(&archive, &mut read), 2 * bytes, try_restore).unwrap_err();
            assert!(error.contains("unexpected file"), "{error}");
            assert!(read < archive.len() / 2, "{read} of {} bytes were read", archive.len());
        }
        // What some programs say of a file beside its content is passed over.
        let archive = of_zeros(EntryType::XHeader, "about", bytes);
        let error = unpack(archive.as_slice(), 2 * bytes, try_restore).unwrap_err();
        assert!(error.ends_with("SHA256SUMS is missing"), "{error}");
        let error = unpack(archive.as_slice(), bytes / 2, try_restore).unwrap_err();
        assert!(error.contains("it unpacks to more than"), "{error}");
    }

    #[test]
    fn what_is_no_archive_is_refused_in_the_words_of_consul() {
        for garbage in [b"garbage".as_slice(), b""] {
            let error = unpacked(garbage, LIMIT).unwrap_err();
            assert!(error.starts_with("failed to decompress snapshot: "), "{error}");
        }
    }

    #[test]
    fn no_damaged_or_cut_archive_is_taken() {
        let archive = packed();
        for length in (1..archive.len()).step_by(7) {
            unpacked(&archive[..length], LIMIT).unwrap_err();
        }
        for place in (10..archive.len() - 8).step_by(11) {
            let mut damaged = archive.clone();
            damaged[place] ^= 0x10;
            if let Ok(backup) = unpacked(&damaged, LIMIT) {
                // Some bits of a compressed file mean nothing.
                assert_eq!(backup, unpacked(&archive, LIMIT).unwrap());
            }
        }
    }

    #[test]
    fn a_backup_that_unpacks_to_more_than_the_limit_is_refused() {
        assert!(unpacked(&packed(), 10).unwrap_err().contains("state.bin is too large"));
    }
}
