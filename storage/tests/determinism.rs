//! Random commands on several replicas: equal effects and hashes, tables that fit together after
//! every entry, and the rules of the index as properties.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::command::{
    AclCommand, Agent, Asked, Batch, Beat, Beats, Boot, CatalogRegistration, ClaimRequest,
    ClaimsCommand, Command, Duty, KvDeleteMode, KvPutMode, LinkRequest, LinkRequests, LogEnd,
    Outcome, Part, Permits, PolicyRequest, PresenceOpen, PresenceReopen, ProcessPresence, Renewal,
    Renewals, RoleRequest, RunResult, ServerRecord, SessionRequest, Stamp, TokenRequest,
    WorkerOpen, WorkerResults, WorkersCommand,
};
use quorate_storage::machine::Published;
use quorate_storage::raft::{BootId, Position};
use quorate_storage::record::{
    Access, AclKind, AclRule, Authority, AutopilotSettings, CLAIM_DELAY, CheckRegistration,
    CheckStatus, Coordinate, DefaultPolicy, Event, FromFile as _, OnClose, Presence, PresenceEnd,
    PresenceTerms, QueryDefinition, RAFT_ID, RequestFacts, SLOTS, SecretHash, ServiceDefinition,
    SessionBehavior, Tags, TextMap, WORKER_SERVICE, WallTime, WorkerId,
};
use quorate_storage::state::{
    ACL_LEVEL, CLAIMS_LEVEL, HEARTBEAT_LEVEL, HISTORY_LEVEL, LEVEL, PRESENCE_LEVEL,
    PROCESS_PRESENCE_LEVEL, SnapshotRecord, WORKERS_LEVEL,
};
use quorate_storage::txn::{KeyVerb, RowVerb, TxnOperation};
use quorate_storage::{ClusterTime, Effects, Index, Millis, State, Topic, backup};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const COMMANDS: usize = 100_000;
/// How often one replica goes through a snapshot, in batches.
const REBUILD_EVERY: usize = 23;

const HOSTS: [&str; 5] = ["h1", "h2", "H2", "h3", "n1"];
const NODES: [&str; 6] = ["h1", "h3", "ext1", "Ext1", "ext2", "n1"];
const IDS: [&str; 4] = ["", "id-a", "id-b", "id-of-h3"];
const SERVICE_IDS: [&str; 3] = ["web-1", "web-2", "consul"];
const SERVICE_NAMES: [&str; 4] = ["web", "Web", "db", "consul"];
const CHECK_IDS: [&str; 5] = ["c1", "c2", "service:web-1", "serfHealth", "heartbeat:web-2"];
const KEYS: [&str; 7] = ["a", "a/b", "a/c", "a/c/d", "ab", "b", "c/long/key"];
const PREFIXES: [&str; 6] = ["", "a", "a/", "a/c", "b", "never"];
const CLAIMS: [&str; 8] = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"];
const SESSIONS: [&str; 5] = ["s1", "s2", "s3", "s4", "s5"];

/// Makes commands from small sets of names, so that they collide.
struct Generator {
    random: ChaCha8Rng,
    origins: BTreeMap<u64, (u64, u64)>,
    sent: Vec<Part>,
    time: u64,
    /// The highest level that is reached.
    level: u32,
    /// A backup of which the first bytes were staged.
    backup: Bytes,
    staged: usize,
}

