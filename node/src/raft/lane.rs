//! Heartbeats and writes go separate ways, from the request to the log.
//!
//! A heartbeat is small and something waits to be declared dead without it; a write may be large, and a
//! client may stream them as fast as the disks allow. So each has queues, batches and limits of its own
//! at its origin ([`super::propose`]) and at the leader ([`super::intake`]), and a heartbeat waits for
//! no more large values than the few that are already in the log.
//!
//! Lanes may overtake each other. Nothing depends on their order: a client that wants one request
//! carried out before another waits for its answer, numbers are given when commands are sent, and the
//! record of an origin remembers single numbers, in any order, above the lowest open one.

use std::ops::{Index, IndexMut};

use quorate_storage::command::{Command, Part};

/// Which way a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Heartbeats, renewals and results of checks.
    Heartbeats,
    /// Everything else.
    Writes,
}

impl Lane {
    /// Both, the more urgent first.
    pub const ALL: [Self; 2] = [Self::Heartbeats, Self::Writes];

    /// The lane of a command.
    #[must_use]
    pub const fn of(command: &Command) -> Self {
        if command.is_heartbeat() { Self::Heartbeats } else { Self::Writes }
    }

    /// The lane of a batch: with a single write in it, it is the writes'.
    #[must_use]
    pub fn of_part(part: &Part) -> Self {
        let is_light = |command: &Command| {
            command.is_heartbeat() || matches!(command, Command::Answered { .. })
        };
        if part.commands.iter().all(|(_, command)| is_light(command)) {
            Self::Heartbeats
        } else {
            Self::Writes
        }
    }

    /// Commands of one node that may be unanswered in this lane; beyond that requests get 503. Together
    /// they bound what an origin record remembers.
    #[must_use]
    pub const fn unanswered_max(self) -> usize {
        match self {
            Self::Heartbeats | Self::Writes => 8_192,
        }
    }

    /// Bytes of commands of one node that may be unanswered in this lane. (A heartbeat's output is cut
    /// to some kilobytes.)
    #[must_use]
    pub const fn unanswered_bytes_max(self) -> usize {
        match self {
            Self::Heartbeats => 16 << 20,
            Self::Writes => 64 << 20,
        }
    }
}

/// One of something for each lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByLane<T> {
    heartbeats: T,
    writes: T,
}

impl<T> ByLane<T> {
    /// One for each lane.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        Self { heartbeats: make(), writes: make() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        Lane::ALL.into_iter().map(|lane| &self[lane])
    }
}

impl<T> Index<Lane> for ByLane<T> {
    type Output = T;
    fn index(&self, lane: Lane) -> &T {
        match lane {
            Lane::Heartbeats => &self.heartbeats,
            Lane::Writes => &self.writes,
        }
    }
}

impl<T> IndexMut<Lane> for ByLane<T> {
    fn index_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Heartbeats => &mut self.heartbeats,
            Lane::Writes => &mut self.writes,
        }
    }
}
