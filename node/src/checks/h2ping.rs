//! HTTP/2 pings: the other side speaks HTTP/2 and is awake.

use quorate_storage::record::CheckDefinition;

use super::Finding;
use super::connect::{Tls, beside, connect};
use super::lookup::Resolver;

/// Connects (with TLS unless the definition says otherwise) and waits for the answer to a ping.
pub(super) async fn probe(definition: &CheckDefinition, resolver: &Resolver) -> Finding {
    let target = &definition.h2ping;
    let tls = definition.later.h2ping_use_tls.unwrap_or(true).then_some(Tls {
        server_name: &definition.tls_server_name,
        skip_verify: definition.tls_skip_verify,
        protocol: b"h2",
    });
    let stream = match connect(resolver, target, tls).await {
        Ok(stream) => stream,
        Err(error) => return Finding::critical(format!("Failed to dial to {target}: {error}")),
    };
    match ping(stream).await {
        Ok(()) => Finding::passing("HTTP2 ping was successful".to_owned()),
        Err(error) => Finding::critical(format!("HTTP2 ping failed: {error}")),
    }
}

async fn ping(stream: Box<dyn super::connect::Io>) -> Result<(), h2::Error> {
    // The sender is kept: without one, the connection would end itself.
    let (_sender, mut connection) = h2::client::handshake(stream).await?;
    let mut pings = connection.ping_pong().expect("nobody else took the connection's pings");
    beside(connection, pings.ping(h2::Ping::opaque())).await.map(drop)
}
