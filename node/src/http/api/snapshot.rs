//! `/v1/snapshot`: a backup of all that clients see, and its restoration.
//!
//! A backup is checked to its end, on this node, before anything is replicated; then it goes through
//! the log in pieces and takes effect everywhere in one entry.

mod archive;
mod restore;
mod upload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use quorate_storage::Topic;
use quorate_storage::machine::Published;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::host::supervise;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use quorate_storage::record::Access;

/// How many blocks of a backup may wait for a slow client.
const BLOCKS_AHEAD: usize = 8;

/// How many backups are handed out at the same time: each holds a thread while its client reads.
const SAVES_MAX: usize = 4;

/// A client that takes nothing of its backup for this long has gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Backups being handed out by this process.
static SAVES: Semaphore = Semaphore::const_new(SAVES_MAX);

/// The type that Consul gives its snapshots.
const GZIP: HeaderValue = HeaderValue::from_static("application/x-gzip");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/snapshot")
            .get(Rule::Acl(Access::Write), |call| Box::pin(save(call)))
            .put(Rule::Acl(Access::Write), |call| Box::pin(restore::restore(call))),
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
