//! Each prober against a server of its kind on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use quorate_storage::Millis;
use quorate_storage::record::LaterMembers;

use super::lookup::Lookups;
use super::policy::Policy;
use super::*;

/// Longer than anything on loopback takes, and still no test waits for it.
const PATIENT: Millis = Millis(5_000);
/// For what is to be waited for.
const IMPATIENT: Millis = Millis(100);

fn definition() -> CheckDefinition {
    CheckDefinition { timeout: PATIENT, ..CheckDefinition::default() }
}

async fn run(definition: &CheckDefinition) -> Finding {
    let clock = Clock::monotonic();
    let policy = Policy { shows_body: true, ..Policy::default() };
    let resolver = Resolver::new(Arc::new(Lookups::new(clock.clone(), policy)), None);
    probe(definition, &resolver, &clock).await.expect("its look-up had its turn")
}

async fn fetch(url: &str) -> Finding {
    run(&CheckDefinition { http: url.to_owned(), ..definition() }).await
}

/// A port at which nobody listens: one that somebody has just left.
async fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// Serves HTTP/1 and HTTP/2, over TLS if an acceptor is given.
async fn serve<H, F>(handler: H, tls: Option<TlsAcceptor>) -> SocketAddr
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (handler, tls) = (handler.clone(), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let stream: Box<dyn connect::Io> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        // A client that does not like the certificate.
                        Err(_) => return,
                    },
                };
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// `/N` answers with status N; `/to/PATH` redirects; `/echo` tells what it was asked.
async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let redirect = |to: &str, code: u16| {
        Response::builder().status(code).header("location", to).body(full("moved")).unwrap()
    };
    if let Some(to) = path.strip_prefix("/to") {
        return redirect(to, 302);
    }
    match path.as_str() {
        "/loop" => redirect("/loop", 302),
        "/kept" => redirect("/echo", 307),
        "/echo" => {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let header = |name: &str| {
                let values = head.headers.get_all(name).iter();
                values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(",")
            };
            let names = ["host", "user-agent", "accept", "x-a", "authorization", "connection"];
            let headers: Vec<String> =
                names.iter().map(|name| format!("{name}={}", header(name))).collect();
            let body = String::from_utf8_lossy(&body);
            Response::new(full(format!("{} {body} {}", head.method, headers.join(" "))))
        }
        "/long" => Response::new(full("\u{e9}".repeat(100_000))),
        "/endless" => {
            let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) });
            let rest = first.chain(stream::pending());
            Response::new(StreamBody::new(rest).boxed_unsync())
        }
        "/silent" => std::future::pending().await,
        code => {
            let code: u16 = code[1..].parse().unwrap();
            Response::builder().status(code).body(full(format!("body {code}"))).unwrap()
        }
    }
}

#[tokio::test]
async fn the_status_of_an_answer_decides() {
    let base = format!("http://{}", serve(answer, None).await);
    for (path, status, output) in [
        ("/200", CheckStatus::Passing, "200 OK Output: body 200"),
        ("/204", CheckStatus::Passing, "204 No Content Output: "),
        // The words are the server's own, here those of hyper for a code that has none.
        ("/299", CheckStatus::Passing, "299 <none> Output: body 299"),
        ("/304", CheckStatus::Critical, "304 Not Modified Output: "),
        ("/404", CheckStatus::Critical, "404 Not Found Output: body 404"),
        ("/429", CheckStatus::Warning, "429 Too Many Requests Output: body 429"),
        ("/503", CheckStatus::Critical, "503 Service Unavailable Output: body 503"),
        ("/to/200", CheckStatus::Passing, "200 OK Output: body 200"),
    ] {
        let url = format!("{base}{path}");
        let found = fetch(&url).await;
        assert_eq!(found.status, status, "{found:?}");
        assert!(found.output.starts_with(&format!("HTTP GET {url}: {output}")), "{found:?}");
    }
}

