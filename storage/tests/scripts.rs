//! Stories with full traces: `scripts/*.txt` hold commands, and below each, indented, what came of
//! it. `UPDATE_SCRIPTS=1` writes the present traces into the files, to be read in review.
//!
//! | line | meaning |
//! | --- | --- |
//! | `tick 5000`, `expire max=2`, `reap max=2` | time passes; the leader proposes what is due |
//! | `expire-and-reap max=2` | the duty of older logs, which did both |
//! | `@h1 service web id=web-1 check=c1,ttl=10000` | host h1's agent registers (`@h1/10.9.9.9`: from another address) |
//! | `@h1 pass c1 output=fine age=3000` | a heartbeat that was read 3 s of cluster time ago; also `warn`, `fail` |
//! | `probe 4 5 critical output=refused` | a run of check number 4, probe 5; a check with `tcp=` or `alias=` is run |
//! | `catalog n1 address=1.2.3.4 id=x service=web sid=web-1 check=c1,service=web-1` | `catalog/register` |
//! | `put a 1 cas=2`, `put a 1 acquire=s1`, `del a recurse` | keys (`del recurse`: all of them) |
//! | `@h1 session s1 ttl=10000 delay=15000 behavior=delete checks=c1` | sessions |
//! | `@h1 maintain web-1 reason=x`, `@h1 maintain`, `@h1 leave`, `@h1 watch-agent ttl=10000`, `autopilot min-quorum=3 cas=2` | operators |
//! | `txn set a 1 ; cas b 2 index=5 ; node-set n1 address=1.2.3.4` | a transaction |
//! | `query q1 name=q session=s1 service=web` (with `template`: one), `drop-query q1`, `event deploy`, `coordinate n1 0.5` | the later tables |
//! | `backup`, `restore 100` | a backup is kept, and restored in pieces of 100 bytes |
//! | `stage 100` | the same without the last step, as restore r1 |
//! | `fresh` | another, empty cluster; the backup is kept |
//! | `begin-restore r1`, `piece r1 0 abc`, `finish-restore r1` | the same step by step |
//! | `server n1 agent=h1`, `health n1 down`, `remove-server 1 n1` | the cluster's own servers |
//! | `@h1 open web id=web-1 owner=a attempt=2 linger=500 dereg=60000 deregister check=c1` | a presence; `send` gives it a lease of another server |
//! | `@h1 open web id=web-1 owner=a pid=7 version=2 critical=9000` | one that says what process it is |
//! | `reopen web-1 at=h1 owner=a` | the compact one, of the instance as it is |
//! | `closed 3 4 why=moved` | streams that these commands opened have ended (`connection`, `moved`) |
//! | `send 1/2 answered=3 ; 5 put a 1 ; 6 del a` | one part with explicit numbers: origin 1, incarnation 2 |
//! | `send 1/2 answered=3 ; 0 answered 5..7 9..9 ; 8 put a 1` | the same with what is answered beyond |
//! | `boot 3 id=b replaces=a boots=2 store=s at=x:1 agent=h1`, `log-end 3 boot=b upto=7 term=1` | boots of servers |
//! | `level 1` | all members know the rules of level 1 |
//! | `stamp 1000 term=1 leader=2` | time passes, and the leader says so with its wall clock |
//! | `asked kv ; put a 1` | a client asked for that at this endpoint |
//! | `@h1 heartbeat web id=web-1 pid=7 counter=3 warn=3000 critical=9000 ; db on=h2` | heartbeats in bulk; one is h2's |
//! | `renewals 3 counter=5 ; 4 restarts=1 status=warning age=3000` | the same by the numbers of checks |
//! | `renewal 3` | one of them, for `send` |
//! | `@h1 service rdb id=rdb-1 slots=2 delay=2s meta=region:eu` | an instance of a pool |
//! | `claim rdb id=c1 by=gw ttl=30000 session=s1 require=region:eu prefer=rdb-1 wait` | a claim, which waits or not |
//! | `renew-claim c1 age=3000`, `release c1`, `force rdb 3` | its holder, an operator |
//! | `withdraw c1 7`, `gone 7 8`, `collected 1 2` | the requests of a server, by their numbers; grants, by their fences |
//! | `show claims pools` | looks at those |
//! | `@h1 worker w1 network=dmz owner=a attempt=2 linger=500` | a worker process |
//! | `results w1 lease=9/1/3 seq=1 ; 4 5 critical output=refused` | what it found |
//! | `deserted 4 5` | the leader says that no worker of the network of check number 4 is alive |
//! | `show workers views who` | who is there, what observers found, who runs which check |
//! | `show nodes services checks probes presences keys sessions deadline`, `index key:a service:web` | looks |
//! | `reimport` | the state goes through a snapshot |

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use quorate_storage::command::{
    Agent, Asked, Batch, Beat, Beats, BeatsOutcome, Boot, CatalogRegistration, ClaimRequest,
    ClaimsCommand, Command, Duty, KvDeleteMode, KvPutMode, LogEnd, Outcome, Part, PresenceOpen,
    PresenceReopen, ProcessPresence, Refused, Rejection, Renewal, Renewals, RunResult,
    ServerRecord, SessionRequest, Stamp, WorkerOpen, WorkerResults, WorkersCommand,
};
use quorate_storage::machine::Published;
use quorate_storage::raft::{BootId, Position};
use quorate_storage::record::{
    AutopilotSettings, CLAIM_DELAY, Cause, Check, CheckRegistration, CheckStatus, Claim,
    ClaimPhase, Coordinate, Detail, EndedPresence, Event, Facts, Grant, HistoryRecord, KvEntry,
    Lease, Node, OnClose, PRESENCE_CHECK, PresenceEnd, PresenceTerms, Query, QueryDefinition,
    RAFT_ID, RequestFacts, Ring, SLOTS, Service, ServiceDefinition, Session, SessionBehavior,
    Standing, Subject, TextMap, WORKER_SERVICE, WallTime,
};
use quorate_storage::state::{Candidate, Pool, ServerBoot, SnapshotRecord};
use quorate_storage::txn::{KeyVerb, RowVerb, TxnOperation, TxnResult};
use quorate_storage::{ClusterTime, Effects, Millis, State, Topic, backup};

/// The origin and incarnation that number the commands of plain lines.
const ORIGIN: u64 = 9;

