//! What a running cluster does per second: `figures --nodes URL,URL,URL`.
//!
//! # What is measured
//!
//! Closed loops: every client has one kept connection, spread evenly over the nodes given, and sends its
//! next request when the last one is answered. A latency is the time from handing a request to the
//! socket until the whole answer was read. Each workload runs for `--seconds` after a warm-up; all of
//! them run once per round, and the table shows the median of the rounds, so that a disturbance of a
//! few seconds does not decide a figure. An answer other than 2xx and a broken connection are errors,
//! counted and in no rate.
//!
//! * *KV put*: 256 bytes under one of 1,000 keys; a key belongs to one client, and every put changes
//!   its value.
//! * *heartbeats*: `PUT /v1/agent/check/pass/...` of registered services with TTL checks, a connection
//!   for each.
//! * *registrations*: services with a TTL check, first new ones, then the same with another port.
//! * *health reads*: `/v1/health/service/NAME?passing` of a service with three instances.
//! * *watchers*: blocking queries for one key. From the moment the write that wakes them was
//!   acknowledged to the first byte of each answer; "rate" does not apply, "last" is the slowest.
//! * *memory*: `VmRSS` of the processes given with `--pids`, right after the services to be
//!   heartbeaten were registered, and at the end.
//!
//! # What the figures do not say
//!
//! Generator and servers share the machine: what the generator costs (shown as `cores generator`) the
//! servers do not get, and loopback is no network. The figures compare builds and programs on one
//! machine, under the same generator; they are not what the same servers do on machines of their own.
//! With `--pids` the table says how much processor time the servers spent, per request too: that number
//! still means something when other programs disturb the machine. The disk is the one that the servers
//! were started on, which must not be a tmpfs for the writes to mean anything.
//!
//! Run it against a fresh cluster: it leaves its services and keys behind.

mod connection;
mod load;
mod process;
mod table;
mod watchers;
mod workload;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use table::{Figures, Line};
use workload::{Services, Workload};

/// Anything that ends the program; it is run by a person who reads the text.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Measures a running cluster.
#[derive(Debug, Parser)]
#[command(name = "figures", version)]
struct Options {
    /// Addresses of the nodes' HTTP API: `http://127.0.0.1:8500,...`
    #[arg(long, value_delimiter = ',', required = true, value_parser = address)]
    nodes: Vec<SocketAddr>,
    /// Process ids of the nodes on this machine, for memory and processor time
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Length of a measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of load before each measurement
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// How often each workload is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Services that heartbeat, each on a connection of its own
    #[arg(long, default_value_t = 2_000)]
    services: usize,
    /// Blocking queries on one key
    #[arg(long, default_value_t = 5_000)]
    watchers: usize,
    /// Run only workloads whose name contains this text
    #[arg(long)]
    only: Option<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
    }
}

// One thread: a generator that is busier than that would take from the servers what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    raise_descriptor_limit(options.services.max(options.watchers))?;
    let mut figures = Figures::default();
    measure(&options, &mut figures).await?;
    print!("{figures}");
    Ok(())
}

async fn measure(options: &Options, figures: &mut Figures) -> Result<(), Failure> {
    let services = Services::register(&options.nodes, options.services).await?;
    figures.note_memory("services registered", &process::resident_kib(&options.pids)?);
    let workloads: Vec<Workload> = workload::all(options.nodes.len(), &services)
        .into_iter()
        .filter(|workload| options.wants(&workload.name))
        .collect();
    let span = load::Span {
        warm_up: Duration::from_secs(options.warm_up),
        measured: Duration::from_secs(options.seconds),
    };
    for round in 1..=options.rounds {
        for workload in &workloads {
            eprintln!("round {round}: {}", workload.name);
            let measured = load::run(workload, &options.nodes, &options.pids, span).await?;
            figures.add(&workload.name, Line::of_load(measured));
        }
        let name = format!("{} watchers of one key", options.watchers);
        if options.wants(&name) {
            eprintln!("round {round}: {name}");
            let woken = watchers::run(&options.nodes, options.watchers).await?;
            figures.add(&name, Line::of_watchers(woken));
        }
    }
    figures.note_memory("at the end", &process::resident_kib(&options.pids)?);
    Ok(())
}

fn address(url: &str) -> Result<SocketAddr, String> {
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    authority.parse().map_err(|error| format!("{url}: {error}; expected http://IP:PORT"))
}

/// Every connection is a file descriptor.
fn raise_descriptor_limit(connections: usize) -> Result<(), Failure> {
    /// Files that are open anyway, generously.
    const OTHERS: u64 = 100;
    let wanted = connections as u64 + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    if hard < wanted {
        return Err(format!("{wanted} file descriptors needed, the limit is {hard}").into());
    }
    Ok(())
}
