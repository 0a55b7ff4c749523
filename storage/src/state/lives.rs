//! Lives of servers: which process is entitled to speak for a server's id.
//!
//! Every boot of a server makes a random [`Life`], and `Started` brings it into the log before the
//! server's first command. That is where the server's incarnation comes from: the log cannot be rolled
//! back or copied, as a counter on a server's disk can, so no number of a command is ever given twice.
//! It also ends every earlier life of the same id, a copy of its directory included.
//!
//! `Started` says what it replaces. Two boots that ask at the same time, or a late copy of an old
//! request, therefore cannot end a life that they knew nothing of.
//!
//! A row also keeps how much of the log its server is known to have held. A server that comes back
//! with less has lost what it promised. Rows of removed servers stay: they are how a server learns
//! that it was removed.

use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use crate::command::{Held, Start};
use crate::ids::{Life, NodeId, Position};

/// What is known of the process that speaks for a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerLife {
    /// The boot.
    pub life: Life,
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
    pub held: Option<(Position, u64)>,
}

/// The newest life of each server.
#[derive(Debug, Clone, Default)]
pub(super) struct Lives(pub(super) OrdMap<NodeId, Arc<ServerLife>>);

impl State {
    /// The newest life of a server, removed servers included.
    #[must_use]
    pub fn life(&self, id: NodeId) -> Option<&Arc<ServerLife>> {
        self.lives.0.get(&id)
    }

    /// The newest life of each server.
    pub fn lives(&self) -> impl Iterator<Item = (NodeId, &Arc<ServerLife>)> {
        self.lives.0.iter().map(|(id, row)| (*id, row))
    }

    /// A server has booted. Nothing happens if the boot is known, or if another one has come in between.
    pub(super) fn start_life(&mut self, start: &Start) {
        let known = self.lives.0.get(&start.id);
        let newest = known.map(|row| row.life);
        if newest == Some(start.life) || newest != start.replaces {
            return;
        }
        let same_store = known.filter(|row| row.store_id == start.store_id);
        let held = same_store.and_then(|row| row.held);
        let newest_incarnation = known.map(|row| row.incarnation);
        let incarnation = self.origins.begin_life(start.id, start.counted, newest_incarnation);
        let row = ServerLife {
            life: start.life,
            incarnation,
            store_id: start.store_id.clone(),
            rpc_addr: start.rpc_addr.clone(),
            http_addr: start.http_addr.clone(),
            agent_name: start.agent_name.clone(),
            held,
        };
        self.lives.0.insert(start.id, Arc::new(row));
    }

    /// Takes note of what servers hold.
    pub(super) fn note_held(&mut self, all: &[Held]) {
        for Held { id, life, upto, term } in all {
            let Some(row) = self.lives.0.get_mut(id).filter(|row| row.life == *life) else {
                continue;
            };
            if row.held.is_none_or(|held| held < (*upto, *term)) {
                Arc::make_mut(row).held = Some((*upto, *term));
            }
        }
    }
}