impl Generator {
    fn new(seed: u64, level: u32) -> Self {
        let origins = [(1, (1, 0)), (2, (1, 0)), (3, (1, 0))].into();
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            origins,
            sent: Vec::new(),
            time: 0,
            level,
            backup: Bytes::new(),
            staged: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.random).unwrap()
    }

    fn batch(&mut self, state: &State) -> Batch {
        self.time += match self.random.random_range(0..1_000) {
            0 => 3_600_000,
            1..20 => 60_000,
            _ => self.random.random_range(0..2_000),
        };
        let behind = if self.chance(5) { 500 } else { 0 };
        let duty = self.chance(30).then(|| self.duty());
        let duty = if self.random.random_ratio(1, 200) { Some(self.boot(state)) } else { duty };
        let duty = self.stamped(duty, state);
        let parts = (0..self.random.random_range(0..3)).map(|_| self.part(state)).collect();
        Batch { stamp: ClusterTime(self.time.saturating_sub(behind)), duty, parts }
    }

    fn duty(&mut self) -> Duty {
        let up_to = ClusterTime(self.time.saturating_sub(self.random.random_range(0..300)));
        let max = self.random.random_range(0..6);
        match self.random.random_range(0..3) {
            0 => Duty::Expire { up_to, max },
            1 => Duty::ExpireDue { up_to, max },
            _ => Duty::Reap { up_to, max },
        }
    }

    /// The same with the stamp of a leader, from when it is understood.
    fn stamped(&mut self, duty: Option<Duty>, state: &State) -> Option<Duty> {
        if state.level() < HISTORY_LEVEL || matches!(duty, Some(Duty::Expire { .. })) {
            return duty;
        }
        let term = self.time / 100_000 + 1;
        let at = WallTime(1_700_000_000_000 + self.time);
        let work = duty.and_then(Duty::into_work);
        Some(Duty::Stamped(Stamp { at, term, leader: term % 3 + 1, work }))
    }

    /// Who asked for some commands.
    fn asked(&mut self, commands: usize) -> Option<Asked> {
        let facts: Vec<Option<RequestFacts>> = (0..commands)
            .map(|_| {
                self.chance(80).then(|| RequestFacts {
                    agent_claimed: self.pick(&NODES).into(),
                    client: self.chance(90).then(|| ([127, 0, 0, 1], 5_000).into()),
                    action: self.pick(&["kv", "txn"]).into(),
                    token: self.pick(&["", "t"]).into(),
                    authority: None,
                })
            })
            .collect();
        let note = Asked::note(facts.iter().map(Option::as_ref))?;
        let mut read: Vec<_> =
            note.facts().iter().map(Option::as_deref).map(Option::<&_>::cloned).collect();
        read.resize(commands, None);
        assert_eq!(read, facts, "a note says what was noted");
        Some(note)
    }

    /// A boot, of which some come too late, what a server holds, or what all know.
    fn boot(&mut self, state: &State) -> Duty {
        if self.chance(5) {
            return Duty::Level(self.random.random_range(0..=self.level));
        }
        let id = self.random.random_range(1..4);
        let known = state.boot(id).map(|row| row.boot);
        if let Some(boot) = known.filter(|_| self.chance(40)) {
            let upto = Position { term: 1, index: self.random.random_range(0..1_000) };
            return Duty::LogEnds(vec![LogEnd {
                id,
                boot,
                upto,
                term: self.random.random_range(1..4),
            }]);
        }
        let replaces = if self.chance(80) { known } else { Some(BootId([0; 16])) };
        Duty::Booted(Box::new(Boot {
            id,
            boot: BootId([self.random.random_range(1..=255); 16]),
            replaces,
            boots: self.random.random_range(0..5),
            store_id: self.pick(&["s1", "s2"]).to_owned(),
            rpc_addr: self.pick(&["a:1", "b:2"]).to_owned(),
            ..Boot::default()
        }))
    }

    /// Numbers commands under the incarnation that the log gave.
    fn note_lives(&mut self, state: &State) {
        for (id, row) in state.boots() {
            let numbered = self.origins.get_mut(&id).unwrap();
            if row.incarnation > numbered.0 {
                *numbered = (row.incarnation, 0);
            }
        }
    }

    fn part(&mut self, state: &State) -> Part {
        self.note_lives(state);
        if self.chance(5)
            && let Some(old) = self.sent.choose(&mut self.random)
        {
            return old.clone();
        }
        let origin = self.random.random_range(1..4);
        if self.random.random_ratio(1, 500) {
            let boot = self.origins.get_mut(&origin).unwrap();
            *boot = (boot.0 + 1, 0);
        }
        let commands: Vec<_> = (0..self.random.random_range(1..5))
            .map(|_| {
                let command = self.command(state);
                let boot = self.origins.get_mut(&origin).unwrap();
                boot.1 += 1;
                (boot.1, command)
            })
            .collect();
        let (incarnation, last) = self.origins[&origin];
        let unanswered = self.random.random_range(0..20);
        let mut commands = commands;
        let (count, new) = (commands.len(), commands.len() as u64);
        if state.level() >= HISTORY_LEVEL
            && let Some(asked) = self.asked(commands.len())
        {
            commands.insert(0, (0, Command::Asked(asked)));
        }
        if state.level() >= ACL_LEVEL
            && let Some(permits) = self.permits(state, count)
        {
            commands.insert(0, (0, Command::Permits(permits)));
        }
        if self.chance(30) {
            // Of what was sent before, or (given up) is sent with it.
            let runs = (0..self.random.random_range(0..4)).map(|_| {
                let first = (last - new + 1).saturating_sub(self.random.random_range(0..25)).max(1);
                (first, first + self.random.random_range(0..4))
            });
            let runs = runs.collect();
            commands.insert(0, (0, Command::Answered { runs }));
        }
        let part = Part {
            origin,
            incarnation,
            answered_through: (last - new).saturating_sub(unanswered),
            commands,
        };
        self.sent.push(part.clone());
        if self.sent.len() > 50 {
            self.sent.remove(0);
        }
        part
    }

    fn command(&mut self, state: &State) -> Command {
        let agent = self.agent();
        if state.level() >= ACL_LEVEL && self.chance(10) {
            return Command::Acl(self.acl(state));
        }
        if state.level() >= CLAIMS_LEVEL && self.chance(25) {
            return Command::Claims(self.claim(state));
        }
        if state.level() >= WORKERS_LEVEL && self.chance(15) {
            return self.workers(state, agent);
        }
        if state.level() >= HEARTBEAT_LEVEL && self.chance(15) {
            return self.heartbeats(state, agent);
        }
        match self.random.random_range(0..100) {
            0..8 => Command::CatalogRegister(Box::new(self.catalog_registration())),
            8..11 => Command::CatalogDeregister {
                node: self.pick(&NODES).into(),
                service_id: if self.chance(50) { self.pick(&SERVICE_IDS) } else { "" }.into(),
                check_id: if self.chance(70) { self.pick(&CHECK_IDS) } else { "" }.into(),
            },
            11..20 => Command::AgentRegisterService {
                agent,
                service: Box::new(self.service_of_agent()),
                checks: (0..self.random.random_range(0..3)).map(|_| self.check()).collect(),
                replace_existing_checks: self.chance(30),
            },
            20..24 => Command::AgentDeregisterService {
                agent,
                service_id: self.pick(&SERVICE_IDS).into(),
            },
            24..30 => Command::AgentRegisterCheck { agent, check: Box::new(self.check()) },
            30..33 => {
                Command::AgentDeregisterCheck { agent, check_id: self.pick(&CHECK_IDS).into() }
            }
            33..41 => Command::UpdateCheck {
                agent,
                check_id: self.pick(&CHECK_IDS).into(),
                status: self.status(),
                output: self.pick(&["", "ok"]).to_owned(),
                seen: self.seen(state),
            },
            41..45 => self.probe_result(state),
            45..50 => Command::Heartbeat {
                number: self.number(state),
                status: self.status(),
                output: self.pick(&["", "ok"]).to_owned(),
                seen: self.seen(state),
            },
            50..60 => self.put(state),
            60..66 => Command::Txn(self.transaction(state)),
            66..71 => self.delete(state),
            71..73 => self.later(state),
            73..77 if state.level() >= PRESENCE_LEVEL => self.presence(state, agent),
            73..82 => Command::SessionCreate(Box::new(self.session(agent))),
            82..85 => Command::SessionDestroy { id: self.pick(&SESSIONS).into() },
            85..94 => {
                Command::SessionRenew { id: self.pick(&SESSIONS).into(), seen: self.seen(state) }
            }
            94 if state.level() >= PRESENCE_LEVEL => self.presence(state, agent),
            94..97 => self.server(),
            97..98 => {
                Command::RemoveServer { id: self.random.random_range(1..4), name: "n1".into() }
            }
            98 => Command::SetServerHealth { name: "n1".into(), alive: self.chance(60) },
            _ => self.rare(state, agent),
        }
    }

    /// In whose names some commands are given.
    fn permits(&mut self, state: &State, count: usize) -> Option<Permits> {
        let mut tokens: Vec<Arc<str>> =
            state.acl_tokens().map(|token| token.accessor.clone()).collect();
        tokens.push("gone".into());
        let authorities: Vec<_> = (0..count)
            .map(|_| {
                let token = tokens.choose(&mut self.random)?.clone();
                let default =
                    if self.chance(70) { DefaultPolicy::Allow } else { DefaultPolicy::Deny };
                self.chance(30).then_some(Authority { token, default })
            })
            .collect();
        Permits::note(authorities.iter().map(Option::as_ref))
    }

    /// Tokens, policies and roles that come, change and go.
    fn acl(&mut self, state: &State) -> AclCommand {
        let id = |random: &str| -> Arc<str> { random.into() };
        let (token, policy, role) = (
            id(self.pick(&["t1", "t2", "t3", "t4"])),
            id(self.pick(&["p1", "p2", "p3"])),
            id(self.pick(&["r1", "r2"])),
        );
        let link = |id: &Arc<str>| LinkRequest { id: id.clone(), name: String::new() };
        let links = LinkRequests {
            policies: if self.chance(60) { vec![link(&policy)] } else { Vec::new() },
            roles: if self.chance(40) { vec![link(&role)] } else { Vec::new() },
            ..LinkRequests::default()
        };
        match self.random.random_range(0..10) {
            0..3 => AclCommand::PutToken(Box::new(TokenRequest {
                is_new: state.acl_token(&token).is_none(),
                secret: Some(SecretHash::of(&token)),
                accessor: token,
                links,
                ttl: Millis(self.random.random_range(0..4) * 2_000),
                ..TokenRequest::default()
            })),
            3 => AclCommand::DeleteToken { accessor: token },
            4..7 => AclCommand::PutPolicy(Box::new(PolicyRequest {
                is_new: state.acl_policy(&policy).is_none(),
                name: self.pick(&["one", "two", "three", "four"]).to_owned(),
                rules: vec![AclRule {
                    kind: *AclKind::ALL.choose(&mut self.random).unwrap(),
                    is_prefix: self.chance(70),
                    name: self.pick(&["", "w", "k", "n1"]).into(),
                    access: if self.chance(80) { Access::Write } else { Access::Deny },
                }],
                counts: true,
                id: policy,
                ..PolicyRequest::default()
            })),
            7 => AclCommand::DeletePolicy { id: policy },
            8 => AclCommand::PutRole(Box::new(RoleRequest {
                is_new: state.acl_role(&role).is_none(),
                name: self.pick(&["one", "two", "three"]).to_owned(),
                links: LinkRequests { roles: Vec::new(), ..links },
                id: role,
                ..RoleRequest::default()
            })),
            _ => AclCommand::DeleteRole { id: role },
        }
    }

    /// Presences that open, come back and end.
    fn presence(&mut self, state: &State, agent: Agent) -> Command {
        let terms = PresenceTerms {
            owner: self.pick(&["o1", "o2", "o3"]).into(),
            attempt: self.random.random_range(1..4),
            linger: Millis(self.random.random_range(0..3) * 500),
            on_close: if self.chance(30) { OnClose::Deregister } else { OnClose::Critical },
        };
        let held: Vec<(u64, Presence)> = state
            .checks()
            .filter_map(|row| Some((row.number, state.presence(row.number)?.as_ref().clone())))
            .collect();
        let one = held.choose(&mut self.random);
        match (self.random.random_range(0..10), one) {
            (0..3, Some((number, _))) => {
                let row = state.check_numbered(*number).unwrap();
                let service = state.service(&row.node, &row.registration.service_id).unwrap();
                let defined = service.indexes.modify;
                Command::PresenceReopen(PresenceReopen { number: *number, defined, terms })
            }
            (3..6, Some((_, presence))) => Command::PresenceEnded {
                seqs: presence.lease.map(|lease| lease.seq).into_iter().collect(),
                why: if self.chance(70) { PresenceEnd::Connection } else { PresenceEnd::Moved },
            },
            _ => {
                let open = PresenceOpen {
                    agent,
                    service: self.service(),
                    checks: (0..self.random.random_range(0..2)).map(|_| self.check()).collect(),
                    deregister_after: Millis(self.random.random_range(0..3) * 40_000),
                    terms,
                };
                if state.level() < PROCESS_PRESENCE_LEVEL || self.chance(50) {
                    return Command::PresenceOpen(Box::new(open));
                }
                let (service, id) = (open.service.name.clone(), open.service.id.clone());
                let (address, port, tags, meta) = (None, None, None, None);
                let beat = Beat { agent: 0, service, id, address, port, tags, meta, ..self.beat() };
                Command::PresenceOfProcess(Box::new(ProcessPresence { open, beat }))
            }
        }
    }

    /// Claims, and all that can become of them.
    fn claim(&mut self, state: &State) -> ClaimsCommand {
        let id: Arc<str> = self.pick(&CLAIMS).into();
        let known = state.claim(&id);
        let request = known.and_then(|claim| claim.attachments.first()).map(|own| own.seq);
        let fences = state.pools().flat_map(|pool| pool.instances()).flat_map(|one| one.busy());
        let fences = fences.filter_map(|number| Some(state.claim_numbered(number)?.grant()?.fence));
        let fences: Vec<u64> = fences.collect();
        match self.random.random_range(0..20) {
            0..9 => ClaimsCommand::Claim(Box::new(ClaimRequest {
                id,
                service: self.pick(&SERVICE_NAMES).into(),
                holder: self.pick(&["gw1", "gw2"]).into(),
                ttl: Millis(self.random.random_range(1..40) * 500),
                session: if self.chance(20) { self.pick(&SESSIONS) } else { "" }.into(),
                require: self.require(),
                prefer: self.pick(&["", "web-1", "web-2"]).into(),
                waits: self.chance(80),
            })),
            9..11 => ClaimsCommand::Renew { id, seen: self.seen(state), fence: 0 },
            11..14 => ClaimsCommand::Release { id },
            14 => ClaimsCommand::Withdraw { id, seq: request.unwrap_or(7) },
            15..17 => ClaimsCommand::Detached { seqs: request.into_iter().chain([7]).collect() },
            17..19 => ClaimsCommand::Collected { fences: fences.into_iter().take(2).collect() },
            _ => {
                let fence = fences.choose(&mut self.random).copied().unwrap_or(3);
                ClaimsCommand::Force { service: self.pick(&SERVICE_NAMES).into(), fence }
            }
        }
    }

    /// Worker processes that come and go, what they find, and servers that are lost and back.
    fn workers(&mut self, state: &State, agent: Agent) -> Command {
        let name: Arc<str> = self.pick(&["w1", "w2", "w3"]).into();
        let known = state.workers().find_map(|(id, row)| {
            (*id == WorkerId::Process(name.clone())).then(|| row.process.clone())?
        });
        match (self.random.random_range(0..10), known) {
            (0, _) => Command::SetServerHealth { name: "n1".into(), alive: self.chance(50) },
            (1, _) => {
                let known: Vec<(u64, u64)> = state.probes().iter().collect();
                let (number, probe) = known.choose(&mut self.random).copied().unwrap_or((3, 4));
                Command::Workers(WorkersCommand::Deserted { number, probe })
            }
            (2, Some(process)) => Command::PresenceEnded {
                seqs: vec![process.lease.seq],
                why: PresenceEnd::Connection,
            },
            (3.., Some(process)) => {
                let known: Vec<(u64, u64)> = state.probes().iter().collect();
                let all = known.into_iter().filter(|_| self.chance(60)).collect::<Vec<_>>();
                let all = all.into_iter().map(|(number, probe)| RunResult {
                    number,
                    probe,
                    status: self.status(),
                    output: self.pick(&["", "refused"]).to_owned(),
                });
                let all = all.collect();
                let seq = process.last_seq + u64::from(self.chance(90));
                let results = WorkerResults { name, lease: process.lease, seq, all };
                Command::Workers(WorkersCommand::Results(Box::new(results)))
            }
            (_, known) => {
                let attempt =
                    known.map_or(0, |process| process.attempt) + u64::from(self.chance(90));
                let terms = PresenceTerms {
                    owner: self.pick(&["o1", "o2"]).into(),
                    attempt,
                    linger: Millis(500),
                    on_close: OnClose::Critical,
                };
                let open = PresenceOpen {
                    agent,
                    service: common::service(&name, WORKER_SERVICE, "", 0),
                    checks: Vec::new(),
                    deregister_after: Millis(90_000),
                    terms,
                };
                let network = self.pick(&["", "dmz"]).into();
                Command::Workers(WorkersCommand::Open(Box::new(WorkerOpen { open, network })))
            }
        }
    }

    fn require(&mut self) -> TextMap {
        let some = self.chance(30).then(|| self.pick(&["eu", "us"]).to_owned());
        some.map(|region| ("region".to_owned(), region)).into_iter().collect()
    }

    /// Metadata that makes an instance one of a pool, or not.
    fn pool_meta(&mut self) -> TextMap {
        let slots = self.pick(&["1", "1", "2", "0", "many"]);
        let delay = self.pick(&["0", "500ms", "2s"]);
        let mut meta = self.require();
        meta.insert(SLOTS.to_owned(), slots.to_owned());
        meta.insert(CLAIM_DELAY.to_owned(), delay.to_owned());
        meta
    }

    /// Heartbeats in bulk, good ones and bad ones.
    fn heartbeats(&mut self, state: &State, agent: Agent) -> Command {
        let seen = self.seen(state);
        if self.chance(40) {
            let mut all: Vec<Renewal> = (0..self.random.random_range(1..6))
                .map(|_| Renewal {
                    number: self.number(state),
                    restarts: u32::from(self.chance(30)),
                    counter: self.some(0..20),
                    status: self.chance(30).then(|| self.status()),
                })
                .collect();
            all.sort_by_key(|renewal| renewal.number);
            return Command::Renew(Box::new(Renewals { seen, all }));
        }
        let agents = vec![agent, self.agent()];
        let all = (0..self.random.random_range(1..5)).map(|_| self.beat()).collect();
        Command::Beat(Box::new(Beats { seen, agents, all }))
    }

    fn beat(&mut self) -> Beat {
        Beat {
            agent: u32::from(self.chance(20)),
            service: self.pick(&SERVICE_NAMES).into(),
            id: self.pick(&SERVICE_IDS).into(),
            address: self.chance(30).then(|| self.pick(&["", "10.1.1.1"]).to_owned()),
            port: self.chance(30).then_some(80),
            tags: self.chance(20).then(|| ["blue".to_owned()].into()),
            meta: None,
            process: self.chance(20).then(|| "p".into()),
            pid: self.some(1..5),
            started: self.chance(20).then(|| self.random.random_range(1..4)),
            version: self.chance(20).then(|| self.pick(&["1", "2"]).into()),
            counter: self.some(0..20),
            warn_after: self.some(0..9).map(Millis::from_secs),
            critical_after: self.some(1..12).map(Millis::from_secs),
            status: self.chance(30).then(|| self.status()),
            note: self.chance(30).then(|| self.pick(&["", "n", "m"]).to_owned()),
        }
    }

    fn some(&mut self, range: std::ops::Range<u64>) -> Option<u64> {
        self.chance(50).then(|| self.random.random_range(range))
    }

    fn transaction(&mut self, state: &State) -> Vec<TxnOperation> {
        let operations = self.random.random_range(1..4);
        (0..operations).map(|_| self.operation(state)).collect()
    }

    fn operation(&mut self, state: &State) -> TxnOperation {
        const KEY_VERBS: [KeyVerb; 10] = [
            KeyVerb::Set,
            KeyVerb::Set,
            KeyVerb::Cas,
            KeyVerb::Lock,
            KeyVerb::Unlock,
            KeyVerb::GetTree,
            KeyVerb::GetOrEmpty,
            KeyVerb::Delete,
            KeyVerb::DeleteTree,
            KeyVerb::DeleteCas,
        ];
        const ROW_VERBS: [RowVerb; 6] = [
            RowVerb::Set,
            RowVerb::Set,
            RowVerb::Cas,
            RowVerb::Delete,
            RowVerb::DeleteCas,
            RowVerb::Get,
        ];
        let node = self.pick(&NODES);
        let verb = *ROW_VERBS.choose(&mut self.random).unwrap();
        match self.random.random_range(0..8) {
            0 => {
                let index = state.node(node).map_or(0, |row| row.indexes.modify.0);
                let node = Box::new(self.catalog_registration());
                TxnOperation::Node { verb, node, index }
            }
            1 => {
                let service = Box::new(self.service());
                let row = state.service(node, &service.id);
                let index = row.map_or(0, |row| row.indexes.modify.0);
                TxnOperation::Service { verb, node: node.into(), service, index }
            }
            2 => {
                let check = Box::new(self.check());
                let row = state.check(node, &check.id);
                let index = row.map_or(0, |row| row.indexes.modify.0);
                TxnOperation::Check { verb, node: node.into(), check, index }
            }
            _ => {
                let key = self.pick(&KEYS);
                TxnOperation::Key {
                    verb: *KEY_VERBS.choose(&mut self.random).unwrap(),
                    key: key.into(),
                    value: Bytes::from_static(b"z"),
                    flags: 0,
                    index: state.key(key).map_or(0, |row| row.indexes.modify.0),
                    session: self.pick(&SESSIONS).into(),
                }
            }
        }
    }

    /// Events, coordinates, queries, and now and then a restore of the state as it is.
    fn later(&mut self, state: &State) -> Command {
        match self.random.random_range(0..20) {
            0..4 => Command::FireEvent(Event {
                id: "e".into(),
                name: "deploy".to_owned(),
                payload: Bytes::new(),
                node_filter: String::new(),
                service_filter: String::new(),
                tag_filter: String::new(),
                time: 0,
            }),
            4..8 => Command::PutCoordinate {
                node: self.pick(&NODES).into(),
                coordinate: Coordinate {
                    height: f64::from(self.random.random_range(0..3)).into(),
                    ..Coordinate::default()
                },
            },
            8..13 => Command::PutQuery {
                query: Box::new(QueryDefinition {
                    id: self.pick(&["q1", "q2", "q3"]).into(),
                    name: self.pick(&["", "web", "db"]).to_owned(),
                    session: if self.chance(50) { self.pick(&SESSIONS) } else { "" }.into(),
                    service: "web".to_owned(),
                    ..QueryDefinition::default()
                }),
                is_new: self.chance(70),
            },
            13..15 => Command::DeleteQuery { id: self.pick(&["q1", "q2", "q3"]).into() },
            15 => {
                let version = Published { state: state.clone(), ..Published::default() };
                self.backup = backup::write(&version, Vec::new()).unwrap().into();
                self.staged = 0;
                Command::RestoreBegin { id: "r1".into() }
            }
            16..19 => {
                // Three pieces or so make a backup; other commands come between them.
                let rest = self.backup.slice(self.staged..);
                let length = rest.len().min((self.backup.len() / 2).saturating_sub(1));
                let offset = self.staged as u64;
                self.staged += length;
                Command::RestorePiece { id: "r1".into(), offset, piece: rest.slice(..length) }
            }
            _ => Command::RestoreFinish { id: "r1".into() },
        }
    }

    /// Commands of operators.
    fn rare(&mut self, state: &State, agent: Agent) -> Command {
        match self.random.random_range(0..10) {
            0..6 => Command::SetMaintenance {
                agent,
                service_id: if self.chance(60) { self.pick(&SERVICE_IDS) } else { "" }.into(),
                reason: self.chance(50).then(|| "why".to_owned()),
            },
            6 => Command::AgentLeave { agent },
            7 => Command::WatchAgent { agent, ttl: Millis(self.random.random_range(1..5_000)) },
            8 => {
                let mut texts = |name: &str, values: &[&'static str]| {
                    let some =
                        self.chance(60).then(|| (name.to_owned(), self.pick(values).to_owned()));
                    self.chance(80).then(|| some.into_iter().collect())
                };
                let tagged_addresses = texts("wan", &["198.51.100.1", "198.51.100.2"]);
                let meta = texts("rack", &["1", "2"]);
                let id = self.chance(50).then(|| self.pick(&["id-a", "id-b"]).to_owned());
                Command::DescribeAgent { agent, id, tagged_addresses, meta }
            }
            _ => {
                let index = state.topic_index(&Topic::Autopilot).0;
                let cas = self.chance(60).then_some(index);
                let min_quorum = self.random.random_range(0..3);
                let settings = AutopilotSettings { min_quorum, ..AutopilotSettings::default() };
                Command::SetAutopilot { settings: Box::new(settings), cas }
            }
        }
    }

    fn agent(&mut self) -> Agent {
        let name = self.pick(&HOSTS);
        if self.chance(10) { common::agent_at(name, "fd00::7") } else { common::agent(name) }
    }

    fn seen(&mut self, state: &State) -> ClusterTime {
        let late = if self.chance(10) { self.random.random_range(0..30_000) } else { 0 };
        state.time() - Millis(late)
    }

    fn number(&mut self, state: &State) -> u64 {
        let known: Vec<u64> = state.checks().map(|row| row.number).collect();
        known.choose(&mut self.random).copied().unwrap_or(3)
    }

    /// A result of a present probe, or of one that is long gone.
    fn probe_result(&mut self, state: &State) -> Command {
        let known: Vec<(u64, u64)> = state.probes().iter().collect();
        let (number, probe) = known.choose(&mut self.random).copied().unwrap_or((3, 4));
        Command::ProbeResult {
            number,
            probe: if self.chance(80) { probe } else { probe - 1 },
            status: self.status(),
            output: self.pick(&["", "refused"]).to_owned(),
        }
    }

    fn status(&mut self) -> CheckStatus {
        CheckStatus::from_text(self.pick(&["passing", "passing", "warning", "critical", "odd"]))
    }

    fn service(&mut self) -> ServiceDefinition {
        let address = self.pick(&["", "10.1.1.1"]);
        let mut row =
            common::service(self.pick(&SERVICE_IDS), self.pick(&SERVICE_NAMES), address, 80);
        row.tags = if self.chance(30) { ["blue".to_owned()].into() } else { Tags::default() };
        if self.chance(60) {
            row.meta = Some(self.pool_meta());
        }
        row
    }

    /// An instance that its agent may have from a file.
    fn service_of_agent(&mut self) -> ServiceDefinition {
        let mut row = self.service();
        if self.chance(30) {
            row.mark_from_file();
        }
        row
    }

    fn check(&mut self) -> CheckRegistration {
        let mut row = common::check(self.pick(&CHECK_IDS), self.status());
        row.service_id = if self.chance(50) { self.pick(&SERVICE_IDS) } else { "" }.into();
        if self.chance(60) {
            row.kind = "ttl".to_owned();
            row.definition.ttl = Millis(self.random.random_range(1..5) * 5_000);
        } else if self.chance(60) {
            row.kind = "tcp".to_owned();
            row.definition.tcp = self.pick(&["10.1.1.1:80", "127.0.0.1:81"]).to_owned();
            if self.level >= WORKERS_LEVEL {
                row.definition.later.observers = if self.chance(60) { 3 } else { 0 };
                row.definition.later.network = self.pick(&["", "", "dmz", "lab"]).into();
            }
        }
        if self.chance(40) {
            if self.level >= HEARTBEAT_LEVEL && self.chance(50) {
                row.definition.later.warn_after = Millis(row.definition.ttl.0 / 2);
            }
            row.definition.deregister_critical_service_after =
                Millis(self.random.random_range(1..4) * 40_000);
        }
        row
    }

    fn catalog_registration(&mut self) -> CatalogRegistration {
        CatalogRegistration {
            node: self.pick(&NODES).into(),
            node_id: self.pick(&IDS).to_owned(),
            address: self.pick(&["10.2.0.1", "10.2.0.2"]).to_owned(),
            tagged_addresses: self.chance(20).then(TextMap::new),
            node_meta: None,
            skip_node_update: self.chance(40),
            service: self.chance(50).then(|| self.service()),
            checks: (0..self.random.random_range(0..3)).map(|_| self.check()).collect(),
        }
    }

    fn session(&mut self, agent: Agent) -> SessionRequest {
        SessionRequest {
            id: self.pick(&SESSIONS).into(),
            agent,
            node: if self.chance(20) { self.pick(&NODES) } else { "" }.into(),
            name: String::new(),
            lock_delay_nanos: self.random.random_range(0..3) * 15_000_000_000,
            behavior: if self.chance(50) {
                SessionBehavior::Release
            } else {
                SessionBehavior::Delete
            },
            ttl_text: String::new(),
            ttl: Millis(self.random.random_range(0..3) * 10_000),
            node_checks: if self.chance(70) { vec!["serfHealth".to_owned()] } else { Vec::new() },
            service_checks: self.chance(20).then(|| vec![("c1".to_owned(), String::new())]),
            checks: self.chance(20).then(|| vec!["service:web-1".to_owned()]),
        }
    }

    fn put(&mut self, state: &State) -> Command {
        let key = self.pick(&KEYS);
        let session = self.pick(&SESSIONS);
        let mode = match self.random.random_range(0..6) {
            0 | 1 => KvPutMode::Set,
            2 => KvPutMode::Cas(state.key(key).map_or(0, |row| row.indexes.modify.0)),
            3 => KvPutMode::Cas(self.random.random_range(0..9)),
            4 => KvPutMode::Acquire(session.into()),
            _ => KvPutMode::Release(session.into()),
        };
        let value = Bytes::from_static([b"x", b"y"].choose(&mut self.random).unwrap().as_slice());
        Command::KvPut { key: key.into(), value, flags: 0, mode }
    }

    fn delete(&mut self, state: &State) -> Command {
        let key = self.pick(&KEYS);
        let mode = match self.random.random_range(0..4) {
            0 => KvDeleteMode::Recurse,
            1 => KvDeleteMode::Cas(state.key(key).map_or(0, |row| row.indexes.modify.0)),
            _ => KvDeleteMode::One,
        };
        Command::KvDelete { key: key.into(), mode }
    }

    fn server(&mut self) -> Command {
        let host = self.pick(&["h1", "n1"]);
        Command::RegisterServer(Box::new(ServerRecord {
            id: 1,
            name: "n1".into(),
            node_id: "id-of-n1".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 8300,
            agent: common::agent(host),
            meta: TextMap::from([(RAFT_ID.to_owned(), "1".to_owned())]),
        }))
    }
}

