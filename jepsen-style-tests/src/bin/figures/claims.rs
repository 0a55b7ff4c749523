//! Claims: how many a second, and how soon the next in line has what one gives back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::Failure;
use crate::connection::{Connection, Prepared, send_all};
use crate::load::{Measured, Span};
use crate::process;
use crate::watchers::Woken;

/// A claim that is granted is not to expire while something else is measured.
const TTL: &str = "1h";
/// Waiters of one holder's name: a holder has at most twice as many.
const PER_HOLDER: usize = 500;
/// Time for all waiters to be in line, and for one of them to be served.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a line.
const POLL: Duration = Duration::from_millis(50);
/// Waiters that begin before the next ones wait for a moment.
const AT_ONCE: usize = 200;
/// Large enough for the answer to a claim.
const READ_BYTES: usize = 4 * 1024;
/// What no instance has: whoever requires it waits for ever.
const NOWHERE: &str = "nowhere";

/// A pool of so many instances, each for one claim at a time.
///
/// # Errors
/// When the cluster does not take one of them.
pub(crate) async fn register(
    nodes: &[SocketAddr],
    service: &str,
    instances: usize,
) -> Result<(), Failure> {
    eprintln!("registering {instances} instances of {service}");
    let registration = |number: usize| {
        let body = json!({
            "Name": service, "ID": format!("{service}-{number}"), "Port": 80,
            "Meta": {"slots": "1", "claim-delay": "0"},
        });
        Prepared::put("/v1/agent/service/register", body.to_string())
    };
    send_all(nodes, (0..instances).map(registration).collect::<Result<_, _>>()?).await
}

/// Has so many instances of a pool claimed for good.
///
/// # Errors
/// When there are not as many.
pub(crate) async fn fill(nodes: &[SocketAddr], service: &str, count: usize) -> Result<(), Failure> {
    let claim = |_| Ok(ask(service, &Uuid::new_v4(), "figures", 0)?.0);
    send_all(nodes, (0..count).map(claim).collect::<Result<_, Failure>>()?).await
}

/// The request for a claim, and the one that releases it.
fn ask(
    service: &str,
    id: &Uuid,
    holder: &str,
    wait_s: u64,
) -> Result<(Prepared, Prepared), Failure> {
    let body = json!({"ID": id, "Holder": holder, "TTL": TTL}).to_string();
    let path = format!("/v1/quorate/claims/{service}?wait={wait_s}s");
    let release = Prepared::put(&format!("/v1/quorate/claim/{id}/release"), "")?;
    Ok((Prepared::put(&path, body)?, release))
}

/// Closed loops: each holder claims an instance and releases it, over and over.
///
/// # Errors
/// When a holder cannot connect, or a process that was named is not there.
pub(crate) async fn pairs(
    nodes: &[SocketAddr],
    pids: &[u32],
    service: &str,
    holders: usize,
    span: Span,
) -> Result<Measured, Failure> {
    let from = Instant::now() + span.warm_up;
    let until = from + span.measured;
    let mut loops = JoinSet::new();
    for number in 0..holders {
        let connection = Connection::open_alone(nodes[number % nodes.len()]).await?;
        let (service, holder) = (service.to_owned(), format!("holder-{number}"));
        loops.spawn(async move { hold(connection, &service, &holder, from, until).await });
    }
    sleep_until(from).await;
    let before = (process::processor_time(pids)?, process::own_processor_time()?);
    sleep_until(until).await;
    let after = (process::processor_time(pids)?, process::own_processor_time()?);
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while let Some(ended) = loops.join_next().await {
        let (mut seen, failed) = ended?;
        latencies.append(&mut seen);
        errors += failed;
    }
    latencies.sort_unstable();
    let seconds = span.measured.as_secs_f64();
    Ok(Measured {
        per_second: latencies.len() as f64 / seconds,
        latencies,
        errors,
        server_cores: after.0.saturating_sub(before.0).as_secs_f64() / seconds,
        own_cores: after.1.saturating_sub(before.1).as_secs_f64() / seconds,
    })
}

/// Returns how long each claim with its release took inside the window, and how many failed.
async fn hold(
    mut connection: Connection,
    service: &str,
    holder: &str,
    from: Instant,
    until: Instant,
) -> (Vec<Duration>, usize) {
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while Instant::now() < until {
        let begun = Instant::now();
        let pair = async {
            let (claim, release) = ask(service, &Uuid::new_v4(), holder, 30)?;
            connection.fetch(&claim).await?;
            connection.fetch(&release).await.map(drop)
        };
        match pair.await {
            Ok(()) if begun >= from && Instant::now() <= until => latencies.push(begun.elapsed()),
            Ok(()) => {}
            Err(error) => {
                eprintln!("    {error}");
                errors += 1;
                break;
            }
        }
    }
    (latencies, errors)
}

/// Requests that wait in line, over all nodes. They leave the line when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiters {
    ids: Vec<Uuid>,
    /// Ends with its connection; each sends its number when it was served.
    _tasks: JoinSet<()>,
    served: UnboundedReceiver<(usize, Instant)>,
}

