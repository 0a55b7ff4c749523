//! What one entry may be about, however much that is: how long its apply takes, and what comes back.
//!
//! `QUORATE_BULK=1300000 cargo test --release -p quorate-storage --test bulk -- --nocapture` prints the
//! times for so many keys, and for fewer of everything else. Without it the numbers are small, and only
//! what does not depend on the machine is judged.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "it measures how long something takes")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_storage::command::{
    Batch, Command, Duty, KvDeleteMode, KvPutMode, Outcome, Part, Rejection, SessionRequest,
};
use quorate_storage::machine::Published;
use quorate_storage::record::{CheckStatus, SESSION_KEYS_MAX, SessionBehavior};
use quorate_storage::state::{LEVEL, SESSION_KEYS_LEVEL};
use quorate_storage::{Effects, Millis, State, Topic, backup};

/// Keys when nothing is said.
const KEYS: usize = 20_000;
/// How much of a backup one command carries (as the node has it).
const PIECE_BYTES: usize = 256 * 1024;

fn keys() -> usize {
    std::env::var("QUORATE_BULK").map_or(KEYS, |text| text.parse().unwrap())
}

#[derive(Default)]
struct Bench {
    state: State,
    seq: u64,
    /// A version that a reader holds, as the node publishes one after each entry.
    published: State,
}

impl Bench {
    fn apply(&mut self, command: Command) -> (Effects, Duration) {
        self.seq += 1;
        let commands = vec![(self.seq, command)];
        let part = Part { origin: 1, incarnation: 1, answered_through: self.seq - 1, commands };
        self.apply_batch(&Batch { stamp: self.state.time(), duty: None, parts: vec![part] })
    }

    fn apply_batch(&mut self, batch: &Batch) -> (Effects, Duration) {
        let begin = Instant::now();
        let effects = self.state.apply(batch);
        self.published = self.state.clone();
        let took = begin.elapsed();
        for (_, outcome) in &effects.outcomes {
            assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        }
        (effects, took)
    }

    fn put(&mut self, key: &str, mode: KvPutMode) {
        let value = Bytes::from_static(b"sixteen bytes...");
        self.apply(Command::KvPut { key: key.into(), value, flags: 0, mode });
    }

    fn filled(prefix: &str, keys: usize) -> Self {
        let mut bench = Self::default();
        (0..keys).for_each(|n| bench.put(&format!("{prefix}{n:08}"), KvPutMode::Set));
        bench
    }
}

fn print(what: &str, number: usize, took: Duration) {
    println!("{number:>9} {what:<40} {:>9.3} ms", took.as_secs_f64() * 1e3);
}

/// Resident memory of this process, in MiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / (1 << 20)
}

#[test]
fn a_prefix_is_deleted_in_one_step_that_leaves_next_to_nothing() {
    let number = keys();
    let empty = resident();
    let mut bench = Bench::filled("a/", number);
    bench.put("b", KvPutMode::Set);
    let full = resident();
    let before = bench.state.clone();
    let command = Command::KvDelete { key: "a/".into(), mode: KvDeleteMode::Recurse };
    let (effects, took) = bench.apply(command);
    print("keys below a prefix deleted", number, took);
    assert_eq!(effects.touched.into_iter().collect::<Vec<_>>(), [Topic::Prefix("a/".into())]);
    // Who had the old version still has it.
    assert_eq!(before.keys_below("a/").count(), number);
    let begin = Instant::now();
    assert_eq!(bench.state.keys_below("a/").count(), 0);
    let index = bench.state.topic_index(&Topic::Prefix("a/".into()));
    print("below it: list and index", number, begin.elapsed());
    assert_eq!(index, bench.state.index());
    bench.state.check_invariants().unwrap();
    let records = common::export(&bench.state).len();
    assert!(records < 10, "{records} records for one key");
    drop(before);
    let begin = Instant::now();
    // Freed behind the scenes; judged by what an allocator kept only in the printed figures.
    while begin.elapsed() < Duration::from_secs(2) && number > KEYS && resident() > full / 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "MiB resident: {empty} empty, {full} full, {} after {:?}",
        resident(),
        begin.elapsed()
    );
}

#[test]
fn a_restore_takes_no_longer_than_its_pieces() {
    let number = keys();
    let mut bench = Bench::filled("a/", number);
    for n in 0..number / 100 {
        register(&mut bench, n, 1);
    }
    let version = Published { state: bench.state.clone(), ..Published::default() };
    let begin = Instant::now();
    let backup: Bytes = backup::write(&version, Vec::new()).unwrap().into();
    print("keys written as a backup, off the runtime", number, begin.elapsed());
    bench.apply(Command::RestoreBegin { id: "r".into() });
    let mut longest = Duration::ZERO;
    for (at, piece) in backup.chunks(PIECE_BYTES).enumerate() {
        let offset = (at * PIECE_BYTES) as u64;
        let piece = Bytes::copy_from_slice(piece);
        longest =
            longest.max(bench.apply(Command::RestorePiece { id: "r".into(), offset, piece }).1);
        bench.put("meanwhile", KvPutMode::Set);
    }
    print("pieces of a backup, the longest", backup.len().div_ceil(PIECE_BYTES), longest);
    let stamp = bench.state.time() + Millis(5_000);
    bench.apply_batch(&Batch { stamp, ..Batch::default() });
    let (_, took) = bench.apply(Command::RestoreFinish { id: "r".into() });
    print("keys restored, the last step", number, took);
    assert_eq!(bench.state.keys_below("a/").count(), number);
    assert!(bench.state.key("meanwhile").is_none());
    assert_eq!(bench.state.services().count(), number / 100);
    if number <= KEYS {
        bench.state.check_invariants().unwrap();
    }
}

