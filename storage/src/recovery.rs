//! The way out when a cluster has lost its quorum for good: the data directory of one stopped server
//! becomes a new cluster of that server alone.
//!
//! ```text
//!   snapshot + whole log ── apply ──> state ──> DIR/recovered-N/snapshots
//!                                               DIR/recovered-N/log   (empty, begins behind it)
//!                                               DIR/recovered-N/mark
//!   identity: names part N, a new store and a new cluster    <── one atomic step, the last one
//! ```
//!
//! **The whole log is applied**, also what the server does not know to be committed: what was acknowledged
//! is on a majority, so it may be on this server only and be committed without this server knowing. The
//! price is that a write may take effect that was never acknowledged.
//!
//! **The old state is not touched.** Until the identity is replaced, the directory is what it was; from
//! then on it is the new one, and the old log and snapshots are still there.
//!
//! **The new cluster has another id**, and the directory another store id. So the servers of the old one,
//! should they come back, have nothing to say to it, and a copy of the old directory is not mistaken for
//! this server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::{EntryPayload, Membership};
use thiserror::Error;

use crate::command::{Duty, Work};
use crate::data_dir::{DataDir, DataDirError};
use crate::durable;
use crate::log_store::OpenError;
use crate::log_store::stopped::{self, StoppedLog};
use crate::machine::Published;
use crate::raft::{BootId, LogId, NodeId, Peer, Position, StoredMembership, TERM_MAX, Vote};
use crate::snapshot::{FileSnapshots, RecordReader, SnapshotStore};

#[cfg(test)]
mod tests;

/// Why a data directory cannot be shown or recovered. The text is for the operator.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The server never belonged to a cluster.
    #[error("{0}: this server has never belonged to a cluster, so there is nothing to recover")]
    NoCluster(PathBuf),
    /// The log does not begin where the snapshot ends.
    #[error(
        "{dir}: the log begins after entry {purged}, and the newest snapshot ends at {snapshot}: the entries between them are missing"
    )]
    Gap {
        /// The directory.
        dir: PathBuf,
        /// The last entry that was removed from the log.
        purged: u64,
        /// The last entry that the snapshot covers.
        snapshot: u64,
    },
    /// Nobody knows the server's addresses.
    #[error("{dir}: server {node} is not a member of the cluster in its log: it was removed")]
    NotAMember {
        /// The directory.
        dir: PathBuf,
        /// The server.
        node: NodeId,
    },
    /// The operating system or the disk refused.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A stopped server's data directory, which is locked until this is dropped.
#[derive(Debug)]
pub struct Survivor {
    dir: DataDir,
    log: StoppedLog,
    snapshots: FileSnapshots,
    report: Report,
}

/// What is in a data directory.
#[derive(Debug, Clone)]
pub struct Report {
    /// The directory.
    pub dir: PathBuf,
    /// The cluster it belongs to.
    pub cluster: String,
    /// The server's Raft id.
    pub node: NodeId,
    /// The directory's random id.
    pub store: String,
    /// The membership that is last in snapshot and log, committed or not.
    pub membership: StoredMembership,
    /// The vote.
    pub vote: Option<Vote>,
    /// The last entry of the log.
    pub last: Option<LogId>,
    /// The last entry that the server knows to be committed. A start applies all up to here.
    pub committed: Option<LogId>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<LogId>,
    /// What the log once held and does not hold now, in words.
    pub lost: Option<String>,
    /// Which entries the log has.
    pub history: History,
    /// What this server knows others to have held.
    pub log_ends: BTreeMap<NodeId, StoreLogEnd>,
}

/// Which entries a log has, as the last entry of each term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The last entry that is in the snapshot only.
    pub begin: Option<LogId>,
    /// The last entry of each term behind it.
    pub ends: Vec<LogId>,
}

impl History {
    fn push(&mut self, id: LogId) {
        match self.ends.last_mut() {
            Some(last) if last.leader_id == id.leader_id => *last = id,
            Some(_) | None => self.ends.push(id),
        }
    }

    /// The entry at an index, if the log goes back so far.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<LogId> {
        if self.begin.is_some_and(|begin| index <= begin.index) {
            return self.begin.filter(|begin| begin.index == index);
        }
        let end = self.ends.iter().find(|end| index <= end.index)?;
        Some(LogId::new(end.leader_id, index))
    }

    /// The first index up to `upto` at which two logs have different entries, as far as they go back. Terms do
    /// not fall, so it is also known of an entry that one has in its snapshot only that it is not of a later term
    /// than what follows.
    #[must_use]
    pub fn parts_from(&self, other: &Self, upto: u64) -> Option<u64> {
        let start = |history: &Self| history.begin.map_or(0, |begin| begin.index);
        let both = start(self).max(start(other));
        let differs = |index: &u64| match (self.at(*index), other.at(*index)) {
            (Some(one), Some(two)) => one != two,
            (None, _) | (_, None) => false,
        };
        if let Some(index) = (both..=upto).find(differs) {
            return Some(index);
        }
        let is_later = |ends: &Self, snapshot: &Self| {
            let (end, begin) = (ends.at(upto), snapshot.begin);
            begin.is_some_and(|begin| {
                upto < begin.index && end > Some(LogId::new(begin.leader_id, upto))
            })
        };
        (is_later(self, other) || is_later(other, self)).then_some(upto)
    }
}

