//! What clients and configuration files may say of services, checks and nodes: validated in the order and in
//! the words of Consul, and turned into records of the state.
//!
//! [`service`] and [`check`] are the rules for agents, [`meta`], [`mesh`], [`settings`] and [`check_type`]
//! hold for the catalogue and transactions too. [`description`] is what a client agent says of its node, and
//! [`comparison`] how its definition files differ from what is registered.

pub(super) mod beat;
pub(super) mod check;
pub(super) mod check_type;
mod comparison;
mod description;
pub(super) mod mesh;
mod meta;
pub(super) mod service;
pub(super) mod settings;

use crate::http::decode;
use quorate_storage::record::{CheckRegistration, ServiceDefinition};
use serde_json::Value;

pub use comparison::{Comparison, Ids};
pub use description::Description;
pub(crate) use meta::check_meta;

/// An instance and its checks, from what would be the body of `agent/service/register`.
pub(crate) fn parse_service(
    body: &Value,
) -> Result<(ServiceDefinition, Vec<CheckRegistration>), String> {
    let body = decode::body(body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    service::registration(body).map_err(|error| error.text)
}

/// A check, from what would be the body of `agent/check/register`.
pub(crate) fn parse_check(body: &Value) -> Result<CheckRegistration, String> {
    let body = decode::body(body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    check::registration(body).map_err(|error| error.text)
}
