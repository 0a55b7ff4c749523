//! A pool: the instances of one service that can be claimed, and the lines in front of them.
//!
//! Claims that require the same of an instance wait in one line. A line keeps the free instances that it may
//! have, in the order of choice: so the next claim and its instance are each at the beginning of a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::record::{Claim, ClaimPhase, PoolCounts, PoolMember, REQUIRES_MAX, Service, TextMap};
use crate::state::catalog::Place;
use crate::{ClusterTime, Millis};

/// Whether an instance can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// All of its checks pass.
    Passing,
    /// One warns: it is taken only while no instance of the pool passes.
    Warning,
    /// It cannot be used.
    Down,
}

/// Place in the order of choice, among instances of equal health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    busy: usize,
    idle_since: ClusterTime,
    number: u64,
}

/// An instance of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// What its row in the catalogue does not have.
    pub(super) kept: PoolMember,
    /// Its row in the catalogue.
    pub(super) row: Arc<Service>,
    /// Its own address, or else that of its node.
    pub(super) address: String,
    /// Claims that it serves at a time; zero: it has left the pool, and serves those that it has.
    pub(super) slots: u32,
    /// For how long a slot stays closed whose claim was lost.
    pub(super) delay: Millis,
    pub(super) health: Health,
    /// The numbers of the claims that have it, by fence.
    pub(super) busy: OrdMap<u64, u64>,
    /// Slots that are closed.
    pub(super) closed: u32,
}

impl Member {
    fn has_free_slot(&self) -> bool {
        self.busy.len() + (self.closed as usize) < self.slots as usize
    }

    /// Where it is found if it can be claimed.
    fn listing(&self) -> Option<(Health, Rank)> {
        let PoolMember { number, idle_since } = self.kept;
        let rank = Rank { busy: self.busy.len(), idle_since, number };
        (self.has_free_slot() && self.health != Health::Down).then_some((self.health, rank))
    }

    fn satisfies(&self, require: &TextMap) -> bool {
        let meta = self.row.definition.meta.as_ref();
        require.iter().all(|(key, value)| meta.and_then(|meta| meta.get(key)) == Some(value))
    }
}

/// Claims that require the same, and what they may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Line {
    /// The numbers of claims for which a request waits, by position.
    attached: OrdMap<u64, u64>,
    /// All claims that wait, those without a request included.
    waiting: usize,
    passing: OrdMap<Rank, Place>,
    warning: OrdMap<Rank, Place>,
    /// The position of the claim that last asked for it. Lines that nobody uses are dropped in this order.
    used: u64,
}

impl Line {
    fn free_mut(&mut self, health: Health) -> &mut OrdMap<Rank, Place> {
        match health {
            Health::Passing => &mut self.passing,
            Health::Warning | Health::Down => &mut self.warning,
        }
    }

    fn list(&mut self, place: &Place, member: &Member) {
        if let Some((health, rank)) = member.listing() {
            self.free_mut(health).insert(rank, place.clone());
        }
    }

    fn unlist(&mut self, member: &Member) {
        if let Some((health, rank)) = member.listing() {
            self.free_mut(health).remove(&rank);
        }
    }
}

/// The pool of one service.
#[derive(Debug, Clone)]
pub struct Pool {
    name: Arc<str>,
    pub(super) counts: PoolCounts,
    members: OrdMap<Place, Arc<Member>>,
    /// Derived: the numbers of all claims that wait, by position.
    queue: OrdMap<u64, u64>,
    /// Derived: by what they require. Those in which nobody waits are kept to save the search.
    lines: BTreeMap<Arc<TextMap>, Arc<Line>>,
    /// Derived: instances with slots.
    size: usize,
    /// Derived: of these, those that pass, busy ones included.
    passing: usize,
}

/// Which instances of a pool serve a claim when they are free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prospects {
    /// Those that have what it requires.
    pub suitable: usize,
    /// Of these, those that their checks let be claimed: the passing ones, or while none of the pool passes, those that
    /// warn.
    pub usable: usize,
}

/// An instance of a pool, as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct PoolInstance<'a>(&'a Member);

