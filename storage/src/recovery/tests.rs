use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use tempfile::TempDir;

use super::*;
use crate::command::{Batch, Boot, Command, Duty, KvPutMode, LogEnd, Part};
use crate::log_store::LogStore;
use crate::raft::{Entry, TypeConfig};

const NODE: NodeId = 2;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}

fn put(term: u64, index: u64) -> Entry {
    let put = Command::KvPut {
        key: format!("key/{index}").into(),
        value: vec![7; 10].into(),
        flags: 0,
        mode: KvPutMode::Set,
    };
    let part =
        Part { origin: 1, incarnation: 1, answered_through: 0, commands: vec![(index, put)] };
    let batch = Batch { parts: vec![part], ..Batch::default() };
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(batch) }
}

fn founding() -> Entry {
    let peer = |id: NodeId| Peer {
        name: format!("n{id}"),
        rpc_addr: format!("10.0.0.{id}:8300"),
        store_id: format!("store-{id}"),
        ..Peer::default()
    };
    let members: BTreeMap<_, _> = (1..=3).map(|id| (id, peer(id))).collect();
    let voters = BTreeSet::from([1, 2, 3]);
    let membership = Membership::new(vec![voters], members).unwrap();
    Entry { log_id: id(1, 0), payload: EntryPayload::Membership(membership) }
}

/// The directory of server 2 of three: entries up to `last`, of which it knows `committed` to be committed,
/// and a snapshot up to `snapshot`.
async fn stopped_server(last: u64, committed: u64, snapshot: Option<u64>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let data = DataDir::open(dir.path(), NODE, "store-2".to_owned()).unwrap();
    data.adopt_cluster("old").unwrap();
    let mut log = LogStore::open(&data).unwrap();
    log.save_vote(&Vote::new(4, 3)).await.unwrap();
    let entries: Vec<_> = [founding()].into_iter().chain((1..=last).map(|i| put(3, i))).collect();
    let (done, durable) = TypeConfig::oneshot();
    log.append(entries.clone(), IOFlushed::signal(done)).await.unwrap();
    durable.await.unwrap().unwrap();
    log.save_committed(Some(id(3, committed))).await.unwrap();
    if let Some(snapshot) = snapshot {
        let mut version = Published::default();
        for entry in entries.into_iter().take(usize::try_from(snapshot).unwrap() + 1) {
            drop(version.apply(entry));
        }
        let store = FileSnapshots::open(data.snapshot_dir()).unwrap();
        version.into_snapshot(Arc::new(store)).unwrap();
        log.purge(id(3, snapshot / 2)).await.unwrap();
    }
    log.monitor().close().await.unwrap();
    dir
}

fn recover(dir: &TempDir) -> Result<Recovered, RecoveryError> {
    let survivor = Survivor::open(dir.path())?;
    survivor.found_new_cluster("new-store".to_owned(), "new-cluster".to_owned())
}

/// What a server would start from, with all of its log applied.
async fn started(dir: &TempDir) -> (DataDir, Published, Option<LogId>, Option<Vote>) {
    let data = DataDir::open(dir.path(), NODE, "unused".to_owned()).unwrap();
    let mut log = LogStore::open(&data).unwrap();
    let snapshots = FileSnapshots::open(data.snapshot_dir()).unwrap();
    let mut version = Published::from_snapshot(&snapshots).unwrap();
    let state = log.get_log_state().await.unwrap();
    let mut reader = log.get_log_reader().await;
    let begin = version.last_applied.map_or(0, |id| id.index + 1);
    for entry in reader.try_get_log_entries(begin..).await.unwrap() {
        drop(version.apply(entry));
    }
    let vote = reader.read_vote().await.unwrap();
    log.monitor().close().await.unwrap();
    (data, version, state.last_log_id, vote)
}

#[tokio::test]
async fn a_report_tells_what_is_in_the_directory_and_changes_nothing() {
    for snapshot in [None, Some(10)] {
        let dir = stopped_server(20, 15, snapshot).await;
        for _ in 0..2 {
            let survivor = Survivor::open(dir.path()).unwrap();
            let report = survivor.report();
            assert_eq!((report.cluster.as_str(), report.node), ("old", NODE));
            assert_eq!((report.last, report.committed), (Some(id(3, 20)), Some(id(3, 15))));
            assert_eq!(report.snapshot, snapshot.map(|index| id(3, index)));
            assert_eq!((report.vote, report.beyond_committed()), (Some(Vote::new(4, 3)), 5));
            assert_eq!(report.peer().unwrap().rpc_addr, "10.0.0.2:8300");
            assert_eq!(report.voter_sets(), [BTreeSet::from([1, 2, 3])]);
            assert_eq!(report.lost, None);
        }
        let (data, version, last, _) = started(&dir).await;
        assert_eq!((data.cluster_id().as_deref(), last), (Some("old"), Some(id(3, 20))));
        assert_eq!(data.boots(), 2, "inspecting is no boot");
        assert_eq!(version.membership.voter_ids().count(), 3);
    }
}

