//! Readers and writers, spread over nodes, that write down what they did.
//!
//! Clients are patient (12 s, longer than a server holds a request), send one request after the other at
//! their own pace, and never send one twice: what a retry would hide is what is looked for. Three kinds:
//!
//! * *setters* create keys that nobody else writes, on condition that they do not exist. A server that
//!   applies one twice answers the second time "it exists", and that is what its client would hear.
//! * *raisers* read a counter and raise it by one with compare-and-set on its `ModifyIndex`.
//! * *readers* read a key that some setter was told exists, at their own node: it must be there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::history::{Clock, Function, Operation};
use crate::http::{Answer, Error, Http};
use crate::{Failure, Result};

/// Members a client can add before its numbers meet another's.
const MEMBERS_PER_CLIENT: u64 = 1_000_000;

/// More clients than any load has.
const CLIENTS_MAX: u64 = 10_000;

/// The fractions of its multiples are spread evenly, wherever one begins and ends.
const GOLDEN_RATIO: f64 = 0.618_033_988_75;

/// Who does what, where and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients are spread over these nodes in turn.
    pub nodes: Vec<Http>,
    /// How many clients create keys.
    pub setters: u64,
    /// How many clients raise counters.
    pub raisers: u64,
    /// How many clients read.
    pub readers: u64,
    /// How many counters the raisers share.
    pub counters: u64,
    /// Each client sends a request this often, or as soon as the last one ended.
    pub pace: Duration,
    /// Keys begin with this; one load's keys are no other's.
    pub prefix: String,
}

impl Plan {
    /// 240 clients and about 800 requests a second: above the 500 that a leader kill must be tested
    /// under, with more clients than the 100 requests that must be held across it.
    pub fn failover(nodes: Vec<Http>, prefix: &str) -> Self {
        Self {
            nodes,
            setters: 100,
            raisers: 40,
            readers: 100,
            counters: 10,
            pace: Duration::from_millis(300),
            prefix: prefix.to_owned(),
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With the answer that the API promises.
    Answered,
    /// It was never sent: nobody listened.
    NotSent(String),
    /// With an error that says it had no effect.
    Refused(String),
    /// Without an answer, or with one that leaves it open.
    Unknown(String),
}

/// One HTTP request of the load.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether it changes something.
    pub is_write: bool,
    /// When it was sent.
    pub sent: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How.
    pub end: End,
}

/// What a load did.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Every request, in the order in which they ended.
    pub requests: Vec<Request>,
    /// The operations that they make, for the checkers.
    pub history: Vec<Operation>,
}

/// What a leader's end looked like to the clients.
#[derive(Debug, Clone)]
pub struct Failover {
    /// Requests per second in the second before it.
    pub rate_before: usize,
    /// Requests in flight when writes were possible again, answered after that.
    pub held: usize,
    /// Requests that were not answered as promised, in the whole load.
    pub failed: usize,
    /// The longest time without an acknowledged write, from just before it on.
    pub gap: Duration,
}

/// A load that is going on.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<Clock>,
    stop: AtomicBool,
    traffic: Mutex<Traffic>,
    /// Members whose creation was acknowledged.
    known: Mutex<Vec<u64>>,
}

struct Client {
    number: u64,
    /// How many requests it has lost sight of.
    lives: AtomicU64,
    node: Http,
    prefix: String,
    shared: Arc<Shared>,
}

