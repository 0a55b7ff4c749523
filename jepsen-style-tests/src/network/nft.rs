//! A table of the kernel's packet filter, made at its first use and deleted on drop.
//!
//! It drops incoming packets in any state of a connection, so that established connections stop as well. Its name
//! contains the cluster's network and this process' id: two harnesses never touch each other's tables.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Failure, Result};

/// The chain whose rules lose packets.
const LOSS: &str = "loss";

/// A sender and a receiver.
type Pair = (Ipv4Addr, Ipv4Addr);

/// The packet filter's table of one cluster.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    is_announced: bool,
    is_made: bool,
}

impl Table {
    /// The table of the cluster whose first server has this address. Nothing is made yet.
    pub(super) fn new(first: Ipv4Addr) -> Self {
        let [_, x, y, _] = first.octets();
        let name = format!("quorate_127_{x}_{y}_{}", std::process::id());
        Self { name, is_announced: false, is_made: false }
    }

    /// The shell command that deletes it, given once.
    pub(super) fn undo_if_new(&mut self) -> Option<String> {
        let is_known = std::mem::replace(&mut self.is_announced, true);
        (!is_known).then(|| format!("nft delete table ip {}", self.name))
    }

    /// Drops every packet of these pairs.
    pub(super) async fn cut(&mut self, pairs: &[Pair]) -> Result<()> {
        self.make().await?;
        let name = &self.name;
        run(format!("add element ip {name} cut {}", set_of(pairs))).await
    }

    /// Drops so many of a hundred packets of these pairs.
    pub(super) async fn lose(&mut self, percent: u32, pairs: &[Pair]) -> Result<()> {
        self.make().await?;
        let (name, lossy) = (&self.name, set_of(pairs));
        let script = format!(
            "flush chain ip {name} {LOSS}\n\
             add rule ip {name} {LOSS} ip saddr . ip daddr {lossy} numgen random mod 100 < {percent} counter drop"
        );
        run(script).await
    }

    /// Lets everything pass again.
    pub(super) async fn heal(&mut self) -> Result<()> {
        if !self.is_made {
            return Ok(());
        }
        self.is_made = false;
        run(format!("delete table ip {}", self.name)).await
    }

    /// How many packets were lost by [`Self::lose`] since the table was made.
    pub(super) async fn dropped(&self) -> Result<u64> {
        if !self.is_made {
            return Ok(0);
        }
        let listing = ["-j", "list", "table", "ip", &self.name].map(str::to_owned);
        let listed = spawn(move || nft(&listing.each_ref().map(String::as_str), "")).await?;
        Ok(packets_in(&serde_json::from_str(&listed)?))
    }

    async fn make(&mut self) -> Result<()> {
        if self.is_made {
            return Ok(());
        }
        let name = &self.name;
        // Forgotten as well as made, should an earlier process of the same id have left one behind.
        let script = format!(
            "add table ip {name}\n\
             delete table ip {name}\n\
             add table ip {name}\n\
             add set ip {name} cut {{ type ipv4_addr . ipv4_addr; }}\n\
             add chain ip {name} cut {{ type filter hook input priority 0; }}\n\
             add rule ip {name} cut ip saddr . ip daddr @cut counter drop\n\
             add chain ip {name} {LOSS} {{ type filter hook input priority 1; }}\n"
        );
        // Before it is made: an error in between must not leave it behind.
        self.is_made = true;
        run(script).await
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.is_made {
            // The guardian tries it too; ignore the error.
            let _ = run_now(&format!("delete table ip {}", self.name));
        }
    }
}

/// Makes and deletes a table, to see whether this process may; an error says why not.
pub(super) fn try_out() -> Result<()> {
    let name = format!("quorate_try_{}", std::process::id());
    // In one transaction: nothing is ever left, and two tries do not meet.
    let script = format!(
        "add table ip {name}\n\
         add chain ip {name} {LOSS} {{ type filter hook input priority 0; }}\n\
         add rule ip {name} {LOSS} numgen random mod 100 < 1 counter drop\n\
         delete table ip {name}\n"
    );
    run_now(&script)
}

async fn run(script: String) -> Result<()> {
    spawn(move || run_now(&script)).await
}

/// Has nft do everything in `script`, or nothing.
fn run_now(script: &str) -> Result<()> {
    nft(&["-f", "-"], script).map(drop)
}

/// nft takes some milliseconds, which the clients on the same threads shall not wait for.
async fn spawn<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|error| Failure::new(format!("nft: {error}")))?
}

/// Runs nft and returns what it says.
fn nft(arguments: &[&str], input: &str) -> Result<String> {
    let mut nft = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("nft cannot be run: {error}")))?;
    nft.stdin.take().expect("it was asked for").write_all(input.as_bytes())?;
    let output = nft.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("nft: {}", said.lines().next().unwrap_or("no reason"))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn set_of(pairs: &[Pair]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(from, to)| format!("{from} . {to}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// The sum of the counters of the rules that lose packets, in nft's JSON.
fn packets_in(listed: &Value) -> u64 {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&listed["nftables"])
        .iter()
        .filter(|entry| entry["rule"]["chain"] == LOSS)
        .flat_map(|entry| list(&entry["rule"]["expr"]))
        .filter_map(|expression| expression["counter"]["packets"].as_u64())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_that_rules_lose_are_counted() {
        let rule = |chain: &str, packets: u64| serde_json::json!({"rule": {"chain": chain, "expr": [{"match": {}}, {"counter": {"packets": packets}}, {"drop": null}]}});
        let rules = [rule(LOSS, 3), rule(LOSS, 4), rule("cut", 100)];
        let listed = serde_json::json!({"nftables": [{"table": {}}, rules[0], rules[1], rules[2]]});
        assert_eq!(packets_in(&listed), 7);
    }

    #[test]
    fn a_table_is_announced_once() {
        let mut table = Table::new(Ipv4Addr::new(127, 7, 8, 1));
        let undo = table.undo_if_new().unwrap();
        assert!(undo.starts_with("nft delete table ip quorate_127_7_8_"), "{undo}");
        assert_eq!(table.undo_if_new(), None);
    }
}
