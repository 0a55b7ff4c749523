//! The client: where the servers are, how patient it is, and how everything that it has started ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::http::{ANSWER_TIMEOUT, Answer, shared_client};
use crate::query::{Query, Response};
use crate::tls::Tls;
use crate::transport::{self, Call, Settings, Transport};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a server may take to answer what another server can answer as well. A healthy cluster needs less, also
/// while it elects a leader.
const FAILOVER_AFTER: Duration = Duration::from_secs(3);
/// How long to go on trying when no server takes a request.
const RETRY_FOR: Duration = Duration::from_secs(2);

/// A client of a cluster. Cheap to clone; clones share connections, and what they know of the servers.
///
/// Calls are grouped by area: [`kv`](Self::kv), [`catalog`](Self::catalog), [`health`](Self::health),
/// [`agent`](Self::agent), [`sessions`](Self::sessions), and so on. What runs by itself is started from it too:
/// [`register`](Self::register), [`watch_service`](Self::watch_service), [`follow`](Self::follow), [`lock`](Self::lock),
/// [`balancer`](Self::balancer).
///
/// ```no_run
/// # async fn example() -> Result<(), quorate_client::Error> {
/// use quorate_client::{Client, Query};
///
/// // QUORATE_HTTP_ADDR, else CONSUL_HTTP_ADDR, else http://127.0.0.1:8500
/// let client = Client::from_env()?;
/// client.kv().put("config/colour", "green").await?;
/// let pair = client.kv().get("config/colour", &Query::new()).await?.value;
/// assert_eq!(pair.map(|pair| pair.value), Some(b"green".to_vec()));
/// # Ok(())
/// # }
/// ```
///
/// # When a server fails
///
/// A request goes to the server that answered last. One that fails is avoided for a while (200 ms, doubled up to 5 s), and
/// the next one is asked. What happens to the request that failed depends on what is known of it:
///
/// * **It was not taken** (no connection, 429, 503, `No cluster leader`): the next server gets it, whatever it is, and when
///   all have refused, all are asked again for [`retry_for`](ClientBuilder::retry_for).
/// * **It may have been carried out** (sent, and no answer): reads, and writes that come to the same when carried out twice
///   (registrations, heartbeats, renewals, releases), go to the next server. Others end with [`Error::OutcomeUnknown`]:
///   writing a key twice could undo what somebody else wrote in between.
///
/// # How it ends
///
/// Registrations, locks, watches and so on run in tasks of their own, which belong to the client and its clones.
/// [`shutdown`](Self::shutdown) ends all of them, and returns when instances are deregistered and locks are released.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    /// Cancelled when everything is to end.
    token: CancellationToken,
    /// All tasks of this client.
    tasks: TaskTracker,
}

/// Variables of the environment with a token; the first that is there counts.
const TOKEN_VARIABLES: [&str; 2] = ["QUORATE_HTTP_TOKEN", "CONSUL_HTTP_TOKEN"];

/// A token, which is not shown in logs.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    settings: Settings,
    connect_timeout: Duration,
    agent: Option<String>,
    secret: Option<Secret>,
    is_spread: bool,
    tls: Tls,
    token: CancellationToken,
}

