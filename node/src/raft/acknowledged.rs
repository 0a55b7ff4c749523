//! What each member has acknowledged to this leader, so that a member that loses it is noticed.
//!
//! A follower keeps the entries that it has acknowledged for as long as the leadership lasts, unless its disk
//! loses what was synced. openraft takes such a loss for a bug of its own: it ends the healthy leader (with
//! debug assertions) or continues with wrong numbers (without). Here the damaged member is treated as
//! unreachable, and the operator is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use quorate_storage::raft::{BootId, LogId, NodeId, Position, TypeConfig, Vote};

use super::protocol::DiskState;

/// Shared by the connections to all members; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<NodeId, Mark>>>);

/// How far a member has come in a leadership.
#[derive(Debug)]
struct Mark {
    vote: Vote,
    /// What each of its boots has acknowledged. `None` is a boot that was not known.
    entries: BTreeMap<Option<BootId>, LogId>,
    is_reported: bool,
}

/// The parts of an append that matter here: the request itself is gone when the response arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    vote: Vote,
    previous: Option<LogId>,
    last: Option<LogId>,
}

impl Sent {
    pub(super) fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        Self { vote: request.vote, previous, last }
    }
}

impl Acknowledged {
    /// Notes a response of one boot of `member`. Fails with a sentence if the response shows that the member
    /// has lost what it acknowledged.
    pub(super) fn note(
        &self,
        member: NodeId,
        boot: Option<BootId>,
        sent: Sent,
        answer: &AppendEntriesResponse<TypeConfig>,
    ) -> Result<(), String> {
        let mut marks = self.marks();
        let fresh = || Mark { vote: sent.vote, entries: BTreeMap::new(), is_reported: false };
        let mark = marks.entry(member).or_insert_with(fresh);
        if mark.vote != sent.vote {
            *mark = fresh();
        }
        match answer {
            AppendEntriesResponse::Success => mark.raise(boot, sent.last),
            AppendEntriesResponse::PartialSuccess(upto) => mark.raise(boot, *upto),
            AppendEntriesResponse::HigherVote(_) => {}
            AppendEntriesResponse::Conflict => return mark.conflict(member, sent),
        }
        Ok(())
    }

    /// Forgets a removed member: a server that later gets its id has acknowledged nothing.
    pub(super) fn forget(&self, member: NodeId) {
        self.marks().remove(&member);
    }

    /// Whether a member has lost what it acknowledged to the leader of this term.
    pub(super) fn is_damaged(&self, member: NodeId, term: u64) -> bool {
        let marks = self.marks();
        marks.get(&member).is_some_and(|mark| mark.is_reported && mark.vote.leader_id.term == term)
    }

    /// What earlier boots of `member` acknowledged to the leader of this term and the returning server lacks,
    /// as a sentence.
    pub(super) fn lacks(
        &self,
        member: NodeId,
        boot: BootId,
        term: u64,
        disk: &DiskState,
    ) -> Option<String> {
        let mut marks = self.marks();
        let mark = marks.get_mut(&member).filter(|mark| mark.vote.leader_id.term == term)?;
        // Without a known boot, the acknowledgement may be this boot's own.
        let is_earlier = |other: &Option<BootId>| other.is_some_and(|other| other != boot);
        let earlier = mark.entries.iter().filter(|(other, _)| is_earlier(other));
        let entry = earlier.map(|(_, entry)| *entry).max()?;
        let lacks = disk.lacks(entry.into(), term)?;
        mark.report(member, entry.index);
        Some(lacks)
    }

    /// What each process has acknowledged to the leader of this term.
    pub(super) fn all(&self, term: u64) -> Vec<(NodeId, BootId, LogId)> {
        let marks = self.marks();
        let marks = marks.iter().filter(|(_, mark)| mark.vote.leader_id.term == term);
        let known = marks.flat_map(|(id, mark)| {
            mark.entries.iter().filter_map(|(boot, entry)| Some((*id, (*boot)?, *entry)))
        });
        known.collect()
    }

    // A std lock: held to compare and set a few numbers.
    fn marks(&self) -> MutexGuard<'_, BTreeMap<NodeId, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskState {
    /// What a server that had acknowledged all this now lacks, as a sentence.
    pub(crate) fn lacks(&self, held: Position, term: u64) -> Option<String> {
        if self.last < Some(held) {
            let end =
                self.last.map_or_else(|| "is empty".to_owned(), |end| format!("ends at {end}"));
            return Some(format!("it held {held}, and its log {end}"));
        }
        let vote = self.term;
        (vote < term)
            .then(|| format!("it had voted in term {term}, and its last vote is of term {vote}"))
    }
}

impl Mark {
    fn raise(&mut self, boot: Option<BootId>, upto: Option<LogId>) {
        if let Some(upto) = upto {
            let entry = self.entries.entry(boot).or_insert(upto);
            *entry = upto.max(*entry);
        }
    }

    fn conflict(&mut self, member: NodeId, sent: Sent) -> Result<(), String> {
        let acknowledged = self.entries.values().copied().max();
        let has_lost = sent.previous.is_some() && sent.previous <= acknowledged;
        if !has_lost {
            return Ok(());
        }
        let lost = sent.previous.map_or(0, |entry| entry.index);
        let sentence = format!("server {member} has lost entry {lost}, which it had acknowledged");
        self.report(member, lost);
        Err(sentence)
    }

