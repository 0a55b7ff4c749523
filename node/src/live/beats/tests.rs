use quorate_client::types::live::StreamBeats;
use quorate_storage::Millis;
use quorate_storage::command::{self, Agent, Batch, Beat, Command, Duty, Part};
use quorate_storage::machine::Published;
use quorate_storage::state::HEARTBEAT_LEVEL;

use super::*;
use crate::live::filter::By;

const EVERY: Duration = Duration::from_secs(2);

/// A state that a test changes, and looks at it.
struct Cluster {
    published: Published,
    beats: Arc<Beats>,
    last: u64,
    time: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut published = Published::default();
        let duty = Some(Duty::Level(HEARTBEAT_LEVEL));
        published.state.apply(&Batch { duty, ..Batch::default() });
        let beats = Arc::new(Beats::new(Clock::monotonic()));
        Self { published, beats, last: 0, time: 1_000 }
    }

    /// Heartbeats of instances of a service, a second after what was before.
    fn beat(&mut self, service: &str, ids: &[&str]) {
        self.last += 1;
        self.time += 1_000;
        let beat = |id: &&str| Beat {
            service: service.into(),
            id: (*id).into(),
            pid: Some(7),
            counter: Some(self.last),
            ..Beat::default()
        };
        let agents = vec![Agent { name: "h1".into(), id: String::new(), address: String::new() }];
        let seen = ClusterTime(self.time);
        let all = ids.iter().map(beat).collect();
        let command = Command::Beat(Box::new(command::Beats { seen, agents, all }));
        let commands = vec![(self.last, command)];
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        let batch = Batch { stamp: seen, parts: vec![part], ..Batch::default() };
        self.published.state.apply(&batch);
    }

    fn reader(&self, services: &[&str]) -> Reader {
        let mut filter = Filter::of_stream();
        services.iter().for_each(|name| filter.add(By::Service, name).unwrap());
        self.beats.subscribe(EVERY, filter)
    }

    /// The interval passes.
    async fn look(&self) {
        tokio::time::advance(EVERY).await;
        for (every, before, wanted) in self.beats.take_due() {
            let state = &self.published.state;
            let look = look(state, before.as_ref(), &wanted).await;
            self.beats.publish(every, look, state.heard().clone());
        }
    }

    /// What a reader sends: ids, ages in seconds and counters.
    fn sent(&self, reader: &mut Reader) -> Option<String> {
        let News::Beats(data) = reader.take(&self.published.state) else { return None };
        let StreamBeats { time, beats } = serde_json::from_str(&data).unwrap();
        assert_eq!(time, self.time);
        let shown = beats.iter().map(|beat| {
            assert_eq!((beat.node.as_str(), beat.pid), ("h1", Some(7)));
            let age = Millis(beat.age_ms).0 / 1_000;
            format!("{} {age}s {}", beat.id, beat.counter.unwrap())
        });
        Some(shown.collect::<Vec<_>>().join(", "))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_told_of_all_at_first_and_then_of_those_that_were_heard_of() {
    let mut cluster = Cluster::new();
    cluster.beat("web", &["w1", "w2"]);
    cluster.beat("Db", &["d1"]);
    let mut all = cluster.reader(&[]);
    let mut web = cluster.reader(&["WEB", "web"]);
    assert_eq!(cluster.sent(&mut all), None, "nobody has looked yet");
    cluster.look().await;
    assert_eq!(cluster.sent(&mut all).unwrap(), "d1 0s 2, w1 1s 1, w2 1s 1");
    assert_eq!(cluster.sent(&mut web).unwrap(), "w1 1s 1, w2 1s 1");
    assert_eq!(cluster.sent(&mut web), None, "it has taken that");

    cluster.beat("web", &["w2"]);
    cluster.look().await;
    assert_eq!(cluster.sent(&mut all).unwrap(), "w2 0s 3");
    assert_eq!(cluster.sent(&mut web).unwrap(), "w2 0s 3");
    cluster.beat("db", &["d1"]);
    cluster.look().await;
    assert_eq!(cluster.sent(&mut all).unwrap(), "d1 0s 4");
    assert_eq!(cluster.sent(&mut web), None, "nothing was heard of web");
    cluster.look().await;
    assert_eq!(cluster.sent(&mut all), None);
    // While cluster time stands still, a counter goes on.
    cluster.time -= 1_000;
    cluster.beat("db", &["d1"]);
    cluster.look().await;
    assert_eq!(cluster.sent(&mut all).unwrap(), "d1 0s 5");
}

#[tokio::test(start_paused = true)]
async fn who_missed_a_look_or_comes_in_the_middle_of_one_is_told_of_all() {
    let mut cluster = Cluster::new();
    cluster.beat("web", &["w1", "w2"]);
    let mut slow = cluster.reader(&["web"]);
    cluster.look().await;
    assert!(cluster.sent(&mut slow).is_some());
    cluster.beat("web", &["w1"]);
    cluster.look().await;
    cluster.beat("web", &["w2"]);
    cluster.look().await;
    assert_eq!(cluster.sent(&mut slow).unwrap(), "w1 1s 2, w2 0s 3");

    // This one's service is not among those that are looked at.
    tokio::time::advance(EVERY).await;
    let due = cluster.beats.take_due();
    let mut late = cluster.reader(&["db"]);
    assert_eq!(cluster.sent(&mut late), None, "there is nothing yet");
    cluster.beat("db", &["d1"]);
    for (every, before, wanted) in due {
        let state = &cluster.published.state;
        let look = look(state, before.as_ref(), &wanted).await;
        cluster.beats.publish(every, look, state.heard().clone());
    }
    assert_eq!(cluster.sent(&mut late).unwrap(), "d1 0s 4");
}

#[tokio::test(start_paused = true)]
async fn an_interval_is_looked_at_once_for_all_its_readers_and_for_nobody_not_at_all() {
    let mut cluster = Cluster::new();
    cluster.beat("web", &["w1"]);
    let (one, mut other) = (cluster.reader(&[]), cluster.reader(&["web"]));
    assert_eq!(cluster.beats.ticks().all.len(), 1);
    cluster.look().await;
    assert!(Arc::ptr_eq(&one.looks.borrow(), &other.looks.borrow()));
    other.looked().await;
    drop(one);
    assert!(cluster.beats.next_due().is_some());
    drop(other);
    assert_eq!(cluster.beats.next_due(), None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_too_many_instances_is_told_so() {
    let mut cluster = Cluster::new();
    let ids: Vec<String> = (0..=INSTANCES_MAX).map(|number| number.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for some in ids[..INSTANCES_MAX].chunks(command::BEATS_MAX) {
        cluster.beat("web", some);
    }
    let (mut all, mut web) = (cluster.reader(&[]), cluster.reader(&["web"]));
    let mut db = cluster.reader(&["db"]);
    cluster.look().await;
    assert!(cluster.sent(&mut all).is_some() && cluster.sent(&mut web).is_some());
    cluster.beat("web", &ids[INSTANCES_MAX..]);
    cluster.beat("db", &["d1"]);
    cluster.look().await;
    let state = &cluster.published.state;
    assert_eq!(all.take(state), News::TooMany);
    assert_eq!(web.take(state), News::TooMany);
    assert_eq!(cluster.sent(&mut db).unwrap(), "d1 0s 42");
}
