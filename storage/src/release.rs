//! Memory that comes back behind the scenes.
//!
//! To free a million rows takes a good part of a second. Who happens to drop the last version of the
//! state that has them would stop for so long: the apply task, or whoever renders an answer. So what
//! is deleted in bulk is handed to a thread, which holds it until nothing else does, and then frees
//! it. Nothing that the cluster agrees on depends on when that is.

use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Fewer rows are freed where they are: that takes less than a millisecond.
const ROWS_MIN: usize = 1_024;

/// How often the thread looks whether what it has is still shared. Versions of the state live as long
/// as an answer is rendered or a snapshot is written.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The thread's queue; `None` where no thread could be started.
static QUEUE: OnceLock<Option<Sender<Box<dyn Bulk>>>> = OnceLock::new();

/// Many rows that nobody needs any more, though a reader may still share them.
pub(crate) trait Bulk: Send {
    /// How many rows there are, roughly.
    fn rows(&self) -> usize;
    /// Frees what nothing else shares; returns the rest.
    fn free(self: Box<Self>) -> Vec<Box<dyn Bulk>>;
}

/// Frees what was deleted, but not now and not here.
pub(crate) fn later(deleted: impl Bulk + 'static) {
    if deleted.rows() < ROWS_MIN {
        return;
    }
    if let Some(queue) = QUEUE.get_or_init(start) {
        // The thread lives as long as the process; if it is gone, the rows are freed here.
        let _ = queue.send(Box::new(deleted));
    }
}

fn start() -> Option<Sender<Box<dyn Bulk>>> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("release".to_owned());
    let started = thread.spawn(move || {
        let mut shared: Vec<Box<dyn Bulk>> = Vec::new();
        loop {
            let more = if shared.is_empty() {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                receiver.recv_timeout(LOOK_AGAIN)
            };
            match more {
                Ok(deleted) => shared.push(deleted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            shared = shared.into_iter().flat_map(Bulk::free).collect();
        }
    });
    started.is_ok().then_some(sender)
}
