//! The level of the cluster's rules.
//!
//! Servers of two versions run side by side while a cluster is upgraded, and both apply the same log. What
//! a version adds (commands, members of an entry, rules of apply) would take effect on its own servers only.
//! So every version has a level, [`LEVEL`], and the state has the cluster's: the leader raises it with
//! [`Duty::Level`](crate::command::Duty::Level) once every member runs a version that knows it. What
//! belongs to a level is neither proposed nor applied before.
//!
//! It never falls. A server whose version knows less cannot apply the log any more, and says so.
//!
//! A version that adds something which the one before cannot apply has the next level. What a released version
//! does at a level does not change.
//!
//! | level | what it brings |
//! | --- | --- |
//! | 1 | levels |
//! | 2 | the leader says whether hosts of servers are alive ([`HOSTS_OF_SERVERS`]) |
//! | 3 | the history ([`HISTORY_LEVEL`]): stamped entries, and who asked for a command |
//! | 4 | heartbeats with facts ([`HEARTBEAT_LEVEL`]): warnings before a TTL is over, commands for heartbeats in bulk; and a record of a first run that fails |
//! | 5 | instances that a connection holds ([`PRESENCE_LEVEL`]) |
//! | 6 | what agents have from files is marked, and whoever else writes it leaves the mark ([`FILE_MARK_LEVEL`]) |
//! | 7 | a session holds so many keys at most ([`SESSION_KEYS_LEVEL`]) |
//! | 8 | pools of instances, and claims on them ([`CLAIMS_LEVEL`]) |
//! | 9 | heartbeats that come late are told from those of a process that is back, and a lost server's clients have their linger too ([`LATE_HEARTBEATS_LEVEL`]) |
//! | 10 | a presence says what process holds it ([`PROCESS_PRESENCE_LEVEL`]) |
//! | 11 | the state completes what a heartbeat leaves out, and another owner of a presence is a restart ([`COMPLETION_LEVEL`]) |
//! | 12 | checks are run by workers: all servers, and worker processes ([`WORKERS_LEVEL`]) |
//! | 13 | tokens, policies and roles ([`ACL_LEVEL`]) |

use super::{Effects, State};
use crate::command::Command;
use crate::record::CheckRegistration;
use crate::txn::TxnOperation;

/// The highest level whose rules this version knows. Level 0 is that of the versions before there were
/// levels, and level 1 has the same rules.
pub const LEVEL: u32 = ACL_LEVEL;

/// From this level on there are tokens, policies and roles, and commands that only some tokens may give
/// ([`Permits`](crate::command::Command::Permits)).
pub const ACL_LEVEL: u32 = 13;

/// From this level on checks are run by whoever is responsible for them ([`WorkerSet`](super::WorkerSet)), may have
/// several observers and may name a network. Before it, the leader runs all.
pub const WORKERS_LEVEL: u32 = 12;

/// From this level on what a heartbeat leaves out is decided where the log is applied, and no longer by the server
/// that takes it, which may be behind; and an instance that another owner opens a presence of has restarted,
/// whether or not its client says what process it is.
pub const COMPLETION_LEVEL: u32 = 11;

/// From this level on a presence may say what process holds it
/// ([`PresenceOfProcess`](crate::command::Command::PresenceOfProcess)), and what is known of that is kept by the
/// check of the presence where there is no other.
pub const PROCESS_PRESENCE_LEVEL: u32 = 10;

/// From this level on it counts how long the process that is known was silent when a heartbeat of the process
/// before it comes, or one that counts back; and the clients of a server that is lost have their linger if that
/// is longer than its grace.
pub const LATE_HEARTBEATS_LEVEL: u32 = 9;

/// From this level on there are pools of instances, and claims on them ([`Claim`](crate::record::Claim)).
pub const CLAIMS_LEVEL: u32 = 8;

/// From this level on a session holds at most [`SESSION_KEYS_MAX`](crate::record::SESSION_KEYS_MAX) keys.
pub const SESSION_KEYS_LEVEL: u32 = 7;

/// From this level on agents mark what they register from definition files
/// ([`is_from_file`](crate::record::FromFile::is_from_file)). What is written
/// through the catalogue keeps the mark of what was there.
pub const FILE_MARK_LEVEL: u32 = 6;

/// From this level on a connection can hold an instance ([`Presence`](crate::record::Presence)).
pub const PRESENCE_LEVEL: u32 = 5;