impl<'a> PoolInstance<'a> {
    /// Its row in the catalogue.
    #[must_use]
    pub fn row(self) -> &'a Arc<Service> {
        &self.0.row
    }

    /// Claims that it serves at a time; zero: it has left the pool, and serves those that it has.
    #[must_use]
    pub fn slots(self) -> u32 {
        self.0.slots
    }

    /// How many slots are closed because their claims were lost.
    #[must_use]
    pub fn closed(self) -> u32 {
        self.0.closed
    }

    /// The numbers of the claims that have it, in the order of the grants.
    pub fn busy(self) -> impl Iterator<Item = u64> + use<'a> {
        self.0.busy.values().copied()
    }

    /// When a claim on it last ended, or when it came.
    #[must_use]
    pub fn idle_since(self) -> ClusterTime {
        self.0.kept.idle_since
    }

    /// Whether it can be claimed as far as its checks say.
    #[must_use]
    pub fn is_usable(self) -> bool {
        self.0.health != Health::Down
    }
}

impl Pool {
    pub(super) fn new(name: Arc<str>, counts: PoolCounts) -> Self {
        let (members, queue, lines) = (OrdMap::new(), OrdMap::new(), BTreeMap::new());
        Self { name, counts, members, queue, lines, size: 0, passing: 0 }
    }

