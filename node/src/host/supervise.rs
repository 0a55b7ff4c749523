//! Every end of a task is noticed: that of a vital task ends the process, a contained one's panic is logged.
//!
//! * A **vital** task ([`Supervisor::vital`]) is one that nothing works without: the waking of queries,
//!   the proposer, the barrier, the listeners. If it panics, or returns although the process is not
//!   stopping, the process ends, in order and with its message ([`Supervisor::failed`]): a server that is
//!   down is seen and replaced, one that sleeps is not.
//! * A **finite** task ([`Supervisor::finite`]) has an end, after which it is not needed. Only its panic ends
//!   the process.
//! * A **contained** task ([`contained`]) is one of many: a connection, a request, a batch on its way. Its
//!   panic is logged with its name, and whoever waits for it finds out.
//! * Tasks of libraries, openraft's above all, have owners that do not react. [`watch_panics`] hears of
//!   every panic of the process: one that nobody contains is taken for that of a vital task.
//!
//! Nothing else in this crate spawns a task: its clippy settings ban it.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use quorate_storage::panics;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

thread_local! {
    /// Whether what this thread does at present has somebody who deals with its panics.
    static IN_CONTAINED_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Owns the tasks of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    tasks: TaskTracker,
    ended: CancellationToken,
    failure: watch::Sender<Option<String>>,
    /// Whether vital tasks may return.
    is_stopping: Arc<AtomicBool>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            failure: watch::Sender::new(None),
            is_stopping: Arc::default(),
        }
    }
}

/// A piece of work ended in a panic; the text says which, and with what message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} panicked: {message}")]
pub struct Panicked {
    what: &'static str,
    message: String,
}

impl Supervisor {
    /// Starts a task that ends with the node. If it panics, or returns before [`Self::begin_stop`], the
    /// process ends.
    pub fn vital(
        &self,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.vital_on(&Handle::current(), what, work)
    }

    /// The same on the threads of another runtime.
    pub fn vital_on(
        &self,
        runtime: &Handle,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let this = self.clone();
        self.finite_on(runtime, what, async move {
            work.await;
            if !this.is_stopping.load(Ordering::Relaxed) {
                this.fail(format!("{what} returned unexpectedly; nothing works without it"));
            }
        })
    }

    /// Starts a task that ends with the node or before, and whose panic ends the process.
    pub fn finite(
        &self,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.finite_on(&Handle::current(), what, work)
    }

    fn finite_on(
        &self,
        runtime: &Handle,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let this = self.clone();
        let task = async move {
            let ended = this.ended.clone();
            tokio::select! {
                () = ended.cancelled() => {}
                done = catch(what, work) => {
                    if let Err(panicked) = done {
                        this.fail(format!("{panicked}; nothing works without it"));
                    }
                }
            }
        };
        self.tasks.spawn_on(task, runtime)
    }

    /// Does something for somebody else while the node lives. `None` if the node ended first; the work is
    /// dropped then, before [`Supervisor::end`] returns.
    pub async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let work = async {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => None,
                done = work => Some(done),
            }
        };
        self.tasks.track_future(work).await
    }

    /// Says that the process has to end. The first reason counts.
    pub fn fail(&self, reason: String) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                tracing::error!("{reason}: this server has to stop");
                *failure = Some(reason);
            }
            is_first
        });
    }

    /// Resolves when the process has to end, with the reason.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Not while there is a supervisor.
            Err(_) => std::future::pending().await,
        }
    }

    /// From now on a vital task may return.
    pub fn begin_stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Ends every vital or finite task, and what is done [unless it ended](Self::unless_ended), and waits for
    /// them.
    pub async fn end(&self) {
        self.begin_stop();
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts a task whose panic is logged and ends nothing else. Whoever waits for it sees a closed channel.
#[expect(clippy::disallowed_methods, reason = "the owner of tasks")]
pub fn contained<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Result<T, Panicked>> {
    tokio::spawn(catch(what, work))
}

/// Starts the tasks of HTTP/2 streams.
#[derive(Debug, Clone, Copy)]
pub struct Contained;

impl<F> hyper::rt::Executor<F> for Contained
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, work: F) {
        drop(contained("a stream", work));
    }
}

/// Starts a task of a set, whose owner finds out through it how the task ended.
#[expect(clippy::disallowed_methods, reason = "the owner of tasks")]
pub fn spawn_on<T: Send + 'static>(
    set: &mut JoinSet<T>,
    work: impl Future<Output = T> + Send + 'static,
) -> AbortHandle {
    set.spawn(Scope { work: Box::pin(work) })
}

/// Does what blocks on a thread that may.
///
/// # Errors
/// When it fails, or ends in a panic, which is logged.
#[expect(clippy::disallowed_methods, reason = "the owner of tasks")]
pub async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(move || catch_now(what, work)).await;
    done.map_err(io::Error::other)?.map_err(io::Error::other)?
}

/// Starts what blocks, and does not wait for it.
#[expect(clippy::disallowed_methods, reason = "the owner of tasks")]
pub fn blocking_beside(what: &'static str, work: impl FnOnce() + Send + 'static) {
    // A panic is logged; who needs the result finds its channel closed.
    drop(tokio::task::spawn_blocking(move || catch_now(what, work).ok()));
}

/// Does a piece of work; a panic in it is logged and ends here.
///
/// # Errors
/// [`Panicked`].
pub fn catch<T>(
    what: &'static str,
    work: impl Future<Output = T> + Send,
) -> impl Future<Output = Result<T, Panicked>> + Send {
    // Here, not when it is first polled: a future keeps the room of what it was given, so a connection that
    // waits for hours would take that twice.
    let work = Scope { work: Box::pin(work) };
    async move { AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| logged(what, &*payload)) }
}

