//! The table by itself: numbers, floors, limits and verdicts, with nothing that sends.

use std::io;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quorate_storage::ClusterTime;
use quorate_storage::command::{Batch, KvDeleteMode, KvPutMode};
use quorate_storage::limits::{COMMAND_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_storage::raft::BootId;
use quorate_storage::record::CheckStatus;
use quorate_storage::snapshot::Snapshot;
use quorate_storage::state::SnapshotRecord;
use quorate_storage::txn::{KeyVerb, TxnOperation};

use super::*;
use crate::host::clock::Clock;
use crate::host::stopping::Stopping;
use crate::raft::identity::Identity;
use crate::raft::processes::Processes;
use crate::raft::protocol::{Envelope, SnapshotHeader};
use crate::raft::transport::{Target, Transport};
use crate::raft::warnings::Warnings;

const INCARNATION: u64 = 3;
const ORIGIN: NodeId = 7;
const FORWARDS: usize = Lane::Writes.forwards_in_flight_max();

#[derive(Debug)]
struct Nobody;

impl Identity for Nobody {
    fn store_id(&self) -> String {
        "store".to_owned()
    }
    fn boots(&self) -> u64 {
        0
    }
    fn cluster_id(&self) -> Option<String> {
        None
    }
    fn adopt_cluster(&self, _id: &str) -> io::Result<()> {
        Ok(())
    }
    fn condemn(&self, _why: &str) -> io::Result<()> {
        Ok(())
    }
}

type Answer = BoxFuture<'static, Result<Response, TransportError>>;

/// A network that reaches nobody.
#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn call(&self, _: Target<'_>, _: Purpose, _: Envelope, _: Duration) -> Answer {
        Box::pin(async { Err(TransportError::Unreachable("nobody".to_owned())) })
    }
    fn process_ended(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
    fn send_snapshot(&self, _: Target<'_>, _: SnapshotHeader, _: Snapshot, _: Duration) -> Answer {
        Box::pin(async { Err(TransportError::Unreachable("nobody".to_owned())) })
    }
}

fn proposer() -> Proposer {
    let proposer = proposer_without_incarnation();
    proposer.context.processes.begin(INCARNATION);
    proposer
}

fn proposer_without_incarnation() -> Proposer {
    let clock = Clock::monotonic();
    Proposer::new(Context {
        id: ORIGIN,
        level: 0,
        identity: Arc::new(Nobody),
        clock: clock.clone(),
        transport: Arc::new(Nowhere),
        hold_timeout: Duration::from_millis(50),
        warnings: Arc::new(Warnings::new(Clock::monotonic())),
        stopping: Stopping::new(clock.clone()),
        processes: Arc::new(Processes::new(ORIGIN, BootId::default(), &Peer::default(), clock)),
    })
}

fn command() -> Command {
    Command::KvDelete { key: "k".into(), mode: KvDeleteMode::One }
}

fn large_command(bytes: usize) -> Command {
    let value = vec![0; bytes].into();
    Command::KvPut { key: "k".into(), value, flags: 0, mode: KvPutMode::Set }
}

fn led() -> Leadership {
    Leadership { term: 1, leader: Some((1, Peer::default())) }
}

fn enqueue(proposer: &Proposer, command: Command) -> Ticket<'_> {
    let (reply, outcome) = oneshot::channel();
    let seq = Arc::new(AtomicU64::new(0));
    proposer.enqueue(command, None, reply, Arc::clone(&seq)).unwrap();
    Ticket { proposer, seq, outcome }
}

fn numbers(shipment: &Shipment) -> Vec<u64> {
    shipment.part.commands.iter().map(|(seq, _)| *seq).collect()
}

fn applied(proposer: &Proposer, seq: u64) {
    let id = CommandId { origin: ORIGIN, incarnation: INCARNATION, seq };
    proposer.applied([(id, Outcome::Condition(true))]);
}