fn register(bench: &mut Bench, n: usize, hosts: usize) {
    let mut check = common::check(&format!("c{n}"), CheckStatus::Passing);
    check.definition.ttl = Millis(30_000);
    let service = common::service(&format!("web-{n}"), "web", "10.1.1.1", 80);
    bench.apply(Command::AgentRegisterService {
        agent: common::agent(&format!("h{}", n % hosts)),
        service: Box::new(service),
        checks: vec![check],
        replace_existing_checks: false,
    });
}

#[test]
fn what_else_one_entry_may_be_about() {
    let number = keys() / 20;
    let mut bench = Bench::default();
    (0..number).for_each(|n| register(&mut bench, n, 1));
    let begin = Instant::now();
    let _ = bench.state.hash();
    print("services with a check: state hash", number, begin.elapsed());
    let records = common::export(&bench.state);
    let begin = Instant::now();
    common::import(&records);
    print("services with a check: import", number, begin.elapsed());
    let service_id = "web-7".into();
    let command = Command::AgentDeregisterService { agent: common::agent("h0"), service_id };
    print("services, one of them deregistered", number, bench.apply(command).1);
    let stamp = bench.state.time() + Millis(60_000);
    let duty = Some(Duty::Expire { up_to: stamp, max: 512 });
    let (effects, took) = bench.apply_batch(&Batch { stamp, duty, parts: Vec::new() });
    assert!(!effects.touched.is_empty());
    print("TTL checks due: one entry of expiry", number, took);
    bench.state.check_invariants().unwrap();
    let before = bench.state.clone();
    let agent = common::agent("h0");
    let (effects, took) = bench.apply(Command::AgentLeave { agent });
    print("services on a node that leaves", number, took);
    assert_eq!(bench.state.services().count(), 0);
    bench.state.check_invariants().unwrap();
    // Who had the old version still has it.
    assert_eq!(before.services().count(), number - 1);
    let index = bench.state.index();
    for topic in
        [Topic::service("web"), Topic::Services, Topic::Nodes, Topic::node("h0"), Topic::Checks]
    {
        assert!(effects.touched.contains(&topic), "{topic:?}");
        assert_eq!(bench.state.topic_index(&topic), index, "{topic:?}");
    }
}

/// The sessions of one agent, of which only the first needs more than that the agent is alive.
#[test]
fn a_check_that_turns_critical_ends_its_own_sessions_only() {
    let number = keys() / 20;
    let mut bench = Bench::default();
    (0..number).for_each(|n| register(&mut bench, n, 1));
    for n in 0..number {
        let needed = if n == 0 { "c0" } else { "serfHealth" };
        let mut request = session(&format!("s{n}"), "h0", SessionBehavior::Release);
        request.node_checks = vec![needed.to_owned()];
        bench.apply(Command::SessionCreate(Box::new(request)));
    }
    let stamp = bench.state.time() + Millis(60_000);
    let duty = Some(Duty::ExpireDue { up_to: stamp, max: 512 });
    let (_, took) = bench.apply_batch(&Batch { stamp, duty, parts: Vec::new() });
    print("sessions of a node, 512 checks due on it", number, took);
    assert_eq!(bench.state.sessions().count(), number - 1);
    assert!(bench.state.session("s0").is_none());
    bench.state.check_invariants().unwrap();
    let (_, took) = bench.apply(Command::AgentLeave { agent: common::agent("h0") });
    print("services and sessions on a node that leaves", number, took);
    assert_eq!(bench.state.sessions().count(), 0);
    bench.state.check_invariants().unwrap();
}

fn session(id: &str, agent: &str, behavior: SessionBehavior) -> SessionRequest {
    SessionRequest {
        agent: common::agent(agent),
        node: "".into(),
        id: id.into(),
        name: String::new(),
        lock_delay_nanos: 15_000_000_000,
        behavior,
        ttl_text: String::new(),
        ttl: Millis::ZERO,
        node_checks: Vec::new(),
        service_checks: None,
        checks: None,
    }
}

