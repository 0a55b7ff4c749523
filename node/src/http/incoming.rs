//! A request's body as it arrives: how large it may be, and how slow.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;

/// How large a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit {
    bytes: usize,
    /// The setting that changes it, if there is one.
    setting: Option<&'static str>,
}

impl BodyLimit {
    /// A limit that no setting changes.
    pub(super) const fn fixed(bytes: usize) -> Self {
        Self { bytes, setting: None }
    }

    /// A limit that a setting of Consul's configuration changes.
    pub(super) const fn of_setting(bytes: usize, setting: &'static str) -> Self {
        Self { bytes, setting: Some(setting) }
    }

    /// Consul's sentence about a body of this size; its link only where it leads to the limit.
    fn exceeded(self, size: &str) -> ApiError {
        let Self { bytes, setting } = self;
        let link = setting.map_or_else(String::new, |setting| {
            format!(
                " See https://developer.hashicorp.com/docs/agent/config/config-files#{setting}."
            )
        });
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Request body({size} bytes) too large, max size: {bytes} bytes.{link}"),
        )
    }
}

/// How fast a body has to come: in each span at least so many bytes, until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of each span.
    pub(super) bytes: usize,
    /// How long a span is.
    pub(super) span: Duration,
}

/// A body of which some has been read.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    limit: BodyLimit,
    pace: Pace,
    received: usize,
    /// Until when it must have come to so many bytes.
    due: (Instant, usize),
}

impl Incoming {
    /// A body of which nothing has been read. `declared` is what its client says that it sends.
    ///
    /// # Errors
    /// 413: that is too much.
    pub(super) fn new(
        body: Body,
        declared: Option<u64>,
        limit: BodyLimit,
        pace: Pace,
    ) -> Result<Self, ApiError> {
        if let Some(declared) = declared
            && declared > limit.bytes as u64
        {
            return Err(limit.exceeded(&declared.to_string()));
        }
        let due = (Instant::now() + pace.span, pace.bytes);
        Ok(Self { body, limit, pace, received: 0, due })
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// 413: there is too much of it; 408: it comes too slowly; 400: its client has broken it off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let next = timeout_at(self.due.0, self.body.frame()).await;
            let Some(frame) = next.map_err(|_| self.too_slow())? else { return Ok(None) };
            let frame = frame.map_err(|error| {
                ApiError::bad_request(format!("Request body unreadable: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            self.received += data.len();
            if self.received > self.limit.bytes {
                return Err(self.limit.exceeded(&format!("over {}", self.limit.bytes)));
            }
            if self.received >= self.due.1 {
                self.due = (Instant::now() + self.pace.span, self.received + self.pace.bytes);
            }
            return Ok(Some(data));
        }
    }

    /// How much has come.
    pub(super) const fn received(&self) -> usize {
        self.received
    }

    fn too_slow(&self) -> ApiError {
        let Pace { bytes, span } = self.pace;
        let seconds = span.as_secs();
        let text = format!(
            "the request's body is sent too slowly: {bytes} bytes did not arrive within {seconds} s"
        );
        ApiError::new(StatusCode::REQUEST_TIMEOUT, text)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[test]
    fn a_body_that_is_too_large_is_told_which_setting_limits_it() {
        let error = BodyLimit::of_setting(7, "txn_max_req_len").exceeded("8");
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            error.text,
            "Request body(8 bytes) too large, max size: 7 bytes. \
             See https://developer.hashicorp.com/docs/agent/config/config-files#txn_max_req_len."
        );
        assert_eq!(
            BodyLimit::fixed(7).exceeded("over 7").text,
            "Request body(over 7 bytes) too large, max size: 7 bytes."
        );
    }

    /// A body of pieces of ten bytes, with a pause before each.
    fn slow(pauses: &'static [u64]) -> Body {
        Body::from_stream(stream::unfold(pauses, async |pauses| {
            let (pause, rest) = pauses.split_first()?;
            tokio::time::sleep(Duration::from_secs(*pause)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(&[0; 10])), rest))
        }))
    }

    async fn received(pauses: &'static [u64], pace: Pace) -> Result<usize, u16> {
        let mut incoming = Incoming::new(slow(pauses), None, BodyLimit::fixed(100), pace).unwrap();
        while incoming.next().await.map_err(|error| error.status.as_u16())?.is_some() {}
        Ok(incoming.received())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time_as_long_as_enough_of_it_comes() {
        let pace = Pace { bytes: 20, span: Duration::from_secs(30) };
        assert_eq!(received(&[14, 14, 29, 0, 14, 14], pace).await, Ok(60));
        assert_eq!(received(&[], pace).await, Ok(0));
        assert_eq!(received(&[31], pace).await, Err(408));
        assert_eq!(received(&[16, 16], pace).await, Err(408));
        assert_eq!(received(&[1, 1, 31], pace).await, Err(408));
        let all = Pace { bytes: 1_000, ..pace };
        assert_eq!(received(&[14, 14], all).await, Ok(20));
        assert_eq!(received(&[14, 14, 14], all).await, Err(408));
        assert_eq!(received(&[0; 11], all).await, Err(413));
    }
}
