//! `/v1/operator/autopilot/`: its configuration, and the health of the servers.
//!
//! The configuration is kept, and `LastContactThreshold` and `MaxTrailingLogs` decide what counts as
//! healthy. `ServerStabilizationTime` has no effect: a new server votes after
//! [`STEADY_FOR`](crate::raft::learners::STEADY_FOR). `CleanupDeadServers` is always false, and true is refused: a server leaves the membership only
//! when an operator says so, because one that is stopped for an hour, or all night, is not gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::http::decode;
use axum::http::StatusCode;
use quorate_client::duration;
use quorate_client::types::operator::{
    AutopilotConfiguration, AutopilotHealth, AutopilotServer, AutopilotState, ServerHealth,
};
use quorate_storage::command::{Command, Outcome};
use quorate_storage::machine::Published;
use quorate_storage::raft::{LogId, NodeId};
use quorate_storage::record::{Access, Autopilot, AutopilotSettings, CheckStatus, SERF_HEALTH};

use crate::http::CONSUL_VERSION;
use crate::http::blocking;
use crate::http::call::{Call, MAX_JSON_BYTES};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::rights::Rule;
use crate::raft::HEARTBEAT_MS;
use crate::raft::error::ReadError;
use crate::raft::protocol::Progress;

/// A threshold below this would call a server unhealthy for a few late heartbeats.
const LAST_CONTACT_FLOOR: Duration = Duration::from_millis(8 * HEARTBEAT_MS);
/// Go's zero time. Nothing keeps since when a server has been healthy.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Why `CleanupDeadServers` cannot be switched on.
const NO_CLEANUP: &str = "CleanupDeadServers must be false: a server that is down is not removed by itself; remove one that is gone for good with DELETE /v1/operator/raft/peer?id=ID";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/operator/autopilot/configuration")
            .get(Rule::Operator(Access::Read), |call| Box::pin(configuration(call)))
            .put(Rule::Operator(Access::Write), |call| Box::pin(configure(call))),
        Endpoint::new("/v1/operator/autopilot/health")
            .get(Rule::Operator(Access::Read), |call| Box::pin(health(call))),
        Endpoint::new("/v1/operator/autopilot/state")
            .get(Rule::Operator(Access::Read), |call| Box::pin(state(call))),
    ]
}

// ---- configuration ---------------------------------------------------------------------------

async fn configuration(call: Call) -> Answer {
    let options = call.read_options()?;
    call.check_datacenter()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let row = published.state.autopilot().map(|row| Autopilot::clone(row)).unwrap_or_default();
    let (settings, indexes) = (row.settings, row.indexes);
    call.json(&AutopilotConfiguration {
        // Whatever is stored: rows of earlier releases say true, and it never had an effect.
        cleanup_dead_servers: false,
        last_contact_threshold: signed(settings.last_contact_threshold_nanos),
        max_trailing_logs: settings.max_trailing_logs,
        min_quorum: settings.min_quorum,
        server_stabilization_time: signed(settings.server_stabilization_time_nanos),
        redundancy_zone_tag: settings.redundancy_zone_tag,
        disable_upgrade_migration: settings.disable_upgrade_migration,
        upgrade_version_tag: settings.upgrade_version_tag,
        create_index: indexes.create.0,
        modify_index: indexes.modify.0,
    })
}

async fn configure(mut call: Call) -> Answer {
    call.read_options()?;
    call.check_datacenter()?;
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let body: AutopilotConfiguration = decode::body(&body).map_err(|error| {
        ApiError::bad_request(format!("Bad request: Error parsing autopilot config: {error}"))
    })?;
    if body.cleanup_dead_servers {
        return Err(ApiError::bad_request(NO_CLEANUP));
    }
    let cas = call.params.unsigned("cas").map_err(|error| {
        ApiError::bad_request(format!("Bad request: Error parsing cas value: {}", error.text))
    })?;
    let settings = Box::new(AutopilotSettings {
        cleanup_dead_servers: body.cleanup_dead_servers,
        last_contact_threshold_nanos: unsigned(body.last_contact_threshold),
        max_trailing_logs: body.max_trailing_logs,
        min_quorum: body.min_quorum,
        server_stabilization_time_nanos: unsigned(body.server_stabilization_time),
        redundancy_zone_tag: body.redundancy_zone_tag,
        disable_upgrade_migration: body.disable_upgrade_migration,
        upgrade_version_tag: body.upgrade_version_tag,
    });
    let outcome = call.propose(Command::SetAutopilot { settings, cas }).await?;
    call.json(&(outcome != Outcome::Condition(false)))
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn unsigned(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0)
}

// ---- health ----------------------------------------------------------------------------------

