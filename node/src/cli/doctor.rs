//! `doctor`: what is wrong with the cluster, or with the way to it, and what mends it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use quorate_client::types::live::Instance;
use quorate_client::types::operator::{AutopilotHealth, RaftServer};
use quorate_client::types::quorate::StateHash;
use quorate_client::{Client, Error, Query};
use serde::Serialize;

use super::Nothing;
use super::failure::Failure;
use super::output::Table;
use super::session::Session;
use crate::host::tls::credentials::EXPIRES_SOON;
use crate::host::tls::failure::{self, CA_RENEWAL, RENEWAL};

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a leader says of a server that it has not heard since it leads.
const NEVER: &str = "0s";
/// A server that is so many log entries behind is told of.
const LAG_MAX: u64 = 1_000;
/// A certificate with fewer days left is told of, as by the server's log.
const EXPIRES_SOON_DAYS: u64 = EXPIRES_SOON.as_secs() / (24 * 3_600);

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// Something does not work.
    Critical,
    /// It works, and the next failure may change that.
    Warning,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    severity: Severity,
    what: String,
    remedy: String,
}

impl Finding {
    fn critical(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Critical, what: what.into(), remedy: remedy.into() }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), remedy: remedy.into() }
    }
}

/// What one server says of itself.
#[derive(Debug)]
struct Server {
    address: String,
    name: String,
    version: String,
    state: StateHash,
    /// Whether strangers can use its port for servers.
    is_open: bool,
    /// How tokens count: `off`, `allow` or `deny`; empty: its version does not say.
    acl: String,
    /// Whether clients reach it from other hosts.
    is_reached: bool,
    /// Days for which its certificates are still valid, by their names in `/metrics`.
    certificates: Vec<(String, i64)>,
    /// Why it does not serve, if it does not.
    not_ready: Option<String>,
    members: Vec<RaftServer>,
}

pub(super) async fn run(session: &Session, _: Nothing) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    let mut servers = Vec::new();
    let mut has_distrust = false;
    for address in session.client.addresses() {
        match ask(session, &address).await {
            Ok(server) => servers.push(server),
            Err(error) => {
                let distrusted = distrusted(&address, &error);
                has_distrust |= distrusted.is_some();
                findings.push(distrusted.unwrap_or_else(|| {
                    Finding::critical(
                        format!("{address} does not answer: {}", error.with_causes()),
                        "start that server, or leave its address out",
                    )
                }));
            }
        }
    }
    if servers.is_empty() {
        show(session, &findings)?;
        return Err(Failure::unavailable("no server answers"));
    }
    of_servers(&servers, &mut findings);
    match session.client.status().leader().await {
        Ok(Some(_)) => {
            let may_run =
                |name: &str| has_distrust || servers.iter().any(|server| server.name == name);
            if let Err(error) = of_cluster(&session.client, may_run, &mut findings).await {
                findings.push(Finding::critical(
                    format!("the cluster cannot be asked: {}", error.with_causes()),
                    "try again; if it stays so, look at the leader's log",
                ));
            }
        }
        Ok(None) | Err(_) => {
            findings.push(without_leader(&servers));
            show(session, &sorted(findings))?;
            return Err(Failure::unavailable("there is no leader"));
        }
    }
    let findings = sorted(findings);
    show(session, &findings)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A server that answers, and not in a way that TLS takes.
fn distrusted(address: &str, error: &Error) -> Option<Finding> {
    let (what, remedy) = failure::of_request(error)?;
    Some(Finding::critical(format!("{address} cannot be asked over TLS: {what}"), remedy))
}

/// The worst first.
fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Nobody leads: names the servers that may be why.
fn without_leader(servers: &[Server]) -> Finding {
    let is_silent = |member: &&RaftServer| servers.iter().all(|server| server.name != member.node);
    let members = servers.iter().flat_map(|server| &server.members).filter(is_silent);
    let silent: BTreeSet<_> =
        members.map(|member| format!("{} ({})", member.node, member.address)).collect();
    let remedy = match silent.into_iter().collect::<Vec<_>>().as_slice() {
        [] => "every server answers: they cannot reach each other at their RPC addresses; their logs say more"
            .to_owned(),
        silent => format!(
            "start the servers that do not answer here: {}; if a majority is lost for good, see `quorate recover --help`",
            silent.join(", ")
        ),
    };
    Finding::critical("there is no leader: nothing can be written, and reads need --stale", remedy)
}

