//! Reads what is left of a request's body when it was answered without it.
//!
//! A request may be refused before its body was read: the body is too large, the method is not
//! served. If the connection were closed then, the client would get a reset while it is still
//! writing, and never see why. So what nobody wants is read and thrown away, within limits; after
//! that the connection can even be used again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;

use crate::host::supervise;

/// How much is read in vain before the connection is closed.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// For how long a client may go on sending in vain.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's body that is read to its end even if its reader goes away.
#[derive(Debug)]
pub(super) struct Drained {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    /// The client waits for a sign before it sends the body, and has not had one: an answer alone
    /// keeps it from sending.
    held_back: bool,
}

impl Drained {
    /// The same request with such a body.
    pub(super) fn wrap(request: Request<Incoming>) -> Request<Self> {
        let held_back = request.headers().contains_key(EXPECT);
        request.map(|body| Self { body: Some(body), held_back })
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.held_back = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.held_back || body.is_end_stream() {
            return;
        }
        // A connection that ends with its runtime needs no draining.
        if tokio::runtime::Handle::try_current().is_ok() {
            let drained = tokio::time::timeout(DRAIN_TIMEOUT, drain(body));
            drop(supervise::contained("reading the rest of a request", drained));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = DRAINED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
