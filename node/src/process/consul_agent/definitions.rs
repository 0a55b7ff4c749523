//! What configurations say of an agent's node, and the services and checks that they define: judged,
//! parsed, and as steps that register it.

use std::net::IpAddr;
use std::sync::Arc;

use quorate_storage::command::{Agent, Command};
use quorate_storage::record::{CheckRegistration, FromFile as _, ServiceDefinition};
use serde_json::{Value, json};

use crate::http::definition::{self, Description};

/// Services and checks that files define, as they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defined {
    /// Bodies of `agent/service/register`.
    pub services: Vec<Value>,
    /// Bodies of `agent/check/register`.
    pub checks: Vec<Value>,
}

/// What files define, parsed.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) services: Vec<ParsedService>,
    pub(super) checks: Vec<ParsedCheck>,
}

/// A service with its checks, and the body that says so.
#[derive(Debug, Clone)]
pub(super) struct ParsedService {
    pub(super) service: ServiceDefinition,
    pub(super) checks: Vec<CheckRegistration>,
    body: Value,
}

/// A check, and the body that says so.
#[derive(Debug, Clone)]
pub(super) struct ParsedCheck {
    pub(super) check: CheckRegistration,
    body: Value,
}

/// A change to what is registered: a command where there is a node, a request where there is not.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Describe(Description),
    PutService(Box<ParsedService>),
    PutCheck(Box<ParsedCheck>),
    DropService(Arc<str>),
    DropCheck(Arc<str>),
}

impl Step {
    /// The same, with the mark that it is from a file.
    pub(super) fn marked(mut self) -> Self {
        match &mut self {
            Self::PutService(parsed) => {
                parsed.service.mark_from_file();
                parsed.checks.iter_mut().for_each(CheckRegistration::mark_from_file);
            }
            Self::PutCheck(parsed) => parsed.check.mark_from_file(),
            Self::Describe(_) | Self::DropService(_) | Self::DropCheck(_) => {}
        }
        self
    }

    /// What does it where there is a node.
    pub(super) fn command(self, agent: &Agent) -> Command {
        let agent = agent.clone();
        match self {
            Self::Describe(said) => Command::DescribeAgent {
                agent,
                id: said.id,
                tagged_addresses: said.tagged_addresses,
                meta: said.meta,
            },
            Self::PutService(parsed) => Command::AgentRegisterService {
                agent,
                service: Box::new(parsed.service),
                checks: parsed.checks,
                // Maintenance is such a check, and must outlive a reload.
                replace_existing_checks: false,
            },
            Self::PutCheck(parsed) => {
                Command::AgentRegisterCheck { agent, check: Box::new(parsed.check) }
            }
            Self::DropService(service_id) => Command::AgentDeregisterService { agent, service_id },
            Self::DropCheck(check_id) => Command::AgentDeregisterCheck { agent, check_id },
        }
    }

    /// What does it over the API: a path for `PUT`, and the body.
    pub(super) fn request(&self) -> (String, Value) {
        let path = |path: &str, id: &str| {
            let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
            format!("/v1/agent/{path}/deregister/{id}")
        };
        match self {
            Self::Describe(said) => ("/v1/quorate/agent".to_owned(), json!(said)),
            Self::PutService(parsed) => {
                ("/v1/agent/service/register?from-file".to_owned(), parsed.body.clone())
            }
            Self::PutCheck(parsed) => {
                ("/v1/agent/check/register?from-file".to_owned(), parsed.body.clone())
            }
            Self::DropService(id) => (path("service", id), Value::Null),
            Self::DropCheck(id) => (path("check", id), Value::Null),
        }
    }

    /// The services and checks that it registers.
    pub(super) fn registers(&self) -> (Option<&ServiceDefinition>, &[CheckRegistration]) {
        match self {
            Self::PutService(parsed) => (Some(&parsed.service), &parsed.checks),
            Self::PutCheck(parsed) => (None, std::slice::from_ref(&parsed.check)),
            Self::Describe(_) | Self::DropService(_) | Self::DropCheck(_) => (None, &[]),
        }
    }

