//! Cluster time and what comes due with it: three tasks of one leadership.
//!
//! * The **tick** advances the clock. It waits for nothing, so that a storm of expiries, a slow disk or a
//!   large value does not stop time.
//! * **Expiry** proposes what is due. In a storm it has several entries on their way, each limited by
//!   [`EXPIRE_MAX`]; the time is read again for each.
//! * **Reaping** forgets tombstones and lock delays, one small entry at a time. Nobody waits for it, and it
//!   delays nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_storage::command::Duty;
use quorate_storage::{ClusterTime, Millis};

use super::Leader;
use crate::raft::leadership::has_quorum;
use crate::raft::protocol::Forwarded;

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(50);
/// After a leader was elected, clients of a dead node can find another before anything expires.
const GRACE: Duration = Duration::from_secs(2);
/// Time stands still if no quorum answered an RPC sent within this long.
const QUORUM_WITHIN: Duration = Duration::from_secs(2);
/// Time stands still while a heartbeat has waited here for this long. (However long it waits, it is proposed
/// before the next expiry. But apply refuses it if it is older than its TTL or 2 s of cluster time, whichever
/// is longer.)
const HEARTBEAT_WAIT_MAX: Duration = Duration::from_secs(1);
/// What may expire in one entry: few enough that applying it (some 10 us each) delays nothing else
/// noticeably.
const EXPIRE_MAX: u32 = 512;
/// Expiry entries on their way at once in a storm. Under load an entry takes tens of milliseconds from the
/// proposal to the apply; one at a time, that delay would set the pace instead of the work.
const EXPIRES_IN_FLIGHT_MAX: usize = 8;
/// What is reaped in one entry.
const REAP_MAX: u32 = 512;
/// While any deadline exists, the log records the time at least this often, so that a new leader loses at
/// most this much. So it does while anything is shown with its age, such as an instance that turned critical long
/// ago: ages are counted in the time that is recorded.
const STAMP_EVERY: Millis = Millis(1_000);

impl Leader {
    /// Starts the clock after the grace period, from the applied time, which earlier leaders' clocks set.
    pub(super) async fn start_clock(&self, term: u64) {
        self.context.clock.sleep(GRACE).await;
        self.cluster_clock.start(term, self.state.load().state.time());
    }

    /// Advances the clock while it may advance; never ends.
    pub(super) async fn tick(self: Arc<Self>) {
        loop {
            self.context.clock.sleep(TICK).await;
            let waited = self.intake.oldest_heartbeat().max(self.proposer.oldest_heartbeat());
            let may_move = has_quorum(&self.raft, QUORUM_WITHIN) && waited < HEARTBEAT_WAIT_MAX;
            self.cluster_clock.tick(may_move);
        }
    }

    /// Proposes expiries whenever something is due; otherwise records the time in the log if that is overdue.
    /// Never ends.
    pub(super) async fn expire(self: Arc<Self>, term: u64) {
        loop {
            self.context.clock.sleep(TICK).await;
            self.expire_what_is_due(term).await;
            self.stamp_the_log(term).await;
        }
    }

    async fn expire_what_is_due(&self, term: u64) {
        // One entry is enough on an ordinary day. Each round that leaves something due is followed by one
        // with twice as many entries. A surplus entry finds nothing due and changes nothing.
        let mut entries = 1;
        while let Some(up_to) = self.due(self.state.load().state.next_deadline()) {
            let expire = || {
                let duty = Duty::ExpireDue { up_to, max: EXPIRE_MAX };
                self.intake.submit_duty(term, up_to, Some(duty))
            };
            let fates = join_all((0..entries).map(|_| expire())).await;
            if fates.contains(&Forwarded::NotLeader) || fates.contains(&Forwarded::Unknown) {
                return;
            }
            entries = EXPIRES_IN_FLIGHT_MAX.min(entries * 2);
        }
    }

    async fn stamp_the_log(&self, term: u64) {
        let published = self.state.load();
        let state = &published.state;
        let has_deadlines = state.next_deadline().is_some() || state.next_reaping().is_some();
        let is_needed = has_deadlines || state.has_ages();
        let now = self.cluster_clock.stamp(term);
        if is_needed && now.since(state.time()) >= STAMP_EVERY {
            // A lost stamp is followed by another.
            let _ = self.intake.submit_duty(term, now, None).await;
        }
    }

    /// Proposes reaping whenever something can be reaped; never ends.
    pub(super) async fn reap(self: Arc<Self>, term: u64) {
        loop {
            self.context.clock.sleep(TICK).await;
            while let Some(up_to) = self.due(self.state.load().state.next_reaping()) {
                let duty = Duty::Reap { up_to, max: REAP_MAX };
                let fate = self.intake.submit_duty(term, up_to, Some(duty)).await;
                if fate != Forwarded::Committed {
                    break;
                }
            }
        }
    }

    /// The time up to which things may expire now, if this deadline lies before it.
    fn due(&self, deadline: Option<ClusterTime>) -> Option<ClusterTime> {
        let up_to = self.cluster_clock.expirable()?;
        deadline.is_some_and(|deadline| deadline <= up_to).then_some(up_to)
    }
}
