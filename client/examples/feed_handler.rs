//! A process that tells its facts with each heartbeat: name, pid, version, and how far it has counted.
//!
//!     cargo run --example feed_handler -- feed feed-1
//!
//! `cargo run --example table -- feed` shows it.

use std::time::Duration;

use quorate_client::{Client, ServiceStatus};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().unwrap_or_else(|| "feed".to_owned());
    let id = arguments.next().unwrap_or_else(|| format!("{service}-1"));

    let client = Client::from_env()?;
    let registration = client
        .register(service)
        .id(id)
        .version("4.0")
        .ttl(Duration::from_secs(3))
        .by_heartbeats()
        .await?;
    println!("registered {}", registration.id());
    let mut end = signal(SignalKind::terminate())?;
    let mut messages = 0_u64;
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                messages += 1_000;
                registration.set_counter(messages);
                if messages == 5_000 {
                    registration.set_status(ServiceStatus::Warning, "the source is slow");
                }
            }
            _ = end.recv() => break,
        }
    }
    registration.shutdown().await?;
    println!("deregistered");
    Ok(())
}
