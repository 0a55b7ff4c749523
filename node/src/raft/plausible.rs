//! Which of Raft's messages openraft gets to see.
//!
//! openraft trusts its peers. It saves numbers that no cluster reaches. Entries that do not follow each
//! other, or that contradict what is committed, end the process with a panic, sometimes at every later start
//! too. The port has no authentication, and even an honest peer contradicts this server after its data
//! directory was set back. So every message is first compared with what this server knows about itself.
//!
//! A refusal is of one of two kinds. [`Refusal::Implausible`]: no server of this cluster can have sent the
//! message. [`Refusal::Contradicts`]: it comes from a leader with a valid vote, and denies an entry that this
//! server knows to be committed. In that case a majority of the other servers has lost data.
//!
//! What this server knows is read from openraft's metrics. openraft is asked for its list of terms only if a
//! message names entries before the committed one. Metrics may be a moment old, which matters little:
//! committed entries stay committed, and the limits are wide.

use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::type_config::alias::LogIdListOf;
use openraft::{RaftMetrics, RaftState};
use quorate_storage::raft::{LogId, NodeId, Position, SnapshotMeta, TERM_MAX, TypeConfig, Vote};

use super::protocol::{Refusal, Request};

/// A term may be this far above this server's own. A server that was away for years lags by less, and using
/// up all terms would take too many messages.
pub const TERM_JUMP_MAX: u64 = 1 << 32;
/// An index may be this far above the end of this server's log: a new server has an empty one.
pub const INDEX_JUMP_MAX: u64 = 1 << 48;

/// What a server knows of itself.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its Raft id.
    pub id: NodeId,
    /// Its vote.
    pub vote: Vote,
    /// Index of the last entry of its log.
    pub last: u64,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogId>,
    /// The terms of its entries, as far back as it has looked.
    pub log_ids: LogIdListOf<TypeConfig>,
}

impl Known {
    /// From the metrics alone, which do not have the terms of entries before the committed one.
    #[must_use]
    pub fn of(metrics: &RaftMetrics<TypeConfig>) -> Self {
        Self {
            id: metrics.id,
            vote: metrics.vote,
            last: metrics.last_log_index.unwrap_or(0),
            committed: metrics.local_committed,
            log_ids: LogIdListOf::<TypeConfig>::new(metrics.local_committed, []),
        }
    }

    /// Everything.
    #[must_use]
    pub fn all_of(id: NodeId, state: &RaftState<TypeConfig>) -> Self {
        Self {
            id,
            vote: *state.vote_ref(),
            last: state.log_ids.last().map_or(0, |last| last.index),
            committed: state.local_committed().copied(),
            log_ids: state.log_ids.clone(),
        }
    }

    /// Whether a message that begins at this place names entries before the committed one.
    #[must_use]
    pub fn is_behind(&self, first: Option<LogId>) -> bool {
        let committed = self.committed.map_or(0, |committed| committed.index);
        first.is_some_and(|first| first.index < committed)
    }
}

/// The first entry that a request names, of those that openraft compares with its own.
#[must_use]
pub fn first_named(request: &Request) -> Option<LogId> {
    let Request::Append(append) = request else { return None };
    append.prev_log_id.or_else(|| append.entries.first().map(|entry| entry.log_id))
}

/// Compares messages of one server with what this one knows.
#[derive(Debug)]
pub struct Plausible<'a> {
    known: &'a Known,
    /// Who sends the message.
    from: NodeId,
}

type Checked = Result<(), Refusal>;

impl<'a> Plausible<'a> {
    /// Compares messages of the server `from` with this.
    #[must_use]
    pub fn new(known: &'a Known, from: NodeId) -> Self {
        Self { known, from }
    }

    /// Whether openraft may see a request.
    ///
    /// # Errors
    /// See the module.
    pub fn check(&self, request: &Request) -> Checked {
        match request {
            Request::Append(append) => self.append(append),
            Request::Vote(vote) | Request::PreVote(vote) => self.candidate(vote),
            Request::TransferLeader(transfer) => {
                self.leader(transfer.from_leader())?;
                self.position(transfer.last_log_id(), transfer.from_leader())
            }
            Request::Forward(_)
            | Request::ReadIndex
            | Request::Hello(_)
            | Request::Join(_)
            | Request::Remove(_)
            | Request::HandOver(_)
            | Request::Progress
            | Request::RecordBoot(_)
            | Request::WhoAreYou
            | Request::StateHash { .. }
            | Request::StateHashes { .. } => Ok(()),
        }
    }

    /// The same of a snapshot.
    ///
    /// # Errors
    /// See the module.
    pub fn check_snapshot(&self, vote: &Vote, meta: &SnapshotMeta) -> Checked {
        self.leader(vote)?;
        self.position(meta.last_log_id.as_ref(), vote)?;
        if *meta.last_membership.log_id() > meta.last_log_id {
            return Err(implausible("a snapshot has a membership from behind its end"));
        }
        let Some(last) = meta.last_log_id else { return Ok(()) };
        let is_older = self.known.committed.is_some_and(|committed| {
            last.index > committed.index && last.leader_id < committed.leader_id
        });
        if is_older && self.is_current(vote) {
            return Err(Refusal::Contradicts(last.into()));
        }
        self.committed_entry(last, vote)
    }

