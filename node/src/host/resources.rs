//! What the operating system allows this process: descriptors and threads, and who may use how many.
//!
//! A server that runs out of descriptors cannot write a snapshot, reach its peers or be reached by them,
//! so clients never get all of them ([`Budget`]). The limits of a process are its own: they are read
//! once, after [`raise_limits`].

use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is kept for the log, snapshots, listeners, look-ups of names, and connections to peers: up to eight of
/// them, with some for each purpose.
const OWN_MAX: u64 = 256;
/// Each run of a check has a socket ([`crate::checks`]).
const CHECKS_MAX: u64 = 512;
/// Connections to the RPC port: of peers, and of client agents.
const RPC_MAX: u64 = 4_096;
/// Where descriptors are scarce, they are at most this part of all.
const RPC_PART: u64 = 8;
/// Connections of DNS clients. Most ask over UDP, which takes no descriptors.
const DNS_MAX: u64 = 256;
/// Where descriptors are scarce, they are at most this part of all.
const DNS_PART: u64 = 16;
/// Where descriptors are scarce, what is kept for either of these is at most this part of all.
const PART: u64 = 4;
/// Where the system does not tell its limit: the usual one of a shell.
const UNKNOWN_LIMIT: u64 = 1_024;

/// The budget of this process.
pub static BUDGET: LazyLock<Budget> = LazyLock::new(|| {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(UNKNOWN_LIMIT, |(soft, _)| soft);
    Budget::of(limit)
});

/// How many descriptors there are, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How many the process may have.
    pub descriptors: u64,
    /// Connections of clients to the HTTP API.
    pub clients: usize,
    /// Runs of checks at a time.
    pub checks: usize,
    /// Connections of other servers and of client agents to this one.
    pub rpc: usize,
    /// Connections of DNS clients.
    pub dns: usize,
}

impl Budget {
    /// Divides this many descriptors.
    #[must_use]
    pub fn of(descriptors: u64) -> Self {
        let own = OWN_MAX.min(descriptors / PART);
        let checks = CHECKS_MAX.min(descriptors / PART);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let rpc = RPC_MAX.min(descriptors / RPC_PART);
        let dns = DNS_MAX.min(descriptors / DNS_PART);
        let clients = count((descriptors - own - checks - rpc - dns).max(1));
        let (checks, rpc, dns) = (checks.max(1), rpc.max(1), dns.max(1));
        Self { descriptors, clients, checks: count(checks), rpc: count(rpc), dns: count(dns) }
    }
}

/// Raises the soft limits of descriptors and threads to the hard ones: shells and init systems keep the
/// soft ones low for the sake of programs that use `select`. To be called before any thread is started.
///
/// # Errors
/// A sentence when the system refuses; the server can run with what it has.
pub fn raise_limits() -> Result<(), String> {
    for (what, resource) in
        [("descriptors", Resource::RLIMIT_NOFILE), ("threads", Resource::RLIMIT_NPROC)]
    {
        let raised = getrlimit(resource).and_then(|(soft, hard)| {
            if soft < hard { setrlimit(resource, hard, hard) } else { Ok(()) }
        });
        raised.map_err(|error| format!("the limit of {what} cannot be raised: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_all_descriptors() {
        assert_eq!(Budget::of(1_000_000).clients, 1_000_000 - 768 - 4_096 - 256);
        let shares = |descriptors, clients, checks, rpc, dns| Budget {
            descriptors,
            clients,
            checks,
            rpc,
            dns,
        };
        assert_eq!(Budget::of(1_024), shares(1_024, 320, 256, 128, 64));
        assert_eq!(Budget::of(512), shares(512, 160, 128, 64, 32));
        for descriptors in 0..5_000 {
            let budget = Budget::of(descriptors);
            let used = (budget.clients + budget.checks + budget.rpc + budget.dns) as u64;
            let own = OWN_MAX.min(descriptors / PART);
            assert!(descriptors < 16 || used <= descriptors - own, "{budget:?}");
            assert!(budget.clients > 0 && budget.checks > 0);
        }
    }
}
