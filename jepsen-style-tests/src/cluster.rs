//! Clusters of real processes on real sockets.
//!
//! Node i of a cluster listens on, and dials from, 127.x.y.i with the default ports. Each cluster has a /24 of its
//! own, so a restarted node keeps its addresses, clusters do not interfere, and a fault can cut two nodes apart by
//! their addresses.

mod hashes;
mod look;
mod member;
mod membership;
mod options;
mod process;
mod subjects;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::checker::hashes::Ledger;
use crate::disk::Disk;
use crate::guardian::Guardian;
use crate::http::Http;
use crate::network::Network;
use crate::turn::Turn;
use crate::{Failure, Limit, Result, binary};

use member::Member;

pub use hashes::HashWatch;
pub use member::Condition;
pub use membership::Voter;
pub use options::Options;
pub use subjects::{Subject, Subjects};

const HTTP_PORT: u16 = 8500;
const RPC_PORT: u16 = 8300;
const DNS_PORT: u16 = 8600;

/// How long a cluster may take until every node is ready, from nothing or after a restart.
pub const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a quiet cluster may take until every node has applied the same.
pub const CONVERGE_LIMIT: Duration = Duration::from_secs(30);
/// How long the nodes may take to agree on a leader.
pub const LEADER_LIMIT: Duration = Duration::from_secs(15);
/// A server promises to end within 10 s of SIGTERM; some room for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(13);
/// Probes wait no longer than this for one answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// How many lines of each log a failing test shows.
const LOG_TAIL_LINES: usize = 15;

/// Where logs and data lie.
#[derive(Debug)]
enum Place {
    /// Removed at the end, unless a test failed.
    Temporary(Option<TempDir>),
    /// Somebody else's; kept.
    Given(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.as_ref().map_or(Path::new(""), TempDir::path),
            Self::Given(path) => path,
        }
    }
}

/// A cluster of real processes. They end when it is dropped, in a panic too.
#[derive(Debug)]
pub struct Cluster {
    /// The founding servers: the targets of clients and of most faults.
    members: Vec<Member>,
    /// Those that joined later, until they are removed.
    guests: Vec<Member>,
    /// Where the logs of removed guests are.
    former: Vec<(u64, PathBuf)>,
    /// The Raft id of the server that joins next: none is ever used again.
    next_raft_id: u64,
    options: Options,
    hashes: Arc<Mutex<Ledger>>,
    subjects: Subjects,
    /// Whether its test has passed; otherwise data and logs are kept.
    is_finished: bool,
    network: Network,
    // Declared in the order in which they must go: the guardian looks at what is left once the
    // members are gone, the data go next, and only then is it another cluster's turn.
    guardian: Guardian,
    dir: Place,
    /// Keeps others out of the network.
    _reservation: TcpListener,
    _turn: Turn,
}

impl Cluster {
    /// Starts a cluster of `nodes` and waits until every node is ready.
    pub async fn start(nodes: u64) -> Result<Self> {
        Self::start_with(Options { nodes, ..Options::default() }).await
    }

    /// The same for a test whose timing tolerates another cluster on the machine.
    pub async fn start_shared(nodes: u64) -> Result<Self> {
        Self::start_with(Options { nodes, ..Options::shared() }).await
    }

    /// Starts a cluster for what is new from a level of the rules on, and waits until they are in force.
    pub async fn start_at_level(level: u64, options: Options) -> Result<Self> {
        let cluster = Self::start_with(options).await?;
        cluster.wait_level(level).await?;
        Ok(cluster)
    }

    /// Starts a cluster and waits until every node is ready. Waits for its turn first.
    pub async fn start_with(options: Options) -> Result<Self> {
        if options.binary.is_none() {
            binary::quorate_aside().await?;
        }
        let turn = if options.shares_turn { Turn::share().await? } else { Turn::take().await? };
        let dir = match &options.dir {
            Some(path) => Place::Given(path.clone()),
            None => {
                let dir = tempfile::Builder::new().prefix("quorate-cluster-").tempdir()?;
                Place::Temporary(Some(dir))
            }
        };
        let (subnet, reservation) = free_subnet()?;
        let mut members = (1..=options.nodes)
            .map(|id| Member::new(id, subnet, dir.path()))
            .collect::<Result<Vec<_>>>()?;
        let mut guardian = Guardian::start(dir.path())?;
        if let Some(mib) = options.disk_mib {
            for member in &mut members {
                member.give_disk(dir.path(), mib, &mut guardian)?;
            }
        }
        for line in &options.at_end {
            guardian.at_end(line)?;
        }
        let addresses = members.iter().map(|member| (member.id, member.ip)).collect();
        let network = Network::start(addresses, RPC_PORT, options.proxied)?;
        let mut cluster = Self {
            members,
            guests: Vec::new(),
            former: Vec::new(),
            next_raft_id: options.nodes + 1,
            options,
            hashes: Arc::default(),
            subjects: Subjects::default(),
            is_finished: false,
            network,
            guardian,
            dir,
            _reservation: reservation,
            _turn: turn,
        };
        cluster.members.iter().for_each(|member| cluster.subjects.add(member));
        cluster.start_all()?;
        cluster.wait_all_ready().await?;
        Ok(cluster)
    }

