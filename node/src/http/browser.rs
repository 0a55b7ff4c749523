//! Which requests of browsers are served: a page can send requests to whatever its browser reaches, also to
//! servers in networks that its author does not reach.
//!
//! * **The name.** A server is asked by its IP address, as `localhost`, by a name of a member of the cluster, or by
//!   one that its operator has listed (`--http-allow-host`). A page of `evil.example` whose name is bound to this
//!   server's address in the meantime (DNS rebinding) asks for `evil.example`, and is refused. Its reads come without a
//!   sign of a browser, so this holds for all requests; what shows no such sign may also use names that nobody in the
//!   internet can own: those without a dot, and those under domains that are for private use ([`PRIVATE_DOMAINS`]).
//! * **The page.** A page of this server asks as it likes; one of another member as well, so that a dashboard goes on
//!   when its own server is gone. For that it needs headers of CORS, which it gets here. Other pages are refused,
//!   unless the operator has allowed them with an `Access-Control-Allow-Origin` of his own.
//!
//! Programs send no `Origin`, so the second rule does not concern them. tower-http's layer is not used because it answers
//! every `OPTIONS` itself, while Consul's clients get the list of an endpoint's methods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HOST, HeaderName, ORIGIN, RETRY_AFTER, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use quorate_storage::raft::Peer;

use super::error::ApiError;
use super::process::Process;
use crate::host::address::HostPort;
use crate::node::Node;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a page may read of an answer: headers that begin so, and `Retry-After`.
const EXPOSED: [&str; 2] = ["x-consul-", "x-quorate-"];
/// How long a browser may remember what a page may send, in seconds.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");
const HTTP_PORT: u16 = 80;

/// Domains that are not in the public DNS: reserved for private use, for this machine, or never delegated. Schedulers and
/// networks have their names there.
const PRIVATE_DOMAINS: [&str; 10] = [
    "localhost",
    "local",
    "internal",
    "home.arpa",
    "svc",
    "consul",
    "lan",
    "intranet",
    "corp",
    "home",
];
/// What stands for all names among those that an operator lists.
const ANY: &str = "any";

/// Whom a server knows.
#[derive(Debug)]
struct Known<'a> {
    /// The members of the cluster.
    members: Vec<&'a Peer>,
    /// Names by which the server may be asked, as its operator listed them.
    hosts: &'a [String],
    /// Whether the operator has said himself which pages may ask.
    has_own_rules: bool,
}

/// Who asks, once it is clear that he may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    /// A program, or a page of this server.
    Own,
    /// A page of another member.
    Page {
        /// Where the page is from, as its browser says.
        origin: HeaderValue,
        /// Set if the browser asks what the page may send: the headers that it wants to send.
        preflight: Option<Option<HeaderValue>>,
    },
}

/// Whether a request is to be served, for all that a browser may have sent it.
///
/// # Errors
/// 403: it asks for a name that is not known, or for a page that is not the cluster's.
pub(super) fn asker(request: &Request, node: &Node, process: &Process) -> Result<Asker, ApiError> {
    if !is_of_browser(request) && is_plain(request) {
        return Ok(Asker::Own);
    }
    let published = node.published();
    let known = Known {
        members: published.membership.nodes().map(|(_, peer)| peer).collect(),
        hosts: &process.hosts,
        has_own_rules: process.response_headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
    };
    judge(request, &known)
}

