//! `register`, `deregister`, `heartbeat` and `maint`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::Query;
use quorate_client::types::agent::{CheckSpecification, ServiceRegistration};
use quorate_client::types::heartbeat::Heartbeat;
use serde_json::json;

use super::failure::Failure;
use super::file;
use super::session::{Session, go_text, pair, span};

/// The checks that stand for a maintenance; the first is followed by an instance's id.
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
const NODE_MAINTENANCE: &str = "_node_maintenance";

/// What every registration says.
#[derive(Debug, Args)]
pub(crate) struct Definition {
    /// The service's name
    #[arg(value_name = "SERVICE")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) details: Details,
}

/// What a registration may say.
#[derive(Debug, Args)]
#[group(id = "details")]
pub(crate) struct Details {
    /// The instance's id [default: the service's name; of a presence SERVICE-HOST-PORT, without a port SERVICE-HOST-PID]
    #[arg(long)]
    pub(super) id: Option<String>,
    /// Where it can be reached [default: the address that the cluster sees]
    #[arg(long)]
    pub(super) address: Option<String>,
    /// Its port
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// A tag; repeatable
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// Metadata; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) meta: Vec<(String, String)>,
}

/// Arguments of `register`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate register web --id web-1 --port 8080 --ttl 15s\n  \
    quorate register web --port 8080 --http http://10.0.0.5:8080/health --interval 10s\n  \
    quorate register --file web.json    (the body of Consul's agent/service/register)")]
pub(crate) struct RegisterArgs {
    /// The service's name
    #[arg(value_name = "SERVICE", required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// A file with the definition as JSON; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "details")]
    file: Option<PathBuf>,
    #[command(flatten)]
    details: Details,
    /// It is critical after so long without a heartbeat
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with = "file")]
    ttl: Option<Duration>,
    /// The cluster asks this URL whether it is well
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "ttl"])]
    http: Option<String>,
    /// The cluster connects to this address to see whether it is there
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["file", "ttl", "http"])]
    tcp: Option<String>,
    /// How often it asks
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "10s")]
    interval: Duration,
    /// It is deregistered after being critical for so long
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with = "file")]
    deregister_after: Option<Duration>,
}

/// Arguments of `deregister`.
#[derive(Debug, Args)]
pub(crate) struct DeregisterArgs {
    /// The instance's id
    id: String,
}

/// Arguments of `heartbeat`.
#[derive(Debug, Args)]
#[command(after_help = "Example, once a second from a shell:\n  \
    while sleep 1; do quorate heartbeat rdb --id rdb-1 --pid $$ --version 4.0; done")]
pub(crate) struct HeartbeatArgs {
    #[command(flatten)]
    definition: Definition,
    /// A name for the process
    #[arg(long)]
    process: Option<String>,
    /// Its process id
    #[arg(long)]
    pid: Option<u64>,
    /// Its version
    #[arg(long)]
    version: Option<String>,
    /// A number that only rises while it runs
    #[arg(long)]
    counter: Option<u64>,
    /// What it says of itself
    #[arg(long, value_parser = ["passing", "warning", "critical"])]
    status: Option<String>,
    /// Whatever else there is to say
    #[arg(long)]
    note: Option<String>,
    /// There is a warning after so long a silence; 0s: none
    #[arg(long, value_name = "SPAN", value_parser = span)]
    warn_after: Option<Duration>,
    /// It is critical after so long a silence
    #[arg(long, value_name = "SPAN", value_parser = span)]
    critical_after: Option<Duration>,
}

