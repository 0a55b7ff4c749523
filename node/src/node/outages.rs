//! Logs what an operator is woken for: a server is lost or back, the quorum is lost or regained, no failure
//! is left to spare.
//!
//! Every server logs it. The leader knows from the responses to its heartbeats which servers run. The others
//! ask the leader, and fall back on the catalogue, where the leader shows which servers it has lost. So a
//! follower also notices if its leader, which it still hears, has no quorum. Without a quorum, a server asks
//! all others to find out which do not answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use quorate_storage::raft::NodeId;
use quorate_storage::record::{CheckStatus, SERF_HEALTH};

use crate::host::clock::Moment;
use crate::host::figures::{Figure, gauge};
use crate::leader::SERVER_LOST_AFTER;
use crate::node::Node;
use crate::raft::leadership::{LEADER_HEARD_WITHIN, Leadership};
use crate::raft::protocol::{Progress, Request};
use crate::raft::transport::Purpose;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Without a leader for this long, it is no election any more.
const NO_LEADER_AFTER: Duration = Duration::from_secs(2);
/// While all is well, a follower asks the leader this often. What begins to be wrong in between is seen
/// [`NO_LEADER_AFTER`] later at most, so it is logged as soon as if each look had asked.
const ASK_EVERY: Duration = NO_LEADER_AFTER;
/// How long a server may take to answer when it is asked whether it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// A condition that lasts is logged again after this long.
const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// A member as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    address: String,
    votes: bool,
    /// If it counts as lost: for how long it has been silent, at least.
    lost: Option<Duration>,
    /// How long ago it started again, if this server noticed.
    restarted: Option<Duration>,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Whether there is a leader with a quorum.
    has_leader: bool,
    /// Time since a leader, or as a leader a quorum, was heard.
    silence: Duration,
    /// For how long there has been no quorum already, though no look has seen it.
    unseen: Duration,
    members: BTreeMap<NodeId, Member>,
}

/// What there is to log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Lost { id: NodeId, member: Member },
    Back { id: NodeId, member: Member, after: Duration },
    Gone { id: NodeId, name: String },
    NoLeader { since: Duration, again: bool, silent: Vec<String> },
    LeaderAgain { after: Duration },
    NoneToSpare { voters: usize, lost: Vec<String> },
    SpareAgain { voters: usize, spare: usize },
}

/// What was logged so far.
#[derive(Debug, Default)]
struct Outlook {
    /// Servers that were reported as lost, and when they were last heard.
    lost: BTreeMap<NodeId, (Moment, Member)>,
    no_leader: Option<NoLeader>,
    no_leader_said: Option<Moment>,
    none_to_spare_said: Option<Moment>,
}

/// How the cluster stood at the last look, for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Standing {
    lost: AtomicU64,
    spare: AtomicU64,
}

