//! What agents' clients send: services, checks, heartbeats.

use quorate_client::types::agent::{CheckRegistration, CheckUpdate, ServiceRegistration};
use quorate_client::types::live::PresenceRegistration;

use super::mesh::{CONNECT, PROXY};
use super::{
    Body, Field, Kind, LOCALITY, SERVICE_ADDRESSES, Shape, TEXT_MAP, TEXTS, Unknown, WEIGHTS,
    alias, field,
};

static SERVICE: Shape = Shape {
    name: "ServiceDefinition",
    fields: SERVICE_FIELDS,
    shared: &[],
    unknown: Unknown::Refused,
};

static PRESENCE: Shape = Shape {
    name: "PresenceDefinition",
    fields: &[
        field("Owner", Kind::Text),
        field("Attempt", Kind::Unsigned),
        field("DeregisterCriticalServiceAfter", Kind::Duration),
        field("Service", Kind::Text),
        field("Process", Kind::Text),
        field("Pid", Kind::Unsigned),
        field("Started", Kind::Unsigned),
        field("Version", Kind::Text),
        field("Counter", Kind::Unsigned),
        field("WarnAfter", Kind::Text),
        field("CriticalAfter", Kind::Text),
        field("Status", Kind::Text),
        field("Note", Kind::Text),
    ],
    shared: SERVICE_FIELDS,
    unknown: Unknown::Refused,
};

/// What is said of an instance.
static SERVICE_FIELDS: &[Field] = &[
    field("Kind", Kind::Text),
    field("ID", Kind::Text),
    field("Name", Kind::Text),
    field("Tags", TEXTS),
    field("Address", Kind::Text),
    alias("TaggedAddresses", &["tagged_addresses"], SERVICE_ADDRESSES),
    field("Meta", TEXT_MAP),
    field("Port", Kind::Int),
    alias("SocketPath", &["socket_path"], Kind::Text),
    field("Weights", Kind::Object(&WEIGHTS)),
    alias("EnableTagOverride", &["enable_tag_override"], Kind::Bool),
    field("Check", Kind::Object(&SERVICE_CHECK)),
    field("Checks", Kind::List(&Kind::Object(&SERVICE_CHECK))),
    field("Token", Kind::Text),
    field("Connect", Kind::Object(&CONNECT)),
    field("Proxy", Kind::Object(&PROXY)),
    field("Locality", Kind::Object(&LOCALITY)),
];

static SERVICE_CHECK: Shape = Shape {
    name: "CheckType",
    fields: &[alias("CheckID", &["check_id"], Kind::Text)],
    shared: SPECIFICATION,
    unknown: Unknown::Refused,
};

static CHECK: Shape = Shape {
    name: "CheckDefinition",
    fields: &[
        field("ID", Kind::Text),
        alias("ServiceID", &["service_id"], Kind::Text),
        field("Token", Kind::Text),
    ],
    shared: SPECIFICATION,
    unknown: Unknown::Refused,
};

static CHECK_UPDATE: Shape = Shape {
    name: "checkUpdate",
    fields: &[field("Status", Kind::Text), field("Output", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

/// What all checks of agents have in common.
static SPECIFICATION: &[Field] = &[
    field("Name", Kind::Text),
    field("Status", Kind::Text),
    field("Notes", Kind::Text),
    field("TTL", Kind::Duration),
    alias("WarnAfter", &["warn_after"], Kind::Duration),
    field("Interval", Kind::Duration),
    field("Timeout", Kind::Duration),
    alias("DeregisterCriticalServiceAfter", &["deregister_critical_service_after"], Kind::Duration),
    field("HTTP", Kind::Text),
    field("Header", Kind::Map(&TEXTS)),
    field("Method", Kind::Text),
    field("Body", Kind::Text),
    alias("DisableRedirects", &["disable_redirects"], Kind::Bool),
    alias("TLSServerName", &["tls_server_name"], Kind::Text),
    alias("TLSSkipVerify", &["tls_skip_verify"], Kind::Bool),
    field("TCP", Kind::Text),
    alias("TCPUseTLS", &["tcp_use_tls"], Kind::Bool),
    field("UDP", Kind::Text),
    field("GRPC", Kind::Text),
    alias("GRPCUseTLS", &["grpc_use_tls"], Kind::Bool),
    field("H2PING", Kind::Text),
    alias("H2PingUseTLS", &["h2ping_use_tls"], Kind::Bool),
    field("Observers", Kind::Int),
    field("Network", Kind::Text),
    alias("ScriptArgs", &["args", "script_args"], TEXTS),
    alias("DockerContainerID", &["docker_container_id"], Kind::Text),
    field("Shell", Kind::Text),
    alias("OSService", &["os_service"], Kind::Text),
    alias("AliasNode", &["alias_node"], Kind::Text),
    alias("AliasService", &["alias_service"], Kind::Text),
    alias("SuccessBeforePassing", &["success_before_passing"], Kind::Int),
    alias("FailuresBeforeWarning", &["failures_before_warning"], Kind::Int),
    alias("FailuresBeforeCritical", &["failures_before_critical"], Kind::Int),
    alias("OutputMaxSize", &["output_max_size"], Kind::Int),
    field("ProxyHTTP", Kind::Text),
    field("ProxyGRPC", Kind::Text),
    alias("SessionName", &["session_name"], Kind::Text),
];

impl Body for ServiceRegistration {
    const SHAPE: &'static Shape = &SERVICE;
}

impl Body for PresenceRegistration {
    const SHAPE: &'static Shape = &PRESENCE;
}

impl Body for CheckRegistration {
    const SHAPE: &'static Shape = &CHECK;
}

impl Body for CheckUpdate {
    const SHAPE: &'static Shape = &CHECK_UPDATE;
}
