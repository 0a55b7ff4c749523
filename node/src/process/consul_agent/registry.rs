//! Where an agent registers what its files define: at the node in its own process, or, as a client
//! agent, through the servers.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use quorate_storage::State;
use quorate_storage::command::{Agent, Rejection};
use quorate_storage::state::FILE_MARK_LEVEL;
use serde_json::Value;
use tokio::sync::Notify;

use super::anti_entropy::Look;
use super::definitions::{Step, bodies};
use super::servers::Servers;
use crate::agent::HEARTBEAT_EVERY;
use crate::host::clock::Clock;
use crate::http::definition::{Comparison, Description};
use crate::node::{Consistency, Node};

/// An answer of a server that is read as a whole is not longer than this.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A server that does not answer one in this time is passed over.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which another server is told when one could not be.
const ALIVE_AGAIN_AFTER: Duration = Duration::from_secs(1);
const DEFINITIONS_PATH: &str = "/v1/quorate/agent/definitions";
const ALIVE_PATH: &str = "/v1/quorate/agent/alive";
/// Where an agent says for the first time that it lives.
pub(super) const ALIVE_BEGIN_PATH: &str = "/v1/quorate/agent/alive?begin";

/// Where to register.
#[derive(Debug)]
pub enum Registry {
    /// At this node, for the agent of its host.
    Here(Arc<Node>),
    /// Through servers, for the agent of this name.
    Through {
        /// The servers.
        servers: Arc<Servers>,
        /// The agent's name.
        name: String,
    },
}

impl Registry {
    /// Carries a step out; says why not, if it was refused for good.
    ///
    /// # Errors
    /// The cluster cannot be reached: it may be tried again.
    pub(super) async fn carry_out(&self, step: Step) -> Result<Result<(), String>, String> {
        match self {
            Self::Here(node) => {
                let marks = node.published().state.level() >= FILE_MARK_LEVEL;
                let step = if marks { step.marked() } else { step };
                let command = step.command(&own_agent(node)?);
                let outcome =
                    node.propose(command, None).await.map_err(|error| error.to_string())?;
                Ok(match outcome.into_result() {
                    // Somebody else has deregistered it already.
                    Ok(_) | Err(Rejection::UnknownService(_) | Rejection::UnknownCheck(_)) => {
                        Ok(())
                    }
                    Err(rejection) => Err(rejection.to_string()),
                })
            }
            Self::Through { servers, .. } => {
                let (path, body) = step.request();
                let (status, answer) = ask(servers, Method::PUT, &path, &body).await?;
                let is_drop = matches!(step, Step::DropService(_) | Step::DropCheck(_));
                match status {
                    200 => Ok(Ok(())),
                    404 if is_drop => Ok(Ok(())),
                    400..=428 => Ok(Err(answer)),
                    _ => Err(answer),
                }
            }
        }
    }

