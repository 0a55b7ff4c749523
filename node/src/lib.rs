//! Quorate's server. (Essay to come.)

#![forbid(unsafe_code)]

pub mod agent;
pub mod clock;
pub mod cluster_clock;
pub mod compaction;
pub mod config;
pub mod http;
pub mod identity;
pub mod leader;
pub mod metrics;
pub mod node;
pub mod observe;
pub mod raft;
pub mod server;
pub mod watch;
