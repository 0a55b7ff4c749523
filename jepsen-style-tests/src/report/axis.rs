//! The time axis that all charts of a report share, and what is placed along it.
//!
//! Places are percentages of the plot's width, so one drawing serves a wide window and a telephone: only
//! texts, which do not shrink, must be chosen for each.

use std::fmt;

use crate::record::Record;

/// Nanoseconds in a millisecond.
pub(super) const MILLI: u64 = 1_000_000;
/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// How many units of width the curves' coordinate system has.
const CURVE_UNITS: f64 = 10_000.0;
/// Widths of the plot in pixels that texts are laid out for, and the class of the texts that are shown
/// there. The style sheet switches between them.
const LAYOUTS: [(f64, &str); 2] = [(760.0, "wide"), (290.0, "narrow")];
/// Width of a letter of the charts' text, in pixels, rounded up.
const LETTER_PX: f64 = 6.8;
/// Free pixels between two texts.
const GAP_PX: f64 = 8.0;
/// More ticks than this would be a ruler.
const TICKS_MAX: u64 = 13;
/// Distances between ticks, in seconds.
const TICK_STEPS_S: [u64; 11] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800];
/// Lengths of a bucket, in milliseconds.
const BUCKETS_MS: [u64; 9] = [100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000, 300_000];
/// More buckets than this cannot be told apart on a screen, and make the file large.
const BUCKETS_MAX: u64 = 400;

/// A length or place in percent of the plot's width.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}%", self.0)
    }
}

/// A text along the axis. It is shown in one of the two layouts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Label {
    pub(super) x: Percent,
    pub(super) text: String,
    pub(super) class: &'static str,
}

/// A coloured stretch of time, and what the pointer shows over it.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) x: Percent,
    pub(super) width: Percent,
    pub(super) class: &'static str,
    pub(super) title: String,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    from: u64,
    to: u64,
}

impl Axis {
    /// From when the clients began until they were told to stop and the last fault was over.
    pub(super) fn of(record: &Record) -> Self {
        let from = record.ending.began;
        let recovered = record.faults.iter().filter_map(|fault| fault.recovered.or(fault.healed));
        let to = recovered.chain([record.ending.stopped]).max().unwrap_or(from);
        Self { from, to: to.max(from + SECOND) }
    }

    pub(super) fn to(self) -> u64 {
        self.to
    }

    fn span(self) -> u64 {
        self.to - self.from
    }

    /// The place of a moment; moments outside lie on the edge.
    pub(super) fn place(self, moment: u64) -> Percent {
        let inside = moment.clamp(self.from, self.to) - self.from;
        Percent(inside as f64 * 100.0 / self.span() as f64)
    }

    /// The length between two moments, never too thin to be seen.
    pub(super) fn length(self, from: u64, to: u64) -> Percent {
        const VISIBLE_MIN: f64 = 0.1;
        Percent((self.place(to).0 - self.place(from).0).max(VISIBLE_MIN))
    }

    /// The stretch between two moments.
    pub(super) fn mark(self, from: u64, to: u64, class: &'static str, title: String) -> Mark {
        Mark { x: self.place(from), width: self.length(from, to), class, title }
    }

    /// The same place in the coordinates of the curves.
    pub(super) fn curve(self, moment: u64) -> f64 {
        (self.place(moment).0 * CURVE_UNITS / 100.0).round()
    }

    /// Seconds since the clients began, to milliseconds.
    pub(super) fn seconds(self, moment: u64) -> String {
        let inside = moment.saturating_sub(self.from);
        format!("{:.3} s", inside as f64 / SECOND as f64)
    }

    /// The same of what may never have come.
    pub(super) fn seconds_or(self, moment: Option<u64>, never: &str) -> String {
        moment.map_or(never.to_owned(), |moment| self.seconds(moment))
    }

    /// Round numbers of seconds.
    pub(super) fn ticks(self) -> Vec<Percent> {
        self.tick_seconds().map(|second| self.place(self.from + second * SECOND)).collect()
    }

    /// What is written at the ticks.
    pub(super) fn tick_labels(self) -> Vec<Label> {
        let texts = self.tick_seconds().map(|second| {
            (
                self.place(self.from + second * SECOND),
                vec![format!("{second} s"), second.to_string()],
            )
        });
        labels(&texts.collect::<Vec<_>>())
    }

    fn tick_seconds(self) -> impl Iterator<Item = u64> {
        let seconds = self.span() / SECOND;
        let fits = |step: &&u64| seconds / **step < TICKS_MAX;
        let step = TICK_STEPS_S.iter().find(fits).copied().unwrap_or(seconds / TICKS_MAX + 1);
        (0..=seconds / step).map(move |number| number * step)
    }

    /// Equal pieces of at least `least_ms`.
    pub(super) fn buckets(self, least_ms: u64) -> Buckets {
        let spans = BUCKETS_MS.iter().map(|length_ms| length_ms * MILLI);
        let length = spans
            .filter(|length| *length >= least_ms * MILLI)
            .find(|length| self.span() / length <= BUCKETS_MAX)
            .unwrap_or(self.span() / BUCKETS_MAX);
        Buckets { axis: self, length }
    }
}