impl ClientBuilder {
    fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            settings: Settings {
                answer_timeout: ANSWER_TIMEOUT,
                failover_after: FAILOVER_AFTER,
                retry_for: RETRY_FOR,
                reads_own_writes: true,
            },
            connect_timeout: CONNECT_TIMEOUT,
            agent: None,
            secret: None,
            is_spread: false,
            tls: Tls::default(),
            token: CancellationToken::new(),
        }
    }

    /// The same client of other servers.
    #[must_use]
    pub fn of_servers<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.addresses = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// How long an answer may take (default 15 s, longer than a server holds a request without a leader); a blocking
    /// query's wait comes on top.
    #[must_use]
    pub const fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.settings.answer_timeout = timeout;
        self
    }

    /// How long a server may take to answer what another one can answer as well (default 3 s).
    #[must_use]
    pub const fn failover_after(mut self, timeout: Duration) -> Self {
        self.settings.failover_after = timeout;
        self
    }

    /// How long to go on trying when no server takes a request (default 2 s; zero: each server is asked once).
    #[must_use]
    pub const fn retry_for(mut self, span: Duration) -> Self {
        self.settings.retry_for = span;
        self
    }

    /// How long a connection may take to be made (default 1 s).
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether stale reads wait until their server has what this client has written (default true). They send the
    /// `X-Quorate-Index` of the last acknowledged write as `min-index`, so it holds at any server.
    #[must_use]
    pub const fn reads_own_writes(mut self, reads: bool) -> Self {
        self.settings.reads_own_writes = reads;
        self
    }

    /// Asks as this agent, whatever the address that requests come from.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agent = Some(name.into());
        self
    }

    /// Asks with this token. It is sent to all servers of the cluster, and shown nowhere.
    #[must_use]
    pub fn token(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(Secret(secret.into()));
        self
    }

    /// Asks with the token that the environment names: `QUORATE_HTTP_TOKEN`, else `CONSUL_HTTP_TOKEN`; without one if
    /// neither is there.
    #[must_use]
    pub fn token_from_env(self) -> Self {
        let named = TOKEN_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
        match named.into_iter().find(|secret| !secret.is_empty()) {
            Some(secret) => self.token(secret),
            None => self,
        }
    }

    /// Begins with a random server instead of the first, so that many clients with one list do not all use one server.
    #[must_use]
    pub const fn spread(mut self) -> Self {
        self.is_spread = true;
        self
    }

    /// Servers at `https://` addresses must have certificates of the CAs in this file (PEM), not of those that the
    /// system trusts.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// What is shown to servers at `https://` addresses that ask who their client is: a certificate and its key (PEM).
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.certificate = Some(certificate.into());
        self.tls.key = Some(key.into());
        self
    }

    /// Takes whoever answers at an `https://` address for the server. For tests only.
    #[must_use]
    pub const fn trust_anyone(mut self) -> Self {
        self.tls.trusts_anyone = true;
        self
    }

    /// Takes what was not said about TLS from the environment: `QUORATE_CA_FILE`, `QUORATE_CLIENT_CERT` and
    /// `QUORATE_CLIENT_KEY`, else `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY`, and
    /// `CONSUL_HTTP_SSL_VERIFY`.
    ///
    /// # Errors
    /// [`Error::Configuration`]: `CONSUL_HTTP_SSL_VERIFY` is neither true nor false.
    pub fn tls_from_env(mut self) -> Result<Self, Error> {
        self.tls = self.tls.or_environment()?;
        Ok(self)
    }

    /// Ends everything that the client has started when this token is cancelled; see [`Client::shutdown`].
    #[must_use]
    pub fn end_with(mut self, token: &CancellationToken) -> Self {
        self.token = token.child_token();
        self
    }

    /// Makes the client. No connection is made yet.
    ///
    /// # Errors
    /// [`Error::Configuration`] if there is no address, one that is none, an agent's name that no header can have, or a
    /// file that cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        let (http, addresses) = (self.http_client()?, self.parsed()?);
        let first = if self.is_spread { rand::random_range(0..addresses.len()) } else { 0 };
        Ok(Client(Arc::new(Inner {
            transport: Transport::new(http, &addresses, first, self.settings),
            token: self.token,
            tasks: TaskTracker::new(),
        })))
    }

    /// What the client sends its requests with, for a program that has requests of its own for these servers: it has
    /// the settings of connections and headers, and neither failover nor a limit for answers.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn http_client(&self) -> Result<reqwest::Client, Error> {
        let addresses = self.parsed()?;
        let mut headers = HeaderMap::new();
        if let Some(agent) = &self.agent {
            let agent = HeaderValue::from_str(agent);
            let agent = agent.map_err(|error| Error::Configuration(error.to_string()))?;
            headers.insert("X-Quorate-Agent", agent);
        }
        if let Some(Secret(secret)) = &self.secret {
            // What is wrong with it is not said: it would be shown.
            let mut secret = HeaderValue::from_str(secret).map_err(|_| {
                Error::Configuration("the token has characters that no header can have".to_owned())
            })?;
            secret.set_sensitive(true);
            headers.insert("X-Consul-Token", secret);
        }
        let is_https = addresses.iter().any(|address| address.starts_with("https://"));
        shared_client(self.connect_timeout, headers, self.tls.config(is_https)?)
    }

    /// The addresses as URLs; there is at least one.
    fn parsed(&self) -> Result<Vec<String>, Error> {
        let addresses: Vec<_> =
            self.addresses.iter().map(|text| transport::parse(text)).collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err(Error::Configuration("no address given".to_owned()));
        }
        Ok(addresses)
    }
}

