//! Servers that join and do not vote yet: when they may vote, and when they are forgotten.
//!
//! A voter counts for the quorum whether it runs or not. A container that crashes a few seconds after each
//! start, each time with a new id, would leave one dead voter after another until no majority answers. So a
//! learner votes only after it has answered for [`STEADY_FOR`] without a break, and only if the cluster can
//! take one more voter ([`super::majority`]).
//!
//! A learner that has been silent for [`FORGOTTEN_AFTER`] is removed, and there are never more than
//! [`LEARNERS_MAX`] of them, so that a crash loop does not let the membership grow without limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use quorate_storage::raft::{BootId, NodeId};

use super::membership::Membership;
use super::protocol::ChangeRefusal;
use crate::host::clock::Moment;

/// How long a learner must answer without a break before it votes: longer than it takes a broken service to
/// come up and fail. (Consul waits for `ServerStabilizationTime`, 10 s unless it is set; that setting is
/// recorded here and has no effect.)
pub const STEADY_FOR: Duration = Duration::from_secs(5);
/// A silence of this length is a break. Many heartbeats are answered within it.
const BREAK: Duration = Duration::from_secs(1);
/// The leader stops waiting for a learner that is silent for this long. Its server asks again when it is
/// back.
const NOT_WAITED_FOR: Duration = Duration::from_secs(5);
/// How often the leader looks at a learner that it waits for.
const LEARNER_PAUSE: Duration = Duration::from_millis(20);
/// A learner that has been silent for this long is removed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How many servers may be learners at one time. Others are told to try again.
const LEARNERS_MAX: usize = 16;

/// What a leader has seen of a learner that it waits for.
#[derive(Debug)]
struct Steadiness {
    /// When it was heard last, or when the wait began.
    heard: Moment,
    /// Since when it has answered without a break, and which of its boots.
    since: Option<(Moment, Option<BootId>)>,
}

impl Steadiness {
    fn begin(now: Moment) -> Self {
        Self { heard: now, since: None }
    }

    /// Takes note of how long the learner has been silent. Returns whether it has been steady for long
    /// enough.
    fn note(&mut self, now: Moment, silence: Option<Duration>, boot: Option<BootId>) -> bool {
        if silence.is_none_or(|silence| silence >= BREAK) {
            self.since = None;
            return false;
        }
        self.heard = now;
        let since = match self.since {
            Some((since, known)) if known == boot => since,
            Some(_) | None => now,
        };
        self.since = Some((since, boot));
        now.since(since) >= STEADY_FOR
    }

    fn is_given_up(&self, now: Moment) -> bool {
        now.since(self.heard) >= NOT_WAITED_FOR
    }
}

/// Since when a leader has not heard of each learner.
#[derive(Debug, Default)]
pub struct SilentLearners(BTreeMap<NodeId, Moment>);

impl SilentLearners {
    /// Takes note of the learners and of which of them answer. Returns those that are to be removed.
    fn note(&mut self, now: Moment, learners: &BTreeMap<NodeId, bool>) -> BTreeSet<NodeId> {
        self.0.retain(|id, _| learners.contains_key(id));
        for (id, answers) in learners {
            let since = self.0.entry(*id).or_insert(now);
            if *answers {
                *since = now;
            }
        }
        let silent = self.0.iter().filter(|(_, since)| now.since(**since) >= FORGOTTEN_AFTER);
        silent.map(|(id, _)| *id).collect()
    }
}

impl Membership {
    /// Waits until a learner has caught up and has answered for a while. Other changes go on meanwhile.
    pub(super) async fn is_fit_to_vote(&self, id: NodeId) -> Result<(), ChangeRefusal> {
        let clock = &self.context.clock;
        let mut steadiness = Steadiness::begin(clock.now());
        loop {
            self.must_lead()?;
            let Some(peer) = self.members().remove(&id) else {
                return Err(ChangeRefusal::Refused(
                    "it was removed while it was joining".to_owned(),
                ));
            };
            let boot =
                self.context.processes.current(id, &peer.store_id).map(|process| process.boot);
            let now = clock.now();
            let is_steady = steadiness.note(now, self.silence_of(id), boot);
            if is_steady && self.has_caught_up(id) {
                return Ok(());
            }
            if steadiness.is_given_up(now) {
                return Err(ChangeRefusal::NotNow(format!(
                    "server {id} no longer answers at {}, and does not vote",
                    peer.rpc_addr
                )));
            }
            clock.sleep(LEARNER_PAUSE).await;
        }
    }

