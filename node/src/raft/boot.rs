//! How a process becomes the one that speaks for its server.
//!
//! A process that has booted first asks every server it knows whether its identity is free; only then does it
//! vote and take entries. As soon as there is a leader, the process asks it to record the boot in the log.
//! Once this node has applied that entry, it has its incarnation and sends the commands that were waiting. A
//! server whose boot is in the log skips all of this, so a change of leaders does not wait for it.
//!
//! The leader then brings the membership in line with the log: a server that came from another address
//! becomes a member at that address.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::command::{Boot, Duty, LogEnd};
use quorate_storage::raft::{BootId, NodeId, Peer, Position};
use quorate_storage::state::ServerBoot;

use super::membership::{Membership, is_another_store};
use super::protocol::{
    ChangeRefusal, Forwarded, ProcessIdentity, Refusal, Request, Response, ServerInfo,
};
use super::surroundings::{Round, wrong_datacenter};
use super::transport::Purpose;

/// Pause between two attempts to have the boot recorded.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// The same after [`HURRIED_ROUNDS`].
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Rounds with the short pause: five seconds, in which a cluster that starts elects a leader.
const HURRIED_ROUNDS: u32 = 50;
/// Limit of the first round of greetings, which delays what a restarted server does for the others. The round
/// does not wait longer for servers that do not answer.
const FIRST_GREETING_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the leader may take: it asks the previous process twice, and waits for the log.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the process at a new address may take to identify itself.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a silent process is asked again before another one replaces it permanently.
const PROBES: u32 = 2;
/// How often the leader records in the log what servers hold, if that has changed.
const LOG_ENDS_EVERY: Duration = Duration::from_secs(10);

impl Membership {
    /// Asks every server whether this identity is free, then has this boot recorded in the log. Returns once
    /// it is.
    pub async fn announce(&self) {
        let processes = &self.context.processes;
        let mut leadership = self.leadership.clone();
        let mut begun = processes.begun();
        let greeting = self.greet_everybody_within(FIRST_GREETING_TIMEOUT);
        let (round, ()) = tokio::join!(greeting, self.refuse_own_address());
        self.refuse_other_datacenter(&round);
        processes.clear();
        let mut round = 0;
        while processes.incarnation().is_none() {
            leadership.mark_unchanged();
            self.ask_to_record_boot().await;
            let pause = if round < HURRIED_ROUNDS { ROUND_PAUSE } else { LONG_PAUSE };
            tokio::select! {
                _ = begun.changed() => {}
                changed = leadership.changed() => if changed.is_err() { return },
                () = self.context.clock.sleep(pause) => {
                    // A server may have moved, or may have something to report to this one.
                    let round = self.greet_everybody().await;
                    self.refuse_other_datacenter(&round);
                }
            }
            round += 1;
        }
    }

    /// Ends this server if it was a member and has come back with another datacenter. (One that joins is
    /// refused by the leader.)
    fn refuse_other_datacenter(&self, round: &Round) {
        if self.info.disk.member_since.is_none() {
            return;
        }
        if let Some(why) = round.other_datacenter(&self.info) {
            self.context.processes.told(&Refusal::Misconfigured(why));
        }
    }

    async fn ask_to_record_boot(&self) {
        let leader = self.leadership.borrow().leader.clone();
        let Some((id, peer)) = leader else { return };
        let own = self.info.clone();
        let answer = if id == own.id {
            let answer =
                self.record_boot(&own, &self.context.processes.sender(), self.context.level).await;
            answer.inspect_err(|refusal| self.context.processes.told(refusal)).ok()
        } else {
            let (purpose, request) = (Purpose::Control, Request::RecordBoot(own));
            match self.context.call(id, &peer, purpose, request, START_TIMEOUT).await {
                Ok(Response::Changed(answer)) => Some(answer),
                Ok(_) | Err(_) => None,
            }
        };
        match answer {
            Some(Ok(())) => {}
            Some(Err(refusal)) => {
                tracing::debug!(%refusal, "this boot is not recorded in the log yet")
            }
            None => tracing::debug!("the leader did not record this boot in the log; asking again"),
        }
    }