/// Arguments of `maint`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 for `off` if it is not in maintenance.")]
pub(crate) struct MaintArgs {
    /// Begin or end
    #[arg(value_parser = ["on", "off"])]
    switch: String,
    /// The instance's id [default: everything of this host's agent]
    id: Option<String>,
    /// Why, for people
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn register(session: &Session, args: RegisterArgs) -> Result<ExitCode, Failure> {
    let service: ServiceRegistration = match &args.file {
        Some(path) => file::read_json(path)?,
        None => args.into_service(),
    };
    session.client.agent().register(&service).await?;
    let id = if service.id.is_empty() { &service.name } else { &service.id };
    session.say(&json!({ "ID": id, "Service": service.name }), &format!("registered {id}"))
}

impl RegisterArgs {
    fn into_service(self) -> ServiceRegistration {
        let nanos = |span: Option<Duration>| {
            span.map_or(0, |span| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
        };
        let Details { id, address, port, tag, meta } = self.details;
        let is_probed = self.http.is_some() || self.tcp.is_some();
        let check = CheckSpecification {
            ttl: nanos(self.ttl),
            http: self.http.unwrap_or_default(),
            tcp: self.tcp.unwrap_or_default(),
            interval: nanos(is_probed.then_some(self.interval)),
            deregister_critical_service_after: nanos(self.deregister_after),
            ..CheckSpecification::default()
        };
        ServiceRegistration {
            name: self.name.unwrap_or_default(),
            id: id.unwrap_or_default(),
            address: address.unwrap_or_default(),
            port: port.map_or(0, i64::from),
            tags: tag,
            meta: (!meta.is_empty()).then(|| meta.into_iter().collect()),
            check: (check != CheckSpecification::default()).then_some(check),
            ..ServiceRegistration::default()
        }
    }
}

pub(super) async fn deregister(
    session: &Session,
    args: DeregisterArgs,
) -> Result<ExitCode, Failure> {
    session.client.agent().deregister(&args.id).await?;
    session.say(&json!({ "ID": args.id }), &format!("deregistered {}", args.id))
}

pub(super) async fn heartbeat(session: &Session, args: HeartbeatArgs) -> Result<ExitCode, Failure> {
    let Definition { name, details } = args.definition;
    let Details { id, address, port, tag, meta } = details;
    let heartbeat = Heartbeat {
        service: name,
        id: id.unwrap_or_default(),
        address,
        port: port.map(i64::from),
        process: args.process,
        pid: args.pid,
        version: args.version,
        counter: args.counter,
        tags: (!tag.is_empty()).then_some(tag),
        meta: (!meta.is_empty()).then(|| meta.into_iter().collect()),
        warn_after: args.warn_after.map(go_text),
        critical_after: args.critical_after.map(go_text),
        status: args.status,
        note: args.note,
        ..Heartbeat::default()
    };
    let answer = session.client.heartbeat(&[heartbeat]).await?;
    if let Some(rejected) = answer.rejected.first() {
        return Err(Failure::failed(rejected.error.clone()));
    }
    session.say(&answer, if answer.registered > 0 { "registered" } else { "renewed" })
}

pub(super) async fn maint(session: &Session, args: MaintArgs) -> Result<ExitCode, Failure> {
    let is_on = args.switch == "on";
    let reason = is_on.then_some(args.reason.as_str());
    let agent = session.client.agent();
    if !is_on {
        is_in_maintenance(session, args.id.as_deref()).await?;
    }
    let what = match &args.id {
        Some(id) => {
            agent.service_maintenance(id, reason).await?;
            id.as_str()
        }
        None => {
            agent.maintenance(reason).await?;
            "this host's agent"
        }
    };
    let state = if is_on { "in maintenance" } else { "back from maintenance" };
    session.say(&json!({ "ID": args.id, "Maintenance": is_on }), &format!("{what} is {state}"))
}

/// The API says yes to the end of a maintenance that never began. An instance that is not known is told by what ends it.
async fn is_in_maintenance(session: &Session, id: Option<&str>) -> Result<(), Failure> {
    let agent = session.client.agent();
    let check = match id {
        Some(id) if !agent.services(&Query::new()).await?.contains_key(id) => return Ok(()),
        Some(id) => format!("{SERVICE_MAINTENANCE}{id}"),
        None => NODE_MAINTENANCE.to_owned(),
    };
    if agent.checks(&Query::new()).await?.contains_key(&check) {
        return Ok(());
    }
    let what = id.unwrap_or("this host's agent");
    Err(Failure::failed(format!("{what} is not in maintenance")))
}
