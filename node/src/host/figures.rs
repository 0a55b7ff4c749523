//! Figures for `/metrics`, in Prometheus' text format.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A figure as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, without the prefix `quorate`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: FigureKind,
    /// The figure.
    pub value: i64,
}

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// It goes up and down.
    Gauge,
    /// It counts since the start of the process.
    Counter,
}

/// The text of all figures in Prometheus' text format (`text/plain; version=0.0.4` or OpenMetrics).
#[must_use]
pub fn render(figures: Vec<Figure>) -> String {
    let mut registry = Registry::with_prefix("quorate");
    for Figure { name, help, kind, value } in figures {
        match kind {
            FigureKind::Gauge => {
                let gauge: Gauge = Gauge::default();
                gauge.set(value);
                registry.register(name, help, gauge);
            }
            FigureKind::Counter => {
                let counter: Counter = Counter::default();
                counter.inc_by(value.unsigned_abs());
                registry.register(name, help, counter);
            }
        }
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// A figure that goes up and down.
pub(crate) fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Figure { name, help, kind: FigureKind::Gauge, value }
}

/// A figure that only grows.
pub(crate) fn counter(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { kind: FigureKind::Counter, ..gauge(name, help, value) }
}
