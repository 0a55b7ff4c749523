//! What the greetings of other servers tell about a cluster that is not founded, or not as intended.

use std::collections::{BTreeMap, BTreeSet};

use quorate_storage::raft::{NodeId, Peer};

use super::protocol::{Greeting, ServerInfo};

/// Logged by a server that neither founds a cluster nor knows where to look for one.
const NOBODY_NAMED: &str = "waiting: this server founds no cluster (bootstrap_expect is 0 or absent, bootstrap is not set) and no other server is configured (--join, retry_join)";

/// The answers of one round of greetings.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// One for each other server, by id.
    pub(super) greetings: Vec<Greeting>,
    /// Those of other servers that run under this one's id.
    pub(super) namesakes: Vec<Greeting>,
    /// Why servers cannot be in one cluster, as sentences.
    pub(super) clashes: Vec<String>,
    /// Addresses where nobody answered, or that refused, with the reason.
    pub(super) silent: Vec<(String, String)>,
}

impl Round {
    /// Adds the answer from `address`.
    pub(super) fn add(
        &mut self,
        own: &ServerInfo,
        address: &str,
        answer: Result<Greeting, String>,
    ) {
        let greeting = match answer {
            Ok(greeting) => greeting,
            Err(why) => {
                self.silent.push((address.to_owned(), why));
                return;
            }
        };
        let theirs = &greeting.info;
        if theirs.id == own.id && theirs.peer.store_id == own.peer.store_id {
            // This server, under another name of its own address.
            return;
        }
        let earlier = self.greetings.iter().map(|greeting| &greeting.info);
        let clash = earlier.chain([own]).find_map(|earlier| Self::clash(earlier, theirs));
        self.clashes.extend(clash);
        if theirs.id == own.id {
            self.namesakes.push(greeting);
            return;
        }
        let is_new = self.greetings.iter().all(|other| other.info.id != theirs.id);
        if is_new {
            let position = self.greetings.partition_point(|other| other.info.id < theirs.id);
            self.greetings.insert(position, greeting);
        }
    }

    /// Why two servers cannot be in one cluster.
    pub(super) fn clash(one: &ServerInfo, other: &ServerInfo) -> Option<String> {
        let (at, and) = (&one.peer.rpc_addr, &other.peer.rpc_addr);
        if one.id == other.id {
            let is_same = one.peer.store_id == other.peer.store_id;
            return (!is_same).then(|| {
                format!(
                    "two servers run with --node-id {}, at {at} and at {and}: each needs its own",
                    one.id
                )
            });
        }
        if one.peer.name.eq_ignore_ascii_case(&other.peer.name) {
            let name = &one.peer.name;
            return Some(format!(
                "two servers run with --name {name}, {} at {at} and {} at {and}: each needs its own",
                one.id, other.id
            ));
        }
        (one.datacenter != other.datacenter).then(|| {
            format!(
                "server {} at {at} runs with --datacenter {}, and server {} at {and} with --datacenter {}: all servers of a cluster have the same",
                one.id, one.datacenter, other.id, other.datacenter
            )
        })
    }

    /// Why these servers cannot found a cluster, if time will not change that.
    pub(super) fn obstacle(&self, own: &ServerInfo, expected: usize) -> Option<String> {
        if let Some(clash) = self.clashes.first() {
            return Some(format!("cannot found the cluster: {clash}"));
        }
        let founders = self.greetings.iter().filter(|greeting| greeting.bootstrap_expect != 0);
        let mut others = founders.map(|greeting| (greeting.info.id, greeting.bootstrap_expect));
        if expected != 0
            && let Some((id, theirs)) = others.find(|(_, theirs)| *theirs != expected)
        {
            return Some(format!(
                "cannot found the cluster: this server ({}) was started with --bootstrap-expect {expected}, and server {id} with --bootstrap-expect {theirs}",
                own.id
            ));
        }
        let present = self.greetings.len() + 1;
        (expected != 0 && present > expected).then(|| {
            format!(
                "cannot found the cluster: --bootstrap-expect says {expected}, and {present} servers are present ({}): correct --bootstrap-expect, or stop those that do not belong to the cluster",
                self.names(own)
            )
        })
    }

