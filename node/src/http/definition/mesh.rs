//! What a registration may say of Consul's service mesh, which Quorate does not have.
//!
//! There is one rule for all three ways in (`agent/service/register`, `catalog/register`, `txn`): what asks
//! for the mesh is refused, because a service would be left without the protection that its owner asked
//! for; what Consul's clients send for a service without a mesh (an empty `Kind`, `Connect: {}`,
//! `Native: false`) is accepted; and `Proxy` of an instance that is no proxy, which has no effect in Consul
//! either, is kept and shown.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// The members of `Proxy` (`ConnectProxyConfig` in Consul's API, as of 1.21).
const PROXY_MEMBERS: [&str; 14] = [
    "AccessLogs",
    "Config",
    "DestinationServiceID",
    "DestinationServiceName",
    "EnvoyExtensions",
    "Expose",
    "LocalServiceAddress",
    "LocalServicePort",
    "LocalServiceSocketPath",
    "MeshGateway",
    "Mode",
    "MutualTLSMode",
    "TransparentProxy",
    "Upstreams",
];

/// Validates `Kind`, `Connect` and `Proxy` of a registration, and returns the settings of `Proxy` that are
/// kept ([`settings`](super::settings)).
///
/// # Errors
/// 501 when it asks for the mesh, 400 when it cannot be read.
pub(in crate::http) fn validate(
    kind: &str,
    connect: Option<&Value>,
    proxy: Option<&Value>,
) -> Result<Map<String, Value>, ApiError> {
    if !kind.is_empty() || connect.map(asks_for_mesh).transpose()?.unwrap_or(false) {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "Quorate has no service mesh: register the service without Kind and Connect",
        ));
    }
    Ok(proxy.map(kept).transpose()?.unwrap_or_default())
}

/// Whether `Connect` asks for anything, under whatever spelling of its names.
fn asks_for_mesh(connect: &Value) -> Result<bool, ApiError> {
    let members = object(connect, "Connect")?;
    Ok(members.iter().any(|(name, value)| {
        let asked = !matches!(value, Value::Null | Value::Bool(false));
        asked && ["native", "sidecarservice", "proxy"].contains(&plain(name).as_str())
    }))
}

/// The members of `Proxy` that say something, under their canonical names.
fn kept(proxy: &Value) -> Result<Map<String, Value>, ApiError> {
    let mut kept = Map::new();
    for (name, value) in object(proxy, "Proxy")? {
        let given = plain(name);
        let known = PROXY_MEMBERS.iter().find(|known| known.to_ascii_lowercase() == given);
        let known = known.ok_or_else(|| undecodable(&format!("json: unknown field {name:?}")))?;
        if !is_empty(value) {
            kept.insert((*known).to_owned(), value.clone());
        }
    }
    Ok(kept)
}

/// Consul leaves such members out when it shows them.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
    }
}

fn object<'a>(value: &'a Value, name: &str) -> Result<&'a Map<String, Value>, ApiError> {
    value.as_object().ok_or_else(|| undecodable(&format!("json: {name} must be an object")))
}

fn undecodable(fault: &str) -> ApiError {
    ApiError::bad_request(format!("Request decode failed: {fault}"))
}

/// A name without its letter case and underscores: `sidecar_service` is `SidecarService`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, connect: Value, proxy: Value) -> Result<Map<String, Value>, u16> {
        let given = |value: Value| Some(value).filter(|value| !value.is_null());
        validate(kind, given(connect).as_ref(), given(proxy).as_ref())
            .map_err(|error| error.status.as_u16())
    }

    #[test]
    fn what_asks_for_the_mesh_is_refused_in_any_spelling() {
        for connect in [
            json!({"SidecarService": {}}),
            json!({"sidecar_service": {"port": 1}}),
            json!({"SIDECARSERVICE": {}}),
            json!({"Native": true}),
            json!({"native": true}),
            json!({"Proxy": {}}),
        ] {
            assert_eq!(read("", connect.clone(), Value::Null), Err(501), "{connect}");
        }
        assert_eq!(read("connect-proxy", Value::Null, Value::Null), Err(501));
        assert_eq!(read("anything", Value::Null, Value::Null), Err(501));
        assert_eq!(read("", json!([]), Value::Null), Err(400));
    }

    #[test]
    fn what_clients_send_for_a_service_without_a_mesh_is_accepted() {
        for connect in [json!({}), json!({"Native": false, "SidecarService": null}), Value::Null] {
            for proxy in [
                Value::Null,
                json!({}),
                json!({"MeshGateway": {}, "Expose": {}, "Upstreams": null, "LocalServicePort": 0}),
                json!({"MeshGateway": {"Mode": ""}, "Expose": {"Checks": false, "Paths": null}}),
            ] {
                assert_eq!(read("", connect.clone(), proxy.clone()), Ok(Map::new()), "{proxy}");
            }
        }
    }

    #[test]
    fn the_proxy_of_what_is_no_proxy_is_kept_under_canonical_names() {
        let kept = read(
            "",
            Value::Null,
            json!({"local_service_port": 9, "Config": {"a_b": 1}, "MeshGateway": {"Mode": "local"}}),
        );
        assert_eq!(
            Value::Object(kept.unwrap()),
            json!({"LocalServicePort": 9, "Config": {"a_b": 1}, "MeshGateway": {"Mode": "local"}})
        );
        assert_eq!(read("", Value::Null, json!({"Nope": 1})), Err(400));
        assert_eq!(read("", Value::Null, json!(3)), Err(400));
    }
}