/// A line taken apart: `@agent verb word word name=value`.
struct Line<'a> {
    agent: Agent,
    verb: &'a str,
    words: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts: Vec<&str> = text.split_whitespace().collect();
        let agent = match parts[0].strip_prefix('@') {
            Some(asked) => {
                parts.remove(0);
                match asked.split_once('/') {
                    Some((name, address)) => common::agent_at(name, address),
                    None => common::agent(asked),
                }
            }
            None => common::agent("h1"),
        };
        let verb = parts.remove(0);
        let named = parts.iter().filter_map(|part| part.split_once('=')).collect();
        let words = parts.into_iter().filter(|part| !part.contains('=')).collect();
        Self { agent, verb, words, named }
    }

    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).unwrap_or_else(|| panic!("{} needs a word", self.verb))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> &'a str {
        self.get(name).unwrap_or("")
    }

    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.get(name).map_or_else(T::default, parse)
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map_or_else(Vec::new, |list| {
            list.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
        })
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.named.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// `c1,ttl=10000,warn=3000,dereg=60000,status=passing,output=x,service=web-1,notes=n`
fn check(text: &str) -> CheckRegistration {
    let mut parts = text.split(',');
    let mut row = common::check(parts.next().unwrap(), CheckStatus::Critical);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name {
            "ttl" => {
                row.kind = "ttl".to_owned();
                row.definition.ttl = Millis(parse(value));
            }
            "tcp" => {
                row.kind = "tcp".to_owned();
                row.definition.tcp = value.to_owned();
            }
            "alias" => {
                row.kind = "alias".to_owned();
                row.definition.alias_service = value.to_owned();
            }
            "warn" => row.definition.later.warn_after = Millis(parse(value)),
            "interval" => row.definition.interval = Millis(parse(value)),
            "observers" => row.definition.later.observers = parse(value),
            "network" => row.definition.later.network = value.into(),
            "dereg" => row.definition.deregister_critical_service_after = Millis(parse(value)),
            "status" => row.status = CheckStatus::from_text(value),
            "output" => row.output = value.to_owned(),
            "service" => row.service_id = value.into(),
            "notes" => row.notes = value.to_owned(),
            other => panic!("a check has no {other}"),
        }
    }
    row
}

fn service(line: &Line<'_>, name: &str, id_word: &str) -> ServiceDefinition {
    let id = line.get(id_word).unwrap_or(name);
    let mut row = common::service(id, name, line.text("addr"), line.number("port"));
    row.tags = line.list("tags").into();
    row.meta = pool_meta(line);
    row
}

/// What makes an instance one of a pool.
fn pool_meta(line: &Line<'_>) -> Option<TextMap> {
    let of = |name: &str, key: &str| Some((key.to_owned(), line.get(name)?.to_owned()));
    let mut meta: TextMap = pairs(line.text("meta"));
    meta.extend(of("slots", SLOTS));
    meta.extend(of("delay", CLAIM_DELAY));
    (!meta.is_empty()).then_some(meta)
}

