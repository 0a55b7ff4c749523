//! Judges and normalises the paths of requests before they are routed.
//!
//! Consul is written in Go, whose multiplexer routes on the decoded path and redirects unclean ones.
//! axum routes on the path as it was sent, so the path is written anew here, in the one spelling
//! that stands for its decoded bytes.
//!
//! What follows the path of an endpoint below which ids and names lie is taken as it is, double slashes
//! and dots included: an id may be a URL (`http://x`), and Consul, which cleans these paths as well,
//! registers checks there that nobody can ever renew. Keys are the exception: there Consul's redirects
//! are what clients know. An id that no path can carry is refused when it is registered
//! ([`check_addressable`]).

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use regex::Regex;

/// What is not percent-encoded in a normalised path.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The decoded path of a request, among its extensions.
#[derive(Debug, Clone)]
pub(super) struct DecodedPath(pub(super) Vec<u8>);

/// Below this path lie keys, whose paths are cleaned as by Consul.
const KEYS: &str = "/v1/kv/";

/// The paths that are served, as far as redirects depend on them.
#[derive(Debug)]
pub(super) struct Paths(BTreeSet<&'static str>);

impl Paths {
    pub(super) fn new(paths: impl Iterator<Item = &'static str>) -> Self {
        Self(paths.collect())
    }

    /// Rewrites the path of a request, or says how to answer it at once.
    pub(super) fn normalise(&self, mut request: Request) -> Result<Request, Box<Response>> {
        let sent = request.uri().path();
        let Some(decoded) = decode(sent) else {
            return Err(Box::new(bare(StatusCode::BAD_REQUEST)));
        };
        let clean = match self.has_id(sent, &decoded) {
            // Ids may have any blanks.
            true if !has_control(&decoded) => decoded.clone(),
            false if printable(&decoded) => self.with_slash(clean(&decoded)),
            _ => return Err(Box::new(bare(StatusCode::BAD_REQUEST))),
        };
        let written = percent_encode(&clean, PLAIN).to_string();
        let target = match request.uri().query() {
            Some(query) => format!("{written}?{query}"),
            None => written,
        };
        if clean != decoded {
            return Err(Box::new(redirect(request.method(), &target)));
        }
        if !decoded.starts_with(b"/") {
            return Err(Box::new(bare(StatusCode::NOT_FOUND)));
        }
        let Ok(rewritten) = target.parse::<PathAndQuery>() else {
            return Err(Box::new(bare(StatusCode::BAD_REQUEST)));
        };
        *request.uri_mut() = Uri::from(rewritten);
        request.extensions_mut().insert(DecodedPath(decoded));
        Ok(request)
    }

    /// Whether an id or name follows the path of an endpoint. One that begins with a slash must have it
    /// percent-encoded: a plain one is what joining paths carelessly leaves behind.
    fn has_id(&self, sent: &str, decoded: &[u8]) -> bool {
        let follows = |path: &&'static str| {
            path.len() > 1 && path.ends_with('/') && decoded.starts_with(path.as_bytes())
        };
        let Some(path) = self.0.iter().copied().filter(follows).max_by_key(|path| path.len())
        else {
            return false;
        };
        let rest = sent.strip_prefix(path).unwrap_or("");
        path != KEYS && decoded.len() > path.len() && !rest.starts_with('/')
    }

    /// Adds the slash to a path that is served only with it: `/v1/kv` means `/v1/kv/`.
    fn with_slash(&self, mut path: Vec<u8>) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&path) else { return path };
        if !self.0.contains(text) && self.0.contains(format!("{text}/").as_str()) {
            path.push(b'/');
        }
        path
    }
}

/// Decodes a path; `None` if a percent sign is not followed by two hexadecimal digits.
fn decode(path: &str) -> Option<Vec<u8>> {
    if !well_encoded(path) {
        return None;
    }
    Some(percent_decode_str(path).collect())
}

/// Whether every percent sign is followed by two hexadecimal digits.
pub(super) fn well_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let digits = part.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

/// Refuses an id or name that no path can carry.
///
/// # Errors
/// A sentence for the client, which begins with what it is.
pub(super) fn check_addressable(what: &str, id: &str) -> Result<(), String> {
    match has_control(id.as_bytes()) {
        true => Err(format!("{what} {id:?} must not have control characters")),
        false => Ok(()),
    }
}

fn has_control(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).chars().any(char::is_control)
}

/// What Go's `unicode.IsPrint` takes: letters, marks, numbers, punctuation, symbols and the ordinary blank.
/// Not control and format characters, other blanks, private use and what stands for nothing.
static PRINTABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$").expect("the expression is a valid one")
});

/// Whether a path can be shown.
fn printable(path: &[u8]) -> bool {
    match path.is_ascii() {
        true => path.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic()),
        false => PRINTABLE.is_match(&String::from_utf8_lossy(path)),
    }
}

/// Removes empty, `.` and `..` elements; a slash at the end stays.
fn clean(path: &[u8]) -> Vec<u8> {
    if !path.starts_with(b"/") {
        return path.to_vec();
    }
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in path.split(|byte| *byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." => {
                elements.pop();
            }
            element => elements.push(element),
        }
    }
    let mut clean = Vec::with_capacity(path.len());
    for element in &elements {
        clean.push(b'/');
        clean.extend_from_slice(element);
    }
    if elements.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

