//! Against sockets that answer, hang up or stay silent.

use std::sync::atomic::AtomicU32;

use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::http::shared_client;
use crate::query::Query;
use crate::tls::Tls;

/// What a server of a test does with each request.
#[derive(Clone, Copy)]
enum Does {
    /// Answers with a status, headers and a body.
    Answer(u16, &'static str, &'static str),
    /// Reads it and closes the connection.
    HangUp,
    /// Reads it and says nothing.
    Nothing,
}

struct Server {
    address: String,
    requests: Arc<AtomicU32>,
}

async fn server(does: Does) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            counted.fetch_add(1, Ordering::SeqCst);
            match does {
                Does::Answer(status, headers, body) => {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                }
                Does::HangUp => {}
                Does::Nothing => silent.push(stream),
            }
        }
    });
    Server { address, requests }
}

impl Server {
    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An address at which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn transport(addresses: &[&str]) -> Transport {
    let addresses: Vec<_> = addresses.iter().map(|&address| address.to_owned()).collect();
    let settings = Settings {
        answer_timeout: Duration::from_secs(5),
        failover_after: Duration::from_millis(300),
        retry_for: Duration::ZERO,
        reads_own_writes: true,
    };
    let tls = Tls::default().config(false).unwrap();
    let http = shared_client(Duration::from_secs(1), HeaderMap::new(), tls).unwrap();
    Transport::new(http, &addresses, 0, settings)
}

const TRUE: Does = Does::Answer(200, "X-Quorate-Index: 7\r\n", "true");
const STOPPING: Does = Does::Answer(503, "Retry-After: 1\r\n", "this server is stopping");

fn write() -> Call {
    Call::put("/v1/kv/a").body("1")
}

#[tokio::test]
async fn a_write_that_was_never_sent_goes_to_the_next_server() {
    let good = server(TRUE).await;
    let transport = transport(&[&nobody().await, &good.address]);
    let served = transport.send(&write()).await.unwrap();
    assert_eq!((served.answer.status, served.is_repeated), (200, false));
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_not_sent_again() {
    let (bad, good) = (server(Does::HangUp).await, server(TRUE).await);
    let transport = transport(&[&bad.address, &good.address]);
    let error = transport.send(&write()).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(good.requests(), 0);
    // The next request goes to the other server, whose turn it is while the first one is avoided.
    assert_eq!(transport.send(&write()).await.unwrap().answer.status, 200);
    assert_eq!((bad.requests(), good.requests()), (1, 1));
}

#[tokio::test]
async fn an_idempotent_write_is_sent_again_and_says_so() {
    let (bad, good) = (server(Does::Nothing).await, server(TRUE).await);
    let transport = transport(&[&bad.address, &good.address]);
    let served = transport.send(&write().idempotent()).await.unwrap();
    assert!(served.is_repeated);
    assert_eq!((bad.requests(), good.requests()), (1, 1));
}

#[tokio::test]
async fn a_server_that_takes_nothing_sends_even_a_write_to_the_next() {
    for refusal in
        [STOPPING, Does::Answer(429, "", "busy"), Does::Answer(500, "", "No cluster leader")]
    {
        let (bad, good) = (server(refusal).await, server(TRUE).await);
        let transport = transport(&[&bad.address, &good.address]);
        assert_eq!(transport.send(&write()).await.unwrap().answer.status, 200);
        assert_eq!(bad.requests(), 1);
    }
}

#[tokio::test]
async fn a_status_of_health_is_an_answer_although_it_has_the_status_of_a_refusal() {
    for status in [429, 503] {
        let unhealthy = Does::Answer(status, "Content-Type: application/json\r\n", "{}");
        let (asked, other) = (server(unhealthy).await, server(TRUE).await);
        let transport = transport(&[&asked.address, &other.address]);
        assert_eq!(
            transport
                .send(&Call::get("/v1/operator/autopilot/health", &Query::new()))
                .await
                .unwrap()
                .answer
                .status,
            status
        );
        assert_eq!(other.requests(), 0);
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_outcome_ends_a_write() {
    for status in [500, 503] {
        let unknown = Does::Answer(status, "", "outcome unknown: it was handed on");
        let (bad, good) = (server(unknown).await, server(TRUE).await);
        let transport = transport(&[&bad.address, &good.address]);
        let error = transport.send(&write()).await.unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
        assert_eq!(good.requests(), 0);
    }
}

#[tokio::test]
async fn a_refusal_by_the_cluster_is_the_answer() {
    let bad = server(Does::Answer(500, "", "invalid session \"x\"")).await;
    let good = server(TRUE).await;
    let transport = transport(&[&bad.address, &good.address]);
    let served = transport.send(&write()).await.unwrap();
    assert_eq!((served.answer.status, good.requests()), (500, 0));
}

#[tokio::test]
async fn what_nobody_takes_ends_with_what_was_said() {
    let (one, two) = (server(STOPPING).await, server(STOPPING).await);
    let error = transport(&[&one.address, &two.address]).send(&write()).await.unwrap_err();
    assert_eq!(error.status(), Some(503));
    let error = transport(&[&nobody().await, &nobody().await]).send(&write()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_definite(), "{error:?}");
    let silent = server(Does::Nothing).await;
    let transport = transport(&[&silent.address, &nobody().await]);
    let error = transport.send(&write().idempotent()).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
}

#[tokio::test]
async fn a_stale_read_waits_for_the_clients_own_writes() {
    let good = server(TRUE).await;
    let transport = transport(&[&good.address]);
    let stale = Call::get("/v1/kv/a", &Query::new().stale());
    assert_eq!(transport.send(&stale).await.unwrap().answer.status, 200);
    transport.send(&write()).await.unwrap();
    assert_eq!(transport.written.load(Ordering::Relaxed), 7);
    // A new cluster at the old addresses begins with a lower index.
    transport.written.store(9, Ordering::Relaxed);
    transport.send(&write()).await.unwrap();
    assert_eq!(transport.written.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn servers_that_are_named_are_tried_last() {
    let good = server(TRUE).await;
    let transport = transport(&[&nobody().await]);
    transport.learn(&[good.address.clone(), good.address.clone(), "ftp://x".to_owned()]);
    assert_eq!(transport.addresses().len(), 2);
    assert_eq!(transport.send(&write()).await.unwrap().answer.status, 200);
}
