//! A blocking query wakes up when what it watches may have changed, on any node, or when its server stops, and only
//! then.

use std::io;
use std::time::{Duration, Instant};

use jepsen_style_tests::health::{beat, register};
use jepsen_style_tests::http::{Answer, AnswerExt as _, Error, Http, HttpExt as _};
use jepsen_style_tests::process::raise_descriptor_limit;
use jepsen_style_tests::rounds::{is_long_run, rounds};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use tokio::task::{JoinHandle, JoinSet};

/// Longer than any wait in here.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a query may take to reach its node and begin to wait.
const SETTLE: Duration = Duration::from_millis(100);

/// A blocking query that is under way.
struct Blocked {
    task: JoinHandle<Result<(Answer, Instant)>>,
}

impl Blocked {
    /// Sends it and gives it the time to begin waiting.
    async fn start(node: &Http, path: &str, index: u64, wait: &str) -> Result<Self> {
        let node = Http::with_timeout(node.base(), PATIENCE)?;
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}index={index}&wait={wait}");
        let task = tokio::spawn(async move {
            let answer = node.get(&path).await?;
            Ok((answer, Instant::now()))
        });
        tokio::time::sleep(SETTLE).await;
        Ok(Self { task })
    }

    fn is_waiting(&self) -> bool {
        !self.task.is_finished()
    }

    /// The answer, and when it came.
    async fn answer(self) -> Result<(Answer, Instant)> {
        self.task.await.map_err(|error| Failure::new(error.to_string()))?
    }
}

/// A follower, and another node that is not it.
async fn follower_and_other(cluster: &Cluster) -> Result<(u64, u64)> {
    let leader = cluster.leader().await?;
    let followers = cluster.others(leader);
    Ok((followers[0], followers[1]))
}

