//! Definitions in configuration files are judged exactly as the bodies of registrations are.

pub(super) mod check_type;
pub(super) mod mesh;

use quorate_client::decode;
use quorate_storage::record::{CheckRegistration, ServiceDefinition};
use serde_json::Value;

use super::api::{check as check_endpoints, service as service_endpoints};

/// An instance and its checks, from what would be the body of `agent/service/register`.
pub(crate) fn service(body: &Value) -> Result<(ServiceDefinition, Vec<CheckRegistration>), String> {
    let body = decode::body(body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    service_endpoints::registration(body).map_err(|error| error.text)
}

/// A check, from what would be the body of `agent/check/register`.
pub(crate) fn check(body: &Value) -> Result<CheckRegistration, String> {
    let body = decode::body(body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    check_endpoints::registration(body).map_err(|error| error.text)
}
