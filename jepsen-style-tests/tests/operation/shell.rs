//! The binary's commands as a shell runs them.

use std::process::Stdio;
use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Result, binary};
use serde_json::Value;
use tokio::process::Command;

/// How long a command may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Exit codes that scripts rely on.
pub(crate) const OK: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const UNAVAILABLE: i32 = 3;
pub(crate) const CONFLICT: i32 = 5;
pub(crate) const UNKNOWN: i32 = 6;

/// Runs commands against some servers.
pub(crate) struct Shell {
    addresses: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let bases: Vec<_> =
            cluster.ids().into_iter().map(|id| cluster.http(id).base().to_owned()).collect();
        Self { addresses: bases.join(",") }
    }

    /// One that asks servers at these addresses.
    pub(crate) fn at(addresses: &str) -> Self {
        Self { addresses: addresses.to_owned() }
    }

    /// The addresses, as in QUORATE_HTTP_ADDR.
    pub(crate) fn addresses(&self) -> &str {
        &self.addresses
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary::quorate()?);
        command
            .args(arguments)
            .env("QUORATE_HTTP_ADDR", &self.addresses)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let ended = tokio::time::timeout(PATIENCE, self.command(arguments)?.output()).await;
        let ended = ended.map_err(|_| Failure::new(format!("{arguments:?} goes on")))??;
        Ok(Ran {
            code: ended.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&ended.stdout).into_owned(),
            err: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// Runs it and expects this code.
    pub(crate) async fn expect(&self, code: i32, arguments: &[&str]) -> Result<Ran> {
        let ran = self.run(arguments).await?;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        Ok(ran)
    }

    /// What it prints for programs.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let ran = self.expect(OK, &[arguments, &["-o", "json"]].concat()).await?;
        Ok(serde_json::from_str(&ran.out)?)
    }

    /// Runs it until this holds of what it prints.
    pub(crate) async fn until(
        &self,
        arguments: &[&str],
        holds: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let wait = Limit::new(PATIENCE);
        loop {
            let printed = self.json(arguments).await?;
            if holds(&printed) {
                return Ok(());
            }
            wait.pause(|| format!("{arguments:?}: {printed}")).await?;
        }
    }
}
