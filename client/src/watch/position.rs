//! Which index to ask for next.

/// What an answer's index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something may have changed: the value counts.
    Fresh,
    /// Nothing has changed: the wait was over.
    Same,
    /// The index has fallen. The value does not count, and the next query begins without an index.
    FellBack,
}

/// The place of a watch: the index of the last value, valid at every server; 0: none yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position(u64);

impl Position {
    pub(super) const fn index(self) -> u64 {
        self.0
    }

    /// Takes note of an answer's index. An index of 0 counts as 1, so that the next query blocks.
    pub(super) fn advance(&mut self, answered: u64) -> Step {
        let answered = answered.max(1);
        let step = match answered.cmp(&self.0) {
            std::cmp::Ordering::Greater => Step::Fresh,
            std::cmp::Ordering::Equal => Step::Same,
            std::cmp::Ordering::Less => Step::FellBack,
        };
        self.0 = if step == Step::FellBack { 0 } else { answered };
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_higher_index_is_news() {
        let mut position = Position::default();
        assert_eq!((position.advance(7), position.index()), (Step::Fresh, 7));
        assert_eq!((position.advance(7), position.index()), (Step::Same, 7));
        assert_eq!((position.advance(9), position.index()), (Step::Fresh, 9));
    }

    #[test]
    fn a_falling_index_begins_again() {
        let mut position = Position(9);
        assert_eq!((position.advance(4), position.index()), (Step::FellBack, 0));
        assert_eq!((position.advance(4), position.index()), (Step::Fresh, 4));
    }

    #[test]
    fn an_index_of_0_never_makes_a_busy_loop() {
        let mut position = Position::default();
        assert_eq!((position.advance(0), position.index()), (Step::Fresh, 1));
        assert_eq!((position.advance(0), position.index()), (Step::Same, 1));
    }

    proptest! {
        /// Whatever servers answer, a value counts at most once for each time that the index rises.
        #[test]
        fn values_count_only_while_the_index_rises(answers in proptest::collection::vec(0..9_u64, 0..50)) {
            let mut position = Position::default();
            for answered in answers {
                let before = position.index();
                let step = position.advance(answered);
                prop_assert_eq!(step == Step::Fresh, answered.max(1) > before);
                prop_assert!(step == Step::FellBack || position.index() >= before);
            }
        }
    }
}
