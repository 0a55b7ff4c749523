//! The instance to call next.
//!
//! A balancer keeps the instances of a service by a [`Watch`] and chooses among those that pass, or among those that warn while
//! none passes. What has just failed is skipped for a while, unless everything has.

mod choice;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::choice::{Candidate, Chooser};
use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::types::TextMap;
use crate::types::health::ServiceEntry;
use crate::watch::{Trouble, Watch};

pub use choice::Policy;

/// A server that tells nothing any more is left within this, so that a balancer is never behind for longer than a second.
const NOTICE_WITHIN: Duration = Duration::from_millis(700);
/// How often the watch asks at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// How long an instance is skipped that has failed, unless the builder says otherwise.
const SKIP_FOR: Duration = Duration::from_secs(5);

impl Client {
    /// Balances calls over the instances of a service.
    #[must_use]
    pub fn balancer(&self, service: impl Into<String>) -> BalancerBuilder {
        BalancerBuilder {
            client: self.clone(),
            service: service.into(),
            query: Query::new(),
            policy: Policy::default(),
            skip_for: SKIP_FOR,
        }
    }
}

/// Describes a [`Balancer`].
#[derive(Debug, Clone)]
pub struct BalancerBuilder {
    client: Client,
    service: String,
    query: Query,
    policy: Policy,
    skip_for: Duration,
}

impl BalancerBuilder {
    /// How to choose (default: round-robin).
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Only instances with this tag; several: with all of them.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        Self { query: self.query.tag(tag), ..self }
    }

    /// Changes the query: filters, `near`.
    #[must_use]
    pub fn query(self, change: impl FnOnce(Query) -> Query) -> Self {
        Self { query: change(self.query), ..self }
    }

    /// How long an instance is skipped that has [failed](Balancer::failed) (default 5 s).
    #[must_use]
    pub fn skip_for(self, span: Duration) -> Self {
        Self { skip_for: span, ..self }
    }

    /// Begins to watch the service.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub fn start(self) -> Result<Balancer, Error> {
        let Self { client, service, query, policy, skip_for } = self;
        let watch = client
            .watch_service(&service)
            .query(move |_| query)
            .pause_min(PAUSE_MIN)
            .notice_within(NOTICE_WITHIN)
            .map(|entries| usable(&entries))
            .start()?;
        let (chooser, failed) = (Chooser::new(policy), BTreeMap::new());
        let memory = Mutex::new(Memory { chooser, failed, known: Arc::default() });
        Ok(Balancer { watch, memory, skip_for })
    }
}

/// An instance to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address: its own, or its node's.
    pub address: String,
    /// Its port.
    pub port: i64,
    /// Its id.
    pub id: String,
    /// The node that it is registered on.
    pub node: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its metadata.
    pub meta: TextMap,
    /// Its weight: that of `Passing`, or of `Warning` if it warns.
    pub weight: u64,
    /// What names it across changes.
    name: String,
}

impl fmt::Display for Endpoint {
    /// `HOST:PORT`, as in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.contains(':') {
            true => write!(f, "[{}]:{}", self.address, self.port),
            false => write!(f, "{}:{}", self.address, self.port),
        }
    }
}

/// The instances that can be called: those that pass, else those that warn.
fn usable(entries: &[ServiceEntry]) -> Vec<Endpoint> {
    let with_status = |status: &'static str| {
        let wanted = entries.iter().filter(move |entry| entry.status() == status);
        wanted.map(endpoint).collect::<Vec<_>>()
    };
    let passing = with_status("passing");
    if passing.is_empty() { with_status("warning") } else { passing }
}

fn endpoint(entry: &ServiceEntry) -> Endpoint {
    let service = &entry.service;
    let weight = match entry.status() {
        "passing" => service.weights.passing,
        _ => service.weights.warning,
    };
    Endpoint {
        address: entry.address().to_owned(),
        port: service.port,
        id: service.id.clone(),
        node: entry.node.node.clone(),
        tags: service.tags.clone(),
        meta: service.meta.clone().unwrap_or_default(),
        weight: u64::try_from(weight).unwrap_or(0),
        name: format!("{}\n{}", entry.node.node, service.id),
    }
}

/// Chooses instances of a service. Share it, by [`Arc`] or by reference: its choices depend on each other.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let web = client.balancer("web").start()?;
/// let endpoint = web.ready().await?;
/// let answer = reqwest::get(format!("http://{endpoint}/hello")).await;
/// if answer.is_err() {
///     // The next choices skip it, before the cluster knows.
///     web.failed(&endpoint);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Balancer {
    watch: Watch<Vec<Endpoint>>,
    /// Held for the moment of a choice.
    memory: Mutex<Memory>,
    skip_for: Duration,
}

