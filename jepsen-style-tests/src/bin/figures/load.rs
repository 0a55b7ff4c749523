//! Closed loops of requests, and what came of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Failure;
use crate::connection::{Connection, Driver, Prepared};
use crate::process;
use crate::workload::Workload;

/// Requests that are under way at the end get this long: more than a node holds a request.
const GRACE: Duration = Duration::from_secs(10);
/// Pause before a broken connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// How long a workload runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What one client sends, over and over; where it stopped, it goes on in the next round.
#[derive(Debug)]
pub(crate) struct Script {
    /// Which of the nodes it is connected to.
    pub(crate) node: usize,
    requests: Vec<Prepared>,
    next: AtomicUsize,
}

impl Script {
    /// A script of at least one request.
    pub(crate) fn new(node: usize, requests: Vec<Prepared>) -> Arc<Self> {
        Arc::new(Self { node, requests, next: AtomicUsize::new(0) })
    }

    fn next(&self) -> &Prepared {
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        &self.requests[position % self.requests.len()]
    }
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Requests; of a workload whose requests do several things, those.
    pub(crate) per_second: f64,
    /// In ascending order.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) errors: usize,
    /// Processor time per second of all servers together, and of this program.
    pub(crate) server_cores: f64,
    pub(crate) own_cores: f64,
}

/// What is inside counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// What one client saw inside the window.
#[derive(Debug, Default)]
struct Seen {
    latencies: Vec<Duration>,
    /// Answered inside the window.
    answered: usize,
    errors: usize,
}

/// Runs a workload once.
///
/// # Errors
/// When a client cannot connect at the start, or a process that was named is not there.
pub(crate) async fn run(
    workload: &Workload,
    nodes: &[SocketAddr],
    pids: &[u32],
    span: Span,
) -> Result<Measured, Failure> {
    let mut connections = Vec::with_capacity(workload.scripts.len());
    for script in &workload.scripts {
        connections.push(Connection::open(nodes[script.node]).await?);
    }
    let from = Instant::now() + span.warm_up;
    let window = Window { from, until: from + span.measured };
    let mut clients = JoinSet::new();
    for (script, connection) in workload.scripts.iter().zip(connections) {
        let (script, node) = (Arc::clone(script), nodes[script.node]);
        clients.spawn(client(script, node, connection, window));
    }
    sleep_until(window.from).await;
    let before = (process::processor_time(pids)?, process::own_processor_time()?);
    sleep_until(window.until).await;
    let after = (process::processor_time(pids)?, process::own_processor_time()?);
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let mut seen = seen?;
        all.latencies.append(&mut seen.latencies);
        all.answered += seen.answered;
        all.errors += seen.errors;
    }
    all.latencies.sort_unstable();
    let seconds = span.measured.as_secs_f64();
    Ok(Measured {
        per_second: all.answered as f64 * workload.per_request / seconds,
        latencies: all.latencies,
        errors: all.errors,
        server_cores: after.0.saturating_sub(before.0).as_secs_f64() / seconds,
        own_cores: after.1.saturating_sub(before.1).as_secs_f64() / seconds,
    })
}

async fn client(
    script: Arc<Script>,
    node: SocketAddr,
    first: (Connection, Driver),
    window: Window,
) -> Seen {
    let mut seen = Seen::default();
    let mut connected = Some(first);
    while Instant::now() < window.until {
        if let Some((connection, driver)) = connected.take() {
            requests(&script, connection, driver, window, &mut seen).await;
        } else {
            sleep(RECONNECT_PAUSE).await;
            connected = Connection::open(node).await.ok();
            seen.errors += usize::from(connected.is_none());
        }
    }
    seen
}

/// Sends requests until the window ends, or the connection breaks.
async fn requests(
    script: &Script,
    mut connection: Connection,
    driver: Driver,
    window: Window,
    seen: &mut Seen,
) {
    let sending = async {
        while Instant::now() < window.until {
            let begun = Instant::now();
            let answer = connection.exchange(script.next()).await;
            let Ok(answer) = answer else {
                seen.errors += 1;
                return;
            };
            let ended = Instant::now();
            if !answer.status.is_success() {
                seen.errors += 1;
            } else if begun >= window.from {
                seen.latencies.push(ended - begun);
                seen.answered += usize::from(ended <= window.until);
            }
        }
    };
    let end = sleep_until(window.until + GRACE);
    let driven = async {
        // Ends only when the connection does, which the sender then notices.
        let _ = driver.await;
        std::future::pending::<()>().await;
    };
    let hung = tokio::select! {
        biased;
        () = sending => false,
        () = driven => false,
        () = end => true,
    };
    seen.errors += usize::from(hung);
}
