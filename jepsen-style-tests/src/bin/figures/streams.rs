//! Many open streams at one node: what they weigh, and when the last of them has a change.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::connection::{Connection, Prepared};
use crate::held::{self, Held};
use crate::watchers::Woken;

/// The service that all of them follow.
const SERVICE: &str = "figures-followed";
/// Time for a change to reach all of them.
const LIMIT: Duration = Duration::from_secs(30);
/// Large enough for what a stream sends at a time.
const READ_BYTES: usize = 16 * 1024;

/// Opens streams of one service at a node.
///
/// # Errors
/// When one is refused.
pub(crate) async fn open(node: SocketAddr, count: usize) -> Result<Vec<Held>, Failure> {
    let query = format!("service={SERVICE}");
    held::open_all(1, count, |_| {
        let query = query.clone();
        async move { held::stream(node, &query).await }
    })
    .await
}

/// Registers an instance at a node, and waits until all streams have it: the time from when that was acknowledged.
///
/// # Errors
/// When it cannot be registered.
pub(crate) async fn change(
    node: SocketAddr,
    streams: Vec<Held>,
    port: u16,
) -> Result<Woken, Failure> {
    let mut readers = JoinSet::new();
    for stream in streams {
        readers.spawn(read_to_change(stream));
    }
    let body = serde_json::json!({"Name": SERVICE, "Port": port}).to_string();
    let mut writer = Connection::open_alone(node).await?;
    writer.fetch(&Prepared::put("/v1/agent/service/register", body)?).await?;
    let acknowledged = Instant::now();
    let mut woken = Woken { latencies: Vec::with_capacity(readers.len()), errors: 0 };
    let all = async {
        while let Some(reader) = readers.join_next().await {
            match reader.ok().flatten() {
                Some(at) => woken.latencies.push(at.saturating_duration_since(acknowledged)),
                None => woken.errors += 1,
            }
        }
    };
    let in_time = timeout(LIMIT, all).await.is_ok();
    if !in_time {
        woken.errors += readers.len();
    }
    woken.latencies.sort_unstable();
    Ok(woken)
}

/// When the frame of a change came.
async fn read_to_change(mut stream: Held) -> Option<Instant> {
    let mut text = Vec::new();
    loop {
        text.reserve(READ_BYTES);
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
        if String::from_utf8_lossy(&text).contains("event: change") {
            return Some(Instant::now());
        }
    }
}
