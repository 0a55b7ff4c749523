//! A network that delivers requests twice: some requests between servers arrive again, up to seconds later, when
//! they were answered long ago. A packet's copy that took a longer route does that, and so does a client or proxy
//! that resends what it believes lost.
//!
//! No server counts as affected: a command that arrives twice takes effect once.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::{Limit, Result};

/// How long it lasts: longer than the latest copy is late.
const HOLD: Duration = Duration::from_secs(4);
/// Requests that arrive twice, of a hundred.
const COPY_PERCENT: u32 = 20;
/// The most by which the copy comes later than the request: longer than an election.
const LATE_MS_MAX: u64 = 2_000;
/// Servers speak many times within this.
const EFFECT_LIMIT: Duration = Duration::from_secs(3);
/// So many copies that were answered are no accident.
const EFFECTS_MIN: u64 = 20;

/// Has requests arrive twice.
#[derive(Debug, Default)]
pub(super) struct Duplicate {
    /// Copies that arrived in an earlier injection.
    before: u64,
}

#[async_trait]
impl Nemesis for Duplicate {
    fn name(&self) -> &'static str {
        "duplicate"
    }

    fn summary(&self) -> &'static str {
        "a fifth of what servers ask each other arrives a second time, up to 2 s later"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        options.proxied = true;
        Ok(())
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let network = ground.cluster.network()?;
        self.before = network.copies()?;
        network.change(&network.links(), |weather| {
            (weather.copy_percent, weather.copy_late_ms_max) = (COPY_PERCENT, LATE_MS_MAX);
        })?;
        let what = format!(
            "{COPY_PERCENT} % of the requests between servers arrive twice, up to {LATE_MS_MAX} ms later"
        );
        Ok(Injection { what, affected: Vec::new() })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let limit = Limit::new(EFFECT_LIMIT);
        loop {
            let copies = ground.cluster.network()?.copies()? - self.before;
            if copies >= EFFECTS_MIN {
                return Ok(format!("{copies} copies were answered already"));
            }
            limit.pause(|| format!("only {copies} copies")).await?;
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        ground.cluster.network()?.heal().await
    }
}
