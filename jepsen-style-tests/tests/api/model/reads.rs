//! Reads: what can be read, and with which parameters.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::expression::Expression;

pub(crate) type Tags = Vec<String>;

#[derive(Debug, Clone)]
pub(crate) enum Read {
    /// Any bytes; see [`path_fate`].
    Key(Vec<u8>),
    RawKey(String),
    Recurse(String),
    Names {
        prefix: String,
        separator: String,
    },
    Sessions,
    Session(String),
    SessionsOf(String),
    Nodes {
        meta: Option<(String, String)>,
        filter: Option<Expression>,
    },
    Services,
    Service {
        name: String,
        tags: Tags,
        filter: Option<Expression>,
    },
    Node(String),
    NodeServices(String),
    Health {
        name: String,
        tags: Tags,
        passing: bool,
        filter: Option<Expression>,
    },
    ChecksOf(String),
    ChecksOn {
        node: String,
        filter: Option<Expression>,
    },
    ChecksIn {
        status: String,
        filter: Option<Expression>,
    },
    Queries,
    Query(String),
    Execute(String),
    Events(String),
    AgentServices(String),
    AgentChecks(String),
    AgentService {
        agent: String,
        id: String,
    },
    AgentHealth {
        agent: String,
        id: String,
    },
    AgentHealthOf {
        agent: String,
        name: String,
    },
    Coordinates,
    Coordinate(String),
}

pub(crate) fn encode(text: impl AsRef<[u8]>) -> String {
    percent_encode(text.as_ref(), NON_ALPHANUMERIC).to_string()
}

fn with_query(path: String, pairs: &[(&str, Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let given: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if given.is_empty() { path } else { format!("{path}?{}", given.join("&")) }
}

fn text_of(filter: &Option<Expression>) -> Option<String> {
    filter.as_ref().map(ToString::to_string)
}

fn with_tags(path: &str, name: &str, tags: &Tags, more: &[(&str, Option<String>)]) -> String {
    let mut pairs: Vec<_> = tags.iter().map(|tag| ("tag", Some(tag.clone()))).collect();
    pairs.extend_from_slice(more);
    with_query(format!("/v1/{path}/{}", encode(name)), &pairs)
}

impl Read {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) | Self::RawKey(_) => "read key",
            Self::Recurse(_) | Self::Names { .. } => "read keys",
            Self::Sessions | Self::Session(_) | Self::SessionsOf(_) => "read sessions",
            Self::Nodes { .. } | Self::Node(_) | Self::NodeServices(_) => "read nodes",
            Self::Services | Self::Service { .. } => "read services",
            Self::Health { .. }
            | Self::ChecksOf(_)
            | Self::ChecksOn { .. }
            | Self::ChecksIn { .. } => "read health",
            Self::Queries | Self::Query(_) | Self::Execute(_) => "read queries",
            Self::Events(_) => "read events",
            Self::Coordinates | Self::Coordinate(_) => "read coordinates",
            Self::AgentServices(_)
            | Self::AgentChecks(_)
            | Self::AgentService { .. }
            | Self::AgentHealth { .. }
            | Self::AgentHealthOf { .. } => "read agent",
        }
    }

    /// Path and query.
    pub(crate) fn target(&self) -> String {
        let agent = |agent: &String| Some(agent.clone());
        match self {
            Self::Key(key) => format!("/v1/kv/{}", encode(key)),
            Self::RawKey(key) => format!("/v1/kv/{}?raw", encode(key)),
            Self::Recurse(prefix) => format!("/v1/kv/{}?recurse", encode(prefix)),
            Self::Names { prefix, separator } => {
                format!("/v1/kv/{}?keys&separator={}", encode(prefix), encode(separator))
            }
            Self::Sessions => "/v1/session/list".to_owned(),
            Self::Session(id) => format!("/v1/session/info/{id}"),
            Self::SessionsOf(node) => format!("/v1/session/node/{}", encode(node)),
            Self::Nodes { meta, filter } => {
                let meta = meta.as_ref().map(|(key, value)| format!("{key}:{value}"));
                let pairs = [("node-meta", meta), ("filter", text_of(filter))];
                with_query("/v1/catalog/nodes".to_owned(), &pairs)
            }
            Self::Services => "/v1/catalog/services".to_owned(),
            Self::Service { name, tags, filter } => {
                with_tags("catalog/service", name, tags, &[("filter", text_of(filter))])
            }
            Self::Node(name) => format!("/v1/catalog/node/{}", encode(name)),
            Self::NodeServices(name) => format!("/v1/catalog/node-services/{}", encode(name)),
            Self::Health { name, tags, passing, filter } => {
                let passing = passing.then(|| "1".to_owned());
                let pairs = [("passing", passing), ("filter", text_of(filter))];
                with_tags("health/service", name, tags, &pairs)
            }
            Self::ChecksOf(name) => format!("/v1/health/checks/{}", encode(name)),
            Self::ChecksOn { node, filter } => {
                let path = format!("/v1/health/node/{}", encode(node));
                with_query(path, &[("filter", text_of(filter))])
            }
            Self::ChecksIn { status, filter } => {
                let path = format!("/v1/health/state/{}", encode(status));
                with_query(path, &[("filter", text_of(filter))])
            }
            Self::Queries => "/v1/query".to_owned(),
            Self::Query(id) => format!("/v1/query/{}", encode(id)),
            Self::Execute(name) => format!("/v1/query/{}/execute", encode(name)),
            Self::Events(name) => format!("/v1/event/list?name={}", encode(name)),
            Self::AgentServices(name) => {
                with_query("/v1/agent/services".to_owned(), &[("agent", agent(name))])
            }
            Self::AgentChecks(name) => {
                with_query("/v1/agent/checks".to_owned(), &[("agent", agent(name))])
            }
            Self::AgentService { agent: name, id } => {
                with_query(format!("/v1/agent/service/{}", encode(id)), &[("agent", agent(name))])
            }
            Self::AgentHealth { agent: name, id } => {
                let path = format!("/v1/agent/health/service/id/{}", encode(id));
                with_query(path, &[("agent", agent(name))])
            }
            Self::AgentHealthOf { agent: by, name } => {
                let path = format!("/v1/agent/health/service/name/{}", encode(name));
                with_query(path, &[("agent", agent(by))])
            }
            Self::Coordinates => "/v1/coordinate/nodes".to_owned(),
            Self::Coordinate(node) => format!("/v1/coordinate/node/{}", encode(node)),
        }
    }
}