/// Topics whose indexes are followed.
fn topics() -> Vec<Topic> {
    let mut all = vec![Topic::Services, Topic::Nodes, Topic::Checks, Topic::Sessions];
    all.extend([Topic::Autopilot, Topic::Events, Topic::Coordinates, Topic::Queries]);
    all.extend(KEYS.iter().map(|key| Topic::Key((*key).into())));
    all.extend(PREFIXES.iter().map(|prefix| Topic::Prefix((*prefix).into())));
    all.extend(["web", "db", "consul", "none"].iter().map(|name| Topic::service(name)));
    all.extend(["h1", "h2", "h3", "ext1", "ext2", "n1"].iter().map(|name| Topic::node(name)));
    all
}

/// Whether a topic's index may move although nothing of the topic changed: what does not exist
/// shares the index of its table, and reaping raises the floor under prefixes.
fn may_drift(topic: &Topic, state: &State, batch: &Batch) -> bool {
    match topic {
        Topic::Key(key) => state.key(key).is_none(),
        Topic::Prefix(prefix) => batch.duty.is_some() || state.keys_below(prefix).next().is_none(),
        Topic::Service(name) => state.instances(name).next().is_none(),
        Topic::Node(name) => state.node(name).is_none(),
        Topic::Services
        | Topic::Nodes
        | Topic::Checks
        | Topic::Sessions
        | Topic::Events
        | Topic::Coordinates
        | Topic::Queries
        | Topic::Everything
        | Topic::Autopilot
        | Topic::Pool(_)
        | Topic::Claim(_)
        | Topic::AclTokens
        | Topic::AclPolicies
        | Topic::AclRoles => false,
    }
}

