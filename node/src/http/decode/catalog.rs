//! Registrations in the catalogue.

use quorate_client::types::catalog::{Deregistration, Registration};

use super::mesh::{CONNECT, PROXY};
use super::{
    Body, Kind, LOCALITY, SERVICE_ADDRESSES, Shape, TEXT_MAP, TEXTS, Unknown, WEIGHTS, field,
};

pub(super) static SERVICE: Shape = Shape {
    name: "NodeService",
    fields: &[
        field("Kind", Kind::Text),
        field("ID", Kind::Text),
        field("Service", Kind::Text),
        field("Tags", TEXTS),
        field("Address", Kind::Text),
        field("TaggedAddresses", SERVICE_ADDRESSES),
        field("Meta", TEXT_MAP),
        field("Port", Kind::Int),
        field("SocketPath", Kind::Text),
        field("Weights", Kind::Object(&WEIGHTS)),
        field("EnableTagOverride", Kind::Bool),
        field("Proxy", Kind::Object(&PROXY)),
        field("Connect", Kind::Object(&CONNECT)),
        field("Locality", Kind::Object(&LOCALITY)),
        field("PeerName", Kind::Text),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static DEFINITION: Shape = Shape {
    name: "HealthCheckDefinition",
    fields: &[
        field("Interval", Kind::Duration),
        field("Timeout", Kind::Duration),
        field("DeregisterCriticalServiceAfter", Kind::Duration),
        field("TTL", Kind::Duration),
        field("WarnAfter", Kind::Duration),
        field("HTTP", Kind::Text),
        field("Header", Kind::Map(&TEXTS)),
        field("Method", Kind::Text),
        field("Body", Kind::Text),
        field("DisableRedirects", Kind::Bool),
        field("TLSServerName", Kind::Text),
        field("TLSSkipVerify", Kind::Bool),
        field("TCP", Kind::Text),
        field("TCPUseTLS", Kind::Bool),
        field("UDP", Kind::Text),
        field("GRPC", Kind::Text),
        field("GRPCUseTLS", Kind::Bool),
        field("H2PING", Kind::Text),
        field("H2PingUseTLS", Kind::Bool),
        field("OSService", Kind::Text),
        field("AliasNode", Kind::Text),
        field("AliasService", Kind::Text),
        field("ScriptArgs", TEXTS),
        field("DockerContainerID", Kind::Text),
        field("Shell", Kind::Text),
        field("OutputMaxSize", Kind::Unsigned),
        field("IntervalDuration", Kind::Duration),
        field("TimeoutDuration", Kind::Duration),
        field("DeregisterCriticalServiceAfterDuration", Kind::Duration),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

pub(super) static CHECK: Shape = Shape {
    name: "HealthCheck",
    fields: &[
        field("Node", Kind::Text),
        field("CheckID", Kind::Text),
        field("Name", Kind::Text),
        field("Status", Kind::Text),
        field("Notes", Kind::Text),
        field("Output", Kind::Text),
        field("ServiceID", Kind::Text),
        field("ServiceName", Kind::Text),
        field("ServiceTags", TEXTS),
        field("Type", Kind::Text),
        field("Interval", Kind::Text),
        field("Timeout", Kind::Text),
        field("ExposedPort", Kind::Int),
        field("PeerName", Kind::Text),
        field("Definition", Kind::Object(&DEFINITION)),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static REGISTRATION: Shape = Shape {
    name: "RegisterRequest",
    fields: &[
        field("Datacenter", Kind::Text),
        field("ID", Kind::Text),
        field("Node", Kind::Text),
        field("Address", Kind::Text),
        field("TaggedAddresses", TEXT_MAP),
        field("NodeMeta", TEXT_MAP),
        field("Service", Kind::Object(&SERVICE)),
        field("Check", Kind::Object(&CHECK)),
        field("Checks", Kind::List(&Kind::Object(&CHECK))),
        field("SkipNodeUpdate", Kind::Bool),
        field("Locality", Kind::Object(&LOCALITY)),
        field("PeerName", Kind::Text),
        field("Token", Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static DEREGISTRATION: Shape = Shape {
    name: "DeregisterRequest",
    fields: &[
        field("Datacenter", Kind::Text),
        field("Node", Kind::Text),
        field("Address", Kind::Text),
        field("ServiceID", Kind::Text),
        field("CheckID", Kind::Text),
        field("PeerName", Kind::Text),
        field("Token", Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for Registration {
    const SHAPE: &'static Shape = &REGISTRATION;
}

impl Body for Deregistration {
    const SHAPE: &'static Shape = &DEREGISTRATION;
}
