//! What the settings say of the limits on clients.

use std::time::Duration;

use quorate_client::duration;

use crate::http::limits::{HttpLimits, OfOne};

/// In `--http-memory`.
const MIB: usize = 1 << 20;
/// Less than this would not hold the largest body.
const MEMORY_MIB_MIN: usize = 4;
/// A client of which more is asked would have to be on this machine.
const RATE_MAX: usize = 1 << 20;
/// The shortest and the longest, in milliseconds, and the two in words.
type Range = (u64, u64, &'static str);
/// Ten minutes are as long as any request may take.
const HEADER_TIMEOUTS: Range = (1_000, 600_000, "from 1s to 10m");
const FILTER_TIMEOUTS: Range = (10, 60_000, "from 10ms to 1m");

/// The settings as they were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) connections: Option<usize>,
    pub(super) connections_per_client: Option<usize>,
    pub(super) header_timeout: Option<String>,
    pub(super) min_rate: Option<usize>,
    pub(super) memory: Option<usize>,
    pub(super) streams: Option<u32>,
    pub(super) long_answers: Option<usize>,
    pub(super) filter_timeout: Option<String>,
}

impl Given {
    /// The limits, with the defaults where nothing was given.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub(super) fn check(self) -> Result<HttpLimits, String> {
        let default = HttpLimits::default();
        let connections = self.connections;
        let memory = self.memory.map(|mib| mib.saturating_mul(MIB));
        let limits = HttpLimits {
            connections,
            connections_of_one: match self.connections_per_client {
                None => default.connections_of_one,
                Some(0) => OfOne::All,
                Some(max) => OfOne::AtMost(max),
            },
            header_timeout: match self.header_timeout {
                None => default.header_timeout,
                Some(text) => time("--http-header-timeout", &text, HEADER_TIMEOUTS)?,
            },
            bytes_per_second_min: self.min_rate.unwrap_or(default.bytes_per_second_min),
            memory_bytes: memory.unwrap_or(default.memory_bytes),
            streams: self.streams.unwrap_or(default.streams),
            long_answers_at_once: self.long_answers.unwrap_or(default.long_answers_at_once),
            filter_timeout: match self.filter_timeout {
                None => default.filter_timeout,
                Some(text) => time("--http-filter-timeout", &text, FILTER_TIMEOUTS)?,
            },
        };
        let one_or_more = [
            ("--http-connections", connections.unwrap_or(1)),
            ("--http-streams", limits.streams as usize),
            ("--http-long-answers", limits.long_answers_at_once),
        ];
        if let Some((flag, _)) = one_or_more.iter().find(|(_, given)| *given == 0) {
            return Err(format!("{flag} must be 1 or more"));
        }
        if !(1..=RATE_MAX).contains(&limits.bytes_per_second_min) {
            return Err(format!("--http-min-rate must be from 1 to {RATE_MAX} bytes a second"));
        }
        if limits.memory_bytes < MEMORY_MIB_MIN * MIB {
            return Err(format!("--http-memory must be {MEMORY_MIB_MIN} MiB or more"));
        }
        Ok(limits)
    }
}

fn time(flag: &str, text: &str, (min, max, range): Range) -> Result<Duration, String> {
    let nanos = duration::parse(text).map_err(|why| format!("{flag} {text:?}: {why}"))?;
    let given = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    if given < Duration::from_millis(min) || given > Duration::from_millis(max) {
        return Err(format!("{flag} {text:?}: {range}"));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_taken_and_have_defaults() {
        assert_eq!(Given::default().check(), Ok(HttpLimits::default()));
        let given = Given {
            connections: Some(10),
            connections_per_client: Some(0),
            header_timeout: Some("5s".into()),
            min_rate: Some(100),
            memory: Some(16),
            streams: Some(7),
            long_answers: Some(1),
            filter_timeout: Some("50ms".into()),
        };
        let limits = given.check().unwrap();
        let expected = HttpLimits {
            connections: Some(10),
            connections_of_one: OfOne::All,
            header_timeout: Duration::from_secs(5),
            bytes_per_second_min: 100,
            memory_bytes: 16 * MIB,
            streams: 7,
            long_answers_at_once: 1,
            filter_timeout: Duration::from_millis(50),
        };
        assert_eq!(limits, expected);
        let of_one = Given { connections_per_client: Some(3), ..Given::default() };
        assert_eq!(of_one.check().unwrap().connections_of_one, OfOne::AtMost(3));
    }

    #[test]
    fn nonsense_is_refused_with_the_settings_name() {
        let refused = |given: Given, flag: &str| {
            let text = given.check().unwrap_err();
            assert!(text.starts_with(flag), "{text}");
        };
        refused(Given { connections: Some(0), ..Given::default() }, "--http-connections");
        refused(Given { streams: Some(0), ..Given::default() }, "--http-streams");
        refused(Given { long_answers: Some(0), ..Given::default() }, "--http-long-answers");
        refused(Given { min_rate: Some(0), ..Given::default() }, "--http-min-rate");
        refused(Given { memory: Some(1), ..Given::default() }, "--http-memory");
        for text in ["", "5", "1ms", "2h", "-1s"] {
            let header_timeout = Some(text.to_owned());
            refused(Given { header_timeout, ..Given::default() }, "--http-header-timeout");
        }
    }
}
