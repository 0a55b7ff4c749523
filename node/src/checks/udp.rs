//! UDP checks: an empty datagram that is not refused.
//!
//! Few services answer a datagram that says nothing, so silence counts as success (Consul's rule):
//! only an error, such as the host's word that nobody listens on the port, is a failure.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quorate_storage::record::CheckDefinition;
use tokio::net::UdpSocket;

use super::Finding;
use super::connect::words;
use super::lookup::Resolver;
use crate::host::clock::Clock;

/// Sends the datagram and listens until the time is over.
pub(super) async fn probe(
    definition: &CheckDefinition,
    resolver: &Resolver,
    clock: &Clock,
    timeout: Duration,
) -> Finding {
    let target = &definition.udp;
    match clock.timeout(timeout, exchange(resolver, target)).await {
        Ok(Ok(())) | Err(_) => Finding::passing(format!("UDP connect {target}: Success")),
        Ok(Err(error)) => Finding::critical(format!("udp {target}: {}", words(&error))),
    }
}

async fn exchange(resolver: &Resolver, target: &str) -> io::Result<()> {
    let addresses = resolver.resolve(target).await?;
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "no such host");
    let address = *addresses.first().ok_or_else(nowhere)?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(address).await?;
    socket.send(&[]).await?;
    socket.recv(&mut [0]).await.map(drop)
}