/// What a server is known to have held, see [`LogEnd`](crate::command::LogEnd).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLogEnd {
    boot: BootId,
    /// Its data directory.
    pub store: String,
    /// How far its log reached, and the term in which that was found.
    pub upto: Option<(Position, u64)>,
}

impl StoreLogEnd {
    /// Of an unknown boot.
    #[must_use]
    pub fn new(store: String, upto: Position, term: u64) -> Self {
        Self { boot: BootId::default(), store, upto: Some((upto, term)) }
    }
}

impl Report {
    /// Whether its vote, or its last entry, is of a term that no election reaches.
    #[must_use]
    pub fn has_impossible_term(&self) -> bool {
        let terms =
            [self.vote.map(|vote| vote.leader_id().term), self.last.map(|id| id.leader_id.term)];
        terms.into_iter().flatten().any(|term| term > TERM_MAX)
    }

    /// The last entry that this server knows to be committed, in its log or in its snapshot.
    #[must_use]
    pub fn known_committed(&self) -> Option<LogId> {
        self.committed.max(self.snapshot)
    }

    /// The first index, as far as the logs go back, at which this server and another know different entries to be
    /// committed.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> Option<u64> {
        let (ours, theirs) = (self.known_committed()?, other.known_committed()?);
        self.history.parts_from(&other.history, ours.index.min(theirs.index))
    }

    /// How many entries the log has that the server does not know to be committed.
    #[must_use]
    pub fn beyond_committed(&self) -> u64 {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        index(self.last).saturating_sub(index(self.committed.max(self.snapshot)))
    }

    /// The server's entry in the membership.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.membership.nodes().find(|(id, _)| **id == self.node).map(|(_, peer)| peer)
    }

    /// The sets of voters each of which has to agree: one, or two while the membership changes.
    #[must_use]
    pub fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        self.membership.membership().get_joint_config().clone()
    }
}

/// What became of a recovery.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The new cluster's id.
    pub cluster: String,
    /// The last entry of the old log that was applied.
    pub applied: Option<LogId>,
    /// Where the new log and snapshots are.
    pub part: PathBuf,
    /// Where the old ones are.
    pub kept: Vec<PathBuf>,
}

impl Survivor {
    /// Looks at a data directory. Reads all of the log and the snapshot, and blocks while it does.
    ///
    /// # Errors
    /// See [`RecoveryError`]; among them that a server uses the directory.
    pub fn open(path: &Path) -> Result<Self, RecoveryError> {
        let dir = DataDir::open_stopped(path)?;
        let cluster = dir.cluster_id().ok_or_else(|| RecoveryError::NoCluster(path.to_owned()))?;
        let log = StoppedLog::open(&dir)?;
        let failed = |source| RecoveryError::Io { path: dir.snapshot_dir(), source };
        let snapshots = FileSnapshots::open(dir.snapshot_dir()).map_err(failed)?;
        let (snapshot, mut membership) = covered(&snapshots).map_err(failed)?;
        let mut log_ends = log_ends_in_snapshot(&snapshots).map_err(failed)?;
        let purged = log.purged;
        if purged.is_some_and(|purged| snapshot.is_none_or(|last| last.index < purged.index)) {
            return Err(RecoveryError::Gap {
                dir: path.to_owned(),
                purged: purged.map_or(0, |id| id.index),
                snapshot: snapshot.map_or(0, |id| id.index),
            });
        }
        let failed = |source| RecoveryError::Io { path: dir.log_dir(), source };
        let mut history = History { begin: log.purged, ends: Vec::new() };
        log.visit(None, |entry| {
            history.push(entry.log_id);
            if Some(entry.log_id) <= snapshot {
                return;
            }
            match entry.payload {
                EntryPayload::Membership(changed) => {
                    membership = StoredMembership::new(Some(entry.log_id), changed);
                }
                EntryPayload::Normal(batch) => note_log_ends(&mut log_ends, batch.duty),
                EntryPayload::Blank => {}
            }
        })
        .map_err(failed)?;
        let report = Report {
            dir: path.to_owned(),
            cluster,
            node: dir.node_id(),
            store: dir.store_id(),
            membership,
            vote: log.vote,
            last: log.last.max(snapshot),
            committed: log.committed,
            snapshot,
            lost: log.lost.clone().or(dir.condemned()?),
            history,
            log_ends,
        };
        Ok(Self { dir, log, snapshots, report })
    }