impl Load {
    /// Starts all clients. Loads whose histories are judged together share a clock.
    pub fn start(plan: &Plan, clock: Arc<Clock>) -> Self {
        let shared = Arc::new(Shared {
            clock,
            stop: AtomicBool::new(false),
            traffic: Mutex::default(),
            known: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        let total = plan.setters + plan.raisers + plan.readers;
        for (number, node) in (0..total).zip(plan.nodes.iter().cycle()) {
            let client = Client {
                number,
                lives: AtomicU64::new(0),
                node: node.clone(),
                prefix: plan.prefix.clone(),
                shared: Arc::clone(&shared),
            };
            // Spread the first requests of each kind over one pace: writes that came in waves would leave
            // pauses that are longer than an election.
            let begin = plan.pace.mul_f64((number as f64 * GOLDEN_RATIO).fract());
            let (setters, raisers) = (plan.setters, plan.setters + plan.raisers);
            let (pace, counters) = (plan.pace, plan.counters);
            clients.spawn(async move {
                tokio::time::sleep(begin).await;
                match number {
                    n if n < setters => client.set(pace).await,
                    n if n < raisers => client.raise(pace, n % counters.max(1)).await,
                    _ => client.read(pace).await,
                }
            });
        }
        Self { shared, clients }
    }

    /// Waits until `count` writes have been acknowledged in all; fails after `limit`.
    pub async fn wait_acknowledged(&self, count: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while lock(&self.shared.known).len() < count {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("fewer than {count} writes in {limit:?}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Lets every client end its last request and returns what was written down.
    pub async fn stop(mut self) -> Result<Traffic> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.map_err(|error| Failure::new(format!("a client of the load: {error}")))?;
        }
        Ok(std::mem::take(&mut lock(&self.shared.traffic)))
    }
}

impl Client {
    async fn set(self, pace: Duration) {
        let mut turns = Turns::new(pace);
        for count in 0.. {
            if !turns.next(&self.shared).await {
                return;
            }
            let member = self.number * MEMBERS_PER_CLIENT + count;
            let path = format!("/v1/kv/{}set/{member}?cas=0", self.prefix);
            let call = self.shared.clock.now();
            let body = member.to_string();
            let (held, ret) = self.write(&path, body, call).await;
            if held == Some(true) {
                lock(&self.shared.known).push(member);
            }
            let add = Operation::called(self.number, 0, Function::Add, call);
            self.note(held, ret, Operation { arg: Some(member), ..add });
        }
    }

    async fn raise(self, pace: Duration, counter: u64) {
        let mut turns = Turns::new(pace);
        let path = format!("/v1/kv/{}counter/{counter}", self.prefix);
        while turns.next(&self.shared).await {
            let call = self.shared.clock.now();
            let Some(answer) = self.ask(&path).await else { continue };
            let Some((index, value)) = register_in(&answer) else { continue };
            let seen = Operation::called(self.number, counter, Function::Read, call);
            let ret = Some(self.shared.clock.now());
            self.note(Some(true), ret, Operation { val: value, ..seen });
            if !turns.next(&self.shared).await {
                return;
            }
            let next = value.unwrap_or(0) + 1;
            let call = self.shared.clock.now();
            let (held, ret) =
                self.write(&format!("{path}?cas={index}"), next.to_string(), call).await;
            let cas = Operation::called(self.number, counter, Function::Cas, call);
            self.note(held, ret, Operation { from: value, arg: Some(next), ..cas });
        }
    }

    async fn read(self, pace: Duration) {
        let mut turns = Turns::new(pace);
        for count in 0_usize.. {
            if !turns.next(&self.shared).await {
                return;
            }
            let member = {
                let known = lock(&self.shared.known);
                // Mostly the newest, which a lagging node would lack.
                let back = 1 + count % 10 * (count % 3);
                known.get(known.len().saturating_sub(back)).copied()
            };
            let Some(member) = member else { continue };
            let call = self.shared.clock.now();
            let path = format!("/v1/kv/{}set/{member}?raw", self.prefix);
            let Some(answer) = self.ask(&path).await else { continue };
            let look_up = Operation::called(self.number, 0, Function::Contains, call);
            let ret = Some(self.shared.clock.now());
            self.note(Some(answer.status == 200), ret, Operation { arg: Some(member), ..look_up });
        }
    }

    /// A read: 200 and 404 are answers, everything else is a failed request.
    async fn ask(&self, path: &str) -> Option<Answer> {
        let sent = Instant::now();
        let result = self.node.get(path).await;
        let end = match &result {
            Ok(answer) if matches!(answer.status, 200 | 404) => End::Answered,
            Ok(answer) => End::Refused(sentence(answer)),
            Err(error) if error.is_definite() => End::NotSent(error.to_string()),
            Err(error) => End::Unknown(error.to_string()),
        };
        let is_answered = end == End::Answered;
        self.shared.request(false, sent, end);
        result.ok().filter(|_| is_answered)
    }

    /// A conditional write. Returns whether the condition held and when it returned: no moment if the
    /// outcome is unknown; a moment but no outcome if it is known to have had no effect.
    async fn write(&self, path: &str, body: String, call: u64) -> (Option<bool>, Ret) {
        let sent = Instant::now();
        let (end, held) = match self.node.put(path, body).await {
            Ok(answer) => write_end(&answer),
            Err(error) if error.is_definite() => (End::NotSent(error.to_string()), None),
            Err(error) => (End::Unknown(error.to_string()), None),
        };
        let ret = match end {
            End::Answered => Some(self.shared.clock.now()),
            End::Unknown(_) => None,
            End::NotSent(_) | End::Refused(_) => Some(call),
        };
        self.shared.request(true, sent, end);
        (held, ret)
    }

    /// Enters an operation, unless it is known to have had no effect.
    fn note(&self, held: Option<bool>, ret: Ret, operation: Operation) {
        if held.is_none() && ret.is_some() {
            return;
        }
        let client = self.number + CLIENTS_MAX * self.lives.load(Ordering::Relaxed);
        if ret.is_none() {
            // Its request may still be on its way, so the client that goes on is another one.
            self.lives.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.shared.traffic).history.push(Operation { client, ok: held, ret, ..operation });
    }
}

/// When an operation returned; none: it is not known whether it took effect.
type Ret = Option<u64>;

fn sentence(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.text())
}

/// A server says when it does not know; "No cluster leader" promises that nothing was handed on, and
/// 429 and 503 that nothing was taken.
fn write_end(answer: &Answer) -> (End, Option<bool>) {
    match (answer.status, answer.text().as_str()) {
        (200, "true") => (End::Answered, Some(true)),
        (200, "false") => (End::Answered, Some(false)),
        (500, "No cluster leader") | (400..=499 | 503, _) => (End::Refused(sentence(answer)), None),
        _ => (End::Unknown(sentence(answer)), None),
    }
}

/// The `ModifyIndex` and number of a key, (0, none) if it does not exist; none if it is no number.
pub fn register_in(answer: &Answer) -> Option<(u64, Option<u64>)> {
    if answer.status == 404 {
        return Some((0, None));
    }
    let entries: Value = answer.json().ok()?;
    let index = entries[0]["ModifyIndex"].as_u64()?;
    Some((index, Some(decode_number(entries[0]["Value"].as_str()?)?)))
}

/// A decimal number in base64, as the key-value store shows it.
pub fn decode_number(base64: &str) -> Option<u64> {
    String::from_utf8(STANDARD.decode(base64).ok()?).ok()?.parse().ok()
}

impl Shared {
    fn request(&self, is_write: bool, sent: Instant, end: End) {
        let ended = Instant::now();
        lock(&self.traffic).requests.push(Request { is_write, sent, ended, end });
    }
}

/// A client's turns to send.
struct Turns {
    interval: tokio::time::Interval,
}

impl Turns {
    fn new(pace: Duration) -> Self {
        let mut interval = tokio::time::interval(pace);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { interval }
    }

    /// Waits for the next turn; false when the load is to end.
    async fn next(&mut self, shared: &Shared) -> bool {
        self.interval.tick().await;
        !shared.stop.load(Ordering::Relaxed)
    }
}

impl Traffic {
    /// Adds another load's traffic.
    pub fn append(&mut self, other: Self) {
        self.requests.extend(other.requests);
        self.history.extend(other.history);
    }

    /// The requests that were not answered as promised.
    pub fn failures(&self) -> Vec<&Request> {
        self.requests.iter().filter(|request| request.end != End::Answered).collect()
    }

    /// How many writes were acknowledged.
    pub fn acknowledged_writes(&self) -> usize {
        self.requests.iter().filter(|r| r.is_write && r.end == End::Answered).count()
    }

    /// What the fault at `moment` looked like.
    pub fn failover(&self, moment: Instant) -> Failover {
        const BEFORE: Duration = Duration::from_secs(1);
        let is_before = |r: &&Request| r.ended <= moment && r.ended + BEFORE > moment;
        let (gap, resumed) = self.write_gap(moment);
        let is_held = |r: &&Request| {
            r.end == End::Answered && r.sent < resumed && r.ended >= resumed && r.ended > moment
        };
        Failover {
            rate_before: self.requests.iter().filter(is_before).count(),
            held: self.requests.iter().filter(is_held).count(),
            failed: self.failures().len(),
            gap,
        }
    }

    /// The longest time without an acknowledged write that ends after `moment`, and when it ended. The
    /// last acknowledgement before `moment` begins the first one.
    fn write_gap(&self, moment: Instant) -> (Duration, Instant) {
        let is_acknowledged = |r: &&Request| r.is_write && r.end == End::Answered;
        let mut ends: Vec<_> =
            self.requests.iter().filter(is_acknowledged).map(|r| r.ended).collect();
        ends.sort_unstable();
        ends.windows(2)
            .filter(|pair| pair[1] > moment)
            .map(|pair| (pair[1] - pair[0], pair[1]))
            .max()
            .unwrap_or((Duration::MAX, moment))
    }
}

/// The members that a set of a load has now, read from `node`.
pub async fn members(node: &Http, prefix: &str) -> Result<Vec<u64>> {
    let path = format!("/v1/kv/{prefix}set/?keys");
    let names = node.must_get(&path).await?;
    let number = |name: &Value| name.as_str()?.rsplit('/').next()?.parse().ok();
    let names = names.as_array().ok_or_else(|| Failure::new("keys are no list"))?;
    names
        .iter()
        .map(|name| number(name).ok_or_else(|| Failure::new(format!("{name} is no member"))))
        .collect()
}

/// The values that a load's counters have now, read from `node`.
pub async fn counters(node: &Http, prefix: &str) -> Result<BTreeMap<u64, u64>> {
    let entries = node.must_get(&format!("/v1/kv/{prefix}counter/?recurse")).await?;
    let entries = entries.as_array().ok_or_else(|| Failure::new("entries are no list"))?;
    let counter = |entry: &Value| {
        let number = entry["Key"].as_str()?.rsplit('/').next()?.parse().ok()?;
        Some((number, decode_number(entry["Value"].as_str()?)?))
    };
    entries
        .iter()
        .map(|entry| counter(entry).ok_or_else(|| Failure::new(format!("{entry} is no counter"))))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("clients do not panic while they write down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_base64() {
        assert_eq!(decode_number("MQ=="), Some(1));
        assert_eq!(decode_number("MTIzNDU="), Some(12345));
        assert_eq!(decode_number("YQ=="), None);
        assert_eq!(decode_number("*"), None);
    }

    #[test]
    fn only_an_answer_that_leaves_it_open_is_unknown() {
        let end = |status, body: &str| write_end(&Answer::new(status, body.to_owned())).0;
        assert_eq!(end(200, "false"), End::Answered);
        assert!(matches!(end(500, "No cluster leader"), End::Refused(_)));
        assert!(matches!(end(500, "outcome unknown: ..."), End::Unknown(_)));
        assert!(matches!(end(503, ""), End::Refused(_)));
    }

    #[test]
    fn the_gap_and_the_held_requests_are_those_across_the_fault() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let write = |sent, ended| Request {
            is_write: true,
            sent: at(sent),
            ended: at(ended),
            end: End::Answered,
        };
        let requests =
            vec![write(0, 1), write(400, 401), write(402, 900), write(500, 901), write(950, 951)];
        let failover = Traffic { requests, history: Vec::new() }.failover(at(410));
        assert_eq!(failover.gap, Duration::from_millis(499));
        assert_eq!((failover.held, failover.rate_before, failover.failed), (2, 2, 0));
    }
}
