//! The network between the servers: cut, slowed and made lossy, one directed link at a time.
//!
//! There are two ways. In both, a cut of a -> b means: what a sends to b does not arrive, be it a request on a
//! connection that a dialled or an answer on one that b dialled; no connection is closed, so neither side is
//! notified; and what was in flight arrives after the healing, as TCP resends it.
//!
//! * The kernel's packet filter ([`Way::Nft`]), where the harness may use it. A table of the cluster's own drops
//!   packets by the pair of their addresses. The servers need no special set-up.
//! * TCP proxies ([`Way::Proxy`]), one in front of every server, if the cluster was started with
//!   [`crate::Options::proxied`]. They can also delay, for which the kernel needs a module that many machines lack,
//!   and deliver requests twice. One thing differs: a proxy accepts a connection before it has reached the server
//!   behind it, so a dialler whose link is cut waits for an answer instead of for its connection.
//!
//! Clients connect from 127.0.0.1, which is no server's address: they are never cut off.

mod nft;
mod proxy;
mod reach;
mod requests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nft::Table;
use proxy::Proxies;
pub(crate) use proxy::Weather;
use tokio::task::JoinSet;

use crate::{Failure, Result};

/// Set to anything but nothing, it has the harness do without the packet filter.
const NO_NFT: &str = "QUORATE_NO_NFT";

/// Everything that one server sends to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
}

impl Link {
    /// The link from one server to another.
    pub fn new(from: u64, to: u64) -> Self {
        Self { from, to }
    }

    /// The opposite direction.
    pub fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} -> n{}", self.from, self.to)
    }
}

/// By what a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kernel's packet filter.
    Nft,
    /// The proxies.
    Proxy,
}

impl Way {
    /// The packet filter if it can be used, else the proxies.
    pub fn of_this_machine() -> Self {
        match Self::nft_allowed() {
            Ok(()) => Self::Nft,
            Err(_) => Self::Proxy,
        }
    }

    /// Whether the packet filter can be used; an error says why not.
    pub fn nft_allowed() -> Result<()> {
        if std::env::var_os(NO_NFT).is_some_and(|value| !value.is_empty()) {
            return Err(Failure::new(format!("{NO_NFT} is set")));
        }
        nft::try_out()
    }
}

/// The links between the servers of one cluster. Lives exactly as long as the cluster.
#[derive(Debug)]
pub struct Network {
    members: Vec<(u64, Ipv4Addr)>,
    rpc_port: u16,
    proxies: Option<Proxies>,
    table: Table,
}

impl Network {
    /// The network of `members`, with proxies in front of their RPC ports if it is to be `proxied`: the
    /// servers then listen one port higher.
    pub(crate) fn start(
        members: Vec<(u64, Ipv4Addr)>,
        rpc_port: u16,
        proxied: bool,
    ) -> Result<Self> {
        let first = members.first().map_or(Ipv4Addr::LOCALHOST, |(_, ip)| *ip);
        let proxies = if proxied { Some(Proxies::start(&members, rpc_port)?) } else { None };
        Ok(Self { members, rpc_port, proxies, table: Table::new(first) })
    }

    /// What the guardian must do should this process be killed; given once, before the first use.
    pub(crate) fn undo_if_new(&mut self) -> Option<String> {
        self.table.undo_if_new()
    }

    /// Every link, in order.
    pub fn links(&self) -> Vec<Link> {
        let ids = || self.members.iter().map(|(id, _)| *id);
        ids().flat_map(|from| ids().map(move |to| Link { from, to })).filter(is_between).collect()
    }

    /// Cuts links, besides those that are cut already.
    pub async fn cut(&mut self, way: Way, links: &[Link]) -> Result<()> {
        match way {
            Way::Nft => {
                let pairs =
                    links.iter().map(|link| self.pair(*link)).collect::<Result<Vec<_>>>()?;
                self.table.cut(&pairs).await
            }
            Way::Proxy => self.change(links, |weather| weather.is_cut = true),
        }
    }

    /// Drops this share of the packets between servers, chosen at random.
    pub(crate) async fn drop_percent(&mut self, percent: u32) -> Result<()> {
        let links = self.links();
        let pairs = links.iter().map(|link| self.pair(*link)).collect::<Result<Vec<_>>>()?;
        self.table.lose(percent, &pairs).await
    }

