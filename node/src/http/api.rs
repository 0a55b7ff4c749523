//! The endpoints, one file for each area of the API.
//!
//! A new area is a file here and a line in [`endpoints`]; a new endpoint is a line in its area's own
//! `endpoints()`, in the harness' `verbs.txt`, and in its `hostile/routes.rs`.

mod acl;
mod active_check;
mod agent;
mod catalog;
mod claim;
mod coordinate;
mod dns;
mod event;
mod health;
mod heartbeat;
mod held;
mod history;
mod instance;
mod kv;
mod operator;
mod out_of_scope;
mod presence;
mod query;
mod quorate;
mod session;
mod snapshot;
mod status;
mod stream;
mod txn;
mod worker;

pub(crate) use dns::{DNS_PATH, DNS_PATH_UDP};

use super::endpoint::Endpoint;
use super::ui;

/// Every endpoint there is.
pub(super) fn endpoints() -> Vec<Endpoint> {
    [
        acl::endpoints(),
        agent::endpoints(),
        catalog::endpoints(),
        health::endpoints(),
        kv::endpoints(),
        session::endpoints(),
        txn::endpoints(),
        event::endpoints(),
        coordinate::endpoints(),
        dns::endpoints(),
        query::endpoints(),
        snapshot::endpoints(),
        status::endpoints(),
        operator::endpoints(),
        out_of_scope::endpoints(),
        quorate::endpoints(),
        history::endpoints(),
        instance::endpoints(),
        stream::endpoints(),
        presence::endpoints(),
        claim::endpoints(),
        worker::endpoints(),
        active_check::endpoints(),
        ui::endpoints(),
        heartbeat::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quorate_storage::txn::{KeyVerb, RowVerb};

    use super::*;

    /// The harness knows which verbs its workloads use, so it has to know all there are. New ones go into
    /// its file, with the workloads that use them, if any do.
    #[test]
    fn the_harness_lists_every_verb() {
        let listed = include_str!("../../../jepsen-style-tests/src/verbs.txt");
        let listed = listed.lines().filter(|line| !line.starts_with('#'));
        let listed = listed.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
        let (operations, listed): (BTreeSet<_>, BTreeSet<_>) =
            listed.partition(|verb| verb.starts_with("TXN "));
        let refused: BTreeSet<_> = out_of_scope::endpoints().iter().map(Endpoint::path).collect();
        let served = endpoints();
        let served = served.iter().filter(|endpoint| !refused.contains(endpoint.path()));
        let served: BTreeSet<_> = served
            .flat_map(|endpoint| {
                endpoint.methods().map(move |method| format!("{method} {}", endpoint.path()))
            })
            .collect();
        assert_eq!(listed, served);
        for operation in operations {
            let (table, word) = operation["TXN ".len()..].split_once('/').unwrap();
            let is_known = match table {
                "KV" => KeyVerb::from_word(word).is_some(),
                _ => RowVerb::from_word(word).is_some(),
            };
            assert!(is_known, "{operation}");
        }
    }

    /// Each is a histogram for each class of status, of which a server shows those that were asked for.
    #[test]
    fn routes_and_methods_are_few_enough_to_be_told_apart_in_metrics() {
        let series: usize = endpoints().iter().map(|endpoint| endpoint.methods().count()).sum();
        assert!(series <= 256, "{series}");
    }

    #[test]
    fn every_path_is_routed_once() {
        let mut paths: Vec<_> = endpoints().iter().map(Endpoint::path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
