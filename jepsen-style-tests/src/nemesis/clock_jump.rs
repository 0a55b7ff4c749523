//! The clocks of a server jump. The wall clock does when somebody sets it; the monotonic clock jumps forward when a
//! virtual machine is resumed elsewhere. Nothing may depend on the wall clock, and a jump of the monotonic one must
//! look like a pause.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use tokio::task::JoinHandle;

use super::faketime::{Clocks, Reading, Scope, hold_request};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::{Failure, Result};

/// How far clocks jump: below and above every timeout that a server has, up to hours.
const JUMPS_S: [f64; 6] = [2.0, 8.0, 45.0, 400.0, 3_600.0, 20_000.0];
/// A request is held for at least this when the monotonic clock jumps: it must end early by that.
const HELD: Duration = Duration::from_secs(8);
/// For this long after the request was sent nothing jumps, so that it is held by then.
const HELD_BEFORE: Duration = Duration::from_millis(300);
/// A held request ends this early at least, or the monotonic clock did not jump.
const EARLY_MIN: Duration = Duration::from_secs(1);
/// A reading over the network is this exact, on a busy machine.
const TOLERANCE_S: f64 = 0.5;

/// Has clocks jump.
#[derive(Debug)]
pub(super) struct ClockJump {
    scope: Scope,
    clocks: Option<Clocks>,
    jump: Option<Jump>,
}

#[derive(Debug)]
struct Jump {
    victim: u64,
    by_s: f64,
    before: Reading,
    /// A request that was held when it jumped.
    held: Option<JoinHandle<Result<Duration>>>,
}

impl ClockJump {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, clocks: None, jump: None }
    }

    fn clocks(&self) -> Result<&Clocks> {
        self.clocks.as_ref().ok_or_else(|| Failure::new("it was not prepared"))
    }

    fn choose(&self, ground: &mut Ground) -> f64 {
        let by_s = JUMPS_S[ground.rng.random_range(0..JUMPS_S.len())];
        match self.scope {
            Scope::Wall if ground.rng.random_bool(0.5) => -by_s,
            Scope::Wall | Scope::Both => by_s,
        }
    }
}

#[async_trait]
impl Nemesis for ClockJump {
    fn name(&self) -> &'static str {
        match self.scope {
            Scope::Wall => "clock-jump-wall",
            Scope::Both => "clock-jump",
        }
    }

    fn summary(&self) -> &'static str {
        match self.scope {
            Scope::Wall => {
                "the wall clock of one server, mostly the leader, jumps forward or back by seconds to \
                 hours, and back again"
            }
            Scope::Both => {
                "the monotonic and the wall clock of one server, mostly the leader, jump forward by \
                 seconds to hours"
            }
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        self.clocks = Some(Clocks::prepare(options, self.scope)?);
        Ok(())
    }

    /// Nothing depends on a wall clock, so nobody may notice that it jumps. A server whose monotonic clock
    /// jumps finds all its deadlines passed.
    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (victim, leader) = ground.mostly_leader().await?;
        let by_s = self.choose(ground);
        let http = ground.cluster.http(victim);
        let before = Reading::take(&http).await?;
        let held = match self.scope {
            Scope::Wall => None,
            Scope::Both => {
                let held = tokio::spawn(async move { hold_request(&http, HELD).await });
                tokio::time::sleep(HELD_BEFORE).await;
                Some(held)
            }
        };
        self.jump = Some(Jump { victim, by_s, before, held });
        let clocks = self.clocks()?;
        clocks.set(victim, clocks.setting(victim)?.moved(by_s))?;
        let victim_named = ground.describe(victim, Some(leader));
        Ok(match self.scope {
            Scope::Wall => Injection {
                what: format!("the wall clock of {victim_named} jumped by {by_s:+} s"),
                affected: Vec::new(),
            },
            Scope::Both => Injection {
                what: format!("the clocks of {victim_named} jumped by {by_s:+} s"),
                affected: vec![victim],
            },
        })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let jump = self.jump.as_mut().ok_or_else(|| Failure::new("no clock jumped"))?;
        let after = Reading::take(&ground.cluster.http(jump.victim)).await?;
        let ahead_s = after.ahead_since(jump.before);
        if (ahead_s - jump.by_s).abs() > TOLERANCE_S {
            return Err(Failure::new(format!("n{} is ahead by {ahead_s:.3} s", jump.victim)));
        }
        let seen = format!("n{}'s wall clock is {ahead_s:+.3} s ahead of before", jump.victim);
        let Some(held) = jump.held.take() else { return Ok(seen) };
        let took = held.await.map_err(|error| Failure::new(error.to_string()))??;
        if took + EARLY_MIN > HELD {
            return Err(Failure::new(format!("a request for {HELD:?} was held for {took:?}")));
        }
        Ok(format!("{seen}; a request for {HELD:?} was held for {took:.1?}"))
    }

    /// A wall clock goes back to where it was; a monotonic one stays ahead, as on a real machine.
    async fn heal(&mut self, _ground: &mut Ground) -> Result<()> {
        let Some(jump) = self.jump.take() else { return Ok(()) };
        if self.scope == Scope::Wall {
            let clocks = self.clocks()?;
            clocks.set(jump.victim, clocks.setting(jump.victim)?.moved(-jump.by_s))?;
        }
        Ok(())
    }
}