/// Whether a request shows that a browser has sent it. Not all do.
fn is_of_browser(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Whether a request is for a name that no page of the internet can have, whoever the members are.
fn is_plain(request: &Request) -> bool {
    let caller = request.extensions().get::<SocketAddr>();
    // No page reaches a socket in the file system, or what is asked inside this process.
    if caller.is_none_or(|caller| caller.port() == 0) {
        return true;
    }
    // Browsers always send one.
    let is_absent = request.uri().authority().is_none()
        && request.headers().get(HOST).is_none_or(HeaderValue::is_empty);
    is_absent || asked_for(request).is_some_and(|asked| is_private(&bare(asked.host())))
}

/// Whether a name is an address, or one that nobody in the internet can own.
fn is_private(name: &str) -> bool {
    let is_in = |domain: &&str| {
        name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !name.is_empty() && !name.contains('.')
        || name.parse::<IpAddr>().is_ok()
        || PRIVATE_DOMAINS.iter().any(is_in)
}

fn judge(request: &Request, known: &Known<'_>) -> Result<Asker, ApiError> {
    let headers = request.headers();
    let asked = asked_for(request);
    let name = asked.as_ref().map(|asked| bare(asked.host()));
    if !known.allows_any_name() && !name.as_ref().is_some_and(|name| known.is_name_of_ours(name)) {
        return Err(wrong_name(name.as_deref().unwrap_or_default()));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(Asker::Own) };
    let page = Page::of(origin);
    let is_own = page.as_ref().is_some_and(|page| {
        asked.is_some_and(|asked| page.authority.as_str().eq_ignore_ascii_case(asked.as_str()))
    });
    if is_own || known.has_own_rules {
        return Ok(Asker::Own);
    }
    if !page.is_some_and(|page| known.members.iter().any(|member| page.is_of(member))) {
        return Err(wrong_page(origin));
    }
    let asks =
        request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = asks.then(|| headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned());
    Ok(Asker::Page { origin: origin.clone(), preflight })
}

impl Asker {
    /// Tells a browser what a page of another member may do with an answer.
    pub(super) fn admit(self, answer: &mut Response) {
        let Self::Page { origin, preflight } = self else { return };
        let exposed = exposed(answer.headers());
        let methods = answer.headers().get(ALLOW).cloned();
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(exposed) = exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        let Some(wanted) = preflight else { return };
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
        if let Some(methods) = methods {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(wanted) = wanted {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
}

/// The names of those of an answer's headers that a page may read.
fn exposed(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_exposed = |name: &&str| {
        *name == RETRY_AFTER.as_str() || EXPOSED.iter().any(|begin| name.starts_with(begin))
    };
    let names: Vec<_> = headers.keys().map(HeaderName::as_str).filter(is_exposed).collect();
    // The index of the log is added to every answer.
    HeaderValue::from_str(&names.join(", ")).ok().filter(|names| !names.is_empty())
}

impl Known<'_> {
    /// Whether the operator does without the rule.
    fn allows_any_name(&self) -> bool {
        self.hosts.iter().any(|host| host == ANY)
    }

    /// Whether nobody but who runs this server has the name.
    fn is_name_of_ours(&self, name: &str) -> bool {
        let is_ip = name.parse::<IpAddr>().is_ok();
        let of_member = |peer: &&Peer| {
            let hosts = [&peer.http_addr, &peer.rpc_addr].map(|text| text.parse::<HostPort>());
            let hosts = hosts.iter().flatten().map(HostPort::host);
            hosts.chain([&*peer.name]).any(|host| host.eq_ignore_ascii_case(name))
        };
        is_ip
            || name == LOCALHOST
            || self.members.iter().any(of_member)
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }
}

const LOCALHOST: &str = "localhost";

/// The host that a request is for: HTTP/2 has it in the request line.
fn asked_for(request: &Request) -> Option<Authority> {
    let in_line = request.uri().authority().cloned();
    in_line.or_else(|| request.headers().get(HOST)?.to_str().ok()?.parse().ok())
}

/// A host without the brackets of an IPv6 address and the dot of an absolute name, in lower case.
fn bare(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

/// Where a page is from.
#[derive(Debug)]
struct Page {
    authority: Authority,
    is_encrypted: bool,
}

impl Page {
    fn of(origin: &HeaderValue) -> Option<Self> {
        let (scheme, rest) = origin.to_str().ok()?.split_once("://")?;
        let is_encrypted = scheme.eq_ignore_ascii_case("https");
        let is_web = is_encrypted || scheme.eq_ignore_ascii_case("http");
        let authority = rest.parse().ok().filter(|_| is_web)?;
        Some(Self { authority, is_encrypted })
    }

    /// Whether it is of a member: from its HTTP address, or its name with that port.
    fn is_of(&self, member: &Peer) -> bool {
        let Ok(address) = member.http_addr.parse::<HostPort>() else { return false };
        let host = bare(self.authority.host());
        let is_host = host.eq_ignore_ascii_case(address.host())
            || host.eq_ignore_ascii_case(&member.name)
            || is_loopback(&host) && is_loopback(address.host());
        let port = self.authority.port_u16().unwrap_or(HTTP_PORT);
        !self.is_encrypted && is_host && port == address.port()
    }
}

/// Whether a host is the browser's own, by one of its usual names.
fn is_loopback(host: &str) -> bool {
    let usual = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    host == LOCALHOST || host.parse().is_ok_and(|ip| usual.contains(&ip))
}

fn wrong_name(name: &str) -> ApiError {
    let text = format!(
        "{name:?} is no name of this cluster: refused, because a page in somebody's browser could have bound its own \
         name to this address (DNS rebinding). Use an IP address, or list the name with --http-allow-host \
         (ui_host of `quorate agent`)"
    );
    ApiError::new(StatusCode::FORBIDDEN, text)
}

fn wrong_page(origin: &HeaderValue) -> ApiError {
    let origin = origin.to_str().unwrap_or("that origin");
    let text = format!(
        "pages from {origin:?} may not ask this server: only those of the cluster's members may"
    );
    ApiError::new(StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn peer(id: u64, http_addr: &str) -> Peer {
        Peer {
            name: format!("n{id}"),
            rpc_addr: format!("rpc{id}.example:8300"),
            http_addr: http_addr.to_owned(),
            store_id: String::new(),
            agent_name: String::new(),
        }
    }

    fn request(method: Method, host: &str, headers: &[(HeaderName, &'static str)]) -> Request {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request
    }

    /// Who asks, in a cluster of `10.0.0.1:8500`, `n2.example:80` and `127.0.0.1:8520`.
    fn judged(request: &Request) -> Result<Asker, String> {
        let members =
            [peer(1, "10.0.0.1:8500"), peer(2, "n2.example:80"), peer(3, "127.0.0.1:8520")];
        let hosts = ["Discovery.example".to_owned()];
        let members = members.iter().collect();
        let known = Known { members, hosts: &hosts, has_own_rules: false };
        judge(request, &known).map_err(|refused| {
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            refused.text
        })
    }

    #[test]
    fn a_browser_asks_by_a_known_name() {
        let known = [
            "10.9.9.9:1",
            "[::1]:8500",
            "localhost:8500",
            "LOCALHOST",
            "n1",
            "n1.:80",
            "N2.example",
            "rpc3.example:8500",
            "discovery.example",
        ];
        for host in known {
            let of_browser = request(Method::GET, host, &[(SEC_FETCH_SITE, "same-origin")]);
            assert_eq!(judged(&of_browser), Ok(Asker::Own), "{host}");
        }
        for host in
            ["evil.example:8500", "n11", "n1.evil.example", "10.0.0.1.evil.example", "", "a b"]
        {
            let of_browser = request(Method::GET, host, &[(SEC_FETCH_SITE, "same-origin")]);
            let refused = judged(&of_browser).unwrap_err();
            assert!(refused.contains("--http-allow-host"), "{refused}");
        }
        let mut h2 = request(Method::GET, "10.0.0.1", &[(SEC_FETCH_SITE, "none")]);
        *h2.uri_mut() = "http://evil.example/v1/kv/a".parse().unwrap();
        assert!(judged(&h2).is_err());
    }

    #[test]
    fn an_operator_may_allow_other_pages_but_not_other_names() {
        let known = Known { members: Vec::new(), hosts: &[], has_own_rules: true };
        let of =
            |host| judge(&request(Method::GET, host, &[(ORIGIN, "http://wiki.example")]), &known);
        assert_eq!(of("10.0.0.1:8500"), Ok(Asker::Own));
        assert!(of("wiki.example:8500").is_err());
        let hosts = [ANY.to_owned()];
        let known = Known { members: Vec::new(), hosts: &hosts, has_own_rules: false };
        let of_program = request(Method::GET, "evil.example", &[]);
        assert_eq!(judge(&of_program, &known), Ok(Asker::Own));
    }

    #[test]
    fn a_program_may_use_names_that_no_page_can_have() {
        let plain = |host: &str, port: u16| {
            let mut request = request(Method::GET, host, &[]);
            request.extensions_mut().insert(SocketAddr::from(([10, 0, 0, 9], port)));
            is_plain(&request)
        };
        for host in [
            "10.1.1.1:8500",
            "[::1]",
            "quorate:8500",
            "quorate.team.svc",
            "q.default.svc.cluster.local:80",
            "consul.service.consul.",
            "localhost",
            "",
        ] {
            assert!(plain(host, 5), "{host}");
        }
        for host in ["evil.example", "evil.example:8500", "quorate.team", "notlocal.example", "a b"]
        {
            assert!(!plain(host, 5), "{host}");
            assert!(plain(host, 0), "{host} over a socket in the file system");
            assert!(judged(&request(Method::GET, host, &[])).is_err(), "{host}");
        }
    }

    #[test]
    fn pages_of_members_may_ask_and_others_not() {
        let of = |origin| judged(&request(Method::PUT, "10.0.0.1:8500", &[(ORIGIN, origin)]));
        assert_eq!(of("http://10.0.0.1:8500"), Ok(Asker::Own));
        // Behind a proxy that decrypts.
        assert_eq!(of("https://10.0.0.1:8500"), Ok(Asker::Own));
        for origin in [
            "http://n2.example",
            "http://n2.example:80",
            "http://n2",
            "http://n1:8500",
            "http://127.0.0.1:8520",
            "http://localhost:8520",
            "http://[::1]:8520",
        ] {
            let page = Asker::Page { origin: HeaderValue::from_static(origin), preflight: None };
            assert_eq!(of(origin), Ok(page));
        }
        for origin in [
            "http://evil.example",
            "null",
            "",
            "http://10.0.0.1:8501",
            "http://10.0.0.2:8500",
            "https://n2.example",
            "ftp://n2.example",
            "http://localhost:8500",
            "http://10.0.0.1:8500@evil.example",
            "http://127.0.0.2:8520",
            "file://n2.example",
        ] {
            assert!(
                of(origin).unwrap_err().contains("only those of the cluster's members"),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_page_of_a_member_is_told_what_it_may_send_and_read() {
        let origin = "http://localhost:8520";
        let asks = request(
            Method::OPTIONS,
            "10.0.0.1:8500",
            &[
                (ORIGIN, origin),
                (ACCESS_CONTROL_REQUEST_METHOD, "PUT"),
                (ACCESS_CONTROL_REQUEST_HEADERS, "last-event-id"),
            ],
        );
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("OPTIONS,GET,PUT"));
        answer.headers_mut().insert("X-Consul-Index", HeaderValue::from_static("7"));
        answer.headers_mut().insert("X-Other", HeaderValue::from_static("7"));
        answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        judged(&asks).unwrap().admit(&mut answer);
        let header = |name: HeaderName| answer.headers()[name].to_str().unwrap();
        assert_eq!(header(ACCESS_CONTROL_ALLOW_ORIGIN), origin);
        assert_eq!(header(ACCESS_CONTROL_ALLOW_METHODS), "OPTIONS,GET,PUT");
        assert_eq!(header(ACCESS_CONTROL_ALLOW_HEADERS), "last-event-id");
        assert_eq!(header(ACCESS_CONTROL_EXPOSE_HEADERS), "x-consul-index");
        assert_eq!(answer.headers().get_all(VARY).iter().count(), 2);
        let mut answer = Response::new(Body::empty());
        Asker::Own.admit(&mut answer);
        assert!(answer.headers().is_empty());
    }
}