    /// The numbers of all nodes that founded the cluster.
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// The numbers of the founding nodes that should be serving.
    pub fn running(&self) -> Vec<u64> {
        let is_running = |member: &&Member| member.condition == Condition::Running;
        self.members.iter().filter(is_running).map(|member| member.id).collect()
    }

    /// All nodes but `id`.
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// A patient client of a node.
    pub fn http(&self, id: u64) -> Http {
        self.member(id).http.clone()
    }

    /// Patient clients of several nodes.
    pub fn https(&self, ids: &[u64]) -> Vec<Http> {
        ids.iter().map(|id| self.http(*id)).collect()
    }

    /// A node's data directory.
    pub fn data_dir(&self, id: u64) -> &Path {
        &self.member(id).data
    }

    /// A node's own disk; an error unless [`Options::disk_mib`] asked for disks.
    pub fn disk(&self, id: u64) -> Result<&Disk> {
        let disk = self.member(id).disk.as_ref();
        disk.ok_or_else(|| Failure::new(format!("node {id} has no disk of its own")))
    }

    /// A node's process id, if it has a process.
    pub fn pid(&self, id: u64) -> Option<u32> {
        self.member(id).child.as_ref().map(Child::id)
    }

    /// What the harness has done to a node's process.
    pub fn condition(&self, id: u64) -> Condition {
        self.member(id).condition
    }

    /// Where logs and data lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node's IP address.
    pub fn ip(&self, id: u64) -> Ipv4Addr {
        self.member(id).ip
    }

    /// Where a node serves DNS.
    pub fn dns(&self, id: u64) -> SocketAddr {
        (self.ip(id), DNS_PORT).into()
    }

    /// An impatient client of a node, for looking at it.
    pub fn probe(&self, id: u64) -> Http {
        self.member(id).probe.clone()
    }

    /// The shell that cleans up if this process is killed.
    pub fn guardian(&mut self) -> &mut Guardian {
        &mut self.guardian
    }

    /// The links between the servers.
    pub fn network(&mut self) -> Result<&mut Network> {
        if let Some(undo) = self.network.undo_if_new() {
            self.guardian.at_end(&undo)?;
        }
        Ok(&mut self.network)
    }

    /// Takes note of servers that ended though they should be running: they count as down from then on.
    pub fn reap_ended(&mut self) -> Result<Vec<(u64, ExitStatus)>> {
        let mut ended = Vec::new();
        for member in self.members.iter_mut().chain(&mut self.guests) {
            let Some(child) = &mut member.child else { continue };
            if let Some(status) = child.try_wait()? {
                let pid = child.id();
                member.child = None;
                member.pid.store(0, Ordering::Relaxed);
                member.condition = Condition::Down;
                self.guardian.remove(pid)?;
                ended.push((member.id, status));
            }
        }
        Ok(ended)
    }

    /// The servers to sample, including those that join later.
    pub fn subjects(&self) -> Subjects {
        self.subjects.clone()
    }

