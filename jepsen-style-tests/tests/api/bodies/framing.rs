//! One request, in each framing that HTTP has.

use std::time::Duration;

use bytes::Bytes;
use jepsen_style_tests::http::Answer;
use jepsen_style_tests::raw::{Raw, Request};
use jepsen_style_tests::{Failure, Result};
use tokio::net::TcpStream;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// All framings.
pub(crate) const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunks, Framing::Http2];

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// HTTP/1.1 with `Content-Length`.
    Length,
    /// HTTP/1.1 in chunks.
    Chunks,
    /// HTTP/2 on the plain port, without `Content-Length`.
    Http2,
}

impl Framing {
    /// Sends a request and waits for its answer.
    pub(crate) async fn send(
        self,
        raw: &Raw,
        base: &str,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer> {
        let request = Request { body, ..Request::new(method, path) };
        match self {
            Self::Length => raw.send(&request).await,
            Self::Chunks => raw.send(&Request { is_chunked: true, ..request }).await,
            Self::Http2 => {
                let exchange = over_http2(base, method, path, request.body);
                let answer = tokio::time::timeout(PATIENCE, exchange).await;
                answer.map_err(|_| Failure::new(format!("no answer in {PATIENCE:?}")))?
            }
        }
    }
}

/// The same over a connection of HTTP/2. The body goes out in two frames.
async fn over_http2(base: &str, method: &str, path: &str, mut body: Vec<u8>) -> Result<Answer> {
    let fault = |error: h2::Error| Failure::new(error.to_string());
    let stream = TcpStream::connect(base.trim_start_matches("http://")).await?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(fault)?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.map_err(fault)?;
    let request = hyper::Request::builder().method(method).uri(format!("{base}{path}")).body(());
    let request = request.map_err(|error| Failure::new(error.to_string()))?;
    let (response, mut sink) = client.send_request(request, false).map_err(fault)?;
    let rest = body.split_off(body.len() / 2);
    sink.send_data(Bytes::from(body), false).map_err(fault)?;
    // A server that has answered already may have ended the stream.
    let _ = sink.send_data(Bytes::from(rest), true);
    let response = response.await.map_err(fault)?;
    let status = response.status().as_u16();
    let mut received = response.into_body();
    let mut body = Vec::new();
    while let Some(piece) = received.data().await {
        let piece = piece.map_err(fault)?;
        // The window was taken from: give it back, or a long answer would stop.
        received.flow_control().release_capacity(piece.len()).map_err(fault)?;
        body.extend_from_slice(&piece);
    }
    connection.abort();
    Ok(Answer::new(status, body))
}