async fn health(call: Call) -> Answer {
    let health = judged(&call).await?;
    let code = if health.healthy { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    Ok(call.json(&health)?.status(code))
}

async fn state(call: Call) -> Answer {
    let health = judged(&call).await?;
    let leader = health.servers.iter().find(|server| server.leader);
    let voters = health.servers.iter().filter(|server| server.voter);
    call.json(&AutopilotState {
        healthy: health.healthy,
        failure_tolerance: health.failure_tolerance,
        optimistic_failure_tolerance: health.failure_tolerance,
        leader: leader.map_or_else(String::new, |server| server.id.clone()),
        voters: voters.map(|server| server.id.clone()).collect(),
        servers: health
            .servers
            .into_iter()
            .map(|server| (server.id.clone(), AutopilotServer::from(server)))
            .collect(),
    })
}

/// The servers as the leader sees them.
async fn judged(call: &Call) -> Result<AutopilotHealth, ApiError> {
    call.read_options()?;
    call.check_datacenter()?;
    let progress = call.node.progress().await.ok_or(ReadError::NoLeader)?;
    let published = call.node.published();
    let leader = call.node.leader().map(|(id, _)| id);
    Ok(judge(&published, &progress, leader))
}

fn judge(
    published: &Published,
    progress: &BTreeMap<NodeId, Progress>,
    leader: Option<NodeId>,
) -> AutopilotHealth {
    let settings = published.state.autopilot().map(|row| row.settings.clone()).unwrap_or_default();
    let limits = Limits {
        silence: Duration::from_nanos(settings.last_contact_threshold_nanos)
            .max(LAST_CONTACT_FLOOR),
        behind: settings.max_trailing_logs,
        last: progress.values().filter_map(|member| member.matched).map(|at| at.index).max(),
    };
    let membership = &published.membership;
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let servers: Vec<ServerHealth> = membership
        .nodes()
        .map(|(id, peer)| {
            let check = published.state.check(&peer.name, SERF_HEALTH);
            let alive = check.is_none_or(|check| check.registration.status == CheckStatus::Passing);
            let member = progress.get(id).copied().unwrap_or_default();
            let silence = member.silence_ms.map(Duration::from_millis);
            let nanos = silence.map_or(0, |span| i64::try_from(span.as_nanos()).unwrap_or(0));
            ServerHealth {
                id: id.to_string(),
                name: peer.name.clone(),
                address: peer.rpc_addr.clone(),
                serf_status: if alive { "alive" } else { "failed" }.to_owned(),
                version: CONSUL_VERSION.to_owned(),
                leader: leader == Some(*id),
                last_contact: duration::format(nanos),
                last_term: member.matched.map_or(0, |at| at.leader_id.term),
                last_index: member.matched.map_or(0, |at| at.index),
                healthy: alive && limits.are_kept_by(&member),
                voter: voters.contains(id),
                stable_since: NEVER.to_owned(),
            }
        })
        .collect();
    let healthy_voters = servers.iter().filter(|server| server.voter && server.healthy).count();
    let quorum = voters.len() / 2 + 1;
    AutopilotHealth {
        healthy: servers.iter().all(|server| server.healthy),
        failure_tolerance: healthy_voters.saturating_sub(quorum),
        servers,
    }
}

/// What a healthy server keeps to.
#[derive(Debug)]
struct Limits {
    silence: Duration,
    behind: u64,
    last: Option<u64>,
}

impl Limits {
    fn are_kept_by(&self, member: &Progress) -> bool {
        let heard = member.silence_ms.is_some_and(|ms| Duration::from_millis(ms) <= self.silence);
        // One that never acknowledged an entry has nothing, however short the log is.
        let is_near = |at: LogId| at.index.saturating_add(self.behind) >= self.last.unwrap_or(0);
        heard && !member.is_damaged && member.matched.is_some_and(is_near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(silence_ms: Option<u64>, index: u64) -> Progress {
        let leader_id = openraft::vote::leader_id_std::CommittedLeaderId::new(1);
        Progress { silence_ms, matched: Some(LogId { leader_id, index }), is_damaged: false }
    }

    #[test]
    fn a_server_that_is_silent_or_far_behind_is_unhealthy() {
        let limits = Limits { silence: Duration::from_millis(500), behind: 250, last: Some(1_000) };
        assert!(limits.are_kept_by(&member(Some(500), 750)));
        assert!(!limits.are_kept_by(&member(Some(501), 1_000)));
        assert!(!limits.are_kept_by(&member(Some(0), 749)));
        assert!(!limits.are_kept_by(&member(None, 1_000)));
        assert!(!limits.are_kept_by(&Progress { is_damaged: true, ..member(Some(0), 1_000) }));
        let young = Limits { last: Some(3), ..limits };
        assert!(!young.are_kept_by(&Progress { silence_ms: Some(0), ..Progress::default() }));
    }
}
