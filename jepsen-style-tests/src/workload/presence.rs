//! Processes that hold an instance by an open request, go elsewhere when their server is gone, and are killed.
//!
//! Each life is one process with an instance of its own. It behaves as the contract says: it takes 6 s without a byte
//! for a dead server, goes elsewhere when it is told to or its connection breaks, with the same `Owner` and a larger
//! `Attempt`, and takes its time for that now and then, because it has ten seconds. It never gives up an open that is
//! not answered, which could still take effect and then end: it begins the next one beside it, and lets go of the
//! older ones when a newer one has succeeded. At a random time it is killed: all its connections end at once.
//! Meanwhile observers ask every server, by default and stale reads, for all that is critical.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::observe::{Look, Observation, OfNumbers, services_in};
use super::{Judgement, Workload, join};
use crate::checker::presence::{self, Event};
use crate::checker::restarts::Restarts;
use crate::checker::weather::Weather;
use crate::client::{Call, Client, Site};
use crate::http::HttpExt as _;
use crate::presence::Client as Presence;
use crate::record::Record;
use crate::{Failure, Result};

const NAME: &str = "presence";
/// Processes of each client that live at the same time.
const PROCESSES_EACH: u64 = 2;
/// Ids that a client's processes can use before they meet another's.
const LIVES_MAX: u64 = 100_000;
/// How long a process lives.
const LIFE_MS: std::ops::Range<u64> = 1_000..8_000;
/// How long its instance goes on passing after that.
const LINGER_MS: std::ops::Range<u64> = 0..1_500;
/// A process that has to go elsewhere takes its time: it has ten seconds.
const MOVING_MS: std::ops::Range<u64> = 0..4_000;
/// An open that is not answered for so long is joined by another one at the next server.
const HEDGE: Duration = Duration::from_secs(2);
/// Pause after an open that failed.
const RETRY: Duration = Duration::from_millis(50);
/// A dead process is left alone for its linger and this long, so that observers see it critical.
const LOOKED_AT: Duration = Duration::from_millis(2_500);
/// And one of so many for this long: what a lost server held ends with its grace.
const LOOKED_AT_LONG: (u32, Duration) = (4, Duration::from_secs(25));
/// How often an observer looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long servers are looked at after the run: the longest linger and its bound.
const STAY: Duration = Duration::from_secs(4);
/// Between two looks at whether the run is over.
const NAP: Duration = Duration::from_millis(100);
/// From this level of the cluster's rules on there are presences.
const PRESENCE_LEVEL: u64 = 5;
/// The cluster has it within this.
const LEVEL_LIMIT: Duration = Duration::from_secs(25);

/// What is looked at.
const LOOKS: OfNumbers = Observation {
    path: "/v1/health/state/critical",
    every: LOOK_EVERY,
    listed_in: |answer| services_in(answer, "present-"),
    note,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Presences;

#[async_trait]
impl Workload for Presences {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "who holds a presence is never seen critical whatever becomes of servers, and who is killed soon is"
    }

    async fn set_up(&self, site: &Site) -> Result<()> {
        site.http(0).wait_level(PRESENCE_LEVEL, LEVEL_LIMIT).await
    }

    async fn work(&self, client: Client) -> Result<()> {
        let processes = client.site.plan.clients * PROCESSES_EACH;
        let lives = LOOKS.beside(&client, processes, live);
        let writer = Client::new(client.number, Arc::clone(&client.site));
        let (lived, ()) = tokio::join!(lives, write(writer));
        lived
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        LOOKS.stay(site, STAY).await
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let dead = presence::check_dead(&events, &Weather::of(record));
        Ok(vec![
            Judgement::new(
                "presence-living",
                presence::check_living(&events, &Restarts::of(&record.faults)),
            ),
            Judgement::new("presence-dead", dead),
        ])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let counts = presence::count(&events, &Weather::of(record));
        Ok(vec![
            ("processes", counts.lives),
            ("times that one went elsewhere", counts.moves),
            ("dead ones that had to show at once", counts.judged_soon),
            ("and after a lost server's grace", counts.judged_after_grace),
        ])
    }
}

fn note(site: &Site, look: Look<Vec<u64>>) {
    let Look { node, stale, call, ret, listed } = look;
    let event = match listed {
        Some(critical) => Event::Look { node, stale, call, ret, critical },
        None => Event::Unreadable { node, stale, call, ret },
    };
    site.journal.note(NAME, &event);
}

/// Keeps the log going: the time goes on with what is written.
async fn write(mut client: Client) {
    let path = format!("/v1/kv/presence/{}", client.number);
    while client.turn().await {
        client.send(Call::write(&path, "v")).await;
    }
}

/// One life after the other.
async fn live(client: Client) -> Result<()> {
    let mut rng = client.rng.clone();
    let first = client.number * LIVES_MAX;
    let client = Arc::new(client);
    // So that not all begin and end in the same moment.
    let late = rng.random_range(0..LIFE_MS.start);
    rest(&client.site, Duration::from_millis(late)).await;
    let mut ends = JoinSet::new();
    for life in first..first + LIVES_MAX {
        if client.site.is_over() {
            break;
        }
        let linger = Process::new(&client.site, &mut rng, life).live(&mut rng).await;
        // The next life begins while observers look at the end of this one.
        let (one_of, long) = LOOKED_AT_LONG;
        let looked_at = if rng.random_range(0..one_of) == 0 { long } else { LOOKED_AT };
        let position = rng.random_range(0..client.site.nodes.len());
        ends.spawn(end(Arc::clone(&client), position, life, linger + looked_at));
    }
    join(ends).await
}

