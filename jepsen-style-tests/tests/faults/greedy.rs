//! Clients that take a server's memory: they ask for long answers and do not read them, or send bodies and
//! do not end them. Others are served meanwhile, and the memory that is taken has a limit.

use std::net::Ipv4Addr;
use std::time::Duration;

use jepsen_style_tests::process::resident_kib;
use jepsen_style_tests::{Cluster, Failure, Result};
use quorate_client::http::Http;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Each answer is all of these keys: 20 MB, and a third more as Base64.
const KEYS: usize = 40;
const VALUE_BYTES: usize = 500_000;
/// Answers that nobody reads: 1.7 GB.
const UNREAD: usize = 64;
/// Bodies that are not ended: 400 MB.
const HALF_SENT: usize = 450;
const HALF_BYTES: usize = 900_000;
/// Fewer than a client may have.
const CONNECTIONS_OF_ONE: usize = 100;
/// Either budget is 256 MiB. The rest is the state, the process, and a few answers that are being rendered.
const RESIDENT_KIB_MAX: u64 = 900 * 1024;
/// The server lets an answer wait 10 s for room.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// Sends from one of several addresses, because each may only have so many connections.
async fn send(node: &Http, number: usize, bytes: &[u8]) -> Result<TcpStream> {
    let address = node.base().trim_start_matches("http://");
    let address = address.parse().map_err(|error| Failure::new(format!("{address}: {error}")))?;
    let host = 2 + u8::try_from(number / CONNECTIONS_OF_ONE).expect("few addresses");
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(bytes).await?;
    Ok(stream)
}

/// Whether a request was refused with 503; a little of its answer is read.
async fn is_refused(stream: &mut TcpStream, within: Duration) -> bool {
    let mut head = [0; 12];
    let read = tokio::time::timeout(within, stream.read_exact(&mut head)).await;
    matches!(read, Ok(Ok(_))) && head.ends_with(b" 503")
}

/// A write and a read of somebody else.
async fn is_served(node: &Http, pid: u32, what: &'static str) -> Result<()> {
    let began = std::time::Instant::now();
    node.must_put("/v1/kv/other", what).await?;
    assert_eq!(node.get("/v1/kv/other?raw").await?.text(), what);
    assert!(began.elapsed() < Duration::from_secs(5), "served after {:?}", began.elapsed());
    let resident = resident_kib(pid)?;
    println!("{what}: {} MiB resident", resident / 1024);
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB resident");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_take_without_giving_has_a_limit() {
    let cluster = Cluster::start(1).await.unwrap();
    let (node, pid) = (cluster.http(1), cluster.pid(1).unwrap());
    let value = "v".repeat(VALUE_BYTES);
    for number in 0..KEYS {
        node.must_put(&format!("/v1/kv/large/{number}"), value.clone()).await.unwrap();
    }

    let mut unread = Vec::new();
    for number in 0..UNREAD {
        unread.push(
            send(&node, number, b"GET /v1/kv/large/?recurse HTTP/1.1\r\nHost: q\r\n\r\n")
                .await
                .unwrap(),
        );
    }
    is_served(&node, pid, "long answers are not read").await.unwrap();
    let answered = unread.iter_mut().map(|stream| is_refused(stream, REFUSED_WITHIN));
    let answered = futures_util::future::join_all(answered).await;
    assert!(answered.contains(&true), "there is no room for all of them");
    assert!(answered.contains(&false), "there is room for some");
    is_served(&node, pid, "some were refused").await.unwrap();
    drop(unread);

    let head = format!(
        "PUT /v1/catalog/register HTTP/1.1\r\nHost: q\r\nContent-Length: {}\r\n\r\n",
        HALF_BYTES + 1
    );
    let half: Vec<u8> = head.bytes().chain(std::iter::repeat_n(b' ', HALF_BYTES)).collect();
    let mut half_sent = Vec::new();
    for number in 0..HALF_SENT {
        half_sent.push(send(&node, number, &half).await.unwrap());
    }
    is_served(&node, pid, "bodies are not ended").await.unwrap();
    let answered = half_sent.iter_mut().map(|stream| is_refused(stream, Duration::from_secs(5)));
    let answered = futures_util::future::join_all(answered).await;
    assert!(answered.contains(&true), "there is no room for all of them");
    assert!(answered.contains(&false), "there is room for some");
    drop(half_sent);

    // The room is given back, as soon as the server has noticed that they have gone.
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    while node.get("/v1/kv/large/?recurse").await.unwrap().status != 200 {
        assert!(std::time::Instant::now() < deadline, "the room is not given back");
    }
    cluster.finish().await.unwrap();
}
