//! Instances of a service that come, go and die.

use std::net::SocketAddr;
use std::time::Duration;

use jepsen_style_tests::Result;
use jepsen_style_tests::http::Http;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How long an instance works on an answer, so that there is always something in flight.
const WORK: Duration = Duration::from_millis(5);
/// How often the cluster looks whether an instance is there.
const LOOK_EVERY: &str = "1s";

/// An HTTP server that says its number.
pub(super) struct Instance {
    number: usize,
    address: SocketAddr,
    leave: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Instance {
    pub(super) async fn start(number: usize) -> Self {
        // HAProxy gives one address to one server only, unless told otherwise (`resolve-opts allow-dup-ip`).
        let listener = TcpListener::bind(format!("127.0.0.{}:0", 10 + number)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leave, left) = oneshot::channel();
        let running = tokio::spawn(serve(listener, number, left));
        Self { number, address, leave, running }
    }

    fn id(&self) -> String {
        format!("web-{}", self.number)
    }

    /// Registers it, with a check by which the cluster notices its death.
    pub(super) async fn register(&self, node: &Http) -> Result<()> {
        let check = json!({"TCP": self.address, "Interval": LOOK_EVERY, "Status": "passing"});
        let (ip, port) = (self.address.ip(), self.address.port());
        let body =
            json!({"Name": "web", "ID": self.id(), "Address": ip, "Port": port, "Check": check});
        node.must_put("/v1/agent/service/register", body.to_string()).await?;
        Ok(())
    }

    /// Takes it out of service, or back.
    pub(super) async fn drain(&self, node: &Http, drained: bool) -> Result<()> {
        let path = format!("/v1/agent/service/maintenance/{}?enable={drained}", self.id());
        node.must_put(&path, "").await?;
        Ok(())
    }

    /// Leaves the catalogue. It goes on answering, as who leaves should until the proxies know of it.
    pub(super) async fn deregister(&self, node: &Http) -> Result<()> {
        node.must_put(&format!("/v1/agent/service/deregister/{}", self.id()), "").await?;
        Ok(())
    }

    /// Ends in order: takes no more requests, and answers those that it has.
    pub(super) async fn end(self) {
        let _ = self.leave.send(());
        self.running.await.unwrap();
    }

    /// Dies with whatever it has in hand, and tells nobody.
    pub(super) fn die(self) {
        self.running.abort();
    }
}

async fn serve(listener: TcpListener, number: usize, left: oneshot::Receiver<()>) {
    let mut requests = JoinSet::new();
    let accepting = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                requests.spawn(answer(stream, number));
            }
            while requests.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = left => {}
    }
    drop(listener);
    while requests.join_next().await.is_some() {}
}

/// Answers one request, as far as its client lets it.
async fn answer(mut stream: TcpStream, number: usize) {
    let mut request = [0; 1_024];
    if let Ok(1..) = stream.read(&mut request).await {
        tokio::time::sleep(WORK).await;
        let body = number.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}
