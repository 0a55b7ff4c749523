//! The bounds of the history: what it lets go of first, what it never holds, and what a restore leaves of it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::command::{Batch, Command, Duty, KvDeleteMode, KvPutMode, Part};
use quorate_storage::machine::Published;
use quorate_storage::record::{
    CheckRegistration, CheckStatus, Detail, HISTORY_OUTPUT_BYTES_MAX, HistoryKind, HistoryRecord,
    Ring,
};
use quorate_storage::state::{
    HISTORY_BYTES_MAX, HISTORY_LEVEL, History, OTHER_RECORDS_MAX, SnapshotRecord, Thread,
};
use quorate_storage::{State, backup};

/// Commands in one entry: so many that a long story is told in little time.
const COMMANDS_PER_ENTRY: usize = 64;

/// A state machine, and the number of the last command.
#[derive(Default)]
struct Story {
    state: State,
    last: u64,
}

impl Story {
    /// A cluster of which all servers know the history.
    fn new() -> Self {
        let mut story = Self::default();
        let duty = Some(Duty::Level(HISTORY_LEVEL));
        story.state.apply(&Batch { duty, ..Batch::default() });
        story
    }

    fn apply(&mut self, commands: impl IntoIterator<Item = Command>) {
        let commands: Vec<_> = commands
            .into_iter()
            .map(|command| {
                self.last += 1;
                (self.last, command)
            })
            .collect();
        let answered_through = self.last - commands.len() as u64;
        let part = Part { origin: 1, incarnation: 1, answered_through, commands };
        self.state.apply(&Batch { parts: vec![part], ..Batch::default() });
    }

    /// Many commands, in as many entries as they need.
    fn apply_all(&mut self, commands: impl Iterator<Item = Command>) {
        let mut commands = commands.peekable();
        while commands.peek().is_some() {
            self.apply(commands.by_ref().take(COMMANDS_PER_ENTRY).collect::<Vec<_>>());
        }
        self.state.check_invariants().unwrap();
    }

    fn history(&self) -> &History {
        self.state.history()
    }

    fn kept(&self) -> Vec<&HistoryRecord> {
        self.history().after(0, &Ring::ALL).map(|record| &**record).collect()
    }

    fn newest(&self) -> &HistoryRecord {
        self.kept().pop().unwrap()
    }

    fn restore(&mut self, backup: Bytes) {
        self.apply([
            Command::RestoreBegin { id: "r".into() },
            Command::RestorePiece { id: "r".into(), offset: 0, piece: backup },
            Command::RestoreFinish { id: "r".into() },
        ]);
    }
}

fn put(key: &str, value: &str) -> Command {
    Command::KvPut {
        key: key.into(),
        value: value.to_owned().into(),
        flags: 0,
        mode: KvPutMode::Set,
    }
}

fn register(check: CheckRegistration) -> Command {
    Command::AgentRegisterCheck { agent: common::agent("h1"), check: Box::new(check) }
}

fn register_service(id: &str) -> Command {
    Command::AgentRegisterService {
        agent: common::agent("h1"),
        service: Box::new(common::service(id, "web", "", 80)),
        checks: Vec::new(),
        replace_existing_checks: false,
    }
}