#[test]
fn a_command_gets_its_number_when_it_is_first_sent() {
    let proposer = proposer();
    let tickets = [enqueue(&proposer, command()), enqueue(&proposer, command())];
    assert!(proposer.next_shipment(&Leadership::default()).is_none(), "there is no leader");
    assert!(tickets.iter().all(|ticket| ticket.seq.load(Ordering::SeqCst) == 0));

    let shipment = proposer.next_shipment(&led()).unwrap();
    assert_eq!(numbers(&shipment), [1, 2]);
    assert_eq!((shipment.part.origin, shipment.part.incarnation), (ORIGIN, INCARNATION));
    assert!(proposer.next_shipment(&led()).is_none(), "what is on its way is not sent twice");
}

#[test]
fn nothing_is_numbered_before_the_log_has_given_an_incarnation() {
    let proposer = proposer_without_incarnation();
    let _waits = enqueue(&proposer, command());
    assert!(proposer.next_shipment(&led()).is_none());
    proposer.context.processes.begin(INCARNATION);
    assert_eq!(numbers(&proposer.next_shipment(&led()).unwrap()), [1]);
}

#[test]
fn a_client_that_leaves_before_its_command_was_sent_takes_it_along() {
    let proposer = proposer();
    let gone = enqueue(&proposer, command());
    let stays = enqueue(&proposer, command());
    drop(gone);
    let shipment = proposer.next_shipment(&led()).unwrap();
    assert_eq!(numbers(&shipment), [1], "and its place");
    applied(&proposer, 1);
    drop(stays);
    assert_eq!((proposer.unanswered(), proposer.table().lanes[Lane::Writes].bytes), (0, 0));
}

#[test]
fn the_floor_is_what_lies_below_the_lowest_open_number() {
    let proposer = proposer();
    let tickets: Vec<_> = (0..4).map(|_| enqueue(&proposer, command())).collect();
    let first = proposer.next_shipment(&led()).unwrap();
    assert_eq!(first.part.answered_through, 0);
    applied(&proposer, 2);
    applied(&proposer, 4);
    assert_eq!(proposer.table().answered_through(), 0, "number 1 is open");
    applied(&proposer, 1);
    assert_eq!(proposer.table().answered_through(), 2);
    // A command given up counts as answered.
    drop(tickets);
    assert_eq!(proposer.table().answered_through(), 4);
    let next = enqueue(&proposer, command());
    let shipment = proposer.next_shipment(&led()).unwrap();
    assert_eq!((numbers(&shipment), shipment.part.answered_through), (vec![5], 4));
    drop(next);
}

#[test]
fn outcomes_of_another_node_or_of_an_earlier_life_answer_nobody() {
    let proposer = proposer();
    let mut ticket = enqueue(&proposer, command());
    proposer.next_shipment(&led()).unwrap();
    for (origin, incarnation) in [(ORIGIN + 1, INCARNATION), (ORIGIN, INCARNATION - 1)] {
        proposer.applied([(CommandId { origin, incarnation, seq: 1 }, Outcome::Done)]);
    }
    assert!(ticket.outcome.try_recv().is_err());
    applied(&proposer, 1);
    assert_eq!(ticket.outcome.try_recv(), Ok(Outcome::Condition(true)));
}

#[test]
fn what_certainly_was_not_appended_ends_with_no_leader() {
    let proposer = proposer();
    let mut ticket = enqueue(&proposer, command());
    proposer.next_shipment(&led()).unwrap();
    proposer.table().resolve(Lane::Writes, &[1], Forwarded::NotLeader);
    assert_eq!(ticket.conclude(), Err(ProposeError::NoLeader));
}

#[test]
fn what_may_have_been_appended_once_ends_with_outcome_unknown() {
    let proposer = proposer();
    for fate in [Forwarded::Unknown, Forwarded::Committed] {
        let mut ticket = enqueue(&proposer, command());
        let seqs = numbers(&proposer.next_shipment(&led()).unwrap());
        proposer.table().resolve(Lane::Writes, &seqs, fate);
        // A later copy that was refused takes nothing back.
        proposer.table().make_due(&seqs, 0);
        assert_eq!(numbers(&proposer.next_shipment(&led()).unwrap()), seqs);
        proposer.table().resolve(Lane::Writes, &seqs, Forwarded::NotLeader);
        assert_eq!(ticket.conclude(), Err(ProposeError::OutcomeUnknown));
    }
}

