//! Consensus, from the node's side: what openraft needs from us, and what we make of it.
//!
//! * [`transport`] is how nodes reach each other, as a trait: HTTP between processes
//!   ([`http_transport`], [`rpc_server`], [`rpc_connections`]), a simulated network in tests. [`protocol`] are the
//!   messages, [`network`] is openraft's view of the transport, [`service`] handles requests.
//! * [`propose`] numbers this node's commands, batches them, sends them to the leader, and answers each
//!   client when this node has applied its command. [`intake`] is the leader's side of that. Heartbeats and
//!   writes have a [`lane`] each.
//! * [`read`] is the barrier that makes a read linearizable on any node.
//! * [`comparison`] finds servers whose state differs from that of the others.
//! * [`failure_detector`] notices the end of the leader's process before the election timeout does.
//! * [`membership`] founds a cluster, joins one, and removes servers. [`learners`] decides when a new server
//!   may vote; [`majority`] refuses changes that would leave no majority. [`surroundings`] and [`warnings`]
//!   tell the operator what is in the way. [`processes`] knows which process speaks for a server and where it
//!   is; [`boot`] is how a process becomes that one. [`plausible`] rejects messages that no honest peer
//!   sends, before openraft sees them.
//!
//! # Terms
//!
//! | term | meaning |
//! | --- | --- |
//! | server, node | a member of the cluster: a Raft id and the data directory that belongs to it |
//! | store id | random id of a data directory, made with it ([`identity`]); the membership names it too |
//! | process | what runs and answers at an address. Several may claim to be one server (a copied directory); [`processes`] decides which one is heard |
//! | boot | one start of a server's process, named by a random [`BootId`](quorate_storage::raft::BootId) |
//! | incarnation | the number that the log gives a boot when it records it ([`boot`]); part of every command's number |
//! | boots | how often a data directory was opened, counted on its own disk. A copy counts on its own, so this identifies nothing |
//! | [`ProcessIdentity`](protocol::ProcessIdentity) | how a process signs its messages: boot, incarnation, store id, address |
//! | [`ServerInfo`](protocol::ServerInfo) | what a server tells others about itself: id, addresses, datacenter and [`DiskState`](protocol::DiskState) |
//! | [`DiskState`](protocol::DiskState) | what a process found on its disk when it booted: log end, term, boots |
//! | log end | how far a server's log is known to have reached; a server that boots with less has lost data |

pub mod acknowledged;
mod admission;
pub mod boot;
pub mod cluster_clock;
pub mod compaction;
pub mod comparison;
pub mod context;
pub mod error;
pub mod failure_detector;
pub mod handover;
pub mod http_transport;
pub mod identity;
pub mod impostor;
pub mod intake;
pub mod introduced;
pub mod lane;
pub mod leadership;
pub mod learners;
pub mod level;
mod majority;
pub mod membership;
pub mod network;
pub mod plausible;
pub mod processes;
pub mod propose;
pub mod protocol;
pub mod read;
pub mod receiving;
pub mod rpc_connections;
pub mod rpc_server;
pub mod service;
mod surroundings;
pub mod transport;
pub mod warnings;

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use quorate_storage::machine::Machine;
use quorate_storage::raft::TypeConfig;

/// openraft around our state machine.
pub type Raft = openraft::Raft<TypeConfig, Machine>;

/// Time between two heartbeats of a leader.
pub const HEARTBEAT_MS: u64 = 60;
/// A follower that hears nothing for a random time between this and [`ELECTION_MS_MAX`] stands for election.
/// Measured: an expected gap of about 0.7 s after a leader was killed.
pub const ELECTION_MS_MIN: u64 = 200;
/// See [`ELECTION_MS_MIN`]; also how long a leader trusts a quorum's last answer.
pub const ELECTION_MS_MAX: u64 = 400;
/// Without a quorum, a leader alternates between silence and probing for this long each, so that it does not
/// hold back an election forever.
const QUORUM_LOSS_PROBE_MS: u64 = 2_000;
/// Entries in one append request; bytes are capped by the log store.
const APPEND_ENTRIES_MAX: u64 = 256;
/// A new server may vote once it is at most this far behind. (This version of openraft uses its "replication
/// lag threshold" for nothing else.)
const CAUGHT_UP_ENTRIES: u64 = 500;
/// How many entries the log may hold. (Its bytes are limited as well, see [`crate::raft::compaction`].)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// A snapshot is built after this many entries.
    pub snapshot_threshold: u64,
    /// Entries kept behind a snapshot, so that a node that was away for a moment needs no snapshot.
    pub trailing_logs: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { snapshot_threshold: 10_000, trailing_logs: 5_000 }
    }
}

/// Entries are purged in batches of at least this many, or of [`LogLimits::trailing_logs`] if that is less.
const PURGE_ENTRIES_MIN: u64 = 1_000;
/// How long one snapshot may take to be sent and installed.
pub const SNAPSHOT_SEND_MS_MAX: u64 = 120_000;

/// openraft's settings.
///
/// # Errors
/// When the constants above contradict each other.
pub fn openraft_config(
    cluster_name: &str,
    limits: LogLimits,
) -> Result<Arc<Config>, openraft::ConfigError> {
    let config = Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        install_snapshot_timeout: SNAPSHOT_SEND_MS_MAX,
        max_payload_entries: APPEND_ENTRIES_MAX,
        replication_lag_threshold: CAUGHT_UP_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_threshold),
        max_in_snapshot_log_to_keep: limits.trailing_logs,
        purge_batch_size: PURGE_ENTRIES_MIN.min(limits.trailing_logs.max(1)),
        // The default doubles from 200 ms: a restarted or healed node would hear nothing for up to a
        // second, and might stand for election meanwhile.
        backoff: "20ms 40ms 80ms ...150ms".to_owned(),
        // A node that cannot win must not make the others change their term.
        enable_pre_vote: Some(true),
        // A leader that restarts quickly must win an election again. With restored leadership, half of the
        // simulated power cuts led to reads from a state machine that had not caught up.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(QUORUM_LOSS_PROBE_MS),
        // A server whose log became shorter has forgotten what it promised.
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}
