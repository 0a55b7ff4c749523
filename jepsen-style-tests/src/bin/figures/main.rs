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
//! * *bulk renewals*: `PUT /v1/quorate/heartbeat` with up to 10,000 instances a request, as JSON with counters
//!   and as ids alone. The rate is that of instances, the latency that of requests.
//! * *deaths*: processes that hold an instance are killed. The time until a blocking query at another node is
//!   answered without it, its linger included; by an open presence, while many others are open, and by a TTL
//!   check with three heartbeats per TTL.
//! * *streams*: many of one service at the first node. From the moment a registration at the last node was
//!   acknowledged to its frame in each.
//! * *claims*: pairs of a claim and its release, each holder on a connection of its own, in a pool of as many
//!   instances as there are holders; beside many that wait in its line, and in a large pool. And hand-overs of an
//!   instance for which many wait: from sending the release to the answer of the next in line, at another node.
//! * *memory*: `VmRSS` of the processes given with `--pids`: right after the services to be heartbeaten were
//!   registered, before and after presences and streams were opened, and at the end.
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

mod bulk;
mod claims;
mod connection;
mod deaths;
mod held;
mod load;
mod process;
mod streams;
mod table;
mod watchers;
mod workload;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use connection::Connection;
use deaths::Victim;
use table::{Figures, Line};
use workload::Services;

/// Anything that ends the program; it is run by a person who reads the text.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How names of workloads of heartbeats in bulk begin.
const BULK: &str = "bulk renewals";
/// The service of presences that are only open.
const CROWD: &str = "figures-crowd";

/// Measures a running cluster.
#[derive(Debug, Parser)]
#[command(name = "figures", version, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
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
    /// Instances that are renewed in bulk
    #[arg(long, default_value_t = 30_000)]
    instances: usize,
    /// Connections that renew them
    #[arg(long, default_value_t = 3)]
    generators: usize,
    /// Presences that are open while processes are killed
    #[arg(long, default_value_t = 1_000)]
    presences: usize,
    /// How long an instance passes after its connection has ended
    #[arg(long, default_value = "500ms")]
    linger: String,
    /// Processes of each sort that are killed
    #[arg(long, default_value_t = 100)]
    deaths: usize,
    /// Seconds of the TTL checks of those that have one
    #[arg(long, default_value_t = 10)]
    ttl: u64,
    /// Streams that are open at the first node
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// Clients that claim and release
    #[arg(long, default_value_t = 64)]
    holders: usize,
    /// Requests that wait in line for an instance
    #[arg(long, default_value_t = 10_000)]
    waiters: usize,
    /// Instances of the large pool
    #[arg(long, default_value_t = 10_000)]
    pool: usize,
    /// Hand-overs of an instance from one claim to the next
    #[arg(long, default_value_t = 1_000)]
    hand_overs: usize,
    /// Run only workloads whose name contains one of these texts: KV, heartbeats, bulk, deaths, streams, claims ...
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    victim: Option<Victim>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }
}

// One thread: a generator that is busier than that would take from the servers what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    if let Some(victim) = options.victim.clone() {
        return victim.hold().await;
    }
    let open = options.presences.max(options.streams).max(options.waiters);
    raise_descriptor_limit(options.services.max(options.watchers).max(open))?;
    let mut figures = Figures::default();
    measure(&options, &mut figures).await?;
    print!("{figures}");
    Ok(())
}

async fn measure(options: &Options, figures: &mut Figures) -> Result<(), Failure> {
    let services = Services::register(&options.nodes, options.services).await?;
    figures.note_memory("services registered", &process::resident_kib(&options.pids)?);
    let mut workloads = workload::all(options.nodes.len(), &services);
    if options.wants(BULK) {
        let Options { nodes, generators, instances, .. } = options;
        workloads.extend(bulk::workloads(nodes, *generators, *instances).await?);
    }
    workloads.retain(|workload| options.wants(&workload.name));
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
            figures.add(&name, Line::of_woken(woken));
        }
    }
    deaths(options, figures).await?;
    claims(options, figures, span).await?;
    streams(options, figures).await?;
    figures.note_memory("at the end", &process::resident_kib(&options.pids)?);
    Ok(())
}

