//! Why consensus could not do what it was asked.

use quorate_storage::limits::Excess;
use thiserror::Error;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader appeared within the hold timeout; the command was never handed to one.
    #[error("No cluster leader")]
    NoLeader,
    /// It was handed to a leader, and whether it took effect is not known.
    #[error(
        "outcome unknown: the command was handed to a leader that did not answer in time, and may or may not have taken effect"
    )]
    OutcomeUnknown,
    /// Too many commands are waiting at this node.
    #[error("too many requests are waiting for the cluster, try again later")]
    Overloaded,
    /// The node is being stopped.
    #[error("this server is stopping")]
    Stopping,
    /// Not all servers know what it asks for.
    #[error(
        "not all servers of the cluster know this yet: it needs the rules of level {needed}, and those of level {level} are in force; try again when all servers are upgraded"
    )]
    NotYet {
        /// The level that knows it.
        needed: u32,
        /// The level in force.
        level: u32,
    },
    /// It exceeds the limits of what is replicated.
    #[error(transparent)]
    TooLarge(#[from] Excess),
}

/// Why a read cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader appeared within the hold timeout.
    #[error("No cluster leader")]
    NoLeader,
    /// The node has just started and may not yet answer from its state.
    #[error("this server has not caught up yet")]
    NotReady,
    /// The node is being stopped.
    #[error("this server is stopping")]
    Stopping,
}

/// Why a change of the membership failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// No such server.
    #[error("id {0:?} was not found in the Raft configuration")]
    UnknownServer(String),
    /// No leader carried it out in time.
    #[error("No cluster leader")]
    NoLeader,
    /// Refused for another reason.
    #[error("{0}")]
    Refused(String),
}