impl Standing {
    fn note(&self, outlook: &Outlook, seen: &Seen) {
        let (_, spare) = outlook.voters_and_spare(seen);
        // Whatever was to spare is used up.
        let spare = if seen.has_leader { spare } else { 0 };
        self.lost.store(outlook.lost.len() as u64, Ordering::Relaxed);
        self.spare.store(spare as u64, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> [Figure; 2] {
        let (lost, spare) = (&self.lost, &self.spare);
        [
            gauge(
                "servers_lost",
                "Members that do not answer the leader, as this server last heard",
                lost.load(Ordering::Relaxed),
            ),
            gauge(
                "failures_to_spare",
                "Voters that may still be lost before nothing can be written; 0 without a leader",
                spare.load(Ordering::Relaxed),
            ),
        ]
    }
}

/// A time without a leader that has a quorum.
#[derive(Debug, Clone, Copy)]
struct NoLeader {
    /// When one was last heard.
    heard: Moment,
    /// When it was first seen that there is none, or would have been if each look had asked the leader.
    seen: Moment,
}

impl Outlook {
    fn look(&mut self, now: Moment, seen: &Seen) -> Vec<News> {
        let mut news = Vec::new();
        self.look_at_leader(now, seen, &mut news);
        // Without a leader nobody knows which servers run.
        if seen.has_leader {
            self.look_at_members(now, seen, &mut news);
            self.look_at_spare(now, seen, &mut news);
        }
        news
    }

    fn look_at_leader(&mut self, now: Moment, seen: &Seen, news: &mut Vec<News>) {
        if seen.has_leader {
            let before = self.no_leader.take();
            if self.no_leader_said.take().is_some() {
                let after = now.since(before.map_or(now, |before| before.heard));
                news.push(News::LeaderAgain { after });
            }
            return;
        }
        let fresh = NoLeader { heard: now.minus(seen.silence), seen: now.minus(seen.unseen) };
        let no_leader = *self.no_leader.get_or_insert(fresh);
        let is_member = !seen.members.is_empty();
        let lasts = now.since(no_leader.seen) >= NO_LEADER_AFTER;
        if is_member && lasts && is_due(self.no_leader_said, now) {
            let again = self.no_leader_said.replace(now).is_some();
            let since = now.since(no_leader.heard);
            news.push(News::NoLeader { since, again, silent: Vec::new() });
        }
    }

    fn look_at_members(&mut self, now: Moment, seen: &Seen, news: &mut Vec<News>) {
        self.lost.retain(|id, (_, member)| {
            let stays = seen.members.contains_key(id);
            if !stays {
                news.push(News::Gone { id: *id, name: member.name.clone() });
            }
            stays
        });
        for (id, member) in &seen.members {
            match (member.lost, self.lost.get(id)) {
                // It is the previous process that was silent; this one has not had time to answer.
                (Some(_), None) if member.has_just_restarted() => {}
                (Some(silent), None) => {
                    self.lost.insert(*id, (now.minus(silent), member.clone()));
                    news.push(News::Lost { id: *id, member: member.clone() });
                }
                (None, Some((heard, _))) => {
                    let after = now.since(*heard);
                    self.lost.remove(id);
                    news.push(News::Back { id: *id, member: member.clone(), after });
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }

    /// How many servers vote, and how many of them may still be lost.
    fn voters_and_spare(&self, seen: &Seen) -> (usize, usize) {
        let voters = seen.members.iter().filter(|(_, member)| member.votes);
        let (count, alive) = voters.fold((0, 0), |(count, alive), (id, _)| {
            (count + 1, alive + usize::from(!self.lost.contains_key(id)))
        });
        (count, alive.saturating_sub(count / 2 + 1))
    }

    fn look_at_spare(&mut self, now: Moment, seen: &Seen, news: &mut Vec<News>) {
        let (count, spare) = self.voters_and_spare(seen);
        // A cluster of one never had a failure to spare.
        if spare == 0 && count > 1 {
            if is_due(self.none_to_spare_said, now) {
                self.none_to_spare_said = Some(now);
                let lost = self.lost.values().map(|(_, member)| member.name.clone()).collect();
                news.push(News::NoneToSpare { voters: count, lost });
            }
        } else if self.none_to_spare_said.take().is_some() && spare > 0 {
            news.push(News::SpareAgain { voters: count, spare });
        }
    }
}

impl Member {
    fn has_just_restarted(&self) -> bool {
        self.restarted.is_some_and(|ago| ago < SERVER_LOST_AFTER)
    }
}

fn is_due(said: Option<Moment>, now: Moment) -> bool {
    said.is_none_or(|said| now.since(said) >= AGAIN_EVERY)
}

impl News {
    fn log(&self) {
        match self {
            Self::Lost { id, member: Member { name, address, lost, .. } } => {
                let silent_ms = lost.map(|silent| silent.as_millis());
                tracing::warn!(id, %name, %address, silent_ms, "a server is lost: it does not answer the leader");
            }
            Self::Back { id, member: Member { name, address, .. }, after } => {
                tracing::warn!(id, %name, %address, lost_for = ?after, "a server is back");
            }
            Self::Gone { id, name } => {
                tracing::warn!(id, %name, "a lost server is no longer a member");
            }
            Self::NoLeader { since, again: false, silent } => tracing::warn!(
                ?since,
                do_not_answer = silent.join(", "),
                "the quorum is lost: there is no leader that a majority answers, so nothing can be written"
            ),
            Self::NoLeader { since, again: true, silent } => tracing::warn!(
                ?since,
                do_not_answer = silent.join(", "),
                "there is still no leader with a quorum"
            ),
            Self::LeaderAgain { after } => {
                tracing::warn!(?after, "the quorum is there again: there is a leader");
            }
            Self::NoneToSpare { voters, lost } => tracing::warn!(
                voters,
                lost = if lost.is_empty() { "none".to_owned() } else { lost.join(",") },
                "no failure is left to spare: if one more server is lost, nothing can be written"
            ),
            Self::SpareAgain { voters, spare } => {
                tracing::info!(voters, spare, "failures can be spared again");
            }
        }
    }
}

/// What the leader last said of the members.
#[derive(Debug, Default)]
struct Answer {
    /// Since when it leads, as far as this server knows.
    leadership: (Leadership, Moment),
    /// When it was asked.
    asked: Moment,
    /// `None` if it did not answer.
    progress: Option<BTreeMap<NodeId, Progress>>,
}

impl Answer {
    /// Whether to ask again: now and then while all `members` answer the leader, at each look otherwise.
    fn is_due(&self, now: Moment, mut members: impl Iterator<Item = NodeId>) -> bool {
        let is_calm = self.progress.as_ref().is_some_and(|progress| {
            members.all(|id| {
                let silence = progress.get(&id).and_then(|member| silence(*member));
                silence.is_some_and(|silence| silence < LEADER_HEARD_WITHIN)
            })
        });
        !is_calm || now.since(self.asked) >= ASK_EVERY
    }

    /// Asks again if that is due. As the leader, this server asks itself, which costs nothing.
    async fn refresh(&mut self, node: &Node) {
        let clock = node.clock();
        let leadership = node.leadership.borrow().clone();
        let is_new = leadership != self.leadership.0;
        if is_new {
            self.leadership = (leadership, clock.now());
        }
        let is_due = {
            let published = node.published();
            self.is_due(clock.now(), published.membership.nodes().map(|(id, _)| *id))
        };
        if is_new || node.leads() || is_due {
            self.asked = clock.now();
            self.progress = clock.timeout(ANSWER_TIMEOUT, node.progress()).await.ok().flatten();
        }
    }
}

/// Looks and logs what there is to log; never ends.
pub async fn watch(node: Arc<Node>) {
    let clock = node.clock().clone();
    let mut outlook = Outlook::default();
    let mut answer =
        Answer { leadership: (Leadership::default(), clock.now()), ..Answer::default() };
    loop {
        clock.sleep(LOOK_EVERY).await;
        answer.refresh(&node).await;
        let now = clock.now();
        let seen = node.look(answer.progress.as_ref(), now.since(answer.leadership.1));
        for mut news in outlook.look(now, &seen) {
            if let News::NoLeader { silent, .. } = &mut news {
                *silent = node.silent_members().await;
            }
            news.log();
        }
        node.standing.note(&outlook, &seen);
    }
}

impl Node {
    /// How the cluster looks from here. `progress` is the leader's answer, who has led for `led_for`.
    fn look(&self, progress: Option<&BTreeMap<NodeId, Progress>>, led_for: Duration) -> Seen {
        let published = self.published();
        let membership = &published.membership;
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, peer)| {
            let shown = published.state.check(&peer.name, SERF_HEALTH);
            let shown_lost =
                shown.is_some_and(|check| check.registration.status == CheckStatus::Critical);
            let known = progress.and_then(|progress| progress.get(id));
            let lost = match known.map(|member| silence(*member)) {
                _ if *id == self.id() => None,
                // It has answered this leader.
                Some(Some(silent)) => (silent >= SERVER_LOST_AFTER).then_some(silent),
                // It has not answered this leader yet: keep what the catalogue shows.
                Some(None) if led_for >= SERVER_LOST_AFTER => Some(led_for),
                Some(None) | None => shown_lost.then_some(SERVER_LOST_AFTER),
            };
            let member = Member {
                name: peer.name.clone(),
                address: peer.rpc_addr.clone(),
                votes: voters.contains(id),
                lost,
                restarted: self.processes().accepted_ago(*id),
            };
            (*id, member)
        });
        let contact = self.contact();
        let quorum_silence = progress.map_or(Duration::ZERO, |progress| {
            let silence = |id: &NodeId| match progress.get(id) {
                _ if *id == self.id() => Duration::ZERO,
                Some(member) => silence(*member).unwrap_or(led_for),
                None => Duration::MAX,
            };
            quorum_silence(voters.iter().map(silence).collect())
        });
        let without_quorum = quorum_silence.checked_sub(LEADER_HEARD_WITHIN);
        Seen {
            has_leader: contact.known_leader && without_quorum.is_none(),
            silence: Duration::from_millis(contact.last_contact.0),
            // A look asked [`ASK_EVERY`] ago at the earliest, and the next would have seen it.
            unseen: without_quorum.unwrap_or_default().min(ASK_EVERY - LOOK_EVERY),
            members: members.collect(),
        }
    }

    /// The other members that do not answer this server, with their addresses.
    async fn silent_members(&self) -> Vec<String> {
        let published = self.published();
        let others = published.membership.nodes().filter(|(id, _)| **id != self.id());
        let asked = others.map(async |(id, peer)| {
            let (purpose, request) = (Purpose::Control, Request::WhoAreYou);
            let answer = self.context.call(*id, peer, purpose, request, ANSWER_TIMEOUT).await;
            answer.is_err().then(|| format!("{} ({})", peer.name, peer.rpc_addr))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// How long a member has not answered the leader; `None` if it never has.
fn silence(member: Progress) -> Option<Duration> {
    member.silence_ms.map(Duration::from_millis)
}

/// How long ago a majority of the voters was last heard, each of which has been silent for so long.
fn quorum_silence(mut silences: Vec<Duration>) -> Duration {
    silences.sort();
    silences.get(silences.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn member(id: NodeId, is_lost: bool) -> (NodeId, Member) {
        let lost = is_lost.then_some(SERVER_LOST_AFTER);
        let (name, address) = (format!("n{id}"), format!("127.0.0.{id}:8300"));
        (id, Member { name, address, votes: true, lost, restarted: None })
    }

    fn seen(lost: &[NodeId]) -> Seen {
        let members = (1..=3).map(|id| member(id, lost.contains(&id))).collect();
        Seen { has_leader: true, silence: Duration::ZERO, unseen: Duration::ZERO, members }
    }

    #[test]
    fn a_server_that_is_lost_and_comes_back_is_said_once_and_the_risk_every_minute() {
        let mut outlook = Outlook::default();
        assert_eq!(outlook.look(at(0), &seen(&[])), []);
        let lost = member(2, true).1;
        let none = News::NoneToSpare { voters: 3, lost: vec!["n2".to_owned()] };
        let first = outlook.look(at(10), &seen(&[2]));
        assert_eq!(first, [News::Lost { id: 2, member: lost }, none.clone()]);
        assert_eq!(outlook.look(at(69), &seen(&[2])), []);
        assert_eq!(outlook.look(at(70), &seen(&[2])), std::slice::from_ref(&none));
        assert_eq!(outlook.look(at(129), &seen(&[2])), []);
        assert_eq!(outlook.look(at(130), &seen(&[2])), [none]);
        let back =
            News::Back { id: 2, member: member(2, false).1, after: Duration::from_secs(126) };
        let spare = News::SpareAgain { voters: 3, spare: 1 };
        assert_eq!(outlook.look(at(131), &seen(&[])), [back, spare]);
        assert_eq!(outlook.look(at(132), &seen(&[])), []);
    }

    #[test]
    fn a_cluster_that_is_left_with_one_voter_has_nothing_to_spare() {
        let mut outlook = Outlook::default();
        assert_eq!(outlook.look(at(10), &seen(&[2])).len(), 2);
        let mut alone = seen(&[]);
        alone.members.retain(|id, _| *id == 1);
        let spare = |news: &News| matches!(news, News::SpareAgain { .. });
        assert!(!outlook.look(at(11), &alone).iter().any(spare));
    }

    #[test]
    fn a_lost_quorum_is_said_every_minute_until_it_is_there_again() {
        let mut outlook = Outlook::default();
        let silence = Duration::from_secs(1);
        let without = Seen { has_leader: false, silence, ..seen(&[]) };
        let without_leader = |seconds: u64, again: bool| News::NoLeader {
            since: Duration::from_secs(seconds),
            again,
            silent: Vec::new(),
        };
        assert_eq!(outlook.look(at(10), &without), []);
        assert_eq!(outlook.look(at(11), &without), [], "an election takes less");
        assert_eq!(outlook.look(at(12), &without), [without_leader(3, false)]);
        assert_eq!(outlook.look(at(71), &without), []);
        assert_eq!(outlook.look(at(72), &without), [without_leader(63, true)]);
        let after = Duration::from_secs(71);
        assert_eq!(outlook.look(at(80), &seen(&[])), [News::LeaderAgain { after }]);
        assert_eq!(outlook.look(at(81), &seen(&[])), []);
    }

    #[test]
    fn a_lost_quorum_is_said_as_early_as_if_each_look_had_asked() {
        let mut outlook = Outlook::default();
        let unseen = ASK_EVERY - LOOK_EVERY;
        let without = Seen { has_leader: false, unseen, ..seen(&[]) };
        assert_eq!(outlook.look(at(10), &without), [], "one look may have seen a pause");
        let next = at(10).plus(LOOK_EVERY);
        assert!(matches!(outlook.look(next, &without)[..], [News::NoLeader { again: false, .. }]));
    }

    #[test]
    fn a_calm_leader_is_asked_now_and_then_and_one_that_misses_a_server_at_each_look() {
        let answer = |silence_ms: Option<u64>| Answer {
            asked: at(10),
            progress: Some([(2, Progress { silence_ms, ..Progress::default() })].into()),
            ..Answer::default()
        };
        let (soon, later) = (at(10).plus(LOOK_EVERY), at(10).plus(ASK_EVERY));
        let calm = answer(Some(60));
        assert!(!calm.is_due(soon, [2].into_iter()));
        assert!(calm.is_due(later, [2].into_iter()));
        assert!(calm.is_due(soon, [2, 3].into_iter()), "a new member");
        assert!(answer(Some(800)).is_due(soon, [2].into_iter()));
        assert!(answer(None).is_due(soon, [2].into_iter()));
        assert!(Answer::default().is_due(soon, [2].into_iter()), "it did not answer");
    }

    #[test]
    fn the_silence_of_a_quorum_is_that_of_the_last_voter_it_needs() {
        let of = |silences: &[u64]| {
            quorum_silence(silences.iter().map(|ms| Duration::from_millis(*ms)).collect())
        };
        assert_eq!(of(&[0]).as_millis(), 0);
        assert_eq!(of(&[0, 70]).as_millis(), 70);
        assert_eq!(of(&[900, 0, 60]).as_millis(), 60);
        assert_eq!(of(&[900, 800, 0, 60]).as_millis(), 800);
        assert_eq!(of(&[900, 800, 0, 60, 700]).as_millis(), 700);
    }

    #[test]
    fn an_election_and_a_server_that_is_no_member_are_no_news() {
        let mut outlook = Outlook::default();
        let without = Seen { has_leader: false, ..seen(&[]) };
        outlook.look(at(10), &without);
        assert_eq!(outlook.look(at(11), &seen(&[])), []);
        for second in 20..200 {
            assert_eq!(outlook.look(at(second), &Seen::default()), []);
        }
    }

    #[test]
    fn a_lost_server_that_is_removed_is_not_called_back() {
        let mut outlook = Outlook::default();
        outlook.look(at(1), &seen(&[3]));
        let mut left = seen(&[]);
        left.members.remove(&3);
        let news = outlook.look(at(2), &left);
        assert_eq!(
            news,
            [News::Gone { id: 3, name: "n3".to_owned() }],
            "two voters have none to spare either"
        );
    }

    #[test]
    fn figures_show_what_is_lost_and_how_much_more_can_be() {
        let (mut outlook, standing) = (Outlook::default(), Standing::default());
        let mut after = |seconds, seen: &Seen| {
            outlook.look(at(seconds), seen);
            standing.note(&outlook, seen);
            standing.figures().map(|figure| figure.value)
        };
        assert_eq!(after(1, &seen(&[])), [0, 1]);
        assert_eq!(after(2, &seen(&[2])), [1, 0]);
        assert_eq!(after(3, &Seen { has_leader: false, ..seen(&[2, 3]) }), [1, 0]);
        assert_eq!(after(4, &seen(&[])), [0, 1]);
        assert_eq!(after(5, &Seen { has_leader: false, ..seen(&[]) }), [0, 0]);
    }

    #[test]
    fn a_cluster_of_one_never_had_a_failure_to_spare() {
        let mut outlook = Outlook::default();
        let members = [member(1, false)].into();
        assert_eq!(outlook.look(at(1), &Seen { members, ..seen(&[]) }), []);
    }

    #[test]
    fn a_server_that_has_just_started_again_is_not_called_lost_before_it_could_answer() {
        let mut outlook = Outlook::default();
        let restarted = |ago: u64| {
            let mut seen = seen(&[2]);
            let member = seen.members.get_mut(&2).expect("it is a member");
            member.restarted = Some(Duration::from_secs(ago));
            seen
        };
        assert_eq!(outlook.look(at(10), &restarted(0)), []);
        assert_eq!(outlook.look(at(14), &restarted(4)), []);
        let news = outlook.look(at(15), &restarted(5));
        assert!(
            matches!(news[..], [News::Lost { id: 2, .. }, News::NoneToSpare { .. }]),
            "{news:?}"
        );
        // Once it is called lost, only its answers bring it back.
        assert_eq!(outlook.look(at(16), &restarted(0)), []);
    }
}
