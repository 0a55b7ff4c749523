//! What the state keeps of a registration without a member for each: the settings of a proxy, the socket and
//! the locality of an instance ([`ServiceDefinition::kind`](quorate_storage::record::ServiceDefinition::kind)),
//! and the locality of a node.

use quorate_client::types::Locality;
use quorate_storage::record::{TextMap, with_locality};
use serde_json::{Map, Value};

use crate::http::error::ApiError;

/// The text that the state keeps; empty if nothing was given. `settings` are those of a proxy.
///
/// # Errors
/// 400 for a zone of no region.
pub(in crate::http) fn encode(
    mut settings: Map<String, Value>,
    socket_path: String,
    locality: Option<Locality>,
) -> Result<String, ApiError> {
    if !socket_path.is_empty() {
        settings.insert("SocketPath".to_owned(), Value::String(socket_path));
    }
    if let Some(place) = place(locality)? {
        settings.insert("Locality".to_owned(), place);
    }
    Ok(if settings.is_empty() { String::new() } else { Value::Object(settings).to_string() })
}

/// A node's tagged addresses, as its row keeps them with its locality.
///
/// # Errors
/// 400 for a zone of no region.
pub(in crate::http) fn node_addresses(
    tagged: Option<TextMap>,
    locality: Option<Locality>,
) -> Result<Option<TextMap>, ApiError> {
    Ok(with_locality(tagged, place(locality)?.map(|place| place.to_string())))
}

/// A locality without what is empty; `None` if all of it is.
fn place(given: Option<Locality>) -> Result<Option<Value>, ApiError> {
    let Some(Locality { region, zone }) = given.filter(|given| *given != Locality::default())
    else {
        return Ok(None);
    };
    if region.is_empty() {
        return Err(ApiError::bad_request("zone cannot be set without region"));
    }
    let mut place = Map::from_iter([("Region".to_owned(), Value::String(region))]);
    if !zone.is_empty() {
        place.insert("Zone".to_owned(), Value::String(zone));
    }
    Ok(Some(Value::Object(place)))
}

#[cfg(test)]
mod tests {
    use quorate_storage::record;
    use serde_json::json;

    use super::*;
    use crate::http::wire::Settings;

    fn place(region: &str, zone: &str) -> Option<Locality> {
        Some(Locality { region: region.to_owned(), zone: zone.to_owned() })
    }

    fn kept(proxy: &Value, socket_path: &str, locality: Option<Locality>) -> Settings {
        let proxy = proxy.as_object().cloned().unwrap_or_default();
        let kind = encode(proxy, socket_path.to_owned(), locality).unwrap();
        let definition = record::ServiceDefinition { kind, ..Default::default() };
        assert_eq!(definition.mesh_kind(), "");
        Settings::of(&definition)
    }

    #[test]
    fn what_was_given_is_shown_and_stays_apart() {
        let proxy = json!({"LocalServicePort": 9, "MeshGateway": {"Mode": "local"}});
        let shown = kept(&proxy, "/run/web.sock", place("eu", "eu-1"));
        assert_eq!(shown.socket_path, "/run/web.sock");
        assert_eq!(shown.locality, place("eu", "eu-1"));
        assert_eq!(
            serde_json::to_value(shown.proxy).unwrap(),
            json!({"LocalServicePort": 9, "MeshGateway": {"Mode": "local"}, "Expose": {}})
        );
        assert_eq!(kept(&Value::Null, "", place("eu", "")).locality, place("eu", ""));
    }

    #[test]
    fn nothing_given_is_nothing_kept() {
        assert_eq!(encode(Map::new(), String::new(), place("", "")).unwrap(), "");
        let none = kept(&Value::Null, "", None);
        assert_eq!(none, Settings::default());
        assert_eq!(
            serde_json::to_string(&none.proxy).unwrap(),
            r#"{"MeshGateway":{},"Expose":{}}"#
        );
        let refused = encode(Map::new(), String::new(), place("", "z")).unwrap_err();
        assert_eq!(refused.text, "zone cannot be set without region");
    }
}