    /// Why a former member must not start with its datacenter: more of the servers present have another one
    /// than have the same, or as many have another one and some of them already run.
    pub(super) fn other_datacenter(&self, own: &ServerInfo) -> Option<String> {
        let of_ours = |greeting: &&Greeting| greeting.info.datacenter == own.datacenter;
        let (ours, theirs): (Vec<_>, Vec<_>) = self.greetings.iter().partition(of_ours);
        let run = |servers: &[&Greeting]| {
            servers.iter().any(|greeting| greeting.sender.incarnation.is_some())
        };
        let is_outnumbered = theirs.len() > ours.len() + 1;
        let is_latecomer = theirs.len() == ours.len() + 1 && run(&theirs) && !run(&ours);
        let other = theirs.first().filter(|_| is_outnumbered || is_latecomer)?;
        Some(wrong_datacenter(&own.datacenter, &other.info.datacenter))
    }

    /// What is missing, once it has been missing for a while.
    pub(super) fn waiting_for(&self, expected: usize) -> String {
        let silent = match self.silent.as_slice() {
            [] => "all servers in --join answer".to_owned(),
            silent => {
                let each = silent.iter().map(|(address, why)| format!("{address} ({why})"));
                format!("no response from {}", each.collect::<Vec<_>>().join(", "))
            }
        };
        if expected == 0 && self.greetings.is_empty() && self.silent.is_empty() {
            return NOBODY_NAMED.to_owned();
        }
        if expected == 0 {
            return format!(
                "waiting for a cluster to join: no server of --join belongs to one, and {silent}"
            );
        }
        let present = self.greetings.len() + 1;
        let known = present + self.silent.len();
        let too_few = match known {
            _ if known >= expected => String::new(),
            1 => ", and no other server is named: --join is missing".to_owned(),
            2 => ", and --join names only 1 other".to_owned(),
            _ => format!(", and --join names only {} others", known - 1),
        };
        let attached: Vec<_> = self.attached().into_keys().collect();
        let attached = if attached.is_empty() {
            String::new()
        } else {
            format!(
                "; of the servers present, {attached:?} belong to a cluster that has no members yet"
            )
        };
        format!(
            "waiting to found the cluster: --bootstrap-expect says {expected}, {present} are present, and {silent}{too_few}{attached}"
        )
    }

    /// Which members are not found where they are looked for, if they are so many that the others cannot elect a
    /// leader, and what to do.
    pub(super) fn missing_majority(
        &self,
        own: &ServerInfo,
        members: &BTreeMap<NodeId, Peer>,
        voters: &BTreeSet<NodeId>,
    ) -> Option<String> {
        let is_found = |id: &NodeId| {
            let store = members.get(id).map(|peer| &peer.store_id);
            let found = self.greetings.iter().any(|greeting| {
                greeting.info.id == *id && Some(&greeting.info.peer.store_id) == store
            });
            *id == own.id || found
        };
        let missing: Vec<NodeId> = voters.iter().filter(|id| !is_found(id)).copied().collect();
        let found = voters.len() - missing.len();
        if found > voters.len() / 2 {
            return None;
        }
        let place = |id: &NodeId| Some(format!("server {id} at {}", members.get(id)?.rpc_addr));
        let missing: Vec<String> = missing.iter().filter_map(place).collect();
        let moved = members.get(&own.id).filter(|known| known.rpc_addr != own.peer.rpc_addr);
        let moved = moved.map_or_else(String::new, |known| {
            format!(
                " (this server has moved itself: the cluster knows it at {}, and it runs with --rpc-addr {})",
                known.rpc_addr, own.peer.rpc_addr
            )
        });
        Some(format!(
            "there is no leader, because only {found} of the {} servers that vote are found: nobody answers for {}, \
             nor at another address of --join{moved}. If they have moved, start every server again with a --join \
             that names the present --rpc-addr of the others; if they are down, start them",
            voters.len(),
            missing.join(", ")
        ))
    }

