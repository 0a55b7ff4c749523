//! The archive in which a backup is handed out: a compressed tar of `meta.json`, `state.bin` and
//! `SHA256SUMS`, as Consul's is, so that its command line can save and check it. What `state.bin`
//! holds is Quorate's own.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read as _, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use quorate_storage::backup;
use quorate_storage::machine::Published;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, Header};

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
    header.set_entry_type(tar::EntryType::Regular);
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

/// The `state.bin` of an archive, whose sums fit.
///
/// # Errors
/// Consul's sentence about the step that failed.
pub(super) fn unpack(archive: &[u8], limit: u64) -> Result<Bytes, String> {
    let mut reader = GzDecoder::new(archive);
    // The head of the compressed data is read here, so that garbage is told from a broken archive.
    let mut first = [0];
    reader
        .read_exact(&mut first)
        .map_err(|error| format!("failed to decompress snapshot: {error}"))?;
    // The reader of archives takes in some entries whole before they are seen here.
    let unpacked_max = limit + FRAME_BYTES_MAX;
    let mut tar = Archive::new(first.as_slice().chain(reader).take(unpacked_max));
    let unreadable = |error: io::Error| format!("failed to read snapshot file: {error}");
    let mut files = BTreeMap::new();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let limit = match name.as_str() {
            STATE => limit,
            META | SUMS => SMALL_FILE_BYTES,
            other => {
                return Err(format!("failed to read snapshot file: unexpected file {other:?}"));
            }
        };
        if entry.size() > limit {
            return Err(format!(
                "failed to read snapshot file: {name} is too large (limit: {limit} bytes)"
            ));
        }
        if files.contains_key(&name) {
            return Err(format!("failed to read snapshot file: {name} comes twice"));
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        files.insert(name, Bytes::from(bytes));
    }
    // To the end, where the compressed data has its own sum: what was cut off is no whole archive.
    io::copy(&mut tar.into_inner().take(SMALL_FILE_BYTES), &mut io::sink()).map_err(unreadable)?;
    check_sums(&files)?;
    files.remove(STATE).ok_or_else(|| missing(STATE))
}

fn missing(name: &str) -> String {
    format!("failed to read snapshot file: {name} is missing")
}

/// Every file must have the sum that the list says.
fn check_sums(files: &BTreeMap<String, Bytes>) -> Result<(), String> {
    let list = files.get(SUMS).ok_or_else(|| missing(SUMS))?;
    let list = String::from_utf8_lossy(list);
    let listed: BTreeMap<&str, &str> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name, sum))
        .collect();
    for name in [META, STATE] {
        let bytes = files.get(name).ok_or_else(|| missing(name))?;
        if listed.get(name) != Some(&hexadecimal(&Sha256::digest(bytes)).as_str()) {
            return Err(format!("failed to read snapshot file: hash check failed for {name:?}"));
        }
    }
    Ok(())
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

    #[test]
    fn what_was_packed_is_unpacked_and_can_be_restored() {
        let backup = unpack(&packed(), LIMIT).unwrap();
        Published::default().state.try_restore(backup).unwrap();
    }

    #[test]
    fn what_is_no_archive_is_refused_in_the_words_of_consul() {
        for garbage in [b"garbage".as_slice(), b""] {
            let error = unpack(garbage, LIMIT).unwrap_err();
            assert!(error.starts_with("failed to decompress snapshot: "), "{error}");
        }
    }

    #[test]
    fn no_damaged_or_cut_archive_is_taken() {
        let archive = packed();
        for length in (1..archive.len()).step_by(7) {
            unpack(&archive[..length], LIMIT).unwrap_err();
        }
        for place in (10..archive.len() - 8).step_by(11) {
            let mut damaged = archive.clone();
            damaged[place] ^= 0x10;
            if let Ok(backup) = unpack(&damaged, LIMIT) {
                // Some bits of a compressed file mean nothing.
                assert_eq!(backup, unpack(&archive, LIMIT).unwrap());
            }
        }
    }

    #[test]
    fn a_backup_that_unpacks_to_more_than_the_limit_is_refused() {
        assert!(unpack(&packed(), 10).unwrap_err().contains("too large"));
    }
}
