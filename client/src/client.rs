//! A small asynchronous client over several servers.
//!
//! Every server answers every request, so the client sticks to one address while it answers and
//! tries the next when it does not. It never sends a write twice that may have taken effect:
//! a write goes to the next address only when no connection could be made, a read after any
//! failure. What the server says, 500 included, is handed to the caller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::http::{ANSWER_TIMEOUT, Answer, Http, shared_client};
use crate::types::agent::{
    AgentSelf, AgentService, CheckRegistration, CheckUpdate, Member, ServiceRegistration,
};
use crate::types::catalog::{CatalogService, Deregistration, Node, NodeServices, Registration};
use crate::types::health::{HealthCheck, ServiceEntry};
use crate::types::kv::KvPair;
use crate::types::operator::RaftConfiguration;
use crate::types::quorate::StateHash;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What stays as it is in a path: a key's slashes separate nothing, but read better.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What stays as it is in a query string.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client; cheap to clone, and its clones share connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Vec<Http>,
    /// The server that answered last.
    current: AtomicUsize,
    answer_timeout: Duration,
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    answer_timeout: Duration,
    connect_timeout: Duration,
    agent: Option<String>,
}

impl ClientBuilder {
    /// How long an answer may take; a blocking query's wait comes on top.
    #[must_use]
    pub const fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// How long a connection may take to be made.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Asks as this agent, whatever the address that requests come from.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agent = Some(name.into());
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// [`Error::Configuration`] if there is no address, or an agent's name that no header can have.
    pub fn build(self) -> Result<Client, Error> {
        if self.addresses.is_empty() {
            return Err(Error::Configuration("no address given".to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(agent) = &self.agent {
            let agent = HeaderValue::from_str(agent);
            let agent = agent.map_err(|error| Error::Configuration(error.to_string()))?;
            headers.insert("X-Quorate-Agent", agent);
        }
        let http = shared_client(self.connect_timeout, headers)?;
        let server = |base: &String| Http::shared(http.clone(), base, self.answer_timeout);
        Ok(Client(Arc::new(Inner {
            servers: self.addresses.iter().map(server).collect(),
            current: AtomicUsize::new(0),
            answer_timeout: self.answer_timeout,
        })))
    }
}

/// How to read: consistency, blocking, filters.
#[derive(Debug, Clone, Default)]
pub struct Query {
    stale: bool,
    wait: Option<Duration>,
    pairs: Vec<(&'static str, String)>,
}

impl Query {
    /// A default (linearizable) read that does not block.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the asked server's own state, which may lag.
    #[must_use]
    pub const fn stale(mut self) -> Self {
        self.stale = true;
        self
    }

    /// Blocks until the index is greater than `index`, or `wait` is over.
    #[must_use]
    pub fn after(mut self, index: u64, wait: Duration) -> Self {
        self.wait = Some(wait);
        self.with("index", index.to_string()).with("wait", format!("{}ms", wait.as_millis()))
    }

    /// Only instances whose every check passes.
    #[must_use]
    pub fn passing(self) -> Self {
        self.with("passing", "1")
    }

    /// Only instances with this tag.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with("tag", tag)
    }

    /// Any other parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.pairs.push((name, value.into()));
        self
    }

    /// As a query string with its question mark, or nothing.
    fn render(&self) -> String {
        let stale = self.stale.then(|| ("stale", String::new()));
        let mut text = String::new();
        for (name, value) in stale.iter().chain(&self.pairs) {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, QUERY));
        }
        text
    }
}

/// An answer with what its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<T> {
    /// The body.
    pub value: T,
    /// `X-Consul-Index`, if sent.
    pub index: Option<u64>,
    /// `X-Consul-KnownLeader`, if sent.
    pub known_leader: Option<bool>,
    /// `X-Consul-LastContact` in milliseconds, if sent.
    pub last_contact_ms: Option<u64>,
}

/// What `PUT` and `DELETE` of a key answer: whether the condition held.
pub type Written = bool;

impl<T> Response<T> {
    fn of(answer: &Answer, value: T) -> Self {
        Self {
            value,
            index: answer.index(),
            known_leader: answer.known_leader(),
            last_contact_ms: answer.last_contact_ms(),
        }
    }
}

