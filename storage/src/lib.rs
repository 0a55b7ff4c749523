//! Quorate's replicated state machine, and the durable Raft log and snapshots under it.

#![forbid(unsafe_code)]

pub mod command;
pub mod data_dir;
mod durable;
pub mod index;
pub mod log_store;
pub mod machine;
pub mod raft;
pub mod record;
pub mod snapshot;
pub mod state;
pub mod time;

pub use index::{Index, Topic};
pub use state::{Effects, State};
pub use time::{ClusterTime, Millis};