#[test]
fn what_is_on_its_way_ends_with_outcome_unknown() {
    let proposer = proposer();
    let mut ticket = enqueue(&proposer, command());
    proposer.next_shipment(&led()).unwrap();
    assert_eq!(ticket.conclude(), Err(ProposeError::OutcomeUnknown));
}

#[test]
fn an_outcome_that_comes_as_the_time_ends_is_the_answer() {
    let proposer = proposer();
    let mut ticket = enqueue(&proposer, command());
    proposer.next_shipment(&led()).unwrap();
    // After the timer fired, and before the table was looked at.
    applied(&proposer, 1);
    assert_eq!(ticket.conclude(), Ok(Outcome::Condition(true)));
}

#[test]
fn a_command_that_was_said_to_have_had_no_leader_is_never_sent() {
    let proposer = proposer();
    let mut ticket = enqueue(&proposer, command());
    assert_eq!(ticket.conclude(), Err(ProposeError::NoLeader));
    assert!(proposer.next_shipment(&led()).is_none());
}

#[test]
fn a_new_leadership_makes_everything_open_due_once() {
    let proposer = proposer();
    let _tickets: Vec<_> = (0..3).map(|_| enqueue(&proposer, command())).collect();
    let old = proposer.next_shipment(&led()).unwrap();
    applied(&proposer, 2);
    proposer.table().change_epoch();
    let resent = proposer.next_shipment(&led()).unwrap();
    assert_eq!(numbers(&resent), [1, 3]);
    // The old shipment fails only now: the new one stands for it.
    proposer.table().resolve(Lane::Writes, &numbers(&old), Forwarded::Unknown);
    proposer.table().make_due(&numbers(&old), old.epoch);
    assert!(proposer.next_shipment(&led()).is_none());
    // The new one's failure counts.
    proposer.table().resolve(Lane::Writes, &numbers(&resent), Forwarded::NotLeader);
    proposer.table().make_due(&numbers(&resent), resent.epoch);
    assert_eq!(numbers(&proposer.next_shipment(&led()).unwrap()), [1, 3]);
}

#[test]
fn an_entry_is_limited_in_commands_and_in_bytes() {
    let proposer = proposer();
    let many: Vec<_> = (0..=ENTRY_COMMANDS_MAX).map(|_| enqueue(&proposer, command())).collect();
    let first = proposer.next_shipment(&led()).unwrap();
    assert_eq!(first.part.commands.len(), ENTRY_COMMANDS_MAX);
    assert_eq!(proposer.next_shipment(&led()).unwrap().part.commands.len(), 1);
    drop(many);

    let large: Vec<_> = [ENTRY_BYTES_MAX * 2, ENTRY_BYTES_MAX / 2, ENTRY_BYTES_MAX / 2]
        .into_iter()
        .map(|bytes| enqueue(&proposer, large_command(bytes)))
        .collect();
    for expected in [1, 1] {
        let shipment = proposer.next_shipment(&led()).unwrap();
        assert_eq!(shipment.part.commands.len(), expected, "two halves and their overhead");
    }
    drop(large);
}

#[test]
fn no_more_than_a_few_batches_are_on_their_way() {
    let proposer = proposer();
    let mut tickets = Vec::new();
    for _ in 0..FORWARDS {
        tickets.push(enqueue(&proposer, command()));
        assert!(proposer.next_shipment(&led()).is_some());
    }
    tickets.push(enqueue(&proposer, command()));
    assert!(proposer.next_shipment(&led()).is_none());
    proposer.table().resolve(Lane::Writes, &[1], Forwarded::Committed);
    assert!(proposer.next_shipment(&led()).is_some());
}

#[tokio::test]
async fn the_sending_task_is_woken_for_what_it_can_send_only() {
    let proposer = proposer();
    let is_woken = || proposer.wake.notified().now_or_never().is_some();
    let mut tickets = Vec::new();
    for _ in 0..FORWARDS {
        tickets.push(enqueue(&proposer, command()));
        assert!(is_woken());
        assert!(proposer.next_shipment(&led()).is_some());
    }
    tickets.push(enqueue(&proposer, command()));
    assert!(!is_woken(), "all batches are on their way");
    tickets.push(enqueue(&proposer, heartbeat()));
    assert!(is_woken(), "heartbeats have a lane of their own");
    let epoch = proposer.table().epoch;
    proposer.conclude(Lane::Writes, &[1], epoch, Forwarded::Committed).await;
    assert!(is_woken());
    assert!(proposer.next_shipment(&led()).is_some());
}

