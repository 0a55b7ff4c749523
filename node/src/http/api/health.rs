//! `/v1/health/`: checks, and instances with their checks.

use std::sync::Arc;

use quorate_client::types::health::HealthCheck;
use quorate_storage::record::{self, CheckStatus};
use quorate_storage::{State, Topic};

use super::catalog::{chosen_instances, has_meta};
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::near;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;

/// The word for checks in any state.
const ANY: &str = "any";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/health/service/").get(Rule::Rows, |call| Box::pin(service(call))),
        Endpoint::new("/v1/health/checks/").get(Rule::Rows, |call| Box::pin(checks(call))),
        Endpoint::new("/v1/health/node/").get(Rule::Rows, |call| Box::pin(node(call))),
        Endpoint::new("/v1/health/state/").get(Rule::Rows, |call| Box::pin(state(call))),
    ]
}

async fn service(call: Call) -> Answer {
    let options = call.cached_read_options()?;
    let name = call.required("Missing service name")?;
    let passing = call.params.switch("passing")?;
    let topic = Topic::service(name);
    let entries = |state: &State, sight: &Sight| -> Vec<_> {
        let datacenter = call.node.info().datacenter;
        let instances = chosen_instances(state, name, &call.params, sight)
            .filter(|(_, service)| !passing || all_pass(state, service));
        near::sorted(&call, state, instances, |(node, _)| &node.name)
            .into_iter()
            .map(|(node, service)| wire::service_entry(state, node, service, &datacenter))
            .collect()
    };
    blocking::list(&call, &options, |_| topic, entries).await
}

/// Whether every check of an instance is exactly passing; one without checks passes.
fn all_pass(state: &State, service: &record::Service) -> bool {
    state.checks_of(service).all(|check| check.registration.status == CheckStatus::Passing)
}

async fn checks(call: Call) -> Answer {
    let options = call.read_options()?;
    let name = call.required("Missing service name")?;
    let topic = Topic::service(name);
    let checks = |state: &State, sight: &Sight| {
        let checks = state.service_checks(name).filter(|check| keeps(sight, check));
        let checks = checks.filter(|check| on_chosen_node(&call, state, check));
        shown(state, near::sorted(&call, state, checks, |check| &check.node).into_iter())
    };
    blocking::list(&call, &options, |_| topic, checks).await
}

async fn node(call: Call) -> Answer {
    let options = call.read_options()?;
    let name = call.required("Missing node name")?;
    let checks = |state: &State, sight: &Sight| {
        // The exact name is needed to list; the client may have written it in another case.
        let name = state.node(name).map_or(name, |node| &node.name);
        shown(state, state.checks_on(name).filter(|check| keeps(sight, check)))
    };
    blocking::list(&call, &options, |_| Topic::Checks, checks).await
}

async fn state(call: Call) -> Answer {
    let options = call.read_options()?;
    let status = call.required("Missing check state")?;
    let checks = |state: &State, sight: &Sight| {
        let asked = |check: &&Arc<record::Check>| {
            (status == ANY || check.registration.status.as_str() == status)
                && on_chosen_node(&call, state, check)
                && keeps(sight, check)
        };
        let checks = state.checks().filter(asked);
        shown(state, near::sorted(&call, state, checks, |check| &check.node).into_iter())
    };
    blocking::list(&call, &options, |_| Topic::Checks, checks).await
}

fn keeps(sight: &Sight, check: &record::Check) -> bool {
    sight.keeps_check(&check.node, &check.service_name)
}

fn on_chosen_node(call: &Call, state: &State, check: &record::Check) -> bool {
    let meta = call.params.node_meta();
    meta.is_empty() || state.node(&check.node).is_some_and(|node| has_meta(node, &meta))
}

fn shown<'a>(
    state: &State,
    checks: impl Iterator<Item = &'a Arc<record::Check>>,
) -> Vec<HealthCheck> {
    checks.map(|check| wire::check(state, check)).collect()
}
