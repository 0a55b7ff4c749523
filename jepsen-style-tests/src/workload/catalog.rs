//! Instances in the catalog as registers: registering an instance writes its version, deregistering it writes
//! "absent", and looking up its service reads it.
//!
//! Clients of all servers use the same instances, so what is registered through one server is deregistered through
//! another and read through a third. Reads are default reads, by `/v1/health/service` and `/v1/catalog/service` in
//! turns: both must agree.

use async_trait::async_trait;
use rand::Rng as _;
use serde_json::{Value, json};

use super::steps::{self, KEYS_AT_ONCE, UNREADABLE, readable_key, rotating_key};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::linear;
use crate::client::{CLIENT_AT_THE_END, Call, Client, Reply, Site};
use crate::history::{Function, Operation};
use crate::http::Answer;
use crate::record::Record;

const NAME: &str = "catalog";
/// A node that no agent keeps: only the clients write below it.
const NODE: &str = "client-nodes";
/// Of the network for documentation: nothing is ever sent to it.
const ADDRESS: &str = "192.0.2.1";
const PORT: u64 = 8080;
/// Where a service can be looked up.
const LOOK_UPS: [&str; 2] = ["/v1/health/service/", "/v1/catalog/service/"];

/// See the module.
#[derive(Debug)]
pub struct Catalog;

#[async_trait]
impl Workload for Catalog {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "each instance of a service is a linearizable register: registered here, deregistered there, read elsewhere"
    }

    async fn step(&self, client: &mut Client) {
        match client.rng.random_range(0..8) {
            0..=3 => {
                let key = readable_key(client);
                read(client, key).await;
            }
            4..=6 => {
                let key = rotating_key(client);
                register(client, key).await;
            }
            _ => {
                let key = rotating_key(client);
                deregister(client, key).await;
            }
        }
    }

    /// Looks every instance up everywhere: what was acknowledged is still there when everything is healed.
    async fn conclude(&self, site: &Site) -> Result<()> {
        for key in steps::keys_so_far(site) {
            for look_up in LOOK_UPS {
                for reply in site.read_everywhere(&path(look_up, key)).await {
                    note_read(site, CLIENT_AT_THE_END, key, &reply);
                }
            }
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let history: Vec<Operation> = record.entries(NAME)?;
        Ok(vec![Judgement::new("catalog", linear::check(&history))])
    }

    fn failing_window(&self, record: &Record) -> Result<Option<linear::Window>> {
        Ok(linear::smallest_window(&record.entries::<Operation>(NAME)?))
    }
}

/// Instances that are worked on at the same time belong to one service.
fn service(key: u64) -> String {
    format!("fleet-{}", key / KEYS_AT_ONCE)
}

fn instance(key: u64) -> String {
    format!("instance-{key}")
}

async fn register(client: &mut Client, key: u64) {
    let version = client.fresh_number();
    let body = json!({
        "Node": NODE,
        "Address": ADDRESS,
        "Service": {
            "ID": instance(key),
            "Service": service(key),
            "Port": PORT,
            "Meta": {"version": version.to_string()},
        },
    });
    write(client, "/v1/catalog/register", &body, key, Some(version)).await;
}

async fn deregister(client: &mut Client, key: u64) {
    let body = json!({"Node": NODE, "ServiceID": instance(key)});
    write(client, "/v1/catalog/deregister", &body, key, None).await;
}

async fn write(client: &mut Client, path: &str, body: &Value, key: u64, version: Option<u64>) {
    let written = Operation { arg: version, ..Operation::planned(key, Function::Write) };
    let call = Call::write(path, body.to_string());
    steps::write(NAME, client.home(), client, call, written).await;
}

async fn read(client: &mut Client, key: u64) {
    let look_up = LOOK_UPS[client.rng.random_range(0..LOOK_UPS.len())];
    let reply = client.send(Call::read(&path(look_up, key))).await;
    note_read(&client.site, client.process(), key, &reply);
}

/// Looks up the service that an instance belongs to.
fn path(look_up: &str, key: u64) -> String {
    format!("{look_up}{}", service(key))
}

/// Writes a look-up of an instance down, if it was answered.
fn note_read(site: &Site, process: u64, key: u64, reply: &Reply) {
    let Some(answer) = reply.answer() else { return };
    let val = version_in(answer, &instance(key)).unwrap_or(Some(UNREADABLE));
    steps::note_read(NAME, site, process, key, reply, (val, None));
}

/// The version of an instance in a look-up of either kind, none inside if it is absent; none if the
/// answer has another shape, or the instance twice.
fn version_in(answer: &Answer, id: &str) -> Option<Option<u64>> {
    let entries: Vec<Value> = answer.json().ok()?;
    let by_health = |entry: &Value| entry["Service"]["ID"] == id;
    let by_catalog = |entry: &Value| entry["ServiceID"] == id;
    let mut of_this = entries.iter().filter(|entry| by_health(entry) || by_catalog(entry));
    let Some(entry) = of_this.next() else { return Some(None) };
    if of_this.next().is_some() {
        return None;
    }
    let meta = if by_health(entry) { &entry["Service"]["Meta"] } else { &entry["ServiceMeta"] };
    meta["version"].as_str()?.parse().ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &Value) -> Answer {
        Answer::new(200, body.to_string())
    }

    #[test]
    fn both_look_ups_tell_the_version() {
        let by_health = json!([{"Service": {"ID": "a", "Meta": {"version": "7"}}}]);
        assert_eq!(version_in(&answer(&by_health), "a"), Some(Some(7)));
        let by_catalog = json!([{"ServiceID": "a", "ServiceMeta": {"version": "7"}}]);
        assert_eq!(version_in(&answer(&by_catalog), "a"), Some(Some(7)));
        assert_eq!(version_in(&answer(&by_catalog), "b"), Some(None));
        assert_eq!(version_in(&answer(&json!({"no": "list"})), "a"), None);
        let twice = json!([by_catalog[0], {"ServiceID": "a", "ServiceMeta": {"version": "8"}}]);
        assert_eq!(version_in(&answer(&twice), "a"), None);
    }
}
