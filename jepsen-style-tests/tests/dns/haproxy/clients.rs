//! Those who ask through a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jepsen_style_tests::Limit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Requests in flight.
pub(super) const AT_ONCE: usize = 4;
/// A proxy has followed a change within this.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests that show who is asked.
const LOOK: usize = 60;
/// A request takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request through the proxy: the number of the instance that answered.
async fn ask(proxy: SocketAddr) -> Result<usize, String> {
    let asking = async {
        let mut stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        let number = answer.rsplit("\r\n").next().and_then(|body| body.parse().ok());
        number.filter(|_| answer.starts_with("HTTP/1.1 200")).ok_or(answer)
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_| "timed out".to_owned())?
}

/// Waits until these answer, and no others.
pub(super) async fn wait_for(proxy: SocketAddr, wanted: &[usize]) {
    let limit = Limit::new(LIMIT);
    loop {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for _ in 0..LOOK {
            match ask(proxy).await {
                Ok(number) => *counts.entry(number).or_default() += 1,
                Err(_) => break,
            }
        }
        if counts.keys().copied().eq(wanted.iter().copied()) {
            return;
        }
        limit.pause(|| format!("requests at {wanted:?}: {counts:?}")).await.unwrap();
    }
}

/// Ask all the time, and keep what failed.
pub(super) struct Clients {
    asked: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(proxy: SocketAddr) -> Self {
        let mut clients = Self {
            asked: Arc::default(),
            failed: Arc::default(),
            is_over: Arc::default(),
            running: Vec::new(),
        };
        for _ in 0..AT_ONCE {
            let (asked, failed) = (Arc::clone(&clients.asked), Arc::clone(&clients.failed));
            let is_over = Arc::clone(&clients.is_over);
            clients.running.push(tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    if let Err(why) = ask(proxy).await {
                        failed.lock().unwrap().push(why);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        clients
    }

    /// Waits until so many have been sent.
    pub(super) async fn wait_asked(&self, wanted: usize) {
        let limit = Limit::new(LIMIT * 3);
        while self.asked.load(Ordering::Relaxed) < wanted {
            limit.pause(|| format!("{wanted} requests: {:?}", self.asked)).await.unwrap();
        }
    }

    /// Ends them; returns how many they sent, and what failed.
    pub(super) async fn finish(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.running {
            client.await.unwrap();
        }
        let failed = std::mem::take(&mut *self.failed.lock().unwrap());
        (self.asked.load(Ordering::Relaxed), failed)
    }
}