    /// How many packets the filter has lost at random since the last healing.
    pub(crate) async fn dropped(&self) -> Result<u64> {
        self.table.dropped().await
    }

    /// Changes the weather of links at the proxies.
    pub(crate) fn change(&self, links: &[Link], change: impl Fn(&mut Weather)) -> Result<()> {
        let proxies = self.proxies()?;
        links.iter().try_for_each(|link| proxies.change(*link, &change))
    }

    /// Heals every link of everything.
    pub async fn heal(&mut self) -> Result<()> {
        if let Some(proxies) = &self.proxies {
            proxies.forget_copies();
            for link in self.links() {
                proxies.change(link, &|weather| *weather = Weather::default())?;
            }
        }
        self.table.heal().await
    }

    /// How many bytes the proxies have let pass on a link.
    pub fn passed_bytes(&self, link: Link) -> Result<u64> {
        self.proxies()?.passed_bytes(link)
    }

    /// How many connections the proxies have broken on purpose.
    pub(crate) fn resets(&self) -> Result<u64> {
        Ok(self.proxies()?.resets())
    }

    /// How many requests the proxies had arrive a second time.
    pub(crate) fn copies(&self) -> Result<u64> {
        Ok(self.proxies()?.copies())
    }

    fn proxies(&self) -> Result<&Proxies> {
        self.proxies.as_ref().ok_or_else(|| Failure::new("the cluster was started without proxies"))
    }

    // --- looking at it from outside ----------------------------------------------------------------

    /// The links on which a datagram arrives: each direction by itself, and what the proxies do is not seen.
    pub async fn open_to_datagrams(&self) -> Result<Vec<Link>> {
        let mut tries = JoinSet::new();
        for link in self.links() {
            let (from, to) = self.pair(link)?;
            tries.spawn(async move { Ok((link, reach::datagram(from, to).await?)) });
        }
        which(tries).await
    }

    /// The links over whose sender's address the receiver's RPC port answers: that takes both directions.
    pub async fn answering(&self) -> Result<Vec<Link>> {
        let mut tries = JoinSet::new();
        for link in self.links() {
            let call = self.dial(link, reach::ANSWER_LIMIT);
            tries.spawn(async move { Ok((link, call.await.is_ok())) });
        }
        which(tries).await
    }

    /// One exchange over a new connection from the link's sender to its receiver: how long it took.
    pub(crate) async fn round_trip(&self, link: Link, limit: Duration) -> Result<Duration> {
        self.dial(link, limit).await.map(|(_, took)| took)
    }

    /// A connection as the link's sender has them to its receiver; the link must be whole.
    pub async fn connect(&self, link: Link) -> Result<reach::Line> {
        self.dial(link, reach::CONNECT_LIMIT).await.map(|(line, _)| line)
    }

    fn dial(
        &self,
        link: Link,
        limit: Duration,
    ) -> impl Future<Output = Result<(reach::Line, Duration)>> + use<> {
        let pair = self.pair(link);
        let port = self.rpc_port;
        async move {
            let (from, to) = pair?;
            reach::Line::dial(from, SocketAddrV4::new(to, port), limit).await
        }
    }

    fn pair(&self, link: Link) -> Result<(Ipv4Addr, Ipv4Addr)> {
        let ip = |id| self.members.iter().find(|(other, _)| *other == id).map(|(_, ip)| *ip);
        match (ip(link.from), ip(link.to)) {
            (Some(from), Some(to)) => Ok((from, to)),
            _ => Err(Failure::new(format!("{link} is no link of this cluster"))),
        }
    }
}

fn is_between(link: &Link) -> bool {
    link.from != link.to
}

/// The links of the tries that succeeded, in order.
async fn which(mut tries: JoinSet<Result<(Link, bool)>>) -> Result<Vec<Link>> {
    let mut open = Vec::new();
    while let Some(tried) = tries.join_next().await {
        let (link, is_open) =
            tried.map_err(|error| Failure::new(format!("a probe: {error}")))??;
        if is_open {
            open.push(link);
        }
    }
    open.sort_unstable();
    Ok(open)
}
