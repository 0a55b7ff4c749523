//! A server that starts again is the member that it was: it neither founds a cluster nor asks to join one. Both
//! cores are kept busy meanwhile, so that whatever a server learns late it learns very late.
//!
//! `QUORATE_ROUNDS=100` restarts as often as that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use jepsen_style_tests::rounds::rounds;
use jepsen_style_tests::{Cluster, Result};

/// Threads that do nothing but take time: twice what this kind of machine has cores.
const BUSY_THREADS: usize = 4;

/// Takes the processors' time until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |stop: Arc<AtomicBool>| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let threads = (0..BUSY_THREADS).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || spin(stop))
        });
        Self { threads: threads.collect(), stop }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A spinning thread does not panic; ignore the error.
            drop(thread.join());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_starts_again_every_time() {
    restart(1, rounds(4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_start_again_every_time() {
    restart(3, rounds(2)).await.unwrap();
}

async fn restart(nodes: u64, times: u32) -> Result<()> {
    let mut cluster = Cluster::start(nodes).await?;
    cluster.http(1).must_put("/v1/kv/round", "0").await?;
    let first: Vec<usize> = lengths(&cluster)?;
    let load = Load::start();
    for round in 1..=times {
        let ids = cluster.ids();
        // In order and by a crash, in turns: what is on the disk differs.
        if round % 2 == 0 {
            cluster.kill_all(&ids)?;
        } else {
            ids.iter().try_for_each(|id| cluster.terminate(*id).map(drop))?;
            for id in &ids {
                cluster.wait_stopped(*id)?;
            }
        }
        cluster.start_all()?;
        // Fails if a server has ended by itself.
        cluster.wait_all_ready().await?;
        let node = cluster.http(1);
        assert_eq!(node.get("/v1/kv/round?raw").await?.body, (round - 1).to_string());
        node.must_put("/v1/kv/round", round.to_string()).await?;
    }
    drop(load);
    for (id, skipped) in cluster.ids().into_iter().zip(first) {
        let log = cluster.log(id)?;
        for words in ["founding the cluster", "asking to join", "waiting for the servers"] {
            let again = &log[skipped..];
            assert!(!again.contains(words), "n{id} was a member already:\n{again}");
        }
    }
    println!("{nodes} server(s) started again {times} times");
    cluster.finish().await
}

/// How much each server has said so far.
fn lengths(cluster: &Cluster) -> Result<Vec<usize>> {
    cluster.ids().into_iter().map(|id| Ok(cluster.log(id)?.len())).collect()
}
