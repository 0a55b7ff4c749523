//! Whether a request comes from the process that speaks for its server ([`Lives`] knows which that is).
//!
//! Where the log does not tell, the process that is known is asked whether it still runs.
//!
//! [`Lives`]: super::lives::Lives

use std::time::Duration;

use quorate_storage::raft::NodeId;

use super::context::Context;
use super::lives::Claim;
use super::protocol::{Refusal, Request, Response, Sender};

/// How long a process may take to say who it is before it counts as gone. Where nothing listens, the
/// answer comes at once.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

impl Context {
    /// Whether a request is one of the process that speaks for its server; a newcomer becomes that if
    /// the one before does not answer any more. `afresh`: the answer must be of this moment.
    pub(super) async fn admit_life(
        &self,
        from: NodeId,
        sender: &Sender,
        afresh: bool,
    ) -> Result<(), Refusal> {
        let lives = &self.lives;
        if from == self.id {
            return self.admit_own(sender);
        }
        let current = match lives.claim(from, sender) {
            Claim::Known => return Ok(()),
            Claim::Later => {
                lives.accept(from, sender);
                return Ok(());
            }
            Claim::Earlier(address) => return Err(Refusal::Superseded(address)),
            Claim::Disputed(current) => current,
        };
        let asking = lives.asking(from);
        let _one_at_a_time = asking.lock().await;
        // Somebody else may have asked meanwhile.
        if matches!(lives.claim(from, sender), Claim::Known) {
            return Ok(());
        }
        let is_there =
            (!afresh && lives.is_present(from, current.life)) || self.answers(&current).await;
        if !is_there {
            tracing::info!(
                server = from,
                was = %current.rpc_addr,
                is = %sender.rpc_addr,
                "a server has started again"
            );
            lives.accept(from, sender);
            return Ok(());
        }
        lives.found_present(from, current.life);
        // If the log does not know the running process yet, neither is preferred: the newcomer asks again.
        let recorded = lives.recorded(from, &sender.store_id).map(|(life, _)| life);
        Err(if recorded == Some(current.life) {
            Refusal::InUse(current.rpc_addr)
        } else {
            Refusal::OtherLife(lives.sender())
        })
    }

    /// Another process with this server's own id.
    fn admit_own(&self, sender: &Sender) -> Result<(), Refusal> {
        let own = self.lives.sender();
        if sender.life == own.life {
            return Ok(());
        }
        let is_copy = sender.store_id == own.store_id;
        Err(match (own.incarnation, sender.incarnation) {
            (Some(_), None) if is_copy => Refusal::InUse(own.rpc_addr),
            // The log tells, or will.
            (Some(_) | None, _) => Refusal::OtherLife(own),
        })
    }

    /// Whether this very process still answers at its address.
    pub(super) async fn answers(&self, process: &Sender) -> bool {
        if process.life == self.lives.own() {
            return true;
        }
        let answer = self.call_address(&process.rpc_addr, Request::WhoAreYou, PROBE_TIMEOUT).await;
        matches!(answer, Ok(Response::Identity(there)) if there.life == process.life)
    }

    /// Takes note of why a member did not look at a request.
    pub(super) async fn note_refusal(&self, member: NodeId, refusal: &Refusal) {
        if let Refusal::OtherLife(sender) = refusal {
            // If it may speak for the member, the next request is meant for it.
            if let Err(refusal) = self.admit_life(member, sender, false).await {
                tracing::debug!(member, %refusal, "another process answers for a server");
            }
        }
        self.lives.told(refusal);
    }
}
