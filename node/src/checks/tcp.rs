//! TCP checks: whoever takes the connection is alive.

use quorate_storage::record::CheckDefinition;

use super::Finding;
use super::connect::{Tls, connect};
use super::lookup::Resolver;

/// Connects, and with `TCPUseTLS` shakes hands.
pub(super) async fn probe(definition: &CheckDefinition, resolver: &Resolver) -> Finding {
    let target = &definition.tcp;
    let tls = definition.tcp_use_tls.then_some(Tls {
        server_name: &definition.tls_server_name,
        skip_verify: definition.tls_skip_verify,
        protocol: b"",
    });
    match connect(resolver, target, tls).await {
        Ok(_) => Finding::passing(format!("TCP connect {target}: Success")),
        Err(error) => Finding::critical(error.to_string()),
    }
}
