//! Damaged files and failing disks: refused with a reason, never repaired by guessing.

use std::fs;
use std::path::Path;

use super::*;

async fn filled(dir: &TempDir, entries: u64) {
    let mut store = open(dir);
    store.save_vote(&vote(1)).await.unwrap();
    for start in (0..entries).step_by(10) {
        append(&mut store, (start..start + 10).map(|i| sized(i, 1000))).await.unwrap();
    }
}

fn db_file(dir: &TempDir) -> PathBuf {
    dir.path().join("data/log/db")
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_dir(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

fn copied(dir: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    copy_dir(dir.path(), copy.path());
    copy
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_refused_by_its_mark() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 500).await;
    let len = fs::metadata(db_file(&dir)).unwrap().len();
    let mut behind = 0;
    for eighth in 0..8 {
        let dir = copied(&dir);
        let file = File::options().write(true).open(db_file(&dir)).unwrap();
        file.set_len(len * eighth / 8 / 4096 * 4096).unwrap();
        match try_open(&dir) {
            Ok(mut store) => assert!(indexes(&mut store).await.into_iter().eq(0..500)),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("peer?id="), "it says what to do: {text}");
                behind += u32::from(matches!(error, OpenError::Behind { .. }));
            }
        }
    }
    assert!(behind > 0, "sled itself noticed every cut, so the mark was not tested");
}

#[tokio::test]
async fn a_log_that_was_removed_is_refused_by_its_mark() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 10).await;
    fs::remove_dir_all(dir.path().join("data/log")).unwrap();
    let error = try_open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::Behind { .. }), "{error}");
    assert!(error.to_string().contains("vote"), "{error}");
}

#[tokio::test]
async fn a_missing_or_unreadable_mark_is_refused_and_one_damaged_slot_is_not() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 10).await;
    let mark = dir.path().join("data/mark");
    let sound = fs::read(&mark).unwrap();
    for slot in 0..2 {
        let mut damaged = sound.clone();
        damaged[slot * 4096 + 20] ^= 1;
        fs::write(&mark, damaged).unwrap();
        assert!(indexes(&mut open(&dir)).await.into_iter().eq(0..10));
    }
    fs::write(&mark, vec![0; sound.len()]).unwrap();
    assert!(matches!(try_open(&dir), Err(OpenError::Mark { .. })));
    fs::remove_file(&mark).unwrap();
    assert!(matches!(try_open(&dir), Err(OpenError::Mark { .. })));
}

#[tokio::test]
async fn flipped_bits_are_refused_or_without_effect() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 100).await;
    let bytes = fs::read(db_file(&dir)).unwrap();
    let written: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for at in written.iter().step_by(written.len() / 25) {
        let dir = copied(&dir);
        let mut damaged = bytes.clone();
        damaged[*at] ^= 0x10;
        fs::write(db_file(&dir), damaged).unwrap();
        if let Ok(mut store) = try_open(&dir) {
            let entries = all(&mut store).await;
            assert!(entries.into_iter().eq((0..100).map(|i| sized(i, 1000))), "byte {at}");
        }
    }
}

#[tokio::test]
async fn an_unfinished_recovery_snapshot_is_removed() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 10).await;
    let unfinished = dir.path().join("data/log/snap.00000000DEADBEEF.generating");
    fs::write(&unfinished, b"half").unwrap();
    assert!(indexes(&mut open(&dir)).await.into_iter().eq(0..10));
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn a_damaged_recovery_snapshot_is_moved_aside_and_the_data_are_read() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 10).await;
    drop(open(&dir));
    let log = dir.path().join("data/log");
    let named = |prefix: &str| -> Vec<PathBuf> {
        let files = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path());
        files.filter(|f| f.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
    };
    for snapshot in named("snap.") {
        fs::write(snapshot, b"these bytes are no snapshot of sled's").unwrap();
    }
    assert!(indexes(&mut open(&dir)).await.into_iter().eq(0..10));
    assert_eq!(named("aside-snap.").len(), 1);
}

#[tokio::test]
async fn the_mark_is_lowered_before_a_truncation() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 20).await;
    let read = || MarkFile::open(&dir.path().join("data/mark")).unwrap().mark().last;
    assert_eq!(read(), Some(id(1, 19)));
    let mut store = open(&dir);
    store.truncate_after(Some(id(1, 9))).await.unwrap();
    let monitor = store.monitor();
    wait_until("the truncation is done", || monitor.stats().truncations == 1).await;
    assert_eq!(read(), Some(id(1, 9)));
    append(&mut store, [blank(2, 10)]).await.unwrap();
    assert_eq!(read(), Some(id(1, 9)), "it is raised after the sync, in its own time");
    monitor.checkpoint();
    append(&mut store, [blank(2, 11)]).await.unwrap();
    wait_until("the mark is raised", || read() == Some(id(2, 11))).await;
}

#[tokio::test]
async fn the_mark_follows_by_itself_when_it_is_quiet() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, [blank(1, 0)]).await.unwrap();
    let read = || MarkFile::open(&dir.path().join("data/mark")).unwrap().mark().last;
    wait_until("the mark is raised", || read() == Some(id(1, 0))).await;
}

#[tokio::test]
async fn a_failed_sync_fails_what_waits_and_all_that_comes_later() {
    let dir = TempDir::new().unwrap();
    // A device that cannot be synced stands in for a disk that fails.
    let broken = |_: &Path| File::options().write(true).open("/dev/null");
    let mut store = LogStore::open_with(&data_dir(&dir), broken).unwrap();
    let monitor = store.monitor();
    let first = append_later(&mut store, [blank(1, 0)]).await.unwrap();
    let error = first.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    assert!(append(&mut store, [blank(1, 1)]).await.is_err());
    assert!(store.save_vote(&vote(2)).await.is_err());
    assert!(store.purge(id(1, 0)).await.is_err());
    assert!(monitor.failure().is_some());
    assert!(monitor.close().await.is_err());
}
