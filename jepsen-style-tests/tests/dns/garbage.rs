//! A hundred thousand packets that are no questions, over UDP and TCP: the server lives, and answers afterwards.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use jepsen_style_tests::{Cluster, Limit};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The server answers again within this.
const LIMIT: Duration = Duration::from_secs(20);
/// An answer comes within this, also from a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Packets that are no questions.
const PACKETS: usize = 100_000;
/// After so many the server is asked whether it still answers.
const BURST: usize = 500;

/// One question over UDP, and its answer.
async fn ask(server: SocketAddr, name: &str) -> Option<Message> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question(name)).await.unwrap();
    let mut answer = [0; 4_096];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await.ok()?.unwrap();
    Some(Message::from_vec(&answer[..length]).unwrap())
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// Bytes that are no question, or hardly one: any bytes, or a question of which some are changed or missing.
fn packet(random: &mut ChaCha8Rng) -> Vec<u8> {
    if random.random_bool(0.3) {
        let mut bytes = vec![0; random.random_range(0..700)];
        random.fill(&mut bytes[..]);
        return bytes;
    }
    let names = [
        "consul.service.consul.",
        "h1.node.consul.",
        "a._b.c.service.consul.",
        "4.3.2.1.in-addr.arpa.",
        ".",
    ];
    let mut bytes = question(names[random.random_range(0..names.len())]);
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    if random.random_bool(0.3) {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lives_through_a_hundred_thousand_bad_packets() {
    let cluster = Cluster::start_shared(1).await.unwrap();
    let server = cluster.dns(1);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    for burst in 0..PACKETS / BURST {
        for _ in 0..BURST / 2 {
            socket.send_to(&packet(&mut random), server).await.unwrap();
        }
        over_tcp(server, &mut random, BURST / 2).await;
        // Of a burst some questions may be lost; of several, one is answered.
        let limit = Limit::new(LIMIT);
        while ask(server, "consul.service.consul.").await.is_none() {
            limit.pause(|| format!("an answer after {burst} bursts")).await.unwrap();
        }
    }
    let answer = ask(server, "consul.service.consul.").await.unwrap();
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
    let metrics = cluster.http(1).get("/metrics").await.unwrap().text();
    assert!(metrics.contains("quorate_dns_dropped_total{reason=\"response\"}"), "{metrics}");
    assert!(!metrics.contains("reason=\"panic\""), "{metrics}");
    cluster.finish().await.unwrap();
}

/// The same behind their lengths, which may be wrong.
async fn over_tcp(server: SocketAddr, random: &mut ChaCha8Rng, packets: usize) {
    let mut left = packets;
    while left > 0 {
        let mut stream = TcpStream::connect(server).await.unwrap();
        while left > 0 {
            left -= 1;
            let bytes = packet(random);
            let length = match random.random_bool(0.9) {
                true => u16::try_from(bytes.len()).unwrap(),
                false => random.random(),
            };
            let framed = [&length.to_be_bytes()[..], &bytes].concat();
            if stream.write_all(&framed).await.is_err() {
                break;
            }
            // An answer, or the end of the connection, or nothing yet.
            let mut answer = [0; 4_096];
            let read = timeout(Duration::from_millis(2), stream.read(&mut answer)).await;
            if let Ok(Ok(0) | Err(_)) = read {
                break;
            }
        }
    }
}