/// Leaves a dead process alone for a while, and deregisters it.
async fn end(client: Arc<Client>, position: usize, life: u64, after: Duration) -> Result<()> {
    rest(&client.site, after).await;
    if client.site.is_over() {
        // Who died at the end of the run is looked at a little longer.
        return Ok(());
    }
    client.site.journal.note(NAME, &Event::End { life, call: client.site.now() });
    let path = format!("/v1/agent/service/deregister/present-{life}");
    for position in position..position + client.site.nodes.len() {
        let call = Call::write(&path, "").accepting(&[200, 404]);
        if client.send_to(position, call).await.answer().is_some() {
            break;
        }
    }
    Ok(())
}

/// Sleeps, but not beyond the end of the run.
async fn rest(site: &Site, span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until && !site.is_over() {
        tokio::time::sleep(NAP).await;
    }
}

/// An open that has ended: which attempt, at which server, and with what.
type Opened = (u64, u64, Result<Presence>);

/// A process that wants to hold its instance.
struct Process {
    site: Arc<Site>,
    life: u64,
    linger: Duration,
    /// The server that is asked next.
    position: usize,
    /// Its last attempt.
    attempt: u64,
    /// Opens that are not answered. Their connections end with this.
    opening: JoinSet<Opened>,
    /// The newest attempt that has succeeded, and its server, while its stream is open.
    held: Option<(u64, u64, Presence)>,
    /// When it asks the next server, while it holds nothing.
    next: Instant,
}

impl Process {
    fn new(site: &Arc<Site>, rng: &mut ChaCha8Rng, life: u64) -> Self {
        Self {
            site: Arc::clone(site),
            life,
            linger: Duration::from_millis(rng.random_range(LINGER_MS)),
            position: rng.random_range(0..site.nodes.len()),
            attempt: 0,
            opening: JoinSet::new(),
            held: None,
            next: Instant::now(),
        }
    }

    /// Lives until it is killed; returns its linger.
    async fn live(mut self, rng: &mut ChaCha8Rng) -> Duration {
        let death = Instant::now() + Duration::from_millis(rng.random_range(LIFE_MS));
        while Instant::now() < death && !self.site.is_over() {
            let wake = death.min(Instant::now() + NAP);
            let waits = self.held.is_none();
            tokio::select! {
                Some(opened) = self.opening.join_next() => {
                    if let Ok(opened) = opened {
                        self.opened(opened);
                    }
                }
                told = told(&mut self.held), if !waits => self.parted(told, rng),
                () = sleep_until(self.next), if waits => self.open(),
                () = sleep_until(wake) => {}
            }
        }
        let is_settled = self.opening.is_empty();
        let node = self.held.as_ref().filter(|_| is_settled).map(|(_, node, _)| *node);
        let linger_ms = u64::try_from(self.linger.as_millis()).unwrap_or(u64::MAX);
        let at = self.site.now();
        self.site.journal.note(NAME, &Event::Died { life: self.life, at, linger_ms, node });
        // All its connections end here.
        self.linger
    }

    /// Asks the next server.
    fn open(&mut self) {
        self.attempt += 1;
        self.position += 1;
        self.next = Instant::now() + HEDGE;
        let (node, http) = &self.site.nodes[self.position % self.site.nodes.len()];
        let (node, base, attempt) = (*node, http.base().to_owned(), self.attempt);
        let query = format!("linger={}ms", self.linger.as_millis());
        let body = json!({
            "Name": "present", "ID": format!("present-{}", self.life), "Port": 80,
            "Owner": format!("0c8fdd3c-6b1c-4d7e-9d7c-{:012x}", self.life),
            "Attempt": attempt,
        });
        self.opening
            .spawn(async move { (attempt, node, Presence::open(&base, &query, &body).await) });
    }

    /// An open has ended. One that is older than what is held is of no use.
    fn opened(&mut self, (attempt, node, opened): Opened) {
        let newest = self.held.as_ref().map_or(0, |(newest, _, _)| *newest);
        match opened {
            Ok(presence) if attempt > newest => {
                self.held = Some((attempt, node, presence));
                let (life, at) = (self.life, self.site.now());
                self.site.journal.note(NAME, &Event::Opened { life, node, attempt, at });
            }
            Ok(_) => {}
            Err(_) => self.next = self.next.min(Instant::now() + RETRY),
        }
    }

    /// Its stream has ended.
    fn parted(&mut self, told: Result<String>, rng: &mut ChaCha8Rng) {
        let Some((attempt, node, _)) = self.held.take() else { return };
        let (life, at) = (self.life, self.site.now());
        let why = told.unwrap_or_else(|error| error.to_string());
        // Only its own later attempts replace it, and nobody deregisters it while it lives.
        let is_strange = match why.as_str() {
            "replaced" => attempt == self.attempt,
            "deregistered" => true,
            _ => false,
        };
        if is_strange {
            let what = format!("it was told that it is {why}");
            self.site.journal.note(NAME, &Event::Strange { life, node, what });
        }
        self.site.journal.note(NAME, &Event::Parted { life, node, at, why });
        self.next = Instant::now() + Duration::from_millis(rng.random_range(MOVING_MS));
    }
}

/// The last frame of the stream that is held, by its name; its end without one is an error.
async fn told(held: &mut Option<(u64, u64, Presence)>) -> Result<String> {
    let Some((_, _, presence)) = held else { return Err(Failure::new("nothing is held")) };
    loop {
        match presence.frame().await?.0 {
            name if ["moved", "replaced", "deregistered"].contains(&name.as_str()) => {
                return Ok(name);
            }
            _ => {}
        }
    }
}
