//! How long answers took, over time: the median, the 95th percentile and the longest of each bucket. What
//! the server is meant to hold (a blocking query) is left out: its latency says nothing.
//!
//! A request counts where it was sent, so a stall shows where it began. Reads and writes are drawn apart,
//! on the same scale.

use super::axis::{Axis, Buckets, MILLI, Mark, SECOND};
use super::curve::{Height, Values, boxes, hovers, points, steps};
use crate::journal::{Ending, RequestLine};
use crate::record::Record;

/// Height of a panel, in pixels.
pub(super) const HEIGHT: u32 = 150;
/// Shortest bucket, in milliseconds.
const BUCKET_MS_MIN: u64 = 100;
const MICRO: u64 = 1_000;

/// One panel of the chart.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) summary: String,
    pub(super) heights: Vec<Height>,
    pub(super) spread: String,
    pub(super) median: String,
    pub(super) longest: String,
    pub(super) lost: String,
    pub(super) hovers: Vec<Mark>,
}

/// The chart.
#[derive(Debug)]
pub(super) struct Latency {
    pub(super) bucket: String,
    pub(super) panels: Vec<Panel>,
}

impl Latency {
    pub(super) fn of(record: &Record, axis: Axis) -> Self {
        let buckets = axis.buckets(BUCKET_MS_MIN);
        let timed: Vec<&RequestLine> =
            record.requests.iter().filter(|request| !request.held).collect();
        let scale = Decades::of(&timed);
        let panel = |name, class, write| {
            let requests = timed.iter().copied().filter(|request| request.write == write);
            Panel::of(name, class, &requests.collect::<Vec<_>>(), buckets, &scale)
        };
        let panels = vec![panel("reads", "reads", false), panel("writes", "writes", true)];
        Self { bucket: buckets.length_in_words(), panels }
    }
}

fn took(request: &RequestLine) -> u64 {
    request.ended.saturating_sub(request.sent)
}

/// A logarithmic scale of whole decades of nanoseconds.
#[derive(Debug)]
struct Decades {
    lowest: i32,
    highest: i32,
}

impl Decades {
    /// From the decade of the shortest to that of the longest.
    fn of(requests: &[&RequestLine]) -> Self {
        let decades = |latency: Option<u64>| latency.map(|nanos| (nanos.max(1) as f64).log10());
        let shortest = decades(requests.iter().map(|request| took(request)).min());
        let longest = decades(requests.iter().map(|request| took(request)).max());
        // A decade of nanoseconds is a small number.
        #[allow(clippy::cast_possible_truncation, reason = "logarithms of u64 are below 20")]
        let whole = |decade: f64| decade as i32;
        let lowest = whole(shortest.unwrap_or(6.0).floor());
        let highest = whole(longest.unwrap_or(9.0).ceil());
        Self { lowest, highest: highest.max(lowest + 1) }
    }

    fn y(&self, nanos: u64) -> f64 {
        let share = ((nanos.max(1) as f64).log10() - f64::from(self.lowest))
            / f64::from(self.highest - self.lowest);
        f64::from(HEIGHT) * (1.0 - share)
    }

    fn heights(&self) -> Vec<Height> {
        let height = |decade: i32| {
            let nanos = 10_u64.pow(decade.unsigned_abs());
            Height { y: self.y(nanos), text: span(nanos) }
        };
        (self.lowest..=self.highest).map(height).collect()
    }
}

/// A span of time with the unit that suits it.
fn span(nanos: u64) -> String {
    let in_units = |unit: u64, name| {
        let value = nanos as f64 / unit as f64;
        if value < 10.0 && !nanos.is_multiple_of(unit) {
            format!("{value:.1} {name}")
        } else {
            format!("{value:.0} {name}")
        }
    };
    match nanos {
        SECOND.. => in_units(SECOND, "s"),
        MILLI.. => in_units(MILLI, "ms"),
        MICRO.. => in_units(MICRO, "µs"),
        _ => in_units(1, "ns"),
    }
}

