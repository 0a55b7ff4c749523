//! Says in the log what an operator is woken for: a server is lost or back, the quorum is lost or there
//! again, no failure is left to spare.
//!
//! Every server says it, as far as it can know: the leader from the answers to its own heartbeats, the
//! others from the catalogue, where the leader shows which servers it has lost, and from its silence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use quorate_storage::raft::NodeId;
use quorate_storage::record::{CheckStatus, SERF_HEALTH};

use crate::host::clock::Moment;
use crate::node::Node;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A server that has not answered the leader for this long is lost, as in the catalogue.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Without a leader for this long, it is no election any more.
const NO_LEADER_AFTER: Duration = Duration::from_secs(2);
/// What lasts is said again after this long.
const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// A member as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    address: String,
    votes: bool,
    /// Whether it counts as lost; if so, for how long it has been silent, where that is known.
    lost: Option<Option<Duration>>,
}

/// What one look saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Whether there is a leader with a quorum.
    has_leader: bool,
    members: BTreeMap<NodeId, Member>,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Lost { id: NodeId, member: Member },
    Back { id: NodeId, member: Member, after: Duration },
    Gone { id: NodeId, name: String },
    NoLeader { since: Duration, again: bool },
    LeaderAgain { after: Duration },
    NoneToSpare { voters: usize, lost: Vec<String> },
    SpareAgain { voters: usize, spare: usize },
}

/// What was said so far.
#[derive(Debug, Default)]
struct Outlook {
    lost: BTreeMap<NodeId, (Moment, Member)>,
    no_leader_since: Option<Moment>,
    no_leader_said: Option<Moment>,
    none_to_spare_said: Option<Moment>,
}

impl Outlook {
    fn look(&mut self, now: Moment, seen: &Seen) -> Vec<News> {
        let mut news = Vec::new();
        self.look_at_leader(now, seen, &mut news);
        // Without a leader nobody can know who else is there.
        if seen.has_leader {
            self.look_at_members(now, seen, &mut news);
            self.look_at_spare(now, seen, &mut news);
        }
        news
    }

