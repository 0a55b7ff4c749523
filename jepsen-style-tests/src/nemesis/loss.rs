//! A lossy network: some packets between servers are dropped at random. TCP resends them, late.
//!
//! No server counts as affected: each request must succeed within the hold time, though the leadership may move. A
//! proxy sees no packets and cannot drop one. Where the packet filter may not be used, connections break at random
//! instead. That is a different fault with the same cause, and the report says so.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::network::Way;
use crate::{Limit, Result};

/// How long it lasts: enough for its effects to add up.
const HOLD: Duration = Duration::from_secs(5);
/// Packets lost, of a hundred.
const LOST_PERCENT: u32 = 20;
/// Chunks that break their connection, of a hundred: one breaks everything that is under way on it.
const RESET_PERCENT: u32 = 5;
/// Servers speak several times within this.
const EFFECT_LIMIT: Duration = Duration::from_secs(2);
/// So many losses are no accident.
const EFFECTS_MIN: u64 = 5;

/// Loses packets.
#[derive(Debug)]
pub(super) struct Loss {
    way: Way,
    /// Packets that were dropped, or connections that were broken, before this injection.
    before: u64,
}

impl Default for Loss {
    fn default() -> Self {
        Self { way: Way::Nft, before: 0 }
    }
}

#[async_trait]
impl Nemesis for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn summary(&self) -> &'static str {
        "20 % of the packets between servers are lost (without nft: connections break at random)"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        self.way = Way::of_this_machine();
        options.proxied |= self.way == Way::Proxy;
        Ok(())
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let network = ground.cluster.network()?;
        let what = match self.way {
            Way::Nft => {
                network.drop_percent(LOST_PERCENT).await?;
                self.before = network.dropped().await?;
                format!("{LOST_PERCENT} % of the packets between servers are lost")
            }
            Way::Proxy => {
                self.before = network.resets()?;
                network
                    .change(&network.links(), |weather| weather.reset_percent = RESET_PERCENT)?;
                format!("{RESET_PERCENT} % of the messages between servers break their connection")
            }
        };
        Ok(Injection { what, affected: Vec::new() })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let limit = Limit::new(EFFECT_LIMIT);
        loop {
            let network = ground.cluster.network()?;
            let (effects, what) = match self.way {
                Way::Nft => (network.dropped().await?, "packets were dropped"),
                Way::Proxy => (network.resets()?, "connections were broken"),
            };
            let effects = effects.saturating_sub(self.before);
            if effects >= EFFECTS_MIN {
                return Ok(format!("{effects} {what} already"));
            }
            limit.pause(|| format!("only {effects} {what}")).await?;
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        ground.cluster.network()?.heal().await
    }
}
