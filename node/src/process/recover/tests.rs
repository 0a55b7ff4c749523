use std::collections::BTreeMap;

use openraft::Membership;
use quorate_storage::raft::{Peer, StoredMembership, Vote};
use quorate_storage::recovery::{History, StoreLogEnd};

use super::*;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}

fn report(node: NodeId, voters: u64, last: LogId) -> Report {
    let peer = |id: NodeId| Peer {
        name: format!("n{id}"),
        rpc_addr: format!("10.0.0.{id}:8300"),
        ..Peer::default()
    };
    let members: BTreeMap<_, _> = (1..=voters).map(|id| (id, peer(id))).collect();
    let membership = Membership::new(vec![(1..=voters).collect()], members).unwrap();
    Report {
        dir: format!("/data/n{node}").into(),
        cluster: "c".to_owned(),
        node,
        store: format!("store-{node}"),
        membership: StoredMembership::new(Some(id(1, 0)), membership),
        vote: None,
        last: Some(last),
        committed: Some(id(1, 5)),
        snapshot: None,
        lost: None,
        history: History { begin: None, ends: vec![last] },
        log_ends: BTreeMap::new(),
    }
}

fn advice(reports: &[Report]) -> Result<Advice, String> {
    Advice::on(&reports.iter().collect::<Vec<_>>())
}

#[test]
fn the_log_with_the_latest_term_and_then_the_latest_entry_is_taken() {
    let reports = [report(1, 5, id(2, 90)), report(2, 5, id(3, 20)), report(3, 5, id(3, 10))];
    let reports = &reports[..2];
    let advice = advice(reports).unwrap();
    assert_eq!((advice.best, advice.objection.clone()), (1, None));
    let text = advice.text(&reports.iter().collect::<Vec<_>>());
    assert!(text.contains("Take /data/n2 (server 2)"), "{text}");
    assert!(text.contains("(server 3, server 4, server 5)"), "{text}");
    assert!(text.contains("15 that this server does not know to be committed"), "{text}");
}

#[test]
fn what_may_be_missing_depends_on_how_many_are_here() {
    assert!(!advice(&[report(1, 3, id(2, 9))]).unwrap().is_complete);
    assert!(!advice(&[report(1, 5, id(2, 9)), report(2, 5, id(2, 9))]).unwrap().is_complete);
    // Two of four: every three have one of them.
    let half = [report(1, 4, id(2, 9)), report(2, 4, id(2, 9))];
    let advice = advice(&half).unwrap();
    assert!(advice.is_complete && advice.objection.is_none());
    let text = advice.text(&half.iter().collect::<Vec<_>>());
    assert!(text.contains("Nothing that was acknowledged is missing"), "{text}");
}

#[test]
fn a_majority_needs_no_recovery_unless_its_logs_are_damaged() {
    let mut two = [report(1, 3, id(2, 9)), report(2, 3, id(2, 8))];
    assert!(advice(&two).unwrap().objection.unwrap().contains("start them first"));
    two[1].lost = Some("the end".to_owned());
    assert_eq!(advice(&two).unwrap().objection, None);
    two[0].lost = Some("the middle".to_owned());
    assert!(advice(&two).unwrap().objection.unwrap().contains("is incomplete: the middle"));
}

#[test]
fn directories_that_do_not_belong_together_are_refused() {
    assert!(advice(&[]).is_err());
    let mut two = [report(1, 5, id(2, 9)), report(2, 5, id(2, 8))];
    two[1].cluster = "another".to_owned();
    assert!(advice(&two).unwrap_err().contains("different clusters"));
    let twice = [report(1, 5, id(2, 9)), report(1, 5, id(2, 8))];
    assert!(advice(&twice).unwrap_err().contains("of one server"));
}

#[test]
fn the_table_shows_everything() {
    let reports = [report(1, 3, id(2, 9)), report(2, 3, id(4, 8))];
    let table = table(&reports.iter().collect::<Vec<_>>()).to_string();
    for shown in ["/data/n2", "2 (n2)", "store-1", "3 n3 at 10.0.0.3:8300", "index 8 of term 4"] {
        assert!(table.contains(shown), "{shown} is not in\n{table}");
    }
}

#[test]
fn committed_entries_that_conflict_are_reported_and_nothing_is_recommended() {
    let committed = |node, last: LogId| Report { committed: Some(last), ..report(node, 3, last) };
    let mut three = [committed(1, id(15, 72)), committed(2, id(15, 72)), committed(3, id(3, 112))];
    for report in &mut three[..2] {
        report.history.ends.insert(0, id(3, 50));
    }
    let text = conflict(&three.iter().collect::<Vec<_>>()).unwrap();
    assert!(text.contains("CONFLICT, from index 51 on"), "{text}");
    assert!(text.contains("(server 2) knows entries up to index 72 of term 15"), "{text}");
    assert!(text.contains("(server 3) knows entries up to index 112 of term 3"), "{text}");
    assert!(!text.contains("Take") && !text.contains("Nothing that was acknowledged"), "{text}");
    assert_eq!(conflict(&three[..2].iter().collect::<Vec<_>>()), None);
    // What is not committed may differ.
    three[2].committed = Some(id(3, 50));
    assert_eq!(conflict(&three.iter().collect::<Vec<_>>()), None);
}

#[test]
fn a_directory_that_was_set_back_does_not_count_for_a_majority() {
    let mut two = [report(1, 3, id(2, 9)), report(2, 3, id(2, 30))];
    for report in &mut two {
        report.vote = Some(Vote::new(2, 1));
    }
    note_what_was_lost(&mut two);
    assert!(two.iter().all(|report| report.lost.is_none()));
    let held = StoreLogEnd::new("store-1".to_owned(), id(2, 30).into(), 2);
    two[1].log_ends.insert(1, held);
    note_what_was_lost(&mut two);
    let lost = two[0].lost.as_ref().unwrap();
    assert!(
        lost.contains(
            "replaced by an older copy: it held entry 30 of term 2, and its log ends at entry 9"
        ),
        "{lost}"
    );
    assert!(lost.contains("according to server 2"), "{lost}");
    assert_eq!(advice(&two).unwrap().objection, None);
    two[1].vote = Some(Vote::new(u64::MAX, 1));
    note_what_was_lost(&mut two);
    assert!(two[1].lost.as_ref().unwrap().contains("no election can reach"));
}
