//! When faults ended servers' processes.

use crate::journal::Fault;

/// Faults under which processes end, by the nemesis or by themselves.
const ENDING: [&str; 15] = [
    "kill",
    "kill-leader",
    "kill-majority",
    "kill-all",
    "power-cut",
    "power-cut-majority",
    "power-cut-all",
    "rolling-restart",
    "upgrade",
    "membership",
    "wiped-node",
    "disk-full",
    "disk-error",
    "corrupt",
    "memory-starvation",
];

/// From the beginning of each such fault until its servers had caught up: the only time in which a server
/// may know less than it did, and then only in stale reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Restarts {
    spans: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Span {
    nodes: Vec<u64>,
    from: u64,
    to: u64,
}

impl Restarts {
    /// Those of a run with these faults. A server that nobody saw recover is restarting for ever.
    pub(crate) fn of(faults: &[Fault]) -> Self {
        let span = |fault: &Fault| Span {
            nodes: fault.affected.clone(),
            from: fault.began,
            to: fault.recovered.unwrap_or(u64::MAX),
        };
        Self { spans: faults.iter().filter(|f| ends_processes(&f.nemesis)).map(span).collect() }
    }

    /// Whether no process ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether the process of `node` may have ended between two moments, or was not back yet.
    pub(crate) fn is_between(&self, node: u64, from: u64, to: u64) -> bool {
        let mut spans = self.spans.iter().filter(|span| span.nodes.contains(&node));
        spans.any(|span| span.from <= to && from <= span.to)
    }
}

/// Whether a fault, or a part of one that strikes together with others, ends processes.
fn ends_processes(nemesis: &str) -> bool {
    nemesis.split('+').any(|part| ENDING.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis;

    #[test]
    fn what_ends_processes_is_a_nemesis_and_none_that_may_is_missing() {
        for name in ENDING {
            nemesis::named(name).unwrap();
        }
        for nemesis in nemesis::all().iter().filter(|nemesis| nemesis.may_end_servers()) {
            assert!(ends_processes(nemesis.name()), "{}", nemesis.name());
        }
        assert!(ends_processes("delay+kill-leader"));
        for other in ["pause", "partition-leader", "clock-rate", "delay+disk-slow"] {
            assert!(!ends_processes(other), "{other}");
        }
    }

    #[test]
    fn a_restart_is_one_of_its_servers_until_they_have_recovered() {
        let kill = Fault {
            nemesis: "kill".to_owned(),
            affected: vec![2],
            began: 10,
            recovered: Some(20),
            ..Fault::default()
        };
        let restarts = Restarts::of(std::slice::from_ref(&kill));
        assert!(restarts.is_between(2, 1, 10) && restarts.is_between(2, 20, 30));
        assert!(!restarts.is_between(2, 1, 9) && !restarts.is_between(2, 21, 30));
        assert!(!restarts.is_between(3, 1, 30));
        let lasting = Restarts::of(&[Fault { recovered: None, ..kill }]);
        assert!(lasting.is_between(2, 1_000, 2_000));
    }
}
