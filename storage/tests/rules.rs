//! Single rules that a script cannot show well.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::borrow::Cow;
use std::sync::Arc;

use quorate_storage::command::{
    Batch, CatalogRegistration, Command, CommandId, Duty, KvDeleteMode, KvPutMode, Outcome, Part,
    Rejection, SessionRequest,
};
use quorate_storage::machine::Published;
use quorate_storage::record::{CheckStatus, FromFile as _, ServiceDefinition, SessionBehavior};
use quorate_storage::state::{ANSWERED_PER_NOTE, FILE_MARK_LEVEL, SnapshotRecord};
use quorate_storage::{ClusterTime, Effects, Millis, State, Topic, backup};

fn part(seq: u64, command: Command) -> Part {
    Part { origin: 1, incarnation: 1, answered_through: 0, commands: vec![(seq, command)] }
}

fn apply(state: &mut State, seq: u64, command: Command) -> Effects {
    let batch = Batch { stamp: state.time(), duty: None, parts: vec![part(seq, command)] };
    state.apply(&batch)
}

fn command_id(seq: u64) -> CommandId {
    CommandId { origin: 1, incarnation: 1, seq }
}

/// A state with a passing TTL check, and the check's number.
fn with_ttl_check() -> (State, u64) {
    let mut state = State::default();
    let mut check = common::check("c", CheckStatus::Passing);
    check.definition.ttl = Millis(10_000);
    let agent = common::agent("h1");
    apply(&mut state, 1, Command::AgentRegisterCheck { agent, check: Box::new(check) });
    let number = state.check("h1", "c").unwrap().number;
    (state, number)
}

fn heartbeat(number: u64, seen: ClusterTime) -> Command {
    Command::Heartbeat { number, status: CheckStatus::Passing, output: String::new(), seen }
}

#[test]
fn a_heartbeat_that_changes_nothing_wakes_nobody_and_copies_no_row() {
    let (mut state, number) = with_ttl_check();
    let (index, row) = (state.index(), state.check("h1", "c").unwrap().clone());
    state.apply(&Batch { stamp: ClusterTime(7_000), ..Batch::default() });
    let seen = state.time();
    let effects = apply(&mut state, 2, heartbeat(number, seen));
    assert_eq!(effects.outcomes, [(command_id(2), Outcome::Done)]);
    assert!(effects.touched.is_empty());
    assert_eq!(state.index(), index);
    assert!(Arc::ptr_eq(&row, state.check("h1", "c").unwrap()));
    assert_eq!(state.last_seen(number), Some(ClusterTime(7_000)));
}

#[test]
fn a_version_that_a_reader_holds_does_not_change() {
    let (mut state, number) = with_ttl_check();
    let held = state.clone();
    let hash = held.hash();
    state.apply(&Batch { stamp: ClusterTime(7_000), ..Batch::default() });
    let seen = state.time();
    apply(&mut state, 2, heartbeat(number, seen));
    assert_eq!(held.hash(), hash);
    assert_ne!(state.hash(), hash);
}

#[test]
fn time_never_runs_backwards_and_nothing_expires_before_it_came() {
    let (mut state, _) = with_ttl_check();
    state.apply(&Batch { stamp: ClusterTime(9_999), ..Batch::default() });
    // The duty may name a later time than its own stamp; the state's time decides.
    let duty = Some(Duty::ExpireDue { up_to: ClusterTime(50_000), max: 512 });
    let effects = state.apply(&Batch { stamp: ClusterTime(5), duty: duty.clone(), parts: vec![] });
    assert!(effects.touched.is_empty());
    assert_eq!(state.time(), ClusterTime(9_999));
    let effects = state.apply(&Batch { stamp: ClusterTime(10_000), duty, parts: vec![] });
    assert!(effects.touched.contains(&Topic::Checks));
}

