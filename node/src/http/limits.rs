//! How much clients may take of a server: connections, memory, time.
//!
//! Each limit has a flag of `quorate server`, which a refusal names. They are the process's, as its descriptors and its
//! memory are: set once before it serves anybody, and the same for all its listeners.
//!
//! What one address takes is bounded too, so that a client that takes all it can get leaves something for others. A
//! proxy is one address: what comes through it is served as from one client.

use std::sync::OnceLock;
use std::time::Duration;

use crate::host::resources::BUDGET;

/// How long the head of a request may take, and how long a connection may be silent between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// A body of the largest size that JSON may have arrives in two minutes at this rate.
const BYTES_PER_SECOND_MIN: usize = 8 * 1024;
/// Bodies that are being received, in bytes; long answers that are being sent may take as much again.
const MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// Requests that one HTTP/2 connection may have open; long polls count.
const STREAMS: u32 = 1_000;
/// Long answers that are rendered or compressed at a time. Each takes a processor, and memory for all of its text.
const LONG_ANSWERS_AT_ONCE: usize = 2;
/// How long the regular expressions of one request's filter may be matched. A simple one takes a tenth of a second for a
/// hundred thousand rows.
const FILTER_TIMEOUT: Duration = Duration::from_secs(2);

/// One address may have this part of all connections,
const CONNECTIONS_OF_ONE: (usize, usize) = (3, 4);
/// and this part of the memory for bodies, and of that for answers.
const MEMORY_OF_ONE: usize = 2;

static LIMITS: OnceLock<HttpLimits> = OnceLock::new();

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections of clients in all; `None`: as many as descriptors allow.
    pub connections: Option<usize>,
    /// Connections of one address.
    pub connections_of_one: OfOne,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// Bytes a second with which bodies have to come, and answers have to be taken.
    pub bytes_per_second_min: usize,
    /// Bytes of bodies that are being received, and as many again of long answers that are being sent.
    pub memory_bytes: usize,
    /// Open requests of one HTTP/2 connection.
    pub streams: u32,
    /// Long answers that are rendered at a time.
    pub long_answers_at_once: usize,
    /// How long the regular expressions of a request's filter may be matched.
    pub filter_timeout: Duration,
}

/// How many connections one address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfOne {
    /// Three quarters of all.
    Part,
    /// So many.
    AtMost(usize),
    /// As many as there may be.
    All,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_of_one: OfOne::Part,
            header_timeout: HEADER_TIMEOUT,
            bytes_per_second_min: BYTES_PER_SECOND_MIN,
            memory_bytes: MEMORY_BYTES,
            streams: STREAMS,
            long_answers_at_once: LONG_ANSWERS_AT_ONCE,
            filter_timeout: FILTER_TIMEOUT,
        }
    }
}

impl HttpLimits {
    /// Connections of clients in all.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections.map_or(BUDGET.clients, |given| given.min(BUDGET.clients))
    }

    /// Connections of one address; `None`: as many as there may be.
    #[must_use]
    pub fn connections_of_one_max(&self) -> Option<usize> {
        match self.connections_of_one {
            OfOne::AtMost(max) => Some(max),
            OfOne::All => None,
            OfOne::Part => {
                let (part, of) = CONNECTIONS_OF_ONE;
                Some((self.connections_max() / of * part).max(1))
            }
        }
    }

    /// Bytes of the memory for bodies, or for answers, that one address may have.
    pub(super) const fn memory_of_one(&self) -> usize {
        memory_of_one(self.memory_bytes)
    }

    /// How long a client may take for so many bytes.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        let millis = (bytes as u64).saturating_mul(1_000) / self.bytes_per_second_min.max(1) as u64;
        Duration::from_millis(millis)
    }
}

/// Bytes of a memory of so many that one address may have.
pub(super) const fn memory_of_one(bytes: usize) -> usize {
    bytes.div_ceil(MEMORY_OF_ONE)
}

/// Sets the limits of this process, before it serves anybody; later calls change nothing.
pub fn set(limits: HttpLimits) {
    // A second server in one process, as in tests, has the limits of the first.
    let _ = LIMITS.set(limits);
}

/// The limits of this process.
pub fn get() -> &'static HttpLimits {
    LIMITS.get_or_init(HttpLimits::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_never_has_everything_unless_it_may() {
        let limits = HttpLimits { connections: Some(8), ..HttpLimits::default() };
        assert_eq!((limits.connections_max(), limits.connections_of_one_max()), (8, Some(6)));
        let of_one = |connections_of_one| {
            HttpLimits { connections_of_one, ..limits }.connections_of_one_max()
        };
        assert_eq!((of_one(OfOne::AtMost(3)), of_one(OfOne::All)), (Some(3), None));
        let tiny = HttpLimits { connections: Some(1), ..limits };
        assert_eq!(tiny.connections_of_one_max(), Some(1));
        assert_eq!(limits.memory_of_one(), limits.memory_bytes / 2);
        assert_eq!(limits.time_for(BYTES_PER_SECOND_MIN * 3 / 2), Duration::from_millis(1_500));
    }

    #[test]
    fn there_are_never_more_connections_than_descriptors() {
        let limits = HttpLimits { connections: Some(usize::MAX), ..HttpLimits::default() };
        assert_eq!(limits.connections_max(), BUDGET.clients);
    }
}
