//! A slow network: whatever a server sends to another is late. By the proxies, because few kernels can delay
//! packets on loopback.
//!
//! No server counts as affected: every request must succeed within the hold time.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::network::{Link, Network};
use crate::{Failure, Result};

/// How long it lasts: enough for its effects to add up.
const HOLD: Duration = Duration::from_secs(4);
/// An exchange takes no longer than this, even through the worst of delays.
const ROUND_TRIP_LIMIT: Duration = Duration::from_secs(2);
/// Exchanges that are begun one after the other, to see whether they end in another order.
const PROBES: u64 = 12;
/// Far less than the delays differ.
const PROBE_SPACING: Duration = Duration::from_millis(3);

/// What the delays are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 50 ms, give or take 30.
    Late,
    /// From nothing to 120 ms: far more than lies between two messages, so that those on different
    /// connections overtake each other. On one connection TCP keeps the order.
    Reordered,
}

impl Kind {
    /// Least and most, in ms.
    fn range_ms(self) -> (u64, u64) {
        match self {
            Self::Late => (20, 80),
            Self::Reordered => (0, 120),
        }
    }
}

/// Delays all that servers send to each other.
#[derive(Debug)]
pub(super) struct Delay {
    kind: Kind,
}

impl Delay {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind }
    }
}

#[async_trait]
impl Nemesis for Delay {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Late => "delay",
            Kind::Reordered => "reorder",
        }
    }

    fn summary(&self) -> &'static str {
        match self.kind {
            Kind::Late => "all that servers send to each other is 50 ms late, give or take 30",
            Kind::Reordered => {
                "messages on different connections overtake each other: each is up to 120 ms late"
            }
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        options.proxied = true;
        Ok(())
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (least, most) = self.kind.range_ms();
        let network = ground.cluster.network()?;
        network.change(&network.links(), |weather| {
            (weather.delay_ms_min, weather.delay_ms_max) = (least, most);
        })?;
        let what = format!("every message between servers is {least} to {most} ms late");
        Ok(Injection { what, affected: Vec::new() })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let network = ground.cluster.network()?;
        match self.kind {
            Kind::Late => late(network, self.kind.range_ms().0).await,
            Kind::Reordered => reordered(network).await,
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        ground.cluster.network()?.heal().await
    }
}

/// Every link is slow, there and back.
async fn late(network: &Network, least_ms: u64) -> Result<String> {
    // A connection's three packets before the answer: one there, one back, and the question.
    let least = Duration::from_millis(4 * least_ms);
    let (mut fastest, mut slowest) = (ROUND_TRIP_LIMIT, Duration::ZERO);
    for link in network.links() {
        let took = network.round_trip(link, ROUND_TRIP_LIMIT).await?;
        if took < least {
            return Err(Failure::new(format!("{link}: connected and answered after {took:?}")));
        }
        (fastest, slowest) = (fastest.min(took), slowest.max(took));
    }
    let links = network.links().len();
    Ok(format!("connecting and asking took {fastest:.0?} to {slowest:.0?} on {links} links"))
}

/// Of questions asked one after the other, each on a connection of its own, some are answered earlier than
/// one before.
async fn reordered(network: &Network) -> Result<String> {
    let link: Link = network.links()[0];
    let mut lines = Vec::new();
    for _ in 0..PROBES {
        lines.push(network.connect(link).await?);
    }
    let mut answers = tokio::task::JoinSet::new();
    for mut line in lines {
        line.send().await?;
        let sent = Instant::now();
        answers.spawn(async move { line.receive().await.map(|()| (sent, Instant::now())) });
        tokio::time::sleep(PROBE_SPACING).await;
    }
    let mut ended = Vec::new();
    while let Some(answer) = answers.join_next().await {
        ended.push(answer.map_err(|error| Failure::new(format!("a probe: {error}")))??);
    }
    ended.sort_unstable();
    let overtaken = ended.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    if overtaken == 0 {
        return Err(Failure::new(format!("{PROBES} questions were answered in order")));
    }
    Ok(format!("{overtaken} of {PROBES} questions were answered after the next one"))
}
