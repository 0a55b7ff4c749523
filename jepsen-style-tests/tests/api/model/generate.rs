//! Random operations. The vocabulary is small, so that operations collide.

mod questions;
mod transactions;

use serde_json::json;

pub(crate) use questions::topics;

use super::catalog::Registration;
use super::kv::{DeleteMode, PutMode, SessionWish};
use super::ledger::{Ledger, Stamp};
use super::operation::{AgentService, NEVER, Operation};
use super::reads::Read;
use super::state::{CheckFacts, Model, NodeFacts, Query, ServiceFacts, Texts};
use crate::dice::Dice;

/// Agents beside the servers' own host's.
pub(crate) const AGENTS: &[&str] = &["quorate", "alpha", "beta"];
const NODES: &[&str] = &["n-a", "n-b", "N-A", "n.c d", "nÖd", "alpha"];
const NODE_IDS: &[&str] =
    &["", "", "", "1f0a2c1e-94a5-4ab1-a7f6-000000000001", "1f0a2c1e-94a5-4ab1-a7f6-000000000002"];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2", "db.local", "::1"];
const SERVICE_IDS: &[&str] = &["web-1", "web-2", "db/1", "a b", "ü:1"];
const SERVICES: &[&str] = &["web", "db", "web", "wéb"];
const TAGS: &[&str] = &["a", "blue", "v1.0", "Großé"];
const CHECK_IDS: &[&str] = &["c1", "c2", "service:web-1", "service:db/1", "serfHealth", "c/3 é"];
const STATUSES: &[&str] = &["passing", "warning", "critical"];
const KEYS: &[&str] = &[
    "a",
    "a/",
    "a/b",
    "ab",
    "a/b/c",
    "x.y",
    "x..y/.z",
    "ü/é",
    "100%",
    "%2F",
    "a b",
    "a+b",
    "<&>",
    "q?=&#",
    "A",
    "\u{10348}",
    "..a/b..",
];
const PREFIXES: &[&str] = &["a", "a/", "x", "ü/", "", "none", "lock/", "%", "r/", "A"];
/// A pool of keys for locks is left behind after so many operations: lock delays make it unusable.
const LOCK_POOL_OPERATIONS: u64 = 500;
const KEY_BYTES_MAX: usize = 4096;

/// Makes operations for a model.
#[derive(Debug)]
pub(crate) struct Generator<'a> {
    pub(crate) dice: &'a mut Dice,
    pub(crate) model: &'a Model,
    pub(crate) ledger: &'a Ledger,
    /// How many operations were made before.
    pub(crate) made: u64,
}

