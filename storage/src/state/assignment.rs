//! Who runs which check: a function of the state, which nobody stores.
//!
//! Every worker has a weight for every check (rendezvous hashing), and the heaviest run it. So when a worker goes,
//! only its own checks move, in equal parts to the others; when one comes, it takes an equal part of each. The hash
//! is FNV-1a of the worker's name, mixed with the check's number by the finaliser of SplitMix64: named and fixed,
//! because servers of all versions must agree.
//!
//! * A check of a network is run by the live processes of that network, and by nobody while there are none.
//! * Another is run by the live servers, and the live processes without a network. While none of them lives, all
//!   servers are responsible: whoever can, should.
//! * A check of its own host (a loopback address) is run by the workers on that host if there are any. Others reach
//!   the host by its address.

use std::sync::Arc;

use super::State;
use super::catalog::fold_arc;
use super::presence::server_id;
use crate::record::{Check, NodeKind, SERVER_SERVICE, Standing, WorkerId, is_own_host};

/// FNV-1a, 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Those who may run checks, as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerSet {
    /// In the order of their ids.
    all: Vec<Candidate>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is.
    pub id: WorkerId,
    /// What people call it: a server's name, a process's name.
    pub name: Arc<str>,
    /// The address of its host.
    pub address: Arc<str>,
    /// The network in which it runs checks, or empty.
    pub network: Arc<str>,
    /// Whether it runs checks.
    pub is_live: bool,
    /// Whether its address is a loopback address: it is on one machine with all others of which this is true.
    is_loopback: bool,
    seed: u64,
}

impl WorkerSet {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.all.iter()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &WorkerId) -> Option<&Candidate> {
        let at = self.all.binary_search_by(|candidate| candidate.id.cmp(id)).ok()?;
        self.all.get(at)
    }

    /// Whether somebody runs the checks of a network.
    #[must_use]
    pub fn has_network(&self, network: &str) -> bool {
        self.all.iter().any(|candidate| candidate.is_live && *candidate.network == *network)
    }

    /// The workers of a check, the heaviest first; `host`: the address of its node.
    #[must_use]
    pub fn responsible(&self, check: &Check, host: &str) -> Vec<&Candidate> {
        let definition = &check.registration.definition;
        let mut eligible = self.eligible(&definition.later.network);
        if definition.is_of_own_host() && eligible.iter().any(|one| one.is_on(host)) {
            eligible.retain(|one| one.is_on(host));
        }
        let weigh = |one: &&Candidate| (weight(one.seed, check.number), one.seed);
        match definition.observers() {
            1 => eligible.into_iter().max_by_key(weigh).into_iter().collect(),
            observers => {
                eligible.sort_by_key(|one| std::cmp::Reverse(weigh(one)));
                eligible.truncate(observers);
                eligible
            }
        }
    }

    fn eligible(&self, network: &str) -> Vec<&Candidate> {
        let live = self.all.iter().filter(|one| one.is_live && *one.network == *network);
        let live: Vec<_> = live.collect();
        if !live.is_empty() || !network.is_empty() {
            return live;
        }
        self.all.iter().filter(|one| matches!(one.id, WorkerId::Server(_))).collect()
    }
}

impl Candidate {
    fn is_on(&self, host: &str) -> bool {
        *self.address == *host || (self.is_loopback && is_own_host(host))
    }

    /// Whether its own loopback address is that of a host.
    #[must_use]
    pub fn is_local(&self, host: &str) -> bool {
        self.is_on(host) || is_own_host(host)
    }
}

