//! Which nodes and services have an address.
//!
//! The state is not sorted by addresses, so a table is made of it when somebody asks, and again when nodes or services
//! have changed since. A large one takes long to make, so it is used for a while however much changes: in all, the
//! making takes a small part of one processor's time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::rr::Name;
use quorate_storage::state::Rights;
use quorate_storage::{Index, State, Topic};

use super::zone::{node_name, service_name};
use crate::host::clock::{Clock, Moment};

/// A table is used for so many times the time that it took to make.
const USED_TIMES: u32 = 20;
/// So many names at most have one address in an answer.
const NAMES_MAX: usize = 64;

/// Names by address.
#[derive(Debug)]
pub(super) struct Reverse {
    clock: Clock,
    /// A std lock: held while the table is made, so that it is made once.
    table: Mutex<Option<Table>>,
}

#[derive(Debug)]
struct Table {
    /// Of nodes and services, when it was made.
    indexes: (Index, Index),
    made: Moment,
    took: Duration,
    names: Arc<Names>,
}

#[derive(Debug, Default)]
struct Names {
    nodes: HashMap<IpAddr, Vec<Arc<str>>>,
    services: HashMap<IpAddr, Vec<Arc<str>>>,
}

impl Reverse {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, table: Mutex::new(None) }
    }

    /// The nodes with an address, else the services that have an instance with it; `None` if nothing has.
    pub(super) fn names(
        &self,
        state: &State,
        ip: IpAddr,
        datacenter: &str,
        domain: &Name,
        rights: Option<&Rights>,
    ) -> Option<Vec<Name>> {
        let names = self.table_of(state);
        let of_nodes = names.nodes.get(&ip).map(|nodes| -> Vec<Name> {
            let seen =
                nodes.iter().filter(|node| rights.is_none_or(|rights| rights.sees_node(node)));
            seen.filter_map(|node| node_name(node, datacenter, domain)).collect()
        });
        of_nodes.filter(|names| rights.is_none() || !names.is_empty()).or_else(|| {
            let services = names.services.get(&ip)?;
            let seen = services
                .iter()
                .filter(|name| rights.is_none_or(|rights| rights.sees_service(name)));
            Some(seen.filter_map(|name| service_name(name, domain)).collect())
        })
    }

    fn table_of(&self, state: &State) -> Arc<Names> {
        let indexes = (state.topic_index(&Topic::Nodes), state.topic_index(&Topic::Services));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if let Some(table) = &*table
            && (table.indexes == indexes || now.since(table.made) < table.took * USED_TIMES)
        {
            return Arc::clone(&table.names);
        }
        let names = Arc::new(Names::of(state));
        let made = self.clock.now();
        *table = Some(Table { indexes, made, took: made.since(now), names: Arc::clone(&names) });
        names
    }
}

impl Names {
    fn of(state: &State) -> Self {
        let mut names = Self::default();
        for node in state.nodes() {
            add(&mut names.nodes, &node.address, &node.name);
        }
        for service in state.services() {
            add(&mut names.services, &service.definition.address, &service.definition.name);
        }
        names
    }
}

fn add(names: &mut HashMap<IpAddr, Vec<Arc<str>>>, address: &str, name: &Arc<str>) {
    if let Ok(ip) = address.parse() {
        let of_ip: &mut Vec<_> = names.entry(ip).or_default();
        if of_ip.len() < NAMES_MAX && !of_ip.contains(name) {
            of_ip.push(name.clone());
        }
    }
}