    /// What it is about, for people.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Describe(_) => "the node".to_owned(),
            Self::PutService(parsed) => format!("service {:?}", parsed.service.id),
            Self::PutCheck(parsed) => format!("check {:?}", parsed.check.id),
            Self::DropService(id) => format!("service {id:?}"),
            Self::DropCheck(id) => format!("check {id:?}"),
        }
    }
}

/// What steps register, as one body of `quorate/agent/definitions`.
pub(super) fn bodies(steps: &[Step]) -> Value {
    let (mut services, mut checks) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::PutService(parsed) => services.push(&parsed.body),
            Step::PutCheck(parsed) => checks.push(&parsed.body),
            Step::Describe(_) | Step::DropService(_) | Step::DropCheck(_) => {}
        }
    }
    json!({"Services": services, "Checks": checks})
}

/// Judges what files define, without registering it.
///
/// # Errors
/// The first fault, with the definition that has it.
pub(super) fn judge(defined: &Defined) -> Result<(), String> {
    parse(defined).map(drop)
}

pub(super) fn parse(defined: &Defined) -> Result<Parsed, String> {
    let services = defined.services.iter().zip(1..).map(|(body, place)| {
        let told = |error| format!("service {}: {error}", label(body, place));
        let (service, checks) = definition::parse_service(body).map_err(told)?;
        Ok(ParsedService { service, checks, body: body.clone() })
    });
    let checks = defined.checks.iter().zip(1..).map(|(body, place)| {
        let told = |error| format!("check {}: {error}", label(body, place));
        let check = definition::parse_check(body).map_err(told)?;
        Ok(ParsedCheck { check, body: body.clone() })
    });
    Ok(Parsed {
        services: services.collect::<Result<_, String>>()?,
        checks: checks.collect::<Result<_, String>>()?,
    })
}

/// How a fault names a definition: by its id, else its name, else its place. It shows no more of it:
/// a definition may hold passwords, and a fault is logged and told to whoever asked for the reload.
fn label(definition: &Value, place: usize) -> String {
    let text_of = |wanted: &str| {
        let mut members = definition.as_object()?.iter();
        let is_wanted = |key: &str| key.replace('_', "").eq_ignore_ascii_case(wanted);
        members.find(|(key, _)| is_wanted(key))?.1.as_str().filter(|text| !text.is_empty())
    };
    let named = ["checkid", "id", "name"].into_iter().find_map(text_of);
    named.map_or_else(|| format!("number {place}"), |text| format!("{text:?}"))
}

impl Parsed {
    /// The checks that name a loopback address, with what they name.
    pub(super) fn loopback_targets(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        let of_services = self.services.iter().flat_map(|parsed| &parsed.checks);
        let all = of_services.chain(self.checks.iter().map(|parsed| &parsed.check));
        all.flat_map(|check| {
            let what = &check.definition;
            let targets = [&what.http, &what.tcp, &what.grpc, &what.udp, &what.h2ping];
            let targets = targets.into_iter().filter(|target| is_loopback(target));
            targets.map(|target| (&check.id, target.as_str()))
        })
    }

    /// What registers it all.
    pub(super) fn steps(self) -> Vec<Step> {
        let services = self.services.into_iter().map(|parsed| Step::PutService(Box::new(parsed)));
        let checks = self.checks.into_iter().map(|parsed| Step::PutCheck(Box::new(parsed)));
        services.chain(checks).collect()
    }
}

