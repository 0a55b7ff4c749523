//! What Quorate does not have, answered so that clients that merely look for it go on.
//!
//! The service mesh and its configuration: 501 with a sentence, except where a list is asked for that
//! is truly empty.
//! Namespaces and partitions are unknown paths, as in Consul's open edition.

use axum::http::StatusCode;
use quorate_storage::Topic;

use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint, Handler};
use crate::http::error::ApiError;
use crate::http::params::ReadOptions;
use crate::http::rights::Rule;

/// What begins with these belongs to the service mesh.
const MESH: [&str; 12] = [
    "/v1/agent/connect/",
    "/v1/connect/",
    "/v1/config",
    "/v1/config/",
    "/v1/discovery-chain/",
    "/v1/exported-services",
    "/v1/imported-services",
    "/v1/internal/service-virtual-ip",
    "/v1/internal/ui/service-topology/",
    "/v1/peering",
    "/v1/peering/",
    "/v1/peerings",
];
/// Lists of what only a service mesh has, by the name of a service.
const EMPTY_LISTS: [&str; 3] =
    ["/v1/catalog/connect/", "/v1/catalog/gateway-services/", "/v1/health/ingress/"];
/// One of those that Consul's agents cache.
const CACHED_EMPTY_LIST: &str = "/v1/health/connect/";

pub(super) fn endpoints() -> Vec<Endpoint> {
    let mesh = MESH.into_iter().map(|path| refusing(path, |_| Box::pin(no_mesh())));
    let lists = EMPTY_LISTS
        .into_iter()
        .map(|path| Endpoint::new(path).get(Rule::Any, |call| Box::pin(empty_list(call))));
    let cached =
        Endpoint::new(CACHED_EMPTY_LIST).get(Rule::Any, |call| Box::pin(cached_empty_list(call)));
    mesh.chain(lists).chain([cached]).collect()
}

/// An endpoint that says the same whatever is asked.
fn refusing(path: &'static str, handler: Handler) -> Endpoint {
    let rule = Rule::Open;
    Endpoint::new(path)
        .get(rule, handler)
        .put(rule, handler)
        .post(rule, handler)
        .delete(rule, handler)
}

fn no_mesh() -> std::future::Ready<Answer> {
    std::future::ready(Err(ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "Quorate has no service mesh: there are no certificates, intentions, config entries, discovery chains or peerings",
    )))
}

/// `[]` with the headers of a read, blocking included: watchers of these must not spin.
async fn empty_list(call: Call) -> Answer {
    let options = call.read_options()?;
    list_nothing(&call, &options).await
}

/// The same where `?cached` counts.
async fn cached_empty_list(call: Call) -> Answer {
    let options = call.cached_read_options()?;
    list_nothing(&call, &options).await
}

async fn list_nothing(call: &Call, options: &ReadOptions) -> Answer {
    let topic = Topic::service(call.required("Missing service name")?);
    blocking::read(call, options, |_| topic, |_| call.json::<[(); 0]>(&[])).await
}
