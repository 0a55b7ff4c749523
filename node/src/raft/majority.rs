//! Which voters answer now. That decides whether a change of the membership is safe.
//!
//! A change is committed by the voters that answer now, and needs a majority of the voters that it leaves. So
//! before anything is proposed, the leader refuses a change after which no majority would answer (etcd calls
//! this the strict reconfiguration check). Only `quorate recover` would help such a cluster.
//!
//! Removing a server that is down is never refused for this reason: as many voters answer as before, and the
//! majority gets no larger.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_storage::raft::NodeId;

use super::HEARTBEAT_MS;
use super::membership::Membership;
use super::protocol::ChangeRefusal;

/// How long voters may take to answer before they count as silent: long enough that a late heartbeat of a
/// busy server refuses no change.
const ANSWER_PATIENCE: Duration = Duration::from_millis(1_500);
/// Pause between two checks of who has answered.
const ANSWER_PAUSE: Duration = Duration::from_millis(HEARTBEAT_MS / 3);

impl Membership {
    /// Whether the cluster can commit after `id` is removed.
    pub(super) async fn may_remove(&self, id: NodeId) -> Result<(), ChangeRefusal> {
        let mut remaining = self.voters();
        // The removal of a learner changes no majority; that of the last voter is refused by openraft.
        if !remaining.remove(&id) || remaining.is_empty() {
            return Ok(());
        }
        let suffices = |answering: usize| is_majority(answering, remaining.len());
        let refusal = |answering: &_| removal_refused(id, &remaining, answering);
        self.require_answers(&remaining, suffices, refusal).await
    }

    /// Whether a learner may vote, see [`may_grow`].
    pub(super) async fn may_promote(&self, id: NodeId) -> Result<(), ChangeRefusal> {
        let voters = self.voters();
        let suffices = |answering: usize| may_grow(answering, voters.len());
        let refusal = |answering: &_| promotion_refused(id, &voters, answering);
        self.require_answers(&voters, suffices, refusal).await
    }

    /// Whether the cluster can commit as it is.
    pub(super) async fn has_quorum(&self) -> Result<(), ChangeRefusal> {
        let voters = self.voters();
        let suffices = |answering: usize| is_majority(answering, voters.len());
        self.require_answers(&voters, suffices, |answering| no_quorum(&voters, answering)).await
    }

    async fn require_answers(
        &self,
        voters: &BTreeSet<NodeId>,
        suffices: impl Fn(usize) -> bool,
        refusal: impl Fn(&BTreeSet<NodeId>) -> String,
    ) -> Result<(), ChangeRefusal> {
        let began = self.context.clock.now();
        loop {
            self.must_lead()?;
            let waited = self.context.clock.now().since(began);
            let answering = self.answered_within(waited, voters)?;
            if suffices(answering.len()) {
                return Ok(());
            }
            if waited >= ANSWER_PATIENCE {
                return Err(ChangeRefusal::NotNow(refusal(&answering)));
            }
            self.context.clock.sleep(ANSWER_PAUSE).await;
        }
    }

    /// Those of `voters` that have answered something that was sent within this time. This server always
    /// does. One that has just lost the leadership knows nothing of the others: it must not call them silent.
    fn answered_within(
        &self,
        span: Duration,
        voters: &BTreeSet<NodeId>,
    ) -> Result<BTreeSet<NodeId>, ChangeRefusal> {
        let progress = self.progress_here().ok_or(ChangeRefusal::NotLeader(None))?;
        let answered = |id: &NodeId| {
            let silence_ms = progress.get(id).and_then(|member| member.silence_ms);
            *id == self.info.id || silence_ms.is_some_and(|ms| Duration::from_millis(ms) < span)
        };
        Ok(voters.iter().copied().filter(answered).collect())
    }
}

fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}

/// Whether one more voter is safe where `answering` of `voters` answer. The cluster should survive if the new
/// one ends at once; otherwise a crash loop that makes one dead voter after another would end the cluster.
/// While only one voter is silent, the new one may be its replacement.
fn may_grow(answering: usize, voters: usize) -> bool {
    let survives = is_majority(answering, voters + 1) || answering + 1 >= voters;
    is_majority(answering, voters) && survives
}

fn removal_refused(
    id: NodeId,
    remaining: &BTreeSet<NodeId>,
    answering: &BTreeSet<NodeId>,
) -> String {
    let silent: BTreeSet<NodeId> = remaining.difference(answering).copied().collect();
    let verb = if silent.len() == 1 { "does" } else { "do" };
    format!(
        "removing {id} would leave {}, and {} {verb} not answer: no majority; nothing was changed",
        list(remaining),
        list(&silent)
    )
}

fn promotion_refused(
    id: NodeId,
    voters: &BTreeSet<NodeId>,
    answering: &BTreeSet<NodeId>,
) -> String {
    format!(
        "server {id} is not promoted: {}; remove those that are gone",
        who_answers(voters, answering)
    )
}

fn no_quorum(voters: &BTreeSet<NodeId>, answering: &BTreeSet<NodeId>) -> String {
    format!("the cluster has no quorum: {}", who_answers(voters, answering))
}

fn who_answers(voters: &BTreeSet<NodeId>, answering: &BTreeSet<NodeId>) -> String {
    let verb = if answering.len() == 1 { "answers" } else { "answer" };
    format!("of the voters {} only {} {verb}", list(voters), list(answering))
}

/// "1, 2 and 3".
fn list(ids: &BTreeSet<NodeId>) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    match ids.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_is_a_majority() {
        let majorities = [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5)];
        assert!(majorities.into_iter().all(|(some, all)| is_majority(some, all)));
        let minorities = [(0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (3, 6)];
        assert!(!minorities.into_iter().any(|(some, all)| is_majority(some, all)));
    }

    #[test]
    fn dead_voters_do_not_pile_up_and_a_single_one_may_be_replaced() {
        assert!(may_grow(1, 1), "the second server");
        assert!(may_grow(2, 3), "a replacement");
        assert!(may_grow(3, 3) && may_grow(3, 4), "the first joiners of a crash loop");
        assert!(!may_grow(3, 5), "the third");
        assert!(!may_grow(1, 2), "no quorum");
        // Whoever joins and ends, time and again, never takes the majority of three founders.
        let mut voters = 3;
        while may_grow(3, voters) {
            voters += 1;
        }
        assert!(is_majority(3, voters), "{voters}");
    }

    #[test]
    fn a_refusal_names_those_who_stay_and_those_who_are_silent() {
        assert_eq!(
            removal_refused(2, &[1, 3].into(), &[1].into()),
            "removing 2 would leave 1 and 3, and 3 does not answer: no majority; nothing was changed"
        );
        assert_eq!(
            removal_refused(2, &[1, 3, 4, 5].into(), &[1, 3].into()),
            "removing 2 would leave 1, 3, 4 and 5, and 4 and 5 do not answer: no majority; nothing was changed"
        );
        assert_eq!(
            promotion_refused(6, &[1, 2, 3, 4, 5].into(), &[1, 2, 3].into()),
            "server 6 is not promoted: of the voters 1, 2, 3, 4 and 5 only 1, 2 and 3 answer; remove those that \
             are gone"
        );
        assert_eq!(
            no_quorum(&[1, 2, 3].into(), &[1].into()),
            "the cluster has no quorum: of the voters 1, 2 and 3 only 1 answers"
        );
    }
}
