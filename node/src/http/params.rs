//! Query strings: what clients may ask for beside the path.

use std::time::Duration;

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;
use quorate_client::duration;

use super::cached::Cached;
use super::error::ApiError;
use super::path::well_encoded;
use crate::node::Consistency;

/// How long a blocking query waits when nothing is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);

/// The longest that a blocking query waits, before jitter.
const MAX_WAIT: Duration = Duration::from_secs(10 * 60);

/// A decoded query string, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Params(Vec<(String, String)>);

/// A query string that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecodable;

impl Params {
    /// Decodes a query string. As in Go, a bad percent sign and a raw semicolon are errors.
    pub(super) fn parse(query: &str) -> Result<Self, Undecodable> {
        if query.contains(';') || !well_encoded(query) {
            return Err(Undecodable);
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        });
        Ok(Self(pairs.collect()))
    }

    /// Whether a parameter is there, with whatever value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(present, _)| present == name)
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter if it is not empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether the request waits for a change, if it is to an endpoint where one can.
    pub(super) fn is_blocking(&self) -> bool {
        self.filled("index").is_some_and(|index| index != "0")
    }

    /// The names of all parameters.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// All parameters but how long to wait, in their order.
    pub(super) fn question(&self) -> Vec<(String, String)> {
        let asked = self.0.iter().filter(|(name, _)| name != "index" && name != "wait");
        asked.cloned().collect()
    }

    /// The query string without tokens, sorted by name and encoded anew, as error texts quote it.
    pub(super) fn sorted(&self) -> String {
        let mut pairs = self.0.clone();
        pairs.retain(|(name, _)| name != "token");
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    /// A number without sign. Consul's words and its status 500.
    pub(super) fn unsigned(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name).map(parse_unsigned).transpose().map_err(ApiError::internal)
    }

    /// A switch: on for an empty value, `1`, `t`, `true`, ..., off for `0`, `f`, `false`, ... and
    /// when absent.
    pub(super) fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(ApiError::bad_request(format!("Invalid value for ?{name}"))),
        }
    }

    /// `node-meta=key:value` pairs, all of which a node must have.
    pub(super) fn node_meta(&self) -> Vec<(&str, &str)> {
        self.all("node-meta").map(|pair| pair.split_once(':').unwrap_or((pair, ""))).collect()
    }
}

fn unescape(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Reads a decimal number as Go's `strconv.ParseUint` does.
fn parse_unsigned(text: &str) -> Result<u64, String> {
    let fault = if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse() {
            Ok(number) => return Ok(number),
            Err(_) => "value out of range",
        }
    };
    Err(format!("strconv.ParseUint: parsing {text:?}: {fault}"))
}

/// How a read is to be answered: freshness, and whether it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadOptions {
    /// How fresh.
    pub(super) consistency: Consistency,
    /// The name of it in `X-Consul-Effective-Consistency`.
    pub(super) effective: &'static str,
    /// The oldest contact with the leader that a stale answer may rest on.
    pub(super) max_stale: Option<Duration>,
    /// What `?cached` allows; endpoints that have no cached answers ignore it.
    pub(super) cached: Option<Cached>,
    /// Wait until the index is greater than this; 0: do not wait.
    pub(super) index: u64,
    /// Wait at most so long, before jitter.
    pub(super) wait: Duration,
}

impl ReadOptions {
    /// Reads `stale`, `consistent`, `max_stale`, `cached`, `wait` and `index`, in the order in which Consul
    /// complains about them.
    pub(super) fn parse(params: &Params, headers: &HeaderMap) -> Result<Self, ApiError> {
        let max_stale = max_stale(params)?;
        let stale = params.has("stale") || max_stale.is_some();
        let consistent = params.has("consistent");
        if stale && consistent {
            return Err(ApiError::bad_request(
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ));
        }
        if consistent && params.has("cached") {
            return Err(ApiError::bad_request(
                "Cannot specify ?cached with ?consistent, conflicting semantics.",
            ));
        }
        let cached = Cached::parse(headers)?;
        let cached = params.has("cached").then_some(cached);
        let (consistency, effective) = match (stale, consistent) {
            (true, _) => (Consistency::Stale, "stale"),
            (false, true) => (Consistency::Linearizable, "consistent"),
            (false, false) => (Consistency::Linearizable, "leader"),
        };
        let (wait, index) = (wait(params)?, index(params)?);
        Ok(Self { consistency, effective, max_stale, cached, index, wait })
    }
}

fn max_stale(params: &Params) -> Result<Option<Duration>, ApiError> {
    let Some(text) = params.filled("max_stale") else { return Ok(None) };
    let nanos = duration::parse(text)
        .map_err(|_| ApiError::bad_request(format!("Invalid max_stale value {text:?}")))?;
    let longest = u64::try_from(nanos).unwrap_or(0);
    Ok((longest > 0).then(|| Duration::from_nanos(longest)))
}