    fn attached(&self) -> BTreeMap<NodeId, &Greeting> {
        let attached = self.greetings.iter().filter(|greeting| greeting.cluster.is_some());
        attached.map(|greeting| (greeting.info.id, greeting)).collect()
    }

    fn names(&self, own: &ServerInfo) -> String {
        let everybody = self.greetings.iter().map(|greeting| &greeting.info).chain([own]);
        let named = everybody.map(|server| format!("{} at {}", server.id, server.peer.rpc_addr));
        named.collect::<Vec<_>>().join(", ")
    }
}

/// What to tell a member that was started with another datacenter than its cluster's.
pub(super) fn wrong_datacenter(started: &str, cluster: &str) -> String {
    format!(
        "this server was started with --datacenter {started}, and the cluster is that of datacenter {cluster}: start \
         it with that. To rename the datacenter, stop all servers and start all of them with the new name"
    )
}

#[cfg(test)]
mod tests {
    use quorate_storage::raft::{BootId, Peer};

    use super::*;
    use crate::raft::protocol::{DiskState, ProcessIdentity};

    fn server(id: NodeId) -> ServerInfo {
        let peer = Peer {
            name: format!("n{id}"),
            rpc_addr: format!("10.0.0.{id}:8300"),
            store_id: format!("store-{id}"),
            ..Peer::default()
        };
        ServerInfo { id, peer, disk: DiskState::default(), datacenter: "dc1".to_owned() }
    }

    fn greeting(info: ServerInfo) -> Greeting {
        let sender = ProcessIdentity {
            boot: BootId::default(),
            incarnation: None,
            store_id: info.peer.store_id.clone(),
            rpc_addr: info.peer.rpc_addr.clone(),
        };
        Greeting {
            sender,
            info,
            cluster: None,
            bootstrap_expect: 3,
            members: BTreeMap::new(),
            leader: None,
            level: 0,
        }
    }

    fn round(others: impl IntoIterator<Item = ServerInfo>) -> Round {
        let mut round = Round::default();
        for other in others {
            let address = other.peer.rpc_addr.clone();
            round.add(&server(1), &address, Ok(greeting(other)));
        }
        round
    }

    fn obstacle(others: impl IntoIterator<Item = ServerInfo>) -> Option<String> {
        round(others).obstacle(&server(1), 3)
    }

    #[test]
    fn those_who_are_expected_are_no_obstacle() {
        assert_eq!(obstacle([server(3), server(2)]), None);
        let alias = ServerInfo {
            peer: Peer { rpc_addr: "localhost:1".into(), ..server(1).peer },
            ..server(1)
        };
        let round = round([alias, server(3), server(2)]);
        let ids: Vec<_> = round.greetings.iter().map(|greeting| greeting.info.id).collect();
        assert_eq!((ids, round.clashes.len()), (vec![2, 3], 0));
    }

    #[test]
    fn who_cannot_be_in_one_cluster_is_named() {
        let twin =
            ServerInfo { peer: Peer { store_id: "x".into(), ..server(2).peer }, ..server(1) };
        assert!(
            obstacle([twin.clone()])
                .unwrap()
                .contains("--node-id 1, at 10.0.0.1:8300 and at 10.0.0.2:8300")
        );
        assert_eq!(round([twin]).namesakes.len(), 1, "it may know the cluster");
        let third =
            ServerInfo { peer: Peer { store_id: "x".into(), ..server(3).peer }, ..server(2) };
        assert!(obstacle([server(2), third]).unwrap().contains("--node-id 2"));
        let name = ServerInfo { peer: Peer { name: "N2".into(), ..server(3).peer }, ..server(3) };
        assert!(obstacle([server(2), name]).unwrap().contains("--name n2, 2 at"));
        let datacenter = ServerInfo { datacenter: "dc2".into(), ..server(2) };
        assert!(obstacle([datacenter]).unwrap().contains("--datacenter dc2"));
    }

