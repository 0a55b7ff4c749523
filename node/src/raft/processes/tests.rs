//! Who is admitted, who is refused, and who must end: on server 1, about server 3.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::AtomicU64;

use futures_util::future::BoxFuture;
use openraft::Membership;
use quorate_storage::command::{Batch, Boot, Duty, LogEnd};
use quorate_storage::raft::{Position, StoredMembership};
use quorate_storage::snapshot::Snapshot;

use super::*;
use crate::host::clock::ClockSource;
use crate::host::stopping::Stopping;
use crate::raft::context::Context;
use crate::raft::identity::Identity;
use crate::raft::protocol::{DiskState, Envelope, Request, Response, SnapshotHeader};
use crate::raft::transport::{Purpose, Target, Transport, TransportError};
use crate::raft::warnings::Warnings;

const OWN: BootId = BootId([1; 16]);
const OLD: BootId = BootId([2; 16]);
const NEW: BootId = BootId([3; 16]);

/// Processes by their addresses, and how often they were asked.
#[derive(Debug, Default)]
struct World {
    there: Mutex<BTreeMap<String, BootId>>,
    asked: AtomicU64,
}

impl Transport for World {
    fn call(
        &self,
        target: Target<'_>,
        _: Purpose,
        envelope: Envelope,
        _: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        assert!(matches!(envelope.request, Request::WhoAreYou));
        self.asked.fetch_add(1, Ordering::Relaxed);
        let address = target.address;
        let there = self.there.lock().unwrap().get(address).copied();
        let answer = there.map(|boot| Response::Identity(process(boot, None, address)));
        let answer = answer.ok_or_else(|| TransportError::Unreachable("nobody".to_owned()));
        Box::pin(async { answer })
    }

