//! Nodes at the same applied index have the same state hash, at all times.

use std::collections::BTreeMap;

use super::Verdict;

/// What `GET /v1/quorate/state-hash` said, by applied index.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    seen: BTreeMap<u64, BTreeMap<u64, String>>,
    violations: Vec<String>,
}

impl Ledger {
    /// Node `node` said that it had applied up to `applied` and that its state's hash was `hash`.
    pub fn record(&mut self, node: u64, applied: u64, hash: &str) {
        let at_index = self.seen.entry(applied).or_default();
        if let Some((other, different)) = at_index.iter().find(|(_, seen)| *seen != hash) {
            self.violations.push(format!(
                "at applied index {applied}, node {node} has hash {hash} and node {other} {different}"
            ));
        }
        at_index.insert(node, hash.to_owned());
    }

    /// How many applied indexes were seen at two nodes or more.
    pub fn compared(&self) -> usize {
        self.seen.values().filter(|nodes| nodes.len() > 1).count()
    }

    /// Vacuous if no two nodes were ever seen at the same applied index.
    pub fn verdict(&self) -> Verdict {
        if self.violations.is_empty() && self.compared() == 0 {
            return Verdict::Vacuous("no two nodes were seen at the same applied index".to_owned());
        }
        Verdict::from_violations(self.violations.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(observations: &[(u64, u64, &str)]) -> Verdict {
        let mut ledger = Ledger::default();
        for (node, applied, hash) in observations {
            ledger.record(*node, *applied, hash);
        }
        ledger.verdict()
    }

    #[test]
    fn good_observations_are_accepted() {
        assert!(judge(&[(1, 5, "a"), (2, 5, "a")]).is_valid());
        assert!(judge(&[(1, 5, "a"), (2, 5, "a"), (3, 5, "a")]).is_valid());
        assert!(judge(&[(1, 5, "a"), (2, 5, "a"), (1, 6, "b")]).is_valid());
        assert!(judge(&[(1, 5, "a"), (1, 5, "a"), (2, 5, "a")]).is_valid());
        assert!(judge(&[(1, 5, "a"), (2, 6, "b"), (2, 5, "a")]).is_valid());
    }

    #[test]
    fn bad_observations_are_rejected() {
        assert!(judge(&[(1, 5, "a"), (2, 5, "b")]).is_invalid());
        assert!(judge(&[(1, 5, "a"), (2, 5, "a"), (3, 5, "c")]).is_invalid());
        assert!(judge(&[(1, 5, "a"), (1, 5, "b")]).is_invalid());
        assert!(judge(&[(1, 5, "a"), (2, 6, "b"), (3, 6, "c")]).is_invalid());
        assert!(judge(&[(1, 5, "a"), (2, 5, "b"), (1, 6, "c"), (2, 6, "c")]).is_invalid());
    }

    #[test]
    fn nodes_that_never_met_prove_nothing() {
        assert!(matches!(judge(&[(1, 5, "a"), (2, 6, "b")]), Verdict::Vacuous(_)));
        assert!(matches!(judge(&[]), Verdict::Vacuous(_)));
    }
}
