//! Clients that use up a server's memory: they request long answers and do not read them, or send bodies and do not
//! end them. Other clients are still served, and the memory that is used has a limit.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;
use jepsen_style_tests::http::AnswerExt as _;
use jepsen_style_tests::process::{resident_kib, resident_peak_kib};
use jepsen_style_tests::{Cluster, Failure, Options, Result};
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

/// Queries that wait for a change of one answer of 4 MB.
const POLLERS: usize = 400;
/// As many answers, each by itself, would be 1.6 GB.
const POLLED_KEYS: usize = 8;
/// What they may take of memory together, beside what they take while they wait. Each answer that is being sent has
/// some of it in buffers.
const POLLED_KIB_MAX: u64 = 150 * 1024;

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
    // All of them are one address's, which leaves something for another.
    let other = node.get("/v1/kv/large/?recurse").await.unwrap();
    assert_eq!(other.status, 200, "{}", other.text());
    let answered = unread.iter_mut().map(|stream| is_refused(stream, REFUSED_WITHIN));
    let answered = join_all(answered).await;
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
    let answered = join_all(answered).await;
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

/// What the clients of one server may take in the following test.
const FEW: usize = 12;
const FEW_OF_ONE: usize = 8;
const FILTER_TIMEOUT: &str = "50ms";
/// Slow clients have to have sent so many bytes within ten seconds.
const MIN_RATE: usize = 8_192;
/// Longer than a connection keeps its place on which nothing was asked.
const SILENT: Duration = Duration::from_millis(1_200);

/// All that comes on a connection until it is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(REFUSED_WITHIN, stream.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "the connection stays open: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_all_it_may_is_told_which_limit_it_has_met() {
    let flags = [
        format!("--http-connections={FEW}"),
        format!("--http-connections-per-client={FEW_OF_ONE}"),
        format!("--http-min-rate={MIN_RATE}"),
        format!("--http-filter-timeout={FILTER_TIMEOUT}"),
    ];
    let options = Options { nodes: 1, flags: flags.into(), ..Options::default() };
    let cluster = Cluster::start_with(options).await.unwrap();
    let node = cluster.http(1);

    // A body that comes too slowly.
    let head = "PUT /v1/kv/slow HTTP/1.1\r\nHost: q\r\nContent-Length: 100000\r\n\r\n";
    let mut slow = send(&node, 0, head.as_bytes()).await.unwrap();

    // A filter that takes long, of rows that are few.
    let meta = serde_json::json!({"m": "v".repeat(500)});
    for number in 0..60 {
        let id = format!("web-{number}");
        let web = serde_json::json!({"Name": "web", "ID": id, "Meta": meta}).to_string();
        node.must_put("/v1/agent/service/register", web).await.unwrap();
    }
    let filtered = async |pattern: &str| {
        let path = "/v1/catalog/service/web?filter=ServiceMeta.m+matches+";
        node.get(&format!("{path}%22{}%22", pattern.replace('+', "%2B"))).await
    };
    let refused = filtered("(v%7B1,25%7D)%7B1,25%7Dz").await.unwrap();
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")));
    assert!(refused.text().contains("--http-filter-timeout"), "{}", refused.text());
    assert_eq!(filtered("^v+$").await.unwrap().status, 200);

    // Connections of one address, and of all: those that ask nothing make room.
    let mut silent = Vec::new();
    for _ in 0..FEW_OF_ONE {
        silent.push(send(&node, CONNECTIONS_OF_ONE, b"").await.unwrap());
    }
    let mut beyond = send(&node, CONNECTIONS_OF_ONE, b"").await.unwrap();
    let told = rest(&mut beyond).await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("Retry-After: 1"), "{told}");
    assert!(told.contains("--http-connections-per-client"), "{told}");
    for _ in 0..FEW_OF_ONE {
        silent.push(send(&node, 2 * CONNECTIONS_OF_ONE, b"").await.unwrap());
    }
    tokio::time::sleep(SILENT).await;
    let asks = b"GET /v1/status/leader HTTP/1.1\r\nHost: q\r\n\r\n";
    let mut asking = Vec::new();
    for number in 0..FEW {
        let mut stream = send(&node, (3 + number / 6) * CONNECTIONS_OF_ONE, asks).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        asking.push((stream, head.ends_with(b" 200")));
    }
    let served = asking.iter().filter(|(_, is_served)| *is_served).count();
    // The slow client has a place, and this test's own connections.
    assert!((FEW / 2..FEW).contains(&served), "{served} of {FEW} are served");

    let told = rest(&mut slow).await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    cluster.finish().await.unwrap();
}

/// The status of an answer, and how long its body is; it is read to its end and not kept.
async fn read_answer(stream: &mut TcpStream) -> Result<(u16, usize)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
    let status = number(head.split_whitespace().nth(1));
    let length = number(head.lines().find_map(|line| line.strip_prefix("Content-Length: ")));
    let (Some(status), Some(length)) = (status, length) else {
        return Err(Failure::new(format!("no answer: {head}")));
    };
    let mut body = vec![0; 256 * 1024];
    let mut left = length;
    while left > 0 {
        let part = left.min(body.len());
        left -= stream.read_exact(&mut body[..part]).await?;
    }
    Ok((u16::try_from(status).unwrap_or(0), length))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_waits_for_one_long_answer_gets_it_and_its_memory_is_that_of_one() {
    let cluster = Cluster::start(1).await.unwrap();
    let (node, pid) = (cluster.http(1), cluster.pid(1).unwrap());
    let value = "v".repeat(380_000);
    for number in 0..POLLED_KEYS {
        node.must_put(&format!("/v1/kv/polled/{number}"), value.clone()).await.unwrap();
    }
    for encoding in ["identity", "gzip"] {
        let now = node.get("/v1/kv/polled/?recurse").await.unwrap();
        let index = now.require_index().unwrap();
        let request = format!(
            "GET /v1/kv/polled/?recurse&index={index}&wait=5m HTTP/1.1\r\nHost: q\r\n\
             Accept-Encoding: {encoding}\r\n\r\n"
        );
        let mut pollers = Vec::new();
        for number in 0..POLLERS {
            pollers.push(send(&node, number, request.as_bytes()).await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let waiting = resident_kib(pid).unwrap();
        let began = std::time::Instant::now();
        node.must_put("/v1/kv/polled/new", encoding).await.unwrap();
        let answers = join_all(pollers.iter_mut().map(read_answer)).await;
        let took = began.elapsed();
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let peak = resident_peak_kib(pid).unwrap();
        println!(
            "{encoding}: {waiting} KiB while they waited, {peak} at most; all read after {took:?}"
        );
        let refused = answers.iter().filter(|(status, _)| *status != 200).count();
        assert_eq!(refused, 0, "of {POLLERS}, {encoding}");
        let lengths: std::collections::BTreeSet<_> =
            answers.iter().map(|(_, length)| length).collect();
        assert_eq!(lengths.len(), 1, "they are one answer: {lengths:?}");
        assert!(peak < waiting + POLLED_KIB_MAX, "{waiting} KiB grew to {peak}");
    }
    cluster.finish().await.unwrap();
}
