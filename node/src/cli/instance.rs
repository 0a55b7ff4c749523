//! `instances`.

use std::process::ExitCode;

use clap::Args;
use quorate_client::types::live::Instance;

use super::failure::Failure;
use super::output::{Table, age};
use super::session::Session;

/// Arguments of `instances`.
#[derive(Debug, Args)]
#[command(
    after_help = "Where there are none, the list is empty, and the exit code 0; `service` exits with 1 then."
)]
pub(crate) struct InstancesArgs {
    /// Only those of this service; repeated: of any of them
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Only those with this status; repeated: with any of them
    #[arg(long, value_name = "STATUS", value_parser = ["passing", "warning", "critical"])]
    status: Vec<String>,
    /// Only those for which this expression of Consul's filter language holds
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
}

pub(super) async fn run(session: &Session, args: InstancesArgs) -> Result<ExitCode, Failure> {
    let filter = args.filter.into_iter().collect();
    let query = [("service", args.services), ("status", args.status), ("filter", filter)];
    let query = session.query_with(query);
    let instances = session.client.instances(&query).await?.value;
    session.show(&instances, table)
}

/// The table of the dashboard.
pub(super) fn table(instances: &Vec<Instance>) -> Table {
    const HEADINGS: &[&str] = &[
        "SERVICE", "ID", "NODE", "ADDRESS", "PORT", "STATUS", "HEARD", "PROCESS", "PID", "VERSION",
        "COUNTER",
    ];
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    Table::of(HEADINGS, instances, |instance| {
        vec![
            instance.service.clone(),
            instance.id.clone(),
            instance.node.clone(),
            instance.address.clone(),
            instance.port.to_string(),
            instance.status.clone(),
            instance.age_ms.map(age).unwrap_or_default(),
            instance.process.clone(),
            number(instance.pid),
            instance.version.clone(),
            number(instance.counter),
        ]
    })
}