/// The same for work that awaits nothing.
///
/// # Errors
/// [`Panicked`].
pub(crate) fn catch_now<T>(what: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let work = AssertUnwindSafe(|| within(work));
    panic::catch_unwind(work).map_err(|payload| logged(what, &*payload))
}

fn logged(what: &'static str, payload: &(dyn Any + Send)) -> Panicked {
    let panicked = Panicked { what, message: panics::message(payload) };
    tracing::error!("{panicked}");
    panicked
}

/// Work of which the hook knows, while it is polled, that somebody deals with its panics.
struct Scope<F> {
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        within(|| self.work.as_mut().poll(context))
    }
}

/// Marks this thread for as long as `work` takes, a panic included.
fn within<T>(work: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IN_CONTAINED_TASK.set(self.0);
        }
    }
    let _reset = Reset(IN_CONTAINED_TASK.replace(true));
    work()
}

/// From now on every panic of this process is logged where it happens, and one that nobody contains makes
/// [`Supervisor::failed`] resolve. To be called once, in a process that is nothing but this server.
pub fn watch_panics(supervisor: &Supervisor) {
    let supervisor = supervisor.clone();
    panic::set_hook(Box::new(move |info| {
        let message = panics::message(info.payload());
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        let trace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        tracing::error!(%thread, "panicked at {place}: {message}{trace}");
        if !IN_CONTAINED_TASK.get() && !panics::is_contained() {
            supervisor.fail(format!("a task panicked at {place}: {message}"));
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_panics_is_a_failure_with_its_message() {
        let supervisor = Supervisor::default();
        drop(supervisor.finite("what is done", async {}));
        drop(supervisor.vital("the waking of queries", async {
            tokio::task::yield_now().await;
            panic!("no topic {}", 7)
        }));
        let reason = supervisor.failed().await;
        assert_eq!(reason, "the waking of queries panicked: no topic 7; nothing works without it");
        supervisor.fail("something later".to_owned());
        assert_eq!(supervisor.failed().await, reason, "the first reason counts");
    }

    #[tokio::test]
    async fn a_vital_task_that_returns_is_a_failure_with_its_name() {
        let supervisor = Supervisor::default();
        drop(supervisor.vital("what is well", std::future::pending()));
        drop(supervisor.vital("the waking of queries", tokio::task::yield_now()));
        let reason = supervisor.failed().await;
        assert_eq!(reason, "the waking of queries returned unexpectedly; nothing works without it");
    }

    #[tokio::test]
    async fn a_task_may_return_if_it_is_finite_or_the_process_is_stopping() {
        let supervisor = Supervisor::default();
        supervisor.finite("opening the gate", tokio::task::yield_now()).await.unwrap();
        assert_eq!(*supervisor.failure.borrow(), None);
        supervisor.begin_stop();
        supervisor.vital("a listener", tokio::task::yield_now()).await.unwrap();
        assert_eq!(*supervisor.failure.borrow(), None);
        drop(supervisor.finite("opening the gate", async { panic!("broken") }));
        let reason = supervisor.failed().await;
        assert_eq!(reason, "opening the gate panicked: broken; nothing works without it");
    }

    #[tokio::test]
    async fn a_contained_task_that_panics_tells_who_waits_for_it_and_nobody_else() {
        let supervisor = Supervisor::default();
        let ended = contained("a connection", async { panic!("broken") }).await.unwrap();
        assert_eq!(
            ended,
            Err::<(), _>(Panicked { what: "a connection", message: "broken".to_owned() })
        );
        assert_eq!(contained("a connection", async { 7 }).await.unwrap(), Ok(7));
        let failed = tokio::time::timeout(Duration::from_millis(20), supervisor.failed()).await;
        assert!(failed.is_err());
    }

    #[test]
    fn a_task_takes_the_room_of_its_work_once() {
        let large = async {
            let room = [0_u8; 8 * 1024];
            tokio::task::yield_now().await;
            room.len()
        };
        assert!(size_of_val(&large) >= 8 * 1024);
        assert!(size_of_val(&catch("large work", large)) < 256);
    }

    #[tokio::test]
    async fn work_that_blocks_and_panics_is_an_error() {
        let failed = blocking("reading", || -> io::Result<()> { panic!("broken") }).await;
        assert_eq!(failed.unwrap_err().to_string(), "reading panicked: broken");
        assert_eq!(blocking("reading", || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn vital_tasks_end_with_their_supervisor() {
        let supervisor = Supervisor::default();
        let task = supervisor.vital("waiting", std::future::pending());
        supervisor.end().await;
        assert!(task.is_finished());
    }

    #[tokio::test]
    async fn what_is_done_for_others_ends_with_the_supervisor() {
        let supervisor = Supervisor::default();
        assert_eq!(supervisor.unless_ended(async { 7 }).await, Some(7));
        let waits = supervisor.unless_ended(std::future::pending::<()>());
        let (done, ()) = tokio::join!(waits, supervisor.end());
        assert_eq!(done, None);
        assert_eq!(supervisor.unless_ended(async { 7 }).await, None, "nothing is begun after it");
    }

    #[test]
    fn a_thread_is_marked_only_while_somebody_deals_with_its_panics() {
        assert!(!IN_CONTAINED_TASK.get());
        assert!(within(|| IN_CONTAINED_TASK.get()));
        assert!(!IN_CONTAINED_TASK.get());
        let panicked = catch_now("work", || within(|| panic!("broken")));
        assert!(panicked.is_err_and(|panicked| panicked.message == "broken"));
        assert!(!IN_CONTAINED_TASK.get(), "a panic resets the mark");
    }
}
