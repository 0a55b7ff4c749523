//! TCP proxies in front of the servers' RPC ports, for what the packet filter cannot do, or may not.
//!
//! The proxy of server b listens where b is advertised. Who dials is told by the source address, and the
//! proxy dials b from that same address, so that a packet filter still sees who speaks with whom. What
//! flows from a to b over any connection obeys the [`Weather`] of the link a -> b: first it is late, then,
//! while the link is cut, it waits. Nothing is lost and nothing overtakes on one connection, as with
//! TCP; connections are independent of each other, so what is sent on two of them may arrive in the other
//! order. What a dialler sent before it gave up in a cut arrives after the healing all the same, as a
//! packet may that was long under way. And a part of the requests may arrive a second time, on a connection
//! of their own, with nobody there to take the answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Link;
use super::requests::Requests;
use crate::{Failure, Result};

/// Read from a socket at once; a small message is one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks of one direction of a connection that are on their way. Beyond that the sender's own buffer
/// fills, as on a long line.
const CHUNKS_MAX: usize = 256;
const PERCENT: u32 = 100;
/// Until this a copy may be answered; the server works on it only while somebody waits.
const COPY_ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What happens to bytes on a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Nothing passes.
    pub(crate) is_cut: bool,
    /// The least by which a chunk is late, in ms.
    pub(crate) delay_ms_min: u64,
    /// The most.
    pub(crate) delay_ms_max: u64,
    /// How many of a hundred chunks break their connection instead of passing.
    pub(crate) reset_percent: u32,
    /// How many of a hundred requests arrive a second time.
    pub(crate) copy_percent: u32,
    /// The most by which a copy comes later than its request, in ms.
    pub(crate) copy_late_ms_max: u64,
}

impl Weather {
    /// By how much the next chunk is late.
    fn delay(&self) -> Duration {
        let range = self.delay_ms_min..=self.delay_ms_max.max(self.delay_ms_min);
        Duration::from_millis(rand::random_range(range))
    }

    fn breaks(&self) -> bool {
        rand::random_range(0..PERCENT) < self.reset_percent
    }

    /// By how much the copy of a request is late, if there is to be one.
    fn copy_late(&self) -> Option<Duration> {
        (rand::random_range(0..PERCENT) < self.copy_percent)
            .then(|| Duration::from_millis(rand::random_range(0..=self.copy_late_ms_max)))
    }
}

/// The proxies of a cluster; dropping them ends them and their connections.
#[derive(Debug)]
pub(super) struct Proxies {
    roads: Arc<Roads>,
    _listeners: JoinSet<()>,
}

#[derive(Debug)]
struct Roads {
    members: Vec<(u64, Ipv4Addr)>,
    links: BTreeMap<Link, Road>,
    resets: AtomicU64,
    /// Copies of requests on their way; they outlive the connection that they were made from.
    copies: Mutex<JoinSet<()>>,
    /// Copies that were answered.
    answered_copies: Arc<AtomicU64>,
}

/// One link.
#[derive(Debug, Default)]
struct Road {
    weather: watch::Sender<Weather>,
    passed_bytes: AtomicU64,
}

