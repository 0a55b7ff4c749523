//! How many requests of HTTP/2 are open at the same time, on all connections together.
//!
//! With HTTP/1 the connections bound them. A connection of HTTP/2 has a thousand, each with some state of its own, and its
//! client decides when one ends: by not taking the answer it keeps it open.

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::response::Response;

use super::error::ApiError;
use super::held::until_taken;
use super::places::{Place, Places};

/// Open requests of HTTP/2 in all. One takes about ten kilobytes.
const OPEN_MAX: usize = 65_536;
/// Those of one address.
const OPEN_OF_ONE_MAX: usize = OPEN_MAX / 2;

static OPEN: Places = Places::new(OPEN_MAX, OPEN_OF_ONE_MAX);

/// Counts a request until its answer was taken.
#[derive(Debug)]
pub(super) struct OpenRequest(Place);

/// A place for one more.
///
/// # Errors
/// 503: there are as many as there may be, of this client or in all.
pub(super) fn begin(client: IpAddr) -> Result<OpenRequest, ApiError> {
    OPEN.take(Some(client.to_canonical())).map(OpenRequest).ok_or_else(|| {
        let text = format!(
            "{OPEN_MAX} requests over HTTP/2 are open at this server, or {OPEN_OF_ONE_MAX} of your address, and no more \
             may be: try again later or at another server"
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

impl OpenRequest {
    /// The same response; the request is open until its body was taken or dropped.
    pub(super) fn until_taken(self, response: Response) -> Response {
        until_taken(response, self.0)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use hyper::body::Body as _;

    use super::*;

    #[test]
    fn a_request_counts_until_its_answer_was_taken() {
        static OPEN: Places = Places::new(1, 1);
        let open = OpenRequest(OPEN.take(None).unwrap());
        let answer = open.until_taken(Response::new(Body::from("answer")));
        assert_eq!(answer.body().size_hint().exact(), Some(6));
        assert!(OPEN.take(None).is_none());
        drop(answer);
        assert!(OPEN.take(None).is_some());
    }
}
