//! The medians, as a table in Markdown.

use std::fmt;
use std::time::Duration;

use crate::load::Measured;
use crate::watchers::Woken;

/// One round of one workload.
#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    per_second: Option<f64>,
    p50: Duration,
    p99: Duration,
    last: Duration,
    errors: usize,
    server_cores: Option<f64>,
    own_cores: Option<f64>,
}

impl Line {
    /// A round of closed loops.
    #[expect(clippy::needless_pass_by_value, reason = "samples of a round are not kept")]
    pub(crate) fn of_load(measured: Measured) -> Self {
        Self {
            per_second: Some(measured.per_second),
            errors: measured.errors,
            server_cores: Some(measured.server_cores),
            own_cores: Some(measured.own_cores),
            ..Self::of_latencies(&measured.latencies)
        }
    }

    /// A round of wake-ups.
    #[expect(clippy::needless_pass_by_value, reason = "samples of a round are not kept")]
    pub(crate) fn of_woken(woken: Woken) -> Self {
        Self { errors: woken.errors, ..Self::of_latencies(&woken.latencies) }
    }

    fn of_latencies(ascending: &[Duration]) -> Self {
        Self {
            p50: percentile(ascending, 50),
            p99: percentile(ascending, 99),
            last: ascending.last().copied().unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// The smallest sample that so many percent do not exceed.
fn percentile(ascending: &[Duration], percent: usize) -> Duration {
    let rank = (ascending.len() * percent).div_ceil(100).saturating_sub(1);
    ascending.get(rank).copied().unwrap_or_default()
}

/// All rounds of all workloads.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// In the order in which they were first measured.
    workloads: Vec<(String, Vec<Line>)>,
    memory: Vec<(String, Vec<u64>)>,
}

impl Figures {
    /// Adds a round.
    pub(crate) fn add(&mut self, workload: &str, line: Line) {
        eprintln!("    {}", Row(workload, std::slice::from_ref(&line)));
        match self.workloads.iter_mut().find(|(name, _)| name == workload) {
            Some((_, lines)) => lines.push(line),
            None => self.workloads.push((workload.to_owned(), vec![line])),
        }
    }

    /// Notes the resident memory of the nodes.
    pub(crate) fn note_memory(&mut self, when: &str, kib: &[u64]) {
        if !kib.is_empty() {
            self.memory.push((when.to_owned(), kib.to_vec()));
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workload | per second | p50 ms | p99 ms | last ms | errors | cores servers | cores generator | server us per request |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for (name, lines) in &self.workloads {
            writeln!(f, "{}", Row(name, lines))?;
        }
        for (when, kib) in &self.memory {
            let mib: Vec<_> =
                kib.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect();
            writeln!(f, "\nResident memory per node, {when}: {} MiB", mib.join(", "))?;
        }
        Ok(())
    }
}

/// The medians of some rounds; errors are added up.
struct Row<'a>(&'a str, &'a [Line]);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, lines) = self;
        let milliseconds = |of: fn(&Line) -> Duration| {
            let middle = median(lines.iter().map(|line| of(line).as_secs_f64()));
            middle.map_or_else(String::new, |seconds| format!("{:.2}", seconds * 1e3))
        };
        let number = |decimals: usize, of: fn(&Line) -> Option<f64>| {
            let middle = median(lines.iter().filter_map(of));
            middle.map_or_else(String::new, |value| format!("{value:.decimals$}"))
        };
        write!(
            f,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            number(0, |line| line.per_second),
            milliseconds(|line| line.p50),
            milliseconds(|line| line.p99),
            milliseconds(|line| line.last),
            lines.iter().map(|line| line.errors).sum::<usize>(),
            number(2, |line| line.server_cores),
            number(2, |line| line.own_cores),
            number(1, |line| Some(line.server_cores? / line.per_second? * 1e6)),
        )
    }
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), Duration::from_millis(100));
        assert_eq!(percentile(&samples, 99), Duration::from_millis(198));
        assert_eq!(percentile(&samples[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn the_median_is_not_moved_by_one_bad_round() {
        assert_eq!(median([3.0, 100.0, 2.0].into_iter()), Some(3.0));
        assert_eq!(median([2.0, 1.0].into_iter()), Some(1.0));
        assert_eq!(median(std::iter::empty()), None);
    }
}
