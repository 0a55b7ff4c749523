//! Compresses answers for clients that ask for it, as Consul does: gzip, and only what is long enough
//! to gain by it.
//!
//! Answers whose length is not known beforehand are streams (log lines, snapshots); they pass as they
//! are, so nothing is held back until it fills a buffer.

use std::io::{self, Write as _};

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Body as _;

use super::coalesce::Coalesced;
use super::{budget, heavy};

/// Shorter answers go out as they are (Consul's number): they fit into one packet anyway.
const BYTES_MIN: u64 = 1_400;
/// Longer answers are compressed beside the requests, not among them.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Whether a client takes gzip: it says so by name, and not with a quality of 0.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let mut lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.any(names_gzip)
}

/// Whether a list of codings, as in `Accept-Encoding`, has gzip in it.
pub(super) fn names_gzip(list: &str) -> bool {
    list.split(',').any(accepts_gzip)
}

/// Reads one item of `Accept-Encoding`, such as `gzip;q=0.5`.
fn accepts_gzip(item: &str) -> bool {
    let mut parts = item.split(';').map(str::trim);
    let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
    let quality = parts.find_map(|part| part.strip_prefix("q="));
    let quality = quality.map_or(1.0, |text| text.parse::<f64>().unwrap_or(0.0));
    is_gzip && quality > 0.0
}

/// The same response with a compressed body, if that is worth it.
pub(super) async fn compressed(response: Response) -> Response {
    if !is_worth_it(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let plain = match budget::in_memory(body).await {
        Ok(plain) => plain,
        Err(failed) => return failed,
    };
    let gzip = match parts.extensions.get::<Coalesced>() {
        Some(common) => {
            common.compressed(|plain| async move { beside_requests(&plain).await }).await
        }
        None => beside_requests(&plain).await.map(Bytes::from),
    };
    let Some(gzip) = gzip else { return Response::from_parts(parts, Body::from(plain)) };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(gzip))
}

fn is_worth_it(response: &Response) -> bool {
    let has_body = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let headers = response.headers();
    let is_gzip = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-gzip");
    let is_encoded = headers.contains_key(CONTENT_ENCODING);
    let is_long = response.body().size_hint().exact().is_some_and(|length| length >= BYTES_MIN);
    has_body && !is_gzip && !is_encoded && is_long
}

/// `None`: there is no turn to do it in time, or it fails.
async fn beside_requests(plain: &[u8]) -> Option<Vec<u8>> {
    let compressed = if plain.len() <= INLINE_BYTES_MAX {
        gzip(plain)
    } else {
        let compressed = heavy::rework(|| gzip(plain)).await;
        compressed.unwrap_or_else(|refused| Err(io::Error::other(refused.text)))
    };
    compressed.inspect_err(|error| tracing::warn!(%error, "an answer could not be compressed")).ok()
}

/// Level 1: JSON shrinks to a tenth with it as well, at a fraction of the time.
fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn wanted(list: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(list));
        is_wanted(&headers)
    }

    #[test]
    fn gzip_must_be_named_and_not_refused() {
        for list in ["gzip", "deflate, GZIP", "br;q=1, gzip;q=0.1", "gzip ; q=1.0"] {
            assert!(wanted(list), "{list}");
        }
        for list in ["", "identity", "*", "gzip;q=0", "deflate, gzip; q=0.0", "gzip;q=x", "xgzip"] {
            assert!(!wanted(list), "{list}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn only_what_is_long_and_of_known_length_is_compressed() {
        let is_compressed = async |body: Body| {
            compressed(Response::new(body)).await.headers().contains_key(CONTENT_ENCODING)
        };
        assert!(!is_compressed(Body::from("x".repeat(1_399))).await);
        assert!(is_compressed(Body::from("x".repeat(1_400))).await);
        let lines = futures_util::stream::iter([Ok::<_, io::Error>("x".repeat(5_000))]);
        assert!(!is_compressed(Body::from_stream(lines)).await);
        let mut response = Response::new(Body::from("x".repeat(5_000)));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        assert!(!compressed(response).await.headers().contains_key(CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn a_long_answer_comes_out_as_it_went_in() {
        let text = "0123456789".repeat(INLINE_BYTES_MAX / 5);
        let response = compressed(Response::new(Body::from(text.clone()))).await;
        let gzip = response.into_body().collect().await.unwrap().to_bytes();
        assert!(gzip.len() < text.len() / 10);
        let mut plain = String::new();
        GzDecoder::new(&*gzip).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, text);
    }

    proptest! {
        #[test]
        fn any_accept_encoding_is_read_without_panic(list in "\\PC*") {
            let _ = accepts_gzip(&list);
        }
    }
}
