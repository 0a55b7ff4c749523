//! Who asks: the token of a request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use quorate_storage::State;
use quorate_storage::record::{Authority, DefaultPolicy, SecretHash};
use quorate_storage::state::Rights;

use super::error::ApiError;
use super::params::Params;
use crate::discovery::access::AccessControl;

/// The header with a token.
const TOKEN_HEADER: &str = "x-consul-token";
/// The scheme of `Authorization` whose first word is a token.
const BEARER: &str = "bearer";
/// What a secret is shown as.
pub(super) const HIDDEN: &str = "<hidden>";
/// Words that no token may be (Consul's).
const ROOT_POLICIES: [&str; 3] = ["allow", "deny", "manage"];

/// The token of a request. Of its secret nothing but the hash is kept.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) default: DefaultPolicy,
    pub(super) secret: SecretHash,
    /// Whether the request has a token.
    pub(super) is_named: bool,
    /// Once it was looked up.
    pub(super) authority: OnceLock<Authority>,
    /// Whether its rights were asked for.
    pub(super) was_asked: AtomicBool,
    /// Whether something was left out of what is shown.
    pub(super) filtered: AtomicBool,
}

impl Asker {
    /// Who asks.
    ///
    /// # Errors
    /// 500: a word that no token may be, as in Consul.
    pub(super) fn of(
        control: &AccessControl,
        params: &Params,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        let token = secret(params, headers);
        if token.is_some_and(|token| ROOT_POLICIES.contains(&token)) {
            return Err(ApiError::internal("Cannot resolve root ACL"));
        }
        Ok(Self {
            default: control.default,
            secret: token.map_or(control.without_token, SecretHash::of),
            is_named: token.is_some(),
            authority: OnceLock::new(),
            was_asked: AtomicBool::new(false),
            filtered: AtomicBool::new(false),
        })
    }

    /// Whether the handler has asked for its rights.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// What its token may do in a version of the state; `None`: there is no such token.
    pub(super) fn rights_in(&self, state: &State) -> Option<Rights> {
        state.rights_of(&self.secret, self.default)
    }
}

/// The secret of a request. The query parameter beats Consul's header, which beats the standard one; an empty one is
/// none.
pub(super) fn secret<'a>(params: &'a Params, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = || header(TOKEN_HEADER).filter(|token| !token.is_empty());
    let bearer = || header(AUTHORIZATION.as_str()).and_then(bearer);
    params.filled("token").or_else(own).or_else(bearer)
}

/// The first word behind the scheme, which may be written in any case.
fn bearer(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    let scheme = words.next().filter(|scheme| scheme.eq_ignore_ascii_case(BEARER));
    scheme.and_then(|_| words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(query: &str, headers: &[(&str, &str)]) -> Result<(bool, SecretHash), String> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            all.append(name, value.parse().unwrap());
        }
        let params = Params::parse(query).unwrap();
        let control = AccessControl::new(DefaultPolicy::Deny);
        let asker = Asker::of(&control, &params, &all).map_err(|error| error.text)?;
        Ok((asker.is_named, asker.secret))
    }

    #[test]
    fn the_parameter_beats_the_header_and_that_beats_authorization() {
        let (own, standard) = (("X-Consul-Token", "b"), ("Authorization", "bEARER c d"));
        let of = |secret: &str| Ok((true, SecretHash::of(secret)));
        assert_eq!(asker("token=a&token=z", &[own, standard]), of("a"));
        assert_eq!(asker("token=", &[own, standard]), of("b"));
        assert_eq!(asker("", &[("X-Consul-Token", ""), standard]), of("c"));
        let nobody = Ok((false, SecretHash::of("anonymous")));
        for headers in [&[("Authorization", "Basic c")][..], &[("Authorization", "Bearer")], &[]] {
            assert_eq!(asker("", headers), nobody);
        }
        assert_eq!(asker("token=manage", &[]).unwrap_err(), "Cannot resolve root ACL");
    }
}
