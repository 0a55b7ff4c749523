//! What a service definition may say of Consul's service mesh: `Proxy` and `Connect`.
//!
//! Consul takes these members in snake case too, wherever a service is registered (`UnmarshalJSON` of
//! `ConnectProxyConfig`, `Upstream`, `ExposePath` and `ServiceConnect` in 1.21, and the aliases of configuration
//! files). `Config` and `Arguments` have free names, which stay as they are.

use super::{Kind, Shape, TEXTS, Unknown, alias, field};

/// An object with free names and values.
const FREE: Kind = Kind::Map(&Kind::Any);

pub(super) static PROXY: Shape = Shape {
    name: "ConnectProxyConfig",
    fields: &[
        alias("EnvoyExtensions", &["envoy_extensions"], Kind::List(&Kind::Object(&EXTENSION))),
        alias("DestinationServiceName", &["destination_service_name"], Kind::Text),
        alias("DestinationServiceID", &["destination_service_id"], Kind::Text),
        alias("LocalServiceAddress", &["local_service_address"], Kind::Text),
        alias("LocalServicePort", &["local_service_port"], Kind::Int),
        alias("LocalServiceSocketPath", &["local_service_socket_path"], Kind::Text),
        field("Mode", Kind::Text),
        field("Config", FREE),
        field("Upstreams", Kind::List(&Kind::Object(&UPSTREAM))),
        alias("MeshGateway", &["mesh_gateway"], Kind::Object(&MESH_GATEWAY)),
        field("Expose", Kind::Object(&EXPOSE)),
        alias("TransparentProxy", &["transparent_proxy"], Kind::Object(&TRANSPARENT_PROXY)),
        alias("MutualTLSMode", &["mutual_tls_mode"], Kind::Text),
        alias("AccessLogs", &["access_logs"], Kind::Object(&ACCESS_LOGS)),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

/// Its members ask for the mesh, so what is in them is not looked at.
pub(super) static CONNECT: Shape = Shape {
    name: "ServiceConnect",
    fields: &[
        field("Native", Kind::Bool),
        alias("SidecarService", &["sidecar_service"], Kind::Any),
        // Of versions before 1.6.
        field("Proxy", Kind::Any),
        // Where an instance of another cluster came from; only Consul itself says so.
        field("PeerMeta", Kind::Any),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static UPSTREAM: Shape = Shape {
    name: "Upstream",
    fields: &[
        alias("DestinationType", &["destination_type"], Kind::Text),
        alias("DestinationNamespace", &["destination_namespace"], Kind::Text),
        alias("DestinationPartition", &["destination_partition"], Kind::Text),
        alias("DestinationPeer", &["destination_peer"], Kind::Text),
        alias("DestinationName", &["destination_name"], Kind::Text),
        field("Datacenter", Kind::Text),
        alias("LocalBindAddress", &["local_bind_address"], Kind::Text),
        alias("LocalBindPort", &["local_bind_port"], Kind::Int),
        alias("LocalBindSocketPath", &["local_bind_socket_path"], Kind::Text),
        alias("LocalBindSocketMode", &["local_bind_socket_mode"], Kind::Text),
        field("Config", FREE),
        alias("MeshGateway", &["mesh_gateway"], Kind::Object(&MESH_GATEWAY)),
        alias("IngressHosts", &["ingress_hosts"], TEXTS),
        alias("CentrallyConfigured", &["centrally_configured"], Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static MESH_GATEWAY: Shape = Shape {
    name: "MeshGatewayConfig",
    fields: &[field("Mode", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

static EXPOSE: Shape = Shape {
    name: "ExposeConfig",
    fields: &[
        field("Checks", Kind::Bool),
        field("Paths", Kind::List(&Kind::Object(&EXPOSED_PATH))),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static EXPOSED_PATH: Shape = Shape {
    name: "ExposePath",
    fields: &[
        alias("ListenerPort", &["listener_port"], Kind::Int),
        field("Path", Kind::Text),
        alias("LocalPathPort", &["local_path_port"], Kind::Int),
        field("Protocol", Kind::Text),
        alias("ParsedFromCheck", &["parsed_from_check"], Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static TRANSPARENT_PROXY: Shape = Shape {
    name: "TransparentProxyConfig",
    fields: &[
        alias("OutboundListenerPort", &["outbound_listener_port"], Kind::Int),
        alias("DialedDirectly", &["dialed_directly"], Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static ACCESS_LOGS: Shape = Shape {
    name: "AccessLogsConfig",
    fields: &[
        field("Enabled", Kind::Bool),
        alias("DisableListenerLogs", &["disable_listener_logs"], Kind::Bool),
        field("Type", Kind::Text),
        field("Path", Kind::Text),
        alias("JSONFormat", &["json_format"], Kind::Text),
        alias("TextFormat", &["text_format"], Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static EXTENSION: Shape = Shape {
    name: "EnvoyExtension",
    fields: &[
        field("Name", Kind::Text),
        field("Required", Kind::Bool),
        field("Arguments", FREE),
        alias("ConsulVersion", &["consul_version"], Kind::Text),
        alias("EnvoyVersion", &["envoy_version"], Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

#[cfg(test)]
mod tests {
    use quorate_client::types::agent::ServiceRegistration;
    use quorate_client::types::catalog::Registration;
    use serde_json::{Map, Value, json};

    use crate::http::decode;

    type Read = Result<Option<Map<String, Value>>, String>;

    /// `member` with this value, as each of the three ways in reads it.
    fn read(member: &str, value: &Value) -> [Read; 3] {
        let told = |error: decode::DecodeError| error.to_string();
        let service = json!({"Service": "w", member: value});
        let by_agent = json!({"Name": "w", member: value}).to_string();
        let by_agent = decode::body::<ServiceRegistration>(by_agent.as_bytes()).map_err(told);
        let by_catalogue = json!({"Node": "n", "Service": service}).to_string();
        let by_catalogue = decode::body::<Registration>(by_catalogue.as_bytes()).map_err(told);
        let by_txn = json!([{"Service": {"Verb": "set", "Node": "n", "Service": service}}]);
        let by_txn = decode::operations(by_txn.to_string().as_bytes()).map_err(told);
        let is_proxy = member.eq_ignore_ascii_case("Proxy");
        [
            by_agent.map(|read| if is_proxy { read.proxy } else { read.connect }),
            by_catalogue.map(|read| {
                let service = read.service.unwrap();
                if is_proxy { service.proxy } else { service.connect }
            }),
            by_txn.map(|mut read| {
                let service = read.remove(0).service.unwrap().service.definition;
                if is_proxy { service.proxy } else { service.connect }
            }),
        ]
    }

    #[test]
    fn all_of_a_proxy_is_read_under_canonical_names() {
        let given = json!({
            "mesh_gateway": {"mode": "local"}, "LOCAL_SERVICE_PORT": 9, "mode": "direct",
            "config": {"a_b": {"mesh_gateway": 1}, "Bind": null},
            "upstreams": [{"destination_name": "db", "local_bind_port": 1, "config": {"x_y": 1},
                "mesh_gateway": {"MODE": "none"}}],
            "expose": {"checks": true, "paths": [{"listener_port": 2, "local_path_port": 3, "PATH": "/"}]},
            "transparent_proxy": {"outbound_listener_port": 4},
            "access_logs": {"json_format": "{}"},
            "envoy_extensions": [{"name": "x", "arguments": {"c_d": 1}}],
        });
        let canonical = json!({
            "MeshGateway": {"Mode": "local"}, "LocalServicePort": 9, "Mode": "direct",
            "Config": {"a_b": {"mesh_gateway": 1}, "Bind": null},
            "Upstreams": [{"DestinationName": "db", "LocalBindPort": 1, "Config": {"x_y": 1},
                "MeshGateway": {"Mode": "none"}}],
            "Expose": {"Checks": true, "Paths": [{"ListenerPort": 2, "LocalPathPort": 3, "Path": "/"}]},
            "TransparentProxy": {"OutboundListenerPort": 4},
            "AccessLogs": {"JSONFormat": "{}"},
            "EnvoyExtensions": [{"Name": "x", "Arguments": {"c_d": 1}}],
        });
        for read in [read("proxy", &given), read("Proxy", &canonical)].concat() {
            assert_eq!(read.unwrap(), canonical.as_object().cloned());
        }
    }

    #[test]
    fn what_neither_proxy_nor_connect_has_is_refused_by_its_name() {
        for (member, value) in [
            ("Proxy", json!({"Nope": 1})),
            ("Proxy", json!({"Upstreams": [{"Nope": 1}]})),
            ("Proxy", json!({"expose": {"paths": [{"Nope": 1}]}})),
            ("Proxy", json!({"MeshGateway": {"Nope": ""}})),
            ("Connect", json!({"Nope": null})),
            ("Connect", json!({"Native": false, "Nope": {}})),
        ] {
            for read in read(member, &value) {
                assert_eq!(read.unwrap_err(), "json: unknown field \"Nope\"", "{member}: {value}");
            }
        }
        for (member, value) in [
            ("Proxy", json!(3)),
            ("Proxy", json!({"Upstreams": {}})),
            ("Proxy", json!({"LocalServicePort": "9"})),
            ("Connect", json!([])),
            ("Connect", json!({"Native": "true"})),
        ] {
            for read in read(member, &value) {
                let error = read.unwrap_err();
                assert!(error.starts_with("json: cannot unmarshal "), "{value}: {error}");
            }
        }
    }

    #[test]
    fn connect_is_read_under_canonical_names() {
        let given = json!({"native": true, "SIDECAR_SERVICE": {"a_b": 1}});
        let canonical = json!({"Native": true, "SidecarService": {"a_b": 1}});
        for read in read("connect", &given) {
            assert_eq!(read.unwrap(), canonical.as_object().cloned());
        }
    }
}
