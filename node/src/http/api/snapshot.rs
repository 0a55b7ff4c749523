//! `/v1/snapshot`: a backup of all that clients see, and its restoration.
//!
//! A backup is checked to its end, on this node, before anything is replicated; then it goes through
//! the log in pieces and takes effect everywhere in one entry.

mod archive;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use quorate_storage::Topic;
use quorate_storage::command::Command;
use quorate_storage::machine::Published;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::host::supervise;
use crate::http::blocking;
use crate::http::call::{BodyLimit, Call};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;

/// The largest backup, compressed.
const MAX_ARCHIVE_BYTES: usize = 512 * 1024 * 1024;

/// The largest backup, unpacked.
const MAX_BACKUP_BYTES: u64 = 1024 * 1024 * 1024;

/// How much of a backup one command carries.
const PIECE_BYTES: usize = 256 * 1024;

/// How many blocks of a backup may wait for a slow client.
const BLOCKS_AHEAD: usize = 8;

/// How many backups are handed out at the same time: each holds a thread while its client reads.
const SAVES_MAX: usize = 4;

/// A client that takes nothing of its backup for this long has gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Backups being handed out by this process.
static SAVES: Semaphore = Semaphore::const_new(SAVES_MAX);

/// Backups being taken in by this process: each may be held in memory several times.
static RESTORES: Semaphore = Semaphore::const_new(1);

/// The type that Consul gives its snapshots.
const GZIP: HeaderValue = HeaderValue::from_static("application/x-gzip");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/snapshot")
            .get(|call| Box::pin(save(call)))
            .put(|call| Box::pin(restore(call))),
    ]
}

async fn save(call: Call) -> Answer {
    let options = call.read_options()?;
    call.check_datacenter()?;
    let turn = SAVES.try_acquire().map_err(|_| busy("too many snapshots are being saved"))?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let index = published.state.topic_index(&Topic::Everything);
    let body = Body::from_stream(blocks(published, turn));
    let reply = Reply::stream(body, GZIP);
    Ok(reply.with_read_headers(index, call.node.contact(), options.effective))
}

fn busy(what: &str) -> ApiError {
    let text = format!("{what}, try again later");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Packs one version of the state on a thread of its own, block by block as the client takes them.
fn blocks(
    version: Arc<Published>,
    turn: SemaphorePermit<'static>,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    let runtime = Handle::current();
    supervise::blocking_beside("packing a snapshot", move || {
        let _turn = turn;
        let blocks = Blocks { sender: &sender, runtime };
        if let Err(error) = archive::pack(&version, blocks) {
            // The client sees a body that breaks off, and no valid archive.
            let _ = sender.try_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// Sends what is written to it; fails when the client has gone.
struct Blocks<'a> {
    sender: &'a mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl io::Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = Bytes::copy_from_slice(bytes);
        let sent = self.sender.send_timeout(Ok(block), SEND_TIMEOUT);
        self.runtime.block_on(sent).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn restore(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let _turn = RESTORES.try_acquire().map_err(|_| busy("another snapshot is being restored"))?;
    let body = call.large_body(BodyLimit::fixed(MAX_ARCHIVE_BYTES)).await?;
    let running = call.node.published();
    let checked = supervise::blocking("checking a snapshot", move || {
        let check = || {
            let backup = archive::unpack(&body, MAX_BACKUP_BYTES)?;
            running.state.try_restore(backup.clone()).map_err(|error| error.to_string())?;
            Ok::<_, String>(backup)
        };
        Ok(check())
    });
    let backup = checked
        .await
        .map_err(|error| ApiError::internal(format!("failed to read snapshot: {error}")))?
        .map_err(ApiError::internal)?;
    let id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
    // That it was restored is logged by every server, this one included.
    tracing::info!(bytes = backup.len(), "restoring a backup that a client sent");
    call.propose(Command::RestoreBegin { id: Arc::clone(&id) }).await?;
    let mut offset = 0;
    for start in (0..backup.len()).step_by(PIECE_BYTES) {
        let piece = backup.slice(start..backup.len().min(start + PIECE_BYTES));
        let length = piece.len() as u64;
        // Copied, or the first piece that a node keeps would keep the whole archive alive.
        let piece = Bytes::copy_from_slice(&piece);
        call.propose(Command::RestorePiece { id: Arc::clone(&id), offset, piece }).await?;
        offset += length;
    }
    call.propose(Command::RestoreFinish { id }).await?;
    Ok(Reply::empty())
}
