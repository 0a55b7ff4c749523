use quorate_storage::command::{Agent, Batch, Command, Duty, KvPutMode, Part};
use quorate_storage::record::ServiceDefinition;
use quorate_storage::state::HISTORY_LEVEL;

use super::*;
use crate::live::filter::By;

/// A state that a test changes.
struct Cluster {
    published: Published,
    last: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut published = Published::default();
        let duty = Some(Duty::Level(HISTORY_LEVEL));
        published.state.apply(&Batch { duty, ..Batch::default() });
        Self { published, last: 0 }
    }

    fn run(&mut self, command: Command) {
        self.last += 1;
        let commands = vec![(self.last, command)];
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        self.published.state.apply(&Batch { parts: vec![part], ..Batch::default() });
    }

    fn register(&mut self, name: &str, id: &str, port: i64) {
        let service = ServiceDefinition {
            id: id.into(),
            name: name.into(),
            port,
            ..ServiceDefinition::default()
        };
        self.run(Command::AgentRegisterService {
            agent: agent(),
            service: Box::new(service),
            checks: Vec::new(),
            replace_existing_checks: false,
        });
    }

    fn put(&mut self, key: &str) {
        let mode = KvPutMode::Set;
        let value = self.last.to_string().into_bytes().into();
        self.run(Command::KvPut { key: key.into(), value, flags: 0, mode });
    }
}

fn agent() -> Agent {
    Agent { name: "h1".into(), id: String::new(), address: "10.0.0.1".to_owned() }
}

fn filter(entries: &[(By, &str)]) -> Filter {
    let mut filter = Filter::of_stream();
    for (by, text) in entries {
        filter.add(*by, text).unwrap();
    }
    filter
}

/// Everything that comes without waiting, each frame as a short text.
fn all(cursor: &mut Cursor, cluster: &Cluster) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let (frames, is_more) = cursor.step(&cluster.published);
        texts.extend(frames.iter().map(text));
        if !is_more {
            return texts;
        }
    }
}

fn text(frame: &Frame) -> String {
    match frame {
        Frame::Snapshot(page) => {
            let ids = page.instances.iter().map(|row| row.id.as_str()).collect::<Vec<_>>();
            let end = if page.complete { "." } else { "..." };
            match ids.len() {
                0..5 => format!("list {} {}{end}", page.seq, ids.join(" ")),
                many => format!("list {} {many}{end}", page.seq),
            }
        }
        Frame::Change(change) => {
            let event = &change.event;
            let row = change.row.as_ref().map_or(0, |row| row.port);
            format!("{} {} {}{} {row}", event.seq, event.kind, event.id, event.key)
        }
        Frame::Gap(gap) => format!("gap {} {}", gap.since, gap.last),
        Frame::Restored(seq) => format!("restored {seq}"),
    }
}

#[test]
fn a_stream_lists_and_then_follows_what_it_wants() {
    let mut cluster = Cluster::new();
    cluster.register("web", "web-1", 1);
    cluster.register("db", "db-1", 1);
    let mut cursor = Cursor::new(filter(&[(By::Service, "WEB")]), None);
    assert_eq!(all(&mut cursor, &cluster), ["list 3 web-1."]);
    cluster.register("db", "db-2", 1);
    cluster.register("web", "web-1", 2);
    cluster.put("k");
    assert_eq!(all(&mut cursor, &cluster), ["5 service.changed web-1 2"]);
    cluster.run(Command::AgentDeregisterService { agent: agent(), service_id: "web-1".into() });
    assert_eq!(all(&mut cursor, &cluster), ["7 service.deregistered web-1 0"]);
    assert_eq!((all(&mut cursor, &cluster), cursor.seq()), (Vec::new(), 7));
    // Any server goes on behind the last record.
    let mut resumed = Cursor::new(filter(&[(By::Service, "web")]), Some(4));
    let rest = ["5 service.changed web-1 0", "7 service.deregistered web-1 0"];
    assert_eq!(all(&mut resumed, &cluster), rest);
}

