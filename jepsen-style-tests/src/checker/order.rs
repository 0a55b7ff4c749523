//! Positions that only move forward: an index, the length of a list, a place in a chain of snapshots. A read that
//! begins after another one has ended must not see an earlier position.

/// A position that an operation shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// When the operation was called.
    pub(super) call: u64,
    /// When it returned; none: nobody can rely on having seen it.
    pub(super) ret: Option<u64>,
    /// The position.
    pub(super) position: u64,
    /// Whether the operation itself made this position, so that nobody was there before it was called.
    pub(super) is_new: bool,
}

/// Every sight that runs backwards, as (the furthest one that returned before it was called, itself), by
/// their places in `sights`. O(n log n).
pub(super) fn regressions(sights: &[Sight]) -> Vec<(usize, usize)> {
    let mut by_call: Vec<usize> = (0..sights.len()).collect();
    by_call.sort_unstable_by_key(|place| sights[*place].call);
    let returned = |place: &usize| sights[*place].ret;
    let mut by_return: Vec<usize> =
        by_call.iter().copied().filter(|p| returned(p).is_some()).collect();
    by_return.sort_unstable_by_key(returned);
    let mut returns = by_return.into_iter().peekable();
    let mut furthest: Option<usize> = None;
    let mut backwards = Vec::new();
    for later in by_call {
        let sight = sights[later];
        while let Some(earlier) = returns.next_if(|place| returned(place) < Some(sight.call)) {
            let is_further = |than: usize| sights[earlier].position > sights[than].position;
            if furthest.is_none_or(is_further) {
                furthest = Some(earlier);
            }
        }
        let Some(earlier) = furthest else { continue };
        let seen = sights[earlier].position;
        if sight.position < seen || (sight.is_new && sight.position == seen) {
            backwards.push((earlier, later));
        }
    }
    backwards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(position: u64, call: u64, ret: u64) -> Sight {
        Sight { call, ret: Some(ret), position, is_new: false }
    }

    fn made(position: u64, call: u64, ret: impl Into<Option<u64>>) -> Sight {
        Sight { call, ret: ret.into(), position, is_new: true }
    }

    #[test]
    fn what_moves_forward_is_accepted() {
        assert_eq!(regressions(&[]), []);
        assert_eq!(regressions(&[seen(1, 1, 2), seen(1, 3, 4), seen(2, 5, 6)]), []);
        assert_eq!(regressions(&[seen(2, 1, 9), seen(1, 2, 3)]), [], "they overlap");
        assert_eq!(regressions(&[made(1, 1, 2), seen(1, 3, 4)]), []);
        assert_eq!(regressions(&[made(1, 1, None), made(1, 5, 6)]), [], "nobody saw the first");
        assert_eq!(regressions(&[seen(1, 3, 4), made(1, 2, 9)]), [], "it was being made");
    }

    #[test]
    fn what_runs_backwards_is_named() {
        assert_eq!(regressions(&[seen(2, 1, 2), seen(1, 3, 4)]), [(0, 1)]);
        assert_eq!(regressions(&[seen(1, 3, 4), seen(2, 1, 2)]), [(1, 0)]);
        assert_eq!(regressions(&[made(2, 1, 2), seen(1, 3, 4)]), [(0, 1)]);
        assert_eq!(
            regressions(&[seen(2, 1, 2), made(2, 3, 4)]),
            [(0, 1)],
            "seen before it was made"
        );
        assert_eq!(regressions(&[seen(3, 1, 2), seen(2, 3, 4), seen(2, 5, 6)]), [(0, 1), (0, 2)]);
        assert_eq!(regressions(&[seen(3, 1, 2), made(2, 3, None)]), [(0, 1)]);
    }
}
