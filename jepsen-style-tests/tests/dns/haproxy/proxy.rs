//! HAProxy with the configurations of `client/examples/haproxy`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Result, binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a process has to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long the first configuration may take.
const RENDER_LIMIT: Duration = Duration::from_secs(30);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // HAProxy's master ends its workers when it is asked to end, not when it is killed.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let limit = Limit::new(END_LIMIT);
        while !matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
            if limit.pause_blocking(String::new).is_err() {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
    }
}

/// HAProxy, and what changes its configuration.
pub(super) struct Proxy {
    /// Where it serves.
    pub(super) address: SocketAddr,
    _follower: Option<Running>,
    _haproxy: Running,
    _dir: TempDir,
}

impl Proxy {
    /// It asks the servers' DNS.
    pub(super) fn by_dns(cluster: &Cluster) -> Result<Self> {
        let (dir, address) = (tempfile::tempdir()?, free_address()?);
        let mut haproxy = haproxy(&example("by-dns.cfg"), address);
        for id in cluster.ids() {
            haproxy.env(format!("DNS_{id}"), cluster.dns(id).to_string());
        }
        Ok(Self { address, _follower: None, _haproxy: Running(haproxy.spawn()?), _dir: dir })
    }

    /// `quorate template` writes its configuration and reloads it.
    pub(super) fn by_template(cluster: &Cluster) -> Result<Self> {
        let (dir, address) = (tempfile::tempdir()?, free_address()?);
        let configuration = dir.path().join("haproxy.cfg");
        let servers = cluster.https(&cluster.ids());
        let servers: Vec<_> = servers.iter().map(|node| node.base().to_owned()).collect();
        let render = || -> Result<Command> {
            let mut command = Command::new(binary::quorate()?);
            command.arg("template").arg(example("by-template.cfg.tmpl")).arg(&configuration);
            command
                .env("QUORATE_HTTP_ADDR", servers.join(","))
                .env("WEB_BIND", address.to_string());
            command.args(["--validate", "haproxy -c -q -f {}"]);
            Ok(command)
        };
        let mut once = Running(render()?.arg("--once").spawn()?);
        let limit = Limit::new(RENDER_LIMIT);
        let ended = loop {
            match once.0.try_wait()? {
                Some(ended) => break ended,
                None => limit.pause_blocking(|| "the first configuration".to_owned())?,
            }
        };
        if !ended.success() {
            return Err(Failure::new(format!("the first configuration: {ended}")));
        }
        let haproxy = Running(haproxy(&configuration, address).arg("-W").spawn()?);
        let reload = format!("kill -USR2 {}", haproxy.0.id());
        let follower = Running(render()?.args(["--run", &reload]).spawn()?);
        Ok(Self { address, _follower: Some(follower), _haproxy: haproxy, _dir: dir })
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/haproxy").join(name)
}

fn haproxy(configuration: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(configuration).env("WEB_BIND", address.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