    /// What is in the directory.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Makes the directory a new cluster of this server alone: `fresh_store_id` and `fresh_cluster_id` are
    /// random, because nothing in this crate is. When this fails, or the power does, the directory is what
    /// it was.
    ///
    /// # Errors
    /// See [`RecoveryError`].
    pub fn found_new_cluster(
        self,
        fresh_store_id: String,
        fresh_cluster_id: String,
    ) -> Result<Recovered, RecoveryError> {
        let Self { dir, log, snapshots, report } = self;
        let node = report.node;
        let peer = report.peer().cloned();
        let peer =
            peer.ok_or_else(|| RecoveryError::NotAMember { dir: report.dir.clone(), node })?;
        let peer = Peer { store_id: fresh_store_id.clone(), ..peer };
        let failed = |source| RecoveryError::Io { path: report.dir.clone(), source };
        let mut version = Published::from_snapshot(&snapshots).map_err(failed)?;
        log.visit(version.last_applied, |entry| drop(version.apply(entry))).map_err(failed)?;
        let applied = version.last_applied;
        let kept = vec![dir.log_dir(), dir.snapshot_dir(), dir.mark_file()];

        let (end, vote) = first_of_new_cluster(&report);
        version.last_applied = Some(end);
        version.membership = alone(end, node, peer).map_err(failed)?;
        let part = dir.next_part();
        build_part(&part, version, end, vote).map_err(failed)?;
        durable::sync_dir(&report.dir).map_err(failed)?;
        dir.switch_to_next_part(fresh_store_id, fresh_cluster_id.clone())?;
        let part = part.path().to_owned();
        Ok(Recovered { cluster: fresh_cluster_id, applied, part, kept })
    }
}

/// The last entry that the current snapshot covers, and the membership there. The snapshot is sound.
fn covered(snapshots: &FileSnapshots) -> io::Result<(Option<LogId>, StoredMembership)> {
    let Some(snapshot) = snapshots.current()? else { return Ok(Default::default()) };
    let reader = RecordReader::new(io::BufReader::new(snapshot.open()?))?;
    let meta = reader.meta();
    Ok((meta.last_log_id, meta.last_membership.clone()))
}

/// What the snapshot says of how much servers held.
fn log_ends_in_snapshot(snapshots: &FileSnapshots) -> io::Result<BTreeMap<NodeId, StoreLogEnd>> {
    let version = Published::from_snapshot(snapshots)?;
    let rows = version.state.boots().map(|(id, row)| {
        (id, StoreLogEnd { boot: row.boot, store: row.store_id.clone(), upto: row.log_end })
    });
    Ok(rows.collect())
}

/// What an entry of the log says of it, as applying it would note it.
fn note_log_ends(log_ends: &mut BTreeMap<NodeId, StoreLogEnd>, duty: Option<Duty>) {
    match duty.and_then(Duty::into_work) {
        Some(Work::Booted(start)) => {
            let known = log_ends.get(&start.id).filter(|row| row.store == start.store_id);
            let upto = known.and_then(|row| row.upto);
            log_ends
                .insert(start.id, StoreLogEnd { boot: start.boot, store: start.store_id, upto });
        }
        Some(Work::LogEnds(all)) => {
            for one in all {
                if let Some(row) = log_ends.get_mut(&one.id).filter(|row| row.boot == one.boot) {
                    row.upto = row.upto.max(Some((one.upto, one.term)));
                }
            }
        }
        Some(Work::ExpireDue { .. } | Work::Reap { .. } | Work::Level(_)) | None => {}
    }
}

/// Where the new cluster begins: one entry, which makes the server its only member, in a term above
/// everything that this server has seen and that elections can have reached; and the vote that goes with it.
fn first_of_new_cluster(report: &Report) -> (LogId, Vote) {
    let seen =
        [report.vote.map(|vote| vote.leader_id().term), report.last.map(|id| id.leader_id.term)];
    // A forged term is not taken over: it would leave no room for the next election. The old log, which has
    // entries of it perhaps, stays behind.
    let seen = seen.into_iter().flatten().filter(|term| *term <= TERM_MAX).max().unwrap_or(0);
    let index = report.last.map_or(0, |last| last.index + 1);
    let leader = openraft::vote::leader_id_std::CommittedLeaderId::new(seen + 1);
    (LogId::new(leader, index), Vote::new(seen + 1, report.node))
}

fn alone(at: LogId, node: NodeId, peer: Peer) -> io::Result<StoredMembership> {
    let members = BTreeMap::from([(node, peer)]);
    let membership = Membership::new(vec![BTreeSet::from([node])], members);
    Ok(StoredMembership::new(Some(at), membership.map_err(io::Error::other)?))
}

/// Writes the new part to the end, and to the disk. Nothing refers to it yet.
fn build_part(
    part: &crate::data_dir::PartOfDir,
    version: Published,
    end: LogId,
    vote: Vote,
) -> io::Result<()> {
    match fs::remove_dir_all(part.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(part.path())?;
    let snapshots = FileSnapshots::open(part.snapshot_dir())?;
    version.into_snapshot(Arc::new(snapshots))?;
    stopped::begin_behind(end, vote, part)?;
    durable::sync_dir(part.path())
}
