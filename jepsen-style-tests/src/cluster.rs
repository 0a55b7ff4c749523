//! Real processes on real sockets.
//!
//! Node i of a cluster listens on, and dials from, 127.x.y.i with the default ports. The /24 is the
//! cluster's own: so a restarted node has its old addresses, clusters do not meet, and a later fault
//! can cut two nodes apart by their addresses.

mod membership;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::checker::Verdict;
use crate::checker::hashes::Ledger;
use crate::disk::Disk;
use crate::guardian::Guardian;
use crate::http::Http;
use crate::network::Network;
use crate::turn::Turn;
use crate::{Failure, Result, binary};

pub use membership::Voter;

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
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of each log a failing test shows.
const LOG_TAIL_LINES: usize = 15;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes; 1, 3 or 5.
    pub nodes: u64,
    /// More flags for every server.
    pub flags: Vec<String>,
    /// Environment variables for every server; `{id}` in a value is the server's number.
    pub environment: Vec<(String, String)>,
    /// Where logs and data are kept, instead of a temporary directory. It must exist.
    pub dir: Option<PathBuf>,
    /// The servers' binary, instead of the one that [`binary`] finds.
    pub binary: Option<PathBuf>,
    /// Whether it may run beside other clusters that may.
    pub shares_turn: bool,
    /// Whether every directed link between two servers goes through a proxy of the harness
    /// ([`crate::network`]).
    pub proxied: bool,
    /// Give every server a disk of its own: a loop-mounted ext4 of this many MiB.
    pub disk_mib: Option<u64>,
    /// Lines of shell that a server's process runs before it becomes the server; `{id}` is its number.
    pub before_start: Vec<String>,
    /// Lines of shell that run when all servers have ended, whatever became of the harness; each must do no
    /// harm when it has nothing to do.
    pub at_end: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            flags: Vec::new(),
            environment: Vec::new(),
            dir: None,
            binary: None,
            shares_turn: false,
            proxied: false,
            disk_mib: None,
            before_start: Vec::new(),
            at_end: Vec::new(),
        }
    }
}

/// What the harness has done to a node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It should be serving.
    Running,
    /// It was stopped with SIGSTOP.
    Paused,
    /// There is no process.
    Down,
}

#[derive(Debug)]
struct Member {
    id: u64,
    /// Its id in the Raft membership: another one after it came back without its data.
    raft_id: u64,
    /// Instead of the cluster's.
    binary: Option<PathBuf>,
    ip: Ipv4Addr,
    data: PathBuf,
    log: PathBuf,
    http: Http,
    probe: Http,
    child: Option<Child>,
    /// Its id, for whoever looks at the process from elsewhere; 0: there is none.
    pid: Arc<AtomicU32>,
    condition: Condition,
    disk: Option<Disk>,
}

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
    /// Those that founded it. They are what clients and most faults aim at.
    members: Vec<Member>,
    /// Those that joined later, until they are removed.
    guests: Vec<Member>,
    /// Where the logs of removed guests are.
    former: Vec<(u64, PathBuf)>,
    /// The Raft id of whoever joins next: none is ever used again.
    next_raft_id: u64,
    options: Options,
    hashes: Arc<Mutex<Ledger>>,
    /// Whether its test has come to its end; else what is left is evidence.
    is_finished: bool,
    network: Network,
    // Declared in the order in which they must go: the guardian looks at what is left once the
    // members are gone, the data go next, and only then is it another cluster's turn.
    guardian: Guardian,
    dir: Place,
    _turn: Turn,
}

impl Cluster {
    /// Starts a cluster of `nodes` and waits until every node is ready.
    pub async fn start(nodes: u64) -> Result<Self> {
        Self::start_with(Options { nodes, ..Options::default() }).await
    }

    /// Starts a cluster and waits until every node is ready. Waits for its turn first.
    pub async fn start_with(options: Options) -> Result<Self> {
        if options.binary.is_none() {
            tokio::task::spawn_blocking(binary::quorate)
                .await
                .map_err(|error| Failure::new(format!("building the binary: {error}")))??;
        }
        let turn = if options.shares_turn { Turn::share().await? } else { Turn::take().await? };
        let dir = match &options.dir {
            Some(path) => Place::Given(path.clone()),
            None => {
                let dir = tempfile::Builder::new().prefix("quorate-cluster-").tempdir()?;
                Place::Temporary(Some(dir))
            }
        };
        let subnet = free_subnet()?;
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
            is_finished: false,
            network,
            guardian,
            dir,
            _turn: turn,
        };
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