/// Whether a URL or `HOST:PORT` names the host that it is looked up on.
fn is_loopback(target: &str) -> bool {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((ipv6, _)) => ipv6,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A service of a file as the API has it: a check may call its id `id` there, and HCL writes a list of one
/// as the one.
pub(super) fn normal_service(mut service: Value) -> Value {
    let rename = |check: &mut Value| {
        if let Value::Object(check) = check
            && let Some(id) = check.remove("id").or_else(|| check.remove("ID"))
        {
            check.entry("CheckID").or_insert(id);
        }
    };
    let Value::Object(members) = &mut service else { return service };
    for (name, value) in members.iter_mut() {
        match (name.to_ascii_lowercase().as_str(), &mut *value) {
            ("check", Value::Array(blocks)) if blocks.len() == 1 => {
                *value = blocks.remove(0);
                rename(value);
            }
            ("check", check) => rename(check),
            ("checks", Value::Array(checks)) => checks.iter_mut().for_each(rename),
            ("checks", check @ Value::Object(_)) => {
                rename(check);
                as_list(value);
            }
            ("proxy", proxy) => normal_proxy(proxy),
            _ => {}
        }
    }
    service
}

/// Of a proxy's settings the lists that HCL writes as blocks.
fn normal_proxy(proxy: &mut Value) {
    let Value::Object(members) = proxy else { return };
    for (name, value) in members.iter_mut() {
        match name.to_ascii_lowercase().as_str() {
            "upstreams" => as_list(value),
            "expose" => {
                let Value::Object(members) = value else { continue };
                let paths = members.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("paths"));
                if let Some((_, paths)) = paths {
                    as_list(paths);
                }
            }
            _ => {}
        }
    }
}

/// A list of which HCL has written the only element.
fn as_list(value: &mut Value) {
    if value.is_object() {
        *value = Value::Array(vec![value.take()]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn loopback_targets_are_known() {
        for target in [
            "http://localhost:7777/health",
            "https://LOCALHOST/",
            "http://user@127.0.0.1:1?x=[",
            "127.9.1.1:80",
            "[::1]:80",
            "127.0.0.1:80/service",
        ] {
            assert!(is_loopback(target), "{target}");
        }
        for target in ["", "http://10.0.0.1/localhost", "db.localhost.example:1", "[::2]:80"] {
            assert!(!is_loopback(target), "{target}");
        }
    }

    #[test]
    fn a_proxy_is_read_as_over_the_api_with_blocks_for_lists() {
        let service = normal_service(json!({"name": "w", "proxy": {
            "mesh_gateway": {"mode": "local"}, "upstreams": {"destination_name": "db"},
            "expose": {"paths": {"listener_port": 1}}, "config": {"a_b": 1}}}));
        let defined = |service| Defined { services: vec![service], checks: vec![] };
        let parsed = parse(&defined(service)).unwrap();
        let kept = parsed.services[0].service.settings().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(kept).unwrap(),
            json!({"MeshGateway": {"Mode": "local"}, "Upstreams": [{"DestinationName": "db"}],
                "Expose": {"Paths": [{"ListenerPort": 1}]}, "Config": {"a_b": 1}})
        );
        for (member, word) in [("proxy", "nope"), ("connect", "sidecar_servce")] {
            let error = judge(&defined(json!({"name": "w", member: {word: {}}}))).unwrap_err();
            assert!(error.contains(&format!("unknown field {word:?}")), "{error}");
        }
    }

    #[test]
    fn a_fault_is_told_with_the_name_of_the_definition_and_nothing_else_of_it() {
        let header = json!({"Authorization": ["secret"]});
        let faulty = |mut definition: Value| {
            definition["Header"] = header.clone();
            definition["nope"] = json!(1);
            definition
        };
        let service = |definition| Defined { services: vec![faulty(definition)], checks: vec![] };
        let check = |definition| Defined { services: vec![], checks: vec![faulty(definition)] };
        for (defined, name) in [
            (service(json!({"ID": "a1", "Name": "a"})), "service \"a1\": "),
            (service(json!({"id": "", "name": "a"})), "service \"a\": "),
            (service(json!({"name": 7})), "service number 1: "),
            (check(json!({"check_id": "c", "name": "b"})), "check \"c\": "),
            (check(json!({})), "check number 1: "),
        ] {
            let error = judge(&defined).unwrap_err();
            assert!(error.starts_with(name), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = judge(&service(json!({"name": "a"}))).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}
