//! `/v1/event/`: users' events.
//!
//! An event is kept by the whole cluster, so every server lists it. One with filters is listed to the
//! agents that it is for: their names, services and tags are looked at when they ask.

use std::sync::Arc;

use axum::http::HeaderValue;
use quorate_client::types::event::UserEvent;
use quorate_storage::command::Command;
use quorate_storage::limits::EVENT_BYTES_MAX;
use quorate_storage::record::{AclKind, Event};
use quorate_storage::{State, Topic};
use regex::Regex;

use crate::discovery::regexp;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::reply;
use crate::http::rights::{Rule, Sight};

/// The version of the format that clients see.
const VERSION: u64 = 1;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/event/fire/").put(Rule::Commands, |call| Box::pin(fire(call))),
        Endpoint::new("/v1/event/list").get(Rule::Rows, |call| Box::pin(list(call))),
    ]
}

async fn fire(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let name = call.required("Missing name")?.to_owned();
    let filter = |name: &str| call.params.get(name).unwrap_or_default().to_owned();
    let (node_filter, service_filter, tag_filter) =
        (filter("node"), filter("service"), filter("tag"));
    Filters::new(&node_filter, &service_filter, &tag_filter)?;
    let fixed = name.len() + node_filter.len() + service_filter.len() + tag_filter.len();
    let Some(left) = EVENT_BYTES_MAX.checked_sub(fixed) else { return Err(too_large()) };
    let payload = call.body(BodyLimit::fixed(left)).await.map_err(|_| too_large())?;
    let id = uuid::Uuid::new_v4().to_string().into();
    let event = Event { id, name, payload, node_filter, service_filter, tag_filter, time: 0 };
    let answer = shown(&event);
    call.propose(Command::FireEvent(event)).await?;
    call.json(&answer)
}

fn too_large() -> ApiError {
    // As Consul tells it: every network segment is tried, and there is one, without a name
    // (agent/consul/internal_endpoint.go, `EventFire`).
    ApiError::internal(format!(
        "1 error occurred:\n\t* error broadcasting event to segment \"\": \
         user event exceeds configured limit of {EVENT_BYTES_MAX} bytes before encoding\n\n"
    ))
}

async fn list(call: Call) -> Answer {
    let options = call.read_options()?;
    let asked = call.asked()?;
    // Consul's list reads no other parameter: `node`, `service` and `tag` mean something only when an
    // event is fired (agent/event_endpoint.go, `EventList`).
    let name = call.params.get("name").unwrap_or_default();
    let suits = |state: &State, event: &Event, sight: &Sight| {
        (name.is_empty() || event.name == name)
            && is_for(event, state, &asked)
            && sight.keeps_named(AclKind::Event, &event.name)
    };
    let mut published = blocking::at_barrier_or_own(&call.node, &options).await?;
    if options.index > 0 {
        // The index is no counter but stands for the newest event, so any other one is news. Only
        // that one is looked for: many may be waiting here.
        let news = |state: &State| {
            // A token that is gone is told so at once.
            let Ok(sight) = call.rights(state) else { return true };
            let newest = state.events().rev().find(|event| suits(state, event, &sight));
            index(newest) != options.index
        };
        let (topic, wait) = (Topic::Events, options.wait);
        published = blocking::until(&call.node, [&topic], wait, published, news).await?;
    }
    let state = &published.state;
    let sight = call.rights(state)?;
    let events: Vec<_> = state.events().filter(|event| suits(state, event, &sight)).collect();
    let list: Vec<UserEvent> = events.iter().map(|event| shown(event)).collect();
    let index = HeaderValue::from(index(events.last().copied()));
    Ok(call.json(&list)?.with(reply::INDEX, index).filtered_if(call.was_filtered()))
}

