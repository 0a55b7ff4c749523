//! What can be selected in the rows of lists.
//!
//! The names are those of the JSON, and the fields those that Consul lets one select: indexes and
//! definitions of checks are not among them. A type says here both that it has a field and what is
//! in it, so the two cannot disagree; to fit an expression to a type, its default value is asked.

use std::collections::BTreeMap;

use quorate_client::types::agent::{AgentService, Member};
use quorate_client::types::catalog::{CatalogService, Node, NodeService};
use quorate_client::types::health::{HealthCheck, ServiceEntry};
use quorate_client::types::live::Instance;
use quorate_client::types::{ServiceAddress, TextMap, Weights};

/// The content of a field.
pub(in crate::http) enum Field<'a> {
    Text(&'a str),
    Integer(i64),
    Boolean(bool),
    Texts(&'a [String]),
    TextMap(&'a TextMap),
    Addresses(&'a BTreeMap<String, ServiceAddress>),
    Record(&'a dyn Record),
    Checks(&'a [HealthCheck]),
}

/// Something with named fields.
pub(in crate::http) trait Record {
    /// The field of this name, or `None` if the type has none. Its variant depends on the type
    /// alone and never on the value.
    fn field(&self, name: &str) -> Option<Field<'_>>;
}

/// What is in a map that was not given.
static NO_TEXTS: TextMap = TextMap::new();

fn or_none(map: Option<&TextMap>) -> Field<'_> {
    Field::TextMap(map.unwrap_or(&NO_TEXTS))
}

/// Fields that Consul has and Quorate leaves empty.
const NOTHING: Field<'static> = Field::Text("");

impl Record for Node {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "ID" => Field::Text(&self.id),
            "Node" => Field::Text(&self.node),
            "Address" => Field::Text(&self.address),
            "Datacenter" => Field::Text(&self.datacenter),
            "TaggedAddresses" => or_none(self.tagged_addresses.as_ref()),
            "Meta" => or_none(self.meta.as_ref()),
            "PeerName" => NOTHING,
            _ => return None,
        })
    }
}

impl Record for NodeService {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Kind" => Field::Text(&self.kind),
            "ID" => Field::Text(&self.id),
            "Service" => Field::Text(&self.service),
            "Tags" => Field::Texts(&self.tags),
            "Address" => Field::Text(&self.address),
            "TaggedAddresses" => Field::Addresses(&self.tagged_addresses),
            "Meta" => or_none(self.meta.as_ref()),
            "Port" => Field::Integer(self.port),
            "Weights" => Field::Record(&self.weights),
            "EnableTagOverride" => Field::Boolean(self.enable_tag_override),
            "SocketPath" => Field::Text(&self.socket_path),
            "PeerName" => NOTHING,
            "Proxy" => Field::Record(&Proxy),
            "Connect" => Field::Record(&Connect),
            _ => return None,
        })
    }
}

impl Record for AgentService {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Kind" => Field::Text(&self.kind),
            "ID" => Field::Text(&self.id),
            "Service" => Field::Text(&self.service),
            "Tags" => Field::Texts(&self.tags),
            "Address" => Field::Text(&self.address),
            "TaggedAddresses" => Field::Addresses(&self.tagged_addresses),
            "Meta" => Field::TextMap(&self.meta),
            "Port" => Field::Integer(self.port),
            "Weights" => Field::Record(&self.weights),
            "EnableTagOverride" => Field::Boolean(self.enable_tag_override),
            "SocketPath" => Field::Text(&self.socket_path),
            "PeerName" => NOTHING,
            "Proxy" => Field::Record(&Proxy),
            "Connect" => Field::Record(&Connect),
            _ => return None,
        })
    }
}

impl Record for CatalogService {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "ID" => Field::Text(&self.id),
            "Node" => Field::Text(&self.node),
            "Address" => Field::Text(&self.address),
            "Datacenter" => Field::Text(&self.datacenter),
            "TaggedAddresses" => or_none(self.tagged_addresses.as_ref()),
            "NodeMeta" => or_none(self.node_meta.as_ref()),
            "ServiceKind" => Field::Text(&self.service_kind),
            "ServiceID" => Field::Text(&self.service_id),
            "ServiceName" => Field::Text(&self.service_name),
            "ServiceTags" => Field::Texts(&self.service_tags),
            "ServiceAddress" => Field::Text(&self.service_address),
            "ServiceTaggedAddresses" => Field::Addresses(&self.service_tagged_addresses),
            "ServiceMeta" => Field::TextMap(&self.service_meta),
            "ServicePort" => Field::Integer(self.service_port),
            "ServiceWeights" => Field::Record(&self.service_weights),
            "ServiceEnableTagOverride" => Field::Boolean(self.service_enable_tag_override),
            "ServiceSocketPath" => Field::Text(&self.service_socket_path),
            "PeerName" => NOTHING,
            "ServiceProxy" => Field::Record(&Proxy),
            "ServiceConnect" => Field::Record(&Connect),
            _ => return None,
        })
    }
}

