use super::canary::SlowWrite;
use super::*;
use crate::skipped;

/// A disk in a directory of its own, or the note that this machine has none.
fn disk(test: &str) -> Option<(tempfile::TempDir, Disk)> {
    if let Err(why) = require() {
        skipped(test, &why.to_string());
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::create(dir.path(), 1, TRIAL_DISK_MIB).unwrap();
    Some((dir, disk))
}

#[test]
fn a_disk_leaves_nothing_behind() {
    let Some((dir, disk)) = disk("a_disk_leaves_nothing_behind") else { return };
    assert!(disk.is_mounted());
    assert!(disk.image.exists());
    drop(disk);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_was_not_synced_is_gone_after_a_power_cut() {
    let Some((_dir, disk)) = disk("what_was_not_synced_is_gone_after_a_power_cut") else { return };
    for round in 0..3 {
        let canary = Canary::lay(disk.root(), &round.to_string()).unwrap();
        canary.write_unsynced().unwrap();
        disk.cut_power().unwrap();
        assert!(canary::timed_sync(disk.root()).is_err());
        disk.unmount().unwrap();
        disk.mount().unwrap();
        canary.require_cut().unwrap();
    }
}

#[test]
fn an_unmount_in_order_is_no_power_cut() {
    let Some((_dir, disk)) = disk("an_unmount_in_order_is_no_power_cut") else { return };
    let canary = Canary::lay(disk.root(), "1").unwrap();
    canary.write_unsynced().unwrap();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    assert!(canary.require_cut().is_err());
}

#[test]
fn a_full_disk_takes_nothing_until_room_is_made() {
    let Some((_dir, disk)) = disk("a_full_disk_takes_nothing_until_room_is_made") else { return };
    assert!(disk.fill().unwrap() > 1 << 20);
    let error = canary::write_much(disk.root()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.make_room().unwrap();
    canary::write_much(disk.root()).unwrap();
}

#[test]
fn a_failed_disk_takes_nothing_until_it_is_repaired() {
    let Some((_dir, disk)) = disk("a_failed_disk_takes_nothing_until_it_is_repaired") else {
        return;
    };
    let canary = Canary::lay(disk.root(), "1").unwrap();
    disk.fail().unwrap();
    assert!(canary::timed_sync(disk.root()).is_err());
    disk.repair().unwrap();
    canary::timed_sync(disk.root()).unwrap();
    canary.require_cut().unwrap();
}

#[test]
fn a_frozen_disk_hangs_until_it_is_thawed() {
    const HANGS: Duration = Duration::from_millis(300);
    let Some((_dir, disk)) = disk("a_frozen_disk_hangs_until_it_is_thawed") else { return };
    disk.freeze().unwrap();
    let mut write = SlowWrite::begin(disk.root()).unwrap();
    std::thread::sleep(HANGS);
    assert!(!write.has_ended().unwrap());
    disk.thaw().unwrap();
    write.wait().unwrap();
    SlowWrite::begin(disk.root()).unwrap().wait().unwrap();
}

#[test]
fn a_limited_disk_is_slow_until_the_limit_is_lifted() {
    const SLOW: Duration = Duration::from_millis(50);
    let test = "a_limited_disk_is_slow_until_the_limit_is_lifted";
    if let Err(why) = require_throttle() {
        skipped(test, &why.to_string());
        return;
    }
    let Some((_dir, disk)) = disk(test) else { return };
    let syncs = || (0..5).map(|_| canary::timed_sync(disk.root()).unwrap()).max().unwrap();
    syncs();
    disk.limit_writes(Some(10)).unwrap();
    assert!(syncs() > SLOW);
    disk.limit_writes(None).unwrap();
    // The last write before may have been held back still.
    syncs();
    assert!(syncs() < SLOW);
}

#[test]
fn a_path_is_one_word_of_a_shell() {
    assert_eq!(quoted(Path::new("/a b/it's")).unwrap(), r"'/a b/it'\''s'");
}
