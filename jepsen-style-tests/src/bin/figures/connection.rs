//! One kept HTTP/1.1 connection, without pool, redirects or name resolution.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Failure;

/// A request that is sent many times: made once, and cloned by reference counts.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Uri,
    pub(crate) body: Bytes,
    /// What the body is, where that matters.
    content_type: Option<HeaderValue>,
}

impl Prepared {
    /// A `PUT`.
    pub(crate) fn put(target: &str, body: impl Into<Bytes>) -> Result<Self, Failure> {
        let (method, target) = (Method::PUT, target.parse()?);
        Ok(Self { method, target, body: body.into(), content_type: None })
    }

    /// A `PUT` of plain text.
    pub(crate) fn put_text(target: &str, body: impl Into<Bytes>) -> Result<Self, Failure> {
        let content_type = Some(HeaderValue::from_static("text/plain"));
        Ok(Self { content_type, ..Self::put(target, body)? })
    }

    /// A `GET`.
    pub(crate) fn get(target: &str) -> Result<Self, Failure> {
        let (method, target) = (Method::GET, target.parse()?);
        Ok(Self { method, target, body: Bytes::new(), content_type: None })
    }
}

/// The client's half of a connection; the other half must be polled beside it.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

/// Moves the bytes of a [`Connection`].
pub(crate) type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

impl Connection {
    /// Connects. Both halves are polled by one task where it matters: a wake-up fewer per request.
    pub(crate) async fn open(node: SocketAddr) -> Result<(Self, Driver), Failure> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok((Self { sender, host: node.to_string().parse()? }, driver))
    }

    /// Connects, with a task for the other half.
    pub(crate) async fn open_alone(node: SocketAddr) -> Result<Self, Failure> {
        let (connection, driver) = Self::open(node).await?;
        // Ends when the connection is dropped.
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Sends a request and reads the answer to its end, keeping none of its body.
    pub(crate) async fn exchange(&mut self, request: &Prepared) -> Result<Parts, Failure> {
        self.sender.ready().await?;
        let (parts, mut body) = self.sender.send_request(self.request(request)).await?.into_parts();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(parts)
    }

    /// The same for what must succeed, and with the body.
    pub(crate) async fn fetch(&mut self, request: &Prepared) -> Result<(Parts, Bytes), Failure> {
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(self.request(request)).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        if parts.status.is_success() {
            return Ok((parts, body));
        }
        let text = String::from_utf8_lossy(&body);
        Err(format!("{} {}: {} {text}", request.method, request.target, parts.status).into())
    }

    fn request(&self, prepared: &Prepared) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = prepared.method.clone();
        *request.uri_mut() = prepared.target.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(content_type) = &prepared.content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        request
    }
}

/// Sends each request once, over a few connections to every node, and insists on success.
pub(crate) async fn send_all(nodes: &[SocketAddr], requests: Vec<Prepared>) -> Result<(), Failure> {
    /// Enough for the cluster to batch, few enough to start at once.
    const CONNECTIONS_PER_NODE: usize = 16;
    let requests = Arc::new(requests);
    let connections = nodes.len() * CONNECTIONS_PER_NODE;
    let mut senders = tokio::task::JoinSet::new();
    for first in 0..connections {
        let (node, requests) = (nodes[first % nodes.len()], Arc::clone(&requests));
        senders.spawn(async move {
            let mut connection = Connection::open_alone(node).await?;
            for request in requests.iter().skip(first).step_by(connections) {
                connection.fetch(request).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    Ok(())
}
