//! Who waits for what: the table behind blocking queries.
//!
//! A blocking query subscribes to one [`Topic`], *then* looks at the state, then waits. Whatever
//! changes after the subscription is not lost, and a query wakes only when its own topic was touched.
//!
//! Waking has a task of its own ([`Watches::run`]). The apply path only adds the touched topics to a
//! set, which coalesces: a topic with fifty thousand waiters costs the apply path nothing. When the
//! set overflows, everybody is woken; a spurious wake-up costs a look, a lost one costs a promise.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use quorate_storage::Topic;
use tokio::sync::Notify;

use crate::host::clock::{Clock, Moment};
use crate::host::durations::Durations;

/// Shards of the table: more than cores, so that writers and subscribers rarely meet.
const SHARDS: usize = 64;

/// Topics that may wait to be announced before everybody is woken instead.
const PENDING_TOPICS_MAX: usize = 65_536;

/// The table of waiting queries, by topic.
#[derive(Debug)]
pub struct Watches {
    shards: Vec<Mutex<HashMap<Topic, Arc<Entry>>>>,
    /// Watched prefixes by their length: a touched key is looked up once per distinct length.
    prefixes: RwLock<BTreeMap<usize, PrefixesOfLength>>,
    pending: Mutex<Pending>,
    announced: Notify,
    waiting: AtomicUsize,
    clock: Clock,
    wakes: Durations,
}

/// The watched prefixes of one length.
type PrefixesOfLength = HashMap<Arc<str>, Arc<Entry>>;

/// What was touched since the waking task last looked.
#[derive(Debug, Default)]
struct Pending {
    topics: BTreeSet<Topic>,
    everything: bool,
    /// When the first of them was touched.
    since: Option<Moment>,
}

/// One watched topic.
#[derive(Debug, Default)]
struct Entry {
    /// Grows with every announcement: a waiter compares it with what it saw when it subscribed.
    version: AtomicU64,
    changed: Notify,
    /// Subscriptions; guarded by the lock of the map that holds the entry.
    subscribers: AtomicUsize,
}

impl Entry {
    fn announce(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl Watches {
    /// A table in which nobody waits.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            prefixes: RwLock::default(),
            pending: Mutex::default(),
            announced: Notify::new(),
            waiting: AtomicUsize::new(0),
            clock,
            wakes: Durations::default(),
        }
    }

