//! Records of the state as the API shows them.
//!
//! Every decision about `null`, `[]`, `{}` and members that are left out is made here or in the
//! client crate's types, and nowhere else.

use std::collections::BTreeMap;

use quorate_client::types::agent::AgentService;
use quorate_client::types::catalog::{CatalogService, Node, NodeService};
use quorate_client::types::health::{CheckDefinition, HealthCheck, ServiceEntry};
use quorate_client::types::kv::KvPair;
use quorate_client::types::session::{ServiceCheck, Session};
use quorate_client::types::{Empty, Locality, Proxy, ServiceAddress, Weights};
use quorate_storage::record::{self, NodeKind, SessionBehavior};
use quorate_storage::{Millis, State};
use serde::Deserialize;

/// A node.
pub(super) fn node(node: &record::Node, datacenter: &str) -> Node {
    Node {
        id: node.id.clone(),
        node: node.name.to_string(),
        address: node.address.clone(),
        datacenter: datacenter.to_owned(),
        tagged_addresses: node.addresses(),
        meta: node.meta.clone(),
        // The state keeps what was validated before, so it can be read.
        locality: node.locality().and_then(|text| serde_json::from_str(text).ok()),
        create_index: node.indexes.create.0,
        modify_index: node.indexes.modify.0,
    }
}

/// An instance below its node.
pub(super) fn node_service(service: &record::Service) -> NodeService {
    let definition = &service.definition;
    let settings = Settings::of(definition);
    NodeService {
        kind: definition.mesh_kind().to_owned(),
        id: definition.id.to_string(),
        service: definition.name.to_string(),
        tags: definition.tags.to_vec(),
        address: definition.address.clone(),
        tagged_addresses: addresses(definition),
        // Consul 1.9 shows null here; typed clients insist on an object.
        meta: Some(definition.meta.clone().unwrap_or_default()),
        port: definition.port,
        socket_path: settings.socket_path,
        weights: weights(definition.weights),
        enable_tag_override: definition.enable_tag_override,
        locality: settings.locality,
        proxy: settings.proxy,
        connect: Empty {},
        create_index: service.indexes.create.0,
        modify_index: service.indexes.modify.0,
    }
}

/// An instance with its node, flattened.
pub(super) fn catalog_service(
    node: &record::Node,
    service: &record::Service,
    datacenter: &str,
) -> CatalogService {
    let definition = &service.definition;
    let settings = Settings::of(definition);
    CatalogService {
        id: node.id.clone(),
        // The name as it was when the instance was registered, as in Consul.
        node: service.node.to_string(),
        address: node.address.clone(),
        datacenter: datacenter.to_owned(),
        tagged_addresses: node.addresses(),
        node_meta: node.meta.clone(),
        service_kind: definition.mesh_kind().to_owned(),
        service_id: definition.id.to_string(),
        service_name: definition.name.to_string(),
        service_tags: definition.tags.to_vec(),
        service_address: definition.address.clone(),
        service_tagged_addresses: addresses(definition),
        service_weights: weights(definition.weights),
        service_meta: definition.meta.clone().unwrap_or_default(),
        service_port: definition.port,
        service_socket_path: settings.socket_path,
        service_enable_tag_override: definition.enable_tag_override,
        service_locality: settings.locality,
        service_proxy: settings.proxy,
        service_connect: Empty {},
        create_index: service.indexes.create.0,
        modify_index: service.indexes.modify.0,
    }
}

/// An instance as its agent shows it, without the hash.
pub(super) fn agent_service(service: &record::Service, datacenter: &str) -> AgentService {
    let definition = &service.definition;
    let settings = Settings::of(definition);
    AgentService {
        kind: definition.mesh_kind().to_owned(),
        id: definition.id.to_string(),
        service: definition.name.to_string(),
        tags: definition.tags.to_vec(),
        meta: definition.meta.clone().unwrap_or_default(),
        port: definition.port,
        socket_path: settings.socket_path,
        address: definition.address.clone(),
        tagged_addresses: addresses(definition),
        weights: weights(definition.weights),
        enable_tag_override: definition.enable_tag_override,
        locality: settings.locality,
        content_hash: String::new(),
        datacenter: datacenter.to_owned(),
    }
}

/// A session.
pub(super) fn session(session: &record::Session) -> Session {
    let checks = |checks: &Vec<(String, String)>| {
        let shown = |(id, namespace): &(String, String)| ServiceCheck {
            id: id.clone(),
            namespace: namespace.clone(),
        };
        checks.iter().map(shown).collect()
    };
    Session {
        id: session.id.to_string(),
        name: session.name.clone(),
        node: session.node.to_string(),
        lock_delay: session.lock_delay_nanos,
        behavior: match session.behavior {
            SessionBehavior::Release => "release".to_owned(),
            SessionBehavior::Delete => "delete".to_owned(),
        },
        ttl: session.ttl_text.clone(),
        node_checks: session.node_checks.clone(),
        service_checks: session.service_checks.as_ref().map(checks),
        checks: session.checks.clone(),
        create_index: session.indexes.create.0,
        modify_index: session.indexes.modify.0,
    }
}