fn show(session: &Session, findings: &Vec<Finding>) -> Result<ExitCode, Failure> {
    if findings.is_empty() && !session.is_for_programs() {
        return session.say(findings, "nothing is wrong");
    }
    session.show(findings, |findings| table(findings))
}

/// What mends a thing is below it: beside it, the lines would be too long for any terminal.
fn table(findings: &[Finding]) -> Table {
    let lines = findings.iter().flat_map(|finding| {
        let severity = match finding.severity {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
        };
        [[severity, &finding.what], ["", &finding.remedy]]
    });
    Table::of(&[], lines, |line| line.map(str::to_owned).to_vec())
}

/// Asks one server, and no other.
async fn ask(session: &Session, address: &str) -> Result<Server, Error> {
    let builder = session.builder.clone().of_servers([address]);
    let client = builder.answer_timeout(PATIENCE).retry_for(Duration::ZERO).build()?;
    let about = client.agent().about().await?;
    let state = client.status().state_hash().await?;
    let not_ready = match client.status().ready().await {
        Ok(()) => None,
        Err(Error::Status { text, .. }) => Some(text),
        Err(error) => return Err(error),
    };
    let configuration = client.operator().raft_configuration(&Query::new().stale()).await?;
    Ok(Server {
        address: address.to_owned(),
        name: about.debug_config["ServerName"].as_str().unwrap_or_default().to_owned(),
        version: about.meta.get("quorate-version").cloned().unwrap_or_default(),
        state,
        certificates: certificates(about.meta.get("quorate-certificate-days")),
        is_open: about.meta.get("quorate-rpc").is_some_and(|port| port == "insecure"),
        acl: about.meta.get("quorate-acl").cloned().unwrap_or_default(),
        is_reached: is_reached(&about.debug_config["HTTPAddrs"]),
        not_ready,
        members: configuration.servers,
    })
}

/// Whether one of the addresses (`tcp://IP:PORT`) of a server is beyond loopback.
fn is_reached(addresses: &serde_json::Value) -> bool {
    let all = addresses.as_array().into_iter().flatten().filter_map(|one| one.as_str());
    let mut all = all.filter_map(|one| one.strip_prefix("tcp://")?.parse::<SocketAddr>().ok());
    all.any(|address| !address.ip().to_canonical().is_loopback())
}

/// Who may do what is not asked, or not by all servers.
fn of_access(servers: &[Server], findings: &mut Vec<Finding>) {
    let unguarded = servers.iter().filter(|server| server.acl == "off" && server.is_reached);
    let unguarded: Vec<_> = unguarded.map(|server| server.name.as_str()).collect();
    if !unguarded.is_empty() {
        findings.push(Finding::warning(
            format!("whoever reaches the HTTP port of {} may do everything: access control is off", unguarded.join(", ")),
            "start all servers with --acl deny, and make the first token with `quorate acl bootstrap`",
        ));
    }
    let modes: BTreeSet<_> = servers.iter().map(|server| server.acl.as_str()).collect();
    if modes.iter().filter(|mode| !mode.is_empty()).count() > 1 {
        let each = servers.iter().map(|server| format!("{} {}", server.name, server.acl));
        findings.push(Finding::critical(
            format!("servers differ in access control: {}", each.collect::<Vec<_>>().join(", ")),
            "start all servers with the same --acl: a client may ask any of them",
        ));
    }
}