/// A value of sorted ones that this share of them does not exceed.
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Panel {
    fn of(
        name: &'static str,
        class: &'static str,
        requests: &[&RequestLine],
        buckets: Buckets,
        scale: &Decades,
    ) -> Self {
        let answered = in_buckets(requests, buckets, true);
        let lost = in_buckets(requests, buckets, false);
        let nanos = |pick: &dyn Fn(&[u64]) -> Option<u64>, sorted: &[Vec<u64>]| -> Values {
            sorted.iter().map(|of_one| pick(of_one).map(|nanos| scale.y(nanos))).collect()
        };
        let median = nanos(&|sorted| quantile(sorted, 50), &answered);
        let most = nanos(&|sorted| quantile(sorted, 95), &answered);
        let last = |sorted: &[u64]| sorted.last().copied();
        Self {
            name,
            class,
            summary: summary(name, &answered, &lost),
            heights: scale.heights(),
            spread: boxes(buckets, &most, &median),
            median: steps(buckets, &median),
            longest: points(buckets, &nanos(&last, &answered)),
            lost: points(buckets, &nanos(&last, &lost)),
            hovers: hovers(buckets, |bucket| title(&answered[bucket], &lost[bucket])),
        }
    }
}

/// The sorted latencies of each bucket, of what was answered or of what was not.
fn in_buckets(requests: &[&RequestLine], buckets: Buckets, is_answered: bool) -> Vec<Vec<u64>> {
    let mut sorted = vec![Vec::new(); buckets.count()];
    for request in
        requests.iter().filter(|request| (request.end == Ending::Answered) == is_answered)
    {
        if let Some(bucket) = buckets.of(request.sent) {
            sorted[bucket].push(took(request));
        }
    }
    sorted.iter_mut().for_each(|of_one| of_one.sort_unstable());
    sorted
}

fn title(answered: &[u64], lost: &[u64]) -> Option<String> {
    let mut parts = Vec::new();
    let quantiles = (quantile(answered, 50), quantile(answered, 95), answered.last());
    if let (Some(median), Some(most), Some(longest)) = quantiles {
        let [median, most, longest] = [median, most, *longest].map(span);
        let count = answered.len();
        parts.push(format!("{count} answered, median {median}, p95 {most}, longest {longest}"));
    }
    if let Some(longest) = lost.last() {
        parts.push(format!("{} not answered, longest wait {}", lost.len(), span(*longest)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The whole panel in one sentence, for those who do not see it.
fn summary(name: &str, answered: &[Vec<u64>], lost: &[Vec<u64>]) -> String {
    let all = |of_buckets: &[Vec<u64>]| {
        let mut all: Vec<u64> = of_buckets.iter().flatten().copied().collect();
        all.sort_unstable();
        all
    };
    let said = title(&all(answered), &all(lost));
    said.map_or(format!("no {name}"), |said| format!("{name}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&sorted, 50), Some(50));
        assert_eq!(quantile(&sorted, 95), Some(95));
        assert_eq!(quantile(&[7], 95), Some(7));
        assert_eq!(quantile(&[], 50), None);
    }

    #[test]
    fn spans_have_the_unit_that_suits_them() {
        let said: Vec<String> =
            [100, 1_500, 100_000, 2 * MILLI, 12_345_678, 1_500 * MILLI, 10 * SECOND]
                .map(span)
                .to_vec();
        assert_eq!(said, ["100 ns", "1.5 µs", "100 µs", "2 ms", "12 ms", "1.5 s", "10 s"]);
    }

    #[test]
    fn the_scale_holds_the_shortest_and_the_longest() {
        let request = |latency| RequestLine {
            client: 1,
            node: 1,
            what: "GET /".to_owned(),
            write: false,
            held: false,
            sent: 5,
            ended: 5 + latency,
            end: Ending::Answered,
            why: String::new(),
        };
        let (short, long) = (request(300_000), request(2 * SECOND));
        let scale = Decades::of(&[&short, &long]);
        let texts: Vec<String> = scale.heights().into_iter().map(|height| height.text).collect();
        assert_eq!(texts, ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert!(scale.y(300_000) < f64::from(HEIGHT) && scale.y(2 * SECOND) > 0.0);
    }
}
