use super::*;

const PORT: u16 = 8300;
/// Whatever should come has come by then, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(5);
/// On loopback nothing takes that long: what has not come is held back.
const SILENCE: Duration = Duration::from_millis(300);

/// Two servers' addresses in a /24 of the test's own, the proxies before them, and the second one's
/// listener behind its proxy.
struct Scene {
    proxies: Proxies,
    members: Vec<(u64, Ipv4Addr)>,
    behind: TcpListener,
}

/// A connection that server 1 dialled, and the end of it that server 2 has.
struct Pair {
    dialler: TcpStream,
    server: TcpStream,
}

const THERE: Link = Link { from: 1, to: 2 };

impl Scene {
    async fn set(test: u8) -> Self {
        let [_, _, x, y] = std::process::id().to_be_bytes();
        for step in 0..=u8::MAX {
            let ip = |host| Ipv4Addr::new(127, x | 0x80, y.wrapping_add(step), test * 8 + host);
            let members = vec![(1, ip(1)), (2, ip(2))];
            // Somebody else may be there: then the next network is tried.
            let Ok(behind) = TcpListener::bind((ip(2), PORT + 1)).await else { continue };
            let Ok(proxies) = Proxies::start(&members, PORT) else { continue };
            return Self { proxies, members, behind };
        }
        panic!("no loopback network is free");
    }

    async fn dial(&self) -> TcpStream {
        dial(self.members[0].1.into(), (self.members[1].1, PORT).into()).await.unwrap()
    }

    async fn pair(&self) -> Pair {
        let dialler = self.dial().await;
        let (server, peer) = timeout(LIMIT, self.behind.accept()).await.unwrap().unwrap();
        assert_eq!(peer.ip(), self.members[0].1);
        Pair { dialler, server }
    }

    fn set_cut(&self, link: Link, is_cut: bool) {
        self.proxies.change(link, &|weather| weather.is_cut = is_cut).unwrap();
    }
}

/// Sends at one end; whether it arrives at the other.
async fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    from.write_all(b"x").await.unwrap();
    arrives(to).await
}

async fn arrives(to: &mut TcpStream) -> bool {
    timeout(LIMIT, to.read_exact(&mut [0; 1])).await.is_ok_and(|read| read.is_ok())
}

async fn is_silent(end: &mut TcpStream) -> bool {
    timeout(SILENCE, end.read(&mut [0; 1])).await.is_err()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted_by_their_direction() {
    let scene = Scene::set(0).await;
    let Pair { mut dialler, mut server } = scene.pair().await;
    assert!(passes(&mut dialler, &mut server).await);
    assert!(passes(&mut dialler, &mut server).await);
    assert!(passes(&mut server, &mut dialler).await);
    assert_eq!(scene.proxies.passed_bytes(THERE).unwrap(), 2);
    assert_eq!(scene.proxies.passed_bytes(THERE.back()).unwrap(), 1);
    drop(dialler);
    assert_eq!(timeout(LIMIT, server.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_cut_stops_the_named_direction_only_and_what_was_sent_arrives_after_healing() {
    let scene = Scene::set(1).await;
    for link in [THERE, THERE.back()] {
        let Pair { mut dialler, mut server } = scene.pair().await;
        let (cut_end, open_end) =
            if link == THERE { (&mut dialler, &mut server) } else { (&mut server, &mut dialler) };
        scene.set_cut(link, true);
        cut_end.write_all(b"x").await.unwrap();
        assert!(is_silent(open_end).await, "{link} is cut");
        assert!(passes(open_end, cut_end).await, "{} is not", link.back());
        scene.set_cut(link, false);
        assert!(arrives(open_end).await, "{link} is healed");
    }
}

#[tokio::test]
async fn a_new_connection_waits_until_both_directions_are_open() {
    let scene = Scene::set(2).await;
    for link in [THERE, THERE.back()] {
        scene.set_cut(link, true);
        let mut dialler = scene.dial().await;
        assert!(timeout(SILENCE, scene.behind.accept()).await.is_err(), "{link} is cut");
        scene.set_cut(link, false);
        let (mut server, _) = timeout(LIMIT, scene.behind.accept()).await.unwrap().unwrap();
        assert!(passes(&mut dialler, &mut server).await);
    }
}

#[tokio::test]
async fn a_farewell_does_not_pass_a_cut_either() {
    let scene = Scene::set(3).await;
    let Pair { dialler, mut server } = scene.pair().await;
    scene.set_cut(THERE, true);
    drop(dialler);
    assert!(is_silent(&mut server).await);
    scene.set_cut(THERE, false);
    assert_eq!(timeout(LIMIT, server.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn every_chunk_is_late_and_none_waits_for_the_one_before() {
    const LATE: Duration = Duration::from_millis(80);
    const CHUNKS: u32 = 40;
    let scene = Scene::set(4).await;
    let Pair { mut dialler, mut server } = scene.pair().await;
    let slow = |weather: &mut Weather| (weather.delay_ms_min, weather.delay_ms_max) = (80, 90);
    scene.proxies.change(THERE, &slow).unwrap();
    let began = Instant::now();
    for _ in 0..CHUNKS {
        dialler.write_all(b"x").await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    assert!(arrives(&mut server).await);
    assert!(began.elapsed() >= LATE, "after {:?}", began.elapsed());
    for _ in 1..CHUNKS {
        assert!(arrives(&mut server).await);
    }
    assert!(began.elapsed() < LATE * CHUNKS, "after {:?}", began.elapsed());
    assert!(passes(&mut server, &mut dialler).await);
}

#[tokio::test]
async fn a_broken_connection_is_broken_for_both() {
    let scene = Scene::set(5).await;
    let Pair { mut dialler, mut server } = scene.pair().await;
    scene.proxies.change(THERE, &|weather| weather.reset_percent = PERCENT).unwrap();
    dialler.write_all(b"x").await.unwrap();
    for end in [&mut dialler, &mut server] {
        let read = timeout(LIMIT, end.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(scene.proxies.resets(), 1);
}

#[tokio::test]
async fn a_server_that_is_down_breaks_what_was_dialled() {
    let Scene { proxies: _proxies, members, behind } = Scene::set(6).await;
    drop(behind);
    let mut dialler = dial(members[0].1.into(), (members[1].1, PORT).into()).await.unwrap();
    let read = timeout(LIMIT, dialler.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_request_arrives_a_second_time_from_the_same_address_and_answers_are_not_copied() {
    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi";
    let scene = Scene::set(7).await;
    let Pair { mut dialler, mut server } = scene.pair().await;
    let copy_all = |weather: &mut Weather| weather.copy_percent = PERCENT;
    scene.proxies.change(THERE, &copy_all).unwrap();
    scene.proxies.change(THERE.back(), &copy_all).unwrap();
    dialler.write_all(REQUEST).await.unwrap();
    let (mut again, peer) = timeout(LIMIT, scene.behind.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip(), scene.members[0].1);
    for end in [&mut server, &mut again] {
        let mut received = [0; REQUEST.len()];
        timeout(LIMIT, end.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(received, REQUEST);
    }
    assert_eq!(scene.proxies.copies(), 0);
    again.write_all(b"x").await.unwrap();
    server.write_all(REQUEST).await.unwrap();
    timeout(LIMIT, dialler.read_exact(&mut [0; REQUEST.len()])).await.unwrap().unwrap();
    assert!(timeout(SILENCE, scene.behind.accept()).await.is_err());
    assert_eq!(scene.proxies.copies(), 1);
}
