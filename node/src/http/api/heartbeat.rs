//! `PUT /v1/quorate/heartbeat`: heartbeats with facts, one or ten thousand.
//!
//! Each stands for itself: what is wrong with one is told in the answer, and the others take effect. Those that
//! say nothing new, as far as this server knows, travel as a few bytes each ([`Command::Renew`]); the others in
//! full, some hundred in a command ([`Command::Beat`]). The state judges both again.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use quorate_client::types::heartbeat::{Heartbeats, RejectedHeartbeat};
use quorate_storage::command::{
    Agent, BEATS_MAX, Beat, Beats, Command, Outcome, Refused, Rejection, Renewal, Renewals,
};
use quorate_storage::{ClusterTime, State};

use crate::http::call::Call;
use crate::http::definition::beat;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::heavy;
use crate::http::incoming::BodyLimit;
use crate::http::rights::{Rule, Sight};
use crate::node::Consistency;

/// Heartbeats in a request.
const HEARTBEATS_MAX: usize = 10_000;
/// Bytes of a request.
const BODY_BYTES_MAX: usize = 4 << 20;
/// A command is closed when it has about so much: half of what one may have, and a heartbeat adds at most a
/// fifth of that.
const COMMAND_BYTES: usize = quorate_storage::limits::COMMAND_BYTES_MAX / 2;
/// Commands of a request that are proposed at once. All of them together would have to be applied within the time
/// that one may take.
const COMMANDS_AT_ONCE: usize = 4;
/// The place of the agent that asks among the agents that heartbeats name: one whose agent is named is of no other
/// agent's instance.
const OWN_AGENT: u32 = 1;
/// What a heartbeat in full has beside its texts.
const BEAT_BYTES: usize = 128;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/quorate/heartbeat")
            .put(Rule::Commands, |call| Box::pin(heartbeat(call))),
    ]
}

