//! `/v1/catalog/`: nodes and services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_client::types::catalog::{
    self, CatalogService, CheckRegistration, DefinitionBody, Deregistration, NodeService,
    NodeServiceList, NodeServices, Registration, ServiceDefinition,
};
use quorate_storage::command::{CatalogRegistration, Command};
use quorate_storage::record::{self, CheckStatus};
use quorate_storage::{State, Topic};

use super::held::refuse_held;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::definition::check::fault_of_warning;
use crate::http::definition::check_meta;
use crate::http::definition::check_type::{self, OnHost};
use crate::http::definition::service::{WEIGHT_MAX, is_unspecified, service_addresses};
use crate::http::definition::{mesh, settings};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::filter::Filter;
use crate::http::near;
use crate::http::params::Params;
use crate::http::path;
use crate::http::reply::CacheUse;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;

/// Length of a UUID's text.
const UUID_CHARACTERS: usize = 36;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/catalog/register").put(Rule::Commands, |call| Box::pin(register(call))),
        Endpoint::new("/v1/catalog/deregister")
            .put(Rule::Commands, |call| Box::pin(deregister(call))),
        Endpoint::new("/v1/catalog/datacenters")
            .get(Rule::Open, |call| Box::pin(datacenters(call))),
        Endpoint::new("/v1/catalog/nodes").get(Rule::Rows, |call| Box::pin(nodes(call))),
        Endpoint::new("/v1/catalog/services").get(Rule::Rows, |call| Box::pin(services(call))),
        Endpoint::new("/v1/catalog/service/").get(Rule::Rows, |call| Box::pin(service(call))),
        Endpoint::new("/v1/catalog/node/").get(Rule::Rows, |call| Box::pin(node(call))),
        Endpoint::new("/v1/catalog/node-services/")
            .get(Rule::Rows, |call| Box::pin(node_services(call))),
    ]
}

// ---- reads -----------------------------------------------------------------------------------

/// Known without a leader, so that with `?cached` only the headers differ.
async fn datacenters(call: Call) -> Answer {
    let contact = call.node.contact();
    let cache = call.params.has("cached").then_some(match contact.known_leader {
        true => CacheUse::Miss,
        false => CacheUse::Hit,
    });
    let reply = call.json(&[call.node.info().datacenter])?;
    std::future::ready(Ok(reply.with_cache(cache, contact))).await
}

async fn nodes(call: Call) -> Answer {
    let options = call.read_options()?;
    let nodes = |state: &State, sight: &Sight| -> Vec<_> {
        let datacenter = call.node.info().datacenter;
        let meta = call.params.node_meta();
        let nodes = state.nodes();
        let nodes = nodes.filter(|node| has_meta(node, &meta) && sight.keeps_node(&node.name));
        let nodes = near::sorted(&call, state, nodes, |node| &node.name);
        nodes.into_iter().map(|node| wire::node(node, &datacenter)).collect()
    };
    blocking::list(&call, &options, |_| Topic::Nodes, nodes).await
}

async fn services(call: Call) -> Answer {
    let options = call.cached_read_options()?;
    let filter = call.filter::<CatalogService>()?;
    blocking::read(
        &call,
        &options,
        |_| Topic::Services,
        |state| {
            let sight = call.rights(state)?;
            let meta = call.params.node_meta();
            let mut tags = match meta.is_empty() && filter.keeps_all() {
                true => state.service_tags(),
                false => {
                    let datacenter = call.node.info().datacenter;
                    tags_of_chosen(state, &meta, &filter, &datacenter)
                }
            };
            // By their names only: nodes do not matter here (Consul's rule).
            tags.retain(|name, _| sight.keeps_service(name));
            call.json(&tags)
        },
    )
    .await
}

/// Service names with their tags, of the instances on nodes with this metadata that the filter
/// leaves.
fn tags_of_chosen<'a>(
    state: &'a State,
    meta: &[(&str, &str)],
    filter: &Filter<CatalogService>,
    datacenter: &str,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in state.nodes().filter(|node| has_meta(node, meta)) {
        for service in state.services_on(&node.name) {
            if filter.keeps_made(|| wire::catalog_service(node, service, datacenter)) {
                let tags = services.entry(&service.definition.name).or_default();
                tags.extend(service.definition.tags.iter().map(String::as_str));
            }
        }
    }
    services
}

async fn service(call: Call) -> Answer {
    let options = call.cached_read_options()?;
    let name = call.required("Missing service name")?;
    let topic = Topic::service(name);
    let entries = |state: &State, sight: &Sight| -> Vec<_> {
        let datacenter = call.node.info().datacenter;
        let instances = chosen_instances(state, name, &call.params, sight);
        near::sorted(&call, state, instances, |(node, _)| &node.name)
            .into_iter()
            .map(|(node, service)| wire::catalog_service(node, service, &datacenter))
            .collect()
    };
    blocking::list(&call, &options, |_| topic, entries).await
}

