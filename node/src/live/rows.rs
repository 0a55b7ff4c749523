//! An instance as streams show it.

use quorate_client::types::live::Instance;
use quorate_storage::State;
use quorate_storage::record::{Check, CheckStatus, Service};

use super::show::date_of;

/// The row of an instance in a state.
#[must_use]
pub fn instance(state: &State, row: &Service) -> Instance {
    let definition = &row.definition;
    let node_address =
        || state.node(&row.node).map_or_else(String::new, |node| node.address.clone());
    let address = match definition.address.is_empty() {
        true => node_address(),
        false => definition.address.clone(),
    };
    let heard = state
        .checks_of(row)
        .filter(|check| !check.registration.service_id.is_empty())
        .filter_map(|check| state.last_seen(check.number))
        .max();
    Instance {
        service: definition.name.to_string(),
        id: definition.id.to_string(),
        node: row.node.to_string(),
        address,
        port: definition.port,
        status: status(state, row).to_owned(),
        age_ms: heard.map(|heard| state.time().since(heard).0),
        last_heard: heard.map_or_else(String::new, |heard| date_of(state, heard)),
        tags: definition.tags.to_vec(),
        meta: definition.meta.clone().unwrap_or_default(),
    }
}

/// How bad it is that a check has its status: 0, 1 or 2.
pub(super) fn badness(check: &Check) -> u8 {
    match check.registration.status {
        CheckStatus::Passing => 0,
        CheckStatus::Warning => 1,
        CheckStatus::Critical | CheckStatus::Other(_) => 2,
    }
}

/// The worst status of an instance's checks and its node's.
fn status(state: &State, row: &Service) -> &'static str {
    match state.checks_of(row).map(|check| badness(check)).max() {
        None | Some(0) => "passing",
        Some(1) => "warning",
        Some(_) => "critical",
    }
}