impl Waiters {
    /// Has `count` requests wait; `is_for_ever`: for what there is not.
    ///
    /// # Errors
    /// When a connection fails, or they are not in line in time.
    pub(crate) async fn begin(
        nodes: &[SocketAddr],
        service: &str,
        count: usize,
        is_for_ever: bool,
    ) -> Result<Self, Failure> {
        let (sender, served) = unbounded_channel();
        let (mut ids, mut tasks) = (Vec::with_capacity(count), JoinSet::new());
        for number in 0..count {
            let (id, node) = (Uuid::new_v4(), nodes[number % nodes.len()]);
            let holder = format!("waiter-{}", number / PER_HOLDER);
            let mut body = json!({"ID": id, "Holder": holder, "TTL": TTL});
            if is_for_ever {
                body["Require"] = json!({"region": NOWHERE});
            }
            let body = body.to_string();
            let request = format!(
                "PUT /v1/quorate/claims/{service}?wait=10m HTTP/1.1\r\nHost: {node}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut socket = TcpStream::connect(node).await?;
            socket.write_all(request.as_bytes()).await?;
            tasks.spawn(until_served(socket, number, sender.clone()));
            ids.push(id);
            if number % AT_ONCE == AT_ONCE - 1 {
                in_line(nodes[0], service, number + 1).await?;
            }
        }
        in_line(nodes[0], service, count).await?;
        Ok(Self { ids, _tasks: tasks, served })
    }

    /// Passes the one slot that is not claimed for good from one waiter to the next, `count` times: from when a
    /// release is sent until the next one, at another node, has its answer.
    ///
    /// # Errors
    /// When nobody is served in time.
    pub(crate) async fn hand_over(
        mut self,
        nodes: &[SocketAddr],
        first: Prepared,
        count: usize,
    ) -> Result<Woken, Failure> {
        let mut connections = Vec::new();
        for node in nodes {
            connections.push(Connection::open_alone(*node).await?);
        }
        let mut woken = Woken { latencies: Vec::with_capacity(count), errors: 0 };
        let (mut release, mut at) = (first, 0);
        while woken.latencies.len() + woken.errors < count {
            let sent = Instant::now();
            let released = connections[at].fetch(&release);
            let next = timeout(LIMIT, self.served.recv());
            let (released, next) = tokio::join!(released, next);
            released?;
            let (number, arrived) = next?.ok_or("nobody waits any more")?;
            let node = number % nodes.len();
            if node != at || nodes.len() == 1 {
                woken.latencies.push(arrived.saturating_duration_since(sent));
            }
            // Those at one node are often side by side in line: what it got is released at another one.
            at = (node + 1) % nodes.len();
            let path = format!("/v1/quorate/claim/{}/release", self.ids[number]);
            release = Prepared::put(&path, "")?;
        }
        // The last one gives it back, and the others leave with their connections.
        connections[at].fetch(&release).await?;
        woken.latencies.sort_unstable();
        Ok(woken)
    }
}

/// Claims the one slot that is left; returns what releases it, at the first node.
///
/// # Errors
/// When there is none.
pub(crate) async fn take_the_last(node: SocketAddr, service: &str) -> Result<Prepared, Failure> {
    let (claim, release) = ask(service, &Uuid::new_v4(), "figures", 0)?;
    Connection::open_alone(node).await?.fetch(&claim).await?;
    Ok(release)
}

/// Reports the first answer, if it is a grant.
async fn until_served(
    mut socket: TcpStream,
    number: usize,
    served: UnboundedSender<(usize, Instant)>,
) {
    let mut answer = vec![0; READ_BYTES];
    if let Ok(length) = socket.read(&mut answer).await {
        let arrived = Instant::now();
        if answer[..length].starts_with(b"HTTP/1.1 200") {
            // The measurement may be over.
            let _ = served.send((number, arrived));
        }
    }
}

/// Waits until at least so many wait in line.
async fn in_line(node: SocketAddr, service: &str, count: usize) -> Result<(), Failure> {
    waits(node, service, |waiting| waiting >= count).await
}

/// Waits until nobody is in line.
///
/// # Errors
/// When somebody stays there.
pub(crate) async fn nobody_waits(node: SocketAddr, service: &str) -> Result<(), Failure> {
    waits(node, service, |waiting| waiting == 0).await
}

async fn waits(
    node: SocketAddr,
    service: &str,
    wanted: impl Fn(usize) -> bool,
) -> Result<(), Failure> {
    let mut connection = Connection::open_alone(node).await?;
    let look = Prepared::get("/v1/quorate/claims")?;
    let begun = Instant::now();
    let mut seen = 0;
    while begun.elapsed() < LIMIT {
        let (_, body) = connection.fetch(&look).await?;
        let pools: Vec<Value> = serde_json::from_slice(&body)?;
        let pool = pools.iter().find(|pool| pool["Service"] == service);
        let waiting = pool.and_then(|pool| pool["Waiting"].as_u64()).unwrap_or(0);
        seen = usize::try_from(waiting)?;
        if wanted(seen) {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(format!("{seen} wait for {service}").into())
}