impl Client {
    /// A client of one or several servers, given as `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> ClientBuilder {
        ClientBuilder::new(addresses.into_iter().map(Into::into).collect())
    }

    /// A client with the usual timeouts.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder(addresses).build()
    }

    /// A builder with the servers that the environment names: `QUORATE_HTTP_ADDR`, separated by commas, else
    /// `CONSUL_HTTP_ADDR`, else `http://127.0.0.1:8500`; and with what it says about TLS
    /// ([`ClientBuilder::tls_from_env`]) and its token ([`ClientBuilder::token_from_env`]).
    ///
    /// # Errors
    /// [`Error::Configuration`]: an address is none.
    pub fn builder_from_env() -> Result<ClientBuilder, Error> {
        Ok(ClientBuilder::new(transport::from_environment()?).tls_from_env()?.token_from_env())
    }

    /// A client of the servers that the environment names, with the usual timeouts.
    ///
    /// # Errors
    /// As [`Self::builder_from_env`].
    pub fn from_env() -> Result<Self, Error> {
        Self::builder_from_env()?.build()
    }

    /// The addresses of all servers that it knows, those included that others have named.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.0.transport.addresses()
    }

    /// The token that ends everything that this client and its clones have started.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Ends everything that this client and its clones have started, and waits for it: instances are deregistered, locks
    /// and claims released, watches and streams closed. Calls can be made after it, nothing new can be started.
    pub async fn shutdown(&self) {
        self.0.token.cancel();
        self.ended().await;
    }

    /// Waits until everything has ended after the [`token`](Self::token) was cancelled.
    pub async fn ended(&self) {
        self.0.token.cancelled().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// Runs something that [`Self::shutdown`] waits for. It must look at the token itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.tasks.spawn(task));
    }

    /// # Errors
    /// [`Error::ShutDown`]: nothing new can be started.
    pub(crate) fn require_running(&self) -> Result<(), Error> {
        if self.0.token.is_cancelled() { Err(Error::ShutDown) } else { Ok(()) }
    }

    /// A read whose answer is JSON.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
        query: &Query,
    ) -> Result<Response<T>, Error> {
        self.read(&Call::get(path, query)).await
    }

    /// The same of a call.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        call: &Call,
    ) -> Result<Response<T>, Error> {
        let answer = self.perform(call).await?;
        let value = answer.json()?;
        Ok(Response::of(&answer, value))
    }

    /// Sends a request; any status that is no success is an error.
    pub(crate) async fn perform(&self, call: &Call) -> Result<Answer, Error> {
        self.0.transport.send(call).await?.succeeded()
    }

    /// Removes something: 404 is success if an earlier attempt may have removed it.
    pub(crate) async fn remove(&self, call: &Call) -> Result<(), Error> {
        let served = self.0.transport.send(call).await?;
        if served.is_repeated && served.answer.status == 404 {
            return Ok(());
        }
        served.succeeded().map(drop)
    }
}
