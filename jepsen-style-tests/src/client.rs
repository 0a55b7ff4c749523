//! The clients of a run. Each belongs to one server, sends one request after the other at its own pace, waits
//! patiently, never repeats a request, and writes down every one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::Failure;
use crate::http::{Answer, Error, Http, Method};
use crate::journal::{Ending, Journal, RequestLine};
use crate::plan::Plan;

/// More clients than any run has. After a request with an unknown outcome, a client continues under its number plus a
/// multiple of this.
pub const CLIENTS_MAX: u64 = 10_000;
/// The client that does the final reads.
pub const CLIENT_AT_THE_END: u64 = CLIENTS_MAX - 1;
/// The client under whose number observers poll the servers.
pub const OBSERVER: u64 = CLIENTS_MAX - 2;
/// Numbers that a client can give out before they meet another's.
const NUMBERS_PER_CLIENT: u64 = 1_000_000;
/// The fractions of its multiples are spread evenly, wherever one begins and ends.
const GOLDEN_RATIO: f64 = 0.618_033_988_75;

/// What all clients of a run share.
#[derive(Debug)]
pub struct Site {
    /// What the run is to do.
    pub plan: Plan,
    /// The servers that the cluster was founded with, by number; client and node numbers begin at 1.
    pub nodes: Vec<(u64, Http)>,
    /// Where everything is written down.
    pub journal: Arc<Journal>,
    /// What the workload starts processes of its own with, in a run.
    pub processes: Option<Processes>,
    acknowledged_writes: AtomicUsize,
    stop: AtomicBool,
}

/// What a workload needs to start processes of the binary.
#[derive(Debug, Clone)]
pub struct Processes {
    /// The binary of the servers.
    pub binary: PathBuf,
    /// Where the files of the run are.
    pub dir: PathBuf,
}

impl Site {
    /// What the clients of a run share.
    pub fn new(plan: Plan, nodes: Vec<(u64, Http)>, journal: Arc<Journal>) -> Self {
        let (processes, acknowledged_writes, stop) = Default::default();
        Self { plan, nodes, journal, processes, acknowledged_writes, stop }
    }

    /// The same for a workload that may start processes.
    #[must_use]
    pub fn with_processes(self, processes: Processes) -> Self {
        Self { processes: Some(processes), ..self }
    }

    /// The moment, on the run's clock.
    pub fn now(&self) -> u64 {
        self.journal.clock.now()
    }

    /// The API of the server at a position (any number is taken modulo their count).
    pub fn http(&self, position: usize) -> &Http {
        &self.nodes[position % self.nodes.len()].1
    }

    /// Sends a request to the server at a position and writes it down as one of client `client`.
    pub async fn send(&self, client: u64, position: usize, call: Call<'_>) -> Reply {
        let (node, http) = &self.nodes[position % self.nodes.len()];
        let what = format!("{} {}", call.method, call.path.split('?').next().unwrap_or_default());
        let sent = self.now();
        let result = http.send(call.method, call.path, call.body.into()).await;
        let ended = self.now();
        let (end, outcome) = classify(result, call.accepts);
        let why = match &outcome {
            Outcome::Answered(_) => String::new(),
            Outcome::NoEffect(why) | Outcome::Unknown(why) => why.clone(),
        };
        if call.is_write && end == Ending::Answered {
            self.acknowledged_writes.fetch_add(1, Ordering::Relaxed);
        }
        self.journal.request(&RequestLine {
            client,
            node: *node,
            what,
            write: call.is_write,
            held: call.is_held,
            sent,
            ended,
            end,
            why,
        });
        Reply { node: *node, call: sent, end: ended, outcome }
    }

    /// Sends a read to every server, one after the other, when the clients have ended.
    pub async fn read_everywhere(&self, path: &str) -> Vec<Reply> {
        let mut replies = Vec::new();
        for position in 0..self.nodes.len() {
            replies.push(self.send(CLIENT_AT_THE_END, position, Call::read(path)).await);
        }
        replies
    }

    /// How many writes have been answered as the API promises.
    pub fn acknowledged_writes(&self) -> usize {
        self.acknowledged_writes.load(Ordering::Relaxed)
    }

    /// Tells the clients to end, after the request that they wait for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the clients are to end. Loops of blocking queries must check it too.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The end of a request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The server's number.
    pub node: u64,
    /// When it was sent.
    pub call: u64,
    /// When it ended.
    pub end: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended, for its sender.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With an answer that the API promises.
    Answered(Answer),
    /// It certainly had no effect.
    NoEffect(String),
    /// It may have taken effect, or may yet.
    Unknown(String),
}

impl Reply {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::NoEffect(_) | Outcome::Unknown(_) => None,
        }
    }

    /// What `read` finds in the answer, and when it came; none of both if the outcome is unknown. Nothing at all if it
    /// is known to have had no effect.
    pub fn settled<T>(&self, read: impl FnOnce(&Answer) -> T) -> Option<(Option<T>, Option<u64>)> {
        match &self.outcome {
            Outcome::Answered(answer) => Some((Some(read(answer)), Some(self.end))),
            Outcome::NoEffect(_) => None,
            Outcome::Unknown(_) => Some((None, None)),
        }
    }

    /// Whether its outcome is unknown.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }
}

