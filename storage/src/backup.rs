//! Backups: all that clients see, as bytes that another cluster can restore.
//!
//! A backup has the form of a snapshot file (checksummed), without what belongs to this cluster only:
//! the origin records, the level of its rules, the history, claims (but for how far their fences have come), and a
//! restore in progress. What a restore makes of it is in
//! [`State::try_restore`](crate::State::try_restore).

use std::io::{self, Write};

use crate::machine::{Published, meta_of};
use crate::snapshot::RecordWriter;
use crate::state::SnapshotRecord;

/// Writes a backup. Many small writes follow: give it a buffered writer.
///
/// # Errors
/// The first error of `out`.
pub fn write<W: Write>(version: &Published, out: W) -> io::Result<W> {
    let mut records = RecordWriter::new(out, &meta_of(version))?;
    let mut encoded = Vec::new();
    version.state.export(&mut |record| {
        if matches!(
            record,
            SnapshotRecord::Origin { .. }
                | SnapshotRecord::Outcome { .. }
                | SnapshotRecord::Answered { .. }
                | SnapshotRecord::Boot { .. }
                | SnapshotRecord::Staged { .. }
                | SnapshotRecord::StagedPiece(_)
                | SnapshotRecord::StagedReservation { .. }
                | SnapshotRecord::StagedNumber(_)
                | SnapshotRecord::Restored(_)
                | SnapshotRecord::Level(_)
                | SnapshotRecord::History(_)
                | SnapshotRecord::HistoryRecord(_)
                | SnapshotRecord::Pool { .. }
                | SnapshotRecord::PoolMember { .. }
                | SnapshotRecord::ClosedSlot { .. }
                | SnapshotRecord::Claim(_)
                | SnapshotRecord::Worker { .. }
                | SnapshotRecord::Views { .. }
                | SnapshotRecord::EmptyNetwork { .. }
        ) {
            return Ok(());
        }
        encoded.clear();
        postcard::to_io(&record, &mut encoded).map_err(io::Error::other)?;
        records.push(&encoded)
    })?;
    records.finish()
}
