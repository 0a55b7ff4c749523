//! DNS of real clusters: every form of name, packets that are no questions, client
//! agents, and HAProxy.
//!
//! Every test that starts servers takes a [turn](jepsen_style_tests::turn) first, so that none is measured under the
//! load of another.

mod agent;
mod forms;
mod garbage;
mod haproxy;