    #[test]
    fn other_expectations_and_too_many_servers_are_named() {
        let too_many = obstacle([server(2), server(3), server(4)]).unwrap();
        assert!(
            too_many.contains("--bootstrap-expect says 3, and 4 servers are present"),
            "{too_many}"
        );
        let mut round = round([server(2)]);
        round.greetings[0].bootstrap_expect = 5;
        let other = round.obstacle(&server(1), 3).unwrap();
        assert!(other.contains("server 2 with --bootstrap-expect 5"), "{other}");
        round.greetings[0].bootstrap_expect = 0;
        assert_eq!(round.obstacle(&server(1), 3), None);
    }

    #[test]
    fn a_server_of_another_datacenter_than_the_others_is_told_theirs() {
        let own = ServerInfo { datacenter: "dc2".into(), ..server(1) };
        let said = |others: &[(NodeId, &str, Option<u64>)]| {
            let mut round = Round::default();
            for (id, datacenter, incarnation) in others {
                let info = ServerInfo { datacenter: (*datacenter).into(), ..server(*id) };
                let mut greeting = greeting(info);
                greeting.sender.incarnation = *incarnation;
                round.add(&own, "10.0.0.9:8300", Ok(greeting));
            }
            round.other_datacenter(&own)
        };
        let outnumbered = said(&[(2, "dc1", None), (3, "dc1", None)]).unwrap();
        assert!(outnumbered.contains("the cluster is that of datacenter dc1"), "{outnumbered}");
        assert!(said(&[(2, "dc1", Some(4))]).is_some(), "the other runs already");
        assert_eq!(said(&[(2, "dc1", None)]), None, "both are starting");
        assert_eq!(
            said(&[(2, "dc1", Some(4)), (3, "dc2", Some(5))]),
            None,
            "it is in the majority"
        );
        assert_eq!(said(&[(2, "dc2", Some(4)), (3, "dc2", Some(5))]), None);
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn members_that_are_not_where_they_were_are_named_when_no_leader_can_be_elected() {
        let members: BTreeMap<NodeId, Peer> = (1..=3).map(|id| (id, server(id).peer)).collect();
        let voters: BTreeSet<NodeId> = members.keys().copied().collect();
        let own = ServerInfo {
            peer: Peer { rpc_addr: "10.0.0.11:8300".into(), ..server(1).peer },
            ..server(1)
        };
        let said = |own: &ServerInfo, round: Round| round.missing_majority(own, &members, &voters);
        let text = said(&own, Round::default()).unwrap();
        assert!(text.contains("only 1 of the 3 servers that vote are found"), "{text}");
        assert!(text.contains("server 2 at 10.0.0.2:8300, server 3 at 10.0.0.3:8300"), "{text}");
        assert!(
            text.contains("knows it at 10.0.0.1:8300, and it runs with --rpc-addr 10.0.0.11:8300"),
            "{text}"
        );
        assert!(!said(&server(1), Round::default()).unwrap().contains("moved itself"));
        let stranger =
            ServerInfo { peer: Peer { store_id: "x".into(), ..server(2).peer }, ..server(2) };
        assert!(said(&own, round([stranger])).is_some(), "it is another server");
        assert_eq!(said(&own, round([server(2)])), None, "two of three can elect a leader");
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut round = round([server(2)]);
        let too_few = round.waiting_for(3);
        assert!(too_few.ends_with("--join names only 1 other"), "{too_few}");
        assert!(Round::default().waiting_for(3).ends_with("--join is missing"));
        round.add(&server(1), "10.0.0.3:8300", Err("connection refused".to_owned()));
        let absent = round.waiting_for(3);
        assert!(
            absent.ends_with(
                "2 are present, and no response from 10.0.0.3:8300 (connection refused)"
            ),
            "{absent}"
        );
        assert!(round.waiting_for(0).contains("no server of --join belongs to one"));
        assert!(Round::default().waiting_for(0).contains("no other server is configured"));
    }
}
