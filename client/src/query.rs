//! How to read: freshness, blocking, filters.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::Answer;

/// What stays as it is in a path: a key's slashes separate nothing, but read better.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What stays as it is in a query string.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of a read. The default is a linearizable read that answers at once.
///
/// ```
/// # use quorate_client::Query;
/// # use std::time::Duration;
/// let fast = Query::new().stale().passing().tag("blue");
/// let waits = Query::new().after(17, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    is_stale: bool,
    wait: Option<Duration>,
    pairs: Vec<(&'static str, String)>,
}

impl Query {
    /// A default (linearizable) read that does not block.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the asked server's own state, which may lag, and which it has without a leader too. The client's own writes
    /// are seen all the same; see [`ClientBuilder::reads_own_writes`](crate::ClientBuilder::reads_own_writes).
    #[must_use]
    pub const fn stale(mut self) -> Self {
        self.is_stale = true;
        self
    }

    /// Blocks until the index is greater than `index`, or `wait` is over (10 minutes at most). An answer may take a
    /// sixteenth longer.
    #[must_use]
    pub fn after(mut self, index: u64, wait: Duration) -> Self {
        self.pairs.retain(|(name, _)| *name != "index");
        self.waiting(wait).with("index", index.to_string())
    }

    /// Waits at most so long, at endpoints that wait by other rules than an index.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.pairs.retain(|(name, _)| *name != "wait");
        self.wait = Some(wait);
        self.with("wait", format!("{}ms", wait.as_millis()))
    }

    /// Only instances whose every check passes.
    #[must_use]
    pub fn passing(self) -> Self {
        self.with("passing", "1")
    }

    /// Only instances with this tag; several: with all of them.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with("tag", tag)
    }

    /// Only rows for which an expression of Consul's filter language holds, such as `Service.Port == 80`.
    #[must_use]
    pub fn filter(self, expression: impl Into<String>) -> Self {
        self.with("filter", expression)
    }

    /// Only nodes (or instances on nodes) with this metadata.
    #[must_use]
    pub fn node_meta(self, key: &str, value: &str) -> Self {
        self.with("node-meta", format!("{key}:{value}"))
    }

    /// Asks as this agent, instead of the one of this host; `*` in lists: all agents.
    #[must_use]
    pub fn agent(self, name: impl Into<String>) -> Self {
        self.with("agent", name)
    }

    /// Any other parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.pairs.push((name, value.into()));
        self
    }

    /// How long the server may wait, with its jitter of at most a sixteenth.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.wait.map_or(Duration::ZERO, |wait| wait + wait / 16)
    }

    pub(crate) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// As a query string with its question mark, or nothing.
    pub(crate) fn render(&self, min_index: Option<u64>) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, QUERY));
        };
        if self.is_stale {
            add("stale", "");
        }
        if let Some(index) = min_index {
            add("min-index", &index.to_string());
        }
        self.pairs.iter().for_each(|(name, value)| add(name, value));
        text
    }
}

/// A path with an id, whose slashes stay and whose other special characters are encoded.
pub(crate) fn with_id(path: &str, id: &str) -> String {
    format!("{path}{}", utf8_percent_encode(id, PATH))
}

/// An answer with what its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<T> {
    /// The body.
    pub value: T,
    /// `X-Consul-Index`, if sent: what [`Query::after`] takes, at any server.
    pub index: Option<u64>,
    /// `X-Consul-KnownLeader`, if sent.
    pub known_leader: Option<bool>,
    /// `X-Consul-LastContact` in milliseconds, if sent: how old a stale answer may be.
    pub last_contact_ms: Option<u64>,
}

impl<T> Response<T> {
    pub(crate) fn of(answer: &Answer, value: T) -> Self {
        Self {
            value,
            index: answer.index(),
            known_leader: answer.known_leader(),
            last_contact_ms: answer.last_contact_ms(),
        }
    }

    /// The same headers with another body.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Response<U> {
        let Self { value, index, known_leader, last_contact_ms } = self;
        Response { value: convert(value), index, known_leader, last_contact_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(with_id("/v1/kv/", "a/b c?%+\u{4e16}"), "/v1/kv/a/b%20c%3F%25%2B%E4%B8%96");
        let query = Query::new().stale().after(5, Duration::from_secs(1)).tag("a&b");
        assert_eq!(query.render(None), "?stale=&wait=1000ms&index=5&tag=a%26b");
        assert_eq!(query.render(Some(7)), "?stale=&min-index=7&wait=1000ms&index=5&tag=a%26b");
        assert_eq!(Query::new().render(None), "");
    }

    #[test]
    fn a_later_index_replaces_an_earlier_one() {
        let query =
            Query::new().after(5, Duration::from_secs(16)).after(6, Duration::from_secs(32));
        assert_eq!(query.render(None), "?wait=32000ms&index=6");
        assert_eq!(query.longest_wait(), Duration::from_secs(34));
    }
}