#[test]
fn an_outcome_is_remembered_until_it_is_answered() {
    let mut state = State::default();
    let put = |mode| Command::KvPut { key: "k".into(), value: "v".into(), flags: 0, mode };
    apply(&mut state, 1, put(KvPutMode::Cas(0)));
    assert_eq!(state.remembered(command_id(1)), Some(Outcome::Condition(true)));
    let answered = Part { answered_through: 1, ..part(2, put(KvPutMode::Cas(0))) };
    state.apply(&Batch { parts: vec![answered], ..Batch::default() });
    assert_eq!(state.remembered(command_id(1)), None);
    assert_eq!(state.remembered(command_id(2)), Some(Outcome::Condition(false)));
}

/// Outcomes that the state remembers.
fn remembered(state: &State) -> usize {
    let mut count = 0;
    let mut look = |record: SnapshotRecord<'_>| {
        count += usize::from(matches!(record, SnapshotRecord::Outcome { .. }));
        Ok(())
    };
    state.export(&mut look).unwrap();
    count
}

#[test]
fn a_lost_command_does_not_keep_the_outcomes_of_those_behind_it() {
    let mut state = State::default();
    let put =
        || Command::KvPut { key: "k".into(), value: "v".into(), flags: 0, mode: KvPutMode::Cas(0) };
    // Number 1 is lost. Each part has 64 commands, and the origin answers them as they are applied.
    for first in (2..250_000).step_by(64) {
        let mut commands: Vec<_> = (first..first + 64).map(|seq| (seq, put())).collect();
        if (first - 2) % ANSWERED_PER_NOTE == 0 && first > 2 {
            commands.insert(0, (0, Command::Answered { runs: vec![(2, first - 1)] }));
        }
        let part = Part { commands, ..part(0, put()) };
        state.apply(&Batch { parts: vec![part], ..Batch::default() });
    }
    assert!(remembered(&state) <= 1_024 + 64, "{} outcomes", remembered(&state));
    let hash = state.hash();
    apply(&mut state, 100_000, put());
    assert_eq!(state.hash(), hash, "a late copy of an answered command was applied");
    apply(&mut state, 1, Command::KvDelete { key: "k".into(), mode: KvDeleteMode::One });
    assert_eq!(state.remembered(command_id(1)), Some(Outcome::Condition(true)));
    assert!(state.key("k").is_none(), "the lost command was not applied when it came");
}

#[test]
fn large_outcomes_are_remembered_by_what_is_true_of_them() {
    let mut state = State::default();
    let long = "x".repeat(2_000);
    let session = SessionRequest {
        id: long.as_str().into(),
        agent: common::agent("h1"),
        node: "".into(),
        name: String::new(),
        lock_delay_nanos: 0,
        behavior: SessionBehavior::Release,
        ttl_text: String::new(),
        ttl: Millis::ZERO,
        node_checks: Vec::new(),
        service_checks: None,
        checks: None,
    };
    let told = apply(&mut state, 1, Command::SessionCreate(Box::new(session)));
    assert_eq!(told.outcomes[0].1, Outcome::Id(long.as_str().into()));
    assert_eq!(state.remembered(command_id(1)), Some(Outcome::AppliedAt(state.index())));

    let agent = common::agent("h1");
    let unknown = Command::AgentDeregisterCheck { agent, check_id: long.as_str().into() };
    let told = apply(&mut state, 2, unknown);
    assert_eq!(told.outcomes[0].1, Outcome::Rejected(Rejection::UnknownCheck(long)));
    let kept = state.remembered(command_id(2));
    assert_eq!(kept, Some(Outcome::Rejected(Rejection::OutcomeUnknown)));
}

