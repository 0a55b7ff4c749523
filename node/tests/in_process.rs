//! Three nodes in one process, over a network, disks and clocks made of memory: what the node promises,
//! without sockets.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use quorate::node::Consistency;
use quorate::raft::error::{MembershipError, ProposeError};
use quorate::raft::protocol::{
    DiskState, Envelope, Forwarded, Refusal, Request, Response, ServerInfo,
};
use quorate::raft::transport::{Purpose, Target};
use quorate_storage::command::{Agent, Batch, Command, Outcome, Part, Rejection};
use quorate_storage::machine::Published;
use quorate_storage::raft::{Entry, LogId, NodeId, Vote};
use quorate_storage::record::{
    CheckDefinition, CheckRegistration, CheckStatus, SERF_HEALTH, ServiceDefinition,
};
use quorate_storage::state::LEVEL;
use quorate_storage::txn::{KeyVerb, TxnOperation};
use quorate_storage::{Millis, Topic};

use support::cluster::{Cluster, LIMIT, address, is_no_leader_or_unknown, put_new};
use support::network::Faults;
use support::storm::Clients;
use support::until;

mod support;

/// Long enough that nothing fails for want of time.
const PATIENT: Duration = Duration::from_secs(20);
/// Short enough to wait for.
const IMPATIENT: Duration = Duration::from_secs(1);

/// Longer than the silence (5 s) after which a server counts as lost.
const LONG_SILENCE: Duration = Duration::from_secs(7);

/// What is asked of the leader is lost, answered in vain, repeated and held up.
const BAD_ANSWERS: Faults =
    Faults { lost_requests: 50, lost_replies: 100, repeated: 150, delayed: 300, delay_ms_max: 30 };
/// Raft itself is to make progress.
const SLIPPERY: Faults =
    Faults { lost_requests: 5, lost_replies: 5, repeated: 10, delayed: 50, delay_ms_max: 10 };

