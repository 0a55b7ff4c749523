//! Streams deliver each matching record once and in order, whatever faults hit the servers.
//!
//! A reader moves from server to server with the last id that it received. The history of the cluster, as a server
//! lists it at the end, says what the reader must have received; the writes say what the history must contain. So
//!
//! * every acknowledged write is one record of the history, and one with an unknown outcome at most one;
//! * ids increase, also from one server to the next, and marks do not decrease;
//! * every change is a record that matches the reader's filter, as it is in the history;
//! * no matching record is missing between the place where a reader began and the one where it ended, and no server
//!   reports a gap (the history of a run is kept as a whole);
//! * after the last write, every reader reaches the newest record.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Verdict;

/// A run with fewer acknowledged writes that readers want proves nothing.
const WRITES_MIN: usize = 50;
/// The same of changes that were the first after a change of servers.
const RESUMED_MIN: usize = 5;

/// What a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Interest {
    /// The keys below a prefix.
    Keys,
    /// The instances of a service.
    Service,
    /// Both.
    Both,
}

impl Interest {
    fn wants(self, subject: &str) -> bool {
        match self {
            Self::Keys => subject.starts_with("key."),
            Self::Service => subject.starts_with("service."),
            Self::Both => true,
        }
    }
}

/// What the workload writes down. A subject is a record's kind and the key or instance that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A write of something that readers want. Nobody else writes it.
    Write {
        /// What record it makes.
        subject: String,
        /// Whether it was acknowledged; false: its outcome is unknown.
        known: bool,
    },
    /// A reader has opened a stream.
    Opened {
        reader: u64,
        node: u64,
        interest: Interest,
        /// The id after which it resumes; null: it begins with a list.
        since: Option<u64>,
        at: u64,
    },
    /// A record that it was sent.
    Change {
        reader: u64,
        node: u64,
        seq: u64,
        /// What it is about; empty: a node, which concerns the instances on it.
        subject: String,
    },
    /// Everything up to here was looked at.
    Mark {
        reader: u64,
        /// Up to where.
        seq: u64,
    },
    /// A list is complete.
    Listed {
        reader: u64,
        /// As of which record.
        seq: u64,
    },
    /// The server says that it cannot resume at the reader's place.
    Gap { reader: u64, node: u64, since: u64 },
    /// Something that is no part of such a stream.
    Strange { reader: u64, node: u64, what: String },
    /// The end of a reader.
    Ended {
        reader: u64,
        /// Whether it has reached the newest record; false: it gave up.
        at_rest: bool,
    },
    /// The records that readers want, as the history has them at the end.
    History {
        /// The oldest record that is kept.
        oldest: u64,
        /// Numbers and subjects.
        records: Vec<(u64, String)>,
    },
}

/// How much there was to check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged writes of what readers want.
    pub(crate) writes: usize,
    /// Changes that readers got.
    pub(crate) changes: usize,
    /// Of these, the first ones after a change of servers.
    pub(crate) resumed: usize,
}

/// Judges the readers of a run.
pub(crate) fn check(events: &[Event]) -> Verdict {
    let ending = events.iter().find_map(|event| match event {
        Event::History { oldest, records } => Some((*oldest, records)),
        _ => None,
    });
    let Some((oldest, records)) = ending else {
        return Verdict::Vacuous("nobody listed the history at the end".to_owned());
    };
    if oldest > 1 {
        return Verdict::Vacuous(format!("the history begins at {oldest} only"));
    }
    let mut violations = in_history(events, records);
    let history: History = records.iter().cloned().collect();
    let mut readers: BTreeMap<u64, Following<'_>> = BTreeMap::new();
    for event in events {
        let Some(reader) = reader_of(event) else { continue };
        let following = readers.entry(reader).or_insert_with(|| Following::new(reader, &history));
        following.note(event);
    }
    violations.extend(readers.into_values().flat_map(Following::violations));
    let Counts { writes, resumed, .. } = count(events);
    if violations.is_empty() && (writes < WRITES_MIN || resumed < RESUMED_MIN) {
        return Verdict::Vacuous(format!(
            "{writes} acknowledged writes, {resumed} changes after a change of servers"
        ));
    }
    Verdict::from_violations(violations)
}

/// Counts what a run has to be judged by.
pub(crate) fn count(events: &[Event]) -> Counts {
    let mut counts = Counts::default();
    let mut begun = BTreeSet::new();
    for event in events {
        match event {
            Event::Write { known: true, .. } => counts.writes += 1,
            Event::Opened { reader, since: Some(_), .. } => drop(begun.insert(*reader)),
            Event::Change { reader, .. } => {
                counts.changes += 1;
                counts.resumed += usize::from(begun.remove(reader));
            }
            _ => {}
        }
    }
    counts
}

