//! Warnings that servers repeat every ten seconds until their operator has fixed the cause.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Limit, Result};
use tempfile::TempDir;

/// Longer than it takes to say something three times.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two lines, as far as one can tell who looks every now and then. A server on a busy machine may miss
/// one look.
const PAUSE_MIN: Duration = Duration::from_secs(8);
const PAUSE_MAX: Duration = Duration::from_secs(25);

/// A server of a test: its addresses, and where its data and its log lie.
struct Place {
    directory: TempDir,
    rpc: String,
    http: String,
}

impl Place {
    fn new() -> Result<Self> {
        let ports = free_ports(Ipv4Addr::LOCALHOST, 2)?;
        let at = |port: u16| format!("127.0.0.1:{port}");
        Ok(Self { directory: tempfile::tempdir()?, rpc: at(ports[0]), http: at(ports[1]) })
    }

    /// The same data at other addresses.
    fn moved(self) -> Result<Self> {
        Ok(Self { directory: self.directory, ..Self::new()? })
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts a server here, with its data if there are any.
    fn start(&self, environment: &[(&str, &str)], flags: &[&str]) -> Result<Process> {
        let data = self.directory.path().join("data").display().to_string();
        let own =
            ["server", "--data-dir", &data, "--rpc-addr", &self.rpc, "--http-addr", &self.http];
        Process::start_in(environment, &self.log(), [&own[..], flags].concat())
    }
}

/// Something that a server should say: to be looked for in its log.
struct Expected {
    log: PathBuf,
    sentence: String,
}

impl Expected {
    fn of(place: &Place, sentence: impl Into<String>) -> Self {
        Self { log: place.log(), sentence: sentence.into() }
    }

    fn times(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("WARN") && line.contains(&self.sentence)).count()
    }

    async fn wait(&self, times: usize) -> Result<Instant> {
        let limit = Limit::new(LIMIT);
        while self.times() < times {
            let what = || format!("{:?}, {times} times, in {}", self.sentence, text(&self.log));
            limit.pause(what).await?;
        }
        Ok(Instant::now())
    }

    /// Returns when it was said a third time, as it should be while it lasts.
    async fn is_said_every_ten_seconds(&self) -> Result<()> {
        let mut last = self.wait(1).await?;
        for times in [2, 3] {
            let next = self.wait(times).await?;
            let pause = next - last;
            assert!((PAUSE_MIN..PAUSE_MAX).contains(&pause), "{:?}: {pause:?}", self.sentence);
            last = next;
        }
        Ok(())
    }
}

fn text(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

async fn all_are_said(expected: &[Expected]) -> Result<()> {
    try_join_all(expected.iter().map(Expected::is_said_every_ten_seconds)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_join_and_a_misspelt_variable_are_said_while_they_last() {
    let _turn = Turn::share().await.unwrap();
    let [alone, misspelt] = [Place::new().unwrap(), Place::new().unwrap()];
    let _servers = [
        alone.start(&[], &[]).unwrap(),
        misspelt
            .start(&[("QUORATE_SERVER_JION", "n1:8300")], &["--bootstrap-expect", "1"])
            .unwrap(),
    ];
    let of_variable =
        "the environment variable QUORATE_SERVER_JION is not a setting of this server";
    let expected = [
        Expected::of(&alone, "this server is a cluster of its own, because neither --join nor"),
        Expected::of(&misspelt, of_variable),
    ];
    all_are_said(&expected).await.unwrap();
    assert!(!text(&misspelt.log()).contains("a cluster of its own"), "it was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_cannot_be_a_cluster_say_so_while_it_lasts() {
    let _turn = Turn::share().await.unwrap();
    // Two that expect other numbers of servers, and two with one id.
    let [two, three, one, twin] = [(); 4].map(|()| Place::new().unwrap());
    let (differ, same) =
        (format!("{},{}", two.rpc, three.rpc), format!("{},{}", one.rpc, twin.rpc));
    let flags = |id, expect, join| {
        ["--node-id", id, "--name", id, "--bootstrap-expect", expect, "--join", join]
    };
    let _servers = [
        two.start(&[], &flags("1", "2", &differ)).unwrap(),
        three.start(&[], &flags("2", "3", &differ)).unwrap(),
        one.start(&[], &flags("7", "2", &same)).unwrap(),
        twin.start(&[], &flags("7", "2", &same)).unwrap(),
    ];
    let founds = "cannot found the cluster: ";
    let clash = |own: &Place, other: &Place| {
        format!(
            "{founds}two servers run with --node-id 7, at {} and at {}: each needs its own",
            own.rpc, other.rpc
        )
    };
    let expected = [
        Expected::of(
            &two,
            format!(
                "{founds}this server (1) was started with --bootstrap-expect 2, and server 2 with --bootstrap-expect 3"
            ),
        ),
        Expected::of(
            &three,
            format!(
                "{founds}this server (2) was started with --bootstrap-expect 3, and server 1 with --bootstrap-expect 2"
            ),
        ),
        Expected::of(&one, clash(&one, &twin)),
        Expected::of(&twin, clash(&twin, &one)),
    ];
    all_are_said(&expected).await.unwrap();
    for place in [&two, &three, &one, &twin] {
        assert!(!text(&place.log()).contains("founding the cluster"), "{}", text(&place.log()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_told_to_join_another_cluster_says_so_and_so_does_that_one() {
    let _turn = Turn::share().await.unwrap();
    let [own, other] = [Place::new().unwrap(), Place::new().unwrap()];
    let founder = |id| ["--node-id", id, "--name", id, "--bootstrap-expect", "1"];
    let _other = other.start(&[], &founder("2")).unwrap();
    let first = own.start(&[], &founder("1")).unwrap();
    first.wait_logged("caught up with the cluster", LIMIT).await.unwrap();
    drop(first);
    let flags = [&founder("1")[..], &["--join", &other.rpc]].concat();
    let _own = own.start(&[], &flags).unwrap();
    let expected = [
        Expected::of(
            &own,
            format!("the server at {} belongs to another cluster than this server", other.rpc),
        ),
        Expected::of(&other, "refused server 1 of another cluster"),
    ];
    all_are_said(&expected).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_have_all_moved_say_so_and_what_to_do_when_their_join_is_old() {
    let _turn = Turn::share().await.unwrap();
    let places = [(); 3].map(|()| Place::new().unwrap());
    let join = places.each_ref().map(|place| place.rpc.clone()).join(",");
    let start = |place: &Place, id: &str| {
        let flags = ["--node-id", id, "--name", id, "--bootstrap-expect", "3", "--join", &join];
        place.start(&[], &flags).unwrap()
    };
    let ids = ["1", "2", "3"];
    let servers: Vec<_> = places.iter().zip(ids).map(|(place, id)| start(place, id)).collect();
    for server in &servers {
        server.wait_logged("caught up with the cluster", LIMIT).await.unwrap();
    }
    drop(servers);
    let places = places.map(|place| place.moved().unwrap());
    let _servers: Vec<_> = places.iter().zip(ids).map(|(place, id)| start(place, id)).collect();
    let expected = places.each_ref().map(|place| {
        let sentence = "only 1 of the 3 servers that vote are found: nobody answers for server";
        let own = format!("runs with --rpc-addr {}", place.rpc);
        [Expected::of(place, sentence), Expected::of(place, own)]
    });
    all_are_said(expected.as_flattened()).await.unwrap();
    for place in &places {
        assert!(text(&place.log()).contains("a --join that names the present --rpc-addr"));
    }
}