async fn node(call: Call) -> Answer {
    read_node(&call, |found| {
        let Some((node, services)) = found else { return call.json(&()) };
        let services = services.into_iter().map(|service| (service.id.clone(), service)).collect();
        call.json(&NodeServices { node, services })
    })
    .await
}

async fn node_services(call: Call) -> Answer {
    read_node(&call, |found| {
        let Some((node, services)) = found else { return call.json(&NodeServiceList::default()) };
        call.json(&NodeServiceList { node: Some(node), services: Some(services) })
    })
    .await
}

/// Answers a read of the node in the path and of the instances on it that the filter leaves; `render`
/// gets `None` if there is no such node.
async fn read_node(
    call: &Call,
    render: impl Fn(Option<(catalog::Node, Vec<NodeService>)>) -> Answer,
) -> Answer {
    let options = call.read_options()?;
    let name = call.required("Missing node name")?;
    let filter: Filter<NodeService> = call.filter()?;
    let topic = |state: &State| node_topic(state, name);
    blocking::read(call, &options, topic, |state| {
        let sight = call.rights(state)?;
        let node = state.node(name).filter(|node| sight.keeps_node(&node.name));
        render(node.map(|node| {
            let services = state.services_on(&node.name);
            let services = services.filter(|row| sight.keeps_service(&row.definition.name));
            let services = services.map(|service| wire::node_service(service));
            let services = services.filter(|service| filter.keeps(service)).collect();
            (wire::node(node, &call.node.info().datacenter), services)
        }))
    })
    .await
}

/// What a query on a node watches: the node that the name or id means now, else the one that would
/// have this name.
fn node_topic(state: &State, name: &str) -> Topic {
    let name = state.node(name).map_or(name, |node| &node.name);
    Topic::node(name)
}

/// The instances of a service that the caller may see and `tag` and `node-meta` leave, with their nodes.
pub(super) fn chosen_instances<'a>(
    state: &'a State,
    name: &str,
    params: &Params,
    sight: &Sight,
) -> impl Iterator<Item = (&'a Arc<record::Node>, &'a Arc<record::Service>)> {
    let tags: Vec<String> = params.all("tag").map(str::to_lowercase).collect();
    let meta: Vec<_> = params
        .node_meta()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    // Collected, because the state's iterator borrows the name.
    let instances = state.instances(name);
    let instances = instances.filter(|row| sight.keeps_instance(&row.node, &row.definition.name));
    let instances: Vec<_> = instances.collect();
    instances.into_iter().filter_map(move |service| {
        // A service without its node is a broken invariant of the state; do not show it.
        let node = state.node(&service.node)?;
        let meta: Vec<_> = meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        (has_tags(service, &tags) && has_meta(node, &meta)).then_some((node, service))
    })
}

/// Whether an instance has every one of these tags (given in lower case).
fn has_tags(service: &record::Service, tags: &[String]) -> bool {
    tags.iter().all(|tag| service.definition.tags.iter().any(|own| own.to_lowercase() == *tag))
}

/// Whether a node has all of this metadata.
pub(super) fn has_meta(node: &record::Node, meta: &[(&str, &str)]) -> bool {
    meta.iter().all(|(key, value)| {
        node.meta.as_ref().and_then(|meta| meta.get(*key)).is_some_and(|own| own == value)
    })
}

// ---- writes ----------------------------------------------------------------------------------

async fn register(mut call: Call) -> Answer {
    let body: Registration = call.decode().await?;
    let command = registration(body, &call.node.info().datacenter)?;
    call.propose(Command::CatalogRegister(Box::new(command))).await?;
    call.json(&true)
}

async fn deregister(mut call: Call) -> Answer {
    let body: Deregistration = call.decode().await?;
    check_datacenter(&body.datacenter, &call.node.info().datacenter)?;
    if body.node.is_empty() {
        return Err(ApiError::internal("Must provide node"));
    }
    if !body.check_id.is_empty() && body.service_id.is_empty() {
        refuse_held(&call.node.published().state, &body.node, &body.check_id)?;
    }
    call.propose(Command::CatalogDeregister {
        node: body.node.into(),
        service_id: body.service_id.into(),
        check_id: body.check_id.into(),
    })
    .await?;
    call.json(&true)
}