fn numbers(records: &[&HistoryRecord]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn nothing_is_recorded_before_every_server_knows_how() {
    let mut story = Story::default();
    let duty = Some(Duty::Level(HISTORY_LEVEL - 1));
    story.state.apply(&Batch { duty, ..Batch::default() });
    story.apply([put("a", "1"), register_service("web-1")]);
    assert_eq!(story.history().last_seq(), 0);
    assert!(story.kept().is_empty());
    story.state.apply(&Batch { duty: Some(Duty::Level(HISTORY_LEVEL)), ..Batch::default() });
    story.apply([put("a", "2")]);
    assert_eq!(numbers(&story.kept()), [1]);
}

#[test]
fn busy_keys_drive_out_the_oldest_keys_and_nothing_of_the_catalogue() {
    const TOO_MANY: usize = 1_000;
    let mut story = Story::new();
    story.apply([register_service("first")]);
    let catalogue = numbers(&story.kept());
    let writes = OTHER_RECORDS_MAX + TOO_MANY;
    // The first keys are written once, and the last one over and over.
    story.apply_all(
        (0..writes).map(|number| put(&format!("k{}", number.min(2_000)), &format!("{number}"))),
    );
    let (history, first_key) = (story.history(), catalogue.len() as u64 + 1);
    assert_eq!(history.len(Ring::Keys), OTHER_RECORDS_MAX);
    assert_eq!(history.lost_through(Ring::Keys), first_key + TOO_MANY as u64 - 1);
    assert_eq!(history.lost_through(Ring::Catalogue), 0);
    assert_eq!(history.last_seq(), (catalogue.len() + writes) as u64);
    let kept = numbers(&story.kept());
    let expected: Vec<_> = catalogue
        .iter()
        .copied()
        .chain(history.lost_through(Ring::Keys) + 1..=history.last_seq())
        .collect();
    assert_eq!(kept, expected, "what is kept has no gaps but the one that it tells");

    // The threads of what is lost end, and a key that is written again begins anew.
    assert_eq!(history.thread(&Thread::Key("k0".into())).count(), 0);
    assert_eq!(history.thread(&Thread::Key("k1500".into())).count(), 1);
    story.apply([put("k0", "again")]);
    let again: Vec<_> = story.history().thread(&Thread::Key("k0".into())).collect();
    assert_eq!((again.len(), again[0].previous), (1, 0));
    // A long thread ends where the ring begins, although its oldest record names the one before.
    story.apply_all((0..OTHER_RECORDS_MAX + 10).map(|number| put("busy", &format!("{number}"))));
    let busy: Vec<_> = story.history().thread(&Thread::Key("busy".into())).collect();
    assert_eq!(busy.len(), OTHER_RECORDS_MAX);
    let oldest = busy.last().unwrap();
    assert!(oldest.previous > 0 && story.history().get(oldest.previous).is_none());
    let instance = Thread::Instance("first".into(), "h1".into());
    assert_eq!(story.history().thread(&instance).count(), 1);

    // A snapshot takes all of that along.
    let imported = common::import(&common::export(&story.state));
    assert_eq!(imported.hash(), story.state.hash());
    assert_eq!(imported.history().header(), story.history().header());
    imported.check_invariants().unwrap();
}

#[test]
fn all_rings_together_have_a_bound_in_bytes_and_the_fullest_lets_go() {
    let mut story = Story::new();
    // Few keys: less of them than of the rest must stay.
    story.apply_all((0..100).map(|number| put(&format!("k{number}"), "v")));
    let mut status = CheckStatus::Passing;
    let output = "x".repeat(HISTORY_OUTPUT_BYTES_MAX);
    story.apply_all((0..30_000).map(|number| {
        status = match status {
            CheckStatus::Passing => CheckStatus::Critical,
            _ => CheckStatus::Passing,
        };
        let mut check = common::check(&format!("check-{}", number % 3), status.clone());
        check.name = format!("{number}");
        check.output.clone_from(&output);
        register(check)
    }));
    let history = story.history();
    assert!(history.bytes() <= HISTORY_BYTES_MAX, "{} bytes", history.bytes());
    assert!(history.bytes() > HISTORY_BYTES_MAX - 1_000, "{} bytes are few", history.bytes());
    assert!(history.lost_through(Ring::Catalogue) > 0);
    assert_eq!(history.lost_through(Ring::Keys), 0);
    assert_eq!(history.len(Ring::Keys), 100);
    let imported = common::import(&common::export(&story.state));
    assert_eq!(imported.history().bytes(), history.bytes());
    assert_eq!(imported.hash(), story.state.hash());
}

#[test]
fn an_output_is_cut_between_characters_and_one_that_may_repeat_a_secret_is_not_kept() {
    let mut story = Story::new();
    let shown = |story: &mut Story, change: &dyn Fn(&mut CheckRegistration)| {
        let mut check = common::check(&format!("c{}", story.last), CheckStatus::Critical);
        check.definition.http = "http://10.0.0.1/".to_owned();
        change(&mut check);
        story.apply([register(check)]);
        story.newest().detail.clone()
    };
    let output = |text: &str| Detail::Output(text.into());
    let fits = "x".repeat(HISTORY_OUTPUT_BYTES_MAX);
    assert_eq!(shown(&mut story, &|check| check.output.clone_from(&fits)), output(&fits));
    assert_eq!(shown(&mut story, &|check| check.output = format!("{fits}y")), output(&fits));
    // Of "é" the first byte would fit.
    let almost = &fits[1..];
    assert_eq!(shown(&mut story, &|check| check.output = format!("{almost}éé")), output(almost));
    assert_eq!(shown(&mut story, &|_| {}), Detail::None);

    let header = [("Authorization".to_owned(), vec!["secret".to_owned()])];
    let with_header = |check: &mut CheckRegistration| {
        check.output = "secret".to_owned();
        check.definition.header = Some(header.clone().into_iter().collect());
    };
    assert_eq!(shown(&mut story, &with_header), Detail::None);
    let with_body = |check: &mut CheckRegistration| {
        check.output = "secret".to_owned();
        check.definition.body = "secret".to_owned();
    };
    assert_eq!(shown(&mut story, &with_body), Detail::None);
    story.apply([put("password", "secret")]);
    let told = format!("{:?}", story.kept());
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn a_backup_has_no_history_and_a_restore_keeps_the_running_clusters() {
    let mut story = Story::new();
    story.apply([put("a", "1"), register_service("old")]);
    let version = Published { state: story.state.clone(), ..Published::default() };
    let backup: Bytes = backup::write(&version, Vec::new()).unwrap().into();

    story.apply([
        put("a", "2"),
        register_service("new"),
        Command::KvDelete { key: "a".into(), mode: KvDeleteMode::One },
    ]);
    let before: Vec<_> = story.kept().into_iter().cloned().collect();
    story.restore(backup.clone());
    assert_eq!(&*story.state.key("a").unwrap().value, b"1", "it was restored");
    let kept = story.kept();
    let (restored, rest) = kept.split_last().unwrap();
    assert!(rest.iter().copied().eq(before.iter()), "{rest:?}");
    assert_eq!(restored.kind, HistoryKind::Restored);
    assert_eq!(restored.seq, before.len() as u64 + 1);
    story.apply([put("a", "3")]);
    assert_eq!(story.history().last_seq(), before.len() as u64 + 2);
    story.state.check_invariants().unwrap();

    // In another cluster: nothing of the first one's past.
    let mut other = Story::new();
    other.apply([put("own", "1")]);
    other.restore(backup);
    let kinds: Vec<_> = other.kept().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [HistoryKind::KeySet, HistoryKind::Restored]);
}

/// Whether a snapshot's record is one of the history.
fn is_history(record: &SnapshotRecord<'_>) -> bool {
    matches!(record, SnapshotRecord::History(_) | SnapshotRecord::HistoryRecord(_))
}

#[test]
fn a_snapshot_whose_history_is_damaged_is_refused() {
    let mut story = Story::new();
    story.apply([put("a", "1"), put("b", "2"), register_service("web-1")]);
    let records = common::export(&story.state);
    let own = common::export_some(&story.state, is_history);
    assert!(own.len() > 3, "{} records", own.len());
    let decode = |bytes: &Vec<u8>| {
        postcard::from_bytes::<SnapshotRecord<'static>>(bytes).map_err(std::io::Error::other)
    };
    for twice in &own {
        let doubled = records.iter().chain([twice]);
        assert!(State::import(doubled.map(decode)).is_err());
    }
    let without_header = records.iter().filter(|record| **record != own[0]);
    assert!(State::import(without_header.map(decode)).is_err());
}

#[test]
fn ids_are_found_on_every_node_that_has_or_had_them() {
    let mut story = Story::new();
    for host in ["h1", "h2"] {
        story.apply([Command::AgentRegisterService {
            agent: common::agent(host),
            service: Box::new(common::service("web-1", "web", "", 80)),
            checks: vec![common::check("web", CheckStatus::Passing)],
            replace_existing_checks: false,
        }]);
    }
    story.apply([register_service("web-10"), register_service("web")]);
    let found = |id: &str, is_check| {
        let id: Arc<str> = id.into();
        story.history().threads_of(&id, is_check).cloned().collect::<Vec<_>>()
    };
    let instance = |node: &str| Thread::Instance("web-1".into(), node.into());
    let check = |node: &str| Thread::Check("web".into(), node.into());
    assert_eq!(found("web-1", false), [instance("h1"), instance("h2")]);
    assert_eq!(found("web", true), [check("h1"), check("h2")]);
    assert_eq!(found("web", false), [Thread::Instance("web".into(), "h1".into())]);
    assert_eq!(found("nobody", false), []);
}