    fn report(&mut self, member: NodeId, entry: u64) {
        if !self.is_reported {
            self.is_reported = true;
            tracing::error!(
                member,
                entry,
                "a server has lost entries that it had acknowledged: its disk is damaged; remove it \
                 and add it again, empty, under a new id"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry as _;
    use quorate_storage::raft::Entry;

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
    }

    fn sent(term: u64, previous: u64, last: u64) -> Sent {
        let entries = (previous + 1..=last).map(|index| Entry::new_blank(id(term, index)));
        Sent::of(&AppendEntriesRequest {
            vote: Vote::new_committed(term, 1),
            prev_log_id: (previous > 0).then(|| id(term, previous)),
            entries: entries.collect(),
            leader_commit: None,
        })
    }

    const OLD: Option<BootId> = Some(BootId([1; 16]));
    const NEW: BootId = BootId([2; 16]);

    const SUCCESS: AppendEntriesResponse<TypeConfig> = AppendEntriesResponse::Success;
    const CONFLICT: AppendEntriesResponse<TypeConfig> = AppendEntriesResponse::Conflict;

    #[test]
    fn a_search_for_the_common_entry_is_no_loss() {
        let acknowledged = Acknowledged::default();
        for previous in [9, 4, 2] {
            acknowledged.note(2, OLD, sent(3, previous, previous), &CONFLICT).unwrap();
        }
        acknowledged.note(2, OLD, sent(3, 1, 5), &SUCCESS).unwrap();
        acknowledged.note(2, OLD, sent(3, 7, 9), &CONFLICT).unwrap();
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, OLD, sent(3, 0, 5), &SUCCESS).unwrap();
        acknowledged.note(3, OLD, sent(3, 5, 5), &CONFLICT).unwrap();
        let said = acknowledged.note(2, OLD, sent(3, 5, 6), &CONFLICT).unwrap_err();
        assert!(said.contains("server 2") && said.contains("entry 5"), "{said}");
    }

    #[test]
    fn a_new_server_under_the_id_of_a_removed_one_has_lost_nothing() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, OLD, sent(3, 0, 5), &SUCCESS).unwrap();
        acknowledged.note(2, OLD, sent(3, 5, 6), &CONFLICT).unwrap_err();
        assert!(acknowledged.is_damaged(2, 3) && !acknowledged.is_damaged(2, 4));
        acknowledged.forget(2);
        assert!(!acknowledged.is_damaged(2, 3));
        acknowledged.note(2, OLD, sent(3, 5, 6), &CONFLICT).unwrap();
    }

    #[test]
    fn a_part_counts_as_far_as_it_goes() {
        let acknowledged = Acknowledged::default();
        let part = AppendEntriesResponse::PartialSuccess(Some(id(3, 4)));
        acknowledged.note(2, OLD, sent(3, 2, 9), &part).unwrap();
        acknowledged.note(2, OLD, sent(3, 5, 9), &CONFLICT).unwrap();
        assert!(acknowledged.note(2, OLD, sent(3, 4, 9), &CONFLICT).is_err());
    }

    #[test]
    fn another_leadership_begins_anew() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, OLD, sent(3, 0, 5), &SUCCESS).unwrap();
        // Another leader may have truncated it in between.
        acknowledged.note(2, OLD, sent(5, 5, 6), &CONFLICT).unwrap();
    }

    fn disk(term: u64, last: u64) -> DiskState {
        DiskState { last: Some(Position { term, index: last }), term, ..DiskState::default() }
    }

    #[test]
    fn a_server_that_comes_back_with_less_than_an_earlier_life_acknowledged_is_told() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, OLD, sent(3, 0, 5), &SUCCESS).unwrap();
        let lacks = acknowledged.lacks(2, NEW, 3, &disk(3, 4)).unwrap();
        assert_eq!(lacks, "it held entry 5 of term 3, and its log ends at entry 4 of term 3");
        let lacks =
            acknowledged.lacks(2, NEW, 3, &DiskState { term: 3, ..DiskState::default() }).unwrap();
        assert_eq!(lacks, "it held entry 5 of term 3, and its log is empty");
        let older = DiskState { term: 2, ..disk(3, 5) };
        let lacks = acknowledged.lacks(2, NEW, 3, &older).unwrap();
        assert_eq!(lacks, "it had voted in term 3, and its last vote is of term 2");
        assert_eq!(acknowledged.lacks(2, NEW, 3, &disk(3, 5)), None);
        assert_eq!(acknowledged.lacks(2, NEW, 4, &disk(3, 4)), None, "another leadership");
        assert_eq!(acknowledged.lacks(1, NEW, 3, &disk(3, 4)), None, "another server");
    }

    #[test]
    fn what_a_life_acknowledged_itself_after_it_had_started_is_no_loss() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, OLD, sent(3, 0, 5), &SUCCESS).unwrap();
        acknowledged.note(2, Some(NEW), sent(3, 5, 9), &SUCCESS).unwrap();
        assert_eq!(acknowledged.lacks(2, NEW, 3, &disk(3, 5)), None);
        assert!(acknowledged.lacks(2, BootId([3; 16]), 3, &disk(3, 8)).is_some());
    }
}
