//! What the servers say: whether they are ready, and who leads.

use std::time::Instant;

use super::{Cluster, Condition, LEADER_LIMIT, POLL, READY_LIMIT};
use crate::{Failure, Result};

impl Cluster {
    /// Waits until a node says that it has caught up and that a quorum answers.
    pub async fn wait_ready(&mut self, id: u64) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let said = match self.member(id).probe.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(no_answer) => format!("{no_answer:?}"),
            };
            self.require_alive(id)?;
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "node {id} was not ready within {READY_LIMIT:?}: {said}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every node that should be serving is ready.
    pub async fn wait_all_ready(&mut self) -> Result<()> {
        for id in self.running() {
            self.wait_ready(id).await?;
        }
        Ok(())
    }

    /// Waits until every node that should be serving is ready and has applied what any of them had applied
    /// when this was called.
    pub async fn wait_all_caught_up(&mut self) -> Result<()> {
        self.wait_all_ready().await?;
        let deadline = Instant::now() + READY_LIMIT;
        let mut target = 0;
        for id in self.running() {
            target = self.wait_applied(id, 0, deadline).await?.max(target);
        }
        for id in self.running() {
            self.wait_applied(id, target, deadline).await?;
        }
        Ok(())
    }

    /// Waits until a node has applied `target`, and returns how far it is. One look may fail: a server whose
    /// clock jumped has closed its idle connections.
    async fn wait_applied(&self, id: u64, target: u64, deadline: Instant) -> Result<u64> {
        loop {
            let said = match self.state_hash(id).await {
                Ok((applied, _)) if applied >= target => return Ok(applied),
                Ok((applied, _)) => format!("it is at {applied}"),
                Err(why) => why.to_string(),
            };
            if Instant::now() > deadline {
                let what = format!("node {id} did not catch up to {target}: {said}");
                return Err(Failure::new(what));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the catalogue shows every serving node alive: from then on, a quiet cluster changes
    /// nothing by itself.
    pub async fn wait_all_listed(&self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let running = self.running();
        let Some(first) = running.first() else { return Err(Failure::new("no node is running")) };
        loop {
            let listed = self.http(*first).must_get("/v1/health/service/consul?passing").await?;
            if listed.as_array().is_some_and(|listed| listed.len() == running.len()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("not all listed in {READY_LIMIT:?}: {listed}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) fn require_alive(&mut self, id: u64) -> Result<()> {
        let member = self.member_mut(id);
        let Some(child) = &mut member.child else {
            return Err(Failure::new(format!("node {id} is down")));
        };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!("node {id} ended by itself: {status}"))),
        }
    }

    /// The leader, once the node in question and a majority of the cluster agree on it.
    pub async fn leader(&self) -> Result<u64> {
        let deadline = Instant::now() + LEADER_LIMIT;
        loop {
            if let Some(leader) = self.agreed_leader().await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("no leader was agreed on in {LEADER_LIMIT:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn agreed_leader(&self) -> Option<u64> {
        let mut named = Vec::new();
        let serving: Vec<_> = self
            .everybody()
            .filter(|member| member.condition == Condition::Running)
            .map(|member| member.id)
            .collect();
        for id in &serving {
            named.push((*id, self.leader_according_to(*id).await));
        }
        let majority = self.everybody().count() / 2 + 1;
        serving.into_iter().find(|candidate| {
            let agrees = |(_, leader): &&(u64, Option<u64>)| *leader == Some(*candidate);
            named.contains(&(*candidate, Some(*candidate)))
                && named.iter().filter(agrees).count() >= majority
        })
    }

    /// Whom a node takes for the leader at present.
    pub async fn leader_according_to(&self, id: u64) -> Option<u64> {
        let answer = self.member(id).probe.get("/v1/status/leader").await.ok()?;
        let address = answer.body.trim_matches(['"', '\n']).to_owned();
        self.everybody().find(|member| member.rpc() == address).map(|member| member.id)
    }
}
