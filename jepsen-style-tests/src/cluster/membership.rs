//! Servers that join and leave by the product's own commands.
//!
//! A server that joins later is a guest: no client and no other fault uses it, and the founding nodes do not have
//! its address in their flags. It is part of the quorum all the same.

use serde_json::Value;

use super::{Cluster, Condition, LEADER_LIMIT, Member, READY_LIMIT};
use crate::http::Method;
use crate::{Failure, Limit, Result};

/// A line of `/v1/operator/raft/configuration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// The server's Raft id.
    pub raft_id: u64,
    /// Its RPC address.
    pub address: String,
    /// Whether it leads, as far as the node that was asked knows.
    pub leads: bool,
    /// Whether it votes; a server that has not caught up yet does not.
    pub votes: bool,
}

impl Cluster {
    /// Adds a server with a number and Raft id that were never used, and starts it: it asks to join. It
    /// takes a while until it votes: [`Self::wait_votes`].
    pub fn add_member(&mut self) -> Result<u64> {
        if self.options.proxied {
            return Err(Failure::new("there are no proxied links to a server that joins later"));
        }
        let id = self.next_raft_id;
        self.next_raft_id += 1;
        let [a, b, c, _] = self.members.first().map_or([127, 0, 0, 0], |first| first.ip.octets());
        let guest = Member::new(id, [a, b, c], self.dir.path())?;
        self.subjects.add(&guest);
        self.guests.push(guest);
        self.start_node(id)?;
        Ok(id)
    }

    /// Forgets a guest that is down, and removes its data. Its log stays.
    pub fn forget_member(&mut self, id: u64) -> Result<()> {
        let Some(position) = self.guests.iter().position(|guest| guest.id == id) else {
            return Err(Failure::new(format!("node {id} is no guest")));
        };
        if self.guests[position].condition != Condition::Down {
            return Err(Failure::new(format!("node {id} runs: it cannot be forgotten")));
        }
        let guest = self.guests.remove(position);
        self.subjects.remove(id);
        std::fs::remove_dir_all(&guest.data)?;
        self.former.push((id, guest.log));
        Ok(())
    }

    /// The numbers of the servers that joined later and were not forgotten yet.
    pub fn guests(&self) -> Vec<u64> {
        self.guests.iter().map(|guest| guest.id).collect()
    }

    /// A node's id in the Raft membership.
    pub fn raft_id(&self, id: u64) -> u64 {
        self.member(id).raft_id
    }

    /// The Raft membership, as a founding node that serves sees it.
    pub async fn configuration(&self) -> Result<Vec<Voter>> {
        let mut said = Failure::new("no node is running");
        for id in self.running() {
            match self.http(id).must_get("/v1/operator/raft/configuration").await {
                Ok(document) => return voters(&document),
                Err(error) => said = error.into(),
            }
        }
        Err(said)
    }

    /// Waits until a node is a voter under its Raft id and at its address.
    pub async fn wait_votes(&mut self, id: u64) -> Result<()> {
        let (raft_id, address) = (self.member(id).raft_id, self.member(id).rpc());
        let limit = Limit::new(READY_LIMIT);
        loop {
            let said = self.configuration().await;
            let is_it = |voter: &Voter| voter.raft_id == raft_id && voter.address == address;
            if said.iter().flatten().any(|voter| is_it(voter) && voter.votes) {
                return Ok(());
            }
            self.require_alive(id)?;
            limit.pause(|| format!("a vote of node {id}: {said:?}")).await?;
        }
    }

    /// Removes a server from the Raft membership, by the request that an operator sends to node `by`; its
    /// process stays. Removing one that is no member is no error.
    pub async fn remove_from_raft(&self, raft_id: u64, by: u64) -> Result<()> {
        let limit = Limit::new(LEADER_LIMIT);
        let path = format!("/v1/operator/raft/peer?id={raft_id}");
        loop {
            if !self.configuration().await?.iter().any(|voter| voter.raft_id == raft_id) {
                return Ok(());
            }
            // It is gone when the membership says so, whatever the answer is.
            let answer = self.http(by).send(Method::DELETE, &path, Default::default()).await?;
            limit.pause(|| format!("DELETE {path}: {} {}", answer.status, answer.text())).await?;
        }
    }

    /// Has `id` lead, by the request that an operator sends to node `by`, and waits until it does.
    pub async fn transfer_leader(&self, id: u64, by: u64) -> Result<()> {
        let limit = Limit::new(LEADER_LIMIT);
        let path = format!("/v1/operator/raft/transfer-leader?id={}", self.raft_id(id));
        loop {
            let answer = self.http(by).put(&path, "").await?;
            if answer.status == 200 && self.leader().await? == id {
                return Ok(());
            }
            limit.pause(|| format!("PUT {path}: {} {}", answer.status, answer.text())).await?;
        }
    }
}

fn voters(document: &Value) -> Result<Vec<Voter>> {
    let strange = || Failure::new(format!("not a Raft configuration: {document}"));
    let servers = document["Servers"].as_array().ok_or_else(strange)?;
    servers
        .iter()
        .map(|server| {
            let raft_id = server["ID"].as_str().and_then(|id| id.parse().ok());
            Some(Voter {
                raft_id: raft_id?,
                address: server["Address"].as_str()?.to_owned(),
                leads: server["Leader"].as_bool()?,
                votes: server["Voter"].as_bool()?,
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(strange)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_is_read_and_another_document_is_not() {
        let server =
            json!({"ID": "4", "Address": "127.9.9.4:8300", "Leader": true, "Voter": false});
        let read = voters(&json!({"Servers": [server], "Index": 7})).unwrap();
        let address = "127.9.9.4:8300".to_owned();
        assert_eq!(read, [Voter { raft_id: 4, address, leads: true, votes: false }]);
        assert!(voters(&json!({"Servers": [{"ID": "x"}]})).is_err());
        assert!(voters(&json!([])).is_err());
    }
}
