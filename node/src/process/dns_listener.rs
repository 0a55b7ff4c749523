//! Where DNS is served.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::dns::metrics::DnsMetrics;
use crate::dns::{Answerer, tcp, udp};
use crate::host::datagrams::Datagrams;
use crate::host::listen::{DnsSockets, Listeners, bind_dns};
use crate::host::supervise::Supervisor;

/// Takes the sockets. Where nobody asked for DNS and its usual address is taken (by another server on this machine,
/// or by Consul), there is none.
///
/// # Errors
/// When an address that was asked for is taken.
pub(super) fn bind(listeners: &Listeners) -> io::Result<Vec<DnsSockets>> {
    match listeners.dns_setting {
        Some(setting) => bind_dns(&listeners.dns, setting),
        None => Ok(bind_dns(&listeners.dns, "the default").unwrap_or_else(|error| {
            tracing::warn!(%error, "DNS is not served: say where, or that it is off");
            Vec::new()
        })),
    }
}

/// Answers DNS clients on the threads of a runtime, with so many tasks for each UDP socket.
///
/// # Errors
/// When the system does not allow it.
pub(super) fn serve(
    sockets: Vec<DnsSockets>,
    answerer: &(impl Answerer + 'static),
    metrics: &DnsMetrics,
    udp_tasks: usize,
    (supervisor, runtime): (&Supervisor, &Handle),
) -> io::Result<()> {
    let places = tcp::Places::default();
    for DnsSockets { udp, tcp, .. } in sockets {
        let socket = Arc::new(Datagrams::new(udp, runtime)?);
        let listener = tcp::listener(tcp, runtime)?;
        for _ in 0..udp_tasks {
            let serving = udp::serve(socket.clone(), answerer.clone(), metrics.clone());
            drop(supervisor.vital_on(runtime, "DNS over UDP", serving));
        }
        let serving = tcp::serve(listener, answerer.clone(), places.clone(), metrics.clone());
        drop(supervisor.vital_on(runtime, "DNS over TCP", serving));
    }
    Ok(())
}

/// The addresses, for the log.
pub(super) fn texts(sockets: &[DnsSockets]) -> String {
    match sockets {
        [] => "off".to_owned(),
        all => all.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" "),
    }
}