#[tokio::test]
async fn the_whole_log_is_in_the_new_cluster_and_its_only_member_is_the_survivor() {
    for snapshot in [None, Some(10), Some(20)] {
        let dir = stopped_server(20, 15, snapshot).await;
        let (_, before, ..) = started(&dir).await;
        let recovered = recover(&dir).unwrap();
        assert_eq!(recovered.applied, Some(id(3, 20)));
        assert!(recovered.kept.iter().all(|path| path.exists()));

        let (data, version, last, vote) = started(&dir).await;
        assert_eq!(data.cluster_id().as_deref(), Some("new-cluster"));
        assert_eq!((data.store_id().as_str(), data.boots()), ("new-store", 3));
        assert_eq!(last, Some(id(5, 21)), "above every term that was seen");
        assert_eq!(vote, Some(Vote::new(5, NODE)));
        assert_eq!(version.state.hash(), before.state.hash());
        assert!(version.state.key("key/20").is_some());
        assert_eq!(version.membership.voter_ids().collect::<Vec<_>>(), [NODE]);
        let peers: Vec<_> = version.membership.nodes().map(|(_, peer)| peer.clone()).collect();
        assert_eq!(peers.len(), 1);
        assert_eq!((peers[0].store_id.as_str(), peers[0].name.as_str()), ("new-store", "n2"));
    }
}

#[tokio::test]
async fn a_directory_can_be_recovered_again() {
    let dir = stopped_server(20, 20, None).await;
    recover(&dir).unwrap();
    let again = recover(&dir).unwrap();
    assert_eq!(again.applied, Some(id(5, 21)));
    assert!(again.part.ends_with("recovered-2") && again.part.exists());
    let (_, version, last, _) = started(&dir).await;
    assert_eq!(last, Some(id(6, 22)));
    assert!(version.state.key("key/20").is_some());
}

#[tokio::test]
async fn what_was_cut_short_leaves_the_old_state() {
    let dir = stopped_server(20, 20, None).await;
    // All of it but the last step, and half of an identity beside the true one.
    let (part, end) = {
        let survivor = Survivor::open(dir.path()).unwrap();
        let mut version = Published::from_snapshot(&survivor.snapshots).unwrap();
        survivor.log.visit(None, |entry| drop(version.apply(entry))).unwrap();
        let (end, vote) = first_of_new_cluster(&survivor.report);
        let part = survivor.dir.next_part();
        build_part(&part, version, end, vote).unwrap();
        (part, end)
    };
    fs::write(part.log_dir().join("garbage"), "x").unwrap();
    fs::write(dir.path().join("identity.tmp"), "x").unwrap();
    let (data, _, last, _) = started(&dir).await;
    assert_eq!((data.cluster_id().as_deref(), last), (Some("old"), Some(id(3, 20))));
    drop(data);

    recover(&dir).unwrap();
    let (data, version, last, _) = started(&dir).await;
    assert_eq!((data.cluster_id().as_deref(), last), (Some("new-cluster"), Some(end)));
    assert!(version.state.key("key/20").is_some());
}

#[tokio::test]
async fn what_cannot_be_recovered_is_refused_with_a_sentence() {
    let refused = |dir: &Path| Survivor::open(dir).map(drop).unwrap_err().to_string();
    let empty = TempDir::new().unwrap();
    assert!(refused(empty.path()).contains("not a server's data directory"));
    assert!(refused(&empty.path().join("absent")).contains("not a server's data directory"));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is created");

    let alone = TempDir::new().unwrap();
    drop(DataDir::open(alone.path(), NODE, "store".to_owned()).unwrap());
    assert!(refused(alone.path()).contains("never belonged to a cluster"));

    let dir = stopped_server(20, 20, Some(10)).await;
    let running = DataDir::open(dir.path(), NODE, "unused".to_owned()).unwrap();
    assert!(refused(dir.path()).contains("another process is using this data directory"));
    let snapshots = running.snapshot_dir();
    drop(running);
    fs::remove_dir_all(snapshots).unwrap();
    assert!(refused(dir.path()).contains("the entries between them are missing"));
}