/// Judges a registration by what it says alone; what it meets is the state's business.
fn registration(body: Registration, datacenter: &str) -> Result<CatalogRegistration, ApiError> {
    if body.node.is_empty() {
        return Err(ApiError::internal("Must provide node"));
    }
    if body.address.is_empty() && !body.skip_node_update {
        return Err(ApiError::internal("Must provide address if SkipNodeUpdate is not set"));
    }
    check_node_id(&body.id)?;
    path::check_addressable("Node", &body.node).map_err(ApiError::internal)?;
    check_datacenter(&body.datacenter, datacenter)?;
    let service =
        body.service.map(|service| service_definition(service, &body.node)).transpose()?;
    let checks = body.check.into_iter().chain(body.checks);
    let checks = checks.map(|check| check_registration(with_type(check), &body.node));
    Ok(CatalogRegistration {
        checks: checks.collect::<Result<_, _>>()?,
        node: body.node.into(),
        node_id: body.id.to_lowercase(),
        address: body.address,
        tagged_addresses: settings::node_addresses(body.tagged_addresses, body.locality)?,
        node_meta: body.node_meta,
        skip_node_update: body.skip_node_update,
        service,
    })
}

fn check_datacenter(asked: &str, own: &str) -> Result<(), ApiError> {
    match asked.is_empty() || asked == own {
        true => Ok(()),
        false => Err(ApiError::internal("No path to datacenter")),
    }
}

/// An id in the form in which ids are kept; `None`: it is no UUID in its usual form.
pub(super) fn uuid(text: &str) -> Option<Arc<str>> {
    let id = uuid::Uuid::try_parse(text).ok().filter(|_| text.len() == UUID_CHARACTERS)?;
    Some(id.to_string().into())
}

pub(super) fn check_node_id(id: &str) -> Result<(), ApiError> {
    let fault = match id {
        "" => return Ok(()),
        id if id.len() != UUID_CHARACTERS => "uuid string is wrong length",
        id if uuid::Uuid::try_parse(id).is_err() => "uuid is improperly formatted",
        _ => return Ok(()),
    };
    Err(ApiError::internal(format!("Bad node ID: {fault}")))
}

pub(super) fn service_definition(
    given: ServiceDefinition,
    node: &str,
) -> Result<record::ServiceDefinition, ApiError> {
    if given.service.is_empty() {
        return Err(ApiError::internal("Must provide service name with ID"));
    }
    if is_unspecified(&given.address) {
        return Err(ApiError::internal("Invalid service address"));
    }
    let proxy = mesh::validate(&given.kind, given.connect.as_ref(), given.proxy)?;
    let kind = settings::encode(proxy, given.socket_path, given.locality)?;
    let id = if given.id.is_empty() { given.service.clone() } else { given.id };
    path::check_addressable("Service name", &given.service).map_err(ApiError::internal)?;
    path::check_addressable("Service ID", &id).map_err(ApiError::internal)?;
    if let Some(meta) = &given.meta {
        check_meta(meta).map_err(|fault| {
            ApiError::internal(format!(
                "failed inserting service: Invalid Service Meta for node {node} and serviceID {id}: {fault}"
            ))
        })?;
    }
    let weights = given.weights.filter(|weights| {
        (1..=WEIGHT_MAX).contains(&weights.passing) && (0..=WEIGHT_MAX).contains(&weights.warning)
    });
    Ok(record::ServiceDefinition {
        id: id.into(),
        name: given.service.into(),
        tags: given.tags.into(),
        address: given.address,
        tagged_addresses: service_addresses(given.tagged_addresses),
        meta: given.meta,
        port: given.port,
        weights: weights.map_or_else(record::Weights::default, |weights| record::Weights {
            passing: weights.passing,
            warning: weights.warning,
        }),
        enable_tag_override: given.enable_tag_override,
        kind,
    })
}

/// A check with the type that its definition implies, if it names none. Transactions leave it empty, as
/// in Consul.
fn with_type(mut check: CheckRegistration) -> CheckRegistration {
    if check.kind.is_empty() {
        let given = &check.definition;
        let host = OnHost {
            script_args: &given.script_args,
            container: &given.docker_container_id,
            os_service: &given.os_service,
        };
        check.kind = check_type::of(&definition(given.clone()), host).to_owned();
    }
    check
}

