//! The clocks of a server run too fast or too slowly: more than any quartz does, but still within what elections of
//! 200 to 400 ms and heartbeats of 50 ms must tolerate.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;

use super::faketime::{Clocks, Reading, Scope, hold_request};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::{Failure, Result};

/// Seconds of the server per real second.
const RATES: [f64; 2] = [0.7, 1.5];
/// A request is held for so long of the server's time.
const HELD: Duration = Duration::from_millis(1_000);
/// A server adds up to a sixteenth to what a request asks for.
const JITTER: f64 = 1.0 / 16.0;
/// A rate that is measured over [`HELD`] is this exact.
const TOLERANCE: f64 = 0.1;

/// Has clocks run at another rate.
#[derive(Debug, Default)]
pub(super) struct ClockRate {
    clocks: Option<Clocks>,
    victim: Option<(u64, f64)>,
}

impl ClockRate {
    fn clocks(&self) -> Result<&Clocks> {
        self.clocks.as_ref().ok_or_else(|| Failure::new("it was not prepared"))
    }
}

#[async_trait]
impl Nemesis for ClockRate {
    fn name(&self) -> &'static str {
        "clock-rate"
    }

    fn summary(&self) -> &'static str {
        "the clocks of one server, mostly the leader, run at 0.7 or 1.5 of the real rate"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        self.clocks = Some(Clocks::prepare(options, Scope::Both)?);
        Ok(())
    }

    /// Nobody is affected: within these rates every timeout still has its meaning.
    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (victim, leader) = ground.mostly_leader().await?;
        let rate = RATES[ground.rng.random_range(0..RATES.len())];
        self.victim = Some((victim, rate));
        self.clocks()?.set_rate(&ground.cluster, victim, rate)?;
        let what = format!("the clocks of {} run at {rate}", ground.describe(victim, Some(leader)));
        Ok(Injection { what, affected: Vec::new() })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let (victim, rate) = self.victim.ok_or_else(|| Failure::new("no clock was changed"))?;
        let http = ground.cluster.http(victim);
        let before = Reading::take(&http).await?;
        let took = hold_request(&http, HELD).await?;
        let measured = Reading::take(&http).await?.rate_since(before);
        let shown = format!("its second took {took:.3?}, and its wall clock ran at {measured:.2}");
        if (measured - rate).abs() > TOLERANCE || !is_held_as_long(rate, took) {
            return Err(Failure::new(format!("n{victim}: {shown}")));
        }
        Ok(format!("n{victim}: {shown}"))
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some((victim, _)) = self.victim.take() else { return Ok(()) };
        self.clocks()?.set_rate(&ground.cluster, victim, 1.0)
    }
}

/// Whether a request that was held for [`HELD`] of a clock, and took so long, shows that it runs at `rate`: a
/// slow one holds it longer than a right one would, a fast one ends it before its time.
fn is_held_as_long(rate: f64, took: Duration) -> bool {
    let right = HELD.as_secs_f64();
    if rate < 1.0 {
        took.as_secs_f64() > right * (1.0 + JITTER) + TOLERANCE * right
    } else {
        took < HELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_clock_shows_neither_rate() {
        for rate in RATES {
            for jitter in [1.0, 1.0 + JITTER / 2.0, 1.0 + JITTER] {
                assert!(is_held_as_long(rate, HELD.mul_f64(jitter / rate)), "{rate} {jitter}");
                assert!(!is_held_as_long(rate, HELD.mul_f64(jitter)), "{rate} {jitter}");
            }
        }
    }
}
