//! What happened, for those who want to know: the history as it is shown, filtered, followed and explained.
//!
//! | file | what |
//! | --- | --- |
//! | `show.rs` | a record as the API shows it |
//! | `filter.rs` | which records somebody wants |
//! | `feed.rs` | waking those who wait for a record |
//! | `cursor.rs`, `rows.rs` | a stream: a place in the history, and what comes next from there |
//! | `beats.rs` | heartbeats in streams |
//! | `sight.rs` | which of it a token may see |
//! | `claims.rs` | pools and claims as the API shows them |
//! | `explain.rs`, `threads.rs`, `sentence.rs` | why something is as it is, for people |
//!
//! The history itself is part of the replicated state: [`quorate_storage::state::History`].

pub mod beats;
pub mod claims;
pub mod cursor;
pub mod explain;
pub mod feed;
pub mod filter;
pub mod rows;
mod sentence;
pub mod show;
pub mod sight;
pub(crate) mod threads;
