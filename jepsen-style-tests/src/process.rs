//! Single processes of the binary, for tests of what a cluster does not show: command lines, starts that are
//! refused, copies of a server.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guardian::Guardian;
use crate::wait::Limit;
use crate::{Failure, Result, binary};

/// A running process of the binary. It is killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    _guardian: Guardian,
}

impl Process {
    /// Starts the binary with `arguments` and appends all its output to `log`. Its data directory should lie
    /// beside `log`: then it ends even if this process is killed.
    pub fn start<A: AsRef<OsStr>>(
        log: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        Self::start_in(&[], log, arguments)
    }

    /// The same with variables in its environment.
    pub fn start_in<A: AsRef<OsStr>>(
        environment: &[(&str, &str)],
        log: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let directory = log.parent().ok_or_else(|| Failure::new("a log without a directory"))?;
        std::fs::create_dir_all(directory)?;
        let mut guardian = Guardian::start(directory)?;
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = command(&binary::quorate()?);
        command.envs(environment.iter().copied());
        command.args(arguments).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn()?;
        guardian.add(child.id())?;
        Ok(Self { child, log: log.to_owned(), _guardian: guardian })
    }

    /// Everything it has written to its outputs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub async fn wait_ended(&mut self, limit: Duration) -> Result<Option<i32>> {
        let limit = Limit::new(limit);
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status.code());
            }
            limit.pause(|| format!("the process has not ended\n{}", self.log())).await?;
        }
    }

    /// Waits until its log contains `text`.
    pub async fn wait_logged(&self, text: &str, limit: Duration) -> Result<()> {
        let limit = Limit::new(limit);
        while !self.log().contains(text) {
            limit.pause(|| format!("{text:?} in the log\n{}", self.log())).await?;
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send_signal(&self.child, signal)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child that was not waited for yet: its id cannot mean another process.
pub fn send_signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).map_err(|_| Failure::new("a process id is too large"))?;
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// Runs the binary until it ends; returns its exit status and everything it wrote.
pub fn run<A: AsRef<OsStr>>(
    environment: &[(&str, &str)],
    arguments: impl IntoIterator<Item = A>,
) -> Result<(ExitStatus, String)> {
    let mut command = command(&binary::quorate()?);
    let output = command.envs(environment.iter().copied()).args(arguments).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status, text(&output.stdout) + &text(&output.stderr)))
}

/// A command without the developer's own settings of servers, which are not under test.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_SERVER_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Lets this process, and the servers that it starts from then on, open as many files as the system allows: for tests
/// with thousands of connections. Servers raise their own limit anyway.
pub fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// It has ended.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// The most that was ever resident of a process, in KiB.
///
/// # Errors
/// It has ended.
pub fn resident_peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| Failure::new(format!("no {name}")))
}

/// Ports of an address on which nothing listens now.
pub fn free_ports(ip: impl Into<IpAddr>, count: usize) -> Result<Vec<u16>> {
    let ip = ip.into();
    // All are held until the last is found, so that none is found twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((ip, 0))).collect::<std::io::Result<_>>()?;
    let ports = held.iter().map(|listener| listener.local_addr().map(|address| address.port()));
    Ok(ports.collect::<std::io::Result<_>>()?)
}