async fn heartbeat(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let seen = call.seen();
    let agent = call.agent()?;
    let is_named = call.params.filled("agent").is_some();
    let is_text = call.header(&CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/plain"));
    let body = call.body(BodyLimit::fixed(BODY_BYTES_MAX)).await?;
    let sort = |agent: Agent| {
        heavy::render(body.len(), || {
            let state = &call.node.published().state;
            let mut sorted = Sorted::new(agent, is_named);
            match is_text {
                true => sorted.take_ids(state, &body)?,
                false => sorted.take_json(&call, state, &body)?,
            }
            Ok::<Sorted, ApiError>(sorted)
        })
    };
    let mut sorted = sort(agent.clone()).await??;
    if is_text && !sorted.rejected.is_empty() {
        // What this server does not know, another one may have taken a moment ago.
        drop(call.node.read(Consistency::Linearizable).await?);
        sorted = sort(agent).await??;
    }
    sorted.refuse_forbidden(&call).await?;
    let Sorted { agents, renewals, beats, ids, is_single, mut rejected, forbidden, .. } = sorted;
    let mut commands = Vec::new();
    if !renewals.is_empty() {
        commands.push(renewal_command(seen, renewals));
    }
    commands.extend(beat_commands(seen, &agents, beats));
    let mut answer = Heartbeats::default();
    let proposals = commands.into_iter().map(async |(places, command)| {
        call.outcome_of(command).await.map(|outcome| (places, outcome))
    });
    let mut concluded = stream::iter(proposals).buffered(COMMANDS_AT_ONCE);
    while let Some((places, outcome)) = concluded.try_next().await? {
        count(&mut answer, &mut rejected, &places, outcome)?;
    }
    // One by itself has a status of its own; in a list each is told of.
    if is_single && let Some(text) = rejected.remove(&0) {
        let status = match forbidden.is_empty() {
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::FORBIDDEN,
        };
        return Err(ApiError::new(status, text));
    }
    answer.rejected = rejected
        .into_iter()
        .map(|(place, error)| RejectedHeartbeat {
            index: place,
            id: ids.get(place).cloned().unwrap_or_default(),
            error,
        })
        .collect();
    call.json(&answer)
}

/// A command, and for each of its heartbeats the place in the request.
type Placed = (Vec<usize>, Command);

/// The heartbeats of a request.
#[derive(Debug)]
struct Sorted {
    /// The agent that asks, once more if it is the one that is meant, and behind it those that heartbeats name.
    agents: Vec<Agent>,
    /// Whether the request names its agent: then no other one's instance is meant.
    is_named: bool,
    renewals: Vec<(usize, Renewal)>,
    beats: Vec<(usize, Beat)>,
    /// Of all of them, in order.
    ids: Vec<String>,
    /// Whether it is one object, and not a list.
    is_single: bool,
    /// By place in the request.
    rejected: BTreeMap<usize, String>,
    /// Those of them that the caller may not send.
    forbidden: BTreeSet<usize>,
}

impl Sorted {
    fn new(agent: Agent, is_named: bool) -> Self {
        Self {
            agents: vec![agent.clone(), agent],
            is_named,
            renewals: Vec::new(),
            beats: Vec::new(),
            ids: Vec::new(),
            is_single: false,
            rejected: BTreeMap::new(),
            forbidden: BTreeSet::new(),
        }
    }

    /// Takes ids of instances, one a line.
    fn take_ids(&mut self, state: &State, body: &[u8]) -> Result<(), ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| ApiError::bad_request("Request decode failed: not UTF-8"))?;
        for id in text.lines().map(str::trim).filter(|id| !id.is_empty()) {
            let place = self.next_place(id)?;
            let agent = &self.agents[0].name;
            if self.is_named && state.service(agent, id).is_none() {
                let why = Rejection::UnknownService(id.to_owned());
                self.rejected.insert(place, why.to_string());
                continue;
            }
            match state.renewal_of(agent, id) {
                Ok(renewal) => self.renewals.push((place, renewal)),
                Err(why) => drop(self.rejected.insert(place, why.to_string())),
            }
        }
        Ok(())
    }

    /// Takes a JSON object, or an array of them.
    fn take_json(&mut self, call: &Call, state: &State, body: &[u8]) -> Result<(), ApiError> {
        let mut nodes = BTreeMap::new();
        self.is_single = !is_array(body);
        for value in values(body)? {
            let place = self.next_place(&id_of(&value))?;
            if let Err(why) = self.take(call, state, &mut nodes, place, value) {
                self.rejected.insert(place, why);
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        call: &Call,
        state: &State,
        nodes: &mut BTreeMap<String, u32>,
        place: usize,
        value: serde_json::Value,
    ) -> Result<(), String> {
        let given = beat::decode(value)?;
        let node = given.node.clone();
        let is_own = self.is_named
            || (given.id.is_empty() && given.address.is_none() && given.port.is_none());
        let mut beat = beat::of(given)?;
        if is_own {
            beat.agent = OWN_AGENT;
        }
        if !node.is_empty() {
            beat.agent = match nodes.get(&node) {
                Some(agent) => *agent,
                None => {
                    beat::check_node(&node)?;
                    self.agents.push(call.agent_named(&node).map_err(|error| error.text)?);
                    let agent = u32::try_from(self.agents.len() - 1).unwrap_or(u32::MAX);
                    *nodes.entry(node).or_insert(agent)
                }
            };
        }
        if let Some(renewal) = state.renewal(&self.agents, &beat) {
            self.renewals.push((place, renewal));
        } else {
            state.complete(&self.agents, &mut beat);
            self.beats.push((place, beat));
        }
        Ok(())
    }

    /// Refuses those that the caller may not send, each by itself; apply looks at all of a command once more.
    async fn refuse_forbidden(&mut self, call: &Call) -> Result<(), ApiError> {
        if call.asker().is_none() {
            return Ok(());
        }
        let forbidden = |sight: &Sight, state: &State| {
            let Some(rights) = sight.rights() else { return BTreeMap::new() };
            let renewals = self
                .renewals
                .iter()
                .map(|(place, renewal)| (*place, state.permit_renewal(rights, renewal.number)));
            let beats = self.beats.iter().map(|(place, beat)| {
                let agent = self.agents.get(beat.agent as usize);
                (*place, state.permit_beat(rights, agent, beat))
            });
            let all = renewals.chain(beats);
            let refused =
                all.filter_map(|(place, permit)| Some((place, permit.err()?.to_string())));
            refused.collect::<BTreeMap<usize, String>>()
        };
        // What is refused from a state that may be behind is looked at again behind a barrier.
        let checked = call.confirm(|sight, state| match forbidden(sight, state) {
            refused if refused.is_empty() => Ok(()),
            _ => Err(ApiError::new(StatusCode::FORBIDDEN, "")),
        });
        if checked.await.is_ok() {
            return Ok(());
        }
        let state = call.node.published();
        let refused = forbidden(&call.rights(&state.state)?, &state.state);
        self.renewals.retain(|(place, _)| !refused.contains_key(place));
        self.beats.retain(|(place, _)| !refused.contains_key(place));
        self.forbidden = refused.keys().copied().collect();
        self.rejected.extend(refused);
        Ok(())
    }

    fn next_place(&mut self, id: &str) -> Result<usize, ApiError> {
        if self.ids.len() == HEARTBEATS_MAX {
            let text = format!("too many heartbeats: at most {HEARTBEATS_MAX} are allowed");
            return Err(ApiError::bad_request(text));
        }
        self.ids.push(id.to_owned());
        Ok(self.ids.len() - 1)
    }
}

/// The values of an array, or the one value that is none.
fn values(body: &[u8]) -> Result<Vec<serde_json::Value>, ApiError> {
    let malformed =
        |error: serde_json::Error| ApiError::bad_request(format!("Request decode failed: {error}"));
    if is_array(body) {
        return serde_json::from_slice(body).map_err(malformed);
    }
    match serde_json::from_slice(body).map_err(malformed)? {
        object @ serde_json::Value::Object(_) => Ok(vec![object]),
        _ => Err(ApiError::bad_request("Request decode failed: neither an object nor an array")),
    }
}

fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// The id that a heartbeat is known by, as far as it can be read.
fn id_of(value: &serde_json::Value) -> String {
    match value.get("ID").filter(|id| **id != "") {
        Some(serde_json::Value::String(id)) => id.clone(),
        // Its service's name may be the id of one that is well.
        Some(other) => other.to_string(),
        None => value.get("Service").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
    }
}

fn renewal_command(seen: ClusterTime, mut renewals: Vec<(usize, Renewal)>) -> Placed {
    // Stable: two of one instance keep their order.
    renewals.sort_by_key(|(_, renewal)| renewal.number);
    let (places, all) = renewals.into_iter().unzip();
    (places, Command::Renew(Box::new(Renewals { seen, all })))
}

fn beat_commands(seen: ClusterTime, agents: &[Agent], beats: Vec<(usize, Beat)>) -> Vec<Placed> {
    let mut commands = Vec::new();
    let mut open = Filling::new(agents);
    for (place, beat) in beats {
        let bytes = bytes_of(&beat);
        if open.all.len() == BEATS_MAX || open.bytes + bytes > COMMAND_BYTES {
            let full = std::mem::replace(&mut open, Filling::new(agents));
            commands.push(full.close(seen));
        }
        open.bytes += bytes;
        open.add(place, beat, agents);
    }
    if !open.all.is_empty() {
        commands.push(open.close(seen));
    }
    commands
}

/// A command that is being filled, with only those agents that its heartbeats name.
#[derive(Debug)]
struct Filling {
    agents: Vec<Agent>,
    given: BTreeMap<u32, u32>,
    places: Vec<usize>,
    all: Vec<Beat>,
    bytes: usize,
}

impl Filling {
    fn new(agents: &[Agent]) -> Self {
        Self {
            agents: agents.first().cloned().into_iter().collect(),
            given: BTreeMap::from([(0, 0)]),
            places: Vec::new(),
            all: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, place: usize, mut beat: Beat, agents: &[Agent]) {
        beat.agent = *self.given.entry(beat.agent).or_insert_with(|| {
            self.agents.extend(agents.get(beat.agent as usize).cloned());
            u32::try_from(self.agents.len() - 1).unwrap_or(u32::MAX)
        });
        self.places.push(place);
        self.all.push(beat);
    }

    fn close(self, seen: ClusterTime) -> Placed {
        let Self { agents, places, all, .. } = self;
        (places, Command::Beat(Box::new(Beats { seen, agents, all })))
    }
}

/// About how much a heartbeat adds to a command, with an agent of its own.
fn bytes_of(beat: &Beat) -> usize {
    let tags = beat.tags.iter().flat_map(|tags| tags.iter()).map(String::len).sum::<usize>();
    let meta = beat.meta.iter().flatten().map(|(key, value)| key.len() + value.len());
    let texts = [&beat.address, &beat.note].map(|text| text.as_ref().map_or(0, String::len));
    let facts =
        [&beat.process, &beat.version].map(|text| text.as_ref().map_or(0, |text| text.len()));
    let named = beat.service.len() + beat.id.len();
    let others = texts.into_iter().chain(facts).chain(meta).sum::<usize>();
    BEAT_BYTES + quorate_storage::limits::NAME_BYTES_MAX + tags + named + others
}

/// Adds what became of the heartbeats of a command.
fn count(
    answer: &mut Heartbeats,
    rejected: &mut BTreeMap<usize, String>,
    places: &[usize],
    outcome: Outcome,
) -> Result<(), ApiError> {
    let Outcome::Beats(outcome) = outcome.into_result()? else { return Ok(()) };
    answer.accepted += u64::from(outcome.accepted);
    answer.registered += u64::from(outcome.registered);
    match outcome.refused {
        Refused::None => {}
        Refused::These(all) => {
            let named = all
                .into_iter()
                .filter_map(|(place, why)| Some((*places.get(place as usize)?, why.to_string())));
            rejected.extend(named);
        }
        // Only if this server took a snapshot over the entry.
        Refused::Some => {
            let text = "outcome unknown, send again";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_storage::command::BeatsOutcome;

    use super::*;

    fn agent(name: &str) -> Agent {
        Agent { name: name.into(), id: String::new(), address: String::new() }
    }

    #[test]
    fn commands_hold_so_many_heartbeats_and_so_many_bytes_and_the_agents_that_they_name() {
        let agents = [agent("a"), agent("b"), agent("c")];
        let beat = |at: usize| Beat { agent: if at == 300 { 2 } else { 0 }, ..Beat::default() };
        let many = (0..600).map(|at| (at, beat(at))).collect();
        let commands = beat_commands(ClusterTime(1), &agents, many);
        let sizes: Vec<_> = commands.iter().map(|(places, _)| places.len()).collect();
        assert_eq!(sizes, [256, 256, 88]);
        let Command::Beat(second) = &commands[1].1 else { panic!("a heartbeat in full") };
        assert_eq!(second.agents, [agent("a"), agent("c")]);
        assert_eq!((commands[1].0[44], second.all[44].agent), (300, 1));
        let large = Beat { tags: Some(vec!["x".repeat(60_000)].into()), ..Beat::default() };
        let many = (0..20).map(|at| (at, large.clone())).collect();
        for (_, command) in beat_commands(ClusterTime(1), &agents, many) {
            quorate_storage::limits::validate(&command).unwrap();
        }
    }

    #[test]
    fn a_refusal_is_told_by_the_place_in_the_request() {
        let (mut answer, mut rejected) = (Heartbeats::default(), BTreeMap::new());
        let refused = Refused::These(vec![(1, Rejection::InstanceGone)]);
        let outcome = Outcome::Beats(BeatsOutcome { accepted: 1, registered: 1, refused });
        count(&mut answer, &mut rejected, &[7, 3], outcome).unwrap();
        assert_eq!((answer.accepted, answer.registered), (1, 1));
        assert_eq!(rejected.keys().collect::<Vec<_>>(), [&3]);
        let forgotten = Outcome::Beats(BeatsOutcome { refused: Refused::Some, ..<_>::default() });
        let error = count(&mut answer, &mut rejected, &[7, 3], forgotten).unwrap_err();
        assert_eq!(error.text, "outcome unknown, send again");
    }

    #[test]
    fn one_object_or_an_array_is_taken_and_nothing_else() {
        assert_eq!(values(br#" {"Service":"a"}"#).unwrap().len(), 1);
        assert_eq!(values(br#" [{"Service":"a"}, 5]"#).unwrap().len(), 2);
        for text in ["", "5", "null", "[{", "{}x", "\"a\""] {
            values(text.as_bytes()).unwrap_err();
        }
        assert_eq!(id_of(&serde_json::json!({"Service": "a", "ID": ""})), "a");
        assert_eq!(id_of(&serde_json::json!({"Service": "a", "ID": 5})), "5");
    }
}
