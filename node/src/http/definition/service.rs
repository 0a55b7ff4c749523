//! Services: what `agent/service/register` and configuration files say of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use quorate_client::types;
use quorate_client::types::agent::{CheckSpecification, ServiceRegistration};
use quorate_storage::record::{CheckRegistration, ServiceAddress, ServiceDefinition, Weights};

use super::meta::check_meta;
use super::{check, mesh, settings};
use crate::http::error::ApiError;
use crate::http::path;

/// The largest DNS weight.
pub(in crate::http) const WEIGHT_MAX: i64 = 65_535;

/// Validates a registration by what it says, in the order in which Consul complains.
pub(in crate::http) fn registration(
    body: ServiceRegistration,
) -> Result<(ServiceDefinition, Vec<CheckRegistration>), ApiError> {
    if body.name.is_empty() {
        return Err(ApiError::bad_request("Missing service name"));
    }
    if is_unspecified(&body.address) {
        return Err(ApiError::bad_request("Invalid service address"));
    }
    let proxy = mesh::validate(&body.kind, body.connect.as_ref(), body.proxy)?;
    let kind = settings::encode(proxy, body.socket_path, body.locality)?;
    path::check_addressable("Service name", &body.name).map_err(ApiError::bad_request)?;
    path::check_addressable("Service ID", &body.id).map_err(ApiError::bad_request)?;
    let weights = weights(body.weights)?;
    if let Some(meta) = &body.meta {
        check_meta(meta)
            .map_err(|fault| ApiError::bad_request(format!("Invalid Service Meta: {fault}")))?;
    }
    let id = if body.id.is_empty() { body.name.clone() } else { body.id };
    // A single check that says nothing is none; in the list it is one without a type.
    let check = body.check.filter(|check| *check != CheckSpecification::default());
    let checks = checks(check.into_iter().chain(body.checks).collect(), &id, &body.name)?;
    let addresses = service_addresses(body.tagged_addresses);
    let service = ServiceDefinition {
        tagged_addresses: with_own_address(addresses, &body.address, body.port),
        id: id.into(),
        name: body.name.into(),
        tags: body.tags.into(),
        address: body.address,
        meta: body.meta,
        port: body.port,
        weights,
        enable_tag_override: body.enable_tag_override,
        kind,
    };
    Ok((service, checks))
}

