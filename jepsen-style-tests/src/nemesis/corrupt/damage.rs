//! How a bad disk, cable or tool damages a file.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// What disks read and write at once.
const PAGE: usize = 4096;
/// A burst damages up to so many bytes.
const FLIPS_MAX: usize = 8;

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// Some bytes are others.
    Flips,
    /// A page reads as zeroes.
    ZeroPage,
    /// The end is missing.
    Truncation,
}

/// All of them.
pub(super) const KINDS: [Damage; 3] = [Damage::Flips, Damage::ZeroPage, Damage::Truncation];

impl Damage {
    /// Damages the content of a file, within what is used of it, and says how; `None` if there is nothing
    /// to damage. What it says is true: the content is another afterwards.
    pub(super) fn strike(self, bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> Option<String> {
        // Files are laid out in advance: damage to what was never written shows nothing.
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        match self {
            Self::Flips => {
                let flips = rng.random_range(1..=FLIPS_MAX);
                let mut places: Vec<_> = (0..flips).map(|_| rng.random_range(0..used)).collect();
                places.sort_unstable();
                places.dedup();
                for place in &places {
                    bytes[*place] ^= rng.random_range(1..=u8::MAX);
                }
                Some(format!("changed the bytes at {places:?} of {used}"))
            }
            Self::ZeroPage => {
                // A page that holds something, from anywhere on: some page does, the last used one.
                let pages = used.div_ceil(PAGE);
                let first = rng.random_range(0..pages);
                let holds = |page: &usize| {
                    let end = used.min((page + 1) * PAGE);
                    bytes[page * PAGE..end].iter().any(|byte| *byte != 0)
                };
                let page = (first..pages).find(holds)?;
                let end = used.min((page + 1) * PAGE);
                bytes[page * PAGE..end].fill(0);
                Some(format!("zeroed page {page} of {pages}"))
            }
            Self::Truncation => {
                let length = rng.random_range(0..used);
                bytes.truncate(length);
                Some(format!("cut it to {length} of {used} bytes"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn struck(damage: Damage, seed: u64, bytes: &[u8]) -> (Vec<u8>, Option<String>) {
        let mut struck = bytes.to_vec();
        let said = damage.strike(&mut struck, &mut ChaCha8Rng::seed_from_u64(seed));
        (struck, said)
    }

    #[test]
    fn damage_always_leaves_another_content() {
        let mut bytes = vec![7; 3 * PAGE];
        bytes[PAGE..2 * PAGE].fill(0);
        bytes.resize(9 * PAGE, 0);
        for damage in KINDS {
            for seed in 0..200 {
                let (struck, said) = struck(damage, seed, &bytes);
                assert!(said.is_some());
                assert_ne!(struck, bytes, "{damage:?} {seed}");
            }
        }
    }

    #[test]
    fn the_same_seed_does_the_same_damage() {
        let bytes: Vec<_> = (0..PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for damage in KINDS {
            assert_eq!(struck(damage, 5, &bytes), struck(damage, 5, &bytes));
        }
    }

    #[test]
    fn what_was_never_written_is_not_damaged() {
        for damage in KINDS {
            assert_eq!(struck(damage, 1, &[0; 2 * PAGE]), (vec![0; 2 * PAGE], None));
            assert_eq!(struck(damage, 1, &[]), (Vec::new(), None));
        }
    }
}