#[test]
fn a_session_that_ends_takes_all_its_locks_along() {
    let number = keys() / 20;
    for behavior in [SessionBehavior::Release, SessionBehavior::Delete] {
        let mut bench = Bench::default();
        bench.apply(Command::SessionCreate(Box::new(session("s", "h1", behavior))));
        let lock = |bench: &mut Bench, prefix: &str| {
            for n in 0..number {
                bench.put(&format!("{prefix}{n}"), KvPutMode::Acquire("s".into()));
            }
        };
        lock(&mut bench, "l/");
        let command = Command::KvDelete { key: "l/".into(), mode: KvDeleteMode::Recurse };
        print("locks below a prefix deleted", number, bench.apply(command).1);
        lock(&mut bench, "m/");
        let (_, took) = bench.apply(Command::SessionDestroy { id: "s".into() });
        print(&format!("locks of a session that ends: {behavior:?}"), number, took);
        assert_eq!(bench.state.keys_below("m/").filter(|row| row.session.is_some()).count(), 0);
        bench.state.check_invariants().unwrap();
    }
}

/// Commands in one entry where many are needed before what is measured.
const COMMANDS_PER_ENTRY: usize = 1_024;

/// A cluster of this level with a session `s`, and a session `t`, which holds nothing.
fn with_sessions(level: u32) -> Bench {
    let mut bench = Bench::default();
    bench.apply_batch(&Batch { duty: Some(Duty::Level(level)), ..Batch::default() });
    for id in ["s", "t"] {
        let request = session(id, "h1", SessionBehavior::Release);
        bench.apply(Command::SessionCreate(Box::new(request)));
    }
    bench
}

/// Has a session acquire or release a key; returns whether it could.
fn lock(bench: &mut Bench, key: &str, mode: KvPutMode) -> Outcome {
    bench.seq += 1;
    let put = Command::KvPut { key: key.into(), value: Bytes::new(), flags: 0, mode };
    let commands = vec![(bench.seq, put)];
    let part = Part { origin: 1, incarnation: 1, answered_through: bench.seq - 1, commands };
    bench.state.apply(&Batch { parts: vec![part], ..Batch::default() }).outcomes.remove(0).1
}

/// Has session `s` acquire so many keys; all of them must be free.
fn lock_many(bench: &mut Bench, number: usize) {
    let acquire = |n: usize| Command::KvPut {
        key: format!("l/{n}").into(),
        value: Bytes::new(),
        flags: 0,
        mode: KvPutMode::Acquire("s".into()),
    };
    let all: Vec<usize> = (0..number).collect();
    for some in all.chunks(COMMANDS_PER_ENTRY) {
        let answered_through = bench.seq;
        let numbered = (answered_through + 1..).zip(some.iter().map(|n| acquire(*n))).collect();
        bench.seq += some.len() as u64;
        let part = Part { origin: 1, incarnation: 1, answered_through, commands: numbered };
        let (effects, _) = bench.apply_batch(&Batch { parts: vec![part], ..Batch::default() });
        assert!(effects.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Condition(true)));
    }
}

/// Ends session `s`; returns how many keys that released.
fn end_session(bench: &mut Bench) -> usize {
    let (effects, took) = bench.apply(Command::SessionDestroy { id: "s".into() });
    let keys = effects.touched.iter().filter(|topic| matches!(topic, Topic::Key(_))).count();
    print("keys of one session that ends", keys, took);
    assert_eq!(bench.state.keys_below("l/").filter(|row| row.session.is_some()).count(), 0);
    keys
}

/// All locks of a session are free as soon as it is gone, so its end is one step, and what one session holds is
/// bounded.
#[test]
fn a_session_holds_no_more_keys_than_one_entry_may_be_about() {
    let mut bench = with_sessions(LEVEL);
    lock_many(&mut bench, SESSION_KEYS_MAX);
    let acquire = |session: &str| KvPutMode::Acquire(session.into());
    let refused = Outcome::Rejected(Rejection::TooManyKeys("s".into()));
    let done = Outcome::Condition(true);
    assert_eq!(lock(&mut bench, "l/one more", acquire("s")), refused);
    assert_eq!(lock(&mut bench, "l/0", acquire("s")), done, "it holds this one already");
    assert_eq!(lock(&mut bench, "l/0", acquire("t")), Outcome::Condition(false));
    assert_eq!(lock(&mut bench, "of another", acquire("t")), done);
    assert_eq!(lock(&mut bench, "of another", acquire("s")), Outcome::Condition(false));
    assert_eq!(lock(&mut bench, "l/0", KvPutMode::Release("s".into())), done);
    assert_eq!(lock(&mut bench, "l/one more", acquire("s")), done);
    assert_eq!(end_session(&mut bench), SESSION_KEYS_MAX);
    bench.state.check_invariants().unwrap();
}

/// A session that held more when the rule came in keeps what it holds, gets no more, and ends as ever.
#[test]
fn what_a_session_held_before_there_was_a_limit_stays_its_own() {
    let number = SESSION_KEYS_MAX + 1;
    let mut bench = with_sessions(SESSION_KEYS_LEVEL - 1);
    lock_many(&mut bench, keys().max(number));
    bench.apply_batch(&Batch { duty: Some(Duty::Level(LEVEL)), ..Batch::default() });
    let refused = lock(&mut bench, "l/one more", KvPutMode::Acquire("s".into()));
    assert_eq!(refused, Outcome::Rejected(Rejection::TooManyKeys("s".into())));
    assert!(end_session(&mut bench) >= number);
}