pub(super) fn check_registration(
    given: CheckRegistration,
    node: &str,
) -> Result<record::CheckRegistration, ApiError> {
    if !given.node.is_empty() && !given.node.eq_ignore_ascii_case(node) {
        return Err(ApiError::internal(format!(
            "check node {:?} does not match node {node:?}",
            given.node
        )));
    }
    let id = if given.check_id.is_empty() { given.name.clone() } else { given.check_id };
    if id.is_empty() {
        return Err(ApiError::internal(format!(
            "failed inserting check: Must provide CheckID or Name on node {node:?}"
        )));
    }
    path::check_addressable("CheckID", &id).map_err(ApiError::internal)?;
    let how = &given.definition;
    if let Some(fault) = fault_of_warning(how.warn_after, how.ttl) {
        return Err(ApiError::internal(format!("Invalid check: {fault}")));
    }
    Ok(record::CheckRegistration {
        id: id.into(),
        kind: record::without_file_mark(&given.kind).to_owned(),
        name: given.name,
        status: match given.status.as_str() {
            "" => CheckStatus::Critical,
            text => CheckStatus::from_text(text),
        },
        notes: given.notes,
        output: given.output,
        service_id: given.service_id.into(),
        definition: definition(given.definition),
    })
}

fn definition(given: DefinitionBody) -> record::CheckDefinition {
    record::CheckDefinition {
        interval: wire::millis(given.interval),
        timeout: wire::millis(given.timeout),
        deregister_critical_service_after: wire::millis(given.deregister_critical_service_after),
        ttl: wire::millis(given.ttl),
        http: given.http,
        method: given.method,
        header: given.header,
        body: given.body,
        tls_server_name: given.tls_server_name,
        tls_skip_verify: given.tls_skip_verify,
        tcp: given.tcp,
        grpc: given.grpc,
        grpc_use_tls: given.grpc_use_tls,
        udp: given.udp,
        h2ping: given.h2ping,
        alias_node: given.alias_node,
        alias_service: given.alias_service,
        later: record::LaterMembers {
            warn_after: wire::millis(given.warn_after),
            ..record::LaterMembers::default()
        },
        ..record::CheckDefinition::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::http::decode;

    use super::*;

    fn register(text: &str) -> Result<CatalogRegistration, String> {
        let body = decode::body(text.as_bytes()).map_err(|error| error.to_string())?;
        registration(body, "dc1")
            .map_err(|error| format!("{}: {}", error.status.as_u16(), error.text))
    }

    #[test]
    fn what_must_be_given_is_asked_for_in_the_words_of_consul() {
        for (text, words) in [
            ("{}", "500: Must provide node"),
            (r#"{"Node":"n"}"#, "500: Must provide address if SkipNodeUpdate is not set"),
            (
                r#"{"Node":"n","Address":"a","ID":"x"}"#,
                "500: Bad node ID: uuid string is wrong length",
            ),
            (r#"{"Node":"n","Address":"a","Datacenter":"x"}"#, "500: No path to datacenter"),
            (
                r#"{"Node":"n","Address":"a","Service":{"ID":"x"}}"#,
                "500: Must provide service name with ID",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{"Node":"a","Name":"c"}}"#,
                "500: check node \"a\" does not match node \"n\"",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{"Name":"c","Definition":{"TTL":"9s","WarnAfter":"9s"}}}"#,
                "500: Invalid check: WarnAfter must be shorter than the TTL",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"m","Address":"::"}}"#,
                "500: Invalid service address",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{"Status":"passing"}}"#,
                "500: failed inserting check: Must provide CheckID or Name on node \"n\"",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"m","connect":{"sidecarservice":{}}}}"#,
                "501: Quorate has no service mesh: register the service without Kind and Connect",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"m","Kind":"connect-proxy"}}"#,
                "501: Quorate has no service mesh: register the service without Kind and Connect",
            ),
            (
                r#"{"Node":"n\n","Address":"a"}"#,
                "500: Node \"n\\n\" must not have control characters",
            ),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"m","Meta":{"a b":"x"}}}"#,
                "500: failed inserting service: Invalid Service Meta for node n and serviceID m: \
                 Couldn't load metadata pair ('a b', 'x'): Key contains invalid characters",
            ),
        ] {
            assert_eq!(register(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn what_is_not_given_takes_its_default() {
        let read = register(
            r#"{"Node":"n","SkipNodeUpdate":true,"Service":{"Service":"web","Weights":{"Passing":0}},
                "Check":{"Name":"c"},"Checks":[{"Name":"d","CheckID":"e","Status":"odd",
                "Definition":{"HTTP":"http://x/","Interval":"10s"}}]}"#,
        )
        .unwrap();
        let service = read.service.unwrap();
        assert_eq!((&*service.id, service.weights), ("web", record::Weights::default()));
        let [first, second] = &read.checks[..] else { panic!("two checks") };
        assert_eq!((&*first.id, &first.status), ("c", &CheckStatus::Critical));
        assert_eq!((&*second.id, second.kind.as_str()), ("e", "http"));
        assert_eq!(second.status, CheckStatus::Other("odd".to_owned()));
    }
}