#[tokio::test]
async fn a_request_is_what_its_definition_says() {
    let address = serve(answer, None).await;
    let header = [("X-A".to_owned(), vec!["1".to_owned(), "2".to_owned()])];
    let asked = CheckDefinition {
        http: format!("http://user:p%20w@{address}/echo?x=y"),
        method: "POST".to_owned(),
        body: "hello".to_owned(),
        header: Some(header.into()),
        ..definition()
    };
    let output = run(&asked).await.output;
    let told = format!(
        "POST hello host={address} user-agent=Consul Health Check \
         accept=text/plain, text/*, */* x-a=1,2 authorization=Basic dXNlcjpwIHc= connection=close"
    );
    assert!(output.ends_with(&told), "{output}");
    let own = [("host", "example.com"), ("user-agent", "me"), ("content-length", "7")];
    let own = own.map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
    let url = format!("http://{address}/echo");
    let asked = CheckDefinition { http: url, header: Some(own.into()), ..definition() };
    let output = run(&asked).await.output;
    assert!(output.contains("GET  host=example.com user-agent=me"), "{output}");
}

#[tokio::test]
async fn redirects_are_followed_as_a_client_would_and_not_for_ever() {
    let address = serve(answer, None).await;
    let posted = |path: &str| CheckDefinition {
        http: format!("http://{address}{path}"),
        method: "POST".to_owned(),
        body: "hello".to_owned(),
        ..definition()
    };
    assert!(run(&posted("/to/echo")).await.output.contains("Output: GET  host="));
    assert!(run(&posted("/kept")).await.output.contains("Output: POST hello host="));
    let looped = fetch(&format!("http://{address}/loop")).await;
    assert_eq!(looped.status, CheckStatus::Critical);
    assert!(looped.output.ends_with("stopped after 10 redirects"), "{looped:?}");
    let stays = CheckDefinition { disable_redirects: true, ..posted("/to/200") };
    let found = run(&stays).await;
    assert_eq!(found.status, CheckStatus::Critical);
    assert!(found.output.contains("302 Found"), "{found:?}");
}

#[tokio::test]
async fn what_an_answer_costs_is_bounded() {
    let base = format!("http://{}", serve(answer, None).await);
    let kept = |found: &Finding| found.output.split_once("Output: ").unwrap().1.len();
    let long = fetch(&format!("{base}/long")).await;
    assert_eq!((long.status.clone(), kept(&long)), (CheckStatus::Passing, OUTPUT_BYTES_DEFAULT));
    let http = format!("{base}/long");
    let odd = CheckDefinition { output_max_bytes: 11, http: http.clone(), ..definition() };
    assert_eq!(kept(&run(&odd).await), 10, "half a character is none");
    let greedy = CheckDefinition { output_max_bytes: u32::MAX, http, ..definition() };
    assert_eq!(kept(&run(&greedy).await), OUTPUT_BYTES_MAX);
    let http = format!("{base}/endless");
    let endless = run(&CheckDefinition { http, timeout: IMPATIENT, ..definition() }).await;
    assert_eq!(endless.status, CheckStatus::Passing, "{endless:?}");
    assert!(endless.output.ends_with("200 OK Output: begun"), "{endless:?}");
    let http = format!("{base}/silent");
    let silent = run(&CheckDefinition { http, timeout: IMPATIENT, ..definition() }).await;
    assert_eq!(silent.status, CheckStatus::Critical);
    assert!(silent.output.contains("deadline exceeded"), "{silent:?}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_critical_and_says_why() {
    let dead = dead_address().await;
    let method = CheckDefinition {
        http: format!("http://{dead}/"),
        method: "not a method".to_owned(),
        ..definition()
    };
    let header = [("bad name".to_owned(), vec!["1".to_owned()])];
    let header = CheckDefinition {
        http: format!("http://{dead}/"),
        header: Some(header.into()),
        ..definition()
    };
    for (found, words) in [
        (fetch(&format!("http://{dead}/")).await, "connect: connection refused"),
        (fetch("ftp://127.0.0.1/").await, "unsupported protocol scheme \"ftp\""),
        (fetch("http://").await, "empty host"),
        (fetch("nonsense").await, "relative URL without a base"),
        (fetch("mailto:a@b").await, "no Host in request URL"),
        (run(&method).await, "invalid method"),
        (run(&header).await, "invalid header field name"),
    ] {
        assert_eq!(found.status, CheckStatus::Critical);
        assert!(found.output.contains(words), "{words}: {found:?}");
    }
    let text = fetch(&format!("http://{dead}/")).await.output;
    assert!(text.starts_with(&format!("Get \"http://{dead}/\": dial tcp {dead}: ")), "{text}");
}

#[tokio::test]
async fn a_tcp_check_passes_when_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = CheckDefinition { tcp: address.to_string(), ..definition() };
    let success = Finding::passing(format!("TCP connect {address}: Success"));
    assert_eq!(run(&open).await, success);
    let silent = CheckDefinition { tcp_use_tls: true, timeout: IMPATIENT, ..open };
    let found = run(&silent).await;
    assert_eq!(found.status, CheckStatus::Critical);
    assert!(found.output.contains("i/o timeout"), "{found:?}");
    let dead = dead_address().await;
    let found = run(&CheckDefinition { tcp: dead.to_string(), ..definition() }).await;
    let refused = format!("dial tcp {dead}: connect: connection refused");
    assert_eq!(found, Finding::critical(refused));
}

