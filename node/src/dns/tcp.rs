//! DNS over TCP: each message behind its length (RFC 7766).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics::DnsMetrics;
use super::{Answerer, RECEIVED_BYTES_MAX, Transport};
use crate::host::clock::Clock;
use crate::host::log_rate::LogRate;
use crate::host::per_client::PerClient;
use crate::host::resources::BUDGET;
use crate::host::supervise::contained;

/// Connections from one IP address.
const PER_ADDRESS_MAX: usize = 64;
/// A connection is closed when nothing whole has come for so long.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// A client takes an answer in this time.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say so.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How many connections there may be; cheap to clone, for several listeners.
#[derive(Debug, Clone)]
pub struct Places {
    all: Arc<Semaphore>,
    per_address: PerClient,
}

impl Default for Places {
    fn default() -> Self {
        let all = Arc::new(Semaphore::new(BUDGET.dns));
        Self { all, per_address: PerClient::new(Some(PER_ADDRESS_MAX)) }
    }
}

/// A listener for the threads of a runtime.
///
/// # Errors
/// When the system does not allow it.
pub fn listener(bound: std::net::TcpListener, runtime: &Handle) -> io::Result<TcpListener> {
    let _entered = runtime.enter();
    TcpListener::from_std(bound)
}

/// Accepts connections; never ends. One for which there is no place is closed.
pub async fn serve(
    listener: TcpListener,
    answerer: impl Answerer,
    places: Places,
    metrics: DnsMetrics,
) {
    let lines = LogRate::new(Clock::monotonic(), LINE_EVERY);
    loop {
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(not_logged) = lines.pass() {
                    tracing::warn!(%error, not_logged, "cannot accept a DNS connection");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (place, counted) =
            (Arc::clone(&places.all).try_acquire_owned(), places.per_address.open(caller.ip()));
        let (Ok(place), Some(counted)) = (place, counted) else {
            metrics.dropped("connections");
            continue;
        };
        let (answerer, metrics) = (answerer.clone(), metrics.clone());
        drop(contained("a DNS connection", async move {
            let _held = (place, counted);
            metrics.connections.inc();
            if let Err(error) = converse(stream, caller, &answerer).await {
                tracing::debug!(%caller, %error, "a DNS connection ended early");
            }
            metrics.connections.dec();
        }));
    }
}

/// Answers one message after the other, until the client has no more, or sends what is not answered.
async fn converse(
    mut stream: TcpStream,
    caller: SocketAddr,
    answerer: &impl Answerer,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading);
    loop {
        let message = timeout(IDLE_MAX, read(&mut reading)).await??;
        let answer = answerer.answer(&message, Transport::Tcp, caller.ip()).await;
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(WRITE_MAX, writing.write_all(&framed)).await??;
    }
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > RECEIVED_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
