//! Paths of SVG. Across, they are in the units of [`Axis::curve`](super::axis::Axis::curve), which stretch
//! with the window; down, in pixels, which do not.

use std::fmt::Write as _;

use super::axis::{Buckets, Mark};

/// One value for each bucket of time; none where nothing was measured.
pub(super) type Values = Vec<Option<f64>>;

/// A text at a height.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Height {
    /// In pixels from the top.
    pub(super) y: f64,
    pub(super) text: String,
}

/// A line of steps, interrupted where there is no value.
pub(super) fn steps(buckets: Buckets, heights: &Values) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (bucket, height) in heights.iter().enumerate() {
        let Some(y) = height else {
            is_drawing = false;
            continue;
        };
        let (begin, end) = x_of(buckets, bucket);
        // Writing to a string cannot fail.
        let _ = if is_drawing {
            write!(path, "V{y:.1}H{end}")
        } else {
            write!(path, "M{begin} {y:.1}H{end}")
        };
        is_drawing = true;
    }
    path
}

/// The boxes between two lines of steps.
pub(super) fn boxes(buckets: Buckets, upper: &Values, lower: &Values) -> String {
    let mut path = String::new();
    for (bucket, (top, bottom)) in upper.iter().zip(lower).enumerate() {
        if let (Some(top), Some(bottom)) = (top, bottom) {
            let (begin, end) = x_of(buckets, bucket);
            let _ = write!(path, "M{begin} {bottom:.1}V{top:.1}H{end}V{bottom:.1}Z");
        }
    }
    path
}

/// A point in the middle of each bucket that has a value.
pub(super) fn points(buckets: Buckets, heights: &Values) -> String {
    let mut path = String::new();
    for (bucket, height) in heights.iter().enumerate() {
        if let Some(y) = height {
            let (begin, end) = x_of(buckets, bucket);
            let _ = write!(path, "M{:.0} {y:.1}h0", f64::midpoint(begin, end));
        }
    }
    path
}

/// What the pointer shows, for each bucket about which there is something to say.
pub(super) fn hovers(buckets: Buckets, title: impl Fn(usize) -> Option<String>) -> Vec<Mark> {
    let hover = |bucket| {
        let (begin, end) = buckets.bounds(bucket);
        let title = format!("at {}: {}", buckets.axis.seconds(begin), title(bucket)?);
        Some(buckets.axis.mark(begin, end, "hover", title))
    };
    (0..buckets.count()).filter_map(hover).collect()
}

fn x_of(buckets: Buckets, bucket: usize) -> (f64, f64) {
    let (begin, end) = buckets.bounds(bucket);
    (buckets.axis.curve(begin), buckets.axis.curve(end))
}