    /// Registers interest *before* the caller looks at the state: a change after this call, and
    /// before [`Subscription::changed`] is awaited, is not lost.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, topic: &Topic) -> Subscription {
        let entry = if let Topic::Prefix(prefix) = topic {
            let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
            let of_length = prefixes.entry(prefix.len()).or_default();
            join(of_length.entry(Arc::clone(prefix)).or_default())
        } else {
            join(self.shard(topic).entry(topic.clone()).or_default())
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let seen = entry.version.load(Ordering::SeqCst);
        Subscription { watches: Arc::clone(self), topic: topic.clone(), entry, seen }
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Time from a touch until all that wait for it are woken: once for each round of the waking task, which costs
    /// two readings of the clock however many wait.
    #[must_use]
    pub const fn wakes(&self) -> &Durations {
        &self.wakes
    }

    /// Notes what an applied entry touched; the waking task does the rest.
    pub fn touch(&self, topics: BTreeSet<Topic>) {
        if topics.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut pending = self.pending();
        pending.since.get_or_insert(now);
        let everything = topics.contains(&Topic::Everything);
        if everything || pending.topics.len() + topics.len() > PENDING_TOPICS_MAX {
            pending.everything = true;
            pending.topics.clear();
        } else if !pending.everything {
            pending.topics.extend(topics);
        }
        drop(pending);
        self.announced.notify_one();
    }

    /// Notes that everything may have changed.
    pub fn touch_everything(&self) {
        let now = self.clock.now();
        let mut pending = self.pending();
        pending.since.get_or_insert(now);
        pending.everything = true;
        drop(pending);
        self.announced.notify_one();
    }

    /// The waking task; never ends.
    pub async fn run(&self) {
        loop {
            self.announced.notified().await;
            let pending = std::mem::take(&mut *self.pending());
            if pending.everything {
                self.announce_everything();
            } else {
                pending.topics.iter().for_each(|topic| self.announce(topic));
            }
            if let Some(since) = pending.since {
                self.wakes.observe(self.clock.now().since(since));
            }
        }
    }

    fn announce(&self, topic: &Topic) {
        let entry = self.shard(topic).get(topic).cloned();
        if let Some(entry) = entry {
            entry.announce();
        }
        match topic {
            Topic::Key(key) => self.announce_prefixes_of(key),
            Topic::Prefix(prefix) => {
                self.announce_prefixes_of(prefix);
                self.announce_below(prefix);
            }
            _ => {}
        }
    }

    /// Everything below a prefix was deleted: wakes who watches a key or a longer prefix there. Looks
    /// at all that is watched, once, however many keys there were.
    fn announce_below(&self, prefix: &str) {
        let is_below = |topic: &Topic| matches!(topic, Topic::Key(key) if key.starts_with(prefix));
        for shard in &self.shards {
            let shard = lock(shard);
            let below = shard.iter().filter(|(topic, _)| is_below(topic));
            let entries: Vec<_> = below.map(|(_, entry)| Arc::clone(entry)).collect();
            drop(shard);
            entries.iter().for_each(|entry| entry.announce());
        }
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        let longer = prefixes.range((Bound::Excluded(prefix.len()), Bound::Unbounded));
        for (watched, entry) in longer.flat_map(|(_, watched)| watched) {
            if watched.starts_with(prefix) {
                entry.announce();
            }
        }
    }

    fn announce_prefixes_of(&self, key: &str) {
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        for (length, watched) in prefixes.range(..=key.len()) {
            // A length that would split a character cannot be the length of a prefix of this key.
            if let Some(entry) = key.get(..*length).and_then(|prefix| watched.get(prefix)) {
                entry.announce();
            }
        }
    }

    fn announce_everything(&self) {
        for shard in &self.shards {
            let entries: Vec<_> = lock(shard).values().cloned().collect();
            entries.iter().for_each(|entry| entry.announce());
        }
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        prefixes.values().flat_map(HashMap::values).for_each(|entry| entry.announce());
    }

    fn leave(&self, topic: &Topic) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Topic::Prefix(prefix) = topic {
            let mut prefixes = self.prefixes.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(of_length) = prefixes.get_mut(&prefix.len()) {
                leave_entry(of_length, prefix);
                if of_length.is_empty() {
                    prefixes.remove(&prefix.len());
                }
            }
        } else {
            leave_entry(&mut *self.shard(topic), topic);
        }
    }

    // A std lock: it is held for a map operation, never across an await.
    fn shard(&self, topic: &Topic) -> MutexGuard<'_, HashMap<Topic, Arc<Entry>>> {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let shard = usize::try_from(hasher.finish() % (SHARDS as u64)).unwrap_or(0);
        lock(&self.shards[shard])
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }
}

fn join(entry: &mut Arc<Entry>) -> Arc<Entry> {
    entry.subscribers.fetch_add(1, Ordering::SeqCst);
    Arc::clone(entry)
}

fn leave_entry<Q, K>(entries: &mut HashMap<K, Arc<Entry>>, key: &Q)
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    let last =
        entries.get(key).is_some_and(|entry| entry.subscribers.fetch_sub(1, Ordering::SeqCst) == 1);
    if last {
        entries.remove(key);
    }
}

/// A panic while one of these locks was held leaves a whole map behind: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Interest in one topic; dropping it ends the interest.
#[derive(Debug)]
pub struct Subscription {
    watches: Arc<Watches>,
    topic: Topic,
    entry: Arc<Entry>,
    seen: u64,
}