impl Record for HealthCheck {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Node" => Field::Text(&self.node),
            "CheckID" => Field::Text(&self.check_id),
            "Name" => Field::Text(&self.name),
            "Status" => Field::Text(&self.status),
            "Notes" => Field::Text(&self.notes),
            "Output" => Field::Text(&self.output),
            "ServiceID" => Field::Text(&self.service_id),
            "ServiceName" => Field::Text(&self.service_name),
            "ServiceTags" => Field::Texts(&self.service_tags),
            "Type" => Field::Text(&self.kind),
            "Interval" | "Timeout" | "PeerName" => NOTHING,
            "ExposedPort" => Field::Integer(0),
            _ => return None,
        })
    }
}

impl Record for ServiceEntry {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Node" => Field::Record(&self.node),
            "Service" => Field::Record(&self.service),
            "Checks" => Field::Checks(&self.checks),
            _ => return None,
        })
    }
}

/// Ages, counters and the like are not selected: their changes wake nobody.
impl Record for Instance {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Service" => Field::Text(&self.service),
            "ID" => Field::Text(&self.id),
            "Node" => Field::Text(&self.node),
            "Address" => Field::Text(&self.address),
            "Port" => Field::Integer(self.port),
            "Status" => Field::Text(&self.status),
            "Active" => Field::Boolean(self.active),
            "Warning" => Field::Text(&self.warning),
            "Error" => Field::Text(&self.error),
            "Since" => Field::Text(&self.since),
            "Process" => Field::Text(&self.process),
            "Version" => Field::Text(&self.version),
            "WarnAfter" => Field::Text(&self.warn_after),
            "CriticalAfter" => Field::Text(&self.critical_after),
            "Restarts" => Field::Integer(self.restarts.into()),
            "Tags" => Field::Texts(&self.tags),
            "Meta" => Field::TextMap(&self.meta),
            _ => return None,
        })
    }
}

impl Record for Member {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Name" => Field::Text(&self.name),
            "Addr" => Field::Text(&self.addr),
            "Port" => Field::Integer(self.port.into()),
            "Tags" => Field::TextMap(&self.tags),
            "Status" => Field::Integer(self.status.into()),
            "ProtocolMin" => Field::Integer(self.protocol_min.into()),
            "ProtocolMax" => Field::Integer(self.protocol_max.into()),
            "ProtocolCur" => Field::Integer(self.protocol_cur.into()),
            "DelegateMin" => Field::Integer(self.delegate_min.into()),
            "DelegateMax" => Field::Integer(self.delegate_max.into()),
            "DelegateCur" => Field::Integer(self.delegate_cur.into()),
            _ => return None,
        })
    }
}

impl Record for ServiceAddress {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Address" => Field::Text(&self.address),
            "Port" => Field::Integer(self.port),
            _ => return None,
        })
    }
}

impl Record for Weights {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "Passing" => Field::Integer(self.passing),
            "Warning" => Field::Integer(self.warning),
            _ => return None,
        })
    }
}

/// The mesh proxy of a service that is none. Expressions that pick mesh services find none, rather
/// than being refused.
struct Proxy;

impl Record for Proxy {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        Some(match name {
            "DestinationServiceName" | "DestinationServiceID" | "LocalServiceAddress" | "Mode" => {
                NOTHING
            }
            "LocalServicePort" => Field::Integer(0),
            "MeshGateway" => Field::Record(&MeshGateway),
            _ => return None,
        })
    }
}

struct MeshGateway;

impl Record for MeshGateway {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        (name == "Mode").then_some(NOTHING)
    }
}

/// The mesh settings of a service without any.
struct Connect;

impl Record for Connect {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        (name == "Native").then_some(Field::Boolean(false))
    }
}
