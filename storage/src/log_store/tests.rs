//! Tests of the log store: openraft's own suite, restarts, damage, limits and kill -9.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use tempfile::TempDir;

use super::*;
use crate::machine::{Machine, Observer, Published};
use crate::snapshot::MemorySnapshots;
use crate::state::Effects;

mod damage;
mod kill;
mod restart;
mod tail;

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: &Arc<Published>, _: Effects) {}
    fn installed(&self, _: &Arc<Published>) {}
}

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let (machine, _) =
            Machine::open(Arc::new(MemorySnapshots::default()), Arc::new(Nobody)).unwrap();
        let machine = machine.taking_gaps();
        let store = open(&dir);
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_storage_suite_passes() {
    // Its entries are blank or memberships: it needs the machine, but not the state's apply.
    Suite::test_all(Stores).await.unwrap();
}

/// A store in a directory of its own.
fn open(dir: &TempDir) -> LogStore {
    try_open(dir).unwrap()
}

fn try_open(dir: &TempDir) -> Result<LogStore, OpenError> {
    LogStore::open(&data_dir(dir))
}

fn data_dir(dir: &TempDir) -> DataDir {
    DataDir::open(dir.path().join("data"), 1, "store".to_owned()).unwrap()
}

fn id(term: u64, index: u64) -> LogId {
    openraft::testing::log_id::<TypeConfig>(term, 0, index)
}

fn vote(term: u64) -> Vote {
    Vote::new(term, 0)
}

fn blank(term: u64, index: u64) -> Entry {
    openraft::testing::blank_ent::<TypeConfig>(term, 0, index)
}

/// An entry of about so many bytes.
fn sized(index: u64, bytes: usize) -> Entry {
    use crate::command::{Batch, Command, KvPutMode, Part};
    let put = Command::KvPut {
        key: "key".into(),
        value: vec![u8::try_from(index % 251).unwrap(); bytes].into(),
        flags: index,
        mode: KvPutMode::Set,
    };
    let part =
        Part { origin: 1, incarnation: 1, answered_through: 0, commands: vec![(index, put)] };
    let batch = Batch { parts: vec![part], ..Batch::default() };
    Entry { log_id: id(1, index), payload: openraft::EntryPayload::Normal(batch) }
}

/// Appends and waits until the entries are durable.
async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
    append_later(store, entries).await?.await.unwrap()
}

/// Appends; what is returned resolves when the entries are durable.
async fn append_later(
    store: &mut LogStore,
    entries: impl IntoIterator<Item = Entry>,
) -> io::Result<OneshotReceiverOf<TypeConfig, io::Result<()>>> {
    let (done, durable) = TypeConfig::oneshot();
    let entries: Vec<_> = entries.into_iter().collect();
    store.append(entries, IOFlushed::signal(done)).await?;
    Ok(durable)
}

async fn all(store: &mut LogStore) -> Vec<Entry> {
    store.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

async fn indexes(store: &mut LogStore) -> Vec<u64> {
    all(store).await.iter().map(|entry| entry.log_id.index).collect()
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("after ten seconds still not so: {what}");
}
