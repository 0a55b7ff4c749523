//! The HTTP API: Consul's rules, recorded answers, a model, hostile requests, and the clients that others wrote.
//!
//! Every test that starts servers takes a [turn](jepsen_style_tests::turn) first, so that none is measured under the
//! load of another.

mod acl;
mod active_checks;
mod api_rules;
mod bad_input;
mod bodies;
mod browsers;
mod clients;
mod conformance;
mod dice;
mod hostile;
mod model;
mod recursion;
