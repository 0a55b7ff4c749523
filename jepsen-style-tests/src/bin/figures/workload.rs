//! What the clients send.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::Failure;
use crate::connection::{Connection, Prepared, send_all};
use crate::load::Script;

/// Numbers of clients that put values.
const WRITERS: [usize; 3] = [1, 64, 256];
/// Clients that register services, and that read.
const CLIENTS: usize = 64;
/// Keys of all writers together.
const KEYS: usize = 1_000;
/// Size of a value.
const VALUE_BYTES: usize = 256;
/// Services of each registering client.
const REGISTRATIONS_PER_CLIENT: usize = 100;
/// No heartbeat is missed in a run, however long it takes.
const TTL: &str = "3600s";
/// The service that is read, and how many instances it has.
const READ_SERVICE: &str = "figures-read";
const READ_INSTANCES: usize = 3;

/// A load with a name.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    /// One for each client.
    pub(crate) scripts: Vec<Arc<Script>>,
    /// How many of the things that are counted a request does, on average.
    pub(crate) per_request: f64,
}

/// The registered services that heartbeat.
#[derive(Debug)]
pub(crate) struct Services {
    heartbeats: Vec<Prepared>,
    kv: Vec<Vec<Prepared>>,
    registrations: Vec<Vec<Prepared>>,
    read: [Prepared; 2],
}

impl Services {
    /// Registers `count` services with TTL checks, and the one that is read.
    ///
    /// # Errors
    /// When the cluster does not take one of them.
    pub(crate) async fn register(nodes: &[SocketAddr], count: usize) -> Result<Self, Failure> {
        eprintln!("registering {count} services");
        let registrations = (0..count)
            .map(|n| registration(&format!("figures-{}", n % 100), &format!("figures-{n}"), 80))
            .collect::<Result<Vec<_>, _>>()?;
        send_all(nodes, registrations).await?;
        for instance in 0..READ_INSTANCES {
            let id = format!("{READ_SERVICE}-{instance}");
            let mut connection = Connection::open_alone(nodes[instance % nodes.len()]).await?;
            connection.fetch(&registration(READ_SERVICE, &id, 80)?).await?;
        }
        let path = format!("/v1/health/service/{READ_SERVICE}?passing");
        Ok(Self {
            heartbeats: (0..count)
                .map(|n| Prepared::put(&format!("/v1/agent/check/pass/service:figures-{n}"), ""))
                .collect::<Result<_, _>>()?,
            kv: puts_of_each_key()?,
            registrations: registrations_of_each_client()?,
            read: [Prepared::get(&path)?, Prepared::get(&format!("{path}&stale"))?],
        })
    }
}

/// Every workload, for clients spread over this many nodes.
pub(crate) fn all(nodes: usize, services: &Services) -> Vec<Workload> {
    let mut workloads: Vec<_> =
        WRITERS.iter().map(|clients| kv(*clients, nodes, &services.kv)).collect();
    let heartbeats = services.heartbeats.iter().map(|request| vec![request.clone()]);
    let count = services.heartbeats.len();
    workloads.push(spread(format!("heartbeats, {count} connections"), nodes, heartbeats));
    let registrations = services.registrations.iter().cloned();
    let name = format!("registrations with a TTL check, {CLIENTS} clients");
    workloads.push(spread(name, nodes, registrations));
    for (name, request) in ["default", "stale"].iter().zip(&services.read) {
        let requests = std::iter::repeat_n(vec![request.clone()], CLIENTS);
        workloads.push(spread(format!("health read, {name}, {CLIENTS} clients"), nodes, requests));
    }
    workloads
}

/// A workload whose clients are spread over the nodes; each of its requests does one thing.
pub(crate) fn spread(
    name: String,
    nodes: usize,
    clients: impl Iterator<Item = Vec<Prepared>>,
) -> Workload {
    let scripts = clients.enumerate().map(|(n, requests)| Script::new(n % nodes, requests));
    Workload { name, scripts: scripts.collect(), per_request: 1.0 }
}

/// Each client has every so-manieth key. It puts the first value under all of them, then the second.
fn kv(clients: usize, nodes: usize, puts: &[Vec<Prepared>]) -> Workload {
    let requests_of = |client: usize| {
        puts.iter().flat_map(move |of_value| of_value.iter().skip(client).step_by(clients).cloned())
    };
    let name = match clients {
        1 => "KV put, 1 client".to_owned(),
        clients => format!("KV put, {clients} clients"),
    };
    spread(name, nodes, (0..clients).map(|client| requests_of(client).collect()))
}

/// For each of two values, a put of it under each key.
fn puts_of_each_key() -> Result<Vec<Vec<Prepared>>, Failure> {
    let values = [b'a', b'b'].map(|letter| Bytes::from(vec![letter; VALUE_BYTES]));
    let puts = |value: &Bytes| {
        (0..KEYS)
            .map(|key| Prepared::put(&format!("/v1/kv/figures/{key}"), value.clone()))
            .collect::<Result<Vec<_>, _>>()
    };
    values.iter().map(puts).collect()
}

fn registrations_of_each_client() -> Result<Vec<Vec<Prepared>>, Failure> {
    let of_client = |client: usize| {
        let services = [8080, 9090]
            .into_iter()
            .flat_map(|port| (0..REGISTRATIONS_PER_CLIENT).map(move |n| (n, port)));
        services
            .map(|(n, port)| {
                registration(&format!("load-{client}"), &format!("load-{client}-{n}"), port)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    (0..CLIENTS).map(of_client).collect()
}

fn registration(name: &str, id: &str, port: u16) -> Result<Prepared, Failure> {
    let body = json!({
        "Name": name,
        "ID": id,
        "Port": port,
        "Tags": ["v1"],
        "Check": { "TTL": TTL, "Status": "passing" },
    });
    Prepared::put("/v1/agent/service/register", body.to_string())
}
