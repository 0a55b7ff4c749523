//! A configuration that follows a key, and a graceful end.
//!
//!     cargo run --example configuration -- config/app
//!
//! Write JSON such as `{"workers": 3}` into the key, and see it taken over; write something else, and see it refused.

use quorate_client::Client;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, PartialEq, Deserialize)]
struct Configuration {
    workers: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = std::env::args().nth(1).unwrap_or_else(|| "config/app".to_owned());
    let client = Client::from_env()?;
    // A long poll that never ends. The last good configuration stays in force while no server answers, and when somebody
    // writes nonsense.
    let mut configuration = client.watch_json::<Configuration>(&key).start()?;
    let mut end = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            changed = configuration.changed() => match changed.as_deref() {
                Some(Some(now)) => println!("{} workers", now.workers),
                Some(None) => println!("no configuration: 1 worker"),
                None => break,
            },
            _ = end.recv() => break,
        }
    }
    client.shutdown().await;
    println!("ended");
    Ok(())
}