    /// The name of the service, as its first instance had it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many instances are in the pool. One that has left and is still busy is none.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many claims wait, those whose client has gone and that keep their place for a while included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many of them a request waits for.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.lines.values().map(|line| line.attached.len()).sum()
    }

    /// What a claim that requires this can hope for.
    #[must_use]
    pub fn prospects(&self, require: &TextMap) -> Prospects {
        if require.is_empty() && self.passing == self.size {
            return Prospects { suitable: self.size, usable: self.size };
        }
        let best = if self.passing > 0 { Health::Passing } else { Health::Warning };
        let suitable = self.members.values().filter(|one| one.slots > 0 && one.satisfies(require));
        suitable.fold(Prospects::default(), |sum, one| Prospects {
            suitable: sum.suitable + 1,
            usable: sum.usable + usize::from(one.health == best),
        })
    }

    /// How many grants it has made.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.counts.granted
    }

    /// How many claims expired.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.counts.expired
    }

    /// Its instances, by node and id.
    pub fn instances(&self) -> impl Iterator<Item = PoolInstance<'_>> {
        self.members.values().map(|member| PoolInstance(member))
    }

    /// How many rows show it.
    pub(in crate::state) fn len(&self) -> usize {
        self.members.len() + self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&Place, &Arc<Member>)> {
        self.members.iter()
    }

    pub(super) fn member(&self, place: &Place) -> Option<&Arc<Member>> {
        self.members.get(place)
    }

    /// The numbers of the claims that wait, first come first.
    pub(super) fn queue(&self) -> impl Iterator<Item = u64> {
        self.queue.values().copied()
    }

    /// An upper bound of the claims before a position.
    pub(super) fn ahead_of(&self, position: u64) -> u64 {
        let first = self.queue.get_min().map_or(position, |(first, _)| *first);
        position.saturating_sub(first).min((self.queue.len() as u64).saturating_sub(1))
    }

    // ---- instances ------------------------------------------------------------------------------

    pub(super) fn put(&mut self, place: &Place, member: Member) {
        self.unlist(place);
        self.list(place, &member);
        self.members.insert(place.clone(), Arc::new(member));
    }

    pub(super) fn remove(&mut self, place: &Place) {
        self.unlist(place);
        self.members.remove(place);
    }

    pub(super) fn edit(&mut self, place: &Place, edit: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get(place) else { return };
        let mut member = Member::clone(member);
        edit(&mut member);
        self.put(place, member);
    }

    fn list(&mut self, place: &Place, member: &Member) {
        if member.slots > 0 {
            self.size += 1;
            self.passing += usize::from(member.health == Health::Passing);
        }
        for (require, line) in &mut self.lines {
            if member.satisfies(require) {
                Arc::make_mut(line).list(place, member);
            }
        }
    }

    fn unlist(&mut self, place: &Place) {
        let Some(member) = self.members.get(place).cloned() else { return };
        if member.slots > 0 {
            self.size -= 1;
            self.passing -= usize::from(member.health == Health::Passing);
        }
        for (require, line) in &mut self.lines {
            if member.satisfies(require) {
                Arc::make_mut(line).unlist(&member);
            }
        }
    }

    // ---- lines ----------------------------------------------------------------------------------

    /// Makes a line for what a new claim requires, unless there is one. `false`: nobody may wait in it, because there
    /// are too many. The line of those that require nothing is always one more.
    pub(super) fn open_line(&mut self, require: &TextMap) -> bool {
        if self.lines.len() >= REQUIRES_MAX && !self.lines.contains_key(require) {
            let unused = self.lines.iter().filter(|(_, line)| line.waiting == 0);
            let unused = unused.min_by_key(|(_, line)| line.used);
            if let Some(unused) = unused.map(|(require, _)| require.clone()) {
                self.lines.remove(&unused);
            }
        }
        self.ensure_line(require);
        let is_waited_in = self.lines.get(require).is_some_and(|line| line.waiting > 0);
        let named = self.lines.keys().filter(|require| !require.is_empty()).count();
        is_waited_in || require.is_empty() || named <= REQUIRES_MAX
    }

    /// Drops a line in which nobody waits.
    pub(super) fn close_line(&mut self, require: &TextMap) {
        if self.lines.get(require).is_some_and(|line| line.waiting == 0) {
            self.lines.remove(require);
        }
    }

    fn ensure_line(&mut self, require: &TextMap) {
        let used = self.counts.last_position + 1;
        if let Some(line) = self.lines.get_mut(require) {
            Arc::make_mut(line).used = used;
            return;
        }
        let mut line = Line { used, ..Line::default() };
        for (place, member) in self.members.iter().filter(|(_, row)| row.satisfies(require)) {
            line.list(place, member);
        }
        self.lines.insert(Arc::new(require.clone()), Arc::new(line));
    }

    pub(super) fn enqueue(&mut self, row: &Claim) {
        self.queue.insert(row.position, row.number);
        self.ensure_line(&row.require);
        let Some(line) = self.lines.get_mut(&row.require) else { return };
        let line = Arc::make_mut(line);
        line.waiting += 1;
        if is_attached(row) {
            line.attached.insert(row.position, row.number);
        }
    }

    pub(super) fn dequeue(&mut self, row: &Claim) {
        self.queue.remove(&row.position);
        let Some(line) = self.lines.get_mut(&row.require) else { return };
        let line = Arc::make_mut(line);
        line.waiting -= 1;
        line.attached.remove(&row.position);
    }

    /// The free instances that a line may have, in the order of choice.
    fn eligible<'a>(&self, line: &'a Line) -> &'a OrdMap<Rank, Place> {
        if self.passing > 0 { &line.passing } else { &line.warning }
    }

    /// The number of the claim whose turn it is, if there is an instance for it.
    pub(super) fn next(&self) -> Option<u64> {
        if self.queue.is_empty() {
            return None;
        }
        let lines = self.lines.values().filter(|line| !self.eligible(line).is_empty());
        let first = lines.filter_map(|line| line.attached.get_min()).min();
        first.map(|(_, number)| *number)
    }

    /// The instance that a claim gets; `prefer` if that is free.
    pub(super) fn choose(&self, require: &TextMap, prefer: Option<&Place>) -> Option<Place> {
        let free = self.eligible(self.lines.get(require)?);
        let preferred = prefer.filter(|place| {
            let listing = self.members.get(*place).and_then(|member| member.listing());
            listing.is_some_and(|(_, rank)| free.get(&rank) == Some(place))
        });
        preferred.or_else(|| free.get_min().map(|(_, place)| place)).cloned()
    }

    // ---- the cross-check ------------------------------------------------------------------------

    /// Checks that what is derived is right. Lines that nobody uses may be missing.
    ///
    /// # Errors
    /// A sentence that names the first thing that does not fit.
    pub(super) fn check(&self, waiters: &[&Claim]) -> Result<(), String> {
        let mut fresh = Self::new(self.name.clone(), self.counts);
        for (place, member) in &self.members {
            fresh.put(place, Member::clone(member));
        }
        for row in waiters {
            fresh.enqueue(row);
        }
        if fresh.queue != self.queue || fresh.size != self.size || fresh.passing != self.passing {
            return Err(format!("the pool of {} counts wrongly", self.name));
        }
        for (require, line) in &self.lines {
            fresh.ensure_line(require);
            let used = line.used;
            let right = fresh.lines.get(require).map(|right| Line { used, ..Line::clone(right) });
            if right.as_ref() != Some(&**line) {
                return Err(format!("a line of {} has others than it should", self.name));
            }
        }
        let waits = fresh
            .lines
            .iter()
            .any(|(require, line)| line.waiting > 0 && !self.lines.contains_key(require));
        if waits {
            return Err(format!("a line of {} is missing", self.name));
        }
        match self.next() {
            Some(number) => Err(format!("claim {number} waits beside a free instance")),
            None => Ok(()),
        }
    }
}

fn is_attached(row: &Claim) -> bool {
    matches!(row.phase, ClaimPhase::Queued { detached: None })
}