    /// Everything that a node's processes have logged.
    pub fn log(&self, id: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.member(id).log)?).into_owned())
    }

    /// Waits until a line of a node's log contains all these words, and returns the first such line.
    pub async fn wait_log(&self, id: u64, words: &[&str], limit: Duration) -> Result<String> {
        let limit = Limit::new(limit);
        loop {
            let log = self.log(id)?;
            let found = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = found {
                return Ok(line.to_owned());
            }
            limit.pause(|| format!("a line with {words:?} in the log of n{id}")).await?;
        }
    }

    fn member(&self, id: u64) -> &Member {
        self.everybody().find(|member| member.id == id).expect("ids come from this cluster")
    }

    fn member_mut(&mut self, id: u64) -> &mut Member {
        let mut everybody = self.members.iter_mut().chain(&mut self.guests);
        everybody.find(|member| member.id == id).expect("ids come from this cluster")
    }

    /// The founding nodes and those that joined later.
    fn everybody(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.guests)
    }

    /// Checks what every test requires at its end: all serving nodes alive and converged to one hash, equal
    /// hashes at equal applied index during the whole run, and no panic in any log.
    pub async fn finish(mut self) -> Result<()> {
        self.wait_all_ready().await?;
        let (applied, hash) = self.converge().await?;
        let verdict = self.ledger().verdict();
        if !verdict.is_valid() && self.members.len() > 1 {
            return Err(Failure::new(format!("state hashes: {verdict}")));
        }
        for id in self.running() {
            self.require_alive(id)?;
        }
        let panics = self.panics()?;
        if !panics.is_empty() {
            return Err(Failure::new(format!("panics in the logs:\n{}", panics.join("\n"))));
        }
        let compared = self.ledger().compared();
        self.is_finished = true;
        println!(
            "state hash {hash:.16} at {applied} on all nodes; {compared} applied indexes compared"
        );
        Ok(())
    }

    /// Lines of the logs that mention a panic.
    pub fn panics(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let present = self.everybody().map(|member| (member.id, member.log.clone()));
        for (id, log) in present.chain(self.former.iter().cloned()) {
            let log = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            for line in log.lines().filter(|line| line.contains("panicked")) {
                found.push(format!("n{id}: {line}"));
            }
        }
        Ok(found)
    }

    /// Kills every server and checks nothing: for tests that have other checks, or whose cluster cannot
    /// continue.
    pub fn abandon(mut self) {
        self.is_finished = true;
    }

    /// Copies data from disks that are about to be removed to where servers without disks have theirs.
    fn keep_data(&self) {
        for member in &self.members {
            if let Some(disk) = &member.disk {
                let to = self.dir.path().join(format!("n{}", member.id));
                if let Err(why) = disk.keep(&member.data, &to) {
                    eprintln!("--- the data of n{} are lost: {why}", member.id);
                }
            }
        }
    }

    /// Prints the ends of the logs of a failing test, and keeps its files.
    fn keep_evidence(&mut self) {
        for id in self.ids() {
            let log = self.log(id).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the last lines of n{id}");
            for line in &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..] {
                eprintln!("{line}");
            }
        }
        let kept = match &mut self.dir {
            Place::Temporary(dir) => dir.take().map(TempDir::keep),
            Place::Given(path) => Some(path.clone()),
        };
        if let Some(kept) = kept {
            eprintln!("--- data and logs are kept in {}", kept.display());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().chain(&mut self.guests) {
            if let Some(disk) = &member.disk {
                // Else the wait for a process that hangs in a write would last for ever.
                disk.let_go();
            }
            if let Some(child) = &mut member.child {
                // Already gone is as good; nothing more can be done about another error here.
                let _ = child.kill();
                let _ = child.wait();
                let _ = self.guardian.remove(child.id());
            }
        }
        if !self.is_finished || matches!(self.dir, Place::Given(_)) {
            self.keep_data();
        }
        if !self.is_finished {
            self.keep_evidence();
        }
    }
}

/// A /24 of the loopback network that no other cluster has, and the listener that says so for as long as it
/// lives. Processes begin at different places.
fn free_subnet() -> Result<([u8; 3], TcpListener)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const TRIES: u32 = 200;
    /// No node has this number.
    const RESERVING_HOST: u8 = 254;
    // 127.0.y and 127.1.y are left to people.
    const FIRST: u32 = 2;
    for _ in 0..TRIES {
        let number = std::process::id().wrapping_mul(257) + NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, x, y] = (number % ((256 - FIRST) * 256) + FIRST * 256).to_be_bytes();
        let bind = |host, port| TcpListener::bind((Ipv4Addr::new(127, x, y, host), port));
        let Ok(reservation) = bind(RESERVING_HOST, RPC_PORT) else { continue };
        if bind(1, HTTP_PORT).is_ok() && bind(1, RPC_PORT).is_ok() {
            return Ok(([127, x, y], reservation));
        }
    }
    Err(Failure::new("no loopback network is free"))
}