/// Writers, readers and faults while the leader is cut off again and again.
async fn storm(seed: u64, hold: Duration, cut_off_for: Duration, rounds: usize) -> (u64, u64) {
    let cluster = Cluster::found(3, seed, hold).await;
    cluster.network.set_faults(BAD_ANSWERS, SLIPPERY);
    let clients = Clients::start(&cluster, 4);
    let mut changes = 0;
    for _ in 0..rounds {
        let pause = 200 + cluster.network.random_below(400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let old = cluster.leader().await;
        cluster.isolate(old);
        tokio::time::sleep(cut_off_for).await;
        let survivors = cluster.others(old);
        let new = cluster.leader_among(&survivors).await;
        cluster.network.heal();
        changes += u64::from(new != old);
    }
    cluster.network.set_faults(Faults::default(), Faults::default());
    let (summary, ledger) = clients.finish(&cluster).await;
    let counts = cluster.network.counts();
    println!("{summary:?}, {changes} leader changes, {counts:?}");
    assert_eq!(changes, rounds as u64);
    for (what, count) in [
        ("lost replies", counts.lost_replies.load(Ordering::Relaxed)),
        ("repetitions", counts.repeated.load(Ordering::Relaxed)),
        ("reads", ledger.reads.load(Ordering::Relaxed)),
        ("positions compared", ledger.equal_positions.load(Ordering::Relaxed)),
    ] {
        assert!(count >= 10, "a storm with only {count} {what} shows nothing");
    }
    (summary.written.min(summary.raised), summary.failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_come_and_go_and_every_command_takes_effect_exactly_once() {
    let (succeeded, failed) = storm(11, PATIENT, Duration::ZERO, 6).await;
    assert!(succeeded > 50, "only {succeeded} of each kind");
    assert_eq!(failed, 0, "with time enough nothing fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_want_of_time_is_reported_for_what_it_is() {
    let cut_off_for = IMPATIENT * 3 / 2;
    let (succeeded, failed) = storm(12, IMPATIENT, cut_off_for, 4).await;
    assert!(succeeded > 50, "only {succeeded} of each kind");
    assert!(failed > 0, "the cut-off leader's clients gave up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_comes_while_a_barrier_is_under_way_waits_for_the_next() {
    let cluster = Cluster::found(3, 13, PATIENT).await;
    let leader = cluster.leader().await;
    let readers = cluster.others(leader);
    // Barriers are slow and the followers lag, each by chance: what a barrier brings may be older than
    // what was acknowledged since it was asked for.
    let slow = Faults { delayed: 1_000, delay_ms_max: 100, ..Faults::default() };
    let lagging = Faults { delayed: 800, delay_ms_max: 60, ..Faults::default() };
    cluster.network.set_faults(slow, lagging);
    for round in 0..25 {
        let early = readers.iter().map(|id| Arc::clone(cluster.node(*id)));
        let early: Vec<_> = early
            .map(|node| tokio::spawn(async move { node.read(Consistency::Linearizable).await }))
            .collect();
        tokio::time::sleep(Duration::from_millis(cluster.network.random_below(60))).await;
        let key = format!("round/{round}");
        cluster.put(leader, &key).await;
        for id in &readers {
            assert!(cluster.has(*id, &key).await, "a read through {id} missed {key}");
        }
        for read in early {
            read.await.unwrap().expect("the read is answered");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_refuses_writes_after_the_hold_time_and_answers_stale_reads_at_once() {
    let cluster = Cluster::found(3, 1, IMPATIENT).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    cluster.put(leader, "before").await;
    cluster.converge().await;

    cluster.isolate(follower);
    let began = tokio::time::Instant::now();
    let writes = (0..20).map(|n| {
        let (node, key) = (Arc::clone(cluster.node(follower)), format!("cut off/{n}"));
        async move { (node.propose(put_new(&key), None).await, key) }
    });
    let answers = futures_util::future::join_all(writes).await;
    assert!(answers.iter().all(|(answer, _)| is_no_leader_or_unknown(answer)), "{answers:?}");
    assert!(began.elapsed() >= IMPATIENT * 9 / 10, "it was held");
    assert!(began.elapsed() < IMPATIENT * 3, "and not for longer");

    let version = cluster.node(follower).read(Consistency::Stale).await.unwrap();
    assert!(version.state.key("before").is_some());
    assert!(cluster.node(follower).read(Consistency::Linearizable).await.is_err());
    assert!(!cluster.node(follower).contact().known_leader);
    cluster.put(leader, "meanwhile").await;

    cluster.network.heal();
    cluster.leader().await;
    assert!(cluster.has(follower, "meanwhile").await);
    for (answer, key) in answers {
        let had_no_leader = answer == Err(ProposeError::NoLeader);
        assert!(!had_no_leader || !cluster.has(follower, &key).await, "{key} took effect");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_read_asks_nobody_and_a_default_read_on_a_follower_asks_the_leader() {
    let cluster = Cluster::found(3, 3, PATIENT).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    cluster.put(leader, "key").await;
    cluster.converge().await;
    let asked = || cluster.network.counts().read_indexes.load(Ordering::Relaxed);
    // Nobody else reads, so whoever asks the leader does it for one of these.
    let before = asked();
    for _ in 0..100 {
        let version = cluster.node(follower).read(Consistency::Stale).await.unwrap();
        assert!(version.state.key("key").is_some());
    }
    assert_eq!(asked(), before);
    cluster.node(follower).read(Consistency::Linearizable).await.unwrap();
    assert_eq!(asked(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing() {
    let cluster = Cluster::found(3, 2, IMPATIENT).await;
    let old = cluster.leader().await;
    cluster.isolate(old);
    let writes = (0..20).map(|n| {
        let node = Arc::clone(cluster.node(old));
        async move { node.propose(put_new(&format!("lost/{n}")), None).await }
    });
    for answer in futures_util::future::join_all(writes).await {
        assert!(is_no_leader_or_unknown(&answer), "{answer:?}");
    }
    let stale = cluster.node(old).read(Consistency::Stale).await.unwrap();
    assert_eq!(stale.state.keys_below("lost/").count(), 0);
    let survivors = cluster.others(old);
    let new = cluster.leader_among(&survivors).await;
    cluster.put(new, "under the next leader").await;
    cluster.network.heal();
    assert!(cluster.has(old, "under the next leader").await);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_one_node_wakes_a_watcher_at_another_and_nobody_else() {
    let cluster = Cluster::found(3, 3, PATIENT).await;
    let mut watcher = cluster.node(3).watches().subscribe(&Topic::Key("watched".into()));
    let mut above = cluster.node(2).watches().subscribe(&Topic::Prefix("wat".into()));
    let mut beside = cluster.node(3).watches().subscribe(&Topic::Key("other".into()));
    cluster.put(1, "watched").await;
    tokio::time::timeout(LIMIT, watcher.changed()).await.expect("the watcher wakes");
    tokio::time::timeout(LIMIT, above.changed()).await.expect("the prefix's watcher wakes");
    assert!(cluster.node(3).published().state.key("watched").is_some(), "and finds the key");
    cluster.put(2, "watched too").await;
    cluster.converge().await;
    let woken = tokio::time::timeout(Duration::from_millis(100), beside.changed()).await;
    assert!(woken.is_err(), "nothing happened to the other key");
}

/// Hands a batch to the leader as if a node had sent it.
async fn hand_over(cluster: &Cluster, part: Part) -> Response {
    let leader = cluster.leader().await;
    let envelope = Envelope {
        cluster: cluster.node(leader).info().cluster_id,
        from: part.origin,
        to: Some(leader),
        store: Some(cluster.peer(leader).store_id),
        sender: cluster.node(part.origin).processes().sender(),
        addressee: None,
        level: LEVEL,
        request: Request::Forward(part),
    };
    let transport = cluster.network.transport_of("a test");
    let answer =
        transport.call(Target::at(&address(leader)), Purpose::Forward, envelope, LIMIT).await;
    answer.expect("the leader answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_an_earlier_life_never_takes_effect() {
    let mut cluster = Cluster::found(3, 4, PATIENT).await;
    let restarted = cluster.others(cluster.leader().await)[0];
    cluster.put(restarted, "before the restart").await;
    cluster.stop(restarted).await;
    cluster.start(restarted).await;
    cluster.put(restarted, "after the restart").await;

    let late = Part {
        origin: restarted,
        incarnation: 1,
        answered_through: 0,
        commands: vec![(4_711, put_new("late"))],
    };
    let mut copy = cluster.node(restarted).published().state.clone();
    let effects = copy.apply(&Batch { parts: vec![late.clone()], ..Batch::default() });
    assert_eq!(effects.outcomes[0].1, Outcome::Rejected(Rejection::OutcomeUnknown));

    let fate = hand_over(&cluster, late).await;
    assert!(matches!(fate, Response::Forward(Forwarded::Committed)), "{fate:?}");
    for id in cluster.ids() {
        assert!(!cluster.has(id, "late").await);
    }
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_answered_never_takes_effect_again() {
    let cluster = Cluster::found(3, 5, PATIENT).await;
    let origin = cluster.others(cluster.leader().await)[0];
    // The second command tells the cluster that the first is answered.
    cluster.put(origin, "first").await;
    cluster.put(origin, "second").await;
    let again =
        Part { origin, incarnation: 1, answered_through: 0, commands: vec![(1, put_new("other"))] };
    hand_over(&cluster, again).await;
    assert!(!cluster.has(origin, "other").await);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_disk_is_refused_and_cannot_vote() {
    let mut cluster = Cluster::found(3, 6, IMPATIENT).await;
    let leader = cluster.leader().await;
    let [wiped, stopped] = cluster.others(leader)[..] else { panic!("three servers") };
    let (cluster_id, old_peer) = (cluster.node(leader).info().cluster_id, cluster.peer(wiped));
    cluster.stop(wiped).await;
    cluster.wipe(wiped);
    cluster.start(wiped).await;
    let refused = cluster.entered(wiped).await.unwrap_err();
    assert!(refused.contains("new --node-id"), "{refused}");

    let vote = VoteRequest::new(Vote::new(99, stopped), None);
    for request in [Request::Vote(vote.clone()), Request::PreVote(vote)] {
        let envelope = Envelope {
            cluster: cluster_id.clone(),
            from: stopped,
            to: Some(wiped),
            store: Some(old_peer.store_id.clone()),
            request: request.clone(),
            sender: cluster.node(stopped).processes().sender(),
            addressee: None,
            level: LEVEL,
        };
        let unaddressed = Envelope { to: None, store: None, ..envelope.clone() };
        let transport = cluster.network.transport_of("a test");
        for (envelope, refusal) in
            [(envelope, Refusal::WrongStore), (unaddressed, Refusal::NoAddressee)]
        {
            let answer = transport
                .call(Target::at(&address(wiped)), Purpose::Control, envelope, LIMIT)
                .await;
            assert!(matches!(answer, Ok(Response::Refused(why)) if why == refusal));
        }
    }
    assert_eq!(cluster.node(wiped).info().cluster_id, None, "it belongs nowhere");

    // With its help, one server of three would be a majority.
    cluster.stop(stopped).await;
    let answer = cluster.node(leader).propose(put_new("alone"), None).await;
    assert!(is_no_leader_or_unknown(&answer), "{answer:?}");
}

/// What a server answers to a request in the name of another one.
async fn in_the_name_of(cluster: &Cluster, from: NodeId, to: NodeId, request: Request) -> Response {
    let envelope = Envelope {
        cluster: cluster.node(from).info().cluster_id,
        from,
        to: Some(to),
        store: Some(cluster.peer(to).store_id),
        request,
        sender: cluster.node(from).processes().sender(),
        addressee: None,
        level: LEVEL,
    };
    let transport = cluster.network.transport_of("a test");
    let answer = transport.call(Target::at(&address(to)), Purpose::Control, envelope, LIMIT).await;
    answer.expect("it answers")
}

fn entry_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}

fn append(vote: Vote, previous: Option<LogId>, ids: &[LogId]) -> Request {
    let entries = ids.iter().map(|id| Entry::new_blank(*id)).collect();
    Request::Append(AppendEntriesRequest {
        vote,
        prev_log_id: previous,
        entries,
        leader_commit: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_messages_of_raft_are_refused_and_harm_nobody() {
    let mut cluster = Cluster::found(3, 21, PATIENT).await;
    cluster.put(1, "before").await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let victim = cluster.others(leader)[0];
    let term = cluster.node(victim).raft().metrics().borrow_watched().current_term;
    let leads = |term| Vote::new_committed(term, leader);
    let end = |term| entry_id(term, 1 << 20);
    for request in [
        Request::Vote(VoteRequest::new(Vote::new(u64::MAX, leader), Some(end(term)))),
        Request::PreVote(VoteRequest::new(Vote::new(u64::MAX, leader), Some(end(term)))),
        append(leads(u64::MAX), None, &[]),
        append(leads(term), Some(entry_id(term, u64::MAX)), &[]),
        append(leads(term + 1), Some(end(term)), &[entry_id(term, 7)]),
        append(leads(term + 1), Some(end(term)), &[entry_id(term + 2, end(term).index + 1)]),
        append(Vote::new_committed(term + 1, victim), None, &[]),
    ] {
        let answer = in_the_name_of(&cluster, leader, victim, request.clone()).await;
        let refused = matches!(answer, Response::Refused(Refusal::Implausible(_)));
        assert!(refused, "{request:?}: {answer:?}");
    }
    cluster.put(victim, "after").await;
    cluster.stop(victim).await;
    cluster.start(victim).await;
    cluster.put(victim, "after a restart").await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_ends_when_leaders_deny_what_it_knows_to_be_committed() {
    let cluster = Cluster::found(3, 22, PATIENT).await;
    cluster.put(1, "acknowledged").await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let [loyal, other] = cluster.others(leader)[..] else { panic!("three servers") };
    let metrics = cluster.node(loyal).raft().metrics().borrow_watched().clone();
    let term = metrics.current_term + 1;
    let committed = metrics.local_committed.expect("something is").index;
    let denial = append(Vote::new_committed(term, leader), Some(entry_id(term, committed)), &[]);
    let denied = |to| in_the_name_of(&cluster, leader, to, denial.clone());
    // Once is not enough.
    let answer = denied(other).await;
    assert!(matches!(answer, Response::Refused(Refusal::Contradicts(_))), "{answer:?}");
    let deadline = tokio::time::Instant::now() + LIMIT;
    let why = loop {
        assert!(tokio::time::Instant::now() < deadline, "it goes on");
        let answer = denied(loyal).await;
        assert!(matches!(answer, Response::Refused(Refusal::Contradicts(_))), "{answer:?}");
        let failed = cluster.node(loyal).failed();
        if let Ok(why) = tokio::time::timeout(Duration::from_millis(100), failed).await {
            break why;
        }
    };
    assert!(why.contains("no longer has entries that this server knows to be committed"), "{why}");
    let text = tokio::time::timeout(Duration::from_millis(100), cluster.node(other).failed()).await;
    assert!(text.is_err(), "one message ends nobody: {text:?}");
    cluster.put(other, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_in_the_name_of_a_server_do_not_use_up_its_numbers() {
    let cluster = Cluster::found(3, 23, PATIENT).await;
    let leader = cluster.leader().await;
    let victim = cluster.others(leader)[0];
    cluster.put(victim, "before").await;
    let incarnation = cluster.node(victim).processes().incarnation().expect("it has one");
    let forged = |answered_through, number| Part {
        origin: victim,
        incarnation,
        answered_through,
        commands: vec![(number, put_new(&format!("forged/{number}")))],
    };
    for part in [forged(1 << 63, 1_000), forged(0, 1 << 63), forged(0, u64::MAX)] {
        let answer = hand_over(&cluster, part).await;
        let refused = matches!(answer, Response::Refused(Refusal::Implausible(_)));
        assert!(refused, "{answer:?}");
    }
    let later = Part { incarnation: incarnation + 1, ..forged(0, 1) };
    let answer = hand_over(&cluster, later).await;
    assert!(matches!(answer, Response::Refused(Refusal::Starting)), "{answer:?}");
    // What is not refused costs the open commands at most.
    let answer = hand_over(&cluster, forged(1 << 31, (1 << 31) + 1)).await;
    assert!(matches!(answer, Response::Forward(Forwarded::Committed)), "{answer:?}");
    cluster.converge().await;
    cluster.put(victim, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_server_joins_and_the_leader_is_removed() {
    let mut cluster = Cluster::found(3, 7, PATIENT).await;
    for n in 0..20 {
        cluster.put(1 + n % 3, &format!("before/{n}")).await;
    }
    cluster.start(4).await;
    cluster.entered(4).await.expect("it joins");
    cluster.put(4, "through the new one").await;
    assert_eq!(voters(&cluster, 4), [1, 2, 3, 4]);

    let old = cluster.leader().await;
    let by = cluster.others(old)[0];
    cluster.node(by).remove_server(old).await.expect("it is removed");
    let remaining = cluster.others(old);
    let new = cluster.leader_among(&remaining).await;
    assert_eq!(voters(&cluster, new), remaining);
    cluster.stop(old).await;
    cluster.put(new, "after the removal").await;
    assert_eq!(
        cluster.node(new).remove_server(99).await,
        Err(MembershipError::UnknownServer("99".to_owned()))
    );
    let shown = || {
        let version = cluster.node(new).published();
        version.state.instances("consul").count()
    };
    until("the catalogue to show the three servers", LIMIT, || shown() == 3).await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_cut_short_is_completed() {
    let mut cluster = Cluster::found(3, 8, PATIENT).await;
    let leader = cluster.leader().await;
    // As far as a leader had come before it died: the newcomer is a learner, and knows it.
    cluster.start_idle(4).await;
    let peer = cluster.peer(4);
    let added = cluster.node(leader).raft().add_learner(4, peer, true).await;
    added.expect("a learner is added");
    until("the learner to know of itself", LIMIT, || cluster.node(4).leader().is_some()).await;
    cluster.stop(4).await;
    cluster.start(4).await;
    cluster.entered(4).await.expect("it enters");
    assert_eq!(voters(&cluster, 4), [1, 2, 3, 4]);
    cluster.put(4, "through the new one").await;
}

fn voters(cluster: &Cluster, id: NodeId) -> Vec<NodeId> {
    use openraft::async_runtime::WatchReceiver;
    let metrics = cluster.node(id).raft().metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.voter_ids().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_entry_came_in_a_snapshot_is_answered_from_the_origin_record() {
    let cluster = Cluster::found(3, 9, PATIENT).await;
    let leader = cluster.leader().await;
    let [far, near] = cluster.others(leader)[..] else { panic!("three servers") };
    cluster.put(far, "before").await;
    // Nothing reaches the far server, but what it says is heard: its command is committed, and it
    // does not learn of it.
    for other in [leader, near] {
        cluster.network.cut(&address(other), &address(far));
    }
    let waiting = tokio::spawn({
        let node = Arc::clone(cluster.node(far));
        async move { node.propose(put_new("by the far one"), None).await }
    });
    until("its command to be committed", LIMIT, || {
        let version = cluster.node(leader).published();
        version.state.key("by the far one").is_some()
    })
    .await;
    // From here on it cannot send it again either.
    cluster.isolate(far);
    for n in 0..30 {
        cluster.put(leader, &format!("meanwhile/{n}")).await;
    }
    for id in [leader, near] {
        cluster.compact(id).await;
    }
    let created = cluster.node(leader).published().state.key("by the far one").unwrap().indexes;

    assert!(!waiting.is_finished());
    cluster.network.heal();
    cluster.network.mute(&address(far));
    let answer = tokio::time::timeout(LIMIT, waiting).await.expect("it is answered").unwrap();
    assert_eq!(answer, Ok(Outcome::Condition(true)));
    assert!(cluster.network.counts().snapshots.load(Ordering::Relaxed) > 0);
    let version = cluster.node(far).published();
    assert_eq!(version.state.key("by the far one").unwrap().indexes, created, "applied once");
    assert_eq!(version.state.keys_below("meanwhile/").count(), 30);
    cluster.network.heal();
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_from_a_snapshot_of_everything_answers_reads() {
    let mut cluster = Cluster::found(3, 10, PATIENT).await;
    let restarted = cluster.others(cluster.leader().await)[0];
    cluster.put(restarted, "before").await;
    until("the catalogue to show the servers", LIMIT, || {
        cluster.node(restarted).published().state.instances("consul").count() == 3
    })
    .await;
    cluster.converge().await;
    cluster.compact(restarted).await;
    cluster.stop(restarted).await;
    cluster.start(restarted).await;
    // Nobody writes: there is nothing to apply that would tell the node where it stands.
    let read = cluster.node(restarted).read(Consistency::Linearizable);
    let version = tokio::time::timeout(LIMIT, read).await.unwrap().expect("it is answered");
    assert!(version.state.key("before").is_some());
}

/// The servers whose own check is critical at any of the nodes.
fn called_lost(cluster: &Cluster) -> BTreeSet<String> {
    let lost = |version: Arc<Published>| {
        let nodes: Vec<_> = version.state.nodes().map(|node| Arc::clone(&node.name)).collect();
        nodes.into_iter().filter_map(move |name| {
            let check = version.state.check(&name, SERF_HEALTH)?;
            (check.registration.status == CheckStatus::Critical).then(|| name.to_string())
        })
    };
    cluster.nodes().iter().flat_map(|node| lost(node.published())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_calls_nobody_lost() {
    // It holds commands until the others answer again, and whatever it concluded meanwhile would be committed.
    let cluster = Cluster::found(3, 31, PATIENT).await;
    let leader = cluster.leader().await;
    let all_shown = || {
        let state = &cluster.node(leader).published().state;
        cluster.ids().iter().all(|id| state.check(&format!("n{id}"), SERF_HEALTH).is_some())
    };
    until("the catalogue to show all servers", LIMIT, all_shown).await;
    let others = cluster.others(leader);
    // No two servers reach each other, so nobody else can be elected.
    for id in cluster.ids() {
        cluster.isolate(id);
    }
    let cut_off = Instant::now();
    while cut_off.elapsed() < LONG_SILENCE {
        assert_eq!(called_lost(&cluster), BTreeSet::new());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.network.heal();
    cluster.leader().await;
    let healed = Instant::now();
    while healed.elapsed() < LONG_SILENCE {
        assert_eq!(called_lost(&cluster), BTreeSet::new(), "{:?} after", healed.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Silence still counts where there is a quorum.
    cluster.isolate(others[0]);
    let expected = BTreeSet::from([format!("n{}", others[0])]);
    until("the one that is cut off to be called lost", LIMIT, || called_lost(&cluster) == expected)
        .await;
}

/// Why a server ended.
async fn ended(cluster: &Cluster, id: NodeId) -> String {
    let ended = tokio::time::timeout(LIMIT, cluster.node(id).failed());
    ended.await.expect("it ends in time")
}

/// A server with an entry in its log that is not what the cluster agreed on, though term and index are.
async fn with_a_forged_entry(seed: u64) -> (Cluster, NodeId) {
    let mut cluster = Cluster::found(3, seed, PATIENT).await;
    let leader = cluster.leader().await;
    let forged = cluster.others(leader)[0];
    cluster.put(leader, "forged").await;
    cluster.converge().await;
    cluster.stop(forged).await;
    cluster.forge(forged, "forged");
    cluster.start(forged).await;
    (cluster, forged)
}

/// This server ends and says why; the others are told, and continue without it.
async fn assert_only_it_ends(cluster: &mut Cluster, wrong: NodeId) {
    let why = ended(cluster, wrong).await;
    assert!(why.contains("is not that of a majority of the servers"), "{why}");
    for id in cluster.others(wrong) {
        let node = cluster.node(id);
        until("every server to be told", LIMIT, || node.comparison().divergences() > 0).await;
        let failed = tokio::time::timeout(Duration::from_millis(10), node.failed()).await;
        assert!(failed.is_err(), "server {id} ended too: {failed:?}");
    }
    cluster.stop(wrong).await;
    cluster.leader().await;
    cluster.put(cluster.ids()[0], "afterwards").await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_state_differs_from_the_others_ends() {
    let (mut cluster, forged) = with_a_forged_entry(32).await;
    assert_only_it_ends(&mut cluster, forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_differs_from_that_of_its_followers_ends() {
    let (mut cluster, forged) = with_a_forged_entry(33).await;
    cluster.leader().await;
    cluster.node(forged).hand_over(Some(forged)).await.expect("it has the whole log");
    assert!(cluster.node(forged).leads());
    assert_only_it_ends(&mut cluster, forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_compared_while_entries_are_applied_all_the_time() {
    let cluster = Cluster::found(3, 34, PATIENT).await;
    let leader = cluster.leader().await;
    let writers = (0..8).map(|writer| {
        let cluster = &cluster;
        async move {
            let began = Instant::now();
            let mut number = 0;
            let compared = || cluster.node(leader).comparison().compared();
            while compared() < 2 {
                assert!(began.elapsed() < LIMIT, "nothing was compared");
                cluster.put(leader, &format!("{writer}/{number}")).await;
                number += 1;
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for id in cluster.ids() {
        assert_eq!(cluster.node(id).comparison().divergences(), 0);
    }
    cluster.converge().await;
}

/// Writes or deletes some keys in one transaction.
fn transaction(verb: KeyVerb, numbers: Range<usize>) -> Command {
    let operation = |number: usize| TxnOperation::Key {
        verb,
        key: format!("key/{number}").into(),
        value: Bytes::new(),
        flags: 0,
        index: 0,
        session: "".into(),
    };
    Command::Txn(numbers.map(operation).collect())
}

/// A service with a check of this TTL.
fn with_ttl(ttl: Millis) -> Command {
    let check = CheckRegistration {
        id: "alive".into(),
        name: "alive".to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: "web".into(),
        kind: "ttl".to_owned(),
        definition: CheckDefinition { ttl, ..CheckDefinition::default() },
    };
    let (id, name) = ("web".into(), "web".into());
    Command::AgentRegisterService {
        agent: Agent { name: "h1".into(), id: "i1".to_owned(), address: "10.0.0.1".to_owned() },
        service: Box::new(ServiceDefinition { id, name, ..ServiceDefinition::default() }),
        checks: vec![check],
        replace_existing_checks: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_due_tombstones_delay_no_expiry() {
    /// All of them come due before the check does.
    const TOMBSTONES: usize = 50_000;
    const IN_ONE_TRANSACTION: usize = 100;
    /// Longer than a tombstone is kept.
    const LATER: Millis = Millis::from_secs(20 * 60);
    const TTL: Millis = Millis(200);
    /// 500 ms are promised, on a machine that does nothing else.
    const LATE_MAX: Millis = Millis(1_500);
    let cluster = Cluster::found(3, 35, PATIENT).await;
    for from in (0..TOMBSTONES).step_by(IN_ONE_TRANSACTION) {
        for verb in [KeyVerb::Set, KeyVerb::Delete] {
            let transaction = transaction(verb, from..from + IN_ONE_TRANSACTION);
            let outcome = cluster.node(1).propose(transaction, None).await;
            assert!(matches!(outcome, Ok(Outcome::Txn(_) | Outcome::AppliedAt(_))), "{outcome:?}");
        }
    }
    // The log hears of a later time. The leader's own clock does not follow; the next one's begins there.
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let stamp = node.published().state.time() + LATER;
    let later = Batch { stamp, duty: None, parts: Vec::new() };
    node.raft().client_write(later).await.expect("it is applied");
    let registered = node.propose(with_ttl(TTL), None).await;
    assert_eq!(registered, Ok(Outcome::Done));
    node.hand_over(None).await.expect("another one leads");

    let observer = cluster.node(cluster.others(leader)[0]);
    let mut expired = None;
    until("the check to expire", LIMIT, || {
        let version = observer.published();
        let state = &version.state;
        // This server may not have applied the registration yet.
        expired = state.check("h1", "alive").and_then(|check| {
            Some((check.critical_since?, state.last_seen(check.number), state.next_reaping()))
        });
        expired.is_some()
    })
    .await;
    let (at, seen, next_reaping) = expired.expect("it expired");
    let deadline = seen.unwrap_or(stamp) + TTL;
    assert!(at >= deadline && at.since(deadline) <= LATE_MAX, "due at {deadline}, expired at {at}");
    assert!(next_reaping.is_some_and(|due| due <= at), "vacuous: no tombstone was left");
    until("the tombstones to be reaped", LIMIT, || {
        observer.published().state.next_reaping().is_none()
    })
    .await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_rises_when_all_servers_know_the_rules_and_an_older_one_is_refused_then() {
    let mut cluster = Cluster::found_at(3, 11, PATIENT, 0).await;
    let level = |cluster: &Cluster, id| cluster.node(id).published().state.level();
    for id in 1..=3 {
        cluster.put(id, &format!("before {id} is upgraded")).await;
        assert_eq!(level(&cluster, id), 0, "server {id} does not know more yet");
        cluster.stop(id).await;
        cluster.set_level(id, LEVEL);
        cluster.start(id).await;
        cluster.entered(id).await.expect("it enters");
    }
    until("the level to rise", LIMIT, || (1..=3).all(|id| level(&cluster, id) == LEVEL)).await;
    cluster.converge().await;

    // One that would join.
    cluster.set_level(4, 0);
    cluster.start(4).await;
    let leader = cluster.leader_among(&[1, 2, 3]).await;
    let info = ServerInfo {
        id: 4,
        peer: cluster.peer(4),
        disk: DiskState::default(),
        datacenter: "dc1".to_owned(),
    };
    let envelope = Envelope {
        cluster: None,
        from: 4,
        to: None,
        store: None,
        request: Request::Join(info),
        sender: cluster.node(4).processes().sender(),
        addressee: None,
        level: 0,
    };
    let transport = cluster.network.transport_of("a test");
    let answer = transport
        .call(Target::at(&address(leader)), Purpose::Control, envelope, LIMIT)
        .await
        .unwrap();
    let Response::Changed(Err(refusal)) = answer else { panic!("{answer:?}") };
    assert!(refusal.to_string().contains("the cluster has level"), "{refusal}");
    assert_eq!(voters(&cluster, leader), [1, 2, 3]);
    cluster.stop(4).await;
    cluster.set_level(4, LEVEL);
    cluster.start(4).await;
    cluster.entered(4).await.expect("it enters");

    // One that is a member and comes back as what it was.
    let follower = cluster.others(cluster.leader().await)[0];
    cluster.stop(follower).await;
    cluster.set_level(follower, 0);
    cluster.start(follower).await;
    let ended = cluster.node(follower).processes().ended().await;
    assert!(ended.to_string().contains("the cluster has level"), "{ended}");
}
