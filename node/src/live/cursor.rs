//! A stream: a place in the history, and what comes next from there.
//!
//! First it lists the instances, page by page, each page from the newest state; the changes of what it has
//! listed go between the pages. Then it follows the records. It holds no version of the state between two
//! steps, and nothing is kept for it but this place: a reader that is slow costs nothing.

use std::sync::Arc;

use quorate_client::types::live::{StreamChange, StreamGap, StreamSnapshot};
use quorate_storage::index::fold;
use quorate_storage::machine::Published;
use quorate_storage::record::{Detail, HistoryKind, HistoryRecord, Ring, Subject};
use quorate_storage::state::{InstancePlace, Rights};

use super::filter::{Filter, decided_node};
use super::rows::{self, Rows};
use super::show::event;
use super::sight::{sees, sees_row};

/// Instances in one `snapshot` frame.
pub const PAGE_MAX: usize = 500;
/// Records that one step looks at, at most: others want to be served too.
pub const STEP_RECORDS_MAX: usize = 1_000;
/// Instances that a change of a node's check shows.
const ROWS_MAX: usize = 500;
/// A step ends once it has shown this many of those: what it returns is in memory until the reader has read it.
const STEP_ROWS_MAX: usize = 1_000;

/// What a stream sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Instances.
    Snapshot(StreamSnapshot),
    /// A record.
    Change(Box<StreamChange>),
    /// Records were lost; a snapshot follows.
    Gap(StreamGap),
    /// A backup was restored, with the `seq` of the record that says so; a snapshot follows.
    Restored(u64),
}

/// A place in the history.
#[derive(Debug)]
pub struct Cursor {
    filter: Filter,
    /// What its client may see; `None`: everything.
    rights: Option<Rights>,
    rings: Vec<Ring>,
    /// Up to which record it has looked.
    seq: u64,
    /// While it lists: the last instance that it has listed, if any.
    listing: Option<Option<InstancePlace>>,
}

impl Cursor {
    /// Begins behind a record, or with a list of what there is.
    #[must_use]
    pub fn new(filter: Filter, since: Option<u64>) -> Self {
        let rings = filter.rings();
        let listing = if since.is_some() { None } else { Some(None) };
        Self { filter, rights: None, rings, seq: since.unwrap_or(0), listing }
    }

    /// Shows only what a client with these rights may see.
    #[must_use]
    pub fn seen_by(self, rights: Option<Rights>) -> Self {
        Self { rights, ..self }
    }