async fn index_of(node: &Http, path: &str) -> Result<u64> {
    node.get(path).await?.require_index()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_blocked_at_a_follower_wakes_soon_after_a_write_elsewhere_is_acknowledged() {
    let cluster = Cluster::start(3).await.unwrap();
    let (follower, other) = follower_and_other(&cluster).await.unwrap();
    let (here, there) = (cluster.http(follower), cluster.http(other));
    there.must_put("/v1/kv/watched", "0").await.unwrap();
    let mut index = index_of(&here, "/v1/kv/watched").await.unwrap();
    let mut delays = Vec::new();
    for change in 1..=rounds(30) {
        let blocked = Blocked::start(&here, "/v1/kv/watched", index, "30s").await.unwrap();
        assert!(blocked.is_waiting(), "woke before anything changed");
        there.must_put("/v1/kv/watched", change.to_string()).await.unwrap();
        let acknowledged = Instant::now();
        let (answer, woke) = blocked.answer().await.unwrap();
        let new = answer.require_index().unwrap();
        assert!(new > index, "index {new} after {index}");
        index = new;
        delays.push(woke.saturating_duration_since(acknowledged));
    }
    delays.sort_unstable();
    let (median, slowest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!("woke {median:?} after the acknowledgement at the median, {slowest:?} at most");
    let bar = if is_long_run() { 50 } else { 250 };
    assert!(slowest <= Duration::from_millis(bar), "{delays:?}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_something_else_wake_nobody() {
    let cluster = Cluster::start(3).await.unwrap();
    let (follower, other) = follower_and_other(&cluster).await.unwrap();
    let (here, there) = (cluster.http(follower), cluster.http(other));
    there.must_put("/v1/kv/mine", "1").await.unwrap();
    there.must_put("/v1/kv/below/one", "1").await.unwrap();
    let ttl = Duration::from_secs(60);
    register(&there, "web", "web-1", ttl, "").await.unwrap();
    register(&there, "db", "db-1", ttl, "").await.unwrap();

    let mut blocked = Vec::new();
    for path in ["/v1/kv/mine", "/v1/kv/below/?recurse", "/v1/health/service/web"] {
        let index = index_of(&here, path).await.unwrap();
        blocked.push((path, index, Blocked::start(&here, path, index, "60s").await.unwrap()));
    }
    for change in 0..20 {
        there.must_put("/v1/kv/other", change.to_string()).await.unwrap();
        there.must_put("/v1/kv/min", change.to_string()).await.unwrap();
        let note = format!("/v1/agent/check/warn/service:db-1?note={change}");
        there.must_put(&note, "").await.unwrap();
        // Writes that change nothing are no changes.
        there.must_put("/v1/kv/mine", "1").await.unwrap();
        beat(&there, "web-1").await.unwrap();
    }
    for (path, index, query) in blocked {
        assert!(query.is_waiting(), "{path} was woken by a write to something else");
        // One whose wait ends has seen nothing new either.
        let short = Blocked::start(&here, path, index, "100ms").await.unwrap();
        let (answer, _) = short.answer().await.unwrap();
        assert_eq!((answer.status, answer.index()), (200, Some(index)), "{path}");
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_from_one_node_is_good_at_every_other() {
    let cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/travels", "0").await.unwrap();
    let mut index = index_of(&nodes[0], "/v1/kv/travels").await.unwrap();
    for turn in 1..=rounds(9) as usize {
        // Each time another node waits, with the index that the one before gave, and another writes.
        let (waits, writes) = (&nodes[turn % 3], &nodes[(turn + 1) % 3]);
        let blocked = Blocked::start(waits, "/v1/kv/travels", index, "30s").await.unwrap();
        assert!(blocked.is_waiting(), "the index of another node did not block");
        writes.must_put("/v1/kv/travels", turn.to_string()).await.unwrap();
        let (answer, _) = blocked.answer().await.unwrap();
        let new = answer.require_index().unwrap();
        assert!(new > index, "the index fell from {index} to {new}");
        index = new;
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_queries_live_through_the_leaders_death() {
    let mut cluster = Cluster::start(3).await.unwrap();
    for round in 1..=rounds(2) {
        let leader = cluster.leader().await.unwrap();
        let survivors = cluster.https(&cluster.others(leader));
        let key = format!("/v1/kv/outlives-{round}");
        survivors[0].must_put(&key, "before").await.unwrap();
        let mut blocked = Vec::new();
        for node in &survivors {
            let index = index_of(node, &key).await.unwrap();
            blocked.push((index, Blocked::start(node, &key, index, "40s").await.unwrap()));
        }
        cluster.kill(leader).unwrap();
        let new_leader = cluster.leader().await.unwrap();
        assert_ne!(leader, new_leader);
        assert!(blocked.iter().all(|(_, query)| query.is_waiting()), "the election ended a query");
        survivors[1].must_put(&key, "after").await.unwrap();
        for (index, query) in blocked {
            let (answer, _) = query.answer().await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.require_index().unwrap() > index);
            assert!(answer.text().contains("YWZ0ZXI="), "not the new value: {}", answer.text());
        }
        cluster.start_node(leader).unwrap();
        cluster.wait_ready(leader).await.unwrap();
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_every_watcher_holds_the_last_value() {
    let cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    let last = 10 * rounds(20);
    nodes[0].must_put("/v1/kv/raced", "0").await.unwrap();
    // Watchers that read between the writes: each change may fall between a look and the wait for the
    // next, which is where wake-ups get lost.
    let mut watchers = Vec::new();
    for number in 0..30 {
        let node = Http::with_timeout(nodes[number % 3].base(), PATIENCE).unwrap();
        watchers.push(tokio::spawn(watch_until(node, "/v1/kv/raced", last)));
    }
    for value in 1..=last {
        nodes[value as usize % 3].must_put("/v1/kv/raced", value.to_string()).await.unwrap();
    }
    let limit = Duration::from_secs(10);
    for watcher in watchers {
        let ended = tokio::time::timeout(limit, watcher).await;
        let seen = ended.expect("a watcher missed the last wake-up").unwrap().unwrap();
        assert!(seen > 1, "vacuous: a watcher saw only the end");
    }
    cluster.finish().await.unwrap();
}

/// Follows a key by blocking queries until it holds `last`. Returns how many values it saw; fails if
/// the index ever falls.
async fn watch_until(node: Http, path: &str, last: u32) -> Result<usize> {
    let (mut index, mut seen) = (0, 0);
    loop {
        let answer = node.get(&format!("{path}?index={index}&wait=50s")).await?;
        let new = answer.require_index()?;
        if new < index {
            return Err(Failure::new(format!("the index fell from {index} to {new}")));
        }
        (index, seen) = (new, seen + 1);
        let value = answer.value()?[0]["Value"]
            .as_str()
            .and_then(jepsen_style_tests::workload::decode_number);
        if value == Some(u64::from(last)) {
            return Ok(seen);
        }
    }
}

/// How many clients wait while the servers stop, one after the other.
const CLIENTS: usize = 1_000;
/// How long a server may take to end that was asked to.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Pause of a client whose server refuses connections.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answers_its_blocked_queries_and_ends_at_once() {
    // Every client has a connection.
    raise_descriptor_limit().unwrap();
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/still", "before").await.unwrap();
    let index = index_of(&nodes[0], "/v1/kv/still").await.unwrap();
    let patient: Vec<_> =
        nodes.iter().map(|node| Http::with_timeout(node.base(), PATIENCE * 5).unwrap()).collect();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(follow_until_newer(patient[number % 3].clone(), "/v1/kv/still", index));
    }
    let leader = cluster.leader().await.unwrap();
    for id in [vec![leader], cluster.others(leader)].concat() {
        wait_for_blocked(&cluster, &mut clients).await.unwrap();
        let leads = cluster.leader().await.unwrap() == id;
        let asked = cluster.terminate(id).unwrap();
        let status = cluster.wait_ended(id, END_LIMIT).await.unwrap();
        println!("n{id} (leads: {leads}) ended {:?} after SIGTERM", asked.elapsed());
        assert!(status.success(), "{status}");
        let other = cluster.others(id)[0];
        cluster.http(other).must_put("/v1/kv/goes-on", id.to_string()).await.unwrap();
        cluster.start_node(id).unwrap();
        cluster.wait_ready(id).await.unwrap();
    }
    wait_for_blocked(&cluster, &mut clients).await.unwrap();
    nodes[0].must_put("/v1/kv/still", "after").await.unwrap();
    let mut early = 0;
    while let Some(client) = clients.join_next().await {
        early += client.unwrap().unwrap();
    }
    // Each server's clients were sent away once, unless one had not found its server again after a stop.
    assert!(early >= CLIENTS * 9 / 10, "vacuous: {early} answers came from servers that stopped");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_holds_no_request_for_long_that_waits_for_a_leader() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    cluster.kill_all(&ids[1..]).unwrap();
    let node = cluster.http(ids[0]);
    // Until it knows that it has lost its leader, or its quorum.
    node.wait_for("/v1/status/leader", PATIENCE, |leader| leader == "").await.unwrap();
    let reader = node.clone();
    let read = tokio::spawn(async move { reader.get("/v1/kv/held").await });
    let write = tokio::spawn(async move { node.put("/v1/kv/held", "1").await });
    tokio::time::sleep(SETTLE).await;
    let asked = cluster.terminate(ids[0]).unwrap();
    let status = cluster.wait_ended(ids[0], END_LIMIT).await.unwrap();
    println!("it ended {:?} after SIGTERM", asked.elapsed());
    assert!(status.success(), "{status}");
    let read = read.await.unwrap().unwrap();
    assert_eq!((read.status, read.text().as_str()), (500, "No cluster leader"));
    let write = write.await.unwrap().unwrap();
    assert_eq!(write.status, 500, "{}", write.text());
    cluster.start_all().unwrap();
    cluster.finish().await.unwrap();
}

/// A client that asks its server again and again, until what it watches is newer than `index`. Returns how
/// often it was answered before. Fails if it is not answered, except by a refusal of its connection.
async fn follow_until_newer(node: Http, path: &str, index: u64) -> Result<usize> {
    let mut early = 0;
    loop {
        match node.get(&format!("{path}?index={index}&wait=4m")).await {
            Ok(answer) if answer.status != 200 => {
                return Err(Failure::new(format!("{}: {}", answer.status, answer.text())));
            }
            Ok(answer) if answer.require_index()? > index => return Ok(early),
            Ok(_) => early += 1,
            Err(Error::Unreachable { source, .. }) if is_refusal(&source) => {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error) => return Err(Failure::new(format!("{error}: {error:?}"))),
        }
    }
}

/// Whether it was a refused connection.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Waits until every client's query waits at its server; fails if a client has ended.
async fn wait_for_blocked(cluster: &Cluster, clients: &mut JoinSet<Result<usize>>) -> Result<()> {
    for id in cluster.ids() {
        let limit = Limit::new(PATIENCE);
        loop {
            let metrics = cluster.http(id).get("/metrics").await?;
            let blocked = metrics.metric("quorate_blocking_queries");
            if blocked.is_some_and(|blocked| blocked >= (CLIENTS / 3) as u64) {
                break;
            }
            if let Some(ended) = clients.try_join_next() {
                let ended = ended.map_err(|error| Failure::new(error.to_string()))?;
                return Err(Failure::new(format!("a client has ended: {ended:?}")));
            }
            limit.pause(|| format!("the queries of all clients at n{id}: {blocked:?}")).await?;
        }
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}
