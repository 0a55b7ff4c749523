//! Messages to server 2, which follows server 1 in term 5 and knows entries up to 6 of term 3 to be committed.

use openraft::entry::RaftEntry as _;
use openraft::raft::TransferLeaderRequest;
use quorate_storage::raft::{Entry, StoredMembership};

use super::*;

const LEADER: NodeId = 1;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}

/// Purged up to 2; then term 1 up to 3, term 3 up to 8.
fn known() -> Known {
    Known {
        id: 2,
        vote: Vote::new_committed(5, LEADER),
        last: 8,
        committed: Some(id(3, 6)),
        log_ids: LogIdListOf::<TypeConfig>::new(Some(id(1, 2)), [id(1, 3), id(3, 8)]),
    }
}

fn append(term: u64, previous: Option<LogId>, ids: &[LogId]) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(term, LEADER),
        prev_log_id: previous,
        entries: ids.iter().map(|id| Entry::new_blank(*id)).collect(),
        leader_commit: None,
    }
}

fn check(request: &Request) -> Checked {
    Plausible::new(&known(), LEADER).check(request)
}

fn appended(term: u64, previous: Option<LogId>, ids: &[LogId]) -> Checked {
    check(&Request::Append(append(term, previous, ids)))
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "what it is given is made for it")]
fn is_implausible(checked: Checked, part: &str) {
    let Err(Refusal::Implausible(text)) = &checked else { panic!("{checked:?}") };
    assert!(text.contains(part), "{text}");
}

#[test]
fn what_a_leader_sends_passes() {
    for (term, previous, ids) in [
        (5, None, vec![]),
        (5, None, vec![id(1, 0), id(1, 1), id(1, 2), id(1, 3), id(3, 4)]),
        (5, Some(id(1, 3)), vec![id(3, 4), id(3, 5)]),
        (5, Some(id(3, 8)), vec![id(5, 9), id(5, 10)]),
        // What is not committed may be replaced.
        (6, Some(id(3, 6)), vec![id(4, 7), id(6, 8)]),
        (6, Some(id(4, 7)), vec![]),
        (6, Some(id(6, 70_000)), vec![id(6, 70_001)]),
    ] {
        assert_eq!(appended(term, previous, &ids), Ok(()), "{term} {previous:?} {ids:?}");
    }
}

#[test]
fn terms_and_indexes_that_no_cluster_reaches_are_refused() {
    for term in [u64::MAX, 1 << 63, 5 + TERM_JUMP_MAX + 1] {
        is_implausible(appended(term, None, &[]), "this server is in term 5");
        let vote = VoteRequest::new(Vote::new(term, LEADER), None);
        is_implausible(check(&Request::Vote(vote.clone())), "this server is in term 5");
        is_implausible(check(&Request::PreVote(vote)), "this server is in term 5");
        let vote = Vote::new_committed(term, LEADER);
        let transfer = TransferLeaderRequest::new(vote, 2, None);
        is_implausible(check(&Request::TransferLeader(transfer)), "this server is in term 5");
        let snapshot =
            Plausible::new(&known(), LEADER).check_snapshot(&vote, &SnapshotMeta::default());
        is_implausible(snapshot, "this server is in term 5");
    }
    assert_eq!(appended(5 + TERM_JUMP_MAX, None, &[]), Ok(()));
    for index in [u64::MAX, 8 + INDEX_JUMP_MAX + 1] {
        is_implausible(appended(5, Some(id(5, index)), &[id(5, 0)]), "this log ends at 8");
        let mut commits = append(5, None, &[]);
        commits.leader_commit = Some(id(5, index));
        is_implausible(check(&Request::Append(commits)), "this log ends at 8");
        let vote = VoteRequest::new(Vote::new(6, LEADER), Some(id(5, index)));
        is_implausible(check(&Request::Vote(vote)), "this log ends at 8");
    }
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    is_implausible(appended(5, None, &[id(1, 1)]), "entry 1 where 0 follows");
    is_implausible(appended(5, Some(id(3, 8)), &[id(5, 8)]), "entry 8 where 9 follows");
    is_implausible(
        appended(5, Some(id(3, 8)), &[id(5, 9), id(5, 11)]),
        "entry 11 where 10 follows",
    );
    is_implausible(
        appended(5, Some(id(3, 8)), &[id(5, 9), id(4, 10)]),
        "the term decreases at entry 10",
    );
    is_implausible(appended(5, Some(id(3, 8)), &[id(2, 9)]), "the term decreases at entry 9");
    is_implausible(appended(5, Some(id(3, 8)), &[id(6, 9)]), "entry 9 is of term 6");
    is_implausible(appended(5, Some(id(6, 8)), &[]), "entry 8 is of term 6");
}

#[test]
fn nobody_speaks_for_another_server() {
    let speaks = |from, vote| {
        let append = AppendEntriesRequest { vote, ..append(6, None, &[]) };
        Plausible::new(&known(), from).check(&Request::Append(append))
    };
    is_implausible(speaks(3, Vote::new_committed(6, LEADER)), "it is sent in the name of server 1");
    is_implausible(speaks(2, Vote::new_committed(6, 2)), "it is sent in the name of server 2");
    is_implausible(speaks(LEADER, Vote::new(6, LEADER)), "was not elected");
    let vote = VoteRequest::new(Vote::new_committed(6, LEADER), None);
    is_implausible(check(&Request::Vote(vote)), "claims to lead already");
}

#[test]
fn what_is_committed_is_not_denied_by_a_leader() {
    let contradicts = |term, index| Err(Refusal::Contradicts(Position { term, index }));
    assert_eq!(appended(6, Some(id(4, 6)), &[]), contradicts(4, 6));
    assert_eq!(appended(6, Some(id(1, 5)), &[]), contradicts(1, 5));
    assert_eq!(appended(6, Some(id(1, 3)), &[id(4, 4)]), contradicts(4, 4));
    assert_eq!(appended(6, None, &[id(2, 0)]), contradicts(2, 0), "terms before the purged one");
    // A leader that was deposed may have other entries; openraft tells it of the higher vote.
    assert_eq!(appended(4, Some(id(4, 6)), &[]), Ok(()));
}

#[test]
fn a_snapshot_is_held_against_what_is_committed() {
    let snapshot = |last, membership| {
        let last_membership = StoredMembership::new(membership, Default::default());
        let meta = SnapshotMeta { last_log_id: last, last_membership };
        Plausible::new(&known(), LEADER).check_snapshot(&Vote::new_committed(6, LEADER), &meta)
    };
    assert_eq!(snapshot(None, None), Ok(()));
    assert_eq!(snapshot(Some(id(3, 5)), Some(id(1, 0))), Ok(()), "an old one");
    assert_eq!(snapshot(Some(id(6, 90)), Some(id(1, 0))), Ok(()));
    let contradicts = |term, index| Err(Refusal::Contradicts(Position { term, index }));
    assert_eq!(snapshot(Some(id(4, 6)), None), contradicts(4, 6));
    assert_eq!(snapshot(Some(id(2, 90)), None), contradicts(2, 90));
    is_implausible(snapshot(Some(id(7, 90)), None), "is of term 7");
    is_implausible(snapshot(Some(id(6, 90)), Some(id(6, 91))), "from behind its end");
}