#[tokio::test]
async fn a_panic_while_a_batch_is_handed_over_gives_its_lane_back_and_the_batch_is_sent_again() {
    let proposer = proposer();
    let _tickets: Vec<_> = (0..2).map(|_| enqueue(&proposer, command())).collect();
    for _ in 0..=FORWARDS {
        let shipment = proposer.next_shipment(&led()).expect("a lane is free");
        assert_eq!(numbers(&shipment), [1, 2]);
        let (_publish, changes) = watch::channel(led());
        let handed = async { panic!("a fault of the transport") };
        let (seqs, epoch, lane) = (numbers(&shipment), shipment.epoch, shipment.lane);
        let fate = proposer.fate(handed, &led(), changes).await;
        assert_eq!(fate, Forwarded::Unknown, "it may have been appended");
        proposer.conclude(lane, &seqs, epoch, fate).await;
    }
    assert_eq!(proposer.table().lanes[Lane::Writes].forwards, 0);
}

#[test]
fn beyond_its_limits_the_table_refuses_until_something_is_answered() {
    let proposer = proposer();
    let mut tickets: Vec<_> =
        (0..Lane::Writes.unanswered_max()).map(|_| enqueue(&proposer, command())).collect();
    let refused = |proposer: &Proposer, command| {
        let (reply, _outcome) = oneshot::channel();
        proposer.enqueue(command, None, reply, Arc::default()) == Err(ProposeError::Overloaded)
    };
    assert!(refused(&proposer, command()));
    // What was never sent, and whose client has gone, makes room.
    tickets.pop();
    assert!(!refused(&proposer, command()));
    drop(tickets);
    assert!(refused(&proposer, large_command(Lane::Writes.unanswered_bytes_max())));
}

fn heartbeat() -> Command {
    let (status, output) = (CheckStatus::Passing, String::new());
    Command::Heartbeat { number: 1, status, output, seen: ClusterTime::ZERO }
}

#[test]
fn a_heartbeat_does_not_wait_for_writes() {
    let proposer = proposer();
    let mut tickets = Vec::new();
    for _ in 0..FORWARDS {
        tickets.push(enqueue(&proposer, large_command(ENTRY_BYTES_MAX)));
        assert_eq!(proposer.next_shipment(&led()).unwrap().lane, Lane::Writes);
    }
    // The writes' way is full, and so is their share of the table.
    let rest = Lane::Writes.unanswered_max() - FORWARDS;
    tickets.extend((0..rest).map(|_| enqueue(&proposer, command())));
    assert!(proposer.next_shipment(&led()).is_none());
    tickets.push(enqueue(&proposer, heartbeat()));
    let shipment = proposer.next_shipment(&led()).unwrap();
    let next = FORWARDS as u64 + 1;
    assert_eq!((shipment.lane, numbers(&shipment)), (Lane::Heartbeats, vec![next]));
    assert_eq!(Lane::of_part(&shipment.part), Lane::Heartbeats);
    // Who asked for it makes it no write.
    let mut part = shipment.part;
    let note = Asked::note([Some(&RequestFacts::default())]).unwrap();
    part.commands.insert(0, (UNNUMBERED, Command::Asked(note)));
    assert_eq!(Lane::of_part(&part), Lane::Heartbeats);
    // What overtook has the higher number; the writes behind it are not answered through.
    applied(&proposer, next);
    proposer.table().resolve(Lane::Heartbeats, &[next], Forwarded::Committed);
    assert_eq!(proposer.table().answered_through(), 0);
    // A new leader gets both lanes again, under their old numbers.
    tickets.push(enqueue(&proposer, heartbeat()));
    let sent = proposer.next_shipment(&led()).unwrap();
    assert_eq!(numbers(&sent), [next + 1]);
    proposer.table().change_epoch();
    assert_eq!(numbers(&proposer.next_shipment(&led()).unwrap()), [next + 1]);
    for _ in 0..FORWARDS {
        proposer.table().resolve(Lane::Writes, &[], Forwarded::Unknown);
    }
    assert_eq!(numbers(&proposer.next_shipment(&led()).unwrap()), [1]);
}

