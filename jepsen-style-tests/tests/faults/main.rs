//! Clusters under faults: what is acknowledged stays, what expires does so in time, and requests at surviving
//! servers succeed.
//!
//! Every test that starts servers takes a [turn](jepsen_style_tests::turn) first, so that none is measured under the
//! load of another.

mod descriptors;
mod durability;
mod early_elections;
mod expiry;
mod greedy;
mod leader_kill;
mod minority;
mod network;
mod power_cut;
mod sessions;
mod storm;
mod watches;