/// Whether a text is the address that means "any", in brackets or not.
pub(in crate::http) fn is_unspecified(address: &str) -> bool {
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    bare.unwrap_or(address).parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

fn weights(given: Option<types::Weights>) -> Result<Weights, ApiError> {
    let Some(types::Weights { passing, warning }) = given else { return Ok(Weights::default()) };
    let fault = match (passing, warning) {
        (..1, _) => "Passing must be greater than 0",
        (_, ..0) => "Warning must be greater or equal than 0",
        (passing, warning) if passing > WEIGHT_MAX || warning > WEIGHT_MAX => {
            "DNS Weight must be between 0 and 65535"
        }
        (passing, warning) => return Ok(Weights { passing, warning }),
    };
    Err(ApiError::bad_request(format!("Invalid Weights: {fault}")))
}

/// Addresses by purpose as the state keeps them.
pub(in crate::http) fn service_addresses(
    given: BTreeMap<String, types::ServiceAddress>,
) -> BTreeMap<String, ServiceAddress> {
    let kept =
        |given: types::ServiceAddress| ServiceAddress { address: given.address, port: given.port };
    given.into_iter().map(|(name, address)| (name, kept(address))).collect()
}

/// Adds an IP address under the names that say its family, where they are missing.
fn with_own_address(
    mut addresses: BTreeMap<String, ServiceAddress>,
    address: &str,
    port: i64,
) -> BTreeMap<String, ServiceAddress> {
    let names = match address.parse() {
        Ok(IpAddr::V4(_)) => ["lan_ipv4", "wan_ipv4"],
        Ok(IpAddr::V6(_)) => ["lan_ipv6", "wan_ipv6"],
        Err(_) => return addresses,
    };
    for name in names {
        let own = || ServiceAddress { address: address.to_owned(), port };
        addresses.entry(name.to_owned()).or_insert_with(own);
    }
    addresses
}

/// Validates an instance's checks and gives them ids: `service:ID` for a single one, `service:ID:1`,
/// `service:ID:2`, ... for several; an explicit id keeps its place in the numbering.
fn checks(
    given: Vec<CheckSpecification>,
    service_id: &str,
    service_name: &str,
) -> Result<Vec<CheckRegistration>, ApiError> {
    for check in &given {
        check::validate(check)?;
    }
    for check in &given {
        check::initial_status(&check.status).ok_or_else(|| {
            ApiError::bad_request("Status for checks must 'passing', 'warning', 'critical'")
        })?;
        check::refuse_scripts(check)?;
        check::refuse_reserved(&check.check_id)?;
    }
    let several = given.len() > 1;
    let named = given.into_iter().enumerate().map(|(position, check)| {
        let id = match check.check_id.as_str() {
            "" if several => format!("service:{service_id}:{}", position + 1),
            "" => format!("service:{service_id}"),
            id => id.to_owned(),
        };
        let name = match check.name.as_str() {
            "" => format!("Service '{service_name}' check"),
            name => name.to_owned(),
        };
        check::record(check, id, name, service_id)
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use crate::http::decode;
    use quorate_storage::record::CheckStatus;

    use super::*;

    fn register(text: &str) -> Result<(ServiceDefinition, Vec<CheckRegistration>), String> {
        let body = decode::body(text.as_bytes()).map_err(|error| error.to_string())?;
        registration(body).map_err(|error| error.text)
    }

    #[test]
    fn a_registration_is_refused_in_the_words_of_consul() {
        for (text, words) in [
            ("{}", "Missing service name"),
            (r#"{"Name":"w","Address":"0.0.0.0"}"#, "Invalid service address"),
            (r#"{"Name":"w","Address":"::"}"#, "Invalid service address"),
            (r#"{"Name":"w","Address":"[::]"}"#, "Invalid service address"),
            (
                r#"{"Name":"w","Check":{"Name":"x"}}"#,
                "Invalid check: TTL must be > 0 for TTL checks",
            ),
            (
                r#"{"Name":"w","Check":{"TTL":"10s","Status":"weird"}}"#,
                "Status for checks must 'passing', 'warning', 'critical'",
            ),
            (
                r#"{"Name":"w","Check":{"HTTP":"http://x/"}}"#,
                "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
            ),
            (
                r#"{"Name":"w","Check":{"TTL":"10s","HTTP":"http://x/","Interval":"1s"}}"#,
                "Invalid check: Interval and TTL cannot both be specified",
            ),
            (
                r#"{"Name":"w","Check":{"TTL":"-1s"}}"#,
                "Invalid check: TTL must be > 0 for TTL checks",
            ),
            (
                r#"{"Name":"w","Weights":{"Passing":0,"Warning":0}}"#,
                "Invalid Weights: Passing must be greater than 0",
            ),
            (
                r#"{"Name":"w","Weights":{"Passing":65536,"Warning":1}}"#,
                "Invalid Weights: DNS Weight must be between 0 and 65535",
            ),
            (
                r#"{"Name":"w","Meta":{"":"x"}}"#,
                "Invalid Service Meta: Couldn't load metadata pair ('', 'x'): Key cannot be blank",
            ),
            (
                r#"{"Name":"w","Meta":{"consul-x":"y"}}"#,
                "Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'y'): \
                 Key prefix 'consul-' is reserved for internal use",
            ),
            (r#"{"Name":"w","Checks":[{}]}"#, "Invalid check: TTL must be > 0 for TTL checks"),
        ] {
            assert_eq!(register(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn checks_are_numbered_only_when_there_are_several() {
        let ids = |text: &str| -> Vec<String> {
            register(text).unwrap().1.iter().map(|check| check.id.to_string()).collect()
        };
        assert_eq!(ids(r#"{"Name":"w","Check":{"TTL":"1s"}}"#), ["service:w"]);
        assert_eq!(ids(r#"{"Name":"w","ID":"1","Checks":[{"TTL":"1s"}]}"#), ["service:1"]);
        assert_eq!(
            ids(
                r#"{"Name":"w","Check":{"TTL":"1s"},"Checks":[{"TTL":"1s","CheckID":"x"},{"TTL":"1s"}]}"#
            ),
            ["service:w:1", "x", "service:w:3"]
        );
        assert_eq!(ids(r#"{"Name":"w","Check":{},"Checks":[{"TTL":"1s"}]}"#), ["service:w"]);
        assert!(ids(r#"{"Name":"w","Check":{}}"#).is_empty());
    }

    #[test]
    fn a_check_takes_its_name_and_status_from_its_service_and_consul() {
        let (_, checks) = register(r#"{"Name":"web","Check":{"TTL":"10s"}}"#).unwrap();
        assert_eq!(checks[0].name, "Service 'web' check");
        assert_eq!(checks[0].status, CheckStatus::Critical);
        assert_eq!((checks[0].kind.as_str(), &*checks[0].service_id), ("ttl", "web"));
    }

    #[test]
    fn an_ip_address_is_also_a_tagged_address() {
        let names = |text: &str| -> Vec<String> {
            register(text).unwrap().0.tagged_addresses.into_keys().collect()
        };
        assert_eq!(names(r#"{"Name":"w","Address":"10.8.8.8"}"#), ["lan_ipv4", "wan_ipv4"]);
        assert_eq!(names(r#"{"Name":"w","Address":"2001:db8::1"}"#), ["lan_ipv6", "wan_ipv6"]);
        assert!(names(r#"{"Name":"w","Address":"host.example"}"#).is_empty());
        let (service, _) = register(
            r#"{"Name":"w","Address":"10.8.8.8","Port":1,
                "TaggedAddresses":{"lan_ipv4":{"Address":"1.2.3.4","Port":2}}}"#,
        )
        .unwrap();
        assert_eq!(service.tagged_addresses["lan_ipv4"].port, 2);
        assert_eq!(service.tagged_addresses["wan_ipv4"].port, 1);
    }

    #[test]
    fn weights_that_are_given_in_part_are_zero_elsewhere() {
        let (service, _) = register(r#"{"Name":"w","Weights":{"Passing":5}}"#).unwrap();
        assert_eq!(service.weights, Weights { passing: 5, warning: 0 });
        let (service, _) = register(r#"{"Name":"w"}"#).unwrap();
        assert_eq!(service.weights, Weights { passing: 1, warning: 1 });
    }

    #[test]
    fn a_mesh_service_is_refused_and_an_ordinary_one_with_empty_settings_is_not() {
        register(r#"{"Name":"w","Connect":{"Native":false,"SidecarService":null}}"#).unwrap();
        register(r#"{"Name":"w","Connect":null,"Proxy":null}"#).unwrap();
        register(r#"{"Name":"w","connect":{"sidecarservice":{}}}"#).unwrap_err();
        register(r#"{"Name":"w","Kind":"connect-proxy"}"#).unwrap_err();
        register(r#"{"Name":"w","Connect":{"sidecar_service":{}}}"#).unwrap_err();
        let (kept, _) = register(r#"{"Name":"w","Proxy":{"local_service_port":9}}"#).unwrap();
        assert_eq!(kept.settings(), Some(r#"{"LocalServicePort":9}"#));
    }

    #[test]
    fn an_id_that_no_path_can_carry_is_refused() {
        for (text, words) in [
            (r#"{"Name":"a\nb"}"#, "Service name \"a\\nb\" must not have control characters"),
            (
                r#"{"Name":"w","ID":"a\u0000"}"#,
                "Service ID \"a\\0\" must not have control characters",
            ),
            (
                r#"{"Name":"w","Check":{"TTL":"1s","CheckID":"a\u007f"}}"#,
                "CheckID \"a\\u{7f}\" must not have control characters",
            ),
        ] {
            assert_eq!(register(text).unwrap_err(), words, "{text}");
        }
        for id in ["http://x", "a//b", "..", "../x", "a\u{a0}b", "\u{2028}"] {
            register(&format!(r#"{{"Name":"w","ID":"{id}"}}"#)).unwrap();
        }
    }
}