/// What is wrong with the history itself.
fn in_history(events: &[Event], records: &[(u64, String)]) -> Vec<String> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, subject) in records {
        *times.entry(subject).or_default() += 1;
    }
    let mut violations = Vec::new();
    for event in events {
        let Event::Write { subject, known } = event else { continue };
        match (times.get(subject.as_str()).copied().unwrap_or_default(), known) {
            (1, _) | (0, false) => {}
            (0, true) => violations.push(format!("{subject} was acknowledged and is no record")),
            (several, _) => violations.push(format!("{subject} is {several} records")),
        }
    }
    violations
}

fn reader_of(event: &Event) -> Option<u64> {
    match event {
        Event::Opened { reader, .. }
        | Event::Change { reader, .. }
        | Event::Mark { reader, .. }
        | Event::Listed { reader, .. }
        | Event::Gap { reader, .. }
        | Event::Strange { reader, .. }
        | Event::Ended { reader, .. } => Some(*reader),
        Event::Write { .. } | Event::History { .. } => None,
    }
}

/// The records that readers want, by their numbers.
type History = BTreeMap<u64, String>;

/// One reader, as far as it was followed.
struct Following<'a> {
    reader: u64,
    history: &'a History,
    interest: Interest,
    /// The server that it reads from.
    node: u64,
    /// Behind which record it began; none: it waits for a list.
    start: Option<u64>,
    /// The last id that it saw.
    place: u64,
    seen: BTreeSet<u64>,
    has_ended: bool,
    violations: Vec<String>,
}

impl<'a> Following<'a> {
    fn new(reader: u64, history: &'a History) -> Self {
        Self {
            reader,
            history,
            interest: Interest::Both,
            node: 0,
            start: None,
            place: 0,
            seen: BTreeSet::new(),
            has_ended: false,
            violations: Vec::new(),
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Opened { node, interest, .. } => {
                (self.node, self.interest) = (*node, *interest);
            }
            Event::Change { seq, subject, .. } => self.change(*seq, subject),
            Event::Mark { seq, .. } => {
                if self.start.is_some() && *seq < self.place {
                    self.wrong(&format!("a mark {seq} after {}", self.place));
                }
                self.place = self.place.max(*seq);
            }
            Event::Listed { seq, .. } => {
                if self.start.is_some() {
                    self.wrong(&format!("a list at {seq} that nothing announced"));
                }
                (self.start, self.place) = (Some(*seq), *seq);
            }
            Event::Gap { since, .. } => {
                self.end_of_part();
                // The whole history is there, and a server that lacks some of it waits.
                self.wrong(&format!("a gap after {since}, where nothing is lost"));
            }
            Event::Strange { what, .. } => self.wrong(what),
            Event::Ended { at_rest, .. } => {
                self.has_ended = true;
                self.end_of_part();
                if !at_rest {
                    self.wrong("it does not come to the newest record");
                }
            }
            Event::Write { .. } | Event::History { .. } => {}
        }
    }

    fn change(&mut self, seq: u64, subject: &str) {
        // Between the pages of a list come changes of what was listed.
        if self.start.is_none() {
            return;
        }
        if seq <= self.place {
            self.wrong(&format!("{seq} ({subject}) after {}", self.place));
        }
        self.place = self.place.max(seq);
        self.seen.insert(seq);
        let known = self.history.get(&seq);
        if subject.is_empty() {
            return;
        }
        if !self.interest.wants(subject) || known.map(String::as_str) != Some(subject) {
            let known = known.map_or("nothing that it wants", String::as_str);
            self.wrong(&format!("{seq} is {subject:?}; in the history it is {known}"));
        }
    }

    /// From its beginning to its place it must have seen all.
    fn end_of_part(&mut self) {
        let Some(start) = self.start.take() else { return };
        let between = self.history.range(start + 1..=self.place.max(start));
        let wanted = between.filter(|(_, subject)| self.interest.wants(subject));
        let missing: Vec<_> = wanted.filter(|(seq, _)| !self.seen.contains(seq)).collect();
        if let [(seq, subject), ..] = missing.as_slice() {
            let text = format!(
                "{} records are missing between {start} and {}; the first is {seq}, {subject}",
                missing.len(),
                self.place
            );
            self.wrong(&text);
        }
        self.seen.clear();
    }

    fn wrong(&mut self, what: &str) {
        self.violations.push(format!("reader {} at n{}: {what}", self.reader, self.node));
    }

    fn violations(mut self) -> Vec<String> {
        if !self.has_ended {
            self.wrong("it has not ended");
        }
        self.violations
    }
}

#[cfg(test)]
mod tests;
