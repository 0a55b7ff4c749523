//! A candidate in an election: leads when it is its turn, and tells who leads.
//!
//!     cargo run --example candidate -- elections/scheduler alice
//!
//! Start three of them, and kill the one that leads.

use quorate_client::Client;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let key = arguments.next().unwrap_or_else(|| "elections/scheduler".to_owned());
    let name = arguments.next().unwrap_or_else(|| format!("process-{}", std::process::id()));

    let client = Client::from_env()?;
    let election = client.election(&key);
    let mut leaders = election.watch().start()?;
    let watching = tokio::spawn(async move {
        while let Some(leader) = leaders.changed().await {
            match &*leader {
                Some(leader) => println!("{} leads", leader.name),
                None => println!("nobody leads"),
            }
        }
    });
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let leadership = tokio::select! {
            leadership = election.campaign(&name) => leadership?,
            _ = end.recv() => break,
        };
        // What the leader writes carries the fencing token, so that a later leader's writes win over it.
        println!("elected with fence {}", leadership.fence());
        tokio::select! {
            () = leadership.lost() => println!("lost"),
            _ = end.recv() => {
                leadership.release().await?;
                println!("resigned");
                break;
            }
        }
    }
    client.shutdown().await;
    watching.await?;
    Ok(())
}