#[test]
fn a_snapshot_whose_records_contradict_each_other_is_refused() {
    let (state, _) = with_ttl_check();
    let records = common::export(&state);
    let decode = |bytes: &Vec<u8>| {
        postcard::from_bytes::<SnapshotRecord<'static>>(bytes).map_err(std::io::Error::other)
    };
    assert!(State::import(records.iter().map(decode)).is_ok());
    // Leaving out any one record that others refer to, or the header, is noticed.
    for missing in [0, 1] {
        let rest = records.iter().enumerate().filter(|(at, _)| *at != missing);
        let refused = State::import(rest.map(|(_, bytes)| decode(bytes)));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
    // So is a record that comes twice.
    for twice in 0..records.len() {
        let doubled = records.iter().chain([&records[twice]]);
        let is_harmless = matches!(
            decode(&records[twice]),
            Ok(SnapshotRecord::Origin { .. } | SnapshotRecord::Outcome { .. })
        );
        assert!(is_harmless || State::import(doubled.map(decode)).is_err(), "record {twice}");
    }
}

/// An instance with many tags and many checks.
fn with_many_checks() -> State {
    let mut state = State::default();
    let mut service = common::service("web-1", "web", "", 80);
    service.tags = (0..1_000).map(|n| format!("{n:064}")).collect();
    let checks = (0..250).map(|n| common::check(&format!("c{n}"), CheckStatus::Passing));
    let register = Command::AgentRegisterService {
        agent: common::agent("h1"),
        service: Box::new(service),
        checks: checks.collect(),
        replace_existing_checks: false,
    };
    apply(&mut state, 1, register);
    state
}

/// Whether all checks of the instance share its texts with it and with each other.
fn are_shared(state: &State) -> bool {
    let service = state.service("h1", "web-1").unwrap();
    let node = state.node("h1").unwrap();
    let mut checks = state.checks_of(service);
    checks.all(|check| {
        let is_nodes = check.registration.service_id.is_empty();
        Arc::ptr_eq(&check.node, &node.name)
            && (is_nodes
                || (Arc::ptr_eq(&check.service_tags, &service.definition.tags)
                    && Arc::ptr_eq(&check.service_name, &service.definition.name)
                    && Arc::ptr_eq(&check.registration.service_id, &service.definition.id)))
    })
}

#[test]
fn the_checks_of_an_instance_cost_its_tags_once_in_memory_and_in_snapshots() {
    const TAGS_BYTES: usize = 64 * 1_000;
    let mut state = with_many_checks();
    assert!(are_shared(&state));
    let bytes = |state: &State| common::export(state).iter().map(Vec::len).sum::<usize>();
    assert!(bytes(&state) < 2 * TAGS_BYTES, "{} bytes", bytes(&state));
    let version = Published { state: state.clone(), ..Published::default() };
    let written = backup::write(&version, Vec::new()).unwrap().len();
    assert!(written < 2 * TAGS_BYTES, "a backup of {written} bytes");
    let imported = common::import(&common::export(&state));
    assert!(are_shared(&imported));
    assert_eq!(imported.hash(), state.hash());
    // So it stays when a check or the service is registered again, or a status comes in.
    let mut service = common::service("web-1", "web", "", 80);
    service.tags = ["new".to_owned()].into();
    let mut check = common::check("c1", CheckStatus::Warning);
    check.service_id = "web-1".into();
    let catalog = CatalogRegistration {
        node: "h1".into(),
        skip_node_update: true,
        service: Some(service),
        checks: vec![check.clone()],
        ..CatalogRegistration::default()
    };
    apply(&mut state, 2, Command::CatalogRegister(Box::new(catalog)));
    check.id = "another".into();
    let agent = common::agent("h1");
    apply(&mut state, 3, Command::AgentRegisterCheck { agent, check: Box::new(check) });
    assert!(are_shared(&state));
    assert_eq!(*state.check("h1", "another").unwrap().service_tags, ["new".to_owned()]);
    state.check_invariants().unwrap();
}

#[test]
fn a_snapshot_that_repeats_a_services_tags_in_each_check_is_read_as_well() {
    let state = with_many_checks();
    let records = common::export(&state);
    let repeated = records.iter().map(|bytes| {
        let record: SnapshotRecord<'static> = postcard::from_bytes(bytes).unwrap();
        let SnapshotRecord::CheckOfService { row, last_seen } = record else { return Ok(record) };
        let row = state.check(&row.node, &row.registration.id).unwrap();
        Ok(SnapshotRecord::Check { row: Cow::Owned(row.as_ref().clone()), last_seen })
    });
    let imported = State::import(repeated).unwrap();
    assert!(are_shared(&imported));
    assert_eq!(imported.hash(), state.hash());
}

#[test]
fn every_visible_expiry_has_an_index_of_its_own() {
    let mut state = State::default();
    for (seq, id) in [(1, "a"), (2, "b"), (3, "c")] {
        let mut check = common::check(id, CheckStatus::Passing);
        check.definition.ttl = Millis(1_000);
        let agent = common::agent("h1");
        apply(&mut state, seq, Command::AgentRegisterCheck { agent, check: Box::new(check) });
    }
    let before = state.index();
    let duty = Some(Duty::ExpireDue { up_to: ClusterTime(1_000), max: 512 });
    state.apply(&Batch { stamp: ClusterTime(1_000), duty, parts: vec![] });
    assert_eq!(state.index().0, before.0 + 3);
}

#[test]
fn a_version_of_the_probes_tells_what_changed_since_an_earlier_one() {
    let mut state = State::default();
    let mut seq = 0;
    let mut register = |state: &mut State, id: &str, port: u64| {
        let mut check = common::check(id, CheckStatus::Critical);
        check.definition.tcp = format!("10.0.0.1:{port}");
        seq += 1;
        let agent = common::agent("h1");
        let command = Command::AgentRegisterCheck { agent, check: Box::new(check) };
        apply(state, seq, command);
    };
    for number in 0..500 {
        register(&mut state, &format!("c{number}"), 80);
    }
    let before = state.probes().clone();
    register(&mut state, "c250", 80);
    assert_eq!(state.probes().changes_since(&before), [], "a repetition changes nothing");
    register(&mut state, "c100", 81);
    register(&mut state, "new", 80);
    let mut known: std::collections::BTreeMap<u64, u64> = before.iter().collect();
    let changes = state.probes().changes_since(&before);
    assert_eq!(changes.len(), 2, "{changes:?}");
    for change in changes {
        known.insert(change.check, change.probe.unwrap());
    }
    assert!(known.into_iter().eq(state.probes().iter()));
    let gone = state.probes().clone();
    let nothing = State::default();
    assert_eq!(nothing.probes().changes_since(&gone).len(), 501);
}

/// A cluster of a level in which agent `h1` has an instance from a file.
fn with_service_of_file(level: u32) -> (State, ServiceDefinition) {
    let mut state = State::default();
    state.apply(&Batch { duty: Some(Duty::Level(level)), ..Batch::default() });
    let given = common::service("w", "web", "10.1.1.1", 80);
    let mut marked = given.clone();
    marked.mark_from_file();
    register_at(&mut state, 1, "h1", marked);
    assert!(state.service("h1", "w").unwrap().definition.is_from_file());
    (state, given)
}

fn register_at(state: &mut State, seq: u64, agent: &str, service: ServiceDefinition) {
    let (agent, service) = (common::agent(agent), Box::new(service));
    let (checks, replace_existing_checks) = (Vec::new(), false);
    apply(
        state,
        seq,
        Command::AgentRegisterService { agent, service, checks, replace_existing_checks },
    );
}

#[test]
fn what_is_written_through_the_catalogue_keeps_the_mark_of_a_file_once_all_servers_know_it() {
    for (level, is_kept) in [(FILE_MARK_LEVEL - 1, false), (FILE_MARK_LEVEL, true)] {
        let (mut state, given) = with_service_of_file(level);
        let registration = CatalogRegistration {
            node: "h1".into(),
            skip_node_update: true,
            service: Some(ServiceDefinition { port: 81, ..given.clone() }),
            ..CatalogRegistration::default()
        };
        apply(&mut state, 2, Command::CatalogRegister(Box::new(registration)));
        let written = &state.service("h1", "w").unwrap().definition;
        assert_eq!((written.port, written.is_from_file()), (81, is_kept));
        // Its agent's clients take it over.
        register_at(&mut state, 3, "h1", given);
        assert!(!state.service("h1", "w").unwrap().definition.is_from_file());
    }
}

#[test]
fn no_agent_marks_what_another_has() {
    let (mut state, mut given) = with_service_of_file(FILE_MARK_LEVEL);
    given.mark_from_file();
    // The very same instance is not a second one, and in none of the other's files.
    register_at(&mut state, 2, "h2", given);
    assert!(state.service("h2", "w").is_none());
    assert!(!state.service("h1", "w").unwrap().definition.is_from_file());
}
