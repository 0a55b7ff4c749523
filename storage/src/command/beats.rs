//! Heartbeats with facts, in bulk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Agent, Rejection};
use crate::record::{CheckStatus, Tags, TextMap};
use crate::{ClusterTime, Millis};

/// Renewals in one command.
pub const RENEWALS_MAX: usize = 10_000;
/// Heartbeats in full in one command.
pub const BEATS_MAX: usize = 256;

/// [`Command::Renew`](super::Command::Renew): heartbeats that say nothing new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewals {
    /// The cluster time that the origin had applied when it read the request: what is older than
    /// max(TTL, 2 s) is refused.
    pub seen: ClusterTime,
    /// In ascending order of numbers, so that neighbours are written together.
    pub all: Vec<Renewal>,
}

/// One of [`Renewals`]: a few bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// [`Check::number`](crate::record::Check::number).
    pub number: u64,
    /// How many restarts the origin knew of. If there are more by now, this is of an older process.
    pub restarts: u32,
    /// The process' counter, if it has one.
    pub counter: Option<u64>,
    /// The status; `None`: what the client last said.
    pub status: Option<CheckStatus>,
}

/// [`Command::Beat`](super::Command::Beat): heartbeats that register an instance or change what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beats {
    /// As in [`Renewals`].
    pub seen: ClusterTime,
    /// The agent that asks, and behind it those of the nodes that heartbeats name.
    pub agents: Vec<Agent>,
    /// In the order of the request.
    pub all: Vec<Beat>,
}

/// One of [`Beats`]. What is `None` is left as it is, or gets its default where the instance is new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Whose it is: a place in [`Beats::agents`]. 0 is the agent that asks: then the instance may also be that
    /// of another agent.
    pub agent: u32,
    /// The service's name.
    pub service: Arc<str>,
    /// The instance's id.
    pub id: Arc<str>,
    /// Its address.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<i64>,
    /// Its tags.
    pub tags: Option<Tags>,
    /// Its metadata.
    pub meta: Option<TextMap>,
    /// See [`Facts::process`](crate::record::Facts::process).
    pub process: Option<Arc<str>>,
    /// See [`Facts::pid`](crate::record::Facts::pid).
    pub pid: Option<u64>,
    /// See [`Facts::started`](crate::record::Facts::started).
    pub started: Option<u64>,
    /// See [`Facts::version`](crate::record::Facts::version).
    pub version: Option<Arc<str>>,
    /// Counts the heartbeats, or whatever the process counts.
    pub counter: Option<u64>,
    /// A warning comes after so long a silence; zero: none. Default: 30 s, or none if it is critical sooner.
    pub warn_after: Option<Millis>,
    /// It is critical after so long a silence. Default: 90 s.
    pub critical_after: Option<Millis>,
    /// Its status. Default: passing.
    pub status: Option<CheckStatus>,
    /// The check's output.
    pub note: Option<String>,
}

/// What became of the heartbeats of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatsOutcome {
    /// How many took effect.
    pub accepted: u32,
    /// How many of those registered an instance.
    pub registered: u32,
    /// The others.
    pub refused: Refused,
}

/// Heartbeats of a command that had no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// All took effect.
    #[default]
    None,
    /// These places, and why.
    These(Vec<(u32, Rejection)>),
    /// Some: the list was too long to remember.
    Some,
}