/// The axis in equal pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    pub(super) axis: Axis,
    pub(super) length: u64,
}

impl Buckets {
    /// How many there are. What is left at the end belongs to the last.
    pub(super) fn count(self) -> usize {
        usize::try_from(self.axis.span() / self.length).unwrap_or_default().max(1)
    }

    /// The one that a moment lies in, if any does.
    pub(super) fn of(self, moment: u64) -> Option<usize> {
        let inside = moment.checked_sub(self.axis.from).filter(|_| moment <= self.axis.to)?;
        let bucket = usize::try_from(inside / self.length).ok()?;
        Some(bucket.min(self.count() - 1))
    }

    /// Where one begins and ends.
    pub(super) fn bounds(self, bucket: usize) -> (u64, u64) {
        let begin = self.axis.from + self.length * u64::try_from(bucket).unwrap_or_default();
        let is_last = bucket + 1 >= self.count();
        (begin, if is_last { self.axis.to } else { begin + self.length })
    }

    /// The length of one, in words.
    pub(super) fn length_in_words(self) -> String {
        let millis = self.length / MILLI;
        if millis < 1_000 { format!("{millis} ms") } else { format!("{} s", millis as f64 / 1e3) }
    }
}

/// Chooses for each layout the texts that find room beside each other. A text may be given in several
/// lengths, the longest first; where not even the last finds room, there is none.
pub(super) fn labels(texts: &[(Percent, Vec<String>)]) -> Vec<Label> {
    let mut chosen = Vec::new();
    for (plot_px, class) in LAYOUTS {
        let px = |place: Percent| place.0 * plot_px / 100.0;
        let width = |text: &str| text.chars().count() as f64 * LETTER_PX + GAP_PX;
        let mut free_from = f64::MIN;
        for (number, (x, lengths)) in texts.iter().enumerate() {
            let next = texts.get(number + 1).map_or(plot_px + GAP_PX, |(next, _)| px(*next));
            let fits_before = |end: f64| lengths.iter().find(|text| px(*x) + width(text) <= end);
            let shortest =
                || lengths.last().filter(|text| px(*x) + width(text) <= plot_px + 3.0 * GAP_PX);
            let Some(text) = fits_before(next).or_else(shortest).filter(|_| px(*x) >= free_from)
            else {
                continue;
            };
            free_from = px(*x) + width(text);
            chosen.push(Label { x: *x, text: text.clone(), class });
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis = Axis { from: SECOND, to: 31 * SECOND };

    fn px_of(label: &Label) -> f64 {
        let layout = LAYOUTS.iter().find(|(_, class)| *class == label.class).unwrap();
        label.x.0 * layout.0 / 100.0
    }

    #[test]
    fn moments_lie_where_they_should_and_never_outside() {
        assert_eq!(AXIS.place(0), Percent(0.0));
        assert_eq!(AXIS.place(16 * SECOND), Percent(50.0));
        assert_eq!(AXIS.place(99 * SECOND), Percent(100.0));
        assert_eq!(AXIS.seconds(2_500 * MILLI), "1.500 s");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for seconds in [1, 7, 30, 61, 600, 3_600, 86_400] {
            let axis = Axis { from: 5, to: 5 + seconds * SECOND };
            let ticks = axis.ticks();
            assert!(
                (2..=usize::try_from(TICKS_MAX).unwrap()).contains(&ticks.len()),
                "{seconds} s"
            );
        }
    }

    #[test]
    fn no_two_texts_of_a_layout_overlap() {
        let texts: Vec<_> = (0..40)
            .map(|n| {
                (Percent(f64::from(n) * 2.5), vec![format!("{n} kill-leader"), format!("{n}")])
            })
            .collect();
        let chosen = labels(&texts);
        for class in ["wide", "narrow"] {
            let of_class: Vec<_> = chosen.iter().filter(|label| label.class == class).collect();
            assert!(of_class.len() >= 10, "{class}: {}", of_class.len());
            for pair in of_class.windows(2) {
                let end = px_of(pair[0]) + pair[0].text.len() as f64 * LETTER_PX;
                assert!(end <= px_of(pair[1]), "{pair:?}");
            }
        }
        assert!(chosen.iter().any(|label| label.class == "narrow" && label.text == "0"));
    }

    #[test]
    fn a_text_is_shortened_only_where_it_must_be() {
        let one = [(Percent(10.0), vec!["1 kill-leader".to_owned(), "1".to_owned()])];
        assert!(labels(&one).iter().all(|label| label.text == "1 kill-leader"));
    }

    #[test]
    fn buckets_cover_the_axis_and_stay_few() {
        for seconds in [1, 30, 60, 600, 86_400] {
            let axis = Axis { from: 9, to: 9 + seconds * SECOND };
            let buckets = axis.buckets(100);
            assert!(buckets.count() <= 401, "{}", buckets.count());
            assert_eq!(buckets.of(axis.to), Some(buckets.count() - 1));
            assert_eq!(buckets.of(9), Some(0));
            assert_eq!(buckets.bounds(buckets.count() - 1).1, axis.to);
            assert_eq!(buckets.of(8), None);
        }
    }
}