impl Roads {
    fn copies(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxies {
    /// Listens on every member's `port`, and dials the port after it.
    pub(super) fn start(members: &[(u64, Ipv4Addr)], port: u16) -> Result<Self> {
        let mut links = BTreeMap::new();
        for (from, _) in members {
            for (to, _) in members.iter().filter(|(to, _)| to != from) {
                links.insert(Link::new(*from, *to), Road::default());
            }
        }
        let roads = Arc::new(Roads {
            members: members.to_vec(),
            links,
            resets: AtomicU64::default(),
            copies: Mutex::default(),
            answered_copies: Arc::default(),
        });
        let mut listeners = JoinSet::new();
        for (id, ip) in members {
            let listener = std::net::TcpListener::bind((*ip, port))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let target = SocketAddr::from((*ip, port + 1));
            listeners.spawn(serve(listener, *id, target, Arc::clone(&roads)));
        }
        Ok(Self { roads, _listeners: listeners })
    }

    /// Changes a link's weather.
    pub(super) fn change(&self, link: Link, change: &impl Fn(&mut Weather)) -> Result<()> {
        self.road(link)?.weather.send_modify(|weather| change(weather));
        Ok(())
    }

    /// How much has passed on a link.
    pub(super) fn passed_bytes(&self, link: Link) -> Result<u64> {
        Ok(self.road(link)?.passed_bytes.load(Ordering::Relaxed))
    }

    /// How many connections were broken on purpose.
    pub(super) fn resets(&self) -> u64 {
        self.roads.resets.load(Ordering::Relaxed)
    }

    /// How many requests arrived a second time and were answered.
    pub(super) fn copies(&self) -> u64 {
        self.roads.answered_copies.load(Ordering::Relaxed)
    }

    /// Has no copy arrive any more that is still on its way.
    pub(super) fn forget_copies(&self) {
        self.roads.copies().abort_all();
    }

    fn road(&self, link: Link) -> Result<&Road> {
        let no_such_link = || Failure::new(format!("{link} is no link of this cluster"));
        self.roads.links.get(&link).ok_or_else(no_such_link)
    }
}

/// Accepts what is meant for server `id`, until it is aborted.
async fn serve(listener: TcpListener, id: u64, target: SocketAddr, roads: Arc<Roads>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error is that of one connection that is gone already.
                let Ok((stream, peer)) = accepted else { continue };
                let roads = Arc::clone(&roads);
                connections.spawn(async move {
                    // It ends as one of its ends wished, or broken: nobody else is to know.
                    let _ = connection(stream, peer.ip(), id, target, &roads).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    mut near: TcpStream,
    source: IpAddr,
    id: u64,
    target: SocketAddr,
    roads: &Roads,
) -> io::Result<()> {
    let dialler = roads.members.iter().find(|(_, ip)| IpAddr::V4(*ip) == source).map(|(id, _)| *id);
    // What does not come from a server (a look from the harness) passes as if nobody were here.
    let open = Road::default();
    let road = |link| roads.links.get(&link).unwrap_or(&open);
    let there = Link::new(dialler.unwrap_or(0), id);
    let (there, back) = (road(there), road(there.back()));
    handshake(there, back).await;
    let mut far = match dial(source, target).await {
        Ok(far) => far,
        Err(error) => {
            near.set_zero_linger()?;
            return Err(error);
        }
    };
    near.set_nodelay(true)?;
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let mut copier = Copier { requests: Requests::default(), source, target, road: there, roads };
    let ended = tokio::try_join!(
        carry(near_read, far_write, there, &roads.resets, |bytes| copier.look(bytes)),
        carry(far_read, near_write, back, &roads.resets, |_| ()),
    );
    if ended.is_err() {
        // A reset, not a farewell: that is how a broken connection looks to both.
        near.set_zero_linger()?;
        far.set_zero_linger()?;
    }
    ended.map(drop)
}

/// A connection takes one packet there and one back before anything can be sent on it.
async fn handshake(there: &Road, back: &Road) {
    for road in [there, back] {
        let delay = road.weather.borrow().delay();
        sleep(delay).await;
        road.wait_open().await;
    }
}

async fn dial(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What an end of a connection did.
enum Piece {
    /// It sent bytes.
    Bytes(Bytes),
    /// It said that it will send no more.
    End,
    /// It broke the connection.
    Reset,
}

/// Carries one direction of one connection. An error breaks both directions.
async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    road: &Road,
    resets: &AtomicU64,
    look: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(take(from, sender, road, resets, look), give(to, receiver, road)).map(drop)
}

/// Takes from the sending end, and decides when each piece is due.
async fn take(
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<(Instant, Piece)>,
    road: &Road,
    resets: &AtomicU64,
    mut look: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut due = Instant::now();
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let piece = match from.read_buf(&mut buffer).await {
            Ok(0) => Piece::End,
            Ok(_) => Piece::Bytes(buffer.freeze()),
            Err(_) => Piece::Reset,
        };
        let weather = *road.weather.borrow();
        if weather.breaks() {
            resets.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Piece::Bytes(bytes) = &piece {
            look(bytes);
        }
        due = due.max(Instant::now() + weather.delay());
        let is_last = !matches!(piece, Piece::Bytes(_));
        if sender.send((due, piece)).await.is_err() || is_last {
            return Ok(());
        }
    }
}

/// Gives each piece to the receiving end when it is due and the link is open.
async fn give(
    mut to: WriteHalf<'_>,
    mut receiver: mpsc::Receiver<(Instant, Piece)>,
    road: &Road,
) -> io::Result<()> {
    while let Some((due, piece)) = receiver.recv().await {
        sleep_until(due).await;
        road.wait_open().await;
        match piece {
            Piece::Bytes(bytes) => {
                if to.write_all(&bytes).await.is_err() {
                    // This end is gone, and says so itself in the other direction.
                    return Ok(());
                }
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                road.passed_bytes.fetch_add(length, Ordering::Relaxed);
            }
            Piece::End => {
                // The same.
                let _ = to.shutdown().await;
            }
            Piece::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    Ok(())
}

/// Has some of the requests of one connection arrive a second time.
struct Copier<'a> {
    requests: Requests,
    source: IpAddr,
    target: SocketAddr,
    road: &'a Road,
    roads: &'a Roads,
}

impl Copier<'_> {
    /// Looks at what the dialler sends.
    fn look(&mut self, bytes: &[u8]) {
        for request in self.requests.feed(bytes) {
            let late = self.road.weather.borrow().copy_late();
            if let Some(late) = late {
                self.send_again(request, late);
            }
        }
    }

    fn send_again(&self, request: Bytes, late: Duration) {
        let (source, target) = (self.source, self.target);
        let mut weather = self.road.weather.subscribe();
        let answered = Arc::clone(&self.roads.answered_copies);
        let mut copies = self.roads.copies();
        while copies.try_join_next().is_some() {}
        copies.spawn(async move {
            sleep(late).await;
            let is_open = weather.wait_for(|weather| !weather.is_cut).await.is_ok();
            // A copy may be lost, as when its server is down.
            if is_open && deliver(&request, source, target).await.is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Sends a request, and waits until its answer begins.
async fn deliver(request: &[u8], source: IpAddr, target: SocketAddr) -> io::Result<()> {
    let mut line = dial(source, target).await?;
    line.write_all(request).await?;
    let answer = timeout(COPY_ANSWER_LIMIT, line.read_exact(&mut [0; 1])).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
}

impl Road {
    async fn wait_open(&self) {
        // The sender is this road's own, so waiting cannot fail.
        let _ = self.weather.subscribe().wait_for(|weather| !weather.is_cut).await;
    }
}

#[cfg(test)]
mod tests {
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
            let (cut_end, open_end) = if link == THERE {
                (&mut dialler, &mut server)
            } else {
                (&mut server, &mut dialler)
            };
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
}