fn was_touched(topic: &Topic, effects: &Effects) -> bool {
    let by_name = match topic {
        Topic::Prefix(prefix) => effects.touched.iter().any(|touched| match touched {
            Topic::Key(key) => key.starts_with(&**prefix),
            Topic::Prefix(cut) => cut.starts_with(&**prefix) || prefix.starts_with(&**cut),
            _ => false,
        }),
        Topic::Key(key) => effects.touched.iter().any(|touched| match touched {
            Topic::Key(touched) => touched == key,
            Topic::Prefix(cut) => key.starts_with(&**cut),
            _ => false,
        }),
        other => effects.touched.contains(other),
    };
    by_name || effects.touched.contains(&Topic::Everything)
}

/// A refused command changes nothing but the record that it was refused, and of what was answered.
fn check_refusals_leave_no_trace(before: &State, after: &State, batch: &Batch, effects: &Effects) {
    let all_refused =
        effects.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Rejected(_)));
    if batch.duty.is_none() && all_refused {
        let kept = |record: &SnapshotRecord<'_>| {
            !matches!(
                record,
                SnapshotRecord::Header(_)
                    | SnapshotRecord::Origin { .. }
                    | SnapshotRecord::Outcome { .. }
                    | SnapshotRecord::Answered { .. }
            )
        };
        assert_eq!(common::export_some(before, kept), common::export_some(after, kept));
    }
}

