//! HTTP checks: 2xx passes, 429 warns, anything else is critical.
//!
//! Each run is a connection of its own, as in Consul: a kept one would tell of the past.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_storage::record::{CheckDefinition, CheckStatus};
use url::Url;

use super::Finding;
use super::connect::{Tls, beside, connect};
use super::lookup::Resolver;
use crate::host::causes::with_causes;
use crate::host::clock::Clock;

/// How many redirects are followed (Go's limit).
const REDIRECTS_MAX: usize = 10;
/// The longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What a check asks for unless its definition says otherwise.
const ACCEPT: &str = "text/plain, text/*, */*";
/// Who a check says it is. Services tell checks from users by it, so it is Consul's name.
const USER_AGENT: &str = "Consul Health Check";
/// What is for the first host only, and not for one that it redirects to.
const CONFIDENTIAL: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::WWW_AUTHENTICATE, header::HOST];

/// What is sent; a redirect changes it.
struct Asked {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// What a run needs beside the definition.
struct Run<'a> {
    definition: &'a CheckDefinition,
    resolver: &'a Resolver,
    clock: &'a Clock,
    /// For head and body together.
    timeout: Duration,
    output_bytes_max: usize,
}

/// One step of a run.
enum Step {
    /// The answer, and what was read of its body.
    Answered { status: String, code: StatusCode, body: Vec<u8> },
    /// Somewhere else.
    Redirected(Asked),
}

/// Fetches the URL.
pub(super) async fn probe(
    definition: &CheckDefinition,
    resolver: &Resolver,
    clock: &Clock,
    timeout: Duration,
    output_bytes_max: usize,
) -> Finding {
    let method = method_of(definition);
    let run = Run { definition, resolver, clock, timeout, output_bytes_max };
    match run.fetch().await {
        Ok((status, code, body)) => {
            let mut output = format!("HTTP {method} {}: {status}", definition.http);
            if resolver.shows_body() {
                output.push_str(" Output: ");
                output.push_str(&text_of(body));
            }
            Finding { status: status_of(code), output }
        }
        Err(error) => Finding::critical(format!("{} {:?}: {error}", verb(method), definition.http)),
    }
}

impl Run<'_> {
    async fn fetch(&self) -> Result<(String, StatusCode, Vec<u8>), String> {
        let began = self.clock.now();
        let mut asked = first_request(self.definition)?;
        for _ in 0..=REDIRECTS_MAX {
            let left = self.timeout.saturating_sub(self.clock.now().since(began));
            match self.step(asked, left).await? {
                Step::Answered { status, code, body } => return Ok((status, code, body)),
                Step::Redirected(next) => asked = next,
            }
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    }

    /// One request and its answer, within `left`.
    async fn step(&self, asked: Asked, left: Duration) -> Result<Step, String> {
        let too_late = || "context deadline exceeded (no answer in time)".to_owned();
        let began = self.clock.now();
        let connected = self.clock.timeout(left, self.open(&asked.url)).await;
        let stream = connected.map_err(|_| too_late())??;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let request = request_of(&asked)?;
        let exchange = async {
            let left = left.saturating_sub(self.clock.now().since(began));
            let answer = self.clock.timeout(left, sender.send_request(request)).await;
            let answer = answer.map_err(|_| too_late())?.map_err(|error| with_causes(&error))?;
            if !self.definition.disable_redirects
                && let Some(next) = redirected(&asked, &answer)?
            {
                return Ok(Step::Redirected(next));
            }
            let left = left.saturating_sub(self.clock.now().since(began));
            Ok(self.answered(answer, left).await)
        };
        beside(connection, exchange).await
    }

    async fn open(&self, url: &Url) -> Result<Box<dyn super::connect::Io>, String> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("no Host in request URL".to_owned());
        };
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(Tls {
                server_name: &self.definition.tls_server_name,
                skip_verify: self.definition.tls_skip_verify,
                protocol: b"http/1.1",
            }),
            other => return Err(format!("unsupported protocol scheme {other:?}")),
        };
        connect(self.resolver, &format!("{host}:{port}"), tls)
            .await
            .map_err(|error| error.to_string())
    }

    /// The status decides; of the body is kept what came in time and fits.
    async fn answered(&self, answer: Response<Incoming>, left: Duration) -> Step {
        let code = answer.status();
        let status = status_line(&answer);
        let mut body = Vec::new();
        let reading = read(answer.into_body(), self.output_bytes_max, &mut body);
        // Not an error: the head has said what there is to know.
        let _ = self.clock.timeout(left, reading).await;
        Step::Answered { status, code, body }
    }
}

