//! The threads of consensus, and those of clients.
//!
//! A server has two runtimes. One carries consensus, the RPC port and everything else that keeps the cluster
//! alive; the other one the HTTP API. Each has a thread for each processor, and the operating system divides the
//! processors among all threads. So however much work clients make (a thousand streams that are opened at once, lists
//! of a hundred thousand instances), heartbeats and votes pass in time, and no server is taken for lost because it is
//! busy.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of one runtime for what blocks, at most: snapshots, look-ups of names (at most 32 at a time), compression,
/// backups.
const BLOCKING_MAX: usize = 128;
/// How long one of them is kept: longer than any process lives.
const BLOCKING_KEPT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The runtime of consensus, and of whatever is not for clients. Threads that may block are kept once there are
/// any: where the system gives no more, what needs one waits for one of these, and does not fail.
///
/// # Errors
/// When the system gives no threads.
pub fn main_runtime() -> io::Result<Runtime> {
    let runtime = build("quorate")?;
    runtime.block_on(first_blocking(runtime.handle()))?;
    Ok(runtime)
}

/// The runtime of the HTTP API. What runs on it ends when this is dropped.
#[derive(Debug)]
pub struct ClientThreads(Option<Runtime>);

impl ClientThreads {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub async fn start() -> io::Result<Self> {
        let this = Self(Some(build("quorate-http")?));
        first_blocking(&this.handle()).await?;
        Ok(this)
    }

    /// Where to start tasks that serve clients.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for ClientThreads {
    fn drop(&mut self) {
        // To wait for its threads is not allowed where tasks run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn build(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_keep_alive(BLOCKING_KEPT)
        .build()
}

#[expect(clippy::disallowed_methods, reason = "it does nothing, so it does not panic")]
async fn first_blocking(runtime: &Handle) -> io::Result<()> {
    runtime.spawn_blocking(|| {}).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::supervise::Supervisor;

    #[tokio::test]
    async fn what_serves_clients_runs_on_threads_of_its_own_and_ends_with_them() {
        let threads = ClientThreads::start().await.unwrap();
        let supervisor = Supervisor::default();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let serving = async move {
            let name = std::thread::current().name().map(str::to_owned);
            sender.send(name).unwrap();
            std::future::pending().await
        };
        let task = supervisor.vital_on(&threads.handle(), "serving", serving);
        assert_eq!(receiver.await.unwrap().as_deref(), Some("quorate-http"));
        supervisor.end().await;
        task.await.unwrap();
        drop(threads);
    }
}