    /// An impatient client of a node, for looking at it.
    pub fn probe(&self, id: u64) -> Http {
        self.member(id).probe.clone()
    }

    /// Whoever undoes things if this process is killed.
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

    /// The same, kept up to date; 0 while there is no process.
    pub fn pid_cell(&self, id: u64) -> Arc<AtomicU32> {
        Arc::clone(&self.member(id).pid)
    }

    /// Everything that a node's processes have said.
    pub fn log(&self, id: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.member(id).log)?).into_owned())
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

    // --- faults ----------------------------------------------------------------------------------

    /// Starts a node that is down; it may take a while until it is ready.
    pub fn start_node(&mut self, id: u64) -> Result<()> {
        let bootstrap = if self.is_founder(id) { self.options.nodes } else { 0 };
        let join: Vec<_> = self.members.iter().map(|member| member.rpc()).collect();
        let flags = self.flags(id);
        let environment = self.options.environment.clone();
        let program = self.program(id)?;
        let preparation = self.options.before_start.clone();
        let member = self.member_mut(id);
        if member.child.is_some() {
            return Err(Failure::new(format!("node {id} has a process already")));
        }
        let log = File::options().create(true).append(true).open(&member.log)?;
        let environment = environment
            .into_iter()
            .map(|(name, value)| (name, value.replace("{id}", &id.to_string())))
            .collect::<Vec<_>>();
        let mut command = prepared(program, &preparation, id, &environment);
        command
            .arg("server")
            .args([
                "--node-id",
                &member.raft_id.to_string(),
                "--name",
                &format!("n{}", member.raft_id),
            ])
            .arg("--data-dir")
            .arg(&member.data)
            .args(["--http-addr", &format!("{}:{HTTP_PORT}", member.ip)])
            .args(["--rpc-addr", &member.rpc()])
            .args(["--dns-addr", &format!("{}:{DNS_PORT}", member.ip)])
            .args(["--bootstrap-expect", &bootstrap.to_string(), "--join", &join.join(",")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn()?;
        let pid = child.id();
        member.child = Some(child);
        member.pid.store(pid, Ordering::Relaxed);
        member.condition = Condition::Running;
        self.guardian.add(pid)
    }

    /// Whether a node may found the cluster. One that came back under another Raft id must find it.
    fn is_founder(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id && member.raft_id == id)
    }

    fn program(&self, id: u64) -> Result<PathBuf> {
        match self.member(id).binary.as_ref().or(self.options.binary.as_ref()) {
            Some(path) => Ok(path.clone()),
            None => binary::quorate(),
        }
    }

    /// Has a node started with another binary from now on; none: the cluster's own.
    pub fn set_binary(&mut self, id: u64, binary: Option<PathBuf>) {
        self.member_mut(id).binary = binary;
    }

    /// The flags that not every cluster has.
    fn flags(&self, id: u64) -> Vec<String> {
        let mut flags = self.options.flags.clone();
        if self.options.proxied {
            // The proxy has the advertised port; the server has the one behind it.
            let listen = format!("{}:{}", self.member(id).ip, RPC_PORT + 1);
            flags.extend(["--rpc-listen-addr".to_owned(), listen]);
        }
        flags
    }

    /// Starts every founding node that is down.
    pub fn start_all(&mut self) -> Result<()> {
        for id in self.ids() {
            if self.member(id).condition == Condition::Down {
                self.start_node(id)?;
            }
        }
        Ok(())
    }

    /// Crashes a node: SIGKILL, and waits until the process is gone. Returns the moment of the signal.
    pub fn kill(&mut self, id: u64) -> Result<Instant> {
        let moment = Instant::now();
        self.signal(id, Signal::SIGKILL)?;
        self.reap(id, STOP_LIMIT)?;
        Ok(moment)
    }

    /// How a node's process ended by itself, if it did. It still counts as running.
    pub fn ended(&mut self, id: u64) -> Result<Option<ExitStatus>> {
        match &mut self.member_mut(id).child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Sees to it that a node has no process: kills it unless it is down or has ended by itself.
    pub fn put_down(&mut self, id: u64) -> Result<()> {
        if self.ended(id)?.is_none() && self.pid(id).is_some() {
            self.signal(id, Signal::SIGKILL)?;
        }
        if self.pid(id).is_some() {
            self.reap(id, STOP_LIMIT)?;
        }
        Ok(())
    }

    /// Crashes several nodes as nearly at once as signals go.
    pub fn kill_all(&mut self, ids: &[u64]) -> Result<()> {
        for id in ids {
            self.signal(*id, Signal::SIGKILL)?;
        }
        for id in ids {
            self.reap(*id, STOP_LIMIT)?;
        }
        Ok(())
    }

    /// Waits, without holding up others, until a node has ended by itself or by [`Self::terminate`].
    pub async fn wait_ended(&mut self, id: u64, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let Some(child) = &mut self.member_mut(id).child else {
                return Err(Failure::new(format!("node {id} has no process")));
            };
            if child.try_wait()?.is_some() {
                return self.reap(id, limit);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("node {id} did not end within {limit:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks a node to stop (SIGTERM) and returns at once; [`Self::wait_stopped`] waits for it.
    pub fn terminate(&mut self, id: u64) -> Result<Instant> {
        let moment = Instant::now();
        self.signal(id, Signal::SIGTERM)?;
        self.member_mut(id).condition = Condition::Down;
        Ok(moment)
    }

    /// Waits until a terminated node has ended; fails if it takes longer than it promises.
    pub fn wait_stopped(&mut self, id: u64) -> Result<ExitStatus> {
        self.reap(id, STOP_LIMIT)
    }

    /// Freezes a node (SIGSTOP): its sockets stay open, and nobody answers on them.
    pub fn pause(&mut self, id: u64) -> Result<()> {
        self.signal(id, Signal::SIGSTOP)?;
        self.member_mut(id).condition = Condition::Paused;
        Ok(())
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, id: u64) -> Result<()> {
        self.signal(id, Signal::SIGCONT)?;
        self.member_mut(id).condition = Condition::Running;
        Ok(())
    }

    /// Kills a node and starts it again with its data.
    pub fn restart(&mut self, id: u64) -> Result<()> {
        self.kill(id)?;
        self.start_node(id)
    }

    /// Removes the data of a node that is down.
    pub fn wipe(&mut self, id: u64) -> Result<()> {
        let member = self.member(id);
        if member.child.is_some() {
            return Err(Failure::new(format!("node {id} runs: it cannot be wiped")));
        }
        std::fs::remove_dir_all(&member.data)?;
        Ok(())
    }

    /// Has a node that is down start under a Raft id that was never used, and returns that.
    pub fn renew_raft_id(&mut self, id: u64) -> u64 {
        let fresh = self.next_raft_id;
        self.next_raft_id += 1;
        self.member_mut(id).raft_id = fresh;
        fresh
    }

    fn signal(&self, id: u64, signal: Signal) -> Result<()> {
        let member = self.member(id);
        let Some(child) = &member.child else {
            return Err(Failure::new(format!("node {id} has no process")));
        };
        // The child was not waited for yet, so its id cannot mean another process.
        let pid =
            i32::try_from(child.id()).map_err(|_| Failure::new("a process id is too large"))?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    fn reap(&mut self, id: u64, limit: Duration) -> Result<ExitStatus> {
        let member = self.member_mut(id);
        member.condition = Condition::Down;
        let Some(child) = &mut member.child else {
            return Err(Failure::new(format!("node {id} has no process")));
        };
        let pid = child.id();
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("node {id} did not end within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        member.child = None;
        member.pid.store(0, Ordering::Relaxed);
        self.guardian.remove(pid)?;
        Ok(status)
    }

    // --- what the cluster says -------------------------------------------------------------------

    /// Waits until a node says that it has caught up and that a quorum answers.
    pub async fn wait_ready(&mut self, id: u64) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let said = match self.member(id).probe.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(no_answer) => format!("{no_answer:?}"),
            };
            self.require_alive(id)?;
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "node {id} was not ready within {READY_LIMIT:?}: {said}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every node that should be serving is ready.
    pub async fn wait_all_ready(&mut self) -> Result<()> {
        for id in self.running() {
            self.wait_ready(id).await?;
        }
        Ok(())
    }

    /// Waits until every node that should be serving is ready and has applied what any of them had applied
    /// when this was called.
    pub async fn wait_all_caught_up(&mut self) -> Result<()> {
        self.wait_all_ready().await?;
        let mut target = 0;
        for id in self.running() {
            target = self.state_hash(id).await?.0.max(target);
        }
        let deadline = Instant::now() + READY_LIMIT;
        for id in self.running() {
            while self.state_hash(id).await?.0 < target {
                if Instant::now() > deadline {
                    return Err(Failure::new(format!("node {id} did not catch up to {target}")));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Waits until the catalogue shows every serving node alive: from then on, a quiet cluster changes
    /// nothing by itself.
    pub async fn wait_all_listed(&self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let running = self.running();
        let Some(first) = running.first() else { return Err(Failure::new("no node is running")) };
        loop {
            let listed = self.http(*first).must_get("/v1/health/service/consul?passing").await?;
            if listed.as_array().is_some_and(|listed| listed.len() == running.len()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("not all listed in {READY_LIMIT:?}: {listed}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn require_alive(&mut self, id: u64) -> Result<()> {
        let member = self.member_mut(id);
        let Some(child) = &mut member.child else {
            return Err(Failure::new(format!("node {id} is down")));
        };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!("node {id} ended by itself: {status}"))),
        }
    }

    /// The leader, once the node in question and a majority of the cluster agree on it.
    pub async fn leader(&self) -> Result<u64> {
        let deadline = Instant::now() + LEADER_LIMIT;
        loop {
            if let Some(leader) = self.agreed_leader().await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("no leader was agreed on in {LEADER_LIMIT:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn agreed_leader(&self) -> Option<u64> {
        let mut named = Vec::new();
        let serving: Vec<_> = self
            .everybody()
            .filter(|member| member.condition == Condition::Running)
            .map(|member| member.id)
            .collect();
        for id in &serving {
            named.push((*id, self.leader_according_to(*id).await));
        }
        let majority = self.everybody().count() / 2 + 1;
        serving.into_iter().find(|candidate| {
            let agrees = |(_, leader): &&(u64, Option<u64>)| *leader == Some(*candidate);
            named.contains(&(*candidate, Some(*candidate)))
                && named.iter().filter(agrees).count() >= majority
        })
    }

    /// Whom a node takes for the leader at present.
    pub async fn leader_according_to(&self, id: u64) -> Option<u64> {
        let answer = self.member(id).probe.get("/v1/status/leader").await.ok()?;
        let address = answer.body.trim_matches(['"', '\n']).to_owned();
        self.everybody().find(|member| member.rpc() == address).map(|member| member.id)
    }

    // --- state hashes ----------------------------------------------------------------------------

    /// A node's applied index and state hash.
    pub async fn state_hash(&self, id: u64) -> Result<(u64, String)> {
        let (applied, hash) = state_hash_at(&self.member(id).probe).await?;
        self.ledger().record(id, applied, &hash);
        Ok((applied, hash))
    }

    /// Waits until every serving node has applied the same index, with the same hash.
    pub async fn converge(&self) -> Result<(u64, String)> {
        let deadline = Instant::now() + CONVERGE_LIMIT;
        let running = self.running();
        loop {
            let mut seen = Vec::new();
            for id in &running {
                // A node that has just started may not answer yet.
                if let Ok(state) = self.state_hash(*id).await {
                    seen.push(state);
                }
            }
            if let Verdict::Invalid(violations) = self.ledger().verdict() {
                return Err(Failure::new(violations.join("\n")));
            }
            if seen.len() == running.len() && seen.windows(2).all(|pair| pair[0] == pair[1]) {
                return seen.pop().ok_or_else(|| Failure::new("no node is running"));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("not converged in {CONVERGE_LIMIT:?}: {seen:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Samples every node's state hash from now on, until the returned task is dropped.
    pub fn watch_hashes(&self, every: Duration) -> HashWatch {
        let probes: Vec<_> = self.members.iter().map(|m| (m.id, m.probe.clone())).collect();
        let ledger = Arc::clone(&self.hashes);
        HashWatch(tokio::spawn(async move {
            loop {
                let asked: Vec<_> = probes
                    .iter()
                    .map(|(id, probe)| (*id, tokio::spawn(ask_hash(probe.clone()))))
                    .collect();
                for (id, answer) in asked {
                    if let Ok(Ok((applied, hash))) = answer.await {
                        lock(&ledger).record(id, applied, &hash);
                    }
                }
                tokio::time::sleep(every).await;
            }
        }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.hashes)
    }

    /// Everything a test asks for at its end: all serving nodes alive and converged to one hash, equal
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

    /// Lines of the logs that speak of a panic.
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

    /// Ends every server at once, for a harness that has judged by other means.
    pub fn end(mut self) {
        self.is_finished = true;
    }

    /// Ends a cluster that a test knows to be unable to go on, without keeping its data and logs.
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

    /// What a failing test leaves behind for whoever looks into it.
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

impl Member {
    fn new(id: u64, subnet: [u8; 3], dir: &Path) -> Result<Self> {
        let host = u8::try_from(id).map_err(|_| Failure::new("too many nodes"))?;
        let ip = Ipv4Addr::new(subnet[0], subnet[1], subnet[2], host);
        let base = format!("http://{ip}:{HTTP_PORT}");
        Ok(Self {
            id,
            raft_id: id,
            binary: None,
            ip,
            data: dir.join(format!("n{id}")),
            log: dir.join(format!("n{id}.log")),
            http: Http::new(&base)?,
            probe: Http::with_patience(&base, PROBE_PATIENCE)?,
            child: None,
            pid: Arc::default(),
            condition: Condition::Down,
            disk: None,
        })
    }

    /// A disk of its own, with its data there. The guardian knows it as its own by the directory's name.
    fn give_disk(&mut self, dir: &Path, mib: u64, guardian: &mut Guardian) -> Result<()> {
        let disk = Disk::guarded(dir, self.id, mib, guardian)?;
        self.data = disk.root().join("data");
        self.disk = Some(disk);
        Ok(())
    }

    fn rpc(&self) -> String {
        format!("{}:{RPC_PORT}", self.ip)
    }
}

/// A command that becomes `program` after the lines of shell were run in its process. The environment is
/// for the server alone: what is loaded into it must not be loaded into a shell.
fn prepared(
    program: PathBuf,
    lines: &[String],
    id: u64,
    environment: &[(String, String)],
) -> Command {
    if lines.is_empty() {
        let mut command = without_own_settings(Command::new(program));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        return command;
    }
    let lines = lines.join("\n").replace("{id}", &id.to_string());
    let mut command = without_own_settings(Command::new("sh"));
    command.args(["-c", &format!("set -e\n{lines}\nexec env \"$@\""), "before-start"]);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    command
}

/// A developer's own settings are not what is tested.
fn without_own_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("QUORATE_SERVER_") || text == "QUORATE_MUTANT" {
            command.env_remove(name);
        }
    }
    command
}

/// Samples state hashes in the background; dropping it ends the sampling.
#[derive(Debug)]
pub struct HashWatch(JoinHandle<()>);

impl Drop for HashWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask_hash(probe: Http) -> Result<(u64, String)> {
    state_hash_at(&probe).await
}

async fn state_hash_at(probe: &Http) -> Result<(u64, String)> {
    let state = probe.must_get("/v1/quorate/state-hash").await?;
    let applied = state["AppliedIndex"].as_u64();
    let hash = state["Hash"].as_str();
    let (Some(applied), Some(hash)) = (applied, hash) else {
        return Err(Failure::new(format!("not a state hash: {state}")));
    };
    Ok((applied, hash.to_owned()))
}

/// A test that panicked while it held the ledger has failed already; what it recorded is still true.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A /24 of the loopback network in which nobody listens on the nodes' ports. Processes begin at
/// different places, so that two do not pick the same one in the same moment.
fn free_subnet() -> Result<[u8; 3]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const TRIES: u32 = 200;
    // 127.0.y and 127.1.y are left to people.
    const FIRST: u32 = 2;
    for _ in 0..TRIES {
        let number = std::process::id().wrapping_mul(257) + NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, x, y] = (number % ((256 - FIRST) * 256) + FIRST * 256).to_be_bytes();
        let subnet = [127, x, y];
        let is_free = |port| TcpListener::bind((Ipv4Addr::new(127, x, y, 1), port)).is_ok();
        if is_free(HTTP_PORT) && is_free(RPC_PORT) {
            return Ok(subnet);
        }
    }
    Err(Failure::new("no loopback network is free"))
}