#[test]
fn keys_come_only_when_they_are_asked_for() {
    let mut cluster = Cluster::new();
    let mut plain = Cursor::new(filter(&[]), Some(0));
    let mut keys = Cursor::new(filter(&[(By::Prefix, "a/")]), Some(0));
    let mut both = Cursor::new(filter(&[(By::Prefix, "a/"), (By::Service, "web")]), Some(0));
    cluster.put("a/1");
    cluster.put("b/1");
    cluster.register("web", "web-1", 1);
    let registered = "4 service.registered web-1 1";
    assert_eq!(all(&mut plain, &cluster), ["3 node.joined  0", registered]);
    assert_eq!(all(&mut keys, &cluster), ["1 key.set a/1 0"]);
    assert_eq!(all(&mut both, &cluster), ["1 key.set a/1 0", registered]);
}

#[test]
fn changes_of_what_was_listed_go_between_the_pages() {
    let mut cluster = Cluster::new();
    for number in 0..PAGE_MAX + 10 {
        cluster.register("web", &format!("web-{number:04}"), 1);
    }
    let mut cursor = Cursor::new(filter(&[]), None);
    let (frames, is_more) = cursor.step(&cluster.published);
    assert!(is_more && !cursor.follows());
    assert_eq!(frames.iter().map(text).collect::<Vec<_>>(), ["list 511 500..."]);
    cluster.register("web", "web-0003", 2);
    // It is listed as it is by then, so its change says nothing new.
    cluster.register("web", "web-0505", 2);
    assert_eq!(all(&mut cursor, &cluster), ["512 service.changed web-0003 2", "list 513 10."]);
    assert!(cursor.follows());
}

#[test]
fn a_place_that_is_lost_or_ahead_is_a_gap_and_a_list() {
    let mut cluster = Cluster::new();
    cluster.register("web", "web-1", 1);
    let mut ahead = Cursor::new(filter(&[]), Some(9));
    assert_eq!(all(&mut ahead, &cluster), ["gap 9 2", "list 2 web-1."]);
    let mut slow = Cursor::new(filter(&[(By::Prefix, "")]), Some(2));
    for _ in 0..=quorate_storage::state::OTHER_RECORDS_MAX {
        cluster.put("k");
    }
    let texts = all(&mut slow, &cluster);
    assert_eq!(texts[0], "gap 2 3");
    assert!(texts[1].starts_with("list "), "{}", texts[1]);
    // Busy keys do not drive out what happened to the services.
    let mut services = Cursor::new(filter(&[]), Some(1));
    assert_eq!(all(&mut services, &cluster), ["2 service.registered web-1 1"]);
}

#[test]
fn a_flapping_node_is_shown_in_steps_of_bounded_size() {
    let mut cluster = Cluster::new();
    for number in 0..STEP_ROWS_MAX / 4 {
        cluster.register("web", &format!("web-{number:04}"), 1);
    }
    let begin = cluster.published.state.history().last_seq();
    let mut cursor = Cursor::new(filter(&[(By::Service, "web")]), Some(begin));
    for round in 0..10 {
        cluster.run(Command::SetMaintenance {
            agent: agent(),
            service_id: Arc::default(),
            reason: (round % 2 == 0).then(|| "flaps".into()),
        });
    }
    let (mut changes, mut is_more) = (0, true);
    while is_more {
        let (frames, more) = cursor.step(&cluster.published);
        let rows = frames.iter().map(|frame| match frame {
            Frame::Change(change) => change.rows.len(),
            Frame::Snapshot(_) | Frame::Gap(_) | Frame::Restored(_) => 0,
        });
        assert!(rows.sum::<usize>() <= STEP_ROWS_MAX);
        (changes, is_more) = (changes + frames.len(), more);
    }
    assert_eq!(changes, 10);
}

#[test]
fn a_change_says_how_many_instances_it_leaves_out() {
    let mut cluster = Cluster::new();
    for number in 0..ROWS_MAX + 3 {
        cluster.register("web", &format!("web-{number:04}"), 1);
    }
    cluster.register("db", "db-1", 1);
    let begin = cluster.published.state.history().last_seq();
    let reason = Some("disk".into());
    cluster.run(Command::SetMaintenance { agent: agent(), service_id: Arc::default(), reason });
    let left = |service: &str| {
        let mut cursor = Cursor::new(filter(&[(By::Service, service)]), Some(begin));
        match cursor.step(&cluster.published).0.as_slice() {
            [Frame::Change(change)] => (change.rows.len(), change.rows_left),
            frames => panic!("{frames:?}"),
        }
    };
    assert_eq!((left("web"), left("db")), ((ROWS_MAX, 3), (1, 0)));
}