#[derive(Debug)]
struct Memory {
    chooser: Chooser,
    /// Until when each name is skipped.
    failed: BTreeMap<String, Instant>,
    /// The list that the chooser knows.
    known: Arc<Vec<Endpoint>>,
}

impl Balancer {
    /// The instance to call next; `None`: there is none, or nothing is known yet.
    #[must_use]
    pub fn next(&self) -> Option<Endpoint> {
        let endpoints = self.watch.latest()?;
        let now = Instant::now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(&endpoints, now);
        let Memory { chooser, failed, .. } = &mut *memory;
        let is_well = |endpoint: &&Endpoint| !failed.contains_key(&endpoint.name);
        let mut choices: Vec<&Endpoint> = endpoints.iter().filter(is_well).collect();
        if choices.is_empty() {
            choices = endpoints.iter().collect();
        }
        let candidates: Vec<_> = choices
            .iter()
            .map(|endpoint| Candidate { name: &endpoint.name, weight: endpoint.weight })
            .collect();
        let chosen = chooser.choose(&candidates, rand::random())?;
        choices.get(chosen).map(|endpoint| (*endpoint).clone())
    }

    /// The same, waiting until there is one.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub async fn ready(&self) -> Result<Endpoint, Error> {
        loop {
            if let Some(endpoint) = self.next() {
                return Ok(endpoint);
            }
            self.watch.wait_for(|endpoints| !endpoints.is_empty()).await?;
        }
    }

    /// A call to it has failed: it is skipped for a while, unless all have failed.
    pub fn failed(&self, endpoint: &Endpoint) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.failed.insert(endpoint.name.clone(), Instant::now() + self.skip_for);
    }

    /// A call to it has succeeded: it is not skipped any more.
    pub fn succeeded(&self, endpoint: &Endpoint) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.failed.remove(&endpoint.name);
    }

    /// All that can be called, those included that have just failed; `None`: nothing is known yet.
    #[must_use]
    pub fn endpoints(&self) -> Option<Arc<Vec<Endpoint>>> {
        self.watch.latest()
    }

    /// The last failure, if no answer has come since; see [`Watch::trouble`].
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.watch.trouble()
    }
}

impl Memory {
    /// Forgets whose time is up, and who is not there any more.
    fn forget(&mut self, endpoints: &Arc<Vec<Endpoint>>, now: Instant) {
        self.failed.retain(|_, until| *until > now);
        if !Arc::ptr_eq(&self.known, endpoints) {
            self.known = Arc::clone(endpoints);
            let names: BTreeSet<&str> = endpoints.iter().map(|one| one.name.as_str()).collect();
            self.chooser.keep(|name| names.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Weights;
    use crate::types::catalog::{Node, NodeService};
    use crate::types::health::HealthCheck;

    fn entry(id: &str, status: &str) -> ServiceEntry {
        let check = HealthCheck { status: status.to_owned(), ..HealthCheck::default() };
        ServiceEntry {
            node: Node { node: "n".to_owned(), address: "10.0.0.1".to_owned(), ..Node::default() },
            service: NodeService {
                id: id.to_owned(),
                port: 80,
                weights: Weights { passing: 5, warning: 1 },
                ..NodeService::default()
            },
            checks: vec![check],
        }
    }

    fn ids(entries: &[ServiceEntry]) -> Vec<String> {
        usable(entries).into_iter().map(|endpoint| endpoint.id).collect()
    }

    #[test]
    fn those_that_warn_are_used_only_while_none_passes() {
        let mut all = vec![entry("a", "passing"), entry("b", "warning"), entry("c", "critical")];
        assert_eq!(ids(&all), ["a"]);
        all.remove(0);
        assert_eq!(ids(&all), ["b"]);
        assert_eq!(usable(&all)[0].weight, 1);
        all.remove(0);
        assert!(ids(&all).is_empty());
    }

    #[test]
    fn an_endpoint_is_written_as_in_a_url() {
        let mut endpoint = endpoint(&entry("a", "passing"));
        assert_eq!((endpoint.to_string().as_str(), endpoint.weight), ("10.0.0.1:80", 5));
        endpoint.address = "fe80::1".to_owned();
        assert_eq!(endpoint.to_string(), "[fe80::1]:80");
    }
}
