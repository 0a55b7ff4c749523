//! Random operations against a simple model of the documented semantics.
//!
//! A seeded generator makes valid and invalid operations of all areas. They are sent one after the other to random
//! nodes of a real cluster, and the model, plain maps in plain Rust, predicts each answer: status, body, and for
//! reads the headers. It also predicts the change to which every `CreateIndex`, `ModifyIndex` and `X-Consul-Index`
//! belongs. So an index that falls, moves without need, or does not move is found, at whichever node it is read.
//!
//! `QUORATE_SEED` replays a run, `QUORATE_OPERATIONS` sets its length.

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