/// What the servers' answers show when they are laid side by side.
fn of_servers(servers: &[Server], findings: &mut Vec<Finding>) {
    for server in servers {
        if let Some(why) = &server.not_ready {
            findings.push(Finding::critical(
                format!("{} ({}) is not ready: {}", server.name, server.address, why.trim()),
                "its log says more; it becomes ready when it has caught up and a majority answers",
            ));
        }
    }
    for server in servers.iter().filter(|server| server.is_open) {
        findings.push(Finding::warning(
            format!("whoever reaches the RPC port of {} has the cluster: it runs with --insecure-rpc", server.name),
            "make certificates (`quorate tls ca`, `quorate tls cert`), and start all servers with them",
        ));
    }
    of_access(servers, findings);
    of_certificates(servers, findings);
    let members = |server: &Server| -> BTreeSet<String> {
        server.members.iter().map(|member| member.address.clone()).collect()
    };
    for pair in servers.windows(2) {
        if members(&pair[0]).is_disjoint(&members(&pair[1])) {
            findings.push(Finding::critical(
                format!("{} and {} belong to different clusters", pair[0].address, pair[1].address),
                "give the addresses of one cluster; a server founded alone needs an empty data directory and --join",
            ));
        }
    }
    let versions: BTreeSet<_> = servers.iter().map(|server| server.version.as_str()).collect();
    if versions.len() > 1 {
        let versions: Vec<_> = versions.into_iter().collect();
        findings.push(Finding::warning(
            format!("servers run different versions: {}", versions.join(", ")),
            "finish the upgrade, one server after the other",
        ));
    }
    of_states(servers, findings);
}

/// What a server says of its certificates: `rpc 9, rpc-ca 3641`.
fn certificates(text: Option<&String>) -> Vec<(String, i64)> {
    let parts = text.into_iter().flat_map(|text| text.split(", "));
    let parts = parts.filter_map(|part| part.split_once(' '));
    parts.filter_map(|(name, days)| Some((name.to_owned(), days.parse().ok()?))).collect()
}

/// Certificates that end soon, or have.
fn of_certificates(servers: &[Server], findings: &mut Vec<Finding>) {
    for server in servers {
        for (certificate, days) in &server.certificates {
            let (what, remedy) = match certificate.as_str() {
                "rpc" => ("the certificate for the RPC port", RENEWAL),
                "https" => ("the certificate for HTTPS", RENEWAL),
                "rpc-ca" => ("the CA's certificate", CA_RENEWAL),
                _ => continue,
            };
            let name = &server.name;
            match u64::try_from(*days) {
                Err(_) => findings
                    .push(Finding::critical(format!("{what} of {name} has expired"), remedy)),
                Ok(0) => {
                    let text = format!("{what} of {name} expires within a day");
                    findings.push(Finding::critical(text, remedy));
                }
                Ok(days) if days < EXPIRES_SOON_DAYS => findings.push(Finding::warning(
                    format!("{what} of {name} expires in less than {} days", days + 1),
                    remedy,
                )),
                Ok(_) => {}
            }
        }
    }
}

fn of_states(servers: &[Server], findings: &mut Vec<Finding>) {
    let newest = servers.iter().map(|server| server.state.applied_index).max().unwrap_or(0);
    for server in servers {
        let behind = newest - server.state.applied_index;
        if behind > LAG_MAX {
            findings.push(Finding::warning(
                format!("{} is {behind} log entries behind", server.name),
                "look at its disk and its load; a server that was down catches up by itself",
            ));
        }
        let differs = |other: &&Server| {
            other.state.applied_index == server.state.applied_index
                && other.state.hash != server.state.hash
                && other.address > server.address
        };
        if let Some(other) = servers.iter().find(differs) {
            findings.push(Finding::critical(
                format!("{} and {} hold different data at the same log entry", server.name, other.name),
                "save a backup of both (`quorate snapshot save`) before you restart anything, and report it",
            ));
        }
    }
}

/// What the leader says of the members. `may_run`: whether the one of a name runs although the leader does not hear it.
fn of_members(
    health: &AutopilotHealth,
    may_run: impl Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
) {
    for server in health.servers.iter().filter(|server| !server.healthy) {
        let heard = match server.last_contact.as_str() {
            NEVER => "not heard since the leader leads".to_owned(),
            ago => format!("last heard {ago} ago"),
        };
        let remedy = if may_run(&server.name) {
            format!(
                "start it if it does not run; if it does, it and the leader do not reach each other at their RPC ports, \
                 and their logs say why; if a certificate has expired, {RENEWAL}"
            )
        } else {
            format!(
                "start it again; if it is lost for good, `quorate operator raft remove {}`, then a new one with --join",
                server.id
            )
        };
        findings.push(Finding::critical(
            format!("server {} ({}) is not healthy, {heard}", server.name, server.address),
            remedy,
        ));
    }
    let voters = health.servers.iter().filter(|server| server.voter).count();
    match voters {
        1 => findings.push(Finding::warning(
            "the cluster has one server: its loss is the end of the data",
            "run three: start two more with --join",
        )),
        _ if voters > 0 && voters % 2 == 0 => findings.push(Finding::warning(
            format!("{voters} voters bear no more failures than {}", voters - 1),
            "add a server or remove one",
        )),
        _ if health.failure_tolerance == 0 => findings.push(Finding::warning(
            "no failure is left to spare: the next lost server stops all writes",
            "bring the lost servers back, or replace them",
        )),
        _ => {}
    }
}

