//! The level of the cluster's rules ([`quorate_storage::state::LEVEL`]): who raises it, and which servers are
//! too old for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_storage::command::Duty;
use quorate_storage::machine::Published;
use quorate_storage::raft::{NodeId, Peer};

use super::membership::Membership;
use super::protocol::{Forwarded, Request, Response};
use super::transport::Purpose;

/// How long a member may take to say which rules it knows: short, because the leader has other duties.
const GREETING_TIMEOUT: Duration = Duration::from_millis(250);

impl Membership {
    /// Raises the level, as the leader, once every member has said that it knows the rules.
    pub async fn raise_level(&self) {
        let Some(published) = self.applied_in_term() else { return };
        let (present, own) = (published.state.level(), self.context.level);
        if present >= own {
            return;
        }
        let Some(members) = self.members_in_force().await else { return };
        let known = self.levels_of(&members).await;
        let too_low: Vec<String> = members
            .keys()
            .filter(|id| known.get(id).is_none_or(|level| *level <= present))
            .map(NodeId::to_string)
            .collect();
        if !too_low.is_empty() {
            let who = too_low.join(", ");
            self.context.warnings.inform(&format!(
                "the cluster keeps the rules of level {present} until it has heard of a newer version from: server {who}"
            ));
            return;
        }
        let level = known.values().copied().fold(own, u32::min);
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return };
        // A server may have become a member while the others were asked.
        if self.members_in_force().await.as_ref() != Some(&members) {
            return;
        }
        if self.intake.submit_at_once(Duty::Level(level)).await == Forwarded::Committed {
            tracing::info!(
                level,
                "all servers know the rules of this level: they are in force now"
            );
        }
    }

    /// Which rules the members know; those that do not say are left out.
    async fn levels_of(&self, members: &BTreeMap<NodeId, Peer>) -> BTreeMap<NodeId, u32> {
        let answers = members.iter().map(async |(id, peer)| {
            if *id == self.info.id {
                return Some((*id, self.context.level));
            }
            let request = Request::Hello(self.info.clone());
            let (purpose, timeout) = (Purpose::Control, GREETING_TIMEOUT);
            match self.context.call(*id, peer, purpose, request, timeout).await {
                Ok(Response::Hello(greeting)) => Some((*id, greeting.level)),
                Ok(_) | Err(_) => None,
            }
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// Voters and learners, as consensus itself has them.
    async fn members_in_force(&self) -> Option<BTreeMap<NodeId, Peer>> {
        let membership = self.in_force().await.ok()?;
        Some(membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect())
    }

    /// The applied state, if it contains everything that earlier leaders committed. It does once an entry of
    /// this term is applied.
    pub(super) fn applied_in_term(&self) -> Option<Arc<Published>> {
        let term = self.leadership.borrow().term;
        self.context.processes.published().filter(|published| {
            published.last_applied.is_some_and(|applied| applied.leader_id.term == term)
        })
    }

    /// Whether a server that knows the rules of a level can apply this cluster's log.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn knows_rules(&self, id: NodeId, level: u32) -> Result<(), String> {
        let ours = self.state.load().state.level();
        if level >= ours {
            return Ok(());
        }
        Err(format!(
            "server {id} runs a version of quorate that knows the rules of this cluster up to level {level}, and the \
             cluster has level {ours}: start that server with the version that the others run"
        ))
    }
}