    fn silence_of(&self, id: NodeId) -> Option<Duration> {
        let progress = self.progress_here()?;
        progress.get(&id)?.silence_ms.map(Duration::from_millis)
    }

    /// Whether one more server may begin to join.
    pub(super) fn has_room_for_learner(&self) -> Result<(), ChangeRefusal> {
        let learners = self.members().len().saturating_sub(self.voters().len());
        if learners < LEARNERS_MAX {
            return Ok(());
        }
        Err(ChangeRefusal::NotNow(format!(
            "{learners} servers have begun to join and do not vote yet, and there may be no more of them: those \
             that are silent are removed after {} s",
            FORGOTTEN_AFTER.as_secs()
        )))
    }

    /// Removes, as the leader, servers that began to join and have been silent since.
    pub async fn forget_learners(&self, silent: &mut SilentLearners) {
        let voters = self.voters();
        let progress = self.progress_here().unwrap_or_default();
        let learners = self.members().into_keys().filter(|id| !voters.contains(id));
        let answers = |id: &NodeId| {
            let silence_ms = progress.get(id).and_then(|member| member.silence_ms);
            silence_ms.is_some_and(|ms| Duration::from_millis(ms) < BREAK)
        };
        let learners = learners.map(|id| (id, answers(&id))).collect();
        let gone = silent.note(self.context.clock.now(), &learners);
        if gone.is_empty() || self.is_joint() {
            return;
        }
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return };
        for id in &gone {
            tracing::warn!(
                server = id,
                "removing a server that began to join, never voted, and has been silent for {} s",
                FORGOTTEN_AFTER.as_secs()
            );
        }
        let change = ChangeMembers::RemoveNodes(gone);
        if let Err(error) = self.raft.change_membership(change, true).await {
            tracing::info!(%error, "silent learners are not removed yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::Clock;

    const SOON: Option<Duration> = Some(Duration::from_millis(60));
    const LONG: Option<Duration> = Some(BREAK);
    const BOOT: Option<BootId> = Some(BootId([1; 16]));

    async fn after(clock: &Clock, span: Duration) -> Moment {
        tokio::time::advance(span).await;
        clock.now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_learner_is_steady_once_it_has_answered_long_enough_without_a_break() {
        let clock = Clock::monotonic();
        let mut steadiness = Steadiness::begin(clock.now());
        assert!(!steadiness.note(clock.now(), None, BOOT), "it never answered");
        assert!(!steadiness.note(clock.now(), SOON, BOOT));
        let almost = after(&clock, STEADY_FOR - Duration::from_millis(1)).await;
        assert!(!steadiness.note(almost, SOON, BOOT));
        assert!(!steadiness.note(almost, LONG, BOOT), "a break");
        assert!(!steadiness.note(after(&clock, BREAK).await, SOON, BOOT), "from the beginning");
        assert!(steadiness.note(after(&clock, STEADY_FOR).await, SOON, BOOT));
        let restarted = Some(BootId([2; 16]));
        assert!(!steadiness.note(clock.now(), SOON, restarted), "another boot");
        assert!(steadiness.note(after(&clock, STEADY_FOR).await, SOON, restarted));
    }

    #[tokio::test(start_paused = true)]
    async fn a_learner_that_stops_answering_is_not_waited_for() {
        let clock = Clock::monotonic();
        let mut steadiness = Steadiness::begin(clock.now());
        steadiness.note(after(&clock, BREAK).await, SOON, BOOT);
        let now = after(&clock, NOT_WAITED_FOR - Duration::from_millis(1)).await;
        steadiness.note(now, LONG, BOOT);
        assert!(!steadiness.is_given_up(now));
        assert!(steadiness.is_given_up(after(&clock, Duration::from_millis(1)).await));
    }

    #[tokio::test(start_paused = true)]
    async fn learners_that_are_silent_for_long_are_removed() {
        let clock = Clock::monotonic();
        let mut silent = SilentLearners::default();
        let both = BTreeMap::from([(4, true), (5, false)]);
        assert!(silent.note(clock.now(), &both).is_empty());
        let almost = after(&clock, FORGOTTEN_AFTER - Duration::from_millis(1)).await;
        assert!(silent.note(almost, &both).is_empty());
        let later = after(&clock, Duration::from_millis(1)).await;
        assert_eq!(silent.note(later, &both), [5].into());
        // One that votes meanwhile, and one that answers again, are not among them.
        assert!(silent.note(later, &[(4, false)].into()).is_empty());
        assert!(silent.note(later, &both).is_empty());
    }
}
