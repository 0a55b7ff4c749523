//! Writers of keys and instances, and readers that follow them by streams, at changing servers.
//!
//! Every write makes one record that no other write makes, so a reader's changes can be compared with the history.
//! A reader leaves its server when the stream ends, when it is silent for too long, and now and then of its own
//! accord; it resumes at any other with the last id that it received. After the last write it continues until it
//! has reached the newest record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Judgement, Workload, history, join};
use crate::Result;
use crate::checker::stream::{self, Event, Interest};
use crate::client::{CLIENTS_MAX, Call, Client, Outcome, Reply, Site};
use crate::http::HttpExt as _;
use crate::record::Record;
use crate::stream::{Frame, Reader};

const NAME: &str = "stream";
/// Readers of each interest.
const READERS_EACH: u64 = 2;
const INTERESTS: [Interest; 3] = [Interest::Keys, Interest::Service, Interest::Both];
/// What readers follow, and what they do not, lies side by side: of so many clients one writes keys that nobody
/// follows, and one registers instances; the others write keys that are followed.
const KINDS: u64 = 4;
/// How long a reader stays at one server, in ms.
const STAY_MS: std::ops::Range<u64> = 300..3_000;
/// A server that is silent for this long is dead: it sends a mark every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long a server may take to answer the request for a stream.
const OPEN_MAX: Duration = Duration::from_secs(3);
/// How often a reader checks the time.
const NOTICE: Duration = Duration::from_millis(200);
/// Between two servers that do not answer.
const RETRY: Duration = Duration::from_millis(50);
/// A reader that has not reached the newest record this long after the end has failed.
const REST_LIMIT: Duration = Duration::from_secs(25);
/// From this level of the cluster's rules on there is a history.
const HISTORY_LEVEL: u64 = 3;
const LAST_SEQ: &str = "x-quorate-last-seq";

/// See the module.
#[derive(Debug)]
pub(super) struct Stream;

#[async_trait]
impl Workload for Stream {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "a reader that changes servers gets every record that it wants once, in order"
    }

    /// The history begins when all servers have said that they know it.
    async fn set_up(&self, site: &Site) -> Result<()> {
        site.http(0).wait_level(HISTORY_LEVEL, REST_LIMIT).await
    }

    async fn work(&self, client: Client) -> Result<()> {
        let mut parts = JoinSet::new();
        if client.number == 0 {
            for number in 0..READERS_EACH * INTERESTS.len() as u64 {
                let interest = INTERESTS[usize::try_from(number).unwrap_or(0) % INTERESTS.len()];
                // Its choices are its own.
                let place = CLIENTS_MAX - 1_000 + number;
                let reader = Client::new(place, Arc::clone(&client.site));
                parts.spawn(follow(reader, number, interest));
            }
        }
        parts.spawn(async move {
            match client.number % KINDS {
                0 => register_instances(client).await,
                1 => put_keys(client, "out").await,
                _ => put_keys(client, "in").await,
            }
            Ok(())
        });
        join(parts).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        let (mut oldest, mut records) = (1, Vec::new());
        for filter in ["prefix=stream/in/", "service=streamed"] {
            let (kept_from, all) = history::read(site, filter).await?;
            oldest = oldest.max(kept_from);
            let numbered = |record: &Value| Some((record["Seq"].as_u64()?, subject(record)));
            records.extend(all.iter().filter_map(numbered));
        }
        records.retain(|(_, subject)| !subject.is_empty());
        records.sort_unstable();
        site.journal.note(NAME, &Event::History { oldest, records });
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        Ok(vec![Judgement::new("stream", stream::check(&record.entries(NAME)?))])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let counts = stream::count(&record.entries::<Event>(NAME)?);
        Ok(vec![
            ("writes that readers want", counts.writes as u64),
            ("changes that they got", counts.changes as u64),
            ("of them the first at another server", counts.resumed as u64),
        ])
    }
}

/// What a record is about, with its kind: `key.set stream/in/7`, `service.registered streamed-7`; empty if it is about
/// a node.
fn subject(record: &Value) -> String {
    let text = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
    match (text("Key"), text("ID")) {
        (key, id) if key.is_empty() && id.is_empty() => String::new(),
        (key, id) => format!("{} {key}{id}", text("Kind")),
    }
}

/// Writes a write down that readers want, unless it is known to have had no effect; true if it was answered.
fn note_write(client: &Client, reply: &Reply, subject: Option<String>) -> bool {
    let known = reply.answer().is_some();
    if let Some(subject) = subject.filter(|_| known || reply.is_unknown()) {
        client.site.journal.note(NAME, &Event::Write { subject, known });
    }
    known
}

/// Puts each key once.
async fn put_keys(mut client: Client, folder: &str) {
    while client.turn().await {
        let key = format!("stream/{folder}/{}", client.fresh_number());
        let path = format!("/v1/kv/{key}");
        let reply = client.send_anywhere(Call::write(&path, "v")).await;
        note_write(&client, &reply, (folder == "in").then(|| format!("key.set {key}")));
    }
}

