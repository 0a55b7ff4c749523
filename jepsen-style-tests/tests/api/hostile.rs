//! Requests that nobody should send: paths of any bytes, bad percent signs, endless query strings, JSON of the
//! wrong kind or none, random expressions. The answer is always a whole HTTP response with a documented status, the
//! server neither ends nor panics, and a request that was refused has changed nothing that a client can see.
//!
//! `QUORATE_SEED` replays a run, `QUORATE_OPERATIONS` sets its length.

mod requests;
pub(crate) mod routes;
mod words;

use std::collections::BTreeMap;

use jepsen_style_tests::http::Answer;
use jepsen_style_tests::raw::{Raw, Request};
use jepsen_style_tests::{Cluster, Result};
use requests::Hostile;

use crate::dice::{self, Dice};

/// Enough to meet every route in many ways, in a time that every change can afford.
const USUAL_REQUESTS: u64 = 5_000;
/// So many requests go to one node, then to another.
const TURN: u64 = 20;

/// One read for every table that a client can watch. Whatever is visible and changes moves one of
/// their indexes; the model's suite holds that.
const TABLES: &[&str] = &[
    "/v1/kv/%20never%20written",
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/health/state/none",
    "/v1/session/list",
    "/v1/query",
    "/v1/event/list",
    "/v1/coordinate/nodes",
];

/// The indexes of all tables at a node; `stale` when the node is known to have what counts.
async fn tables(node: &Raw, consistency: &str) -> Result<Vec<Option<u64>>> {
    let reads: Vec<Request> =
        TABLES.iter().map(|path| Request::get(format!("{path}?{consistency}"))).collect();
    let answers = node.send_all(&reads).await?;
    Ok(answers.iter().map(Answer::index).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_the_answer_is_a_documented_one_and_a_refused_request_changes_nothing() {
    let mut dice = Dice::new(dice::seed());
    let cluster = Cluster::start_shared(3).await.unwrap();
    // The servers enter themselves into the catalogue: a change that no request made.
    cluster.wait_all_listed().await.unwrap();
    let nodes: Vec<Raw> =
        cluster.ids().iter().map(|id| Raw::new(cluster.http(*id).base())).collect();
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for turn in 0..dice::operations(USUAL_REQUESTS) / TURN {
        let node = dice.pick(&nodes);
        let mut before = tables(node, "consistent").await.unwrap();
        for _ in 0..TURN {
            let hostile = Hostile::random(&mut dice);
            let answer = match node.send(&hostile.request).await {
                Ok(answer) => answer,
                Err(failure) => {
                    wrong.push(failure.to_string());
                    continue;
                }
            };
            *statuses.entry(answer.status).or_default() += 1;
            let fault = words::fault(hostile.path, hostile.is_decodable(), &answer);
            wrong.extend(fault.map(|fault| format!("{}\n  -> {fault}", hostile.request)));
            if hostile.may_write() {
                let after = tables(node, "stale").await.unwrap();
                if answer.status != 200 && after != before {
                    let request = &hostile.request;
                    wrong.push(format!(
                        "{request}\n  -> {} and the state changed: {before:?} {after:?}",
                        answer.status
                    ));
                }
                accepted += u64::from(answer.status == 200);
                refused += u64::from(answer.status != 200);
                before = after;
            }
        }
        let alive = node.send(&Request::get("/livez")).await.unwrap();
        assert_eq!(alive.status, 200, "after turn {turn}");
        assert!(wrong.len() < 40, "{}", wrong.join("\n"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("answers by status: {statuses:?}");
    println!("writes: {accepted} accepted, {refused} refused without a trace");
    cluster.finish().await.unwrap();
}
