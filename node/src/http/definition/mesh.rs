//! What a registration may say of Consul's service mesh, which Quorate does not have.
//!
//! There is one rule for all three ways in (`agent/service/register`, `catalog/register`, `txn`): what asks
//! for the mesh is refused, because a service would be left without the protection that its owner asked
//! for; what Consul's clients send for a service without a mesh (an empty `Kind`, `Connect: {}`,
//! `Native: false`) is accepted; and `Proxy` of an instance that is no proxy, which has no effect in Consul
//! either, is kept and shown. Their spelling and unknown members are the business of
//! [`decode`](crate::http::decode).

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// Validates `Kind`, `Connect` and `Proxy` of a registration, as they were read (under canonical names), and
/// returns the settings of `Proxy` that are kept ([`settings`](super::settings)): those that say something.
///
/// # Errors
/// 501 when it asks for the mesh.
pub(in crate::http) fn validate(
    kind: &str,
    connect: Option<&Map<String, Value>>,
    proxy: Option<Map<String, Value>>,
) -> Result<Map<String, Value>, ApiError> {
    if !kind.is_empty() || connect.is_some_and(asks_for_mesh) {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "Quorate has no service mesh: register the service without Kind and Connect",
        ));
    }
    let settings = proxy.unwrap_or_default().into_iter();
    Ok(settings.filter(|(_, value)| !is_empty(value)).collect())
}

/// Whether `Connect` asks for anything.
fn asks_for_mesh(connect: &Map<String, Value>) -> bool {
    let asks = |name: &&str| {
        connect.get(*name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
    };
    ["Native", "SidecarService", "Proxy"].iter().any(asks)
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

#[cfg(test)]
mod tests {
    use quorate_client::types::agent::ServiceRegistration;
    use serde_json::json;

    use super::*;
    use crate::http::decode;

    fn read(kind: &str, connect: &Value, proxy: &Value) -> Result<Value, u16> {
        let body = json!({"Name": "w", "Kind": kind, "Connect": connect, "Proxy": proxy});
        let body: ServiceRegistration = decode::body(body.to_string().as_bytes()).unwrap();
        validate(&body.kind, body.connect.as_ref(), body.proxy)
            .map(Value::Object)
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
            assert_eq!(read("", &connect, &Value::Null), Err(501), "{connect}");
        }
        assert_eq!(read("connect-proxy", &Value::Null, &Value::Null), Err(501));
        assert_eq!(read("anything", &Value::Null, &Value::Null), Err(501));
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
                assert_eq!(read("", &connect, &proxy), Ok(json!({})), "{proxy}");
            }
        }
    }

    #[test]
    fn the_proxy_of_what_is_no_proxy_is_kept_under_canonical_names() {
        let given = json!({"local_service_port": 9, "Config": {"a_b": 1}, "Mode": "",
            "mesh_gateway": {"mode": "local"}});
        let kept =
            json!({"LocalServicePort": 9, "Config": {"a_b": 1}, "MeshGateway": {"Mode": "local"}});
        assert_eq!(read("", &Value::Null, &given), Ok(kept));
    }
}
