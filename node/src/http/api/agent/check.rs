//! `/v1/agent/check/` and `/v1/agent/checks`: the checks of the asking host, and their heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_client::types::agent::{CheckRegistration, CheckUpdate};
use quorate_client::types::health::HealthCheck;
use quorate_storage::State;
use quorate_storage::command::{Agent, Command, Outcome, Rejection};
use quorate_storage::record::{Check, CheckStatus, FromFile as _, SERF_HEALTH};

use super::agents;
use crate::http::api::held::refuse_held;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::definition::check::{known_status, registration};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::filter::{Fault, Filter};
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use crate::http::wire;

/// The largest heartbeat. Far more than is kept of its output, because the heartbeat counts however much its
/// check had to say.
const MAX_HEARTBEAT_BYTES: usize = 8 * 1024 * 1024;

/// How much of a heartbeat's output is kept.
const MAX_OUTPUT_BYTES: usize = 4096;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/checks").get(Rule::Rows, |call| Box::pin(list(call))),
        Endpoint::new("/v1/agent/check/register")
            .put(Rule::Commands, |call| Box::pin(register(call))),
        Endpoint::new("/v1/agent/check/deregister/")
            .put(Rule::Commands, |call| Box::pin(deregister(call))),
        Endpoint::new("/v1/agent/check/pass/")
            .put(Rule::Commands, |call| Box::pin(note(call, CheckStatus::Passing))),
        Endpoint::new("/v1/agent/check/warn/")
            .put(Rule::Commands, |call| Box::pin(note(call, CheckStatus::Warning))),
        Endpoint::new("/v1/agent/check/fail/")
            .put(Rule::Commands, |call| Box::pin(note(call, CheckStatus::Critical))),
        Endpoint::new("/v1/agent/check/update/").put(Rule::Commands, |call| Box::pin(update(call))),
    ]
}

async fn list(call: Call) -> Answer {
    blocking::list_of_agent(&call, Fault::of_agent_checks, listed).await
}

fn listed(call: &Call, state: &State, asked: &Asked, filter: &Filter<HealthCheck>) -> Answer {
    let sight = call.rights(state)?;
    let is_shown = |check: &&Arc<Check>| {
        let may_be = match check.registration.service_id.is_empty() {
            true => sight.keeps_node(&check.node),
            false => sight.keeps_service(&check.service_name),
        };
        may_be && &*check.registration.id != SERF_HEALTH
    };
    let mut checks: BTreeMap<String, HealthCheck> = match asked {
        Asked::One(agent) => state
            .checks_on(&agent.name)
            .filter(is_shown)
            .map(|check| (check.registration.id.to_string(), wire::agent_check(check)))
            .collect(),
        // Two agents may have the same id, so here the key names the agent too.
        Asked::All => agents(state)
            .flat_map(|agent| state.checks_on(agent))
            .filter(is_shown)
            .map(|check| {
                (format!("{}/{}", check.node, check.registration.id), wire::agent_check(check))
            })
            .collect(),
    };
    checks.retain(|_, check| filter.keeps(check));
    call.json(&checks)
}

// ---- registration ----------------------------------------------------------------------------

async fn register(mut call: Call) -> Answer {
    let body: CheckRegistration = call.decode().await?;
    let agent = call.agent()?;
    let mut check = Box::new(registration(body)?);
    if call.is_from_file()? {
        check.mark_from_file();
    }
    call.propose(Command::AgentRegisterCheck { agent, check }).await?;
    Ok(Reply::empty())
}

async fn deregister(call: Call) -> Answer {
    let check_id = call.rest()?;
    if check_id.is_empty() {
        return Err(ApiError::internal("CheckID missing"));
    }
    let agent = call.agent()?;
    refuse_held(&call.node.published().state, &agent.name, check_id)?;
    call.propose(Command::AgentDeregisterCheck { agent, check_id: check_id.into() }).await?;
    Ok(Reply::empty())
}