/// The weight of a worker for a check.
fn weight(seed: u64, check: u64) -> u64 {
    // SplitMix64's finaliser.
    let mixed = seed ^ check.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What stands for a worker in its weights.
fn seed(id: &WorkerId) -> u64 {
    let text = match id {
        WorkerId::Server(id) => format!("server/{id}"),
        WorkerId::Process(name) => format!("process/{name}"),
    };
    text.bytes().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

/// At what point of its interval a check runs, as a number that is spread evenly.
#[must_use]
pub fn phase_of(check: u64) -> u64 {
    weight(FNV_OFFSET, check)
}

impl State {
    /// Those who may run checks.
    #[must_use]
    pub fn worker_set(&self) -> WorkerSet {
        let servers = self.instances(SERVER_SERVICE).filter_map(|row| {
            let slot = self.catalog.slot(&row.node);
            let slot = slot.filter(|slot| slot.node.kind == NodeKind::Server)?;
            let id = WorkerId::Server(server_id(row.definition.meta.as_ref())?);
            let address: Arc<str> = slot.node.address.as_str().into();
            let is_loopback = is_own_host(&address);
            let (is_live, network) = (self.is_worker_live(&id), Arc::default());
            let (name, seed) = (slot.node.name.clone(), seed(&id));
            Some(Candidate { id, name, address, network, is_live, is_loopback, seed })
        });
        let processes = self.workers.iter().filter_map(|(id, row)| {
            let (WorkerId::Process(name), Some(process)) = (id, &row.process) else { return None };
            let check = self.held_by(process.lease);
            let node = check.and_then(|check| self.catalog.slot(&check.node));
            let address: Arc<str> =
                node.map_or_else(Arc::default, |slot| slot.node.address.as_str().into());
            Some(Candidate {
                id: id.clone(),
                name: name.clone(),
                is_loopback: is_own_host(&address),
                address,
                network: process.network.clone(),
                is_live: row.standing == Standing::Live,
                seed: seed(id),
            })
        });
        let mut all: Vec<Candidate> = servers.chain(processes).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all.dedup_by(|one, other| one.id == other.id);
        WorkerSet { all }
    }

    /// The address of the host that registered a check.
    #[must_use]
    pub fn host_of(&self, check: &Check) -> &str {
        self.catalog.nodes.get(&fold_arc(&check.node)).map_or("", |slot| &slot.node.address)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{
        CheckDefinition, CheckRegistration, CheckStatus, Indexes, LaterMembers, Tags,
    };

    fn set(ids: &[WorkerId]) -> WorkerSet {
        let all = ids.iter().map(|id| Candidate {
            id: id.clone(),
            name: "n".into(),
            address: "10.0.0.1".into(),
            network: Arc::default(),
            is_live: true,
            is_loopback: false,
            seed: seed(id),
        });
        WorkerSet { all: all.collect() }
    }

    fn check(number: u64, observers: u8) -> Check {
        let later = LaterMembers { observers, ..LaterMembers::default() };
        let definition =
            CheckDefinition { tcp: "10.0.0.9:1".to_owned(), later, ..CheckDefinition::default() };
        Check {
            node: "h1".into(),
            registration: CheckRegistration {
                id: "c".into(),
                name: String::new(),
                status: CheckStatus::Passing,
                notes: String::new(),
                output: String::new(),
                service_id: Arc::default(),
                kind: String::new(),
                definition,
            },
            service_name: Arc::default(),
            service_tags: Tags::default(),
            number,
            critical_since: None,
            indexes: Indexes::default(),
            said: None,
        }
    }

    fn worker_of(set: &WorkerSet, number: u64) -> WorkerId {
        set.responsible(&check(number, 1), "10.0.0.9")[0].id.clone()
    }

    const SERVERS: [WorkerId; 3] = [WorkerId::Server(1), WorkerId::Server(2), WorkerId::Server(3)];

    #[test]
    fn the_hash_has_its_golden_values() {
        assert_eq!(seed(&WorkerId::Server(1)), 0x5fb6_178b_5480_f0a2);
        assert_eq!(seed(&WorkerId::Process("w1".into())), 0x22cb_a528_deee_b83b);
        assert_eq!(weight(1, 2), 0xbeeb_8da1_658e_ec67);
    }

    #[test]
    fn ten_thousand_checks_are_shared_evenly() {
        let set = set(&SERVERS);
        let mut shares: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for number in 1..=10_000 {
            *shares.entry(worker_of(&set, number)).or_default() += 1;
        }
        for (worker, share) in shares {
            assert!((2_834..=3_833).contains(&share), "{worker:?} has {share}");
        }
    }

    #[test]
    fn only_the_checks_of_a_worker_that_goes_move() {
        let (three, two) = (set(&SERVERS), set(&SERVERS[..2]));
        for number in 1..=1_000 {
            let before = worker_of(&three, number);
            if before != SERVERS[2] {
                assert_eq!(worker_of(&two, number), before);
            }
        }
    }

    #[test]
    fn a_check_with_three_observers_has_three_workers_while_there_are_three() {
        let names = |set: &WorkerSet| set.responsible(&check(7, 3), "10.0.0.9").len();
        assert_eq!(names(&set(&SERVERS)), 3);
        assert_eq!(names(&set(&SERVERS[..2])), 2);
    }
}
