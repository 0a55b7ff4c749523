//! `GET /v1/quorate/instances`: what is registered, by whatever API, one row for each instance.

use std::sync::Arc;

use quorate_client::types::live::Instance;
use quorate_storage::record::Service;
use quorate_storage::{State, Topic};

use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::filter::Fault;
use crate::http::rights::Rule;
use crate::live::rows::Rows;

/// What an instance's status can be.
const STATUSES: [&str; 3] = ["passing", "warning", "critical"];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let instances =
        Endpoint::new("/v1/quorate/instances").get(Rule::Rows, |call| Box::pin(instances(call)));
    vec![instances.only_with(&["service", "status"])]
}

/// The rows in the order of service, node and id. Ages and counters are as of the answer; their changes alone
/// move no index.
async fn instances(call: Call) -> Answer {
    let options = call.cached_read_options()?;
    let statuses = statuses(&call)?;
    let filter = call.filter::<Instance>().map_err(bad_filter)?;
    let shown = |state: &State, rows: &mut dyn Iterator<Item = &Arc<Service>>| {
        let sight = call.rights(state)?;
        let mut all = Rows::of(state);
        let rows = rows.filter(|row| sight.keeps_instance(&row.node, &row.definition.name));
        let rows = rows.map(|row| all.instance(row)).filter(|row| {
            let has_status = statuses.is_empty() || statuses.contains(&row.status.as_str());
            has_status && filter.keeps(row)
        });
        call.json(&rows.collect::<Vec<_>>())
    };
    match call.params.filled("service") {
        Some(name) => {
            let topic = Topic::service(name);
            let render = |state: &State| shown(state, &mut state.instances(name));
            blocking::read(&call, &options, |_| topic, render).await
        }
        None => {
            let topics = [Topic::Services, Topic::Checks, Topic::Nodes];
            let render =
                |state: &State| shown(state, &mut state.instances_behind(None).map(|(_, row)| row));
            blocking::read_of_all(&call, &options, |_| topics, render).await
        }
    }
}

fn statuses(call: &Call) -> Result<Vec<&str>, ApiError> {
    let given: Vec<_> = call.params.all("status").filter(|text| !text.is_empty()).collect();
    match given.iter().find(|text| !STATUSES.contains(text)) {
        Some(other) => Err(ApiError::bad_request(format!(
            "Invalid status: {other:?} is none of {}",
            STATUSES.join(", ")
        ))),
        None => Ok(given),
    }
}

fn bad_filter(fault: Fault) -> ApiError {
    let (Fault::Malformed(text) | Fault::Unfitting(text)) = fault;
    ApiError::bad_request(format!("Invalid filter: {text}"))
}