    /// Records a server's boot in the log, as the leader. `level`: that of the rules that the server knows.
    ///
    /// # Errors
    /// A [`ChangeRefusal`] where the server is to ask again, a [`Refusal`] where it must end.
    pub async fn record_boot(
        &self,
        newcomer: &ServerInfo,
        sender: &ProcessIdentity,
        level: u32,
    ) -> Result<Result<(), ChangeRefusal>, Refusal> {
        let (processes, id) = (&self.context.processes, newcomer.id);
        let term = self.leadership.borrow().term;
        let (Ok(()), Some(published)) = (self.must_lead(), self.applied_in_term()) else {
            return Ok(Err(ChangeRefusal::NotLeader(None)));
        };
        match self.members().get(&id) {
            None => return Ok(Err(ChangeRefusal::Unknown)),
            Some(peer) if is_another_store(peer, &newcomer.peer) => {
                return Ok(Err(ChangeRefusal::IdTaken(id)));
            }
            Some(_) => {}
        }
        let known = published.state.boot(id);
        if known.is_some_and(|known| known.boot == sender.boot) {
            return Ok(Ok(()));
        }
        // A member may not have heard from enough others to find out alone.
        let datacenter = &self.info.datacenter;
        if newcomer.datacenter != *datacenter {
            return Err(Refusal::Misconfigured(wrong_datacenter(&newcomer.datacenter, datacenter)));
        }
        self.knows_rules(id, level).map_err(Refusal::Misconfigured)?;
        processes.refuse_lost(newcomer, sender)?;
        if let Some(lacks) = processes.acknowledged.lacks(id, sender.boot, term, &newcomer.disk) {
            return Err(Refusal::Lost(lacks));
        }
        if let Some(known) = known
            && self.still_answers(known).await
        {
            return Err(Refusal::InUse(known.rpc_addr.clone()));
        }
        // A recorded address has been reached before; only a new one is checked.
        if known.is_none_or(|known| known.rpc_addr != sender.rpc_addr)
            && let Some(why) = self.found_elsewhere(id, &sender.rpc_addr, PROBE_TIMEOUT).await
        {
            self.context.warnings.warn(&why);
            return Err(Refusal::Misconfigured(why));
        }
        let start = boot_of(newcomer, sender, known.map(|known| known.boot));
        tracing::info!(server = id, at = %start.rpc_addr, "a server has booted");
        let fate = self.intake.submit_at_once(Duty::Booted(Box::new(start))).await;
        Ok(if fate == Forwarded::Committed { Ok(()) } else { Err(ChangeRefusal::Interrupted) })
    }

    /// Ends this server if another one answers at the address that this one was given. It would not notice
    /// otherwise: all messages to that address reach the other server.
    async fn refuse_own_address(&self) {
        let (id, address) = (self.info.id, &self.info.peer.rpc_addr);
        if let Some(why) = self.found_elsewhere(id, address, FIRST_GREETING_TIMEOUT).await {
            self.context.processes.told(&Refusal::Misconfigured(why));
        }
    }

    /// Why a server cannot be found at its given address, if another one answers there. An address where
    /// nobody answers is no reason: this server may be cut off from it for a moment.
    async fn found_elsewhere(
        &self,
        id: NodeId,
        address: &str,
        timeout: Duration,
    ) -> Option<String> {
        let answer = self.context.call_address(address, Request::WhoAreYou, timeout).await;
        let Ok(Response::Identity(there)) = answer else { return None };
        let members = self.members();
        let is_there = |peer: &Peer| peer.store_id == there.store_id;
        let own = &self.info;
        if (id == own.id && is_there(&own.peer)) || members.get(&id).is_some_and(is_there) {
            return None;
        }
        let owner = members.iter().find(|(_, peer)| is_there(peer));
        let owner =
            owner.map_or_else(|| "another server".to_owned(), |(id, _)| format!("server {id}"));
        Some(format!(
            "server {id} was started with --rpc-addr {address}, where {owner} answers: give it an address of its \
             own that the other servers can reach"
        ))
    }