/// TLS as `localhost`, with a certificate that nobody knows.
fn acceptor() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn a_certificate_is_verified_unless_the_definition_says_otherwise() {
    let address = serve(answer, Some(acceptor())).await;
    let url = format!("https://{address}/200");
    let checks = [
        CheckDefinition { http: url, ..definition() },
        CheckDefinition { tcp: address.to_string(), tcp_use_tls: true, ..definition() },
        CheckDefinition { h2ping: address.to_string(), ..definition() },
    ];
    for strict in checks {
        let found = run(&strict).await;
        assert_eq!(found.status, CheckStatus::Critical, "{found:?}");
        assert!(found.output.contains("certificate"), "{found:?}");
        let lenient = CheckDefinition { tls_skip_verify: true, ..strict };
        let found = run(&lenient).await;
        assert_eq!(found.status, CheckStatus::Passing, "{found:?}");
        let named = CheckDefinition { tls_server_name: "localhost".to_owned(), ..lenient };
        assert_eq!(run(&named).await.status, CheckStatus::Passing);
        let odd = CheckDefinition { tls_server_name: "not a name".to_owned(), ..named };
        assert_eq!(run(&odd).await.status, CheckStatus::Critical);
    }
}

#[tokio::test]
async fn an_http2_ping_wants_http2() {
    let address = serve(answer, None).await;
    let ping = |address: SocketAddr| CheckDefinition {
        h2ping: address.to_string(),
        later: LaterMembers { h2ping_use_tls: Some(false), ..LaterMembers::default() },
        ..definition()
    };
    let success = Finding::passing("HTTP2 ping was successful".to_owned());
    assert_eq!(run(&ping(address)).await, success);
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude_address = rude.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _): (TcpStream, _) = rude.accept().await.unwrap();
        drop(stream);
    });
    let found = run(&ping(rude_address)).await;
    assert!(found.output.starts_with("HTTP2 ping failed: "), "{found:?}");
    let dead = run(&ping(dead_address().await)).await;
    assert!(dead.output.starts_with("Failed to dial to "), "{dead:?}");
}

/// Answers gRPC's health protocol: service `up` serves, `down` does not, others are unknown.
async fn health(request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    // Five bytes of frame, two of field and length, then the name.
    let name = asked.get(7..).unwrap_or_default();
    let (serving, code) = match name {
        b"" | b"up" => (1, "0"),
        b"down" => (2, "0"),
        _ => (0, "5"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers.insert("grpc-message", "unknown service".parse().unwrap());
    let mut frames = vec![];
    if code == "0" {
        frames.push(Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]))));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(stream::iter(frames)).boxed_unsync())
        .unwrap()
}