/// A request as a workload describes it.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// GET, PUT or DELETE.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// The body.
    pub body: Vec<u8>,
    /// The statuses that are an answer.
    pub accepts: &'a [u16],
    /// See [`RequestLine::held`].
    pub is_held: bool,
    /// Whether it may change something.
    pub is_write: bool,
}

impl<'a> Call<'a> {
    /// A read: 200 and 404 are answers.
    pub fn read(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            body: Vec::new(),
            accepts: &[200, 404],
            is_held: false,
            is_write: false,
        }
    }

    /// A blocking query.
    pub fn blocking(path: &'a str) -> Self {
        Self { is_held: true, ..Self::read(path) }
    }

    /// A write: 200 is the answer.
    pub fn write(path: &'a str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { method: Method::PUT, path, body, accepts: &[200], is_held: false, is_write: true }
    }

    /// A deletion: 200 is the answer.
    pub fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, ..Self::write(path, "") }
    }

    /// A question with a body: it changes nothing, 200 is the answer.
    pub fn question(path: &'a str, body: impl Into<Vec<u8>>) -> Self {
        Self { is_write: false, ..Self::write(path, body) }
    }

    /// The same with other statuses as answers.
    pub fn accepting(self, accepts: &'a [u16]) -> Self {
        Self { accepts, ..self }
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its place among the clients, from 0.
    pub number: u64,
    /// What it shares with the others.
    pub site: Arc<Site>,
    /// Its own choices; the same in every run with the same seed.
    pub rng: ChaCha8Rng,
    home: usize,
    lives: u64,
    last_number: u64,
    pace: Duration,
    turns: Interval,
}

impl Client {
    /// Client `number` of a run. Its home is one server; clients are spread evenly.
    pub fn new(number: u64, site: Arc<Site>) -> Self {
        let plan = &site.plan;
        let pace = Duration::from_secs(plan.clients).div_f64(plan.rate.max(1) as f64);
        // Spread the first turns of all clients over one pace: writes that came in waves would leave pauses that are
        // longer than an election.
        let begin = pace.mul_f64((number as f64 * GOLDEN_RATIO).fract());
        let mut turns = tokio::time::interval_at(Instant::now() + begin, pace);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rng =
            ChaCha8Rng::seed_from_u64(plan.seed.wrapping_mul(CLIENTS_MAX).wrapping_add(number));
        let home = usize::try_from(number).unwrap_or(0);
        let last_number = number * NUMBERS_PER_CLIENT;
        Self { number, site, rng, home, lives: 0, last_number, pace, turns }
    }

    /// Waits for the client's next turn; false when the run is over.
    pub async fn turn(&mut self) -> bool {
        self.turns.tick().await;
        !self.site.is_over()
    }

    /// The time between two turns.
    pub fn pace(&self) -> Duration {
        self.pace
    }

    /// A number that nobody else gives out, and not 0.
    pub fn fresh_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The position of any server.
    pub fn any_position(&mut self) -> usize {
        self.rng.random_range(0..self.site.nodes.len())
    }

    /// The position of the client's own server.
    pub fn home(&self) -> usize {
        self.home
    }

    /// Its present number. After an operation with an unknown outcome a client continues under another number,
    /// because that operation may still take effect, concurrently with the next.
    pub fn process(&self) -> u64 {
        self.number + CLIENTS_MAX * self.lives
    }

    /// Continues under another number, after an operation with an unknown outcome.
    pub fn lose_sight(&mut self) {
        self.lives += 1;
    }

    /// Sends a request to the client's own server.
    pub async fn send(&self, call: Call<'_>) -> Reply {
        self.send_to(self.home, call).await
    }

    /// Sends a request to any server.
    pub async fn send_anywhere(&mut self, call: Call<'_>) -> Reply {
        let position = self.any_position();
        self.send_to(position, call).await
    }

    /// Sends a request to the server at a position.
    pub async fn send_to(&self, position: usize, call: Call<'_>) -> Reply {
        self.site.send(self.number, position, call).await
    }
}

/// A server says when it does not know the outcome. "No cluster leader" promises that nothing was forwarded, 429 and
/// 503 that nothing was accepted, and the rest of 4xx that the request was wrong.
fn classify(result: Result<Answer, Error>, accepts: &[u16]) -> (Ending, Outcome) {
    match result {
        Ok(answer) if accepts.contains(&answer.status) => {
            (Ending::Answered, Outcome::Answered(answer))
        }
        Ok(answer) => {
            let sentence = format!("{} {}", answer.status, answer.text());
            match (answer.status, &*answer.body) {
                (500, b"No cluster leader") | (400..=499 | 503, _) => {
                    (Ending::Refused, Outcome::NoEffect(sentence))
                }
                _ => (Ending::Unknown, Outcome::Unknown(sentence)),
            }
        }
        Err(error) => {
            let was_sent = !error.is_definite();
            let why = Failure::from(error).to_string();
            match was_sent {
                false => (Ending::NotSent, Outcome::NoEffect(why)),
                true => (Ending::Unknown, Outcome::Unknown(why)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_leaves_it_open_is_unknown() {
        let end = |status, body: &str| classify(Ok(Answer::new(status, body.to_owned())), &[200]).0;
        assert_eq!(end(200, "false"), Ending::Answered);
        assert_eq!(end(500, "No cluster leader"), Ending::Refused);
        assert_eq!(end(500, "outcome unknown: ..."), Ending::Unknown);
        assert_eq!(end(503, ""), Ending::Refused);
    }
}