    async fn still_answers(&self, known: &ServerBoot) -> bool {
        let process = ProcessIdentity {
            boot: known.boot,
            incarnation: Some(known.incarnation),
            store_id: known.store_id.clone(),
            rpc_addr: known.rpc_addr.clone(),
        };
        for _ in 0..PROBES {
            if self.context.answers(&process).await {
                return true;
            }
        }
        false
    }

    /// Brings the addresses in the membership in line with the log, as the leader.
    pub async fn follow_addresses(&self) {
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return };
        let Some(published) = self.context.processes.published() else { return };
        if self.is_joint() {
            return;
        }
        let members = self.members().into_iter();
        let moved: BTreeMap<NodeId, Peer> = members
            .filter_map(|(id, peer)| {
                let row = published.state.boot(id).filter(|row| row.store_id == peer.store_id)?;
                let now = Peer {
                    rpc_addr: row.rpc_addr.clone(),
                    http_addr: row.http_addr.clone(),
                    agent_name: row.agent_name.clone(),
                    ..peer.clone()
                };
                (now != peer).then_some((id, now))
            })
            .collect();
        if moved.is_empty() {
            return;
        }
        for (id, peer) in &moved {
            tracing::info!(server = id, %peer, "a server has moved");
        }
        // The voters stay the same, so this is no joint change. The ids keep their data directories, so no
        // address can lead to a server that could vote a second time.
        let change = ChangeMembers::SetNodes(moved);
        if let Err(error) = self.raft.change_membership(change, true).await {
            tracing::info!(%error, "could not update the addresses in the membership; trying again");
        }
    }

    /// Records in the log what servers hold, as the leader.
    pub async fn note_log_ends(&self, noted: &mut Noted) {
        let term = self.leadership.borrow().term;
        let Some(published) = self.context.processes.published() else { return };
        let Some(applied) = published.last_applied.map(Position::from) else { return };
        let boots: BTreeMap<NodeId, BootId> =
            published.state.boots().map(|(id, row)| (id, row.boot)).collect();
        let now = self.context.clock.now();
        let is_due =
            noted.at.is_none_or(|at| now.since(at) >= LOG_ENDS_EVERY) || noted.boots != boots;
        if !is_due {
            return;
        }
        let own = (self.info.id, self.context.processes.own());
        let own_log = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.replication.as_ref().and_then(|matched| *matched.get(&own.0)?)
        };
        // By boot, exactly: a server that has just started must not be held to what it acknowledged itself
        // since.
        let acknowledged = self.context.processes.acknowledged.all(term).into_iter();
        let all = acknowledged.chain(own_log.map(|entry| (own.0, own.1, entry)));
        let news = all.filter_map(|(id, boot, entry)| {
            let upto = Position::from(entry).min(applied);
            // The end of this very entry is no news, or a quiet cluster would write forever.
            let is_news = upto.index > noted.upto && boots.get(&id) == Some(&boot);
            is_news.then_some(LogEnd { id, boot, upto, term })
        });
        let news: Vec<LogEnd> = news.collect();
        if news.is_empty() {
            return;
        }
        if self.intake.submit_at_once(Duty::LogEnds(news)).await == Forwarded::Committed {
            let applied =
                self.context.processes.published().and_then(|version| version.last_applied);
            *noted = Noted { at: Some(now), upto: applied.map_or(0, |id| id.index), boots };
        }
    }
}

/// What a leader has recorded in the log of what servers hold.
#[derive(Debug, Default)]
pub struct Noted {
    at: Option<crate::host::clock::Moment>,
    /// Index of the entry that records it.
    upto: u64,
    boots: BTreeMap<NodeId, BootId>,
}

fn boot_of(newcomer: &ServerInfo, sender: &ProcessIdentity, replaces: Option<BootId>) -> Boot {
    let ServerInfo { id, peer, disk, .. } = newcomer;
    Boot {
        id: *id,
        boot: sender.boot,
        replaces,
        boots: disk.boots,
        store_id: peer.store_id.clone(),
        rpc_addr: peer.rpc_addr.clone(),
        http_addr: peer.http_addr.clone(),
        agent_name: peer.agent_name.clone(),
    }
}