fn status_of(code: StatusCode) -> CheckStatus {
    if code.is_success() {
        CheckStatus::Passing
    } else if code == StatusCode::TOO_MANY_REQUESTS {
        CheckStatus::Warning
    } else {
        CheckStatus::Critical
    }
}

fn method_of(definition: &CheckDefinition) -> &str {
    if definition.method.is_empty() { "GET" } else { &definition.method }
}

/// `Get`, as Go begins its errors.
fn verb(method: &str) -> String {
    let mut letters = method.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect()
}

fn first_request(definition: &CheckDefinition) -> Result<Asked, String> {
    let url = Url::parse(&definition.http).map_err(|error| error.to_string())?;
    let method = method_of(definition);
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("net/http: invalid method {method:?}"))?;
    let body = Bytes::copy_from_slice(definition.body.as_bytes());
    let mut headers = HeaderMap::new();
    for (name, values) in definition.header.iter().flatten() {
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
        for value in values {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
            headers.append(field.clone(), value);
        }
    }
    let default = |value: &'static str| HeaderValue::from_static(value);
    headers.entry(header::USER_AGENT).or_insert_with(|| default(USER_AGENT));
    headers.entry(header::ACCEPT).or_insert_with(|| default(ACCEPT));
    headers.insert(header::CONNECTION, default("close"));
    // The length is that of what is sent, not what the definition says.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    Ok(Asked { method, url, headers, body })
}

/// The request as it goes over the connection.
fn request_of(asked: &Asked) -> Result<Request<Full<Bytes>>, String> {
    let url = &asked.url;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::builder().method(&asked.method).uri(path);
    let mut headers = asked.headers.clone();
    if !headers.contains_key(header::HOST) {
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
        headers.insert(header::HOST, host);
    }
    if !headers.contains_key(header::AUTHORIZATION)
        && let Some(basic) = basic_credentials(url)
    {
        headers.insert(header::AUTHORIZATION, basic);
    }
    if let Some(all) = request.headers_mut() {
        *all = headers;
    }
    request.body(Full::new(asked.body.clone())).map_err(|error| error.to_string())
}

/// `user:password@` of a URL.
fn basic_credentials(url: &Url) -> Option<HeaderValue> {
    let password = url.password();
    if url.username().is_empty() && password.is_none() {
        return None;
    }
    let plain = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = plain(url.username());
    pair.push(b':');
    pair.extend(plain(password.unwrap_or_default()));
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()
}

/// Where an answer sends the client, if it does: to another place on the same host.
fn redirected(asked: &Asked, answer: &Response<Incoming>) -> Result<Option<Asked>, String> {
    let keeps_method = match answer.status().as_u16() {
        301..=303 => asked.method == Method::GET || asked.method == Method::HEAD,
        307 | 308 => true,
        _ => return Ok(None),
    };
    let Some(location) = answer.headers().get(header::LOCATION) else { return Ok(None) };
    let location = String::from_utf8_lossy(location.as_bytes());
    let url = asked.url.join(&location);
    let url =
        url.map_err(|error| format!("failed to parse Location header {location:?}: {error}"))?;
    let mut headers = asked.headers.clone();
    if url.host() != asked.url.host() {
        let host = url.host_str().unwrap_or_default();
        return Err(format!("redirected to {host:?}, another host, where no check follows"));
    }
    if url.port() != asked.url.port() {
        CONFIDENTIAL.iter().for_each(|name| drop(headers.remove(name)));
    }
    let (method, body) = match keeps_method {
        true => (asked.method.clone(), asked.body.clone()),
        false => (Method::GET, Bytes::new()),
    };
    Ok(Some(Asked { method, url, headers, body }))
}

/// `200 OK`, in the server's own words.
fn status_line(answer: &Response<Incoming>) -> String {
    let code = answer.status();
    let own = answer.extensions().get::<ReasonPhrase>();
    let reason = own.map(|own| String::from_utf8_lossy(own.as_bytes()).into_owned());
    let reason = reason.unwrap_or_else(|| code.canonical_reason().unwrap_or_default().to_owned());
    format!("{} {reason}", code.as_u16())
}

/// Reads a body until it ends or `max` bytes are there.
async fn read(mut body: Incoming, max: usize, kept: &mut Vec<u8>) {
    while kept.len() < max
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            let room = max - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
}

/// What was read, as text. A character that was cut in two at the end is left out.
fn text_of(mut body: Vec<u8>) -> String {
    if let Err(error) = std::str::from_utf8(&body)
        && error.error_len().is_none()
    {
        body.truncate(error.valid_up_to());
    }
    String::from_utf8_lossy(&body).into_owned()
}
