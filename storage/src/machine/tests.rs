use openraft::Membership;
use openraft::testing::{blank_ent, log_id};

use super::*;
use crate::command::{Batch, Duty};
use crate::snapshot::MemorySnapshots;
use crate::state::{LEVEL, StateHeader};

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

/// An entry that writes one key.
fn put(index: u64) -> Entry {
    use crate::command::{Batch, Command, KvPutMode, Part};
    let command = Command::KvPut {
        key: format!("key-{}", index % 7).into(),
        value: vec![u8::try_from(index % 251).unwrap(); 1000].into(),
        flags: index,
        mode: KvPutMode::Set,
    };
    let part =
        Part { origin: 1, incarnation: 1, answered_through: 0, commands: vec![(index, command)] };
    let batch = Batch { parts: vec![part], ..Batch::default() };
    Entry { log_id: log_id::<TypeConfig>(1, 0, index), payload: EntryPayload::Normal(batch) }
}

#[tokio::test]
async fn the_state_comes_back_from_a_snapshot_file_and_goes_on_as_if_nothing_had_been() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = || {
        let store = Arc::new(crate::snapshot::FileSnapshots::open(dir.path()).unwrap());
        Machine::open(store, Arc::new(Diary::default())).unwrap()
    };
    let (mut machine, reader) = open();
    apply(&mut machine, (1..50).map(put).collect()).await;
    let mut builder = machine.get_snapshot_builder().await;
    let covered = reader.load();
    // What is applied while a snapshot is being built is not in it.
    apply(&mut machine, (50..60).map(put).collect()).await;
    builder.build_snapshot().await.unwrap();

    let (mut restarted, restarted_reader) = open();
    assert_eq!(restarted_reader.load().state.hash(), covered.state.hash());
    apply(&mut restarted, (50..60).map(put).collect()).await;
    assert_eq!(restarted_reader.load().state.hash(), reader.load().state.hash());
    restarted_reader.load().state.check_invariants().unwrap();
}

#[tokio::test]
async fn the_outcomes_of_a_run_are_merged_in_order() {
    #[derive(Default)]
    struct Outcomes(Mutex<Vec<Vec<u64>>>);
    impl Observer for Outcomes {
        fn applied(&self, _: &Arc<Published>, effects: Effects) {
            let seqs = effects.outcomes.iter().map(|(id, _)| id.seq).collect();
            self.0.lock().unwrap().push(seqs);
            assert!(!effects.touched.is_empty());
        }
        fn installed(&self, _: &Arc<Published>) {}
    }
    let outcomes = Arc::new(Outcomes::default());
    let store = Arc::new(MemorySnapshots::default());
    let (mut machine, _) =
        Machine::open(store, Arc::clone(&outcomes) as Arc<dyn Observer>).unwrap();
    apply(&mut machine, vec![put(1), blank(2), put(3)]).await;
    apply(&mut machine, vec![put(4)]).await;
    assert_eq!(*outcomes.0.lock().unwrap(), [vec![1, 3], vec![4]]);
}

/// A store without descriptors or room: so many times it cannot begin a snapshot.
#[derive(Debug)]
struct Short {
    store: MemorySnapshots,
    error: i32,
    refusals: std::sync::atomic::AtomicU32,
}

impl Short {
    const EIO: i32 = 5;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;

    fn machine(error: i32, refusals: u32) -> (Machine, StateReader) {
        let refusals = refusals.into();
        let store = Arc::new(Self { store: MemorySnapshots::default(), error, refusals });
        Machine::open(store, Arc::new(Diary::default())).unwrap()
    }
}