    fn look_at_leader(&mut self, now: Moment, seen: &Seen, news: &mut Vec<News>) {
        if seen.has_leader {
            let since = self.no_leader_since.take();
            if self.no_leader_said.take().is_some() {
                news.push(News::LeaderAgain { after: now.since(since.unwrap_or(now)) });
            }
            return;
        }
        let since = now.since(*self.no_leader_since.get_or_insert(now));
        let is_member = !seen.members.is_empty();
        if is_member && since >= NO_LEADER_AFTER && is_due(self.no_leader_said, now) {
            let again = self.no_leader_said.replace(now).is_some();
            news.push(News::NoLeader { since, again });
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
                (Some(_), None) => {
                    self.lost.insert(*id, (now, member.clone()));
                    news.push(News::Lost { id: *id, member: member.clone() });
                }
                (None, Some((since, _))) => {
                    let after = now.since(*since);
                    self.lost.remove(id);
                    news.push(News::Back { id: *id, member: member.clone(), after });
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }

    fn look_at_spare(&mut self, now: Moment, seen: &Seen, news: &mut Vec<News>) {
        let voters = seen.members.values().filter(|member| member.votes);
        let (count, alive) = voters.fold((0, 0), |(count, alive), member| {
            (count + 1, alive + usize::from(member.lost.is_none()))
        });
        let spare = alive.saturating_sub(count / 2 + 1);
        // A cluster of one never had any.
        if spare == 0 && count > 1 {
            if is_due(self.none_to_spare_said, now) {
                self.none_to_spare_said = Some(now);
                let lost = self.lost.values().map(|(_, member)| member.name.clone()).collect();
                news.push(News::NoneToSpare { voters: count, lost });
            }
        } else if self.none_to_spare_said.take().is_some() {
            news.push(News::SpareAgain { voters: count, spare });
        }
    }
}

fn is_due(said: Option<Moment>, now: Moment) -> bool {
    said.is_none_or(|said| now.since(said) >= AGAIN_EVERY)
}

impl News {
    fn log(&self) {
        match self {
            Self::Lost { id, member: Member { name, address, lost, .. } } => {
                let silent_ms = lost.flatten().map(|silent| silent.as_millis());
                tracing::warn!(id, %name, %address, silent_ms, "a server is lost: it does not answer the leader");
            }
            Self::Back { id, member: Member { name, address, .. }, after } => {
                tracing::warn!(id, %name, %address, lost_for = ?after, "a server is back");
            }
            Self::Gone { id, name } => {
                tracing::warn!(id, %name, "a lost server is no longer a member");
            }
            Self::NoLeader { since, again: false } => tracing::warn!(
                ?since,
                "the quorum is lost: there is no leader that a majority answers, so nothing can be written"
            ),
            Self::NoLeader { since, again: true } => {
                tracing::warn!(?since, "there is still no leader with a quorum");
            }
            Self::LeaderAgain { after } => {
                tracing::warn!(?after, "the quorum is there again: there is a leader");
            }
            Self::NoneToSpare { voters, lost } => tracing::warn!(
                voters,
                lost = lost.join(","),
                "no failure is left to spare: if one more server is lost, nothing can be written"
            ),
            Self::SpareAgain { voters, spare } => {
                tracing::info!(voters, spare, "failures can be spared again");
            }
        }
    }
}

/// Looks and says what there is to say; never ends.
pub async fn watch(node: Arc<Node>) {
    let clock = node.clock().clone();
    let mut outlook = Outlook::default();
    let mut leads_since = None;
    loop {
        clock.sleep(LOOK_EVERY).await;
        let now = clock.now();
        leads_since = node.leads().then(|| leads_since.unwrap_or(now));
        let seen = node.look(leads_since.map(|since| now.since(since)));
        outlook.look(now, &seen).iter().for_each(News::log);
    }
}

impl Node {
    /// How the cluster looks from here; a leader has led for `led_for`.
    fn look(&self, led_for: Option<Duration>) -> Seen {
        let published = self.published();
        let membership = &published.membership;
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let silence = led_for.map(|led_for| self.silences(led_for)).unwrap_or_default();
        let members = membership.nodes().map(|(id, peer)| {
            let shown = published.state.check(&peer.name, SERF_HEALTH);
            let shown_lost =
                shown.is_some_and(|check| check.registration.status == CheckStatus::Critical);
            let lost = match silence.get(id) {
                _ if *id == self.id() => None,
                // It has answered this leader.
                Some((true, silent)) => (*silent >= LOST_AFTER).then_some(Some(*silent)),
                // It has not yet: as before.
                Some((false, silent)) if shown_lost || *silent >= LOST_AFTER => Some(Some(*silent)),
                Some((false, _)) => None,
                None => shown_lost.then_some(None),
            };
            let member = Member {
                name: peer.name.clone(),
                address: peer.rpc_addr.clone(),
                votes: voters.contains(id),
                lost,
            };
            (*id, member)
        });
        Seen { has_leader: self.contact().known_leader, members: members.collect() }
    }

    /// Whether each member has answered this leader, and how long it has been silent.
    fn silences(&self, led_for: Duration) -> BTreeMap<NodeId, (bool, Duration)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let heartbeats = metrics.heartbeat.iter().flatten();
        heartbeats
            .map(|(id, acked)| match acked {
                Some(acked) => (*id, (true, acked.elapsed())),
                None => (*id, (false, led_for)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn member(id: NodeId, is_lost: bool) -> (NodeId, Member) {
        let lost = is_lost.then_some(Some(LOST_AFTER));
        let (name, address) = (format!("n{id}"), format!("127.0.0.{id}:8300"));
        (id, Member { name, address, votes: true, lost })
    }

    fn seen(lost: &[NodeId]) -> Seen {
        let members = (1..=3).map(|id| member(id, lost.contains(&id))).collect();
        Seen { has_leader: true, members }
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
            News::Back { id: 2, member: member(2, false).1, after: Duration::from_secs(121) };
        let spare = News::SpareAgain { voters: 3, spare: 1 };
        assert_eq!(outlook.look(at(131), &seen(&[])), [back, spare]);
        assert_eq!(outlook.look(at(132), &seen(&[])), []);
    }

    #[test]
    fn a_lost_quorum_is_said_every_minute_until_it_is_there_again() {
        let mut outlook = Outlook::default();
        let without = Seen { has_leader: false, ..seen(&[]) };
        assert_eq!(outlook.look(at(10), &without), []);
        assert_eq!(outlook.look(at(11), &without), [], "an election takes less");
        let since = Duration::from_secs;
        assert_eq!(
            outlook.look(at(12), &without),
            [News::NoLeader { since: since(2), again: false }]
        );
        assert_eq!(outlook.look(at(71), &without), []);
        assert_eq!(
            outlook.look(at(72), &without),
            [News::NoLeader { since: since(62), again: true }]
        );
        assert_eq!(outlook.look(at(80), &seen(&[])), [News::LeaderAgain { after: since(70) }]);
        assert_eq!(outlook.look(at(81), &seen(&[])), []);
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
    fn a_cluster_of_one_never_had_a_failure_to_spare() {
        let mut outlook = Outlook::default();
        let members = [member(1, false)].into();
        assert_eq!(outlook.look(at(1), &Seen { has_leader: true, members }), []);
    }
}