    fn process_ended(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn send_snapshot(
        &self,
        _: Target<'_>,
        _: SnapshotHeader,
        _: Snapshot,
        _: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        Box::pin(async { Err(TransportError::Unreachable("nobody".to_owned())) })
    }
}

#[derive(Debug)]
struct Nobody;

impl Identity for Nobody {
    fn store_id(&self) -> String {
        "store-1".to_owned()
    }
    fn boots(&self) -> u64 {
        1
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

/// A clock that goes when it is told to.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl ClockSource for Hand {
    fn now(&self) -> Moment {
        Moment::at(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

struct Scene {
    context: Context,
    world: Arc<World>,
    hand: Arc<Hand>,
}

/// Server 1 with this state, among these processes.
fn scene(published: Published, there: &[(&str, BootId)]) -> Scene {
    let (world, hand) = (Arc::new(World::default()), Arc::new(Hand::default()));
    let there = there.iter().map(|(address, boot)| ((*address).to_owned(), *boot));
    *world.there.lock().unwrap() = there.collect();
    let clock = Clock::new(Arc::clone(&hand) as _);
    let peer =
        Peer { store_id: "store-1".to_owned(), rpc_addr: "a:1".to_owned(), ..Peer::default() };
    let processes = Processes::new(1, OWN, &peer, clock.clone());
    processes.follow(StateReader::from(published));
    let context = Context {
        id: 1,
        level: 0,
        identity: Arc::new(Nobody),
        stopping: Stopping::new(clock.clone()),
        clock,
        transport: Arc::clone(&world) as _,
        hold_timeout: Duration::from_secs(1),
        warnings: Arc::new(Warnings::new(Clock::monotonic())),
        processes: Arc::new(processes),
    };
    Scene { context, world, hand }
}

/// A state in which server 3 has booted once, at `old:3`, and is known to have held entry 7 of term 2;
/// these servers are members.
fn known(members: &[NodeId]) -> Published {
    let mut published = Published::default();
    let start = Boot {
        id: 3,
        boot: OLD,
        store_id: "store-3".to_owned(),
        rpc_addr: "old:3".to_owned(),
        ..Boot::default()
    };
    let held = LogEnd { id: 3, boot: OLD, upto: Position { term: 2, index: 7 }, term: 2 };
    for duty in [Duty::Booted(Box::new(start)), Duty::LogEnds(vec![held])] {
        published.state.apply(&Batch { duty: Some(duty), ..Batch::default() });
    }
    if members.is_empty() {
        return published;
    }
    let voters: BTreeSet<NodeId> = members.iter().copied().collect();
    let nodes: BTreeMap<NodeId, Peer> = members.iter().map(|id| (*id, Peer::default())).collect();
    let membership = Membership::new(vec![voters], nodes).unwrap();
    published.membership = StoredMembership::new(None, membership);
    published
}

fn process(boot: BootId, incarnation: Option<u64>, address: &str) -> ProcessIdentity {
    let (store_id, rpc_addr) = ("store-3".to_owned(), address.to_owned());
    ProcessIdentity { boot, incarnation, store_id, rpc_addr }
}

fn info(disk: DiskState) -> ServerInfo {
    let peer = Peer { store_id: "store-3".to_owned(), ..Peer::default() };
    ServerInfo { id: 3, peer, disk, datacenter: "dc1".to_owned() }
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_a_process_that_does_not_answer() {
    let Scene { context, .. } = scene(known(&[1, 3]), &[("new:3", NEW)]);
    context.admit_process(3, &process(NEW, None, "new:3"), true).await.unwrap();
    let current = context.processes.current(3, "store-3").unwrap();
    assert_eq!((current.boot, current.rpc_addr.as_str()), (NEW, "new:3"));
    assert!(context.processes.current(3, "another store").is_none());
}

#[tokio::test]
async fn a_newcomer_is_refused_while_the_known_process_answers() {
    let Scene { context, world, hand } = scene(known(&[1, 3]), &[("old:3", OLD)]);
    let newcomer = process(NEW, None, "new:3");
    let in_use = Err(Refusal::InUse("old:3".to_owned()));
    assert_eq!(context.admit_process(3, &newcomer, false).await, in_use);
    // Votes that follow at once do not ask again, but a newcomer that is to end is told the truth.
    assert_eq!(context.admit_process(3, &newcomer, false).await, in_use);
    assert_eq!(world.asked.load(Ordering::Relaxed), 1);
    world.there.lock().unwrap().clear();
    assert_eq!(context.admit_process(3, &newcomer, false).await, in_use);
    assert_eq!(context.admit_process(3, &newcomer, true).await, Ok(()));
    hand.0.store(1_000, Ordering::Relaxed);
    assert_eq!(context.admit_process(3, &newcomer, false).await, Ok(()));
}

#[tokio::test]
async fn a_process_at_the_known_address_is_not_the_known_process() {
    let Scene { context, .. } = scene(known(&[1, 3]), &[("old:3", NEW)]);
    assert_eq!(context.admit_process(3, &process(NEW, None, "old:3"), true).await, Ok(()));
}

#[tokio::test]
async fn what_the_log_has_numbered_is_asked_of_nobody() {
    let Scene { context, world, .. } = scene(known(&[1, 3]), &[("old:3", OLD)]);
    assert_eq!(context.admit_process(3, &process(OLD, None, "old:3"), true).await, Ok(()));
    let earlier = context.admit_process(3, &process(NEW, Some(1), "new:3"), true).await;
    assert_eq!(earlier, Err(Refusal::Superseded("old:3".to_owned())));
    assert_eq!(context.admit_process(3, &process(NEW, Some(2), "new:3"), true).await, Ok(()));
    assert_eq!(context.processes.current(3, "store-3").unwrap().boot, NEW);
    assert_eq!(world.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn where_the_log_says_nothing_nobody_is_told_to_end() {
    let there = [("first:3", OLD), ("second:3", NEW)];
    let Scene { context, .. } = scene(Published::default(), &there);
    context.admit_process(3, &process(OLD, None, "first:3"), true).await.unwrap();
    let second = context.admit_process(3, &process(NEW, None, "second:3"), true).await;
    assert!(matches!(second, Err(Refusal::OtherBoot(_))), "{second:?}");
}

#[tokio::test]
async fn a_copy_of_this_server_is_refused_once_the_log_knows_this_one() {
    let Scene { context, .. } = scene(known(&[1, 3]), &[]);
    let copy = ProcessIdentity { store_id: "store-1".to_owned(), ..process(NEW, None, "b:1") };
    let answer = context.admit_process(1, &copy, true).await;
    assert!(matches!(answer, Err(Refusal::OtherBoot(_))), "{answer:?}");
    context.processes.begin(5);
    let in_use = Refusal::InUse("a:1".to_owned());
    assert_eq!(context.admit_process(1, &copy, true).await, Err(in_use));
    let numbered = ProcessIdentity { incarnation: Some(6), ..copy.clone() };
    let answer = context.admit_process(1, &numbered, true).await;
    assert!(matches!(answer, Err(Refusal::OtherBoot(_))), "{answer:?}");
    let stranger = ProcessIdentity { store_id: "store-x".to_owned(), ..copy };
    let answer = context.admit_process(1, &stranger, true).await;
    assert!(matches!(answer, Err(Refusal::OtherBoot(_))), "{answer:?}");
}

#[test]
fn only_a_server_that_was_a_member_was_removed() {
    let removed = |members: &[NodeId], sender: &ProcessIdentity, disk: DiskState| {
        let Scene { context, .. } = scene(known(members), &[]);
        context.processes.refuse_removed(3, sender, Some(&info(disk))).is_err()
    };
    let sender = process(NEW, None, "new:3");
    assert!(removed(&[1, 2], &sender, DiskState::default()));
    assert!(!removed(&[1, 2, 3], &sender, DiskState::default()));
    assert!(!removed(&[], &sender, DiskState::default()), "there is no membership");
    let joins = ProcessIdentity { store_id: "fresh".to_owned(), ..sender };
    assert!(
        !removed(&[1, 2], &joins, DiskState::default()),
        "a server that joins under a known id"
    );
}

#[test]
fn a_server_that_applies_its_removal_ends_even_before_the_log_knows_its_boot() {
    let ends = |memberships: &[&[NodeId]]| {
        let Scene { context, .. } = scene(Published::default(), &[]);
        memberships.iter().for_each(|members| context.processes.observe(&known(members)));
        context.processes.end.borrow().clone()
    };
    assert_eq!(ends(&[&[], &[1, 2, 3], &[2, 3]]), Some(Refusal::Removed));
    assert_eq!(ends(&[&[2, 3], &[1, 2, 3], &[1, 3]]), None, "it has joined");
    assert_eq!(ends(&[&[2, 3]]), None, "it is joining");
}

#[test]
fn a_boot_must_have_what_an_earlier_one_held() {
    let Scene { context, .. } = scene(known(&[1, 3]), &[]);
    let lost = |boot, incarnation, last, term| {
        let last = Some(Position { term: 2, index: last });
        let disk = DiskState { last, term, ..DiskState::default() };
        let sender = process(boot, incarnation, "new:3");
        context.processes.refuse_lost(&info(disk), &sender).is_err()
    };
    assert!(lost(NEW, None, 6, 2));
    assert!(lost(NEW, None, 7, 1), "its vote is gone");
    assert!(!lost(NEW, None, 7, 2));
    assert!(!lost(NEW, Some(2), 6, 2), "what it held since is its own");
    assert!(!lost(OLD, None, 6, 2), "what it held since is its own");
}

#[test]
fn a_process_ends_when_its_identity_stays_in_use() {
    let Scene { context, hand, .. } = scene(known(&[1, 3]), &[]);
    let processes = &context.processes;
    let has_ended = || processes.end.borrow().is_some();
    let in_use = Refusal::InUse("x:1".to_owned());
    processes.told(&Refusal::OtherBoot(process(NEW, None, "x:1")));
    processes.told(&in_use);
    assert!(!has_ended(), "the other one may be ending");
    hand.0.store(900, Ordering::Relaxed);
    processes.told(&in_use);
    assert!(!has_ended());
    hand.0.store(1_000, Ordering::Relaxed);
    processes.told(&in_use);
    assert!(has_ended());
}

#[test]
fn a_process_that_the_log_knows_ends_only_for_a_later_one_or_its_removal() {
    for (refusal, ends) in [
        (Refusal::InUse("x:1".to_owned()), false),
        (Refusal::Superseded("x:1".to_owned()), true),
        (Refusal::Removed, true),
        (Refusal::Lost("what".to_owned()), true),
    ] {
        let Scene { context, hand, .. } = scene(known(&[1, 3]), &[]);
        context.processes.begin(5);
        for now in [0, 5_000] {
            hand.0.store(now, Ordering::Relaxed);
            context.processes.told(&refusal);
        }
        assert_eq!(context.processes.end.borrow().is_some(), ends, "{refusal:?}");
    }
}

#[test]
fn a_process_that_is_superseded_from_its_own_address_was_set_back() {
    let Scene { context, .. } = scene(known(&[1, 3]), &[]);
    let own = context.processes.sender().rpc_addr;
    context.processes.begin(5);
    context.processes.told(&Refusal::Superseded(own.clone()));
    let end = context.processes.end.borrow().clone();
    assert_eq!(end, Some(Refusal::SetBack(own)));
    let text = end.map(|end| end.to_string()).unwrap_or_default();
    assert!(text.contains("a later boot of this server") && text.contains("recover"), "{text}");
}

#[test]
fn one_denial_of_what_is_committed_ends_nobody_and_a_series_does() {
    let Scene { context, hand, .. } = scene(known(&[1, 3]), &[]);
    let processes = &context.processes;
    let denied_at = |now| {
        hand.0.store(now, Ordering::Relaxed);
        processes.contradicted(Position { term: 4, index: 7 }, Position { term: 3, index: 9 });
        processes.end.borrow().clone()
    };
    assert_eq!(denied_at(0), None);
    assert_eq!(denied_at(60_000), None, "the first was long ago");
    assert_eq!(denied_at(60_900), None);
    let text = denied_at(61_000).map(|end| end.to_string()).unwrap_or_default();
    assert!(text.contains("up to index 9 of term 3"), "{text}");
    assert!(text.contains("quorate recover"), "{text}");
}
