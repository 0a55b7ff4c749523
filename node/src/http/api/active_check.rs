//! `GET /v1/quorate/checks`: the checks that the cluster runs, who runs them, and what each of those sees.

use quorate_client::types::worker::{ActiveCheck, CheckWorker};
use quorate_storage::State;
use quorate_storage::record::{Check, WorkerId};
use quorate_storage::state::{Candidate, WORKERS_LEVEL, WorkerSet};

use super::worker::kind_of;
use crate::checks::assigned::interval;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::rights::Rule;
use crate::node::Node;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let checks = Endpoint::new("/v1/quorate/checks").get(Rule::Rows, |call| Box::pin(checks(call)));
    vec![checks.only_with(&["worker", "service"])]
}

/// In the order in which they were registered. What only the worker itself knows, its last and next run, is there
/// where this server is the worker.
async fn checks(call: Call) -> Answer {
    let options = call.read_options()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let state = &published.state;
    let set = match state.level() < WORKERS_LEVEL {
        true => WorkerSet::default(),
        false => state.worker_set(),
    };
    let sight = call.rights(state)?;
    let (worker, service) = (call.params.filled("worker"), call.params.filled("service"));
    let all = state.probes().iter().filter_map(|(check, _)| state.check_numbered(check));
    let all = all.filter(|row| {
        let is_asked = service.is_none_or(|name| row.service_name.eq_ignore_ascii_case(name));
        is_asked
            && row.registration.definition.has_target()
            && sight.keeps_check(&row.node, &row.service_name)
    });
    let shown = all.filter_map(|row| {
        let workers = set.responsible(row, state.host_of(row));
        let is_asked = worker.is_none_or(|name| workers.iter().any(|one| *one.name == *name));
        is_asked.then(|| active_check(&call.node, state, row, &workers))
    });
    Ok(call.json(&shown.collect::<Vec<_>>())?.filtered_if(call.was_filtered()))
}

fn active_check(node: &Node, state: &State, row: &Check, workers: &[&Candidate]) -> ActiveCheck {
    let what = &row.registration;
    ActiveCheck {
        node: row.node.to_string(),
        check_id: what.id.to_string(),
        service: row.service_name.to_string(),
        service_id: what.service_id.to_string(),
        kind: what.check_type().to_owned(),
        interval_ms: u64::try_from(interval(&what.definition).as_millis()).unwrap_or(u64::MAX),
        network: what.definition.later.network.to_string(),
        observers: what.definition.observers() as u64,
        status: what.status.as_str().to_owned(),
        output: what.output.clone(),
        workers: workers.iter().map(|one| check_worker(node, state, row, one)).collect(),
    }
}

/// What one worker sees. One that has not reported since it became responsible has no view.
fn check_worker(node: &Node, state: &State, row: &Check, worker: &Candidate) -> CheckWorker {
    let view = state.view_of(&worker.id, row);
    let is_own = worker.id == WorkerId::Server(node.id());
    let last = is_own.then(|| node.probe_counts().last_run(row.number)).flatten();
    let now = node.clock().now();
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    CheckWorker {
        worker: worker.name.to_string(),
        kind: kind_of(&worker.id).to_owned(),
        status: view.map(|(status, _)| status.as_str().to_owned()),
        output: view.map(|(_, output)| output.to_owned()),
        last_run_ms_ago: last.map(|last| ms(now.since(last.began))),
        duration_ms: last.map(|last| ms(last.took)),
        next_run_in_ms: last.map(|last| ms(last.next.since(now))),
    }
}