impl Subscription {
    /// Resolves when the topic may have changed since [`Watches::subscribe`] or since the last time
    /// this resolved.
    pub async fn changed(&mut self) {
        loop {
            let changed = self.entry.changed.notified();
            tokio::pin!(changed);
            // Enabled before the version is read: an announcement in between is not missed.
            changed.as_mut().enable();
            let version = self.entry.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watches.leave(&self.topic);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(text: &str) -> Topic {
        Topic::Key(text.into())
    }

    async fn wakes(subscription: &mut Subscription) -> bool {
        tokio::time::timeout(Duration::from_millis(200), subscription.changed()).await.is_ok()
    }

    fn running() -> Arc<Watches> {
        let watches = Arc::new(Watches::new(Clock::monotonic()));
        let task = Arc::clone(&watches);
        tokio::spawn(async move { task.run().await });
        watches
    }

    #[tokio::test]
    async fn a_touched_topic_wakes_its_waiter_and_no_other() {
        let watches = running();
        let mut one = watches.subscribe(&key("a"));
        let mut other = watches.subscribe(&key("b"));
        watches.touch(BTreeSet::from([key("a")]));
        assert!(wakes(&mut one).await);
        assert!(!wakes(&mut other).await);
    }

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_not_lost() {
        let watches = running();
        let mut waiter = watches.subscribe(&key("a"));
        watches.touch(BTreeSet::from([key("a")]));
        tokio::task::yield_now().await;
        assert!(wakes(&mut waiter).await);
        assert!(!wakes(&mut waiter).await, "one change wakes once");
    }

    #[tokio::test]
    async fn a_key_wakes_those_who_watch_a_prefix_of_it() {
        let watches = running();
        let mut whole = watches.subscribe(&Topic::Prefix("".into()));
        let mut below = watches.subscribe(&Topic::Prefix("a/é".into()));
        let mut beside = watches.subscribe(&Topic::Prefix("a/x".into()));
        watches.touch(BTreeSet::from([key("a/éb")]));
        assert!(wakes(&mut whole).await);
        assert!(wakes(&mut below).await);
        assert!(!wakes(&mut beside).await);
    }

    #[tokio::test]
    async fn a_deleted_prefix_wakes_who_watches_below_it_and_around_it() {
        let watches = running();
        let topics = |prefixes: [&str; 4]| prefixes.map(|prefix| Topic::Prefix(prefix.into()));
        let woken = [key("a/é"), key("a/é/1"), key("a/é2")].into_iter();
        let woken: Vec<_> = woken.chain(topics(["", "a/", "a/é", "a/é/x"])).collect();
        let asleep = [key("a/"), key("a/b"), key(""), Topic::Prefix("a/b".into()), Topic::Sessions];
        let mut woken: Vec<_> = woken.iter().map(|topic| watches.subscribe(topic)).collect();
        let mut asleep: Vec<_> = asleep.iter().map(|topic| watches.subscribe(topic)).collect();
        watches.touch(BTreeSet::from([Topic::Prefix("a/é".into())]));
        for subscription in &mut woken {
            assert!(wakes(subscription).await, "{:?}", subscription.topic);
        }
        for subscription in &mut asleep {
            assert!(!wakes(subscription).await, "{:?}", subscription.topic);
        }
    }

    #[tokio::test]
    async fn overflow_wakes_everybody() {
        let watches = running();
        let mut waiter = watches.subscribe(&Topic::Sessions);
        watches.touch((0..=PENDING_TOPICS_MAX).map(|n| key(&n.to_string())).collect());
        assert!(wakes(&mut waiter).await);
    }

    #[tokio::test]
    async fn a_dropped_subscription_leaves_nothing_behind() {
        let watches = running();
        drop((watches.subscribe(&key("a")), watches.subscribe(&Topic::Prefix("p".into()))));
        assert_eq!(watches.waiting(), 0);
        assert!(watches.shards.iter().all(|shard| lock(shard).is_empty()));
        assert!(watches.prefixes.read().unwrap().is_empty());
    }
}