// ---- heartbeats ------------------------------------------------------------------------------

/// `pass`, `warn` and `fail`: the output is the note, or nothing.
async fn note(call: Call, status: CheckStatus) -> Answer {
    let output = call.params.get("note").unwrap_or("").to_owned();
    let seen = call.seen();
    let output = kept(&call, output);
    heartbeat(&call, Beat { status, output, seen }).await
}

async fn update(mut call: Call) -> Answer {
    // Before the body is waited for: a heartbeat is as old as its request.
    let seen = call.seen();
    let body: CheckUpdate = call.decode_up_to(MAX_HEARTBEAT_BYTES).await?;
    let status = known_status(&body.status)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{}'", body.status)))?;
    let output = kept(&call, body.output);
    heartbeat(&call, Beat { status, output, seen }).await
}

/// What a heartbeat says.
struct Beat {
    status: CheckStatus,
    output: String,
    seen: quorate_storage::ClusterTime,
}

impl Beat {
    /// The few bytes for a check whose number is known.
    fn numbered(&self, number: u64) -> Command {
        let (status, output, seen) = (self.status.clone(), self.output.clone(), self.seen);
        Command::Heartbeat { number, status, output, seen }
    }

    /// The full names.
    fn named(self, agent: Agent, check_id: &str) -> Command {
        let Self { status, output, seen } = self;
        Command::UpdateCheck { agent, check_id: check_id.into(), status, output, seen }
    }
}

/// Sends a heartbeat, by the check's number if this node knows it. It may know an old one, or none:
/// then the full id is sent, and `apply` says what it means.
async fn heartbeat(call: &Call, beat: Beat) -> Answer {
    let check_id = call.rest()?;
    let agent = call.agent()?;
    if let Some(number) = own_number(call, &agent, check_id) {
        match call.outcome_of(beat.numbered(number)).await? {
            Outcome::Rejected(Rejection::NoSuchNumber) => {}
            Outcome::Rejected(rejection) => return Err(rejection.into()),
            Outcome::Done
            | Outcome::Condition(_)
            | Outcome::Id(_)
            | Outcome::AppliedAt(_)
            | Outcome::Txn(_)
            | Outcome::Beats(_) => {
                return Ok(Reply::empty());
            }
        }
    }
    call.propose(beat.named(agent, check_id)).await?;
    Ok(Reply::empty())
}

/// The number of the agent's own check with this id, as far as this node knows. Another agent's
/// check is left to `apply`: this agent may have registered its own by now. So is `serfHealth`, which
/// is the node's and no check that a client finds by its id.
fn own_number(call: &Call, agent: &Agent, check_id: &str) -> Option<u64> {
    if check_id == SERF_HEALTH {
        return None;
    }
    let published = call.node.published();
    published.state.check(&agent.name, check_id).map(|check| check.number)
}

/// What is kept of an output, as this server is configured.
fn kept(call: &Call, output: String) -> String {
    let rule = call.node.check_output();
    match rule.discard {
        true => String::new(),
        false => cut(output, rule.bytes_max.unwrap_or(MAX_OUTPUT_BYTES)),
    }
}

/// Cuts an output that is too long, and says so in it.
fn cut(output: String, bytes_max: usize) -> String {
    let total = output.len();
    if total <= bytes_max {
        return output;
    }
    let kept = &output[..output.floor_char_boundary(bytes_max)];
    format!("{kept} ... (captured {bytes_max} of {total} bytes)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("x".repeat(4096), 4096), "x".repeat(4096));
        let long = cut("\u{e9}".repeat(2049), 4096);
        assert!(long.ends_with("\u{e9} ... (captured 4096 of 4098 bytes)"), "{long}");
        let long = cut(format!("a{}", "\u{e9}".repeat(2048)), 4096);
        assert!(long.ends_with("\u{e9} ... (captured 4096 of 4097 bytes)"), "{long}");
    }
}