impl SnapshotStore for Short {
    fn create(&self) -> io::Result<Box<dyn crate::snapshot::SnapshotSink>> {
        use std::sync::atomic::Ordering::Relaxed;
        let refused = self.refusals.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        match refused {
            Ok(_) => Err(io::Error::from_raw_os_error(self.error)),
            Err(_) => self.store.create(),
        }
    }
    fn spool(&self) -> io::Result<Box<dyn crate::snapshot::SnapshotSink>> {
        self.store.spool()
    }
    fn current(&self) -> io::Result<Option<Snapshot>> {
        self.store.current()
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_a_shortage_prevents_is_written_when_it_has_passed() {
    for error in [Short::EMFILE, Short::ENOSPC] {
        let (mut machine, _) = Short::machine(error, 3);
        apply(&mut machine, vec![blank(0), member(1, 9)]).await;
        let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(built.meta.last_log_id, Some(log_id::<TypeConfig>(1, 0, 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_that_gives_up_during_a_shortage_is_no_progress_and_no_error() {
    let (mut machine, _) = Short::machine(Short::EMFILE, 2 * BUILD_TRIES);
    apply(&mut machine, vec![blank(0)]).await;
    let none = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(none.meta, SnapshotMeta::default());
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    let none = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(none.meta, SnapshotMeta::default());
    let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id::<TypeConfig>(1, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn an_installation_waits_for_the_end_of_a_shortage() {
    let (mut leader, _, _) = open(&MemorySnapshots::default());
    apply(&mut leader, vec![blank(0), member(1, 9)]).await;
    let built = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let (mut follower, reader) = Short::machine(Short::ENOSPC, 5 * BUILD_TRIES);
    follower.install_snapshot(&built.meta, built.snapshot).await.unwrap();
    assert_eq!(reader.load().last_applied, built.meta.last_log_id);
}

#[tokio::test(start_paused = true)]
async fn a_failing_device_is_no_shortage() {
    let (mut machine, _) = Short::machine(Short::EIO, 1);
    apply(&mut machine, vec![blank(0)]).await;
    let failed = machine.get_snapshot_builder().await.build_snapshot().await;
    assert!(failed.unwrap_err().to_string().contains("a snapshot cannot be written"));
}

#[tokio::test]
async fn an_entry_that_does_not_follow_is_not_applied() {
    let (mut machine, reader, diary) = open(&MemorySnapshots::default());
    apply(&mut machine, vec![blank(0)]).await;
    let entries = [blank(1), blank(3)].map(|entry| Ok((entry, None)));
    let refused = machine.apply(futures_util::stream::iter(entries)).await.unwrap_err().to_string();
    assert!(refused.contains("does not follow"), "{refused}");
    assert!(refused.contains("keep the data directories"), "{refused}");
    assert_eq!(reader.load().last_applied.map(|id| id.index), Some(0));
    assert_eq!(diary.pages(), [("applied", Some(0))], "nothing of it is seen");
}

#[test]
fn a_panic_while_an_entry_is_applied_is_an_error_that_names_the_entry() {
    let mut version = Published::default();
    version.apply_checked(blank(0)).unwrap();
    let refused = version.check_applying(blank(1), |_, entry| panic!("no row for {entry}"));
    let refused = refused.unwrap_err().to_string();
    let id = log_id::<TypeConfig>(1, 0, 1);
    let told = format!("log entry {id} cannot be applied: no row for ");
    assert!(refused.starts_with(&told), "{refused}");
    assert!(refused.contains("keep the data directories"), "{refused}");
    assert!(!panics::is_contained(), "the mark ends with the panic");
}

/// An entry with a duty and nothing else.
fn duty(index: u64, duty: Duty) -> Entry {
    let batch = Batch { duty: Some(duty), ..Batch::default() };
    Entry { log_id: log_id::<TypeConfig>(1, 0, index), payload: EntryPayload::Normal(batch) }
}

#[tokio::test]
async fn rules_that_this_version_does_not_know_are_not_applied() {
    let (mut machine, reader, _) = open(&MemorySnapshots::default());
    apply(&mut machine, vec![blank(0), duty(1, Duty::Level(LEVEL))]).await;
    assert_eq!(reader.load().state.level(), LEVEL);
    let above = duty(2, Duty::Level(LEVEL + 1));
    let refused = machine.apply(futures_util::stream::iter([Ok((above, None))])).await.unwrap_err();
    assert!(refused.to_string().contains("start a newer version"), "{refused}");

    let header = SnapshotRecord::Header(StateHeader::default());
    let read = |level| State::import([Ok(header.clone()), Ok(SnapshotRecord::Level(level))]);
    assert_eq!(read(LEVEL).unwrap().level(), LEVEL);
    let refused = read(LEVEL + 1).unwrap_err();
    assert!(refused.to_string().contains("start a newer version"), "{refused}");
}

#[test]
fn a_state_without_a_level_looks_as_it_did_before_there_were_levels() {
    let mut state = State::default();
    let hash = state.hash();
    state.apply(&Batch { duty: Some(Duty::Level(0)), ..Batch::default() });
    assert_eq!(state.hash(), hash);
    let records = |state: &State| {
        let mut count = 0;
        let mut sink = |_: SnapshotRecord<'_>| {
            count += 1;
            Ok(())
        };
        state.export(&mut sink).unwrap();
        count
    };
    assert_eq!(records(&state), 2, "the header and the later tables' indexes");
    state.apply(&Batch { duty: Some(Duty::Level(1)), ..Batch::default() });
    assert_ne!(state.hash(), hash);
    assert_eq!(records(&state), 3);
}
