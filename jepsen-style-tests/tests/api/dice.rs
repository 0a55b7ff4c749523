//! Repeatable randomness: everything random comes from one seed.

use jepsen_style_tests::rounds::setting;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The seed of a run: `QUORATE_SEED`, else a new one. It is printed, so that a failure can be replayed.
pub(crate) fn seed() -> u64 {
    let seed = setting("QUORATE_SEED", rand::rng().next_u64());
    println!("QUORATE_SEED={seed}");
    seed
}

/// How many operations a run has: `QUORATE_OPERATIONS`, else as many as are usual.
pub(crate) fn operations(usual: u64) -> u64 {
    setting("QUORATE_OPERATIONS", usual)
}

#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// 0 to `limit` - 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    /// One time in so many.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn one_of(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    pub(crate) fn word(&mut self, from: &[&str]) -> String {
        (*self.pick(from)).to_owned()
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }
}