/// Registers instances, of the service that is followed and of another one in turns, and deregisters the one before.
async fn register_instances(mut client: Client) {
    let mut before: Option<(String, bool)> = None;
    while client.turn().await {
        if let Some((id, is_followed)) = before.take() {
            let path = format!("/v1/agent/service/deregister/{id}");
            let reply = client.send_anywhere(Call::write(&path, "")).await;
            let subject = is_followed.then(|| format!("service.deregistered {id}"));
            note_write(&client, &reply, subject);
            continue;
        }
        let number = client.fresh_number();
        let is_followed = number.is_multiple_of(2);
        let service = if is_followed { "streamed" } else { "unstreamed" };
        let id = format!("{service}-{number}");
        let body = json!({"ID": id, "Name": service, "Port": 80});
        let call = Call::write("/v1/agent/service/register", body.to_string());
        let reply = client.send_anywhere(call).await;
        let subject = is_followed.then(|| format!("service.registered {id}"));
        // One whose registration may yet come is left alone.
        if note_write(&client, &reply, subject) {
            before = Some((id, is_followed));
        }
    }
}

/// A reader's place.
struct Place {
    reader: u64,
    interest: Interest,
    /// The last id that it saw.
    last: Option<u64>,
    /// When it saw that the run was over, and the newest record then, once it knows that.
    ended: Option<Instant>,
    newest: Option<u64>,
}

/// Follows until the run is over and the newest record was reached.
async fn follow(mut client: Client, reader: u64, interest: Interest) -> Result<()> {
    let mut place = Place { reader, interest, last: None, ended: None, newest: None };
    loop {
        let position = client.any_position();
        let stay = Duration::from_millis(client.rng.random_range(STAY_MS));
        let at_rest = stay_at(&client, &mut place, position, stay).await;
        let is_lost = place.ended.is_some_and(|ended| ended.elapsed() > REST_LIMIT);
        if at_rest || is_lost {
            client.site.journal.note(NAME, &Event::Ended { reader, at_rest });
            return Ok(());
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Reads from one server for a while, or until the newest record is reached: then true.
async fn stay_at(client: &Client, place: &mut Place, position: usize, stay: Duration) -> bool {
    let (node, http) = &client.site.nodes[position % client.site.nodes.len()];
    let query = match place.interest {
        Interest::Keys => "prefix=stream/in/",
        Interest::Service => "service=streamed",
        Interest::Both => "service=streamed&prefix=stream/in/",
    };
    let opening = Reader::open(http, query, place.last);
    let Ok(Ok(mut stream)) = tokio::time::timeout(OPEN_MAX, opening).await else {
        place.notice_the_end(client).await;
        return false;
    };
    let (reader, interest, since) = (place.reader, place.interest, place.last);
    let at = client.site.now();
    client.site.journal.note(NAME, &Event::Opened { reader, node: *node, interest, since, at });
    let opened = Instant::now();
    let mut heard = opened;
    loop {
        match tokio::time::timeout(NOTICE, stream.next()).await {
            Ok(Ok(Some(frame))) => {
                heard = Instant::now();
                place.note(client, *node, &frame);
            }
            Ok(Ok(None) | Err(_)) => return false,
            Err(_) => {}
        }
        place.notice_the_end(client).await;
        if place.newest.is_some() && place.last >= place.newest {
            return true;
        }
        let is_over = place.ended.is_some_and(|ended| ended.elapsed() > REST_LIMIT);
        let leaves = place.ended.is_none() && opened.elapsed() > stay;
        if is_over || leaves || heard.elapsed() > SILENCE_MAX {
            return false;
        }
    }
}

impl Place {
    /// Writes a frame down, and moves the place to resume behind it.
    fn note(&mut self, client: &Client, node: u64, frame: &Frame) {
        let reader = self.reader;
        let event = match (frame.name.as_str(), frame.id) {
            ("change", Some(seq)) => {
                Event::Change { reader, node, seq, subject: subject(&frame.data) }
            }
            // It belongs to a list that is not complete.
            ("change" | "snapshot", None) | ("leader" | "moved", _) => return,
            ("mark", Some(seq)) => Event::Mark { reader, seq },
            ("snapshot", Some(seq)) => Event::Listed { reader, seq },
            ("gap", _) => {
                let since = frame.data["Since"].as_u64().unwrap_or_default();
                Event::Gap { reader, node, since }
            }
            _ => Event::Strange { reader, node, what: format!("a frame {frame:?}") },
        };
        self.last = frame.id.or(self.last);
        client.site.journal.note(NAME, &event);
    }

    /// Notices when the run is over, and asks how far the history goes then.
    async fn notice_the_end(&mut self, client: &Client) {
        if !client.site.is_over() {
            return;
        }
        self.ended.get_or_insert_with(Instant::now);
        if self.newest.is_none() {
            let call = Call::read("/v1/quorate/history?limit=1");
            if let Outcome::Answered(answer) = client.send(call).await.outcome {
                self.newest = answer.header(LAST_SEQ).and_then(|text| text.parse().ok());
            }
        }
    }
}
