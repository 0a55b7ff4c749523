//! `PUT /v1/snapshot`: a backup is received, checked to its end, and handed to the cluster.
//!
//! It is kept in a file and read twice, each time as a stream, so that its size is on the disk and not in
//! memory. One is checked and handed over at a time; whoever still sends holds up nobody.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::command::Command;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::{archive, busy, upload};
use crate::host::supervise;
use crate::http::call::Call;
use crate::http::endpoint::Answer;
use crate::http::error::ApiError;
use crate::http::reply::Reply;

/// The largest backup, unpacked. All of it has to go through the log, and into the memory of every server.
const MAX_BACKUP_BYTES: u64 = 1024 * 1024 * 1024;

/// How much of a backup one command carries.
const PIECE_BYTES: usize = 256 * 1024;

/// How many pieces are unpacked before they can be proposed.
const PIECES_AHEAD: usize = 2;

/// How long a backup that was received may wait for another one to be restored.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Backups that are checked and handed over by this process: the rows of each are in memory meanwhile.
static RESTORES: Semaphore = Semaphore::const_new(1);

pub(super) async fn restore(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let archive = Arc::new(upload::receive(&mut call).await?);
    let _turn = turn().await?;
    check(&call, Arc::clone(&archive)).await?;
    let id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
    log_begin(&call, &archive);
    call.propose(Command::RestoreBegin { id: Arc::clone(&id) }).await?;
    hand_over(&call, &id, archive).await?;
    call.propose(Command::RestoreFinish { id }).await?;
    Ok(Reply::empty())
}

async fn turn() -> Result<SemaphorePermit<'static>, ApiError> {
    let other = || busy("another snapshot is being restored");
    let turn = tokio::time::timeout(TURN_TIMEOUT, RESTORES.acquire()).await.map_err(|_| other())?;
    turn.map_err(|_| other())
}

/// Who asked. That it was restored is logged by every server, this one included.
fn log_begin(call: &Call, archive: &File) {
    let facts = call.facts();
    let client = facts.client.map_or_else(String::new, |client| client.to_string());
    let archive_bytes = archive.metadata().map_or(0, |about| about.len());
    tracing::info!(
        %client,
        agent = %facts.agent_claimed,
        archive_bytes,
        "restoring a backup that a client sent: it replaces what clients had stored"
    );
}

/// Reads a backup to its end; nothing is changed.
async fn check(call: &Call, archive: Arc<File>) -> Result<(), ApiError> {
    let running = call.node.published();
    let checked = supervise::blocking("checking a snapshot", move || {
        let check = |content: &mut dyn Read| {
            running.state.try_restore(content).map_err(|error| error.to_string())
        };
        Ok(unpack(&archive, check))
    });
    checked.await.map_err(|error| unreadable(&error))?.map_err(ApiError::internal)
}

/// Hands a backup over, piece by piece.
async fn hand_over(call: &Call, id: &Arc<str>, archive: Arc<File>) -> Result<(), ApiError> {
    let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
    let unpacking = supervise::blocking("unpacking a snapshot", move || {
        Ok(unpack(&archive, |content| send_pieces(content, &sender)))
    });
    // When this ends early, so does the other: nobody receives its pieces.
    let proposing = async move {
        let mut offset = 0;
        while let Some(piece) = pieces.recv().await {
            let (id, length) = (Arc::clone(id), Bytes::len(&piece) as u64);
            call.propose(Command::RestorePiece { id, offset, piece }).await?;
            offset += length;
        }
        Ok::<_, ApiError>(())
    };
    let (unpacked, proposed) = tokio::join!(unpacking, proposing);
    proposed?;
    unpacked.map_err(|error| unreadable(&error))?.map_err(ApiError::internal)
}

fn send_pieces(content: &mut dyn Read, pieces: &mpsc::Sender<Bytes>) -> Result<(), String> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let next = (&mut *content).take(PIECE_BYTES as u64).read_to_end(&mut piece);
        if next.map_err(|error| error.to_string())? == 0 {
            return Ok(());
        }
        pieces.blocking_send(piece.into()).map_err(|_| "the restore was given up".to_owned())?;
    }
}

fn unpack(
    archive: &File,
    take: impl FnOnce(&mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let mut archive = archive;
    archive.rewind().map_err(|error| error.to_string())?;
    archive::unpack(archive, MAX_BACKUP_BYTES, take)
}

fn unreadable(error: &io::Error) -> ApiError {
    ApiError::internal(format!("failed to read snapshot: {error}"))
}