#[tokio::test]
async fn a_log_that_lacks_something_is_shown_with_what_is_missing() {
    let dir = stopped_server(20, 20, None).await;
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    let survivor = Survivor::open(dir.path()).unwrap();
    let lost = survivor.report().lost.clone().unwrap();
    assert!(lost.contains("it had saved the vote"), "{lost}");
    drop(survivor);
    fs::remove_file(dir.path().join("mark")).unwrap();
    let survivor = Survivor::open(dir.path()).unwrap();
    assert!(survivor.report().lost.as_ref().unwrap().contains("high-water mark"));
    let node = survivor.found_new_cluster("s".to_owned(), "c".to_owned()).unwrap_err();
    assert!(matches!(node, RecoveryError::NotAMember { node: NODE, .. }), "{node}");
}

#[tokio::test]
async fn a_vote_of_a_term_that_no_election_reaches_is_not_taken_over() {
    let dir = stopped_server(20, 15, None).await;
    {
        let data = DataDir::open(dir.path(), NODE, "unused".to_owned()).unwrap();
        let mut log = LogStore::open(&data).unwrap();
        log.save_vote(&Vote::new(u64::MAX, 3)).await.unwrap();
        log.monitor().close().await.unwrap();
    }
    assert!(Survivor::open(dir.path()).unwrap().report().has_impossible_term());
    recover(&dir).unwrap();
    let (_, version, last, vote) = started(&dir).await;
    assert_eq!(version.last_applied, Some(id(4, 21)), "behind everything that the log held");
    assert_eq!((last, vote), (Some(id(4, 21)), Some(Vote::new(4, NODE))));
    assert!(!Survivor::open(dir.path()).unwrap().report().has_impossible_term());
}

#[tokio::test]
async fn a_report_tells_what_the_log_has_and_what_others_held() {
    for snapshot in [None, Some(10)] {
        let dir = stopped_server(20, 15, snapshot).await;
        let survivor = Survivor::open(dir.path()).unwrap();
        let History { begin, ends } = &survivor.report().history;
        assert_eq!(*begin, snapshot.map(|snapshot| id(3, snapshot / 2)));
        assert_eq!(ends.last(), Some(&id(3, 20)));
    }
    let mut log_ends = BTreeMap::new();
    let (old, new) = (BootId([1; 16]), BootId([2; 16]));
    let start = |boot| {
        let start = Boot { id: 1, boot, store_id: "s".to_owned(), ..Boot::default() };
        Some(Duty::Booted(Box::new(start)))
    };
    let upto = Position { term: 3, index: 9 };
    let note = |boot| Some(Duty::LogEnds(vec![LogEnd { id: 1, boot, upto, term: 4 }]));
    note_log_ends(&mut log_ends, start(old));
    note_log_ends(&mut log_ends, note(new));
    assert_eq!(log_ends[&1].upto, None, "another boot");
    note_log_ends(&mut log_ends, note(old));
    note_log_ends(&mut log_ends, start(new));
    assert_eq!(
        log_ends[&1],
        StoreLogEnd { boot: new, store: "s".to_owned(), upto: Some((upto, 4)) }
    );
}

#[test]
fn logs_part_where_their_entries_differ() {
    let history = |begin, ends: &[LogId]| History { begin, ends: ends.to_vec() };
    let kept = history(None, &[id(1, 40), id(3, 112)]);
    let set_back = history(None, &[id(1, 40), id(3, 50), id(15, 72)]);
    assert_eq!(kept.parts_from(&set_back, 72), Some(51));
    assert_eq!(set_back.parts_from(&kept, 72), Some(51));
    assert_eq!(kept.parts_from(&set_back, 50), None);
    assert_eq!(kept.parts_from(&kept, 112), None);
    // Only the snapshots have what parts them.
    let compacted = history(Some(id(3, 100)), &[id(3, 112)]);
    assert_eq!(compacted.parts_from(&set_back, 72), Some(72));
    assert_eq!(set_back.parts_from(&compacted, 72), Some(72));
    assert_eq!(compacted.parts_from(&kept, 112), None);
    assert_eq!(compacted.parts_from(&history(None, &[id(1, 40), id(3, 50)]), 50), None);
}
