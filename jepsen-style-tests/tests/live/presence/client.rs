//! A client of `PUT /v1/quorate/presence` that goes elsewhere when its server is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jepsen_style_tests::presence::Client;
use serde_json::json;
use tokio::task::JoinHandle;

/// Pause before the next server is tried.
const PAUSE: Duration = Duration::from_millis(50);

/// What all minders of a test have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Presences that are open.
    pub(crate) open: AtomicU64,
    /// How often one was opened.
    pub(crate) opened: AtomicU64,
    /// Frames `moved`.
    pub(crate) moved: AtomicU64,
}

/// A process that keeps its presence open, at whatever server.
#[derive(Debug)]
pub(crate) struct Minder {
    task: JoinHandle<()>,
}

impl Minder {
    /// Opens the presence of an instance at the first of some servers, and at the next one when that is gone.
    pub(crate) fn start(servers: Vec<String>, number: u64, seen: Arc<Seen>) -> Self {
        Self { task: tokio::spawn(mind(servers, number, seen)) }
    }
}

/// The process ends, and with it its connection.
impl Drop for Minder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn mind(servers: Vec<String>, number: u64, seen: Arc<Seen>) {
    let owner = format!("0c8fdd3c-6b1c-4d7e-9d7c-{number:012x}");
    let id = format!("minded-{number}");
    let mut attempt = 0;
    for server in servers.iter().cycle() {
        attempt += 1;
        let body = json!({
            "ID": id, "Name": "minded", "Address": "10.1.2.3", "Port": 80,
            "Owner": owner, "Attempt": attempt,
        });
        let Ok(mut client) = Client::open(server, "", &body).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let _open = Count::begin(&seen);
        loop {
            match client.frame().await {
                Ok((name, _)) if name == "moved" => {
                    seen.moved.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Ok((name, _)) if name == "replaced" || name == "deregistered" => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

/// One presence that is open.
struct Count<'a>(&'a Seen);

impl<'a> Count<'a> {
    fn begin(seen: &'a Seen) -> Self {
        seen.open.fetch_add(1, Ordering::SeqCst);
        seen.opened.fetch_add(1, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
