//! `members` and `nodes`.

use std::process::ExitCode;

use clap::Args;
use quorate_client::types::agent::Member;

use super::Nothing;
use super::failure::Failure;
use super::output::Table;
use super::session::{Session, pair};

/// The status numbers of the members of a Serf cluster, which Consul's API uses.
const SERF_STATUS: [&str; 5] = ["none", "alive", "leaving", "left", "failed"];

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only those for which this expression of Consul's filter language holds
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Only those with this metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
}

pub(super) async fn members(session: &Session, _: Nothing) -> Result<ExitCode, Failure> {
    let members = session.client.agent().members().await?;
    session.show(&members, |members| {
        Table::of(&["NAME", "ADDRESS", "STATUS", "ROLE", "VERSION"], members, |member| {
            let tag = |name: &str| member.tags.get(name).cloned().unwrap_or_default();
            let role = if tag("role") == "consul" { "server" } else { "client" };
            vec![
                member.name.clone(),
                format!("{}:{}", member.addr, member.port),
                status(member).to_owned(),
                role.to_owned(),
                tag("build"),
            ]
        })
    })
}

fn status(member: &Member) -> &'static str {
    SERF_STATUS.get(usize::from(member.status)).copied().unwrap_or("unknown")
}

pub(super) async fn nodes(session: &Session, args: NodesArgs) -> Result<ExitCode, Failure> {
    let query = session.query_with([("filter", args.filter)]);
    let query = args.meta.iter().fold(query, |query, (key, value)| query.node_meta(key, value));
    let nodes = session.client.catalog().nodes(&query).await?.value;
    session.show(&nodes, |nodes| {
        Table::of(&["NODE", "ID", "ADDRESS", "DATACENTER"], nodes, |node| {
            vec![node.node.clone(), node.id.clone(), node.address.clone(), node.datacenter.clone()]
        })
    })
}
