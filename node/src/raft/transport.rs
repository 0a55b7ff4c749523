//! How nodes reach each other, as far as the node's logic knows.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quorate_storage::snapshot::Snapshot;
use thiserror::Error;

use super::protocol::{Envelope, Response, SnapshotHeader};

/// What a call is for. Each purpose has separate connections, so that a heartbeat never waits behind a
/// megabyte of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Log entries.
    Append,
    /// Heartbeats.
    Heartbeat,
    /// Votes, read barriers, membership.
    Control,
    /// Commands for the leader.
    Forward,
    /// Snapshots.
    Snapshot,
}

/// Why a call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The request was certainly not delivered.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The request may have been delivered.
    #[error("no response: {0}")]
    NoAnswer(String),
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// `IP:PORT` where it listens.
    pub address: &'a str,
    /// The server's name, where it is known: nobody else is to be sent anything.
    pub name: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Whatever server listens there.
    #[must_use]
    pub const fn at(address: &'a str) -> Self {
        Self { address, name: None }
    }
}

/// A network between nodes.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Sends a request to a node and waits for its answer, at most for `timeout`.
    fn call(
        &self,
        target: Target<'_>,
        purpose: Purpose,
        envelope: Envelope,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>>;

    /// Resolves when the process that listens at `address` has ended: its end of a connection was closed
    /// or reset, *and* a new connection was refused thereafter. A timeout, an unreachable network or an
    /// address where nobody ever listened prove nothing, so it does not resolve for those.
    fn process_ended(&self, address: &str) -> BoxFuture<'static, ()>;

    /// Streams a snapshot.
    fn send_snapshot(
        &self,
        target: Target<'_>,
        header: SnapshotHeader,
        snapshot: Snapshot,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>>;
}