impl Client {
    /// A client of one or several servers, given as `http://HOST:PORT`.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> ClientBuilder {
        ClientBuilder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            answer_timeout: ANSWER_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            agent: None,
        }
    }

    /// A client with the usual timeouts.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder(addresses).build()
    }

    // ---- key-value store -------------------------------------------------------------------

    /// One key; `None` if it does not exist.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_get(
        &self,
        key: &str,
        query: &Query,
    ) -> Result<Response<Option<KvPair>>, Error> {
        let (answer, pairs) = self.kv_read::<Vec<KvPair>>(key, query).await?;
        Ok(Response::of(&answer, pairs.into_iter().next()))
    }

    /// All keys below a prefix, in byte order; empty if there are none.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_list(
        &self,
        prefix: &str,
        query: &Query,
    ) -> Result<Response<Vec<KvPair>>, Error> {
        let query = query.clone().with("recurse", "");
        let (answer, pairs) = self.kv_read(prefix, &query).await?;
        Ok(Response::of(&answer, pairs))
    }

    /// The names of all keys below a prefix, in byte order; empty if there are none.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_keys(
        &self,
        prefix: &str,
        query: &Query,
    ) -> Result<Response<Vec<String>>, Error> {
        let query = query.clone().with("keys", "");
        let (answer, keys) = self.kv_read(prefix, &query).await?;
        Ok(Response::of(&answer, keys))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_put(&self, key: &str, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.kv_put_with(key, value, &Query::new()).await
    }

    /// Writes a key if its `ModifyIndex` is `index`; 0: if it does not exist.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_cas(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        index: u64,
    ) -> Result<Written, Error> {
        self.kv_put_with(key, value, &Query::new().with("cas", index.to_string())).await
    }

    /// Writes a key with parameters (`flags`, `cas`, `acquire`, `release`).
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_put_with(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        query: &Query,
    ) -> Result<Written, Error> {
        self.write(Method::PUT, &kv_path(key), query, value.into()).await?.json()
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_delete(&self, key: &str) -> Result<Written, Error> {
        self.kv_delete_with(key, &Query::new()).await
    }

    /// Deletes with parameters (`recurse`, `cas`).
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn kv_delete_with(&self, key: &str, query: &Query) -> Result<Written, Error> {
        self.write(Method::DELETE, &kv_path(key), query, Bytes::new()).await?.json()
    }

    async fn kv_read<T: DeserializeOwned + Default>(
        &self,
        key: &str,
        query: &Query,
    ) -> Result<(Answer, T), Error> {
        let (server, answer) =
            self.try_all(&Method::GET, &kv_path(key), query, &Bytes::new()).await?;
        // Without an index the 404 did not come from the key-value store.
        if answer.status == 404 && answer.index().is_some() {
            return Ok((answer, T::default()));
        }
        let answer = server.succeeded(&Method::GET, &kv_path(key), answer)?;
        let value = answer.json()?;
        Ok((answer, value))
    }

    // ---- agent -----------------------------------------------------------------------------

    /// Registers a service instance of the asking host's agent.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn register_service(&self, service: &ServiceRegistration) -> Result<(), Error> {
        self.put_json("/v1/agent/service/register", service).await
    }

    /// Removes a service instance by its id.
    ///
    /// # Errors
    /// As every request: see [`Error`]; status 404 if no agent has it.
    pub async fn deregister_service(&self, id: &str) -> Result<(), Error> {
        self.put_id("/v1/agent/service/deregister/", id, &Query::new()).await
    }

    /// Registers a check of the asking host's agent.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn register_check(&self, check: &CheckRegistration) -> Result<(), Error> {
        self.put_json("/v1/agent/check/register", check).await
    }

    /// Removes a check by its id.
    ///
    /// # Errors
    /// As every request: see [`Error`]; status 404 if no agent has it.
    pub async fn deregister_check(&self, id: &str) -> Result<(), Error> {
        self.put_id("/v1/agent/check/deregister/", id, &Query::new()).await
    }

    /// Heartbeats a TTL check: passing.
    ///
    /// # Errors
    /// As every request: see [`Error`]; status 404 if no agent has it.
    pub async fn pass_check(&self, id: &str, note: &str) -> Result<(), Error> {
        self.put_id("/v1/agent/check/pass/", id, &Query::new().with("note", note)).await
    }

    /// Heartbeats a TTL check with a status and an output.
    ///
    /// # Errors
    /// As every request: see [`Error`]; status 404 if no agent has it.
    pub async fn update_check(&self, id: &str, update: &CheckUpdate) -> Result<(), Error> {
        self.put_json(&with_id("/v1/agent/check/update/", id), update).await
    }

    /// The asking host's service instances by id.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn agent_services(
        &self,
        query: &Query,
    ) -> Result<BTreeMap<String, AgentService>, Error> {
        Ok(self.get("/v1/agent/services", query).await?.value)
    }

    /// The asking host's checks by id.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn agent_checks(
        &self,
        query: &Query,
    ) -> Result<BTreeMap<String, HealthCheck>, Error> {
        Ok(self.get("/v1/agent/checks", query).await?.value)
    }

    /// What the server says of itself and of the asking host's agent.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn agent_self(&self) -> Result<AgentSelf, Error> {
        Ok(self.get("/v1/agent/self", &Query::new()).await?.value)
    }

    /// The servers of the cluster.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        Ok(self.get("/v1/agent/members", &Query::new()).await?.value)
    }

    // ---- catalogue and health --------------------------------------------------------------

    /// Registers a node, and a service and checks on it.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn catalog_register(&self, registration: &Registration) -> Result<(), Error> {
        self.put_json("/v1/catalog/register", registration).await
    }

    /// Removes a check, a service, or a node with all below it.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn catalog_deregister(&self, what: &Deregistration) -> Result<(), Error> {
        self.put_json("/v1/catalog/deregister", what).await
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn nodes(&self, query: &Query) -> Result<Response<Vec<Node>>, Error> {
        self.get("/v1/catalog/nodes", query).await
    }

    /// A node with its instances; `None` if it does not exist.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn node(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Option<NodeServices>>, Error> {
        self.get(&with_id("/v1/catalog/node/", name), query).await
    }

    /// Service names with the union of their instances' tags.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn services(
        &self,
        query: &Query,
    ) -> Result<Response<BTreeMap<String, Vec<String>>>, Error> {
        self.get("/v1/catalog/services", query).await
    }

    /// Instances of a service.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn service(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Vec<CatalogService>>, Error> {
        self.get(&with_id("/v1/catalog/service/", name), query).await
    }

    /// Instances of a service with their checks.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn health_service(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Vec<ServiceEntry>>, Error> {
        self.get(&with_id("/v1/health/service/", name), query).await
    }

    /// Checks in a state: `any`, `passing`, `warning`, `critical`.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn health_state(
        &self,
        state: &str,
        query: &Query,
    ) -> Result<Response<Vec<HealthCheck>>, Error> {
        self.get(&with_id("/v1/health/state/", state), query).await
    }

    // ---- the cluster -----------------------------------------------------------------------

    /// `IP:PORT` of the leader, as the asked server knows it; `None` without one.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn leader(&self) -> Result<Option<String>, Error> {
        let leader: String = self.get("/v1/status/leader", &Query::new()).await?.value;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// `IP:PORT` of all servers.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn peers(&self) -> Result<Vec<String>, Error> {
        Ok(self.get("/v1/status/peers", &Query::new()).await?.value)
    }

    /// The Raft membership.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn raft_configuration(&self, query: &Query) -> Result<RaftConfiguration, Error> {
        Ok(self.get("/v1/operator/raft/configuration", query).await?.value)
    }

    /// Removes a server from the Raft membership.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn remove_server(&self, id: u64) -> Result<(), Error> {
        let query = Query::new().with("id", id.to_string());
        self.write(Method::DELETE, "/v1/operator/raft/peer", &query, Bytes::new()).await?;
        Ok(())
    }

    /// The hash of the asked server's own state.
    ///
    /// # Errors
    /// As every request: see [`Error`].
    pub async fn state_hash(&self) -> Result<StateHash, Error> {
        Ok(self.get("/v1/quorate/state-hash", &Query::new()).await?.value)
    }

    /// Whether the asked server is ready to serve.
    ///
    /// # Errors
    /// As every request: see [`Error`]; status 503 with the reason if it is not.
    pub async fn ready(&self) -> Result<(), Error> {
        self.read("/readyz", &Query::new()).await.map(drop)
    }

    // ---- requests --------------------------------------------------------------------------

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
    ) -> Result<Response<T>, Error> {
        let answer = self.read(path, query).await?;
        let value = answer.json()?;
        Ok(Response::of(&answer, value))
    }

    async fn put_json<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<(), Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Decode(error.to_string()))?;
        self.write(Method::PUT, path, &Query::new(), body.into()).await?;
        Ok(())
    }

    async fn put_id(&self, path: &str, id: &str, query: &Query) -> Result<(), Error> {
        self.write(Method::PUT, &with_id(path, id), query, Bytes::new()).await?;
        Ok(())
    }

    /// Sends a read; after any failure it goes to the next address.
    async fn read(&self, path: &str, query: &Query) -> Result<Answer, Error> {
        let (server, answer) = self.try_all(&Method::GET, path, query, &Bytes::new()).await?;
        server.succeeded(&Method::GET, path, answer)
    }

    /// Sends a write; it goes to the next address only if it was never sent.
    async fn write(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Bytes,
    ) -> Result<Answer, Error> {
        let (server, answer) = self.try_all(&method, path, query, &body).await?;
        server.succeeded(&method, path, answer)
    }

    /// Returns the first answer, and the server that gave it.
    async fn try_all(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        body: &Bytes,
    ) -> Result<(&Http, Answer), Error> {
        let Inner { servers, current, answer_timeout } = &*self.0;
        let target = format!("{path}{}", query.render());
        // A blocking query takes up to its wait and a sixteenth.
        let wait = query.wait.map_or(Duration::ZERO, |wait| wait + wait / 16);
        let first = current.load(Ordering::Relaxed);
        let mut failure = Error::Configuration("no address given".to_owned());
        let mut unreachable = Vec::new();
        for attempt in 0..servers.len() {
            let chosen = (first + attempt) % servers.len();
            let server = &servers[chosen];
            let timeout = *answer_timeout + wait;
            match server.send_within(timeout, method.clone(), &target, body.clone()).await {
                Ok(answer) => {
                    current.store(chosen, Ordering::Relaxed);
                    return Ok((server, answer));
                }
                Err(Error::Unreachable { source, .. }) => {
                    unreachable.push(server.base());
                    failure = Error::Unreachable { addresses: unreachable.join(","), source };
                }
                Err(error) => failure = error,
            }
            current.store((chosen + 1) % servers.len(), Ordering::Relaxed);
            let was_sent = !matches!(failure, Error::Unreachable { .. });
            if was_sent && *method != Method::GET {
                break;
            }
        }
        Err(failure)
    }
}

