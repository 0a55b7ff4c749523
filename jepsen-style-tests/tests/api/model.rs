//! Random operations against a simple model of the documented semantics.
//!
//! A seeded generator makes operations of all areas, valid ones and others. They are sent one after
//! the other to the nodes of a real cluster, each to a random one, and the model, plain maps in plain
//! Rust, says how each must be answered: status, body, and for reads the headers. It also says which
//! change every `CreateIndex`, `ModifyIndex` and `X-Consul-Index` belongs to, so that indexes that
//! fall, move without need, or do not move are found, at whichever node they are read.
//!
//! `QUORATE_SEED` replays a run, `QUORATE_OPERATIONS` sets how long it is.

mod answers;
mod catalog;
mod expression;
mod generate;
mod kv;
mod ledger;
mod operation;
mod reads;
mod run;
mod shapes;
mod state;
mod txn;

use crate::dice;

/// Enough to meet everything, in a time that every change can afford.
const USUAL_OPERATIONS: u64 = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_and_every_index_is_the_one_that_the_documentation_promises() {
    let mut run = run::Run::start(dice::seed()).await.unwrap();
    run.run(dice::operations(USUAL_OPERATIONS)).await.unwrap();
    run.finish().await.unwrap();
}
