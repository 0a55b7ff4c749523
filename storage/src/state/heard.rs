//! When things were last heard of: TTL checks and sessions, by number.
//!
//! Kept apart from the rows, so that a heartbeat copies no row, and in chunks of neighbouring numbers. Readers
//! share the chunks of the version that they hold. So the first heartbeat after a version was published copies
//! its chunk, and those of the same chunk that follow copy nothing: ten thousand neighbours copy some hundred
//! and sixty chunks.

use std::sync::Arc;

use imbl::OrdMap;

use crate::{ClusterTime, Millis};

/// Numbers in a chunk: one bit of a word for each.
const PLACES: usize = 64;
const CHUNK: u64 = PLACES as u64;

/// When each number was last heard of, and how far it had counted, as of one version of the state. A clone costs
/// next to nothing, and holds nothing else of that version.
#[derive(Debug, Clone, Default)]
pub struct Heard(OrdMap<u64, Arc<Chunk>>);

#[derive(Debug, Clone)]
struct Chunk {
    /// Which numbers are there.
    present: u64,
    times: [ClusterTime; PLACES],
    /// Only where one of them counts.
    counters: Option<Box<[Option<u64>; PLACES]>>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { present: 0, times: [ClusterTime::default(); PLACES], counters: None }
    }
}

impl Chunk {
    fn has(&self, place: usize) -> bool {
        self.present & (1 << place) != 0
    }
}

fn place(number: u64) -> (u64, usize) {
    (number / CHUNK, usize::try_from(number % CHUNK).unwrap_or_default())
}

impl Heard {
    /// When a number was last heard of.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<ClusterTime> {
        let (chunk, place) = place(number);
        let chunk = self.0.get(&chunk)?;
        chunk.has(place).then(|| chunk.times[place])
    }

    /// How far a number has counted, if it counts.
    #[must_use]
    pub fn counter(&self, number: u64) -> Option<u64> {
        let (chunk, place) = place(number);
        self.0.get(&chunk)?.counters.as_ref()?[place]
    }

    /// Whether nothing was ever heard of that is still there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a number is there.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.get(number).is_some()
    }

    /// A number is heard of; how far it has counted stays.
    pub(super) fn insert(&mut self, number: u64, time: ClusterTime) {
        let (chunk, place) = place(number);
        let chunk = Arc::make_mut(self.0.entry(chunk).or_default());
        chunk.present |= 1 << place;
        chunk.times[place] = time;
    }

    /// A number is heard of, and has counted so far.
    pub(super) fn insert_counting(&mut self, number: u64, time: ClusterTime, counter: Option<u64>) {
        let (chunk, place) = place(number);
        let chunk = Arc::make_mut(self.0.entry(chunk).or_default());
        chunk.present |= 1 << place;
        chunk.times[place] = time;
        if counter.is_some() || chunk.counters.is_some() {
            let none = || Box::new([None; PLACES]);
            chunk.counters.get_or_insert_with(none)[place] = counter;
        }
    }

    /// Forgets a number.
    pub(super) fn remove(&mut self, number: u64) {
        let (chunk, place) = place(number);
        let Some(found) = self.0.get(&chunk) else { return };
        if !found.has(place) {
            return;
        }
        if found.present == 1 << place {
            self.0.remove(&chunk);
            return;
        }
        let Some(found) = self.0.get_mut(&chunk) else { return };
        let found = Arc::make_mut(found);
        found.present &= !(1 << place);
        found.times[place] = ClusterTime::default();
        if let Some(counters) = &mut found.counters {
            counters[place] = None;
        }
    }

    /// Moves all times into the future.
    pub(super) fn postpone(&mut self, by: Millis) {
        let postponed = self.0.iter().map(|(number, chunk)| {
            let mut chunk = Chunk::clone(chunk);
            for (place, time) in chunk.times.iter_mut().enumerate() {
                if chunk.present & (1 << place) != 0 {
                    *time = *time + by;
                }
            }
            (*number, Arc::new(chunk))
        });
        self.0 = postponed.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_until_it_is_removed_and_its_neighbours_stay() {
        let mut heard = Heard::default();
        for number in [0, 63, 64, 200] {
            heard.insert(number, ClusterTime(number + 1));
        }
        assert_eq!(heard.get(63), Some(ClusterTime(64)));
        assert_eq!((heard.get(1), heard.get(128), heard.counter(63)), (None, None, None));
        heard.insert_counting(63, ClusterTime(70), Some(5));
        heard.insert(63, ClusterTime(71));
        assert_eq!((heard.get(63), heard.counter(63)), (Some(ClusterTime(71)), Some(5)));
        heard.remove(63);
        heard.remove(1);
        assert_eq!((heard.get(63), heard.counter(63)), (None, None));
        assert!(heard.contains(0) && heard.contains(64));
        heard.remove(200);
        assert_eq!(heard.0.len(), 2, "an empty chunk goes");
    }

    #[test]
    fn neighbours_copy_their_chunk_once() {
        let mut heard = Heard::default();
        (0..CHUNK).for_each(|number| heard.insert(number, ClusterTime(1)));
        let published = heard.clone();
        heard.insert(0, ClusterTime(2));
        let copied = Arc::as_ptr(&heard.0[&0]);
        assert_ne!(copied, Arc::as_ptr(&published.0[&0]));
        (1..CHUNK).for_each(|number| heard.insert_counting(number, ClusterTime(2), None));
        assert_eq!(copied, Arc::as_ptr(&heard.0[&0]));
        assert_eq!(published.get(3), Some(ClusterTime(1)));
    }
}