fn wait(params: &Params) -> Result<Duration, ApiError> {
    let Some(text) = params.filled("wait") else { return Ok(DEFAULT_WAIT) };
    let nanos = duration::parse(text).map_err(|_| ApiError::bad_request("Invalid wait time"))?;
    Ok(match u64::try_from(nanos) {
        Err(_) | Ok(0) => DEFAULT_WAIT,
        Ok(nanos) => Duration::from_nanos(nanos).min(MAX_WAIT),
    })
}

fn index(params: &Params) -> Result<u64, ApiError> {
    match params.filled("index") {
        None => Ok(0),
        Some(text) => parse_unsigned(text).map_err(|_| ApiError::bad_request("Invalid index")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    fn options(query: &str) -> Result<ReadOptions, String> {
        ReadOptions::parse(&params(query), &HeaderMap::new()).map_err(|error| error.text)
    }

    #[test]
    fn a_query_string_is_decoded_as_in_go() {
        let read = params("a=1&b&a=2&c=x+y%26&=z&&");
        assert_eq!(read.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(
            (read.get("b"), read.filled("b"), read.get("c")),
            (Some(""), None, Some("x y&"))
        );
        assert!(read.has("b") && !read.has("d"));
        assert_eq!(Params::parse("a=%zz"), Err(Undecodable));
        assert_eq!(Params::parse("a=1;b=2"), Err(Undecodable));
    }

    #[test]
    fn a_quoted_query_is_sorted_and_encoded() {
        assert_eq!(params("cas=1&recurse").sorted(), "cas=1&recurse=");
        assert_eq!(params("release=a b&cas=0").sorted(), "cas=0&release=a+b");
    }

    #[test]
    fn waiting_follows_the_rules_of_consul() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (query, wait) in [
            ("", minutes(5)),
            ("wait=", minutes(5)),
            ("wait=0s", minutes(5)),
            ("wait=-3s", minutes(5)),
            ("wait=1h", minutes(10)),
            ("wait=10m", minutes(10)),
            ("wait=9.98s", Duration::from_millis(9980)),
            ("wait=60000ms", minutes(1)),
        ] {
            assert_eq!(options(query).unwrap().wait, wait, "{query}");
        }
        for query in ["wait=10", "wait=1sec", "wait=abc", "index=1&wait=1"] {
            assert_eq!(options(query).unwrap_err(), "Invalid wait time", "{query}");
        }
    }

    #[test]
    fn an_index_is_an_unsigned_decimal() {
        assert_eq!(options("index=").unwrap().index, 0);
        assert_eq!(options("index=18446744073709551615").unwrap().index, u64::MAX);
        for query in
            ["index=-1", "index=abc", "index=1.5", "index=18446744073709551616", "index=%2B1"]
        {
            assert_eq!(options(query).unwrap_err(), "Invalid index", "{query}");
        }
    }

    #[test]
    fn consistency_is_chosen_by_presence_not_by_value() {
        assert_eq!(options("stale=false").unwrap().effective, "stale");
        assert_eq!(options("consistent=1").unwrap().effective, "consistent");
        assert_eq!(options("leader").unwrap().effective, "leader");
        assert_eq!(options("max_stale=10s").unwrap().consistency, Consistency::Stale);
        assert_eq!(options("max_stale=0s").unwrap().effective, "leader");
        assert_eq!(
            options("stale&consistent").unwrap_err(),
            "Cannot specify ?stale with ?consistent, conflicting semantics."
        );
        assert_eq!(options("max_stale=abc").unwrap_err(), "Invalid max_stale value \"abc\"");
    }

    #[test]
    fn numbers_are_refused_in_the_words_of_go() {
        let text = |query: &str| params(query).unsigned("cas").unwrap_err().text;
        assert_eq!(text("cas=abc"), "strconv.ParseUint: parsing \"abc\": invalid syntax");
        assert_eq!(text("cas="), "strconv.ParseUint: parsing \"\": invalid syntax");
        assert_eq!(
            text("cas=18446744073709551616"),
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
        );
    }

    #[test]
    fn a_switch_takes_the_words_of_go() {
        assert!(params("passing").switch("passing").unwrap());
        assert!(params("passing=TRUE").switch("passing").unwrap());
        assert!(!params("passing=0").switch("passing").unwrap());
        assert!(!params("").switch("passing").unwrap());
        assert_eq!(
            params("passing=maybe").switch("passing").unwrap_err().text,
            "Invalid value for ?passing"
        );
    }

    proptest! {
        #[test]
        fn no_query_string_makes_the_reader_panic(query in "[ -~]{0,80}") {
            if let Ok(read) = Params::parse(&query) {
                let _ = (read.sorted(), read.node_meta(), read.switch("passing"));
                let _ = ReadOptions::parse(&read, &HeaderMap::new());
            }
        }

        #[test]
        fn no_value_of_a_known_parameter_makes_the_reader_panic(
            name in "index|wait|max_stale|cas|flags|stale|passing",
            value in "[-+.0-9a-z%]{0,30}",
        ) {
            if let Ok(read) = Params::parse(&format!("{name}={value}")) {
                let _ = ReadOptions::parse(&read, &HeaderMap::new());
                let _ = read.unsigned(&name);
            }
        }
    }
}