    /// Leaves out the deregistrations of what this agent does not have on its own node. From a client an
    /// id may mean the only other agent that has it; from a file it would be a stranger's.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub(super) async fn only_own(&self, mut steps: Vec<Step>) -> Result<Vec<Step>, String> {
        if steps.is_empty() {
            return Ok(steps);
        }
        match self {
            Self::Here(node) => {
                let agent = own_agent(node)?;
                let newest = node.read(Consistency::Linearizable).await;
                let newest = newest.map_err(|error| error.to_string())?;
                steps.retain(|step| is_own(step, &agent, &newest.state));
            }
            Self::Through { servers, .. } => {
                let services = own_ids(servers, "/v1/agent/services").await?;
                let checks = own_ids(servers, "/v1/agent/checks").await?;
                steps.retain(|step| match step {
                    Step::DropService(id) => services.contains_key(&**id),
                    Step::DropCheck(id) => checks.contains_key(&**id),
                    Step::Describe(_) | Step::PutService(_) | Step::PutCheck(_) => true,
                });
            }
        }
        Ok(steps)
    }

    /// How what is registered on the agent's own node differs from what these steps register; `None` where
    /// nothing is marked as being from files, because a server does not know the marks yet.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub(super) async fn compare(&self, defined: &[Step]) -> Result<Option<Comparison>, String> {
        let compared = match self {
            Self::Here(node) => {
                let agent = own_agent(node)?;
                let newest = node.read(Consistency::Linearizable).await;
                let newest = newest.map_err(|error| error.to_string())?;
                let services = defined.iter().filter_map(|step| step.registers().0);
                let checks = defined.iter().flat_map(|step| step.registers().1);
                Comparison::new(&newest.state, &agent.name, services, checks)
            }
            Self::Through { servers, .. } => {
                let body = bodies(defined);
                match ask(servers, Method::PUT, DEFINITIONS_PATH, &body).await? {
                    (200, compared) => {
                        serde_json::from_str(&compared).map_err(|error| error.to_string())?
                    }
                    // An older server, or more definitions than are compared at once.
                    (404 | 405 | 413, _) => Comparison::default(),
                    (_, answer) => return Err(answer),
                }
            }
        };
        Ok(Some(compared).filter(|compared| compared.marks))
    }

    /// What is registered for a client agent; `None` for a server's own host, at whose API anybody may
    /// deregister it for good.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub(super) async fn look(&self) -> Result<Option<Look>, String> {
        let Self::Through { servers, .. } = self else { return Ok(None) };
        let services = own_ids(servers, "/v1/agent/services").await?;
        let checks = own_ids(servers, "/v1/agent/checks").await?;
        let is_critical = |(id, check): (String, Value)| (id, check["Status"] == "critical");
        Ok(Some(Look {
            services: services.into_iter().map(|(id, _)| id).collect(),
            checks: checks.into_iter().map(is_critical).collect(),
        }))
    }

    /// Says every few seconds that this agent's process lives, and notifies `gone` when the cluster did not
    /// know it, and so may have lost what is registered. The leader sees by itself whether a server lives.
    /// Does not return.
    pub(super) async fn keep_alive(&self, gone: &Notify) -> Infallible {
        let Self::Through { servers, .. } = self else { return std::future::pending().await };
        let clock = Clock::monotonic();
        let mut begun = false;
        loop {
            match beat(servers, begun).await {
                Ok(()) => begun = true,
                Err(Unbeaten::NotWatched) => {
                    let again = beat(servers, false).await;
                    begun = again.is_ok();
                    gone.notify_one();
                }
                Err(Unbeaten::Failed(why)) => {
                    tracing::debug!(%why, "a heartbeat of this agent failed");
                    servers.pass_over();
                    clock.sleep(ALIVE_AGAIN_AFTER).await;
                    continue;
                }
            }
            clock.sleep(HEARTBEAT_EVERY).await;
        }
    }

    /// Whether there is need to describe the node again: somebody else has written its row. Through a
    /// server there always is, because a node with nothing on it is forgotten in time.
    pub(super) fn needs(&self, said: &Description) -> bool {
        match self {
            Self::Here(node) => {
                let published = node.published();
                let own = published.state.node(&node.info().agent_name);
                !said.is_empty() && own.is_none_or(|own| !said.is_true_of(own))
            }
            Self::Through { .. } => true,
        }
    }
}

/// Why the cluster does not know that this agent lives.
#[derive(Debug)]
enum Unbeaten {
    /// Somebody has deregistered its node, or it is new.
    NotWatched,
    /// It could not be told.
    Failed(String),
}

/// Says that this agent lives; for the first time, if it has not `begun` to say so.
async fn beat(servers: &Servers, begun: bool) -> Result<(), Unbeaten> {
    let path = if begun { ALIVE_PATH } else { ALIVE_BEGIN_PATH };
    let asking = ask(servers, Method::PUT, path, &Value::Null);
    match tokio::time::timeout(ALIVE_TIMEOUT, asking).await {
        Ok(Ok((200, _))) => Ok(()),
        Ok(Ok((404, _))) if begun => Err(Unbeaten::NotWatched),
        Ok(Ok((_, why)) | Err(why)) => Err(Unbeaten::Failed(why)),
        Err(_) => Err(Unbeaten::Failed("timed out".to_owned())),
    }
}

fn own_agent(node: &Node) -> Result<Agent, String> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    node.agent_of(local, None).ok_or_else(|| "the cluster is not known yet".to_owned())
}

/// Whether what a deregistration names is on its agent's own node.
pub(super) fn is_own(step: &Step, agent: &Agent, state: &State) -> bool {
    match step {
        Step::DropService(id) => {
            let own = state.service(&agent.name, id);
            let meant = state.find_service(&agent.name, id);
            own.zip(meant.ok()).is_some_and(|(own, meant)| Arc::ptr_eq(own, meant))
        }
        Step::DropCheck(id) => {
            let own = state.check(&agent.name, id);
            let meant = state.find_check(&agent.name, id);
            own.zip(meant.ok()).is_some_and(|(own, meant)| Arc::ptr_eq(own, meant))
        }
        Step::Describe(_) | Step::PutService(_) | Step::PutCheck(_) => true,
    }
}

/// The ids that a list of the agent's own has as its keys.
async fn own_ids(servers: &Servers, path: &str) -> Result<serde_json::Map<String, Value>, String> {
    match ask(servers, Method::GET, path, &Value::Null).await? {
        (200, list) => serde_json::from_str(&list).map_err(|error| error.to_string()),
        (_, answer) => Err(answer),
    }
}

pub(super) async fn ask(
    servers: &Servers,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<(u16, String), String> {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
    let answer = servers.ask(request).await;
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}