/// Outcomes that a state remembers.
fn remembered(state: &State) -> usize {
    let mut count = 0;
    let mut look = |record: SnapshotRecord<'_>| {
        count += usize::from(matches!(record, SnapshotRecord::Outcome { .. }));
        Ok(())
    };
    state.export(&mut look).unwrap();
    count
}

/// A shipment reaches the log, and its outcomes their clients.
fn commit(proposer: &Proposer, state: &mut State, shipment: Shipment) {
    let seqs = numbers(&shipment);
    let parts = vec![shipment.part];
    let effects = state.apply(&Batch { parts, ..Batch::default() });
    proposer.applied(effects.outcomes);
    proposer.table().resolve(shipment.lane, &seqs, Forwarded::Committed);
}

#[test]
fn one_lost_forward_does_not_make_the_record_grow() {
    let proposer = proposer();
    let mut state = State::default();
    let _lost = enqueue(&proposer, command());
    let lost = proposer.next_shipment(&led()).unwrap();
    for round in 0..2_000 {
        let _tickets: Vec<_> = (0..32).map(|_| enqueue(&proposer, command())).collect();
        let shipment = proposer.next_shipment(&led()).unwrap();
        if round % 3 == 0 {
            // It is lost as well, and sent again; whoever waits for it waits on.
            let seqs = numbers(&shipment);
            proposer.table().resolve(Lane::Writes, &seqs, Forwarded::Unknown);
            proposer.table().make_due(&seqs, 0);
            let again = proposer.next_shipment(&led()).unwrap();
            commit(&proposer, &mut state, again);
        } else {
            commit(&proposer, &mut state, shipment);
        }
        let kept = remembered(&state);
        assert!(kept <= 2 * usize::try_from(ANSWERED_PER_NOTE).unwrap(), "{kept} in {round}");
        state.check_invariants().unwrap();
    }
    let index = state.index();
    commit(&proposer, &mut state, lost);
    assert_eq!(state.index(), index, "it was a deletion of nothing");
    assert_eq!(proposer.unanswered(), 0, "and it was answered");
}

#[tokio::test]
async fn what_is_too_large_to_be_replicated_is_refused_before_it_is_numbered() {
    let proposer = proposer();
    let value = proposer.propose(large_command(VALUE_BYTES_MAX + 1)).await;
    assert!(matches!(value, Err(ProposeError::TooLarge(excess)) if excess.what == "value"));
    // Each operation is within its limits, and all of them together are not.
    let set = TxnOperation::Key {
        verb: KeyVerb::Set,
        key: "k".into(),
        value: vec![0; COMMAND_BYTES_MAX / 8].into(),
        flags: 0,
        index: 0,
        session: "".into(),
    };
    let whole = proposer.propose(Command::Txn(vec![set; 8])).await;
    assert!(matches!(whole, Err(ProposeError::TooLarge(excess)) if excess.is_of_whole_command()));
    assert_eq!(proposer.unanswered(), 0);
    // The largest value is held like any other command.
    let largest = proposer.propose(large_command(VALUE_BYTES_MAX)).await;
    assert_eq!(largest, Err(ProposeError::NoLeader));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_holds_commands_for_a_second_and_gives_later_ones_a_last_attempt() {
    let mut proposer = proposer();
    proposer.context.hold_timeout = Duration::from_secs(7);
    let clock = proposer.context.clock.clone();
    proposer.context.stopping.begin();
    let begun = clock.now();
    for given_up_ms in [1_000, 1_250] {
        assert_eq!(proposer.propose(command()).await, Err(ProposeError::NoLeader));
        assert_eq!(clock.now().since(begun), Duration::from_millis(given_up_ms));
    }
}

#[tokio::test]
async fn without_a_leader_a_command_is_held_and_then_given_up() {
    let proposer = proposer();
    assert_eq!(proposer.propose(command()).await, Err(ProposeError::NoLeader));
    assert!(proposer.next_shipment(&led()).is_none());
    assert_eq!(proposer.unanswered(), 0);
}
