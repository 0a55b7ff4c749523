//! `status`: the cluster in a few lines.

use std::process::ExitCode;

use quorate_client::types::operator::{AutopilotHealth, ServiceUsage};
use serde::Serialize;

use super::Nothing;
use super::failure::Failure;
use super::output::{Table, count};
use super::session::Session;

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    /// The server that answered.
    asked: String,
    /// The agent as which it was asked.
    agent: String,
    version: String,
    datacenter: String,
    leader: Option<String>,
    healthy: bool,
    failure_tolerance: usize,
    servers: Vec<Server>,
    nodes: usize,
    services: usize,
    instances: usize,
    applied_index: u64,
    state_hash: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    name: String,
    address: String,
    healthy: bool,
    voter: bool,
}

pub(super) async fn run(session: &Session, _: Nothing) -> Result<ExitCode, Failure> {
    let client = &session.client;
    let about = client.agent().about().await?;
    let state = client.status().state_hash().await?;
    // Without a leader the answering server still knows these.
    let usage = client.operator().usage(&session.query().stale()).await?;
    let AutopilotHealth { healthy, failure_tolerance, servers } =
        match client.status().leader().await? {
            Some(_) => client.operator().autopilot_health().await?,
            None => AutopilotHealth::default(),
        };
    let counts: Vec<ServiceUsage> = usage.usage.into_values().collect();
    let sum = |number: fn(&ServiceUsage) -> usize| counts.iter().map(number).sum();
    let status = Status {
        asked: about.debug_config["ServerName"].as_str().unwrap_or_default().to_owned(),
        agent: about.config.node_name,
        version: about.meta.get("quorate-version").cloned().unwrap_or_default(),
        datacenter: about.config.datacenter,
        leader: servers.iter().find(|server| server.leader).map(|server| server.name.clone()),
        healthy,
        failure_tolerance,
        nodes: sum(|usage| usage.nodes),
        services: sum(|usage| usage.services),
        instances: sum(|usage| usage.service_instances),
        applied_index: state.applied_index,
        state_hash: state.hash,
        servers: servers
            .into_iter()
            .map(|server| Server {
                name: server.name,
                address: server.address,
                healthy: server.healthy,
                voter: server.voter,
            })
            .collect(),
    };
    session.show(&status, table)?;
    if status.leader.is_none() {
        return Err(Failure::unavailable("there is no leader: `quorate doctor` says more"));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(status: &Status) -> Table {
    let healthy = status.servers.iter().filter(|server| server.healthy).count();
    let servers = match status.leader {
        Some(_) => format!(
            "{healthy} of {} healthy, {} may fail",
            status.servers.len(),
            status.failure_tolerance
        ),
        None => "not known without a leader".to_owned(),
    };
    Table::facts([
        ("leader", status.leader.clone().unwrap_or_else(|| "none".to_owned())),
        ("servers", servers),
        ("datacenter", status.datacenter.clone()),
        (
            "holds",
            [(status.services, "service"), (status.instances, "instance"), (status.nodes, "node")]
                .map(|(number, what)| count(number, what))
                .join(", "),
        ),
        (
            "asked",
            format!("{} as agent {}, version {}", status.asked, status.agent, status.version),
        ),
        ("state", format!("{} at log entry {}", status.state_hash, status.applied_index)),
    ])
}
