//! `health`.

use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::output::Table;
use super::session::Session;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Only checks with this status
    #[arg(value_parser = ["any", "passing", "warning", "critical"], default_value = "any")]
    status: String,
    /// Only checks for which this expression of Consul's filter language holds
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
}

pub(super) async fn run(session: &Session, args: HealthArgs) -> Result<ExitCode, Failure> {
    let query = session.query_with([("filter", args.filter)]);
    let checks = session.client.health().state(&args.status, &query).await?.value;
    session.show(&checks, |checks| {
        Table::of(&["NODE", "CHECK", "SERVICE", "STATUS", "OUTPUT"], checks, |check| {
            let output = check.output.lines().next().unwrap_or_default();
            vec![
                check.node.clone(),
                check.check_id.clone(),
                check.service_id.clone(),
                check.status.clone(),
                output.to_owned(),
            ]
        })
    })
}
