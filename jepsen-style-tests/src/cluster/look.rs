//! What the servers report: whether they are ready, who leads, which rules are in force.

use serde_json::Value;

use super::{Cluster, Condition, LEADER_LIMIT, READY_LIMIT};
use crate::http::HttpExt as _;
use crate::{Failure, Limit, Result};

impl Cluster {
    /// Waits until a node says that it has caught up and that a quorum answers.
    pub async fn wait_ready(&mut self, id: u64) -> Result<()> {
        let limit = Limit::new(READY_LIMIT);
        loop {
            let said = match self.member(id).probe.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.text()),
                Err(no_answer) => format!("{no_answer:?}"),
            };
            self.require_alive(id)?;
            limit.pause(|| format!("node {id} is ready: {said}")).await?;
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
        let limit = Limit::new(READY_LIMIT);
        let mut target = 0;
        for id in self.running() {
            target = self.wait_applied(id, 0, limit).await?.max(target);
        }
        for id in self.running() {
            self.wait_applied(id, target, limit).await?;
        }
        Ok(())
    }

    /// Waits until a node has applied `target`, and returns how far it is. One look may fail: a server whose
    /// clock jumped has closed its idle connections.
    async fn wait_applied(&self, id: u64, target: u64, limit: Limit) -> Result<u64> {
        loop {
            let said = match self.state_hash(id).await {
                Ok((applied, _)) if applied >= target => return Ok(applied),
                Ok((applied, _)) => format!("it is at {applied}"),
                Err(why) => why.to_string(),
            };
            limit.pause(|| format!("node {id} has applied {target}: {said}")).await?;
        }
    }

    /// Waits until the rules of this level are in force at every founding node.
    pub async fn wait_level(&self, level: u64) -> Result<()> {
        for node in self.https(&self.ids()) {
            node.wait_level(level, READY_LIMIT).await?;
        }
        Ok(())
    }

    /// Waits until the catalogue shows every serving node alive: from then on, a quiet cluster changes
    /// nothing by itself.
    pub async fn wait_all_listed(&self) -> Result<()> {
        let running = self.running();
        let Some(first) = running.first() else { return Err(Failure::new("no node is running")) };
        let are_all = |listed: &Value| listed.as_array().map(Vec::len) == Some(running.len());
        let path = "/v1/health/service/consul?passing";
        self.http(*first).wait_for(path, READY_LIMIT, are_all).await.map(drop)
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
        let limit = Limit::new(LEADER_LIMIT);
        loop {
            if let Some(leader) = self.agreed_leader().await {
                return Ok(leader);
            }
            limit.pause(|| "a leader on which a majority agrees".to_owned()).await?;
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

    /// The leader according to a node.
    pub async fn leader_according_to(&self, id: u64) -> Option<u64> {
        let answer = self.member(id).probe.get("/v1/status/leader").await.ok()?;
        let address = answer.text().trim_matches(['"', '\n']).to_owned();
        self.everybody().find(|member| member.rpc() == address).map(|member| member.id)
    }
}
