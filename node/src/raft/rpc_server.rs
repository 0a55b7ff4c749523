//! The other end of [`HttpTransport`](super::http_transport::HttpTransport).
//!
//! A snapshot travels as one body: the length of the header (u32, big endian), the header (postcard),
//! then the snapshot's bytes as they are on disk.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use hyper::body::Body as _;
use quorate_storage::raft::NodeId;
use quorate_storage::snapshot::Snapshot;

use super::SNAPSHOT_SEND_MS_MAX;
use super::protocol::{Envelope, Response, ServerInfo, SnapshotHeader};
use super::rpc_connections::{BodyBytes, Caller};
use super::service::Service;
use crate::host::supervise;

/// Where requests go. The number is the protocol's version.
pub const CALL_PATH: &str = "/rpc/1/call";
/// Where snapshots go.
pub const SNAPSHOT_PATH: &str = "/rpc/1/snapshot";
/// A request holds at most an append of some megabytes; a longer one is not ours. Releases that did not limit
/// commands could have written an entry of almost 64 MiB, which must still reach every follower.
const CALL_BYTES_MAX: usize = 80 << 20;
/// How long a request may take to arrive: a peer gives up an append earlier.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// A header holds a membership; a longer one is not ours.
const SNAPSHOT_HEADER_BYTES_MAX: usize = 1 << 20;
/// A snapshot is read from disk in pieces of this size.
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way between the disk and a socket.
const SNAPSHOT_PIECES_IN_FLIGHT: usize = 4;

type HttpError = (StatusCode, String);

/// The routes of the RPC listener.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(CALL_PATH, post(call))
        .route(SNAPSHOT_PATH, post(snapshot))
        .with_state(service)
}

async fn call(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Body,
) -> Result<Vec<u8>, HttpError> {
    let envelope: Envelope = {
        let mut held = caller.holds();
        let body = within(BODY_TIME_MAX, read_body(body, &mut held)).await?;
        postcard::from_bytes(&body).map_err(bad_request)?
    };
    check_holder(&caller, &service, envelope.from, envelope.request.info())?;
    if service.is_addressee(&envelope) {
        caller.introduce();
    }
    let handled =
        supervise::catch(
            "a request of another server",
            async move { service.handle(envelope).await },
        );
    encode(&handled.await.map_err(internal)?)
}

/// Whether a message comes from the server that the connection's certificate names.
fn check_holder(
    caller: &Caller,
    service: &Service,
    from: NodeId,
    info: Option<&ServerInfo>,
) -> Result<(), HttpError> {
    let Some(holder) = caller.holder() else { return Ok(()) };
    service.check_holder(holder, from, info).map_err(|why| (StatusCode::FORBIDDEN, why.to_string()))
}

/// Reads a body as far as there is room for it.
async fn read_body(body: Body, held: &mut BodyBytes<'_>) -> Result<Vec<u8>, HttpError> {
    let announced = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let max = announced.unwrap_or(CALL_BYTES_MAX).min(CALL_BYTES_MAX);
    let mut pieces = body.into_data_stream();
    let mut read = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(bad_request)?;
        let needed = read.len() + piece.len();
        if needed > CALL_BYTES_MAX {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the request is too long".to_owned()));
        }
        if needed > read.capacity() {
            let capacity = needed.max(max.min(2 * read.capacity()));
            if !held.grow_to(capacity) {
                let text = "too many bytes of incomplete requests are in memory";
                return Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
            }
            read.reserve_exact(capacity - read.len());
        }
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

/// Limits how long a request may take.
async fn within<T>(
    span: Duration,
    work: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let late = |_| (StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive".to_owned());
    tokio::time::timeout(span, work).await.map_err(late)?
}

async fn snapshot(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Body,
) -> Result<Vec<u8>, HttpError> {
    let mut pieces = body.into_data_stream();
    let (header, first) = within(BODY_TIME_MAX, read_header(&mut pieces)).await?;
    check_holder(&caller, &service, header.from, None)?;
    if service.is_addressee_of_snapshot(&header) {
        caller.introduce();
    }
    let rest = pieces.map(|piece| piece.map_err(io::Error::other));
    let bytes = futures_util::stream::once(async move { Ok(first) }).chain(rest);
    let received = supervise::catch("receiving a snapshot", async move {
        service.receive_snapshot(header, Box::pin(bytes)).await
    });
    let received = async { Ok(received.await) };
    let received = within(Duration::from_millis(SNAPSHOT_SEND_MS_MAX), received).await?;
    encode(&received.map_err(internal)?)
}

async fn read_header(
    pieces: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
) -> Result<(SnapshotHeader, Bytes), HttpError> {
    let mut buffer = BytesMut::new();
    let mut wanted = size_of::<u32>();
    let mut length_known = false;
    loop {
        if buffer.len() >= wanted && length_known {
            let header = buffer.split_to(wanted);
            return Ok((postcard::from_bytes(&header).map_err(bad_request)?, buffer.freeze()));
        }
        if buffer.len() >= wanted {
            wanted = usize::try_from(buffer.get_u32()).map_err(bad_request)?;
            length_known = true;
            if wanted > SNAPSHOT_HEADER_BYTES_MAX {
                return Err((StatusCode::BAD_REQUEST, "the header is too long".to_owned()));
            }
            continue;
        }
        let piece = pieces
            .next()
            .await
            .ok_or_else(|| bad_request("the body ends before its header does"))?;
        buffer.extend_from_slice(&piece.map_err(bad_request)?);
    }
}

/// The body that carries a snapshot. Its bytes are read from disk by a blocking task as fast as the
/// socket takes them.
pub(super) fn snapshot_stream(
    header: Bytes,
    snapshot: &Snapshot,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    let mut reader = snapshot.open()?;
    let (sender, receiver) = tokio::sync::mpsc::channel(SNAPSHOT_PIECES_IN_FLIGHT);
    supervise::blocking_beside("reading a snapshot", move || {
        loop {
            let piece = read_piece(&mut reader);
            let last = !matches!(&piece, Ok(bytes) if !bytes.is_empty());
            let ended = matches!(&piece, Ok(bytes) if bytes.is_empty());
            if ended || sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    let head = [Ok(Bytes::copy_from_slice(&length.to_be_bytes())), Ok(header)];
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok(futures_util::stream::iter(head).chain(body))
}

fn read_piece(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(SNAPSHOT_PIECE_BYTES);
    reader.take(SNAPSHOT_PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(Bytes::from(piece))
}

fn encode(response: &Response) -> Result<Vec<u8>, HttpError> {
    postcard::to_stdvec(response).map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> HttpError {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn bad_request(error: impl std::fmt::Display) -> HttpError {
    (StatusCode::BAD_REQUEST, error.to_string())
}