/// A response without a body.
fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A permanent redirect, with a page about it for people.
fn redirect(method: &Method, target: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(target) else { return bare(StatusCode::BAD_REQUEST) };
    let mut response = bare(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    if method == Method::GET || method == Method::HEAD {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    if method == Method::GET {
        // The encoded path has no character that HTML minds but the query's ampersand.
        let page =
            format!("<a href=\"{}\">Moved Permanently</a>.\n\n", target.replace('&', "&amp;"));
        *response.body_mut() = Body::from(page);
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths() -> Paths {
        Paths::new(["/", "/v1/kv/", "/v1/agent/service/", "/v1/agent/self"].into_iter())
    }

    fn get(target: &str) -> Result<(String, Vec<u8>), (u16, String)> {
        let request = Request::builder().uri(target).body(Body::empty()).unwrap();
        match paths().normalise(request) {
            Ok(request) => {
                let DecodedPath(decoded) = request.extensions().get().cloned().unwrap();
                Ok((request.uri().to_string(), decoded))
            }
            Err(response) => {
                let location = response.headers().get(LOCATION);
                let location = location.map_or("", |value| value.to_str().unwrap());
                Err((response.status().as_u16(), location.to_owned()))
            }
        }
    }

    #[test]
    fn a_path_is_routed_as_it_decodes() {
        assert_eq!(
            get("/v1/kv/a%2Fb%20c+d?raw&x=%zz"),
            Ok(("/v1/kv/a/b%20c%2Bd?raw&x=%zz".to_owned(), b"/v1/kv/a/b c+d".to_vec()))
        );
        assert_eq!(get("/v1/%6bv/x").unwrap().0, "/v1/kv/x");
        assert_eq!(get("/v1/kv/%FF").unwrap(), ("/v1/kv/%FF".to_owned(), b"/v1/kv/\xFF".to_vec()));
    }

    #[test]
    fn unclean_paths_are_redirected_with_their_query() {
        for (target, location) in [
            ("/v1/kv", "/v1/kv/"),
            ("/v1/kv?recurse", "/v1/kv/?recurse"),
            ("//v1/agent/self", "/v1/agent/self"),
            ("/v1/kv/a/../b", "/v1/kv/b"),
            ("/v1/kv/./b/", "/v1/kv/b/"),
            ("/v1/kv/%2Fa", "/v1/kv/a"),
            ("/v1/kv/a/..", "/v1/kv/"),
            ("/../..", "/"),
            ("/v1/kv/a%20b//c", "/v1/kv/a%20b/c"),
        ] {
            assert_eq!(get(target), Err((301, location.to_owned())), "{target}");
        }
    }

    #[test]
    fn an_id_is_taken_as_it_is() {
        for (target, id) in [
            ("/v1/agent/service/http://x", "http://x"),
            ("/v1/agent/service/http:%2F%2Fx/", "http://x/"),
            ("/v1/agent/service/a//b", "a//b"),
            ("/v1/agent/service/..", ".."),
            ("/v1/agent/service/%2E%2E%2Fself", "../self"),
            ("/v1/agent/service/%2Fx", "/x"),
            ("/v1/agent/service/a%C2%A0b", "a\u{a0}b"),
            ("/v1/agent/service/%E2%80%A8", "\u{2028}"),
            ("/v1%2Fagent/service/a//b", "a//b"),
        ] {
            let (written, decoded) = get(target).unwrap();
            assert_eq!(decoded, format!("/v1/agent/service/{id}").into_bytes(), "{target}");
            assert!(written.starts_with("/v1/agent/service/"), "{target}: {written}");
        }
        assert_eq!(get("/v1/agent/service//x"), Err((301, "/v1/agent/service/x".to_owned())));
        assert_eq!(get("/v1/agent/service/%00"), Err((400, String::new())));
        // The path of the endpoint itself must be clean.
        assert_eq!(get("/v1//agent/service/a"), Err((301, "/v1/agent/service/a".to_owned())));
        check_addressable("Service ID", "http://x/..").unwrap();
        check_addressable("Service ID", "a\nb").unwrap_err();
    }

    #[test]
    fn a_slash_too_many_is_no_redirect_but_another_path() {
        assert_eq!(get("/v1/agent/self/").unwrap().0, "/v1/agent/self/");
        assert_eq!(get("/v1/agent/service/").unwrap().0, "/v1/agent/service/");
    }

    #[test]
    fn unprintable_and_badly_encoded_paths_are_refused() {
        for target in ["/v1/kv/%00", "/v1/kv/a%0Ab", "/v1/kv/%7F", "/v1/kv/%", "/v1/kv/%2"] {
            assert_eq!(get(target), Err((400, String::new())), "{target}");
        }
        // Format characters, another blank, private use, and a code point without a character.
        for hidden in ['\u{200b}', '\u{ad}', '\u{feff}', '\u{a0}', '\u{e000}', '\u{378}'] {
            let target =
                format!("/v1/kv/{}", percent_encode(format!("a{hidden}").as_bytes(), PLAIN));
            assert_eq!(get(&target), Err((400, String::new())), "{target}");
        }
        for shown in ["\u{e9}", "e\u{301}", "\u{4e2d}\u{6587}", "\u{1f600}", "\u{20ac}"] {
            let target = format!("/v1/kv/{}", percent_encode(shown.as_bytes(), PLAIN));
            assert_eq!(get(&target).unwrap().1, format!("/v1/kv/{shown}").into_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_cleaned_path_is_clean(path in proptest::collection::vec(any::<u8>(), 0..60)) {
            let path = [b"/".as_slice(), &path].concat();
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once);
        }

        #[test]
        fn any_key_arrives_as_it_was_or_is_redirected_to_a_clean_path(
            key in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let target = format!("/v1/kv/{}", percent_encode(&key, NON_ALPHANUMERIC));
            match get(&target) {
                Ok((_, decoded)) => prop_assert_eq!(&decoded[7..], key.as_slice()),
                Err((301, location)) => prop_assert!(get(&location).is_ok() || location == "/v1/kv/"),
                Err((status, _)) => prop_assert_eq!(status, 400),
            }
        }
    }
}
