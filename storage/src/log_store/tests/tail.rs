//! Reads, limits and sizes.

use super::*;

#[tokio::test]
async fn entries_are_readable_before_they_are_durable() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let mut reader = store.get_log_reader().await;
    let mut durable = Vec::new();
    for i in 0..500 {
        durable.push(append_later(&mut store, [blank(1, i)]).await.unwrap());
        let found = reader.try_get_log_entries(i..=i).await.unwrap();
        assert_eq!(found, [blank(1, i)]);
    }
    for done in durable {
        done.await.unwrap().unwrap();
    }
    let stats = store.monitor().stats();
    assert_eq!((stats.appends, stats.entries), (500, 500));
    assert!(stats.syncs < 500, "appends that wait together share a sync: {stats:?}");
}

#[tokio::test]
async fn what_no_longer_fits_into_memory_is_read_from_disk() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    let total = view::TAIL_ENTRIES_MAX as u64 + 5_000;
    for start in (0..total).step_by(1000) {
        append(&mut store, (start..start + 1000).map(|i| blank(1, i))).await.unwrap();
    }
    let stats = store.monitor().stats();
    assert_eq!(stats.log_entries, total);
    assert_eq!(stats.tail_entries, view::TAIL_ENTRIES_MAX as u64);
    assert!(indexes(&mut store).await.into_iter().eq(0..total));
    let mut reader = store.get_log_reader().await;
    let across = reader.try_get_log_entries(4_990..5_010).await.unwrap();
    assert!(across.iter().map(|entry| entry.log_id.index).eq(4_990..5_010));

    drop((store, reader));
    let mut store = open(&dir);
    assert_eq!(store.monitor().stats().tail_entries, view::TAIL_ENTRIES_MAX as u64);
    assert!(indexes(&mut store).await.into_iter().eq(0..total));
}

#[tokio::test]
async fn the_tail_is_limited_in_bytes_as_well() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    for i in 0..40 {
        append(&mut store, [sized(i, 1 << 20)]).await.unwrap();
    }
    assert!(store.monitor().stats().tail_entries <= 16);
    assert_eq!(all(&mut store).await[3], sized(3, 1 << 20));
    drop(store);
    let mut store = open(&dir);
    assert_eq!(store.monitor().stats().tail_entries, 15);
    assert_eq!(all(&mut store).await[39], sized(39, 1 << 20));
}

#[tokio::test]
async fn a_read_for_replication_is_limited_in_bytes_but_never_empty() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..30).map(|i| sized(i, 100 << 10))).await.unwrap();
    append(&mut store, [sized(30, 3 << 20), blank(1, 31)]).await.unwrap();
    let mut reader = store.get_log_reader().await;
    let some = reader.limited_get_log_entries(5, 30).await.unwrap();
    assert!(some.iter().map(|entry| entry.log_id.index).eq(5..15), "{}", some.len());
    assert_eq!(reader.limited_get_log_entries(30, 32).await.unwrap().len(), 1);
    assert_eq!(reader.limited_get_log_entries(31, 32).await.unwrap().len(), 1);
    assert_eq!(reader.limited_get_log_entries(5, 5).await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_log_knows_how_many_bytes_lie_behind_an_entry() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..10).map(|i| sized(i, 1000))).await.unwrap();
    let monitor = store.monitor();
    let all = monitor.bytes_since(None);
    assert_eq!(all, monitor.stats().bytes);
    let one = monitor.bytes_since(Some(&id(1, 8)));
    assert!((1000..1100).contains(&one), "{one}");
    assert_eq!(monitor.bytes_since(Some(&id(1, 9))), 0);
    assert_eq!(monitor.purge_point(all), None);
    assert_eq!(monitor.purge_point(one), Some(8));
    assert_eq!(monitor.purge_point(0), Some(9));

    store.purge(id(1, 4)).await.unwrap();
    assert_eq!(monitor.bytes_since(Some(&id(1, 8))), one);
    assert_eq!(monitor.bytes_since(Some(&id(1, 2))), monitor.bytes_since(None));
    store.truncate_after(Some(id(1, 7))).await.unwrap();
    assert_eq!(monitor.bytes_since(Some(&id(1, 6))), one);
    assert_eq!(monitor.stats().log_entries, 3);
}

#[tokio::test]
async fn an_entry_that_would_leave_a_hole_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut store = open(&dir);
    append(&mut store, (0..3).map(|i| blank(1, i))).await.unwrap();
    assert!(append(&mut store, [blank(1, 4)]).await.is_err());
    assert_eq!(indexes(&mut store).await, [0, 1, 2]);
}

#[tokio::test]
async fn an_old_report_of_the_writer_says_nothing_of_the_entries_after_a_truncation() {
    let mut view = View::default();
    let entries = |range: Range<u64>, term| {
        let entries: Vec<_> = range.map(|i| blank(term, i)).collect();
        let encoded: Vec<_> = entries.iter().map(|e| Encoded::new(e).unwrap()).collect();
        (entries, encoded)
    };
    let (old, encoded) = entries(0..10, 1);
    let epoch = view.append(old, &encoded).unwrap();
    view.truncate_after(Some(id(1, 4)));
    let many = view::TAIL_ENTRIES_MAX as u64 + 20;
    let (new, encoded) = entries(5..many, 2);
    view.append(new, &encoded).unwrap();
    view.stored(10, epoch);
    let (on_disk, tail, _) = view.read(0..many);
    assert!(on_disk.is_empty(), "nothing is known to be in sled: {on_disk:?}");
    assert_eq!(tail.len() as u64, many);
}