#[tokio::test]
async fn a_grpc_check_asks_for_the_health_of_a_service() {
    let plain = serve(health, None).await;
    let ask = |target: String| CheckDefinition { grpc: target, ..definition() };
    for target in [plain.to_string(), format!("{plain}/up")] {
        let found = run(&ask(target.clone())).await;
        assert_eq!(found, Finding::passing(format!("gRPC check {target}: success")));
    }
    let found = run(&ask(format!("{plain}/down"))).await;
    let down = format!("gRPC {plain}/down serving status: NOT_SERVING");
    assert_eq!(found, Finding::critical(down));
    let found = run(&ask(format!("{plain}/other"))).await;
    assert_eq!(found.output, "rpc error: code = NotFound desc = unknown service");
    let dead = dead_address().await;
    let found = run(&ask(dead.to_string())).await;
    assert_eq!(found.status, CheckStatus::Critical);
    assert!(found.output.contains("code = Unavailable"), "{found:?}");
    assert!(found.output.contains("connection refused"), "{found:?}");
    let secret = serve(health, Some(acceptor())).await;
    let over_tls =
        CheckDefinition { grpc_use_tls: true, tls_skip_verify: true, ..ask(secret.to_string()) };
    assert_eq!(run(&over_tls).await.status, CheckStatus::Passing);
}

#[tokio::test]
async fn a_udp_check_fails_only_when_it_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let ask = |timeout| CheckDefinition { udp: address.to_string(), timeout, ..definition() };
    let success = Finding::passing(format!("UDP connect {address}: Success"));
    assert_eq!(run(&ask(IMPATIENT)).await, success, "silence");
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 16];
        for _ in 0..2 {
            let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(b"x", from).await.unwrap();
        }
    });
    assert_eq!(run(&ask(PATIENT)).await, success, "an answer");
    answering.abort();
    let _ = answering.await;
    let found = run(&ask(PATIENT)).await;
    assert_eq!(found.status, CheckStatus::Critical, "{found:?}");
    assert!(found.output.contains("connection refused"), "{found:?}");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_critical() {
    let address = serve(answer, None).await;
    for elsewhere in ["http://169.254.169.254/secret", "http://localhost/", "//127.0.0.2/"] {
        let found = fetch(&format!("http://{address}/to{elsewhere}")).await;
        assert_eq!(found.status, CheckStatus::Critical, "{found:?}");
        assert!(found.output.contains("another host, where no check follows"), "{found:?}");
    }
}

#[tokio::test]
async fn what_a_target_answers_is_told_only_if_that_is_wanted() {
    let address = serve(answer, None).await;
    let clock = Clock::monotonic();
    let lookups = Arc::new(Lookups::new(clock.clone(), Policy::default()));
    let definition = CheckDefinition { http: format!("http://{address}/503"), ..definition() };
    let found = probe(&definition, &Resolver::new(lookups, None), &clock).await.unwrap();
    let output = format!("HTTP GET http://{address}/503: 503 Service Unavailable");
    assert_eq!(found, Finding::critical(output));
}

#[tokio::test]
async fn a_link_local_target_is_critical() {
    let target = "169.254.169.254:80".to_owned();
    let checks = [
        // The same address as one number.
        CheckDefinition { http: "http://2852039166/".to_owned(), ..definition() },
        CheckDefinition { tcp: target.clone(), ..definition() },
        CheckDefinition { udp: target.clone(), ..definition() },
        CheckDefinition { grpc: target.clone(), ..definition() },
        CheckDefinition { h2ping: target, ..definition() },
    ];
    for check in checks {
        let found = run(&check).await;
        assert_eq!(found.status, CheckStatus::Critical, "{found:?}");
        assert!(found.output.contains("169.254.169.254 is link-local"), "{found:?}");
    }
}

#[test]
fn no_definition_may_take_longer_than_the_limit() {
    let given = |millis| CheckDefinition { timeout: Millis(millis), ..definition() };
    assert_eq!(timeout(&given(0)), TIMEOUT_DEFAULT);
    assert_eq!(timeout(&given(1)), Duration::from_millis(1));
    assert_eq!(timeout(&given(36_000_000_000)), TIMEOUT_MAX);
}

#[tokio::test]
async fn the_first_of_several_targets_in_consuls_order_counts() {
    let several = CheckDefinition {
        tcp: "a:1".to_owned(),
        grpc: "b:1".to_owned(),
        alias_service: "web".to_owned(),
        ..definition()
    };
    assert_eq!(target_of(&several), Some(Target::Tcp));
    let nothing = run(&definition()).await;
    assert_eq!(nothing.status, CheckStatus::Critical);
}
