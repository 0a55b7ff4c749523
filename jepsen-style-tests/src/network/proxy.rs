//! TCP proxies in front of the servers' RPC ports, for what the packet filter cannot do, or may not.
//!
//! The proxy of server b listens on the address that b advertises. It identifies a dialler by its source address,
//! and dials b from that same address, so that a packet filter still sees both ends. What flows from a to b over
//! any connection obeys the [`Weather`] of the link a -> b: it is delayed, and held back while the link is cut. As
//! with TCP, nothing is lost or reordered on one connection; connections are independent of each other, so data on
//! two of them may arrive in the other order. What a dialler sent before it gave up during a cut still arrives
//! after the healing, as a delayed packet may. And some requests may be delivered a second time, on a connection of
//! their own whose answer nobody reads.

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
mod tests;