/// From this level on there is a history ([`History`](super::History)).
pub const HISTORY_LEVEL: u32 = 3;

/// From this level on a TTL check may warn before it turns critical
/// ([`LaterMembers::warn_after`](crate::record::LaterMembers)), and keeps what its client last said.
pub const HEARTBEAT_LEVEL: u32 = 4;

/// From this level on the leader says of the agents of servers' hosts too whether they are alive
/// ([`SetServerHealth`](crate::command::Command::SetServerHealth)), and nobody else does.
pub const HOSTS_OF_SERVERS: u32 = 2;

/// The level from which on all servers can apply a command.
#[must_use]
pub fn level_of(command: &Command) -> u32 {
    let level = |checks: &[CheckRegistration]| {
        let warns = |check: &CheckRegistration| !check.definition.later.warn_after.is_zero();
        let names_workers = |check: &CheckRegistration| check.definition.later.names_workers();
        match checks {
            checks if checks.iter().any(names_workers) => WORKERS_LEVEL,
            checks if checks.iter().any(warns) => HEARTBEAT_LEVEL,
            _ => 0,
        }
    };
    match command {
        Command::AgentRegisterService { checks, .. } => level(checks),
        Command::AgentRegisterCheck { check, .. } => level(std::slice::from_ref(check)),
        Command::CatalogRegister(what) => level(&what.checks),
        Command::Txn(operations) => {
            let levels = operations.iter().map(|operation| match operation {
                TxnOperation::Check { check, .. } => level(std::slice::from_ref(check)),
                _ => 0,
            });
            levels.max().unwrap_or(0)
        }
        Command::Renew(_) | Command::Beat(_) => HEARTBEAT_LEVEL,
        Command::Claims(_) => CLAIMS_LEVEL,
        Command::PresenceOfProcess(what) => PROCESS_PRESENCE_LEVEL.max(level(&what.open.checks)),
        Command::PresenceOpen(open) => PRESENCE_LEVEL.max(level(&open.checks)),
        Command::PresenceReopen(_) | Command::PresenceEnded { .. } => PRESENCE_LEVEL,
        Command::Workers(_) => WORKERS_LEVEL,
        Command::Permits(_) | Command::Acl(_) => ACL_LEVEL,
        Command::CatalogDeregister { .. }
        | Command::AgentDeregisterService { .. }
        | Command::AgentDeregisterCheck { .. }
        | Command::UpdateCheck { .. }
        | Command::Heartbeat { .. }
        | Command::KvPut { .. }
        | Command::KvDelete { .. }
        | Command::SessionCreate(_)
        | Command::SessionDestroy { .. }
        | Command::SessionRenew { .. }
        | Command::RegisterServer(_)
        | Command::RemoveServer { .. }
        | Command::SetServerHealth { .. }
        | Command::FireEvent(_)
        | Command::PutCoordinate { .. }
        | Command::PutQuery { .. }
        | Command::DeleteQuery { .. }
        | Command::SetMaintenance { .. }
        | Command::AgentLeave { .. }
        | Command::SetAutopilot { .. }
        | Command::ProbeResult { .. }
        | Command::RestoreBegin { .. }
        | Command::RestorePiece { .. }
        | Command::RestoreFinish { .. }
        | Command::DescribeAgent { .. }
        | Command::Answered { .. }
        | Command::WatchAgent { .. }
        | Command::Asked(_) => 0,
    }
}

impl State {
    /// The level of the rules in force.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// All members know the rules of a level, says the leader.
    pub(super) fn raise_level(&mut self, level: u32, effects: &mut Effects) {
        let before = self.level;
        self.level = before.max(level);
        if before < CLAIMS_LEVEL && self.level >= CLAIMS_LEVEL {
            self.found_pools(effects);
        }
        if before < WORKERS_LEVEL && self.level >= WORKERS_LEVEL {
            self.found_workers();
        }
        if before < ACL_LEVEL && self.level >= ACL_LEVEL {
            self.found_acl();
        }
    }
}

/// Why a server of this version cannot go on with a state of a level, if it cannot.
pub(crate) fn unknown_level(level: u32) -> Option<String> {
    (level > LEVEL).then(|| {
        format!(
            "the cluster has the rules of level {level}, and this version of quorate knows those up to level {LEVEL}: \
             start a newer version, at least the one that the other servers run"
        )
    })
}
