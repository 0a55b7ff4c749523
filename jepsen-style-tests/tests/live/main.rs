//! What goes beyond Consul: claims, heartbeats, presence, instances, history and streams.
//!
//! Every test that starts servers takes a [turn](jepsen_style_tests::turn) first, so that none is measured under the
//! load of another.

mod claim_answers;
mod claims;
mod figures;
mod heartbeats;
mod history;
mod instances;
mod presence;
mod streams;
mod workers;
