//! `?cached`: answers that may be older than a leader's, for clients that would rather have those than none.
//!
//! Consul's agents keep answers; here the state of every server is its cache. With a leader at hand an
//! answer is as fresh as any other (`X-Cache: MISS`); without one, or when the client says how old it
//! may be (`Cache-Control: max-age`), it comes from this server's state at once (`HIT`), and `Age` tells for
//! how many seconds this server has not heard of a leader. The directives mean what they mean in Consul
//! (<https://developer.hashicorp.com/consul/api-docs/features/caching>).

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;

use super::error::ApiError;

/// What a request says of cached answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cached {
    /// An answer of at most this age needs no leader.
    max_age: Option<Duration>,
    /// An answer needs a leader, unless `stale_if_error` allows it.
    must_revalidate: bool,
    /// Without a leader an answer may be this old.
    stale_if_error: Option<Duration>,
}

impl Cached {
    /// Reads `Cache-Control`; directives that Consul does not know are ignored.
    ///
    /// # Errors
    /// For seconds that are no number, as in Consul.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut cached = Self::default();
        let Some(given) = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()) else {
            return Ok(cached);
        };
        for directive in given.to_ascii_lowercase().split(',').map(str::trim) {
            if directive == "must-revalidate" {
                cached.must_revalidate = true;
            } else if let Some(seconds) = directive.strip_prefix("max-age=") {
                let seconds = self::seconds(seconds)?;
                cached.max_age = Some(seconds);
                cached.must_revalidate |= seconds.is_zero();
            } else if let Some(seconds) = directive.strip_prefix("stale-if-error=") {
                cached.stale_if_error = Some(self::seconds(seconds)?);
            }
        }
        Ok(cached)
    }

    /// Whether an answer of this age needs no leader.
    pub(super) fn accepts(&self, age: Duration) -> bool {
        !self.must_revalidate && self.max_age.is_some_and(|longest| age <= longest)
    }

    /// How old an answer may be when there is no leader; `None`: there is none without a leader.
    pub(super) fn without_leader(&self) -> Option<Duration> {
        match (self.stale_if_error, self.max_age) {
            (Some(longest), _) => Some(longest),
            (None, Some(_)) => None,
            (None, None) => (!self.must_revalidate).then_some(Duration::MAX),
        }
    }
}

/// A negative number is none.
fn seconds(text: &str) -> Result<Duration, ApiError> {
    let seconds: i64 =
        text.parse().map_err(|_| ApiError::bad_request("Invalid Cache-Control header."))?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(text: &str) -> Cached {
        let headers = [(CACHE_CONTROL, text.parse().unwrap())].into_iter().collect();
        Cached::parse(&headers).unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn any_age_will_do_without_a_leader_unless_a_client_says_otherwise() {
        assert_eq!(Cached::parse(&HeaderMap::new()), Ok(Cached::default()));
        assert_eq!(Cached::default().without_leader(), Some(Duration::MAX));
        assert!(!Cached::default().accepts(Duration::ZERO));
        for (text, longest) in [
            ("must-revalidate", None),
            ("max-age=60", None),
            ("max-age=0", None),
            ("no-cache", Some(Duration::MAX)),
            ("Max-Age=5, Stale-If-Error=60", Some(60 * SECOND)),
            ("must-revalidate,stale-if-error=60", Some(60 * SECOND)),
            ("stale-if-error=-1", Some(Duration::ZERO)),
        ] {
            assert_eq!(cached(text).without_leader(), longest, "{text}");
        }
    }

    #[test]
    fn an_answer_that_is_young_enough_needs_no_leader() {
        assert!(
            cached("max-age=2").accepts(2 * SECOND) && !cached("max-age=2").accepts(3 * SECOND)
        );
        assert!(!cached("max-age=0").accepts(Duration::ZERO));
        assert!(!cached("max-age=9, must-revalidate").accepts(SECOND));
        assert!(!cached("stale-if-error=9").accepts(SECOND));
    }

    #[test]
    fn seconds_must_be_a_number() {
        for text in ["max-age=", "max-age=1s", "stale-if-error=x", "max-age=\"1\""] {
            let headers = [(CACHE_CONTROL, text.parse().unwrap())].into_iter().collect();
            let error = Cached::parse(&headers).unwrap_err();
            assert_eq!(error.text, "Invalid Cache-Control header.", "{text}");
        }
    }
}