/// An instance with its node and the checks that decide its health.
pub(super) fn service_entry(
    state: &State,
    host: &record::Node,
    service: &record::Service,
    datacenter: &str,
) -> ServiceEntry {
    ServiceEntry {
        node: node(host, datacenter),
        service: node_service(service),
        checks: state.checks_of(service).map(|row| check(state, row)).collect(),
    }
}

/// A check in the catalogue. How it is run is shown for catalogue registrations only: Consul's
/// agents keep that to themselves.
pub(super) fn check(state: &State, check: &record::Check) -> HealthCheck {
    let by_agent = state.node(&check.node).is_some_and(|node| match node.kind {
        NodeKind::Agent | NodeKind::ServerAgent | NodeKind::Server => true,
        NodeKind::Registered => false,
    });
    let definition = match by_agent {
        true => CheckDefinition::default(),
        false => definition(&check.registration.definition),
    };
    HealthCheck {
        create_index: check.indexes.create.0,
        modify_index: check.indexes.modify.0,
        definition,
        ..agent_check(check)
    }
}

/// A check as its agent shows it: without indexes and definition.
pub(super) fn agent_check(check: &record::Check) -> HealthCheck {
    let registration = &check.registration;
    HealthCheck {
        node: check.node.to_string(),
        check_id: registration.id.to_string(),
        name: registration.name.clone(),
        status: registration.status.as_str().to_owned(),
        notes: registration.notes.clone(),
        output: registration.output.clone(),
        service_id: registration.service_id.to_string(),
        service_name: check.service_name.to_string(),
        service_tags: check.service_tags.to_vec(),
        kind: registration.check_type().to_owned(),
        definition: CheckDefinition::default(),
        create_index: 0,
        modify_index: 0,
    }
}

/// A key.
pub(super) fn kv_pair(entry: &record::KvEntry) -> KvPair {
    KvPair {
        lock_index: entry.lock_index,
        key: entry.key.to_string(),
        flags: entry.flags,
        value: entry.value.to_vec(),
        session: entry.session.as_deref().map(str::to_owned),
        create_index: entry.indexes.create.0,
        modify_index: entry.indexes.modify.0,
    }
}

fn addresses(definition: &record::ServiceDefinition) -> BTreeMap<String, ServiceAddress> {
    let shown = |address: &record::ServiceAddress| ServiceAddress {
        address: address.address.clone(),
        port: address.port,
    };
    definition.tagged_addresses.iter().map(|(name, given)| (name.clone(), shown(given))).collect()
}

const fn weights(weights: record::Weights) -> Weights {
    Weights { passing: weights.passing, warning: weights.warning }
}

/// What an instance has in its row without a member for each, as it is shown.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Settings {
    pub(super) socket_path: String,
    pub(super) locality: Option<Locality>,
    /// The rest.
    #[serde(flatten)]
    pub(super) proxy: Proxy,
}