fn shown(event: &Event) -> UserEvent {
    UserEvent {
        id: event.id.to_string(),
        name: event.name.clone(),
        payload: event.payload.to_vec(),
        node_filter: event.node_filter.clone(),
        service_filter: event.service_filter.clone(),
        tag_filter: event.tag_filter.clone(),
        version: VERSION,
        time: event.time,
    }
}

/// What a list of events has for an index: the two halves of the newest one's id, combined by
/// exclusive or (Consul's way); 1 for an empty list.
fn index(newest: Option<&Arc<Event>>) -> u64 {
    let newest = newest.and_then(|event| uuid::Uuid::try_parse(&event.id).ok());
    newest.map_or(1, |id| {
        let (high, low) = id.as_u64_pair();
        (high ^ low).max(1)
    })
}

/// An event's filters, compiled.
struct Filters {
    node: Option<Regex>,
    service: Option<Regex>,
    tag: Option<Regex>,
}

impl Filters {
    fn new(node: &str, service: &str, tag: &str) -> Result<Self, ApiError> {
        if !tag.is_empty() && service.is_empty() {
            return Err(ApiError::internal("Cannot provide tag filter without service filter"));
        }
        let compiled = |what: &str, pattern: &str| {
            regexp::compile(pattern)
                .map_err(|fault| ApiError::internal(format!("Invalid {what} filter: {fault}")))
        };
        Ok(Self {
            node: compiled("node", node)?,
            service: compiled("service", service)?,
            tag: compiled("tag", tag)?,
        })
    }

    /// Whether an event with these filters is for an agent.
    fn match_agent(&self, state: &State, agent: &str) -> bool {
        let node = self.node.as_ref().is_none_or(|pattern| pattern.is_match(agent));
        let Some(service) = &self.service else { return node };
        let tagged = |tags: &[String]| {
            self.tag.as_ref().is_none_or(|tag| tags.iter().any(|own| tag.is_match(own)))
        };
        node && state
            .services_on(agent)
            .any(|row| service.is_match(&row.definition.name) && tagged(&row.definition.tags))
    }
}

/// Whether an event is for the asking agent; `?agent=*` sees all.
fn is_for(event: &Event, state: &State, asked: &Asked) -> bool {
    let Asked::One(agent) = asked else { return true };
    let filters = Filters::new(&event.node_filter, &event.service_filter, &event.tag_filter);
    // The filters were checked when the event was fired.
    filters.is_ok_and(|filters| filters.match_agent(state, &agent.name))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(id: &str) -> Arc<Event> {
        Arc::new(Event {
            id: id.into(),
            name: "deploy".to_owned(),
            payload: Bytes::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            time: 1,
        })
    }

    #[test]
    fn the_index_stands_for_the_newest_event() {
        let (first, second) = (
            event("00000000-0000-0001-0000-000000000003"),
            event("00000000-0000-0001-0000-000000000001"),
        );
        assert_eq!(index(None), 1);
        assert_eq!(index(Some(&first)), 2);
        assert_eq!(index(Some(&second)), 1);
    }

    #[test]
    fn filters_that_are_no_expressions_are_refused_in_the_words_of_consul() {
        let text = |node, service, tag| Filters::new(node, service, tag).err().unwrap().text;
        assert_eq!(text("", "", "x"), "Cannot provide tag filter without service filter");
        assert!(text("(", "", "").starts_with("Invalid node filter: "));
        assert!(text("", "[", "").starts_with("Invalid service filter: "));
        assert!(text("", "a", "*").starts_with("Invalid tag filter: "));
        assert!(text("(((a{100}){100}){100})", "", "").starts_with("Invalid node filter: "));
    }

    #[test]
    fn an_event_is_for_the_nodes_that_its_filter_names() {
        let state = State::default();
        let is_for = |node: &str| Filters::new(node, "", "").unwrap().match_agent(&state, "web-1");
        assert!(is_for("") && is_for("^web-.*") && !is_for("^db-"));
        assert!(!Filters::new("", "web", "").unwrap().match_agent(&state, "web-1"));
    }
}