/// `region:eu,rack:1`
fn pairs(text: &str) -> TextMap {
    let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What the leader says of its own accord, beside what is due.
fn duty(line: &Line<'_>) -> Duty {
    let id = || parse(line.word(0));
    match line.verb {
        "boot" => Duty::Booted(Box::new(Boot {
            id: id(),
            boot: boot(line.text("id")),
            replaces: line.get("replaces").map(boot),
            boots: line.number("boots"),
            store_id: line.text("store").to_owned(),
            rpc_addr: line.text("at").to_owned(),
            agent_name: line.text("agent").to_owned(),
            ..Boot::default()
        })),
        "log-end" => Duty::LogEnds(vec![LogEnd {
            id: id(),
            boot: boot(line.text("boot")),
            upto: Position { term: line.number("term"), index: line.number("upto") },
            term: line.number("term"),
        }]),
        _ => Duty::Level(parse(line.word(0))),
    }
}

struct Story {
    state: State,
    next: u64,
    backup: Bytes,
}

impl Story {
    /// Runs the command of a client, with a note of what the client asked.
    fn asked(&mut self, text: &str) -> String {
        let (asked, command) = text.split_once(" ; ").unwrap();
        let request = RequestFacts {
            action: asked.strip_prefix("asked ").unwrap().into(),
            ..RequestFacts::default()
        };
        let command = self.command(&Line::parse(command));
        self.next += 1;
        let note = Command::Asked(Asked::note([Some(&request)]).unwrap());
        self.apply_part(1, self.next - 1, vec![(0, note), (self.next, command)], ORIGIN)
    }

    /// Runs a line and says what came of it.
    fn run(&mut self, text: &str) -> String {
        let line = Line::parse(text);
        let time = self.state.time();
        match line.verb {
            "stamp" => {
                let stamp = time + Millis(parse(line.word(0)));
                let (term, leader) = (line.number("term"), line.number("leader"));
                let duty = Duty::Stamped(Stamp {
                    at: WallTime(stamp.0 + 1_000_000),
                    term,
                    leader,
                    work: None,
                });
                self.apply(&Batch { stamp, duty: Some(duty), parts: Vec::new() })
            }
            "asked" => self.asked(text),
            "tick" => {
                self.apply(&Batch { stamp: time + Millis(parse(line.word(0))), ..Batch::default() })
            }
            "expire" | "reap" | "expire-and-reap" => {
                let (up_to, max) = (time, line.get("max").map_or(512, parse));
                let duty = match line.verb {
                    "expire" => Duty::ExpireDue { up_to, max },
                    "reap" => Duty::Reap { up_to, max },
                    _ => Duty::Expire { up_to, max },
                };
                self.apply(&Batch { stamp: time, duty: Some(duty), parts: Vec::new() })
            }
            "send" => self.send(text),
            "boot" | "log-end" | "level" => {
                self.apply(&Batch { stamp: time, duty: Some(duty(&line)), parts: Vec::new() })
            }
            "heartbeat" => self.heartbeats(&line, text),
            "renewals" => self.renewals(text),
            "results" => self.results(&line, text),
            "txn" => {
                let operations = text["txn".len()..].split(" ; ").map(operation).collect();
                self.next += 1;
                self.apply_part(
                    1,
                    self.next - 1,
                    vec![(self.next, Command::Txn(operations))],
                    ORIGIN,
                )
            }
            "backup" => {
                self.backup = self.written_backup();
                String::new()
            }
            "fresh" => {
                self.state = State::default();
                String::new()
            }
            "stage" => self.stage(line.words.first().map_or(usize::MAX, |size| parse(size))),
            "restore" => self.restore(line.words.first().map_or(usize::MAX, |size| parse(size))),
            "show" => line.words.iter().map(|what| self.show(what)).collect(),
            "index" => line.words.iter().map(|what| self.topic_index(what)).collect(),
            "reimport" => {
                let rebuilt = common::import(&common::export(&self.state));
                assert_eq!(rebuilt.hash(), self.state.hash());
                self.state = rebuilt;
                String::new()
            }
            _ => {
                let command = self.command(&line);
                self.next += 1;
                self.apply_part(1, self.next - 1, vec![(self.next, command)], ORIGIN)
            }
        }
    }

    fn heartbeats(&mut self, line: &Line<'_>, text: &str) -> String {
        let mut agents = vec![line.agent.clone()];
        let (_, beats) = text.split_once("heartbeat ").unwrap();
        let mut all: Vec<Beat> = beats
            .split(" ; ")
            .map(|text| {
                let line = Line::parse(text);
                let mut beat = beat(&line);
                if let Some(node) = line.get("on") {
                    beat.agent = u32::try_from(agents.len()).unwrap();
                    agents.push(common::agent(node));
                }
                beat
            })
            .collect();
        let seen = self.state.time() - Millis(line.number("age"));
        let plain: Vec<String> = (all.iter())
            .map(|beat| match self.state.renewal(&agents, beat) {
                Some(renewal) => renewal.number.to_string(),
                None => "in full".to_owned(),
            })
            .collect();
        for beat in &mut all {
            self.state.complete(&agents, beat);
        }
        let command = Command::Beat(Box::new(Beats { seen, agents, all }));
        self.next += 1;
        let trace = self.apply_part(1, self.next - 1, vec![(self.next, command)], ORIGIN);
        format!("    travels as {}\n{trace}", plain.join(", "))
    }

    fn results(&mut self, line: &Line<'_>, text: &str) -> String {
        let numbers: Vec<u64> = line.text("lease").split('/').map(parse).collect();
        let all = text.split(" ; ").skip(1).map(|text| {
            let line = Line::parse(text);
            RunResult {
                number: parse(line.verb),
                probe: parse(line.word(0)),
                status: CheckStatus::from_text(line.word(1)),
                output: line.text("output").to_owned(),
            }
        });
        let results = WorkerResults {
            name: line.word(0).into(),
            lease: Lease { origin: numbers[0], incarnation: numbers[1], seq: numbers[2] },
            seq: line.number("seq"),
            all: all.collect(),
        };
        let command = Command::Workers(WorkersCommand::Results(Box::new(results)));
        self.next += 1;
        self.apply_part(1, self.next - 1, vec![(self.next, command)], ORIGIN)
    }

    fn renewals(&mut self, text: &str) -> String {
        let mut age = Millis(0);
        let all = text["renewals ".len()..].split(" ; ").map(|text| {
            let line = Line::parse(text);
            age = Millis(line.number("age"));
            Renewal {
                number: parse(line.verb),
                restarts: line.number("restarts"),
                counter: line.get("counter").map(parse),
                status: line.get("status").map(CheckStatus::from_text),
            }
        });
        let all = all.collect();
        let seen = self.state.time() - age;
        let command = Command::Renew(Box::new(Renewals { seen, all }));
        self.next += 1;
        self.apply_part(1, self.next - 1, vec![(self.next, command)], ORIGIN)
    }

    fn written_backup(&self) -> Bytes {
        let version = Published { state: self.state.clone(), ..Published::default() };
        backup::write(&version, Vec::new()).unwrap().into()
    }

    /// Restores the backup, in pieces of a size.
    fn restore(&mut self, size: usize) -> String {
        self.stage(size);
        self.next += 1;
        let finish = Command::RestoreFinish { id: "r1".into() };
        self.apply_part(1, self.next - 1, vec![(self.next, finish)], ORIGIN)
    }

    /// Hands the backup over, in pieces of a size.
    fn stage(&mut self, size: usize) -> String {
        let backup = self.backup.clone();
        let id: Arc<str> = "r1".into();
        let mut commands = vec![Command::RestoreBegin { id: id.clone() }];
        for start in (0..backup.len()).step_by(size) {
            let piece = backup.slice(start..backup.len().min(start.saturating_add(size)));
            let offset = start as u64;
            commands.push(Command::RestorePiece { id: id.clone(), offset, piece });
        }
        let mut trace = String::new();
        for command in commands {
            self.next += 1;
            trace = self.apply_part(1, self.next - 1, vec![(self.next, command)], ORIGIN);
        }
        trace
    }

    /// `send 1/2 answered=3 ; 5 put a 1 ; 6 del a`
    fn send(&mut self, text: &str) -> String {
        let mut parts = text.split(" ; ");
        let head = Line::parse(parts.next().unwrap());
        let (origin, incarnation) = head.word(0).split_once('/').unwrap();
        let commands = parts
            .map(|part| {
                let (seq, command) = part.trim().split_once(' ').unwrap();
                (parse(seq), self.command(&Line::parse(command)))
            })
            .collect();
        self.apply_part(parse(incarnation), head.number("answered"), commands, parse(origin))
    }

    fn apply_part(
        &mut self,
        incarnation: u64,
        answered_through: u64,
        commands: Vec<(u64, Command)>,
        origin: u64,
    ) -> String {
        let part = Part { origin, incarnation, answered_through, commands };
        self.apply(&Batch { stamp: self.state.time(), duty: None, parts: vec![part] })
    }

    fn apply(&mut self, batch: &Batch) -> String {
        let before = self.state.index();
        let whole = self.state.before();
        let effects = self.state.apply(batch);
        self.state.check_applied(whole, &effects).unwrap();
        let Effects { outcomes, touched } = effects;
        self.state.check_invariants().unwrap();
        let mut trace = String::new();
        for (id, outcome) in outcomes {
            let number = if id.origin == ORIGIN { String::new() } else { format!("{} ", id.seq) };
            writeln!(trace, "    {number}{}", outcome_text(&outcome)).unwrap();
        }
        if self.state.index() != before {
            writeln!(trace, "    index {} at {}", self.state.index(), self.state.time()).unwrap();
        }
        if !touched.is_empty() {
            let touched: Vec<String> = touched.iter().map(topic_text).collect();
            writeln!(trace, "    touched {}", touched.join(", ")).unwrap();
        }
        trace
    }

    fn command(&self, line: &Line<'_>) -> Command {
        let agent = line.agent.clone();
        let seen = self.state.time() - Millis(line.number("age"));
        let beat = |status| Command::UpdateCheck {
            agent: line.agent.clone(),
            check_id: line.word(0).into(),
            status,
            output: line.text("output").to_owned(),
            seen,
        };
        match line.verb {
            "service" => Command::AgentRegisterService {
                agent,
                service: Box::new(service(line, line.word(0), "id")),
                checks: line.all("check").map(check).collect(),
                replace_existing_checks: line.has("replace"),
            },
            "drop-service" => {
                Command::AgentDeregisterService { agent, service_id: line.word(0).into() }
            }
            "check" => {
                Command::AgentRegisterCheck { agent, check: Box::new(check(line.text("check"))) }
            }
            "drop-check" => Command::AgentDeregisterCheck { agent, check_id: line.word(0).into() },
            "pass" => beat(CheckStatus::Passing),
            "warn" => beat(CheckStatus::Warning),
            "fail" => beat(CheckStatus::Critical),
            "beat" => Command::Heartbeat {
                number: parse(line.word(0)),
                status: CheckStatus::from_text(line.word(1)),
                output: line.text("output").to_owned(),
                seen,
            },
            "probe" => Command::ProbeResult {
                number: parse(line.word(0)),
                probe: parse(line.word(1)),
                status: CheckStatus::from_text(line.word(2)),
                output: line.text("output").to_owned(),
            },
            "open" | "reopen" | "closed" | "worker" | "deserted" => self.presence_command(line),
            "claim" | "renew-claim" | "release" | "force" | "withdraw" | "gone" | "collected" => {
                Command::Claims(claim_command(line, seen))
            }
            "renewal" => Command::Renew(Box::new(Renewals {
                seen,
                all: vec![Renewal { number: parse(line.word(0)), ..Renewal::default() }],
            })),
            "renew" => Command::SessionRenew { id: line.word(0).into(), seen },
            "destroy" => Command::SessionDestroy { id: line.word(0).into() },
            "session" => Command::SessionCreate(Box::new(session(line))),
            "put" => put(line),
            "del" => delete(line),
            "query" | "drop-query" | "event" | "coordinate" => later_command(line),
            "begin-restore" => Command::RestoreBegin { id: line.word(0).into() },
            "piece" => Command::RestorePiece {
                id: line.word(0).into(),
                offset: parse(line.word(1)),
                piece: line.word(2).as_bytes().to_vec().into(),
            },
            "finish-restore" => Command::RestoreFinish { id: line.word(0).into() },
            "answered" => Command::Answered {
                runs: line
                    .words
                    .iter()
                    .map(|run| run.split_once("..").unwrap())
                    .map(|(first, last)| (parse(first), parse(last)))
                    .collect(),
            },
            _ => catalog_command(line),
        }
    }

    fn presence_command(&self, line: &Line<'_>) -> Command {
        let terms = PresenceTerms {
            owner: line.text("owner").into(),
            attempt: line.get("attempt").map_or(1, parse),
            linger: Millis(line.number("linger")),
            on_close: match line.has("deregister") {
                true => OnClose::Deregister,
                false => OnClose::Critical,
            },
        };
        match line.verb {
            "deserted" => Command::Workers(WorkersCommand::Deserted {
                number: parse(line.word(0)),
                probe: parse(line.word(1)),
            }),
            "worker" => {
                let name = line.word(0);
                let open = PresenceOpen {
                    agent: line.agent.clone(),
                    service: common::service(name, WORKER_SERVICE, "", 0),
                    checks: Vec::new(),
                    deregister_after: Millis::ZERO,
                    terms,
                };
                let network = line.text("network").into();
                Command::Workers(WorkersCommand::Open(Box::new(WorkerOpen { open, network })))
            }
            "open" => {
                let open = PresenceOpen {
                    agent: line.agent.clone(),
                    service: service(line, line.word(0), "id"),
                    checks: line.all("check").map(check).collect(),
                    deregister_after: Millis(line.number("dereg")),
                    terms,
                };
                match process(line, &open.service) {
                    None => Command::PresenceOpen(Box::new(open)),
                    Some(beat) => {
                        Command::PresenceOfProcess(Box::new(ProcessPresence { open, beat }))
                    }
                }
            }
            "reopen" => {
                let (node, id) = (line.text("at"), line.word(0));
                let check = self.state.check(node, &format!("{PRESENCE_CHECK}{id}")).unwrap();
                let defined = self.state.service(node, id).unwrap().indexes.modify;
                Command::PresenceReopen(PresenceReopen { number: check.number, defined, terms })
            }
            _ => Command::PresenceEnded {
                seqs: line.words.iter().map(|seq| parse(seq)).collect(),
                why: match line.text("why") {
                    "moved" => PresenceEnd::Moved,
                    _ => PresenceEnd::Connection,
                },
            },
        }
    }

    fn presences(&self) -> String {
        let rows = self.state.checks().filter_map(|check| {
            let row = self.state.presence(check.number)?;
            let lease = row.lease.map_or_else(
                || "no lease".to_owned(),
                |lease| format!("lease {}/{}/{}", lease.origin, lease.incarnation, lease.seq),
            );
            let PresenceTerms { owner, attempt, .. } = &row.terms;
            let ended = row.ended.map_or_else(String::new, |ended| {
                let EndedPresence { why, server, since, deadline } = ended;
                format!(" ended {why:?} at {server} since {since} until {deadline}")
            });
            let replaced = match row.replaced.len() {
                0 => String::new(),
                times => format!(" replaced {times} times"),
            };
            let status = check.registration.status.as_str();
            let service = &check.registration.service_id;
            Some(format!(
                "    {} {service} {status} {lease} of {owner}/{attempt}{ended}{replaced}\n",
                check.node
            ))
        });
        rows.collect()
    }

    fn show(&self, what: &str) -> String {
        let state = &self.state;
        match what {
            "nodes" => state.nodes().map(|row| node_text(row)).collect(),
            "services" => state.services().map(|row| service_text(row)).collect(),
            "checks" => state.checks().map(|row| check_text(row)).collect(),
            "facts" => state.checks().map(|row| facts_text(state, row.number)).collect(),
            "probes" => {
                let texts = state.probes().iter();
                texts.map(|(check, probe)| format!("    check {check} probe {probe}\n")).collect()
            }
            "presences" => self.presences(),
            "workers" => workers_text(state),
            "views" => state.checks().map(|row| views_text(state, row.number)).collect(),
            "who" => state.checks().map(|row| who_text(state, row)).collect(),
            "claims" => state.pools().flat_map(|pool| claims_of(state, pool)).collect(),
            "pools" => state.pools().map(|pool| pool_text(state, pool)).collect(),
            "keys" => state.keys_below("").map(key_text).collect(),
            "boots" => state.boots().map(|(id, row)| boot_text(id, row)).collect(),
            "level" => format!("    {}\n", state.level()),
            claim if claim.starts_with("claim:") => {
                let claim = state.claim(&claim["claim:".len()..]);
                claim.map_or_else(|| "    unknown\n".to_owned(), |claim| claim_text(claim))
            }
            claim if claim.starts_with("ahead:") => {
                let claim = state.claim(&claim["ahead:".len()..]).unwrap();
                format!("    at most {} before it\n", state.ahead_of(claim))
            }
            "history" => {
                state.history().after(0, &Ring::ALL).map(|row| history_text(row)).collect()
            }
            "sessions" => state.sessions().map(|row| session_text(row)).collect(),
            "origins" => {
                let mut text = String::new();
                state
                    .export(&mut |record| {
                        text.push_str(&origin_text(&record));
                        Ok(())
                    })
                    .unwrap();
                text
            }
            "events" => {
                state.events().map(|row| format!("    {} {}\n", row.time, row.name)).collect()
            }
            "queries" => state.queries().map(|row| query_text(row)).collect(),
            "deadline" => match state.next_deadline() {
                Some(at) => format!("    comes up at {at}, now {}\n", state.time()),
                None => format!("    none, now {}\n", state.time()),
            },
            "reaping" => match state.next_reaping() {
                Some(at) => format!("    next at {at}, now {}\n", state.time()),
                None => format!("    none, now {}\n", state.time()),
            },
            other => panic!("cannot show {other}"),
        }
    }

    fn topic_index(&self, what: &str) -> String {
        let topic = match what.split_once(':') {
            Some(("key", key)) => Topic::Key(key.into()),
            Some(("prefix", prefix)) => Topic::Prefix(prefix.into()),
            Some(("service", name)) => Topic::service(name),
            Some(("node", name)) => Topic::node(name),
            Some(("pool", name)) => Topic::pool(name),
            Some(("claim", id)) => Topic::Claim(id.into()),
            _ => match what {
                "services" => Topic::Services,
                "nodes" => Topic::Nodes,
                "checks" => Topic::Checks,
                "sessions" => Topic::Sessions,
                "autopilot" => Topic::Autopilot,
                "events" => Topic::Events,
                "coordinates" => Topic::Coordinates,
                "queries" => Topic::Queries,
                other => panic!("no topic {other}"),
            },
        };
        format!("    {what} {}\n", self.state.topic_index(&topic))
    }
}

/// Who is a worker, and what is kept of them.
fn workers_text(state: &State) -> String {
    let mut text = String::new();
    for one in state.worker_set().iter() {
        let live = if one.is_live { "live" } else { "not live" };
        let Candidate { name, address, network, .. } = one;
        let kept = state.workers().find(|(id, _)| **id == one.id).map(|(_, row)| row);
        let kept = kept.map_or_else(String::new, |row| match row.standing {
            Standing::Live => String::new(),
            Standing::Away { since } => format!(" away since {since}"),
            Standing::Returning { until } => format!(" returns at {until}"),
        });
        writeln!(text, "    {name} at {address} network={network:?} {live}{kept}").unwrap();
    }
    text
}

fn views_text(state: &State, check: u64) -> String {
    let Some(views) = state.views(check) else { return String::new() };
    let all = views
        .all
        .iter()
        .map(|view| format!(" {:?}={} {:?}", view.worker, view.status.as_str(), view.output));
    format!("    check {check} probe {}{}\n", views.probe, all.collect::<String>())
}

fn who_text(state: &State, row: &Check) -> String {
    if state.probes().get(row.number).is_none() {
        return String::new();
    }
    let set = state.worker_set();
    let names: Vec<String> = set
        .responsible(row, state.host_of(row))
        .into_iter()
        .map(|one| one.name.to_string())
        .collect();
    format!(
        "    {} {} number={} by {}\n",
        row.node,
        row.registration.id,
        row.number,
        names.join(" ")
    )
}

/// A record, without what is not set.
fn history_text(row: &HistoryRecord) -> String {
    let subject = match &row.subject {
        Subject::Cluster => String::new(),
        Subject::Node { node } => format!(" {node}"),
        Subject::Instance { node, service, id } => format!(" {node} {service}/{id}"),
        Subject::Check { node, service, id, check } => {
            format!(" {node} {service}/{id} check {check}")
        }
        Subject::Key(key) => format!(" {key}"),
        Subject::Session { id, node } => format!(" {id} on {node}"),
        Subject::Claim { service, id, number } => format!(" {service} claim {number} {id}"),
        Subject::Acl { id, name } => format!(" {id} {name:?}"),
    };
    let status =
        |status: &Option<CheckStatus>| status.as_ref().map_or("", CheckStatus::as_str).to_owned();
    let (from, to) = (status(&row.from), status(&row.to));
    let statuses = if row.to.is_some() || row.from.is_some() {
        format!(" {from}>{to}")
    } else {
        String::new()
    };
    let session = row.session.as_ref().map_or_else(String::new, |id| format!(" session {id}"));
    let detail = match &row.detail {
        Detail::None => String::new(),
        detail => format!(" {detail:?}"),
    };
    let cause = match &row.cause {
        Cause::Request { server, request } => {
            let action = request.as_ref().map_or("", |request| &request.action);
            format!("request {action} at {server}")
        }
        cause => format!("{cause:?}"),
    };
    let HistoryRecord { seq, index, time, previous, kind, at, .. } = row;
    let kind = kind.as_str();
    format!(
        "    {seq}<{previous} @{index} {time} {}{subject} {kind}{statuses}{session}{detail} because {cause}\n",
        at.0
    )
}

fn claim_command(line: &Line<'_>, seen: ClusterTime) -> ClaimsCommand {
    let id = || line.word(0).into();
    let numbers = || line.words.iter().map(|number| parse(number)).collect();
    match line.verb {
        "claim" => ClaimsCommand::Claim(Box::new(ClaimRequest {
            id: line.text("id").into(),
            service: line.word(0).into(),
            holder: line.get("by").unwrap_or("gw").into(),
            ttl: Millis(line.get("ttl").map_or(30_000, parse)),
            session: line.text("session").into(),
            require: pairs(line.text("require")),
            prefer: line.text("prefer").into(),
            waits: line.has("wait"),
        })),
        "renew-claim" => {
            let fence = line.get("fence").map_or(0, parse);
            ClaimsCommand::Renew { id: id(), seen, fence }
        }
        "release" => ClaimsCommand::Release { id: id() },
        "withdraw" => ClaimsCommand::Withdraw { id: id(), seq: parse(line.word(1)) },
        "gone" => ClaimsCommand::Detached { seqs: numbers() },
        "collected" => ClaimsCommand::Collected { fences: numbers() },
        _ => ClaimsCommand::Force { service: id(), fence: parse(line.word(1)) },
    }
}

/// A pool with its instances and its line.
fn pool_text(state: &State, pool: &Pool) -> String {
    let mut text = format!(
        "    pool {} of {}, {} waiting, {} granted, {} expired\n",
        pool.name(),
        pool.size(),
        pool.waiting(),
        pool.granted(),
        pool.expired()
    );
    for instance in pool.instances() {
        let claims = instance.busy().filter_map(|number| state.claim_numbered(number));
        let busy: Vec<String> = claims.map(|claim| claim.id.to_string()).collect();
        let closed = match instance.closed() {
            0 => String::new(),
            closed => format!(" {closed} closed"),
        };
        let down = if instance.is_usable() { "" } else { " down" };
        let (row, slots) = (instance.row(), instance.slots());
        let (node, id) = (&row.node, &row.definition.id);
        let since = instance.idle_since();
        let line =
            format!("    {node} {id} slots={slots} busy={busy:?}{closed}{down} since {since}");
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The claims that wait in a pool, and those that have its instances.
fn claims_of(state: &State, pool: &Pool) -> Vec<String> {
    let busy = pool.instances().flat_map(|instance| instance.busy());
    let busy = busy.filter_map(|number| state.claim_numbered(number));
    busy.chain(state.waiters(pool)).map(|claim| claim_text(claim)).collect()
}

fn claim_text(claim: &Claim) -> String {
    let Claim { id, holder, position, phase, attachments, index, .. } = claim;
    let phase = match phase {
        ClaimPhase::Queued { detached: None } => "waits".to_owned(),
        ClaimPhase::Queued { detached: Some(since) } => format!("waits, left alone at {since}"),
        ClaimPhase::Granted(grant) => {
            let Grant { fence, seq, id, since, heard, is_offer, .. } = grant;
            let has = if *is_offer { "is offered" } else { "has" };
            format!("{has} {id} fence={fence} seq={seq} since {since} heard {heard}")
        }
        ClaimPhase::Ended { why, at, .. } => format!("{} at {at}", why.as_str()),
    };
    let requests: Vec<String> = attachments
        .iter()
        .map(|request| format!("{}/{}/{}", request.origin, request.incarnation, request.seq))
        .collect();
    let requests = requests.join(" ");
    format!("    {id} of {holder} at {position} {phase} requests=[{requests}] @{index}\n")
}

/// Floors, remembered outcomes and runs of answers.
fn origin_text(record: &SnapshotRecord<'_>) -> String {
    match record {
        SnapshotRecord::Origin { id, incarnation, floor } if *id != ORIGIN => {
            format!("    {id}/{incarnation} floor {floor}\n")
        }
        SnapshotRecord::Outcome { id, seq, outcome } if *id != ORIGIN => {
            format!("    {id}: {seq} {}\n", outcome_text(outcome))
        }
        SnapshotRecord::Answered { id, first, last } => {
            format!("    {id}: {first}..{last} answered\n")
        }
        _ => String::new(),
    }
}

fn node_text(row: &Node) -> String {
    let Node { name, address, id, indexes, .. } = row;
    let kind = common::kind_word(row.kind);
    // Only what is not the same for every agent's node of this address.
    let said: String = [&row.meta, &row.tagged_addresses]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|(_, value)| !value.is_empty() && *value != address)
        .map(|(key, value)| format!(" {key}={value}"))
        .collect();
    format!("    {name} {address} id={id} {kind}{said} {}..{}\n", indexes.create, indexes.modify)
}

fn service_text(row: &Service) -> String {
    let ServiceDefinition { id, name, address, port, tags, .. } = &row.definition;
    let at = format!("{}..{}", row.indexes.create, row.indexes.modify);
    format!("    {} {id} name={name} {address:?} port={port} tags={tags:?} {at}\n", row.node)
}

fn check_text(row: &Check) -> String {
    let CheckRegistration { id, status, output, service_id, .. } = &row.registration;
    let Check { node, service_name, service_tags, number, indexes, .. } = row;
    let service = format!("{service_id}/{service_name}{service_tags:?}");
    let at = format!("{}..{}", indexes.create, indexes.modify);
    let status = status.as_str();
    let said = row.said.as_ref().map_or_else(String::new, |said| {
        format!(" said {} {:?}", said.status.as_str(), said.output)
    });
    format!("    {node} {id} {status} {output:?} service={service} number={number} {at}{said}\n")
}

/// What is known of the process that renews a check.
fn facts_text(state: &State, check: u64) -> String {
    let (facts, counter) = (state.facts(check), state.counter(check));
    let seen = state.last_seen(check).unwrap_or_default();
    if facts.is_none() && counter.is_none() {
        return String::new();
    }
    let Facts { process, pid, started, version, previous_pid, restarts, counted_back, noted } =
        facts.cloned().unwrap_or_default();
    let back = if counted_back { " counted back" } else { "" };
    format!(
        "    check {check} heard {seen} process={process} pid={pid} before={previous_pid} started={started} version={version} restarts={restarts} counter={counter:?}{back} noted {noted}\n"
    )
}

/// `web id=web-1 pid=7 counter=3`
fn beat(line: &Line<'_>) -> Beat {
    let text = |name: &str| line.get(name).map(str::to_owned);
    let number = |name: &str| line.get(name).map(parse::<u64>);
    Beat {
        agent: 0,
        service: line.verb.into(),
        id: line.get("id").unwrap_or(line.verb).into(),
        address: text("addr"),
        port: line.get("port").map(parse),
        tags: line.get("tags").map(|_| line.list("tags").into()),
        meta: pool_meta(line),
        process: line.get("process").map(Into::into),
        pid: number("pid"),
        started: number("started"),
        version: line.get("version").map(Into::into),
        counter: number("counter"),
        warn_after: number("warn").map(Millis),
        critical_after: number("critical").map(Millis),
        status: line.get("status").map(CheckStatus::from_text),
        note: text("note"),
    }
}

/// What a line says of the process that opens a presence, if it does.
fn process(line: &Line<'_>, instance: &ServiceDefinition) -> Option<Beat> {
    let says = ["process", "pid", "started", "version", "counter", "warn", "critical"];
    says.iter().any(|name| line.get(name).is_some()).then(|| Beat {
        service: instance.name.clone(),
        id: instance.id.clone(),
        address: None,
        port: None,
        tags: None,
        ..beat(line)
    })
}

fn beats_text(outcome: &BeatsOutcome) -> String {
    let BeatsOutcome { accepted, registered, refused } = outcome;
    let refused = match refused {
        Refused::None => String::new(),
        Refused::These(all) => {
            let all = all.iter().map(|(place, why)| format!(", {place} refused: {why}"));
            all.collect()
        }
        Refused::Some => ", some refused".to_owned(),
    };
    format!("{accepted} accepted, {registered} registered{refused}")
}

/// A boot id from its letter.
fn boot(letter: &str) -> BootId {
    BootId([letter.as_bytes()[0]; 16])
}

fn boot_text(id: u64, row: &ServerBoot) -> String {
    let ServerBoot { boot, incarnation, store_id, rpc_addr, log_end, .. } = row;
    let letter = char::from(boot.0[0]);
    let log_end = log_end.map_or_else(String::new, |(upto, _)| format!(" log reaches {upto}"));
    format!("    {id} {letter} incarnation={incarnation} store={store_id} at {rpc_addr}{log_end}\n")
}

fn key_text(row: &KvEntry) -> String {
    let KvEntry { key, flags, lock_index, session, indexes, .. } = row;
    let value = String::from_utf8_lossy(&row.value);
    let at = format!("{}..{}", indexes.create, indexes.modify);
    format!("    {key}={value} flags={flags} lock={lock_index} session={session:?} {at}\n")
}

fn session_text(row: &Session) -> String {
    format!("    {} on {} {}..{}\n", row.id, row.node, row.indexes.create, row.indexes.modify)
}

fn query_text(row: &Query) -> String {
    let QueryDefinition { id, name, session, service, .. } = &row.definition;
    let at = format!("{}..{}", row.indexes.create, row.indexes.modify);
    format!("    {id} name={name} service={service} session={session} {at}\n")
}

fn session(line: &Line<'_>) -> SessionRequest {
    SessionRequest {
        id: line.word(0).into(),
        agent: line.agent.clone(),
        node: line.text("node").into(),
        name: String::new(),
        lock_delay_nanos: line.number::<u64>("delay") * 1_000_000,
        behavior: match line.text("behavior") {
            "delete" => SessionBehavior::Delete,
            _ => SessionBehavior::Release,
        },
        ttl_text: String::new(),
        ttl: Millis(line.number("ttl")),
        node_checks: line
            .get("checks")
            .map_or_else(|| vec!["serfHealth".to_owned()], |_| line.list("checks")),
        service_checks: None,
        checks: None,
    }
}

fn later_command(line: &Line<'_>) -> Command {
    match line.verb {
        "query" => Command::PutQuery {
            query: Box::new(QueryDefinition {
                id: line.word(0).into(),
                name: line.text("name").to_owned(),
                session: line.text("session").into(),
                service: line.text("service").to_owned(),
                template_kind: match line.has("template") {
                    true => "name_prefix_match".to_owned(),
                    false => String::new(),
                },
                ..QueryDefinition::default()
            }),
            is_new: !line.has("old"),
        },
        "drop-query" => Command::DeleteQuery { id: line.word(0).into() },
        "event" => Command::FireEvent(Event {
            id: format!("id-of-{}", line.word(0)).into(),
            name: line.word(0).to_owned(),
            payload: Bytes::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            time: 0,
        }),
        _ => Command::PutCoordinate {
            node: line.word(0).into(),
            coordinate: Coordinate {
                height: parse::<f64>(line.word(1)).into(),
                ..Coordinate::default()
            },
        },
    }
}

/// `set a 1 flags=2`, `cas a 2 index=5`, `lock a 1 session=s1`, `get-tree a`; on a node `node-set n
/// address=1.2.3.4`, `node-cas`, ...; `service-set n web id=web-1 port=80`; `check-set n
/// check=c1,status=passing`; `faulty` and `unknown`.
fn operation(text: &str) -> TxnOperation {
    let line = Line::parse(text.trim());
    let index = line.number("index");
    let row = |verb: &str| RowVerb::from_word(verb).unwrap_or_else(|| panic!("no verb {verb}"));
    match line.verb.split_once('-') {
        Some(("node", verb)) => TxnOperation::Node {
            verb: row(verb),
            node: Box::new(CatalogRegistration {
                node: line.word(0).into(),
                address: line.text("address").to_owned(),
                ..CatalogRegistration::default()
            }),
            index,
        },
        Some(("service", verb)) => TxnOperation::Service {
            verb: row(verb),
            node: line.word(0).into(),
            service: Box::new(service(&line, line.word(1), "id")),
            index,
        },
        Some(("check", verb)) if line.get("check").is_some() => TxnOperation::Check {
            verb: row(verb),
            node: line.word(0).into(),
            check: Box::new(check(line.text("check"))),
            index,
        },
        _ => key_operation(&line, index),
    }
}

fn key_operation(line: &Line<'_>, index: u64) -> TxnOperation {
    if line.verb == "faulty" {
        return TxnOperation::Faulty("faulty".to_owned());
    }
    let Some(verb) = KeyVerb::from_word(line.verb) else {
        return TxnOperation::Unknown(format!("unknown {}", line.verb));
    };
    let value = line.words.get(1).copied().unwrap_or_default();
    TxnOperation::Key {
        verb,
        key: line.word(0).into(),
        value: value.as_bytes().to_vec().into(),
        flags: line.number("flags"),
        index,
        session: line.text("session").into(),
    }
}

fn put(line: &Line<'_>) -> Command {
    let mode = match (line.get("cas"), line.get("acquire"), line.get("release")) {
        (Some(index), _, _) => KvPutMode::Cas(parse(index)),
        (_, Some(session), _) => KvPutMode::Acquire(session.into()),
        (_, _, Some(session)) => KvPutMode::Release(session.into()),
        _ => KvPutMode::Set,
    };
    let value = line.words.get(1).copied().unwrap_or_default();
    let value = value.as_bytes().to_vec().into();
    Command::KvPut { key: line.word(0).into(), value, flags: line.number("flags"), mode }
}

fn delete(line: &Line<'_>) -> Command {
    let mode = match line.get("cas") {
        Some(index) => KvDeleteMode::Cas(parse(index)),
        None if line.has("recurse") => KvDeleteMode::Recurse,
        None => KvDeleteMode::One,
    };
    let key = if line.words == ["recurse"] { "" } else { line.word(0) };
    Command::KvDelete { key: key.into(), mode }
}

fn catalog_command(line: &Line<'_>) -> Command {
    match line.verb {
        "catalog" => Command::CatalogRegister(Box::new(CatalogRegistration {
            node: line.word(0).into(),
            node_id: line.text("id").to_owned(),
            address: line.text("address").to_owned(),
            tagged_addresses: None,
            node_meta: line
                .get("meta")
                .map(|value| TextMap::from([("m".to_owned(), value.to_owned())])),
            skip_node_update: line.has("skip"),
            service: line.get("service").map(|name| service(line, name, "sid")),
            checks: line.all("check").map(check).collect(),
        })),
        "catalog-drop" => Command::CatalogDeregister {
            node: line.word(0).into(),
            service_id: line.text("service").into(),
            check_id: line.text("check").into(),
        },
        "server" => Command::RegisterServer(Box::new(ServerRecord {
            id: line.number("id"),
            name: line.word(0).into(),
            node_id: format!("id-of-{}", line.word(0)),
            address: common::agent(line.word(0)).address,
            port: 8300,
            agent: common::agent(line.text("agent")),
            meta: line
                .get("id")
                .map(|id| (RAFT_ID.to_owned(), id.to_owned()))
                .into_iter()
                .collect(),
        })),
        "remove-server" => {
            Command::RemoveServer { id: parse(line.word(0)), name: line.word(1).into() }
        }
        "health" => {
            Command::SetServerHealth { name: line.word(0).into(), alive: line.word(1) == "up" }
        }
        "maintain" => Command::SetMaintenance {
            agent: line.agent.clone(),
            service_id: line.words.first().copied().unwrap_or("").into(),
            reason: line.get("reason").map(str::to_owned),
        },
        "leave" => Command::AgentLeave { agent: line.agent.clone() },
        "watch-agent" => {
            Command::WatchAgent { agent: line.agent.clone(), ttl: Millis(line.number("ttl")) }
        }
        "describe" => Command::DescribeAgent {
            agent: line.agent.clone(),
            id: line.get("id").map(str::to_owned),
            tagged_addresses: line
                .get("wan")
                .map(|value| TextMap::from([("wan".to_owned(), value.to_owned())])),
            meta: line.get("meta").map(|_| {
                line.all("meta").map(|value| (value.to_owned(), "m".to_owned())).collect()
            }),
        },
        "autopilot" => Command::SetAutopilot {
            settings: Box::new(AutopilotSettings {
                min_quorum: line.number("min-quorum"),
                ..AutopilotSettings::default()
            }),
            cas: line.get("cas").map(parse),
        },
        other => panic!("no command {other}"),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Condition(holds) => holds.to_string(),
        Outcome::Id(id) => format!("id {id}"),
        Outcome::AppliedAt(index) => format!("applied at {index}"),
        Outcome::Rejected(Rejection::Txn(errors)) => {
            let failed = errors.iter().map(|error| format!("{} {}", error.operation, error.what));
            format!("refused: {}", failed.collect::<Vec<_>>().join("; "))
        }
        Outcome::Rejected(why) => format!("refused: {why}"),
        Outcome::Beats(outcome) => beats_text(outcome),
        Outcome::Txn(results) => {
            let answers = results.iter().map(|result| match result {
                TxnResult::Key(row) => key_text(row),
                TxnResult::Node(row) => node_text(row),
                TxnResult::Service(row) => service_text(row),
                TxnResult::Check(row) => check_text(row),
            });
            let answers: Vec<_> = answers.map(|text| text.trim().to_owned()).collect();
            format!("answered [{}]", answers.join(" | "))
        }
    }
}

fn topic_text(topic: &Topic) -> String {
    match topic {
        Topic::Key(key) => format!("key:{key}"),
        Topic::Prefix(prefix) => format!("prefix:{prefix}"),
        Topic::Service(name) => format!("service:{name}"),
        Topic::Services => "services".to_owned(),
        Topic::Nodes => "nodes".to_owned(),
        Topic::Node(name) => format!("node:{name}"),
        Topic::Checks => "checks".to_owned(),
        Topic::Sessions => "sessions".to_owned(),
        Topic::Autopilot => "autopilot".to_owned(),
        Topic::Events => "events".to_owned(),
        Topic::Coordinates => "coordinates".to_owned(),
        Topic::Queries => "queries".to_owned(),
        Topic::Everything => "everything".to_owned(),
        Topic::Pool(name) => format!("pool:{name}"),
        Topic::Claim(id) => format!("claim:{id}"),
        Topic::AclTokens => "acl-tokens".to_owned(),
        Topic::AclPolicies => "acl-policies".to_owned(),
        Topic::AclRoles => "acl-roles".to_owned(),
    }
}

/// A script with the trace that its commands have now.
fn retrace(script: &str) -> String {
    let mut story = Story { state: State::default(), next: 0, backup: Bytes::new() };
    let mut traced = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        traced.push_str(line);
        traced.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            traced.push_str(&story.run(line));
        }
    }
    traced
}

#[test]
fn every_script_still_has_its_trace() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let rewrite = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut changed = BTreeMap::new();
    let mut scripts = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let traced = retrace(&script);
        scripts += 1;
        if traced != script {
            if rewrite {
                std::fs::write(&path, &traced).unwrap();
            } else {
                changed.insert(path, first_difference(&script, &traced));
            }
        }
    }
    assert!(scripts >= 12, "only {scripts} scripts were found");
    assert!(changed.is_empty(), "UPDATE_SCRIPTS=1 accepts what changed: {changed:#?}");
}

fn first_difference(old: &str, new: &str) -> String {
    let differs = old.lines().zip(new.lines()).enumerate().find(|(_, (old, new))| old != new);
    match differs {
        Some((at, (old, new))) => format!("line {}: {old:?} became {new:?}", at + 1),
        None => "one trace is longer".to_owned(),
    }
}
