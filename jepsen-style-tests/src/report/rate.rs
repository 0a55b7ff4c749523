//! Requests per second over time, where they ended: reads and writes that were answered as lines, those that
//! were not (refused, never sent, or of unknown outcome) as boxes on the ground.

use super::axis::{Axis, Buckets, Mark, SECOND};
use super::curve::{Height, Values, boxes, hovers, steps};
use crate::journal::{Ending, RequestLine};
use crate::record::Record;

/// Height of the chart, in pixels.
pub(super) const HEIGHT: u32 = 170;
/// Shortest bucket, in milliseconds: a rate of fewer requests jumps without meaning.
const BUCKET_MS_MIN: u64 = 500;
/// Distances between the numbers of the axis are these times a power of ten.
const STEPS: [u64; 3] = [1, 2, 5];
/// Numbers along the axis.
const HEIGHTS_MAX: u64 = 5;

/// The chart.
#[derive(Debug)]
pub(super) struct Rate {
    pub(super) bucket: String,
    pub(super) summary: String,
    pub(super) heights: Vec<Height>,
    pub(super) reads: String,
    pub(super) writes: String,
    pub(super) lost_reads: String,
    pub(super) lost_writes: String,
    pub(super) hovers: Vec<Mark>,
}

/// How many ended in one bucket.
#[derive(Debug, Default, Clone)]
struct Counts {
    reads: u64,
    writes: u64,
    lost_reads: u64,
    lost_writes: u64,
}

impl Counts {
    fn add(&mut self, request: &RequestLine) {
        let count = match (request.end == Ending::Answered, request.write) {
            (true, false) => &mut self.reads,
            (true, true) => &mut self.writes,
            (false, false) => &mut self.lost_reads,
            (false, true) => &mut self.lost_writes,
        };
        *count += 1;
    }

    fn title(&self) -> String {
        let Self { reads, writes, lost_reads, lost_writes } = self;
        format!(
            "{reads} reads and {writes} writes answered, {lost_reads} reads and {lost_writes} writes not"
        )
    }
}

impl Rate {
    pub(super) fn of(record: &Record, axis: Axis) -> Self {
        let buckets = axis.buckets(BUCKET_MS_MIN);
        let mut counts = vec![Counts::default(); buckets.count()];
        let mut all = Counts::default();
        for request in &record.requests {
            if let Some(bucket) = buckets.of(request.ended) {
                counts[bucket].add(request);
                all.add(request);
            }
        }
        let scale = Scale::of(&counts, buckets);
        let line = |pick: &dyn Fn(&Counts) -> u64| -> Values {
            let height =
                |(bucket, of_one)| Some(scale.y(per_second(buckets, bucket, pick(of_one))));
            counts.iter().enumerate().map(height).collect()
        };
        let ground = line(&|_| 0);
        let lost_writes = line(&|of_one| of_one.lost_writes);
        let lost = line(&|of_one| of_one.lost_writes + of_one.lost_reads);
        Self {
            bucket: buckets.length_in_words(),
            summary: all.title(),
            heights: scale.heights(),
            reads: steps(buckets, &line(&|of_one| of_one.reads)),
            writes: steps(buckets, &line(&|of_one| of_one.writes)),
            lost_reads: boxes(buckets, &lost, &lost_writes),
            lost_writes: boxes(buckets, &lost_writes, &ground),
            hovers: hovers(buckets, |bucket| Some(counts[bucket].title())),
        }
    }
}

/// The last bucket may be longer than the others.
fn per_second(buckets: Buckets, bucket: usize, count: u64) -> f64 {
    let (begin, end) = buckets.bounds(bucket);
    count as f64 * SECOND as f64 / (end - begin).max(1) as f64
}

/// A linear scale from nothing to a round number.
#[derive(Debug)]
struct Scale {
    step: u64,
    steps: u64,
}

impl Scale {
    fn of(counts: &[Counts], buckets: Buckets) -> Self {
        let highest = |(bucket, of_one): (usize, &Counts)| {
            let most = of_one.reads.max(of_one.writes).max(of_one.lost_reads + of_one.lost_writes);
            per_second(buckets, bucket, most)
        };
        Self::up_to(counts.iter().enumerate().map(highest).fold(1.0, f64::max))
    }

    fn up_to(highest: f64) -> Self {
        let mut power = 1;
        loop {
            for step in STEPS.map(|step| step * power) {
                if let Some(steps) =
                    (1..=HEIGHTS_MAX).find(|steps| (steps * step) as f64 >= highest)
                {
                    return Self { step, steps };
                }
            }
            power *= 10;
        }
    }

    fn y(&self, rate: f64) -> f64 {
        f64::from(HEIGHT) * (1.0 - rate / (self.step * self.steps) as f64)
    }

    fn heights(&self) -> Vec<Height> {
        let rates = (0..=self.steps).map(|number| number * self.step);
        rates.map(|rate| Height { y: self.y(rate as f64), text: format!("{rate}/s") }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_a_round_number_above_the_highest() {
        for (highest, last) in [(1.0, "1/s"), (37.0, "40/s"), (240.0, "250/s"), (5_100.0, "6000/s")]
        {
            let heights = Scale::up_to(highest).heights();
            assert!(heights.len() <= 6);
            assert_eq!(heights.last().unwrap().y, 0.0);
            assert_eq!(heights.last().unwrap().text, last);
        }
    }
}
