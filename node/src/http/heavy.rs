//! Where long answers are rendered: beside the runtime's own threads.
//!
//! A list of forty megabytes takes a few hundred milliseconds to render. Done like any other step of a
//! request it would hold up a thread that also carries Raft: heartbeats, votes, elections. So a long
//! answer is rendered where blocking is allowed, a few at a time; a short one, which is nearly every
//! one, is rendered at once.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;
use tokio::time::Instant;

use super::error::ApiError;
use super::{budget, limits};

/// Answers that are estimated to be longer are rendered aside. Rendering so much takes a few
/// milliseconds, the hand-over some tens of microseconds.
pub(super) const INLINE_BYTES_MAX: usize = 256 * 1024;

/// How many long answers are rendered or compressed at the same time.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(limits::get().long_answers_at_once));

/// Filters with regular expressions, one at a time: they hold up each other, and nobody else.
static FILTERS: Semaphore = Semaphore::const_new(1);

/// Pages of streams' lists, one at a time.
static PAGES: Semaphore = Semaphore::const_new(1);

/// Waits for the turn to ask a filter with regular expressions of rows.
///
/// # Errors
/// 503: others took too long.
pub(super) async fn turn_to_filter(
    deadline: Instant,
) -> Result<SemaphorePermit<'static>, ApiError> {
    budget::turn_until(&FILTERS, deadline).await
}

/// Renders an answer of about so many bytes.
///
/// # Errors
/// 503: the answer is a long one, and clients do not read as many as there is room for.
pub(super) async fn render<T>(bytes: usize, render: impl FnOnce() -> T) -> Result<T, ApiError> {
    if is_long(bytes) { render_long(budget::patience(), render).await } else { Ok(render()) }
}

/// Whether an answer of about so many bytes is rendered aside.
pub(super) const fn is_long(bytes: usize) -> bool {
    bytes > INLINE_BYTES_MAX
}

/// Renders a long answer, which may wait for its turn until `deadline`.
///
/// # Errors
/// 503: clients do not read as many long answers as there is room for.
pub(super) async fn render_long<T>(
    deadline: Instant,
    render: impl FnOnce() -> T,
) -> Result<T, ApiError> {
    if !can_step_aside() {
        return Ok(render());
    }
    let _turn = budget::turn_for_an_answer(&TURNS, deadline).await?;
    Ok(task::block_in_place(render))
}

/// Works on a long answer that is in memory already, such as compressing it: that needs a turn, but no room
/// for the answer.
///
/// # Errors
/// 503: the others took too long for a turn to come.
pub(super) async fn rework<T>(work: impl FnOnce() -> T) -> Result<T, ApiError> {
    if !can_step_aside() {
        return Ok(work());
    }
    let _turn = budget::turn(&TURNS).await?;
    Ok(task::block_in_place(work))
}

/// Makes a page of a stream's list, one after the other, however many streams begin at once: everybody else goes
/// on meanwhile.
pub(super) async fn page<T>(work: impl FnOnce() -> T) -> T {
    // It is never closed.
    let _turn = PAGES.acquire().await;
    if can_step_aside() { task::block_in_place(work) } else { work() }
}

/// A runtime of one thread, as tests have it, has nowhere to step aside to.
fn can_step_aside() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_runtime_goes_on_while_a_long_answer_is_rendered() {
        let (sender, receiver) = mpsc::channel();
        // With its only thread taken, nothing would send.
        tokio::spawn(async move { sender.send("somebody else's step") });
        let long = tokio::spawn(render(INLINE_BYTES_MAX + 1, move || {
            receiver.recv_timeout(Duration::from_secs(60))
        }));
        assert_eq!(long.await.unwrap().unwrap(), Ok("somebody else's step"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn few_are_rendered_at_the_same_time() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let answers = (0..20).map(|_| {
            tokio::spawn(render(usize::MAX, || {
                let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
                std::thread::sleep(Duration::from_millis(2));
                RUNNING.fetch_sub(1, Ordering::SeqCst);
                running
            }))
        });
        for answer in answers.collect::<Vec<_>>() {
            let running = answer.await.unwrap().unwrap();
            assert!(running <= limits::get().long_answers_at_once, "{running} at once");
        }
    }

    #[tokio::test]
    async fn one_thread_renders_everything_itself() {
        assert_eq!(render(usize::MAX, || 1).await.unwrap(), 1);
        assert_eq!(rework(|| 2).await.unwrap(), 2);
    }
}
