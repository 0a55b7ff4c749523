//! `services` and `service`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use quorate_client::types::health::{HealthCheck, ServiceEntry};
use quorate_client::types::live::Instance;
use serde::Serialize;

use super::failure::Failure;
use super::output::Table;
use super::session::Session;
use super::tally::Tally;

/// Arguments of `services`.
#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    /// Only those for which this expression of Consul's filter language holds for an instance
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
}

/// Arguments of `service`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 if no instance is as asked for; `instances` prints an empty list then."
)]
pub(crate) struct ServiceArgs {
    /// The service's name
    name: String,
    /// Only instances whose every check passes
    #[arg(long)]
    passing: bool,
    /// Only instances with this tag; repeated: with all of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only those for which this expression of Consul's filter language holds
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
}

/// A service's instances by status.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Count {
    service: String,
    #[serde(flatten)]
    tally: Tally,
    tags: Vec<String>,
}

pub(super) async fn services(session: &Session, args: ServicesArgs) -> Result<ExitCode, Failure> {
    let query = session.query_with([("filter", args.filter)]);
    let instances = session.client.instances(&query).await?.value;
    session.show(&count(&instances), |counts| {
        Table::of(&["SERVICE", "PASSING", "WARNING", "CRITICAL", "TAGS"], counts, |count| {
            vec![
                count.service.clone(),
                count.tally.passing.to_string(),
                count.tally.warning.to_string(),
                count.tally.critical.to_string(),
                count.tags.join(","),
            ]
        })
    })
}

fn count(instances: &[Instance]) -> Vec<Count> {
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for instance in instances {
        let count = counts.entry(&instance.service).or_default();
        count.service.clone_from(&instance.service);
        count.tally.add(&instance.status);
        count.tags.extend(instance.tags.iter().cloned());
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    for count in &mut counts {
        count.tags.sort_unstable();
        count.tags.dedup();
    }
    counts
}

pub(super) async fn service(session: &Session, args: ServiceArgs) -> Result<ExitCode, Failure> {
    let filter = args.filter.into_iter().collect();
    let mut query = session.query_with([("tag", args.tag), ("filter", filter)]);
    if args.passing {
        query = query.passing();
    }
    let entries = session.client.health().service(&args.name, &query).await?.value;
    let code = session.show(&entries, table)?;
    if entries.is_empty() {
        return Err(Failure::not_found(format!("no such instance of \"{}\"", args.name)));
    }
    Ok(code)
}

fn table(entries: &Vec<ServiceEntry>) -> Table {
    Table::of(&["ID", "NODE", "ADDRESS", "PORT", "STATUS", "TAGS"], entries, |entry| {
        let ServiceEntry { node, service, checks } = entry;
        let address = if service.address.is_empty() { &node.address } else { &service.address };
        vec![
            service.id.clone(),
            node.node.clone(),
            address.clone(),
            service.port.to_string(),
            worst(checks).to_owned(),
            service.tags.join(","),
        ]
    })
}

/// The worst status of these checks.
fn worst(checks: &[HealthCheck]) -> &str {
    let rank = |status: &str| match status {
        "passing" => 0,
        "warning" => 1,
        _ => 2,
    };
    let statuses = checks.iter().map(|check| check.status.as_str());
    statuses.max_by_key(|status| rank(status)).unwrap_or("passing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(service: &str, status: &str, tag: &str) -> Instance {
        Instance {
            service: service.to_owned(),
            status: status.to_owned(),
            tags: vec![tag.to_owned()],
            ..Instance::default()
        }
    }

    #[test]
    fn instances_are_counted_by_service_and_status() {
        let instances = [
            instance("web", "passing", "b"),
            instance("web", "critical", "a"),
            instance("db", "warning", "a"),
        ];
        let counts = count(&instances);
        let web = &counts[1];
        assert_eq!((counts.len(), counts[0].tally.warning), (2, 1));
        let tally = Tally { passing: 1, warning: 0, critical: 1 };
        assert_eq!((web.tally, web.tags.join(",").as_str()), (tally, "a,b"));
    }
}
