use openraft::Membership;
use openraft::testing::{blank_ent, log_id};

use super::*;
use crate::snapshot::MemorySnapshots;

/// Writes down what it is told, and the position that a reader saw at that moment.
#[derive(Default)]
struct Diary(Mutex<Vec<(&'static str, Option<u64>)>>);

impl Diary {
    fn note(&self, what: &'static str, published: &Published) {
        let index = published.last_applied.map(|id| id.index);
        self.0.lock().unwrap().push((what, index));
    }
    fn pages(&self) -> Vec<(&'static str, Option<u64>)> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Diary {
    fn applied(&self, published: &Arc<Published>, _: Effects) {
        self.note("applied", published);
    }
    fn installed(&self, published: &Arc<Published>) {
        self.note("installed", published);
    }
}

fn open(store: &MemorySnapshots) -> (Machine, StateReader, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    let (machine, reader) =
        Machine::open(Arc::new(store.clone()), Arc::clone(&diary) as Arc<dyn Observer>).unwrap();
    (machine, reader, diary)
}

async fn apply(machine: &mut Machine, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(futures_util::stream::iter(entries)).await.unwrap();
}

fn blank(index: u64) -> Entry {
    blank_ent::<TypeConfig>(1, 0, index)
}

fn member(index: u64, id: u64) -> Entry {
    openraft::testing::membership_ent::<TypeConfig>(1, 0, index, vec![[id].into()])
}

#[tokio::test]
async fn a_run_of_entries_is_published_and_observed_once() {
    let (mut machine, reader, diary) = open(&MemorySnapshots::default());
    let before = reader.load();
    apply(&mut machine, vec![blank(0), member(1, 9), blank(2)]).await;
    assert_eq!(diary.pages(), [("applied", Some(2))]);
    let after = reader.load();
    assert_eq!(after.last_applied, Some(log_id::<TypeConfig>(1, 0, 2)));
    let membership: &Membership<_, _> = after.membership.membership();
    assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [9]);
    assert_eq!(before.last_applied, None, "a published version does not change");
}

#[tokio::test]
async fn a_restart_begins_with_the_snapshot() {
    let disk = MemorySnapshots::default();
    let (mut machine, _, _) = open(&disk);
    apply(&mut machine, vec![blank(0), member(1, 9), blank(2)]).await;
    let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    apply(&mut machine, vec![blank(3)]).await;

    let (mut machine, reader, _) = open(&disk);
    let (applied, membership) = machine.applied_state().await.unwrap();
    assert_eq!((applied, membership), (built.meta.last_log_id, built.meta.last_membership.clone()));
    assert_eq!(reader.load().last_applied, built.meta.last_log_id);
    assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, built.meta);
}

#[tokio::test]
async fn an_installed_snapshot_is_kept_published_and_observed() {
    let (mut leader, _, _) = open(&MemorySnapshots::default());
    apply(&mut leader, vec![blank(0), member(1, 9), blank(2)]).await;
    let sent = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let disk = MemorySnapshots::default();
    let (mut machine, reader, diary) = open(&disk);
    machine.install_snapshot(&sent.meta, sent.snapshot).await.unwrap();
    assert_eq!(diary.pages(), [("installed", Some(2))]);
    assert_eq!(reader.load().last_applied, sent.meta.last_log_id);
    let (_, reader, _) = open(&disk);
    assert_eq!(reader.load().last_applied, sent.meta.last_log_id);
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_or_another_than_announced_changes_nothing() {
    let (mut leader, _, _) = open(&MemorySnapshots::default());
    apply(&mut leader, vec![blank(0), blank(1)]).await;
    let sent = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut damaged = Vec::new();
    io::Read::read_to_end(&mut sent.snapshot.open().unwrap(), &mut damaged).unwrap();
    *damaged.last_mut().unwrap() ^= 1;

    let disk = MemorySnapshots::default();
    let (mut machine, reader, diary) = open(&disk);
    let other = SnapshotMeta::default();
    assert!(machine.install_snapshot(&other, sent.snapshot).await.is_err());
    let damaged = Snapshot::from_bytes(damaged);
    assert!(machine.install_snapshot(&sent.meta, damaged).await.is_err());
    assert_eq!(reader.load().last_applied, None);
    assert!(disk.current().unwrap().is_none());
    assert_eq!(diary.pages(), []);
}

#[tokio::test]
async fn a_build_that_was_overtaken_by_an_installation_does_not_replace_it() {
    let (mut leader, _, _) = open(&MemorySnapshots::default());
    apply(&mut leader, (0..10).map(blank).collect()).await;
    let sent = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let disk = MemorySnapshots::default();
    let (mut machine, _, _) = open(&disk);
    apply(&mut machine, vec![blank(0), blank(1)]).await;
    let mut slow = machine.get_snapshot_builder().await;
    machine.install_snapshot(&sent.meta, sent.snapshot).await.unwrap();
    let built = slow.build_snapshot().await.unwrap();
    assert_eq!(built.meta, sent.meta);
    let (_, reader, _) = open(&disk);
    assert_eq!(reader.load().last_applied, sent.meta.last_log_id);
}