/// What only a cluster with a leader can say.
async fn of_cluster(
    client: &Client,
    may_run: impl Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    of_members(&client.operator().autopilot_health().await?, may_run, findings);
    let query = Query::new().with("status", "critical");
    findings.extend(of_critical(&client.instances(&query).await?.value));
    Ok(())
}

fn of_critical(critical: &[Instance]) -> Option<Finding> {
    let Instance { id, service, node, .. } = critical.first()?;
    let what = match critical.len() {
        1 => format!("1 instance is critical: {id} of {service} on {node}"),
        many => format!("{many} instances are critical, such as {id} of {service} on {node}"),
    };
    // Several nodes may have this id.
    Some(Finding::warning(what, format!("`quorate explain service {id} --agent {node}` says why")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, index: u64, hash: &str, members: &[&str]) -> Server {
        let member =
            |address: &&str| RaftServer { address: (*address).to_owned(), ..RaftServer::default() };
        Server {
            address: address.to_owned(),
            name: address.to_owned(),
            version: "1".to_owned(),
            state: StateHash { applied_index: index, hash: hash.to_owned(), level: 1 },
            certificates: Vec::new(),
            is_open: false,
            acl: "deny".to_owned(),
            is_reached: true,
            not_ready: None,
            members: members.iter().map(member).collect(),
        }
    }

    fn found(servers: &[Server]) -> Vec<String> {
        let mut findings = Vec::new();
        of_servers(servers, &mut findings);
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn servers_of_one_healthy_cluster_are_fine() {
        assert!(
            found(&[server("a", 5, "x", &["a", "b"]), server("b", 6, "y", &["a", "b"])]).is_empty()
        );
    }

    #[test]
    fn strangers_laggards_and_diverged_servers_are_found() {
        let strangers = found(&[server("a", 5, "x", &["a"]), server("b", 6, "y", &["b"])]);
        assert_eq!(strangers, ["a and b belong to different clusters"]);
        let diverged = found(&[server("a", 5, "x", &["a", "b"]), server("b", 5, "y", &["a", "b"])]);
        assert_eq!(diverged, ["a and b hold different data at the same log entry"]);
        let lagging =
            found(&[server("a", 5, "x", &["a", "b"]), server("b", 5_000, "y", &["a", "b"])]);
        assert_eq!(lagging, ["a is 4995 log entries behind"]);
    }

    #[test]
    fn without_a_leader_the_servers_that_do_not_answer_are_named() {
        let mut answers = server("n1", 5, "x", &[]);
        answers.members = [("n1", "a:1"), ("n2", "b:1")]
            .map(|(node, address)| RaftServer {
                node: node.to_owned(),
                address: address.to_owned(),
                ..RaftServer::default()
            })
            .to_vec();
        let found = without_leader(std::slice::from_ref(&answers));
        assert!(found.remedy.contains("here: n2 (b:1);"), "{found:?}");
        assert!(found.what.ends_with("reads need --stale"), "{found:?}");
        answers.members.pop();
        assert!(without_leader(&[answers]).remedy.contains("cannot reach each other"));
    }

    #[test]
    fn a_critical_instance_is_named_with_the_command_that_explains_it() {
        let consul = Instance {
            id: "consul".to_owned(),
            service: "consul".to_owned(),
            node: "n2".to_owned(),
            ..Instance::default()
        };
        let one = of_critical(std::slice::from_ref(&consul)).unwrap();
        assert_eq!(one.what, "1 instance is critical: consul of consul on n2");
        assert!(one.remedy.contains("explain service consul --agent n2`"), "{one:?}");
        let two = of_critical(&[consul.clone(), consul]).unwrap();
        assert!(two.what.starts_with("2 instances are"), "{two:?}");
    }

    #[test]
    fn a_server_that_the_leader_never_heard_is_not_said_to_be_heard_just_now() {
        let found = |last_contact: &str, may_run: bool| {
            let silent = quorate_client::types::operator::ServerHealth {
                name: "n2".to_owned(),
                last_contact: last_contact.to_owned(),
                ..Default::default()
            };
            let mut findings = Vec::new();
            let health = AutopilotHealth { servers: vec![silent], ..Default::default() };
            of_members(&health, |_| may_run, &mut findings);
            findings.swap_remove(0)
        };
        let told = |last_contact| found(last_contact, false).what;
        assert!(told("0s").ends_with("not heard since the leader leads"));
        assert!(told("3s").ends_with("last heard 3s ago"));
        assert!(found("3s", false).remedy.contains("raft remove"));
        let runs = found("3s", true).remedy;
        assert!(runs.contains("`quorate tls cert`") && !runs.contains("remove"), "{runs}");
    }

    #[test]
    fn a_port_that_strangers_can_use_is_told_of() {
        let open = Server { is_open: true, ..server("a", 5, "x", &["a"]) };
        let told = found(&[open, server("b", 5, "x", &["a"])]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("RPC port of a") && told[0].contains("--insecure-rpc"),
            "{told:?}"
        );
    }

    #[test]
    fn servers_that_ask_nobody_who_they_are_are_told_of() {
        let of = |acl: &str, is_reached| Server {
            acl: acl.to_owned(),
            is_reached,
            ..server("a", 5, "x", &["a"])
        };
        assert!(found(&[of("off", false), of("off", false)]).is_empty());
        assert!(found(&[of("deny", true), of("", true)]).is_empty());
        let told = found(&[of("off", true), of("off", true)]);
        assert!(told.len() == 1 && told[0].contains("HTTP port of a, a"), "{told:?}");
        let told = found(&[of("off", false), of("deny", true)]);
        assert_eq!(told, ["servers differ in access control: a off, a deny"]);
        let at = |address: &str| is_reached(&serde_json::json!([address]));
        assert!(at("tcp://10.0.0.1:8500") && at("tcp://[2001:db8::1]:8500"));
        assert!(!at("tcp://127.0.0.1:8500") && !at("tcp://[::1]:8500") && !at("unix:///a"));
    }

    #[test]
    fn a_certificate_is_told_of_from_two_weeks_before_its_end() {
        let text = "rpc 13, rpc-ca 3650, https -1".to_owned();
        let ends =
            Server { certificates: certificates(Some(&text)), ..server("a", 5, "x", &["a"]) };
        let told = [
            "the certificate for the RPC port of a expires in less than 14 days",
            "the certificate for HTTPS of a has expired",
        ];
        assert_eq!(found(&[ends]), told);
        assert!(certificates(Some(&String::new())).is_empty());
        let text = "rpc 14, rpc-ca 0, later 1".to_owned();
        let ends =
            Server { certificates: certificates(Some(&text)), ..server("a", 5, "x", &["a"]) };
        assert_eq!(found(&[ends]), ["the CA's certificate of a expires within a day"]);
    }

    #[test]
    fn members_that_cannot_be_spared_are_named_with_what_mends_it() {
        let health = |healthy: &[bool], failure_tolerance| AutopilotHealth {
            healthy: healthy.iter().all(|healthy| *healthy),
            failure_tolerance,
            servers: healthy
                .iter()
                .enumerate()
                .map(|(id, healthy)| quorate_client::types::operator::ServerHealth {
                    id: id.to_string(),
                    healthy: *healthy,
                    voter: true,
                    ..Default::default()
                })
                .collect(),
        };
        let count = |healthy: &[bool], spare| {
            let mut findings = Vec::new();
            of_members(&health(healthy, spare), |_| false, &mut findings);
            findings.len()
        };
        assert_eq!(count(&[true, true, true], 1), 0);
        assert_eq!(count(&[true, false, true], 0), 2);
        assert_eq!(count(&[true], 0), 1);
        assert_eq!(count(&[true, true], 0), 1);
    }
}
