//! Waking those who wait for a record of the history.
//!
//! One task reads each new record once and wakes the readers that want it. Readers that want the records of a
//! service are found by its name; all others are asked one by one. A reader that is woken reads on from where
//! it was: it is a place in the history, and nothing queues up for one that is slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_storage::index::fold;
use quorate_storage::machine::StateReader;
use quorate_storage::record::{HistoryKind, HistoryRecord, Ring, Subject};
use tokio::sync::{Notify, watch};

use super::filter::{Filter, decided_node};

/// Who waits for records.
#[derive(Debug)]
pub struct Feed {
    /// The `seq` of the newest record.
    newest: watch::Sender<u64>,
    /// Up to which record the readers were woken.
    looked: AtomicU64,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    last_id: u64,
    /// By a service's name in lower case, those that want it.
    by_service: HashMap<String, HashMap<u64, Arc<Wanted>>>,
    /// Those that want anything but services.
    others: HashMap<u64, Arc<Wanted>>,
}

#[derive(Debug)]
struct Wanted {
    filter: Filter,
    wake: Notify,
    /// Whether there was a reason to wake since it was last taken.
    is_woken: AtomicBool,
}

impl Wanted {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }
}

/// A place among those who wait; given up when it is dropped.
#[derive(Debug)]
pub struct Reader {
    feed: Arc<Feed>,
    id: u64,
    wanted: Arc<Wanted>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { newest: watch::Sender::new(0), looked: AtomicU64::new(0), readers: Mutex::default() }
    }
}

impl Feed {
    /// Takes note of the newest record. Called from the apply path: it costs a comparison.
    pub fn note(&self, newest: u64) {
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
    }

    /// Begins to wait for records that a filter wants: none that comes after this call is missed.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, filter: Filter) -> Reader {
        let wanted =
            Arc::new(Wanted { filter, wake: Notify::new(), is_woken: AtomicBool::new(false) });
        let mut readers = self.readers();
        readers.last_id += 1;
        let id = readers.last_id;
        // Whoever wants services and keys is found in both.
        for service in wanted.filter.services() {
            let of_service = readers.by_service.entry(service.clone()).or_default();
            of_service.insert(id, Arc::clone(&wanted));
        }
        if !wanted.filter.is_of_services_only() {
            readers.others.insert(id, Arc::clone(&wanted));
        }
        drop(readers);
        Reader { feed: Arc::clone(self), id, wanted }
    }

    /// The waking task; never ends.
    pub async fn run(self: Arc<Self>, state: StateReader) {
        let mut newest = self.newest.subscribe();
        let mut seen = state.load().state.history().last_seq();
        self.looked.store(seen, Ordering::SeqCst);
        while newest.changed().await.is_ok() {
            newest.borrow_and_update();
            let published = state.load();
            let history = published.state.history();
            let is_whole = Ring::ALL.into_iter().all(|ring| history.lost_through(ring) <= seen);
            if is_whole {
                history.after(seen, &Ring::ALL).for_each(|record| self.wake(record));
            } else {
                // A snapshot was installed: nobody knows what was missed.
                self.wake_everybody();
            }
            seen = history.last_seq();
            self.looked.store(seen, Ordering::SeqCst);
        }
    }

    fn wake(&self, record: &HistoryRecord) {
        if record.kind == HistoryKind::Restored {
            return self.wake_everybody();
        }
        let readers = self.readers();
        if decided_node(record).is_some() {
            return Self::wake_everybody_of(&readers, record);
        }
        let service = match &record.subject {
            Subject::Instance { service, .. } | Subject::Check { service, .. } => fold(service),
            Subject::Claim { service, .. } => fold(service),
            Subject::Cluster
            | Subject::Node { .. }
            | Subject::Key(_)
            | Subject::Session { .. }
            | Subject::Acl { .. } => "".into(),
        };
        let of_service = readers.by_service.get(&*service).into_iter().flat_map(HashMap::values);
        let wanted = of_service.chain(readers.others.values());
        wanted.filter(|wanted| wanted.filter.matches(record)).for_each(|one| one.wake());
    }

    /// Wakes who wants a record, and all who follow services.
    fn wake_everybody_of(readers: &Readers, record: &HistoryRecord) {
        let others = readers.others.values().filter(|one| one.filter.matches(record));
        let of_services = readers.by_service.values().flat_map(HashMap::values);
        of_services.chain(others).for_each(|one| one.wake());
    }

    fn wake_everybody(&self) {
        let readers = self.readers();
        let of_services = readers.by_service.values().flat_map(HashMap::values);
        of_services.chain(readers.others.values()).for_each(|one| one.wake());
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Resolves when there may be a record that the filter wants, since it last resolved.
    pub async fn woken(&self) {
        self.wanted.wake.notified().await;
    }

    /// There is more for this reader than it took: it is woken at once.
    pub fn again(&self) {
        self.wanted.wake();
    }

    /// Up to which record there was none that the filter wants, since this was last asked; `None`: there may be
    /// one.
    #[must_use]
    pub fn quiet_through(&self) -> Option<u64> {
        // In this order: what was looked at before is in the flag.
        let looked = self.feed.looked.load(Ordering::SeqCst);
        let is_woken = self.wanted.is_woken.swap(false, Ordering::SeqCst);
        (!is_woken).then_some(looked)
    }

    /// What it waits for.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.wanted.filter
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.feed.readers();
        readers.others.remove(&self.id);
        for service in self.wanted.filter.services() {
            let Some(of_service) = readers.by_service.get_mut(service) else { continue };
            of_service.remove(&self.id);
            if of_service.is_empty() {
                readers.by_service.remove(service);
            }
        }
    }
}