/// The rules of the index, over one entry.
fn check_index_rules(
    indexes: &mut [(Topic, Index)],
    before: Index,
    state: &State,
    batch: &Batch,
    effects: &Effects,
) {
    let catalogue = effects.touched.iter().any(|topic| !topic.is_of_claims());
    assert_eq!(state.index() > before, catalogue, "touched means a new index");
    for (topic, index) in indexes {
        let now = state.topic_index(topic);
        assert!(now >= *index, "{topic:?} fell from {index} to {now}");
        assert!(now <= state.index(), "{topic:?} is at {now}, in the future");
        let touched = was_touched(topic, effects);
        assert!(!touched || now > *index, "{topic:?} was touched and stayed at {index}");
        assert!(
            touched || now == *index || may_drift(topic, state, batch),
            "{topic:?} moved from {index} to {now} untouched"
        );
        *index = now;
    }
}

fn run(seed: u64, commands: usize, level: u32) {
    let mut generator = Generator::new(seed, level);
    let mut kept = State::default();
    let mut twin = State::default();
    let mut rebuilt = State::default();
    let mut indexes: Vec<_> = topics().into_iter().map(|topic| (topic, Index::START)).collect();
    let (mut applied, mut batches, mut refused, mut expired) = (0, 0, 0, 0);
    while applied < commands {
        let batch = generator.batch(&kept);
        let before = kept.clone();
        let effects = kept.apply(&batch);
        kept.check_applied(before.before(), &effects).unwrap_or_else(|broken| {
            panic!("seed {seed}, batch {batches}: {broken}: {batch:?}");
        });
        assert_eq!(twin.apply(&batch), effects, "seed {seed}, batch {batches}");
        assert_eq!(
            rebuilt.apply(&batch),
            effects,
            "seed {seed}, batch {batches}, through a snapshot"
        );
        kept.check_invariants().unwrap_or_else(|broken| {
            panic!("seed {seed}, batch {batches}: {broken}\n{batch:#?}");
        });
        check_index_rules(&mut indexes, before.index(), &kept, &batch, &effects);
        check_refusals_leave_no_trace(&before, &kept, &batch, &effects);
        expired += usize::from(batch.parts.is_empty() && !effects.touched.is_empty());
        applied += effects.outcomes.len();
        refused += effects
            .outcomes
            .iter()
            .filter(|(_, what)| matches!(what, Outcome::Rejected(_)))
            .count();
        batches += 1;
        if batches % REBUILD_EVERY == 0 {
            rebuilt = common::import(&common::export(&rebuilt));
            rebuilt.check_invariants().unwrap();
            let hash = kept.hash();
            assert_eq!(twin.hash(), hash, "seed {seed}, batch {batches}");
            assert_eq!(rebuilt.hash(), hash, "seed {seed}, batch {batches}, through a snapshot");
        }
    }
    assert!(refused * 2 < applied, "most commands must mean something: {refused} of {applied}");
    if commands >= COMMANDS {
        assert!(expired * 500 > applied, "{expired} batches in which something expired are few");
    }
}

#[test]
fn replicas_agree_on_random_commands_also_through_snapshots() {
    run(1, COMMANDS, HISTORY_LEVEL - 1);
}

#[test]
fn short_histories_from_an_empty_state_agree_as_well() {
    for seed in 2..40 {
        run(seed, 300, LEVEL);
    }
}

#[test]
fn replicas_agree_on_the_history() {
    // Fewer, because every look at a state reads all of its history.
    run(40, 10_000, LEVEL);
}
