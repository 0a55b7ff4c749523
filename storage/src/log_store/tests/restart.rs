//! What a restart finds.

use super::*;

#[tokio::test]
async fn vote_log_commit_and_purge_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    store.save_vote(&vote(3)).await.unwrap();
    append(&mut store, (0..20).map(|i| blank(3, i))).await.unwrap();
    store.save_committed(Some(id(3, 15))).await.unwrap();
    store.purge(id(3, 4)).await.unwrap();
    let before = all(&mut store).await;
    drop(store);

    let mut store = open(&dir);
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(3, 4)));
    assert_eq!(state.last_log_id, Some(id(3, 19)));
    assert_eq!(store.read_committed().await.unwrap(), Some(id(3, 15)));
    assert_eq!(store.get_log_reader().await.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(all(&mut store).await, before);
    assert_eq!(before.len(), 15);
}

#[tokio::test]
async fn truncated_entries_stay_away_and_others_take_their_place() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..20).map(|i| blank(1, i))).await.unwrap();
    store.truncate_after(Some(id(1, 9))).await.unwrap();
    append(&mut store, (10..13).map(|i| blank(2, i))).await.unwrap();
    drop(store);

    let mut store = open(&dir);
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(id(2, 12)));
    let ids: Vec<_> = all(&mut store).await.iter().map(|entry| entry.log_id).collect();
    let expected: Vec<_> = (0..10).map(|i| id(1, i)).chain((10..13).map(|i| id(2, i))).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_log_purged_beyond_its_end_begins_behind_the_purge() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..5).map(|i| blank(1, i))).await.unwrap();
    store.purge(id(2, 100)).await.unwrap();
    append(&mut store, [blank(2, 101)]).await.unwrap();
    drop(store);

    let mut store = open(&dir);
    assert_eq!(indexes(&mut store).await, [101]);
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(id(2, 100)));
}

#[tokio::test]
async fn large_entries_are_read_back_and_no_blob_file_appears() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let entries: Vec<_> = (0..60).map(|i| sized(i, 600 << 10)).collect();
    for entry in &entries {
        append(&mut store, [entry.clone()]).await.unwrap();
    }
    // Rewriting pages is what would make blobs of them: purge, and append again.
    store.purge(id(1, 30)).await.unwrap();
    for i in 60..80 {
        append(&mut store, [sized(i, 600 << 10)]).await.unwrap();
    }
    drop(store);

    let mut store = open(&dir);
    let found = all(&mut store).await;
    assert_eq!(found[..29], entries[31..]);
    assert_eq!(found.len(), 49);
    let blobs = dir.path().join("data/log/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[tokio::test]
async fn a_commit_beyond_the_end_of_the_log_is_taken_back_to_it() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..5).map(|i| blank(1, i))).await.unwrap();
    store.save_committed(Some(id(1, 9))).await.unwrap();
    drop(store);
    assert_eq!(open(&dir).read_committed().await.unwrap(), Some(id(1, 4)));
}

#[tokio::test]
async fn a_purge_that_was_cut_short_is_finished() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..2000).map(|i| blank(1, i))).await.unwrap();
    store.purge(id(1, 1999)).await.unwrap();
    // The purge goes in pieces; closing does not wait for all of them.
    drop(store);
    let mut store = open(&dir);
    assert_eq!(indexes(&mut store).await, [0; 0]);
    let left = || store.shared.tables.log.len();
    wait_until("all purged keys are gone", || left() == 0).await;
}

#[tokio::test]
async fn after_closing_every_write_fails_and_what_was_written_stays_readable() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..5).map(|i| blank(1, i))).await.unwrap();
    let monitor = store.monitor();
    monitor.close().await.unwrap();
    monitor.close().await.unwrap();
    assert!(append(&mut store, [blank(1, 5)]).await.is_err());
    assert!(store.save_vote(&vote(9)).await.is_err());
    assert_eq!(monitor.failure(), None);
    assert_eq!(indexes(&mut store).await, [0, 1, 2, 3, 4]);
}

/// The log of an earlier release must stay readable: this changes only with a new format number, and
/// then the old bytes are still read.
#[test]
fn the_bytes_of_an_entry_are_these() {
    let encoded = Encoded::new(&blank(3, 7)).unwrap();
    let chunks: Vec<_> = encoded.chunks().collect();
    let [(key, bytes)] = chunks[..] else { panic!("one chunk") };
    assert_eq!(key, [0, 0, 0, 0, 0, 0, 0, 7, 0, 0]);
    assert_eq!(*bytes, [1, 178, 70, 241, 140, 0, 0, 0, 3, 3, 7, 0]);
    assert_eq!(codec::decode(bytes).unwrap(), blank(3, 7));
}