    fn append(&self, append: &AppendEntriesRequest<TypeConfig>) -> Checked {
        let vote = &append.vote;
        self.leader(vote)?;
        self.position(append.leader_commit.as_ref(), vote)?;
        self.position(append.prev_log_id.as_ref(), vote)?;
        let mut previous = append.prev_log_id;
        for entry in &append.entries {
            let id = entry.log_id;
            // Cannot overflow: both are bounded.
            let expected = previous.map_or(0, |previous| previous.index + 1);
            if id.index != expected {
                return Err(implausible(format!("entry {} where {expected} follows", id.index)));
            }
            if previous.is_some_and(|previous| id.leader_id < previous.leader_id) {
                return Err(implausible(format!("the term decreases at entry {}", id.index)));
            }
            self.position(Some(&id), vote)?;
            previous = Some(id);
        }
        let entries = append.entries.iter().map(|entry| entry.log_id);
        append
            .prev_log_id
            .into_iter()
            .chain(entries)
            .try_for_each(|id| self.committed_entry(id, vote))
    }

    fn candidate(&self, request: &VoteRequest<TypeConfig>) -> Checked {
        self.vote(&request.vote)?;
        if request.vote.committed {
            return Err(implausible("the candidate claims to lead already"));
        }
        self.position(request.last_log_id.as_ref(), &request.vote)
    }

    fn leader(&self, vote: &Vote) -> Checked {
        self.vote(vote)?;
        if vote.committed { Ok(()) } else { Err(implausible("the leader was not elected")) }
    }

    /// Leaders and candidates speak for themselves. A message in which this server leads would have it follow
    /// itself, which openraft cannot handle.
    fn vote(&self, vote: &Vote) -> Checked {
        let leader = vote.leader_id;
        if leader.voted_for != self.from || leader.voted_for == self.known.id {
            return Err(implausible(format!(
                "it is sent in the name of server {}",
                leader.voted_for
            )));
        }
        term(leader.term, self.known.vote.leader_id.term)
    }

    /// A place in the log, as the holder of a vote may name it.
    fn position(&self, id: Option<&LogId>, vote: &Vote) -> Checked {
        let Some(id) = id else { return Ok(()) };
        let (own, vote) = (self.known.last, vote.leader_id.term);
        if id.leader_id.term > vote {
            let text = format!(
                "entry {} is of term {}, the vote of term {vote}",
                id.index, id.leader_id.term
            );
            return Err(implausible(text));
        }
        if id.index.saturating_sub(own) > INDEX_JUMP_MAX {
            return Err(implausible(format!("entry {}, and this log ends at {own}", id.index)));
        }
        Ok(())
    }

    /// A leader has every committed entry. A sender whose vote is lower than this server's no longer leads
    /// and may have other entries; openraft tells it so.
    fn committed_entry(&self, id: LogId, vote: &Vote) -> Checked {
        let Some(committed) = self.known.committed else { return Ok(()) };
        if id.index > committed.index || !self.is_current(vote) {
            return Ok(());
        }
        let log_ids = &self.known.log_ids;
        let contradicts = match log_ids.get(id.index) {
            Some(own) => own != id,
            // It is only in the snapshot. Terms do not fall.
            None => {
                Some(id.leader_id) > log_ids.purged().or(Some(&committed)).map(|end| end.leader_id)
            }
        };
        if contradicts { Err(Refusal::Contradicts(id.into())) } else { Ok(()) }
    }

    fn is_current(&self, vote: &Vote) -> bool {
        *vote >= self.known.vote
    }
}

/// Whether a term that another server names is one that elections can have reached.
///
/// # Errors
/// [`Refusal::Implausible`] if it is not.
pub fn term(term: u64, own: u64) -> Checked {
    if term > TERM_MAX || term.saturating_sub(own) > TERM_JUMP_MAX {
        return Err(implausible(format!("term {term}, and this server is in term {own}")));
    }
    Ok(())
}

fn implausible(what: impl Into<String>) -> Refusal {
    Refusal::Implausible(what.into())
}

/// The error of a server that ends because the leader denies an entry that this server knows to be committed.
#[must_use]
pub fn contradiction(theirs: Position, committed: Position) -> String {
    format!(
        "the cluster no longer has entries that this server knows to be committed (up to index {} of term {}): \
         its leader has {theirs} instead. The data directories of the other servers were set back or replaced, \
         and what was acknowledged may be in this server's directory only. This server must not follow them: \
         keep this data directory, stop the others, and see `quorate recover`",
        committed.index, committed.term
    )
}

#[cfg(test)]
mod tests;