impl Settings {
    /// Those of an instance.
    pub(super) fn of(definition: &record::ServiceDefinition) -> Self {
        let kept = definition.settings();
        // The state keeps what was validated before, so it can be read.
        kept.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

fn definition(given: &record::CheckDefinition) -> CheckDefinition {
    CheckDefinition {
        interval: nanos(given.interval),
        timeout: nanos(given.timeout),
        deregister_critical_service_after: nanos(given.deregister_critical_service_after),
        ttl: nanos(given.ttl),
        warn_after: nanos(given.later.warn_after),
        observers: i64::from(given.later.observers),
        network: given.later.network.to_string(),
        http: given.http.clone(),
        header: given.header.clone().unwrap_or_default(),
        method: given.method.clone(),
        body: given.body.clone(),
        tls_server_name: given.tls_server_name.clone(),
        tls_skip_verify: given.tls_skip_verify,
        tcp: given.tcp.clone(),
        udp: given.udp.clone(),
        grpc: given.grpc.clone(),
        grpc_use_tls: given.grpc_use_tls,
        h2ping: given.h2ping.clone(),
        alias_node: given.alias_node.clone(),
        alias_service: given.alias_service.clone(),
    }
}

/// A time span in nanoseconds.
pub(super) fn nanos(span: Millis) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// A client's duration in nanoseconds as the state keeps it: whole milliseconds, rounded up so that
/// a positive one does not become "none"; a negative one is none.
pub(super) fn millis(nanos: i64) -> Millis {
    Millis::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_storage::Index;
    use quorate_storage::record::{
        CheckRegistration, CheckStatus, Indexes, KvEntry, ServiceDefinition,
    };

    use super::*;

    fn json<T: serde::Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    fn instance() -> record::Service {
        record::Service {
            node: Arc::from("n"),
            definition: ServiceDefinition {
                id: Arc::from("web1"),
                name: Arc::from("web"),
                ..ServiceDefinition::default()
            },
            indexes: Indexes { create: Index(5), modify: Index(6) },
        }
    }

    fn host() -> record::Node {
        record::Node {
            name: Arc::from("n"),
            id: String::new(),
            address: "10.1.1.1".to_owned(),
            tagged_addresses: None,
            meta: None,
            kind: NodeKind::Registered,
            indexes: Indexes { create: Index(2), modify: Index(3) },
        }
    }

    #[test]
    fn a_bare_node_shows_null_where_nothing_was_given() {
        assert_eq!(
            json(&node(&host(), "dc1")),
            r#"{"ID":"","Node":"n","Address":"10.1.1.1","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":2,"ModifyIndex":3}"#
        );
    }

    #[test]
    fn a_node_shows_its_locality_and_its_addresses_apart() {
        let place = r#"{"Region":"eu","Zone":"eu-1"}"#;
        let tagged_addresses = record::with_locality(None, Some(place.to_owned()));
        let placed = record::Node { tagged_addresses, ..host() };
        assert_eq!(
            json(&node(&placed, "dc1")),
            format!(
                r#"{{"ID":"","Node":"n","Address":"10.1.1.1","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"Locality":{place},"CreateIndex":2,"ModifyIndex":3}}"#
            )
        );
    }

    #[test]
    fn a_bare_instance_has_lists_and_objects_and_leaves_addresses_out() {
        assert_eq!(
            json(&node_service(&instance())),
            r#"{"ID":"web1","Service":"web","Tags":[],"Address":"","Meta":{},"Port":0,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":5,"ModifyIndex":6}"#
        );
        assert_eq!(
            json(&agent_service(&instance(), "dc1")),
            r#"{"ID":"web1","Service":"web","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Datacenter":"dc1"}"#
        );
        assert_eq!(
            json(&catalog_service(&host(), &instance(), "dc1")),
            r#"{"ID":"","Node":"n","Address":"10.1.1.1","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":null,"ServiceKind":"","ServiceID":"web1","ServiceName":"web","ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":0,"ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":5,"ModifyIndex":6}"#
        );
    }

    #[test]
    fn an_agents_check_shows_no_indexes_and_no_definition() {
        let check = record::Check {
            node: Arc::from("n"),
            registration: CheckRegistration {
                id: Arc::from("service:web1"),
                name: "check".to_owned(),
                status: CheckStatus::Critical,
                notes: String::new(),
                output: String::new(),
                service_id: Arc::from("web1"),
                kind: "ttl".to_owned(),
                definition: record::CheckDefinition {
                    ttl: Millis::from_secs(10),
                    ..record::CheckDefinition::default()
                },
            },
            service_name: Arc::from("web"),
            service_tags: record::Tags::default(),
            number: 1,
            critical_since: None,
            said: None,
            indexes: Indexes { create: Index(5), modify: Index(6) },
        };
        assert_eq!(
            json(&agent_check(&check)),
            r#"{"Node":"n","CheckID":"service:web1","Name":"check","Status":"critical","Notes":"","Output":"","ServiceID":"web1","ServiceName":"web","ServiceTags":[],"Type":"ttl","Definition":{},"CreateIndex":0,"ModifyIndex":0}"#
        );
    }

    #[test]
    fn a_key_shows_its_holder_only_when_it_is_held() {
        let entry = KvEntry {
            key: Arc::from("a"),
            value: bytes::Bytes::new(),
            flags: 3,
            lock_index: 1,
            session: Some(Arc::from("s")),
            indexes: Indexes { create: Index(5), modify: Index(6) },
        };
        assert_eq!(
            json(&kv_pair(&entry)),
            r#"{"LockIndex":1,"Key":"a","Flags":3,"Value":null,"Session":"s","CreateIndex":5,"ModifyIndex":6}"#
        );
    }

    #[test]
    fn durations_are_rounded_up_to_milliseconds() {
        assert_eq!(millis(1), Millis(1));
        assert_eq!(millis(1_000_000), Millis(1));
        assert_eq!(millis(-5), Millis(0));
        assert_eq!(nanos(Millis(u64::MAX)), i64::MAX);
    }
}