    /// Up to which record it has looked.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether it is done with its list.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.listing.is_none()
    }

    /// Whether its next step lists instances.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        self.listing.is_some() && self.filter.has_instances()
    }

    /// There is nothing for it up to this record.
    pub fn skip_to(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// The next frames from a state, and whether there is more to come at once.
    pub fn step(&mut self, published: &Published) -> (Vec<Frame>, bool) {
        let history = published.state.history();
        let lost = self.rings.iter().map(|ring| history.lost_through(*ring)).max().unwrap_or(0);
        let is_ahead = self.seq > history.last_seq();
        // A list that begins has no place that could be lost.
        if !matches!(self.listing, Some(None)) && (self.seq < lost || is_ahead) {
            let last = if is_ahead { history.last_seq() } else { lost };
            let gap = Frame::Gap(StreamGap { since: self.seq, last });
            self.listing = Some(None);
            return (vec![gap], true);
        }
        match self.listing.clone() {
            Some(listed) => self.list(published, listed),
            None => self.follow(published, None),
        }
    }

    /// A page, after the changes of what was listed before.
    fn list(&mut self, published: &Published, listed: Option<InstancePlace>) -> (Vec<Frame>, bool) {
        let state = &published.state;
        let mut frames = Vec::new();
        match &listed {
            None => self.seq = state.history().last_seq(),
            Some(last) => {
                let (changes, is_more) = self.follow(published, Some(last));
                let restarts = self.listing == Some(None);
                if is_more || restarts {
                    return (changes, true);
                }
                frames = changes;
            }
        }
        let (mut page, mut rows) = (Vec::new(), Rows::of(state));
        let mut last = listed;
        let mut is_complete = true;
        if self.filter.has_instances() {
            let behind = last.clone();
            for (place, row) in state.instances_behind(behind.as_ref()) {
                if !self.filter.wants_service(&place.0) || !sees_row(self.rights.as_ref(), row) {
                    continue;
                }
                if page.len() == PAGE_MAX {
                    is_complete = false;
                    break;
                }
                page.push(rows.instance(row));
                last = Some(place);
            }
        }
        frames.push(Frame::Snapshot(StreamSnapshot {
            seq: self.seq,
            index: state.index().0,
            instances: page,
            complete: is_complete,
        }));
        self.listing = if is_complete { None } else { Some(last) };
        (frames, !is_complete)
    }

    /// The records that come next; of what was listed only, while it lists.
    fn follow(
        &mut self,
        published: &Published,
        listed: Option<&InstancePlace>,
    ) -> (Vec<Frame>, bool) {
        let history = published.state.history();
        let mut frames = Vec::new();
        let records = history.after(self.seq, &Ring::ALL).take(STEP_RECORDS_MAX);
        let (mut looked_at, mut shown) = (0, 0);
        for record in records {
            looked_at += 1;
            self.seq = record.seq;
            if record.kind == HistoryKind::Restored {
                frames.push(Frame::Restored(record.seq));
                self.listing = Some(None);
                return (frames, true);
            }
            if self.is_wanted(published, record)
                && listed.is_none_or(|listed| is_listed(&record.subject, listed))
            {
                let change = self.change(published, record);
                shown += change.rows.len();
                frames.push(Frame::Change(Box::new(change)));
            }
            if shown >= STEP_ROWS_MAX {
                return (frames, true);
            }
        }
        (frames, looked_at == STEP_RECORDS_MAX)
    }

    fn is_wanted(&self, published: &Published, record: &HistoryRecord) -> bool {
        if self.rights.as_ref().is_some_and(|rights| !sees(rights, record)) {
            return false;
        }
        if self.filter.matches(record) {
            return true;
        }
        decided_node(record).is_some_and(|node| {
            self.filter.takes(record.kind)
                && !self.filter.services().is_empty()
                && self.rows_on(published, node).next().is_some()
        })
    }

    fn rows_on<'a>(
        &'a self,
        published: &'a Published,
        node: &'a str,
    ) -> impl Iterator<Item = &'a Arc<quorate_storage::record::Service>> {
        let rows = published.state.services_on(node);
        rows.filter(|row| {
            self.filter.wants_service(&fold(&row.definition.name))
                && sees_row(self.rights.as_ref(), row)
        })
    }

    fn change(&self, published: &Published, record: &HistoryRecord) -> StreamChange {
        let state = &published.state;
        let (mut row, mut of_node, mut rows_left) = (None, Vec::new(), 0);
        if let Some(node) = decided_node(record) {
            let mut concerned = self.rows_on(published, node);
            let shown = concerned.by_ref().take(ROWS_MAX);
            let mut all = Rows::of(state);
            of_node = shown.map(|row| all.instance(row)).collect();
            rows_left = u64::try_from(concerned.count()).unwrap_or(u64::MAX);
        } else if let Some((node, id)) = instance_of(record) {
            let shown = state.service(node, id).filter(|row| sees_row(self.rights.as_ref(), row));
            row = shown.map(|row| rows::instance(state, row));
        }
        StreamChange { event: event(published, record), row, rows: of_node, rows_left }
    }
}

/// Node and id of the instance that a record is about.
fn instance_of(record: &HistoryRecord) -> Option<(&str, &str)> {
    match (&record.subject, &record.detail) {
        (Subject::Instance { node, id, .. } | Subject::Check { node, id, .. }, _) => {
            Some((node, id))
        }
        (Subject::Claim { .. }, Detail::Claim(facts)) if facts.fence > 0 => {
            Some((&facts.node, &facts.instance))
        }
        _ => None,
    }
}

/// Whether a change is about something up to the last instance that was listed; what comes behind it will be
/// listed as it is then. What is no instance is no part of the list.
fn is_listed(subject: &Subject, listed: &InstancePlace) -> bool {
    match subject {
        Subject::Instance { node, service, id } | Subject::Check { node, service, id, .. }
            if !id.is_empty() =>
        {
            let (of, on, last) = listed;
            (&*fold(service), &*fold(node), &**id) <= (&**of, &**on, &**last)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
