//! Receives a backup into a file beside the data.
//!
//! The file has no name, so nothing is left of it when this process ends, however it ends. What is received
//! takes neither memory nor the place of a restore, so a client that is slow, or has gone without a word,
//! holds up nobody; and it is given up once it is too slow.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use super::busy;
use crate::host::{disk, supervise};
use crate::http::call::Call;
use crate::http::error::ApiError;
use crate::http::incoming::{BodyLimit, Pace};

/// The largest backup, compressed.
const MAX_ARCHIVE_BYTES: usize = 512 * 1024 * 1024;

/// The slowest client that is waited for: 35 kB/s. The largest backup may take four hours.
const PACE: Pace = Pace { bytes: 1024 * 1024, span: Duration::from_secs(30) };

/// How many backups are received at a time. Each has a file open.
const UPLOADS_MAX: usize = 8;

/// After this many bytes it is looked again whether there is room on the disk.
const LOOK_EVERY_BYTES: usize = 16 * 1024 * 1024;

static UPLOADS: Semaphore = Semaphore::const_new(UPLOADS_MAX);

/// The archive that a request brings.
///
/// # Errors
/// 413: it is too large; 408: it comes too slowly; 503: others are being received, or there is too little
/// room on the disk.
pub(super) async fn receive(call: &mut Call) -> Result<File, ApiError> {
    let _place = UPLOADS
        .try_acquire()
        .map_err(|_| busy("as many snapshots are being received as there is room for"))?;
    let mut incoming = call.incoming(BodyLimit::fixed(MAX_ARCHIVE_BYTES), PACE)?;
    let directory = call.process.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    find_room(&directory).await?;
    let here = directory.clone();
    let file = supervise::blocking("creating a file", move || tempfile::tempfile_in(here)).await;
    let mut file = tokio::fs::File::from_std(file.map_err(|error| not_kept(&error))?);
    let mut look_at = LOOK_EVERY_BYTES;
    while let Some(piece) = incoming.next().await? {
        if incoming.received() >= look_at {
            find_room(&directory).await?;
            look_at += LOOK_EVERY_BYTES;
        }
        file.write_all(&piece).await.map_err(|error| not_kept(&error))?;
    }
    file.flush().await.map_err(|error| not_kept(&error))?;
    Ok(file.into_std().await)
}

/// Refuses what would fill the disk, which ends the server.
async fn find_room(directory: &Path) -> Result<(), ApiError> {
    let directory = directory.to_owned();
    let has_room = supervise::blocking("looking at the disk", move || {
        disk::has_room_for(&directory, LOOK_EVERY_BYTES as u64)
    });
    match has_room.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(busy("the disk of this server has too little room for a snapshot")),
        Err(error) => Err(not_kept(&error)),
    }
}

fn not_kept(error: &io::Error) -> ApiError {
    let text = format!("failed to keep the snapshot while it is received: {error}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
