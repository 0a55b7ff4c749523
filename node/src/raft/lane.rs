//! Heartbeats and writes go separate ways, from the request to the log.
//!
//! A heartbeat is small, and something is declared dead without it. A write may be large, and clients may
//! stream writes as fast as the disks allow. So each has its own queues, batches and limits at its origin
//! ([`super::propose`]) and at the leader ([`super::intake`]), and a heartbeat waits only for the few large
//! values that are already in the log.
//!
//! Lanes may overtake each other. Nothing depends on their order: a client that wants one request carried out
//! before another waits for its answer; numbers are given when commands are sent; and the record of an origin
//! remembers single numbers above the lowest open one, in any order.

use std::ops::{Index, IndexMut};

use quorate_storage::command::{Command, Part};

/// The way that a command takes.
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

    /// The lane of a batch: that of writes if it contains any.
    #[must_use]
    pub fn of_part(part: &Part) -> Self {
        let is_light = |command: &Command| command.is_heartbeat() || command.is_note();
        if part.commands.iter().all(|(_, command)| is_light(command)) {
            Self::Heartbeats
        } else {
            Self::Writes
        }
    }

    /// Batches of one node in this lane on their way to the leader. Heartbeats gather there for their entries, so that
    /// more batches would only be smaller ones.
    #[must_use]
    pub const fn forwards_in_flight_max(self) -> usize {
        match self {
            Self::Heartbeats => 2,
            Self::Writes => 4,
        }
    }

    /// Unanswered commands of one node in this lane; requests beyond that get 503. Both lanes together limit
    /// what an origin record remembers.
    #[must_use]
    pub const fn unanswered_max(self) -> usize {
        match self {
            Self::Heartbeats | Self::Writes => 8_192,
        }
    }

    /// Bytes of unanswered commands of one node in this lane. (A heartbeat's output is cut to some
    /// kilobytes.)
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