impl Generator<'_> {
    pub(crate) fn operation(&mut self) -> Operation {
        match self.dice.below(100) {
            0..18 => self.put(),
            18..23 => self.delete(),
            23..30 => self.session(),
            30..42 => self.catalog(),
            42..58 => self.agent(),
            58..68 => self.transact(),
            68..71 => self.query(),
            71 => self.fire(),
            72 => self.coordinate(),
            _ => Operation::Read(self.read()),
        }
    }

    // ---- keys --------------------------------------------------------------------------------

    fn lock_key(&mut self) -> String {
        let pool = self.made / LOCK_POOL_OPERATIONS;
        format!("lock/{pool}/{}", self.dice.below(4))
    }

    fn key(&mut self) -> String {
        match self.dice.below(10) {
            0 | 1 => self.lock_key(),
            2 if !self.model.keys.is_empty() => {
                let at = self.dice.below(self.model.keys.len());
                self.model.keys.keys().nth(at).expect("it is among them").clone()
            }
            _ => self.dice.word(KEYS),
        }
    }

    /// Any bytes; most do not make a key.
    fn wild_key(&mut self) -> Vec<u8> {
        let most = if self.dice.one_in(4) { KEY_BYTES_MAX } else { 12 };
        match self.dice.below(4) {
            0 => self.dice.bytes(most),
            1 => {
                let parts = [".", "..", "/", "a", "//", "%2F", "\0", "\u{7f}", " ", "é", "\u{a0}"];
                let count = self.dice.below(6);
                (0..count).map(|_| *self.dice.pick(&parts)).collect::<String>().into_bytes()
            }
            2 => {
                b"r/".iter().copied().chain(self.dice.bytes(most).into_iter().map(plain)).collect()
            }
            _ => vec![b'r'; self.dice.below(most + 1)],
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.dice.below(8) {
            0 => Vec::new(),
            1 => self.dice.bytes(2000),
            _ => self.dice.word(&["1", "2", "three"]).into_bytes(),
        }
    }

    fn a_session(&mut self) -> String {
        let sessions = &self.model.sessions;
        if sessions.is_empty() || self.dice.one_in(12) {
            return "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11".to_owned();
        }
        let at = self.dice.below(sessions.len());
        sessions.keys().nth(at).expect("it is among them").clone()
    }

    /// A number to compare a row's `ModifyIndex` with: the right one if it is known, or a wrong one.
    fn index(&mut self, modify: Option<Stamp>) -> u64 {
        match (self.dice.below(5), modify.and_then(|stamp| self.ledger.index_of(stamp))) {
            (0, _) => 0,
            (1, _) => self.dice.number() >> self.dice.below(64) | 1 << 40,
            (_, Some(index)) => index,
            (_, None) => 0,
        }
    }

    /// Whether the model knows the row's index; if not, it is better read than compared.
    fn is_known(&self, modify: Option<Stamp>) -> bool {
        modify.is_none_or(|stamp| self.ledger.index_of(stamp).is_some())
    }

    fn put(&mut self) -> Operation {
        let (value, flags) = (self.value(), self.flags());
        if self.dice.one_in(12) {
            return Operation::Put { key: self.wild_key(), value, flags, mode: PutMode::Set };
        }
        let key = self.key();
        let modify = self.model.keys.get(&key).map(|row| row.at.modify);
        match self.dice.below(10) {
            0..4 => put(key, value, flags, PutMode::Set),
            4..6 if !self.is_known(modify) => Operation::Read(Read::Key(key.into_bytes())),
            4..6 => {
                let mode = PutMode::Cas(self.index(modify));
                put(key, value, flags, mode)
            }
            6..9 => {
                let key = self.lock_key();
                let mode = match self.model.is_delayed(&key) {
                    Some(_) => PutMode::Acquire(self.a_session()),
                    None => PutMode::Set,
                };
                put(key, value, flags, mode)
            }
            _ => {
                let key = self.lock_key();
                let holder = self.model.keys.get(&key).and_then(|row| row.session.clone());
                let other = self.a_session();
                let id = holder.filter(|_| !self.dice.one_in(4)).unwrap_or(other);
                put(key, value, flags, PutMode::Release(id))
            }
        }
    }

    fn flags(&mut self) -> Option<u64> {
        match self.dice.below(4) {
            0 => Some(42),
            1 => Some(self.dice.number()),
            _ => None,
        }
    }

    fn delete(&mut self) -> Operation {
        let key = self.key();
        let modify = self.model.keys.get(&key).map(|row| row.at.modify);
        let mode = match self.dice.below(6) {
            0 if self.dice.one_in(2) => {
                let everything_is_rare = self.dice.one_in(10);
                let prefix = self.dice.word(PREFIXES);
                let prefix =
                    if prefix.is_empty() && !everything_is_rare { "r/".into() } else { prefix };
                return Operation::Delete { key: prefix.into_bytes(), mode: DeleteMode::Recurse };
            }
            1 | 2 if !self.is_known(modify) => {
                return Operation::Read(Read::Key(key.into_bytes()));
            }
            1 | 2 => DeleteMode::Cas(self.index(modify)),
            _ => DeleteMode::One,
        };
        let key = if self.dice.one_in(20) { self.wild_key() } else { key.into_bytes() };
        Operation::Delete { key, mode }
    }

    // ---- sessions ----------------------------------------------------------------------------

    fn session(&mut self) -> Operation {
        match self.dice.below(10) {
            0 | 1 => Operation::DestroySession(self.a_session()),
            2 | 3 => Operation::RenewSession(self.a_session()),
            // Few sessions, so that locks are contended.
            _ if self.model.sessions.len() > 12 => Operation::DestroySession(self.a_session()),
            _ => {
                let node = if self.dice.one_in(3) { self.a_node() } else { String::new() };
                let checks = |generator: &mut Self| {
                    let count = generator.dice.below(2);
                    (0..count).map(|_| generator.dice.word(CHECK_IDS)).collect::<Vec<_>>()
                };
                let node_checks = self.dice.one_in(3).then(|| checks(self));
                let wish = SessionWish {
                    name: self.dice.word(&["", "s"]),
                    node,
                    lock_delay: *self.dice.pick(&[Some(0), Some(0), Some(0), None]),
                    behavior: self.dice.word(&["", "release", "delete"]),
                    ttl: self.dice.word(&["", "", "2h", "7200s"]),
                    node_checks,
                    checks: self.dice.one_in(3).then(|| checks(self)),
                };
                Operation::CreateSession { agent: self.dice.word(AGENTS), wish }
            }
        }
    }

    // ---- the catalogue -----------------------------------------------------------------------

    fn a_node(&mut self) -> String {
        self.dice.word(NODES)
    }

    /// A node that can be asked about: the servers' too.
    fn any_node(&mut self) -> String {
        match self.dice.below(8) {
            0 => self.dice.word(AGENTS),
            1 => {
                let by_id = "1F0A2c1e-94a5-4ab1-a7f6-000000000001";
                self.dice.word(&["n1", "none", "N1", "NÖD", "nöd", by_id])
            }
            _ => self.a_node(),
        }
    }

    fn node_facts(&mut self) -> NodeFacts {
        let env = |generator: &mut Self| {
            let value = generator.dice.word(&["prod", "dev"]);
            Texts::from([("env".to_owned(), value)])
        };
        NodeFacts {
            id: self.dice.word(NODE_IDS),
            address: self.dice.word(ADDRESSES),
            tagged_addresses: self
                .dice
                .one_in(4)
                .then(|| Texts::from([("lan".to_owned(), self.dice.word(ADDRESSES))])),
            meta: self.dice.one_in(3).then(|| env(self)),
        }
    }

    fn service(&mut self) -> ServiceFacts {
        let count = self.dice.below(3);
        let id = self.dice.word(SERVICE_IDS);
        // Most ids keep their name; some change it.
        let usual = SERVICES[id.len() % SERVICES.len()];
        let name = if self.dice.one_in(6) { self.dice.word(SERVICES) } else { usual.to_owned() };
        ServiceFacts {
            id,
            name,
            tags: (0..count).map(|_| self.dice.word(TAGS)).collect(),
            address: self.dice.word(&["", "10.0.0.1", "db.local"]),
            port: *self.dice.pick(&[0, 80, 8080]),
            meta: match self.dice.one_in(3) {
                true => Texts::from([("env".to_owned(), self.dice.word(&["prod", "dev"]))]),
                false => Texts::new(),
            },
            weights: *self.dice.pick(&[(1, 1), (1, 1), (10, 0)]),
            enable_tag_override: self.dice.one_in(5),
            tagged_addresses: Default::default(),
        }
    }

    /// A check of the catalogue.
    fn check(&mut self) -> CheckFacts {
        let definitions = [
            (json!({}), ""),
            (json!({ "HTTP": "http://10.0.0.1/", "Interval": "10s" }), "http"),
            (json!({ "TCP": "10.0.0.1:1", "Interval": "1m0s", "Timeout": "2s" }), "tcp"),
        ];
        let (definition, kind) = self.dice.pick(&definitions).clone();
        let is_of_node = self.dice.one_in(2);
        CheckFacts {
            id: self.dice.word(CHECK_IDS),
            name: self.dice.word(&["", "check", "other"]),
            status: self.dice.word(&["passing", "passing", "warning", "critical", "odd"]),
            notes: self.dice.word(&["", "note"]),
            output: self.dice.word(&["", "fine", "a <b>"]),
            service_id: if is_of_node { String::new() } else { self.dice.word(SERVICE_IDS) },
            kind: kind.to_owned(),
            definition,
        }
    }

    fn catalog(&mut self) -> Operation {
        let node = match self.dice.below(8) {
            0 => self.dice.word(AGENTS),
            _ => self.a_node(),
        };
        if self.dice.one_in(3) {
            let (service, check) = match self.dice.below(6) {
                0 if node != "quorate" => (String::new(), String::new()),
                1..4 => (self.dice.word(SERVICE_IDS), String::new()),
                _ => (String::new(), self.dice.word(CHECK_IDS)),
            };
            return Operation::Deregister { node, service, check };
        }
        // The node of the servers' own host is the servers' business; what is on it is not.
        let skip_node_update = node == "quorate" || self.dice.one_in(4);
        let mut what = Registration { node, skip_node_update, ..Registration::default() };
        what.facts = self.node_facts();
        if self.dice.one_in(2) {
            what.service = Some(self.service());
        }
        let count = *self.dice.pick(&[0, 0, 1, 1, 2]);
        what.checks = (0..count).map(|_| self.check()).collect();
        if what.node == "quorate" {
            // Only the leader says whether the servers' own host is alive, and takes back what others say.
            what.checks.retain(|check| check.id != "serfHealth");
        }
        if let (Some(service), Some(check)) = (&what.service, what.checks.first_mut())
            && !check.service_id.is_empty()
        {
            check.service_id.clone_from(&service.id);
        }
        Operation::Register(Box::new(what))
    }

    // ---- agents ------------------------------------------------------------------------------

    fn ttl_check(&mut self) -> CheckFacts {
        CheckFacts {
            id: self.dice.word(&["", "", "c1", "c2"]),
            name: self.dice.word(&["", "check"]),
            status: self.dice.word(STATUSES),
            notes: self.dice.word(&["", "note"]),
            kind: "ttl".to_owned(),
            definition: json!({ "TTL": "2h0m0s" }),
            ..CheckFacts::default()
        }
    }

    fn agent(&mut self) -> Operation {
        let agent = self.dice.word(AGENTS);
        match self.dice.below(12) {
            0..3 => {
                let mut service = self.service();
                // Agents note an IP address under the names that say its family.
                if service.address == "10.0.0.1" {
                    let own = (service.address.clone(), service.port);
                    for name in ["lan_ipv4", "wan_ipv4"] {
                        service.tagged_addresses.insert(name.to_owned(), own.clone());
                    }
                }
                let count = *self.dice.pick(&[0, 1, 1, 2, 3]);
                let mut checks: Vec<CheckFacts> = Vec::new();
                for _ in 0..count {
                    let check = self.ttl_check();
                    let is_new = checks.iter().all(|other| other.id != check.id);
                    if check.id.is_empty() || is_new {
                        checks.push(check);
                    }
                }
                let replaces_checks = self.dice.one_in(3);
                let what = AgentService { agent, service, checks, replaces_checks };
                Operation::AgentService(Box::new(what))
            }
            3 => Operation::AgentDeregister { agent, id: self.dice.word(SERVICE_IDS) },
            4 | 5 => {
                let mut check = self.ttl_check();
                check.id = self.dice.word(CHECK_IDS);
                if check.id == "serfHealth" {
                    check.id = "c1".to_owned();
                }
                check.name = "check".to_owned();
                if self.dice.one_in(2) {
                    check.service_id = self.dice.word(SERVICE_IDS);
                }
                Operation::AgentCheck { agent, check: Box::new(check) }
            }
            6 => Operation::AgentDeregisterCheck { agent, id: self.dice.word(CHECK_IDS) },
            7..11 => Operation::Beat {
                agent,
                id: self.dice.word(CHECK_IDS),
                status: self.dice.one_of(STATUSES),
                output: self.dice.word(&["", "", "fine", "ü & <"]),
                by_update: self.dice.one_in(2),
            },
            _ => Operation::Maintain {
                agent,
                service: self.dice.one_in(2).then(|| self.dice.word(SERVICE_IDS)),
                reason: self.dice.one_in(3).then(|| self.dice.word(&["work", "ü"])),
            },
        }
    }

    // ---- the rest ----------------------------------------------------------------------------

    fn a_query(&mut self) -> Option<String> {
        let queries = &self.model.queries;
        if queries.is_empty() || self.dice.one_in(10) {
            return None;
        }
        let at = self.dice.below(queries.len());
        queries.keys().nth(at).cloned()
    }

    fn query(&mut self) -> Operation {
        let id =
            self.a_query().unwrap_or_else(|| "8a4b3b0e-6d07-4f40-9d7a-00000000000a".to_owned());
        let is_bound = self.dice.one_in(3);
        let query = Query {
            name: self.dice.word(&["", "q1", "q2", "q-3"]),
            session: if is_bound { self.a_session() } else { String::new() },
            service: self.dice.word(SERVICES),
            only_passing: self.dice.one_in(2),
            tags: self.dice.one_in(3).then(|| vec![self.dice.word(TAGS)]),
            at: NEVER,
        };
        match self.dice.below(4) {
            0 => Operation::DeleteQuery(id),
            1 => Operation::UpdateQuery { id, query },
            _ => Operation::CreateQuery(query),
        }
    }

    fn fire(&mut self) -> Operation {
        let payload = self.dice.bytes(300);
        Operation::Fire { name: self.dice.word(&["deploy", "é/1", "x"]), payload }
    }

    fn coordinate(&mut self) -> Operation {
        let first = i64::try_from(self.dice.below(3)).unwrap_or(0);
        Operation::Coordinate { node: self.any_node(), vector: vec![first, 0, 0, 0, 0, 0, 0, 1] }
    }
}

fn put(key: String, value: Vec<u8>, flags: Option<u64>, mode: PutMode) -> Operation {
    Operation::Put { key: key.into_bytes(), value, flags, mode }
}

/// A byte that a key may have anywhere.
const fn plain(byte: u8) -> u8 {
    b'a' + byte % 26
}
