//! Bounds for memory that others fill: what is being received from clients and from other servers.
//!
//! Each body has a limit of its own, but there may be thousands. A [`Memory`] bounds the sum.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A share up to this many bytes takes nothing, so there is always room for it: the number of connections bounds how
/// many there are.
pub const SMALL_BYTES: usize = 16 << 10;

/// A number of bytes that shares are taken of.
#[derive(Debug)]
pub struct Memory {
    taken: AtomicUsize,
    max: usize,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    memory: &'a Memory,
    taken: usize,
}

/// Other shares have taken too much.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Memory {
    /// At most this many bytes at a time.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    /// A share of no bytes yet.
    #[must_use]
    pub const fn share(&self) -> Share<'_> {
        Share { memory: self, taken: 0 }
    }
}

impl Share<'_> {
    /// Grows to this many bytes in all. A share does not shrink.
    ///
    /// # Errors
    /// [`NoRoom`]: the share stays as it was.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = bytes.saturating_sub(SMALL_BYTES).saturating_sub(self.taken);
        let grown =
            |taken: usize| taken.checked_add(more).filter(|taken| *taken <= self.memory.max);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.memory.taken.fetch_update(set, fetch, grown).map_err(|_| NoRoom)?;
        self.taken += more;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn shares_take_room_as_they_grow_and_give_it_back() {
        let memory = Memory::new(MAX);
        let mut shares: Vec<_> = (0..4).map(|_| memory.share()).collect();
        for share in &mut shares {
            share.grow_to(MAX / 8).unwrap();
            share.grow_to(MAX / 4 + SMALL_BYTES).unwrap();
            share.grow_to(1).unwrap();
        }
        let mut late = memory.share();
        late.grow_to(SMALL_BYTES).unwrap();
        assert_eq!(late.grow_to(SMALL_BYTES + 1), Err(NoRoom));
        assert_eq!(late.grow_to(usize::MAX), Err(NoRoom));
        shares.pop();
        late.grow_to(MAX / 4 + SMALL_BYTES).unwrap();
        drop((shares, late));
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
    }
}