/// Kills processes, once: each of them is a sample.
async fn deaths(options: &Options, figures: &mut Figures) -> Result<(), Failure> {
    let Options { nodes, presences, deaths, linger, ttl, .. } = options;
    let name = format!("deaths, presence with a linger of {linger}, {presences} others open");
    if options.wants(&name) {
        eprintln!("opening {presences} presences");
        figures.note_memory("before presences", &process::resident_kib(&options.pids)?);
        let crowd = held::open_all(nodes.len(), *presences, |number| {
            let (node, id) = (nodes[number % nodes.len()], format!("figures-crowd-{number}"));
            async move { held::presence(node, CROWD, &id, "0s").await }
        });
        let crowd = crowd.await?;
        let noted = format!("{presences} presences over all nodes");
        figures.note_memory(&noted, &process::resident_kib(&options.pids)?);
        eprintln!("{name}");
        figures.add(&name, Line::of_woken(deaths::of_presences(nodes, *deaths, linger).await?));
        let mut connection = Connection::open_alone(nodes[0]).await?;
        let (passing, _) = held::passing(&mut connection, CROWD, "0").await?;
        if passing != *presences {
            return Err(format!("{passing} of {presences} presences pass that are open").into());
        }
        drop(crowd);
    }
    let name = format!("deaths, TTL check of {ttl} s");
    if options.wants(&name) {
        eprintln!("{name}");
        figures.add(&name, Line::of_woken(deaths::of_ttl_checks(nodes, *deaths, *ttl).await?));
    }
    Ok(())
}

/// Claims: pairs, and hand-overs, each in a pool of its own.
async fn claims(options: &Options, figures: &mut Figures, span: load::Span) -> Result<(), Failure> {
    let Options { nodes, pids, holders, waiters, pool, hand_overs, rounds, .. } = options;
    let pair = format!("claims, claim and release, {holders} holders");
    let pools = [(*holders, 0), (*holders, *waiters), (*pool, 0)];
    for (place, (instances, waiting)) in pools.into_iter().enumerate() {
        let name = format!("{pair}, {instances} instances, {waiting} waiting");
        if !options.wants(&name) {
            continue;
        }
        let service = format!("figures-pool-{place}");
        claims::register(nodes, &service, instances).await?;
        let line = claims::Waiters::begin(nodes, &service, waiting, true).await?;
        for round in 1..=*rounds {
            eprintln!("round {round}: {name}");
            let measured = claims::pairs(nodes, pids, &service, *holders, span).await?;
            figures.add(&name, Line::of_load(measured));
        }
        drop(line);
        claims::nobody_waits(nodes[0], &service).await?;
    }
    let lines = [(1, hand_overs * 2), (1, (*waiters).max(hand_overs * 2)), (*pool, hand_overs * 2)];
    for (place, (instances, waiting)) in lines.into_iter().enumerate() {
        let name = format!("claims, hand-over, {instances} instances, {waiting} waiting");
        if !options.wants(&name) {
            continue;
        }
        eprintln!("{name}");
        let service = format!("figures-line-{place}");
        claims::register(nodes, &service, instances).await?;
        claims::fill(nodes, &service, instances - 1).await?;
        let last = claims::take_the_last(nodes[0], &service).await?;
        let line = claims::Waiters::begin(nodes, &service, waiting, false).await?;
        let woken = line.hand_over(nodes, last, *hand_overs).await?;
        figures.add(&name, Line::of_woken(woken));
    }
    Ok(())
}

async fn streams(options: &Options, figures: &mut Figures) -> Result<(), Failure> {
    let Options { nodes, streams: count, .. } = options;
    let name = format!("{count} streams of one service at one node");
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return Ok(()) };
    if !options.wants(&name) {
        return Ok(());
    }
    figures.note_memory("before streams", &process::resident_kib(&options.pids)?);
    for round in 1..=options.rounds {
        eprintln!("round {round}: {name}");
        let open = streams::open(*first, *count).await?;
        figures.note_memory(
            &format!("{count} streams at the first node"),
            &process::resident_kib(&options.pids)?,
        );
        let port = u16::try_from(round).unwrap_or(u16::MAX);
        figures.add(&name, Line::of_woken(streams::change(*last, open, port).await?));
    }
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
