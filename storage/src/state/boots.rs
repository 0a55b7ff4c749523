//! Boots of servers: which process is entitled to speak for a server's id.
//!
//! Every boot of a server makes a random [`BootId`], and `Booted` brings it into the log before the
//! server's first command. That is where the server's incarnation comes from: the log cannot be rolled
//! back or copied, as a counter on a server's disk can, so no number of a command is ever given twice.
//! It also ends every earlier boot of the same id, a copy of its directory included.
//!
//! `Booted` says what it replaces. Two boots that ask at the same time, or a late copy of an old
//! request, therefore cannot end a boot that they knew nothing of.
//!
//! A row also keeps how much of the log its server is known to have held. A server that comes back
//! with less has lost what it promised. Rows of removed servers stay: they are how a server learns
//! that it was removed.

use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use crate::command::{Boot, LogEnd};
use crate::ids::{BootId, NodeId, Position};

/// What is known of the process that speaks for a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerBoot {
    /// The boot.
    pub boot: BootId,
    /// The number of that boot, in all its command numbers.
    pub incarnation: u64,
    /// Its data directory.
    pub store_id: String,
    /// `IP:PORT` of its RPC listener.
    pub rpc_addr: String,
    /// `IP:PORT` of its HTTP listener.
    pub http_addr: String,
    /// Name of the agent of its own host.
    pub agent_name: String,
    /// How far the log in this data directory is known to have reached, committed entries only, and
    /// the term in which that was found: the directory holds a vote of that term or of a later one.
    pub log_end: Option<(Position, u64)>,
}

/// The newest boot of each server.
#[derive(Debug, Clone, Default)]
pub(super) struct Boots(pub(super) OrdMap<NodeId, Arc<ServerBoot>>);

impl State {
    /// The newest boot of a server, removed servers included.
    #[must_use]
    pub fn boot(&self, id: NodeId) -> Option<&Arc<ServerBoot>> {
        self.boots.0.get(&id)
    }

    /// The newest boot of each server.
    pub fn boots(&self) -> impl Iterator<Item = (NodeId, &Arc<ServerBoot>)> {
        self.boots.0.iter().map(|(id, row)| (*id, row))
    }

    /// A server has booted. Nothing happens if the boot is known, or if another one has come in between.
    pub(super) fn record_boot(&mut self, start: &Boot) {
        let known = self.boots.0.get(&start.id);
        let newest = known.map(|row| row.boot);
        if newest == Some(start.boot) || newest != start.replaces {
            return;
        }
        let same_store = known.filter(|row| row.store_id == start.store_id);
        let log_end = same_store.and_then(|row| row.log_end);
        let newest_incarnation = known.map(|row| row.incarnation);
        let incarnation = self.origins.begin_incarnation(start.id, start.boots, newest_incarnation);
        let row = ServerBoot {
            boot: start.boot,
            incarnation,
            store_id: start.store_id.clone(),
            rpc_addr: start.rpc_addr.clone(),
            http_addr: start.http_addr.clone(),
            agent_name: start.agent_name.clone(),
            log_end,
        };
        self.boots.0.insert(start.id, Arc::new(row));
        // The connections of an earlier boot ended with it.
        self.lose_leases(start.id, Some(incarnation));
        self.lose_attachments(start.id, Some(incarnation));
    }

    /// Takes note of what servers hold.
    pub(super) fn note_log_ends(&mut self, all: &[LogEnd]) {
        for LogEnd { id, boot, upto, term } in all {
            let Some(row) = self.boots.0.get_mut(id).filter(|row| row.boot == *boot) else {
                continue;
            };
            if row.log_end.is_none_or(|log_end| log_end < (*upto, *term)) {
                Arc::make_mut(row).log_end = Some((*upto, *term));
            }
        }
    }
}