fn kv_path(key: &str) -> String {
    with_id("/v1/kv/", key)
}

/// An address's path with an id, whose slashes stay and whose other special characters are encoded.
fn with_id(path: &str, id: &str) -> String {
    format!("{path}{}", utf8_percent_encode(id, PATH))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every connection with these bytes, or hangs up when there are none.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    /// An address at which nobody listens.
    async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    const TRUE: &str = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue";

    #[tokio::test]
    async fn a_write_that_was_never_sent_goes_to_the_next_server() {
        let client = Client::new([nobody().await, server(TRUE).await]).unwrap();
        assert!(client.kv_put("a", "1").await.unwrap());
    }

    #[tokio::test]
    async fn a_write_that_may_have_been_applied_is_not_sent_again() {
        let client = Client::new([server("").await, server(TRUE).await]).unwrap();
        let error = client.kv_put("a", "1").await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error:?}");
        assert!(!error.is_definite());
        // The next request goes to the other server.
        assert!(client.kv_put("a", "1").await.unwrap());
    }

    #[tokio::test]
    async fn a_read_goes_to_the_next_server_after_any_failure() {
        let answer = "HTTP/1.1 404 Not Found\r\nX-Consul-Index: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let client = Client::new([server("").await, server(answer).await]).unwrap();
        let response = client.kv_get("a", &Query::new()).await.unwrap();
        assert_eq!((response.value, response.index), (None, Some(7)));
    }

    #[tokio::test]
    async fn without_any_server_the_request_was_certainly_not_sent() {
        let client = Client::new([nobody().await, nobody().await]).unwrap();
        let error = client.kv_put("a", "1").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.is_definite());
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(kv_path("a/b c?%+\u{4e16}"), "/v1/kv/a/b%20c%3F%25%2B%E4%B8%96");
        let query = Query::new().stale().after(5, Duration::from_secs(1)).tag("a&b");
        assert_eq!(query.render(), "?stale=&index=5&wait=1000ms&tag=a%26b");
        assert_eq!(Query::new().render(), "");
    }
}
