//! How long it takes until others see that a process was killed.
//!
//! A victim is a process of its own: this program, started again to hold one instance ([`Victim`]). It is killed
//! with SIGKILL while a blocking query waits at another node, and what is measured is the time until that query
//! is answered without the instance. That includes the linger of a presence; of a TTL check it depends on how
//! long ago the last heartbeat was, so those are killed at any time between two.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Subcommand;
use rand::Rng as _;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Failure;
use crate::connection::{Connection, Prepared};
use crate::held;
use crate::watchers::Woken;

/// Time for a query to be parked before its victim is killed.
const PARKING: Duration = Duration::from_millis(50);
/// A victim that is seen for longer than its TTL or linger and this is an error.
const SEEN_MAX: Duration = Duration::from_secs(20);
/// Victims with a connection that live at a time: more of them would wait for the generator and each other.
const PRESENT_AT_ONCE: usize = 2;
/// Victims with a TTL check, most of whose time is silence.
const SILENT_AT_ONCE: usize = 50;
/// A process heartbeats so often within its TTL.
const BEATS_PER_TTL: u32 = 3;

/// What is to be killed: not for people.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Victim {
    /// Holds an instance by an open request
    #[command(hide = true)]
    HoldPresence {
        node: SocketAddr,
        service: String,
        /// How long it passes after its end
        linger: String,
    },
    /// Holds an instance by heartbeats
    #[command(hide = true)]
    HoldTtl {
        node: SocketAddr,
        service: String,
        /// In seconds
        ttl: u64,
    },
}

impl Victim {
    /// Holds its instance until it is killed, or its parent has ended.
    pub(crate) async fn hold(self) -> Result<(), Failure> {
        std::thread::spawn(|| {
            // The pipe ends when its other end does, with or without an error.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        match self {
            Self::HoldPresence { node, service, linger } => {
                let _held = held::presence(node, &service, &service, &linger).await?;
                std::future::pending().await
            }
            Self::HoldTtl { node, service, ttl } => heartbeat(node, &service, ttl).await,
        }
    }

    fn start(&self) -> Result<Child, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        match self {
            Self::HoldPresence { node, service, linger } => {
                command.args(["hold-presence", &node.to_string(), service, linger])
            }
            Self::HoldTtl { node, service, ttl } => {
                command.args(["hold-ttl", &node.to_string(), service, &ttl.to_string()])
            }
        };
        Ok(command.stdin(Stdio::piped()).spawn()?)
    }

    fn service(&self) -> &str {
        match self {
            Self::HoldPresence { service, .. } | Self::HoldTtl { service, .. } => service,
        }
    }

    /// How long it may be seen after its death, by its own terms.
    fn lifetime(&self) -> Duration {
        match self {
            Self::HoldPresence { .. } => Duration::ZERO,
            Self::HoldTtl { ttl, .. } => Duration::from_secs(*ttl),
        }
    }
}

async fn heartbeat(node: SocketAddr, service: &str, ttl: u64) -> Result<(), Failure> {
    let mut connection = Connection::open_alone(node).await?;
    let check = json!({"TTL": format!("{ttl}s"), "Status": "passing"});
    let body = json!({"Name": service, "Port": 80, "Check": check}).to_string();
    connection.fetch(&Prepared::put("/v1/agent/service/register", body)?).await?;
    let beat = Prepared::put(&format!("/v1/agent/check/pass/service:{service}"), "")?;
    loop {
        sleep(Duration::from_secs(ttl) / BEATS_PER_TTL).await;
        connection.fetch(&beat).await?;
    }
}

/// Kills processes that hold an instance by a connection.
pub(crate) async fn of_presences(
    nodes: &[SocketAddr],
    count: usize,
    linger: &str,
) -> Result<Woken, Failure> {
    let victim = |number: usize| Victim::HoldPresence {
        node: nodes[number % nodes.len()],
        service: format!("figures-present-{number}"),
        linger: linger.to_owned(),
    };
    kill_all(nodes, count, PRESENT_AT_ONCE, victim).await
}

/// Kills processes that hold an instance by heartbeats.
pub(crate) async fn of_ttl_checks(
    nodes: &[SocketAddr],
    count: usize,
    ttl: u64,
) -> Result<Woken, Failure> {
    let victim = |number: usize| Victim::HoldTtl {
        node: nodes[number % nodes.len()],
        service: format!("figures-beating-{number}"),
        ttl,
    };
    kill_all(nodes, count, SILENT_AT_ONCE, victim).await
}

async fn kill_all(
    nodes: &[SocketAddr],
    count: usize,
    at_once: usize,
    victim: impl Fn(usize) -> Victim,
) -> Result<Woken, Failure> {
    let mut deaths = JoinSet::new();
    let mut woken = Woken { latencies: Vec::with_capacity(count), errors: 0 };
    let mut note = |death: Result<Duration, Failure>| match death {
        Ok(latency) => woken.latencies.push(latency),
        Err(error) => {
            eprintln!("    {error}");
            woken.errors += 1;
        }
    };
    for number in 0..count {
        if deaths.len() == at_once
            && let Some(death) = deaths.join_next().await
        {
            note(death?);
        }
        // Where there is another node, it is that one that is asked.
        deaths.spawn(kill_one(victim(number), nodes[(number + 1) % nodes.len()]));
    }
    while let Some(death) = deaths.join_next().await {
        note(death?);
    }
    woken.latencies.sort_unstable();
    Ok(woken)
}

/// Starts a victim, kills it, and returns how long it was seen after that.
async fn kill_one(victim: Victim, observer: SocketAddr) -> Result<Duration, Failure> {
    let mut connection = Connection::open_alone(observer).await?;
    let mut process = Started(victim.start()?);
    let limit = SEEN_MAX + victim.lifetime();
    let seen = async {
        let mut index = "0".to_owned();
        while process.0.try_wait()?.is_none() {
            let (passing, next) = held::passing(&mut connection, victim.service(), &index).await?;
            if passing == 1 {
                return Ok(next);
            }
            index = next;
        }
        Err(Failure::from("the victim has ended by itself"))
    };
    let mut index = timeout(limit, seen).await.map_err(|_| "a victim was never seen")??;
    let random = rand::rng().random_range(0.0..1.0);
    let gone = tokio::spawn({
        let service = victim.service().to_owned();
        async move {
            loop {
                let (passing, next) = held::passing(&mut connection, &service, &index).await?;
                if passing == 0 {
                    return Ok::<_, Failure>(Instant::now());
                }
                index = next;
            }
        }
    });
    sleep(PARKING + victim.lifetime().mul_f64(random) / BEATS_PER_TTL).await;
    let killed = Instant::now();
    process.0.kill()?;
    let gone = timeout(limit, gone).await.map_err(|_| "a dead one is still seen")???;
    Ok(gone.saturating_duration_since(killed))
}

/// A process that ends with this.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended; ignore the error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
