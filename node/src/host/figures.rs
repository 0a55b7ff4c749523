//! Figures that are read when somebody asks for them.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

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

impl Figure {
    /// Writes it for Prometheus.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metric: &dyn EncodeMetric = match self.kind {
            FigureKind::Gauge => &ConstGauge::new(self.value),
            FigureKind::Counter => &ConstCounter::new(self.value.unsigned_abs()),
        };
        // The registry ends the help of what it holds itself with a full stop, too.
        let help = format!("{}.", self.help);
        metric.encode(encoder.encode_descriptor(self.name, &help, None, metric.metric_type())?)
    }
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
