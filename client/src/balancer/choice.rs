//! Which of several instances comes next.

use std::collections::BTreeMap;

/// How a balancer chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any, each with the same probability.
    Random,
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any, with probabilities in proportion to the instances' weights (those of DNS; an instance that warns has its
    /// `Warning` weight). One with weight 0 is chosen only when all have it.
    Weighted,
    /// The one that was not chosen for longest.
    LeastRecentlyUsed,
}

/// What a choice depends on, for each candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    /// What names it across changes of the list.
    pub(super) name: &'a str,
    pub(super) weight: u64,
}

/// The memory of a policy.
#[derive(Debug)]
pub(super) struct Chooser {
    policy: Policy,
    /// How many choices there were.
    turn: u64,
    /// The last name that was chosen.
    last: String,
    /// When each name was chosen, as a turn.
    used: BTreeMap<String, u64>,
}

impl Chooser {
    pub(super) const fn new(policy: Policy) -> Self {
        Self { policy, turn: 0, last: String::new(), used: BTreeMap::new() }
    }

    /// The position of the next one; `None`: there is none. `random` is from 0 to 1.
    pub(super) fn choose(&mut self, candidates: &[Candidate<'_>], random: f64) -> Option<usize> {
        let chosen = match self.policy {
            Policy::Random => part(random, candidates.len() as u64),
            Policy::RoundRobin => self.following(candidates),
            Policy::Weighted => weighted(candidates, random),
            Policy::LeastRecentlyUsed => self.least_recently_used(candidates),
        };
        let name = candidates.get(chosen)?.name.to_owned();
        self.turn += 1;
        if self.policy == Policy::LeastRecentlyUsed {
            self.used.insert(name.clone(), self.turn);
        }
        self.last = name;
        Some(chosen)
    }

    /// Forgets what is not there any more.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.used.retain(|name, _| is_there(name));
    }

    /// The first name behind the last one, in the order of names: so a list that changes repeats and skips none.
    fn following(&self, candidates: &[Candidate<'_>]) -> usize {
        let by_name = |one: &(usize, &Candidate<'_>), other: &(usize, &Candidate<'_>)| {
            one.1.name.cmp(other.1.name)
        };
        let places = || candidates.iter().enumerate();
        let behind = places().filter(|(_, one)| *one.name > *self.last).min_by(by_name);
        behind.or_else(|| places().min_by(by_name)).map_or(0, |(place, _)| place)
    }

    fn least_recently_used(&self, candidates: &[Candidate<'_>]) -> usize {
        let age = |candidate: &Candidate<'_>| self.used.get(candidate.name).copied().unwrap_or(0);
        let places = candidates.iter().enumerate();
        places.min_by_key(|(_, candidate)| age(candidate)).map_or(0, |(place, _)| place)
    }
}

fn weighted(candidates: &[Candidate<'_>], random: f64) -> usize {
    let total: u64 = candidates.iter().map(|candidate| candidate.weight).sum();
    if total == 0 {
        return part(random, candidates.len() as u64);
    }
    let mut left = part(random, total) as u64;
    for (place, candidate) in candidates.iter().enumerate() {
        if left < candidate.weight {
            return place;
        }
        left -= candidate.weight;
    }
    0
}

/// A number below `count` for a random one from 0 to 1; 0 for a count of 0.
fn part(random: f64, count: u64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product is from 0 to a count of things in memory"
    )]
    let part = (random * count as f64) as usize;
    part.min(usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates<'a>(names: &[&'a str]) -> Vec<Candidate<'a>> {
        names.iter().map(|&name| Candidate { name, weight: 1 }).collect()
    }

    fn choose<'a>(chooser: &mut Chooser, from: &[&'a str]) -> &'a str {
        from[chooser.choose(&candidates(from), 0.5).unwrap()]
    }

    #[test]
    fn nobody_can_be_chosen_from_nothing() {
        for policy in
            [Policy::Random, Policy::RoundRobin, Policy::Weighted, Policy::LeastRecentlyUsed]
        {
            assert_eq!(Chooser::new(policy).choose(&[], 0.999), None);
            assert_eq!(Chooser::new(policy).choose(&candidates(&["a"]), 1.0), Some(0));
        }
    }

    #[test]
    fn everyone_has_a_turn_although_the_list_changes() {
        let mut chooser = Chooser::new(Policy::RoundRobin);
        let all = ["b", "a", "c"];
        assert_eq!([(); 4].map(|()| choose(&mut chooser, &all)), ["a", "b", "c", "a"]);
        assert_eq!(choose(&mut chooser, &["c", "a"]), "c");
        assert_eq!(choose(&mut chooser, &["c", "bb", "a"]), "a");
        assert_eq!(choose(&mut chooser, &["c", "bb", "a"]), "bb");
    }

    #[test]
    fn the_longest_unused_comes_first_and_new_ones_before_all() {
        let mut chooser = Chooser::new(Policy::LeastRecentlyUsed);
        assert_eq!([(); 2].map(|()| choose(&mut chooser, &["a", "b"])), ["a", "b"]);
        assert_eq!(choose(&mut chooser, &["b", "new", "a"]), "new");
        assert_eq!(choose(&mut chooser, &["b", "new", "a"]), "a");
        chooser.keep(|name| name != "b");
        assert_eq!(choose(&mut chooser, &["a", "b", "new"]), "b");
    }

    #[test]
    fn weights_are_shares() {
        let mut chooser = Chooser::new(Policy::Weighted);
        let three = [("a", 1), ("b", 0), ("c", 3)].map(|(name, weight)| Candidate { name, weight });
        let counts = (0..100).fold([0; 3], |mut counts, number| {
            counts[chooser.choose(&three, f64::from(number) / 100.0).unwrap()] += 1;
            counts
        });
        assert_eq!(counts, [25, 0, 75]);
        let none = [("a", 0), ("b", 0)].map(|(name, weight)| Candidate { name, weight });
        assert_eq!(chooser.choose(&none, 0.7), Some(1));
    }

    #[test]
    fn any_means_any() {
        let mut chooser = Chooser::new(Policy::Random);
        let seen = [0.0, 0.4, 0.7, 1.0]
            .map(|random| chooser.choose(&candidates(&["a", "b", "c"]), random).unwrap());
        assert_eq!(seen, [0, 1, 2, 2]);
    }
}
