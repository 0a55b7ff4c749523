//! Quorate's replicated state machine, and the durable Raft log and snapshots under it.
//!
//! Two things live here that know nothing of each other's insides:
//!
//! * **What the cluster agrees on.** [`state`] is a pure function: a state and a log entry in, the next
//!   state and its [`Effects`] out. [`command`] is everything that can change it, as data; [`record`] is
//!   what it keeps; [`index`] and [`time`] are the two counters that everything else leans on: the index
//!   that clients see, and cluster time, in which deadlines are kept. No clock, no randomness, no I/O, no
//!   floats, no order that depends on hashing. The crate's clippy settings ban clocks, random ids and
//!   hash maps in the whole crate; `.ci/pure-state` bans the rest in these modules.
//! * **What is on disk.** [`data_dir`] is whose directory it is, [`log_store`] the Raft log on sled,
//!   [`snapshot`] the snapshots as files. All of it assumes that the power fails at the worst moment.
//!
//! [`machine`] joins them: openraft hands it committed entries, it applies them, publishes one immutable
//! version of the state per batch, and notifies an [`Observer`](machine::Observer) of what was touched.
//! [`raft`] names the types that openraft is instantiated with.
//!
//! ```text
//!   openraft ── append, vote ──> log_store ──> sled + fdatasync
//!      │
//!      └── committed entries ──> machine ── apply ──> state
//!                                   ├── publish ──> StateReader (readers, without a lock)
//!                                   ├── effects ──> Observer (answers, wake-ups)
//!                                   └── build, install ──> snapshot
//! ```
//!
//! Modules use each other in one direction only, from left to right:
//!
//! ```text
//!   backup, recovery ──> machine ──> state ──> snapshot ──> raft ──> command ──> txn ──> record
//!   recovery ──> log_store ──> data_dir ──> mark ──> raft
//! ```
//!
//! [`recovery`] works on the data directory of a stopped server: it reports what the
//! directory holds, and makes a new cluster from it when the old one has lost its quorum for good.
//!
//! # What is absent
//!
//! JSON and HTTP (the node's), sockets, clocks and tasks (the node's; this crate owns two threads: one
//! writes the log, one frees what was deleted in bulk), who waits for what, who leads.
//!
//! # What must not change
//!
//! The log and the snapshots of the previous release must stay readable. Commands, outcomes, rows and
//! snapshot records are encoded by position: variants and members are appended, never moved or removed.
//! Golden bytes of each of them are under `tests/golden`.

#![forbid(unsafe_code)]

pub mod advice;
pub mod backup;
pub mod command;
pub mod data_dir;
mod durable;
pub mod ids;
pub mod index;
pub mod limits;
pub mod log_store;
pub mod machine;
mod mark;
pub mod panics;
pub mod raft;
pub mod record;
pub mod recovery;
pub mod regular;
mod release;
pub mod snapshot;
pub mod state;
pub mod time;
pub mod txn;

pub use index::{Index, Topic};
pub use state::{Effects, State};
pub use time::{ClusterTime, Millis};
