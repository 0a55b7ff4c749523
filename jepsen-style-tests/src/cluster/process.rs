//! The servers' processes: start, kill, stop, pause, and how they ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Cluster, Condition, DNS_PORT, HTTP_PORT, RPC_PORT, STOP_LIMIT};
use crate::{Failure, Limit, Result, binary, process};

impl Cluster {
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
            .map(|(name, value)| {
                let value = value.replace("{id}", &id.to_string());
                (name, value.replace("{ip}", &member.ip.to_string()))
            })
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
    pub(super) fn is_founder(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id && member.raft_id == id)
    }

    /// What a node is started with.
    pub fn program(&self, id: u64) -> Result<PathBuf> {
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
    pub(super) fn flags(&self, id: u64) -> Vec<String> {
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
        let deadline = Limit::new(limit);
        loop {
            let Some(child) = &mut self.member_mut(id).child else {
                return Err(Failure::new(format!("node {id} has no process")));
            };
            if child.try_wait()?.is_some() {
                return self.reap(id, limit);
            }
            deadline.pause(|| format!("the end of node {id}")).await?;
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

    /// Has a node read its certificates again (SIGHUP).
    pub fn hang_up(&self, id: u64) -> Result<()> {
        self.signal(id, Signal::SIGHUP)
    }

    /// Resumes a paused node.
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

    /// Gives a node that is down another address, from its next start on: the last byte of its IP address
    /// is raised by 100. The links of [`Self::network`] still lead to the old one.
    pub fn move_node(&mut self, id: u64) -> Result<()> {
        let member = self.member_mut(id);
        if member.child.is_some() {
            return Err(Failure::new(format!("node {id} runs: it cannot be moved")));
        }
        let [a, b, c, d] = member.ip.octets();
        let moved = d.checked_add(100).ok_or_else(|| Failure::new("moved too often"))?;
        member.move_to(std::net::Ipv4Addr::new(a, b, c, moved))
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

    pub(super) fn signal(&self, id: u64, signal: Signal) -> Result<()> {
        let member = self.member(id);
        let Some(child) = &member.child else {
            return Err(Failure::new(format!("node {id} has no process")));
        };
        process::send_signal(child, signal)
    }

    pub(super) fn reap(&mut self, id: u64, limit: Duration) -> Result<ExitStatus> {
        let member = self.member_mut(id);
        member.condition = Condition::Down;
        let Some(child) = &mut member.child else {
            return Err(Failure::new(format!("node {id} has no process")));
        };
        let pid = child.id();
        let limit = Limit::new(limit);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            limit.check(|| format!("the end of node {id}"))?;
            std::thread::sleep(Duration::from_millis(1));
        };
        member.child = None;
        member.pid.store(0, Ordering::Relaxed);
        self.guardian.remove(pid)?;
        Ok(status)
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
        let mut command = process::command(&program);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        return command;
    }
    let lines = lines.join("\n").replace("{id}", &id.to_string());
    let mut command = process::command(Path::new("sh"));
    command.args(["-c", &format!("set -e\n{lines}\nexec env \"$@\""), "before-start"]);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    command
}
