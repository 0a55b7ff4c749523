use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::raft::{SnapshotMeta, TypeConfig};

fn meta(index: u64) -> SnapshotMeta {
    let last_log_id = Some(openraft::testing::log_id::<TypeConfig>(1, 0, index));
    SnapshotMeta { last_log_id, ..SnapshotMeta::default() }
}

fn records() -> Vec<Vec<u8>> {
    vec![b"first".to_vec(), Vec::new(), vec![7; 70_000], b"last".to_vec()]
}

fn write(sink: Box<dyn SnapshotSink>, index: u64, records: &[Vec<u8>]) -> Box<dyn SnapshotSink> {
    let mut writer = RecordWriter::new(sink, &meta(index)).unwrap();
    for record in records {
        writer.push(record).unwrap();
    }
    writer.finish().unwrap()
}

fn read(snapshot: &Snapshot) -> io::Result<(SnapshotMeta, Vec<Vec<u8>>)> {
    let mut reader = RecordReader::new(snapshot.open()?)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok((reader.meta().clone(), records))
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, snapshot.len());
    bytes
}

fn small() -> Vec<u8> {
    let sink = MemorySnapshots::default().create().unwrap();
    bytes_of(&write(sink, 5, &[b"one".to_vec(), b"two".to_vec()]).commit().unwrap())
}

fn files(dir: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_committed_is_current_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = FileSnapshots::open(dir.path()).unwrap();
    assert!(store.current().unwrap().is_none());
    let committed = write(store.create().unwrap(), 5, &records()).commit().unwrap();
    assert_eq!(read(&committed).unwrap(), (meta(5), records()));
    let store = FileSnapshots::open(dir.path()).unwrap();
    assert_eq!(read(&store.current().unwrap().unwrap()).unwrap(), (meta(5), records()));
}

#[test]
fn a_newer_snapshot_replaces_the_older_which_stays_readable_for_who_holds_it() {
    let dir = TempDir::new().unwrap();
    let store = FileSnapshots::open(dir.path()).unwrap();
    let older = write(store.create().unwrap(), 5, &records()).commit().unwrap();
    let newer = write(store.create().unwrap(), 9, &[]).commit().unwrap();
    assert_eq!(files(&dir).len(), 1);
    assert_eq!(read(&older).unwrap(), (meta(5), records()));
    assert_eq!(read(&newer).unwrap(), (meta(9), Vec::new()));
    assert_eq!(read(&store.current().unwrap().unwrap()).unwrap().0, meta(9));
}

#[test]
fn an_uncommitted_sink_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let store = FileSnapshots::open(dir.path()).unwrap();
    let sink = write(store.create().unwrap(), 5, &records());
    assert_eq!(files(&dir).len(), 1);
    drop(sink);
    assert!(files(&dir).is_empty());

    // A killed process drops nothing.
    std::mem::forget(write(store.create().unwrap(), 5, &records()));
    let store = FileSnapshots::open(dir.path()).unwrap();
    assert!(files(&dir).is_empty());
    assert!(store.current().unwrap().is_none());
}

#[test]
fn a_spooled_snapshot_replaces_nothing_and_is_gone_when_nobody_holds_it() {
    let dir = TempDir::new().unwrap();
    for store in stores(&dir) {
        write(store.create().unwrap(), 5, &records()).commit().unwrap();
        let spooled = write(store.spool().unwrap(), 9, &[]).commit().unwrap();
        assert_eq!(read(&spooled).unwrap().0, meta(9));
        assert_eq!(read(&store.current().unwrap().unwrap()).unwrap().0, meta(5));
    }
    assert_eq!(files(&dir).len(), 1);
}

fn stores(dir: &TempDir) -> [Box<dyn SnapshotStore>; 2] {
    let file = FileSnapshots::open(dir.path()).unwrap();
    [Box::new(file), Box::new(MemorySnapshots::default())]
}

#[test]
fn a_damaged_spool_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut bytes = small();
    bytes[30] ^= 1;
    for store in stores(&dir) {
        let mut sink = store.spool().unwrap();
        sink.write_all(&bytes).unwrap();
        assert_eq!(sink.commit().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    assert!(files(&dir).is_empty());
}

#[test]
fn every_flipped_bit_every_cut_and_every_addition_is_noticed() {
    let sound = small();
    assert!(verify(&Snapshot::from_bytes(sound.clone())).is_ok());
    let refused = |bytes: Vec<u8>| match verify(&Snapshot::from_bytes(bytes)) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::InvalidData,
    };
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(damaged), "bit {bit}");
    }
    for cut in 0..sound.len() {
        assert!(refused(sound[..cut].to_vec()), "cut at {cut}");
    }
    let mut longer = sound;
    longer.push(0);
    assert!(refused(longer));
}

#[test]
fn a_damaged_file_is_named_and_never_passes_for_none() {
    let dir = TempDir::new().unwrap();
    let store = FileSnapshots::open(dir.path()).unwrap();
    write(store.create().unwrap(), 5, &records()).commit().unwrap();
    let file = files(&dir).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = store.current().unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");

    // An older sound one is better than nothing.
    fs::write(dir.path().join("snapshot-00000000000000000000"), small()).unwrap();
    assert!(store.current().unwrap().is_some());
}

#[test]
fn a_record_that_lies_about_its_length_costs_no_memory() {
    let mut bytes = small();
    let at = bytes.windows(3).position(|w| w == b"one").unwrap();
    bytes[at - 4..at].copy_from_slice(&(u32::try_from(RECORD_BYTES_MAX).unwrap()).to_be_bytes());
    assert!(verify(&Snapshot::from_bytes(bytes.clone())).is_err());
    bytes[at - 4..at].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    assert!(verify(&Snapshot::from_bytes(bytes)).is_err());
}

/// The snapshots of an earlier release must stay readable: this changes only with a new format number,
/// and then the old bytes are still read.
#[test]
fn the_bytes_of_a_snapshot_are_these() {
    let mut expected = b"QRTSNAP\0\x01".to_vec();
    expected.extend([0, 0, 0, 7, 1, 1, 5, 0, 0, 0, 0]);
    expected.extend(b"\0\0\0\x03one\0\0\0\x03two");
    expected.extend([0xff; 4]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 2]);
    let hash = blake3::hash(&expected);
    expected.extend(hash.as_bytes());
    assert_eq!(small(), expected);
}
