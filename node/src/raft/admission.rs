//! Whether a request comes from the process that speaks for its server ([`Processes`] knows which that is).
//!
//! Where the log cannot tell, the known process is asked whether it still runs.
//!
//! [`Processes`]: super::processes::Processes

use std::time::Duration;

use quorate_storage::raft::NodeId;

use super::context::Context;
use super::processes::Claim;
use super::protocol::{ProcessIdentity, Refusal, Request, Response};

/// How long a process may take to identify itself before it counts as gone. A closed port answers at once.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

impl Context {
    /// Whether a request comes from the process that speaks for its server. A newcomer becomes that process
    /// if the previous one no longer answers. `afresh`: an answer from a moment ago does not count.
    pub(super) async fn admit_process(
        &self,
        from: NodeId,
        sender: &ProcessIdentity,
        afresh: bool,
    ) -> Result<(), Refusal> {
        let processes = &self.processes;
        if from == self.id {
            return self.admit_own(sender);
        }
        let current = match processes.claim(from, sender) {
            Claim::Known => return Ok(()),
            Claim::Later => {
                processes.accept(from, sender);
                return Ok(());
            }
            Claim::Earlier(address) => return Err(Refusal::Superseded(address)),
            Claim::Disputed(current) => current,
        };
        let asking = processes.asking(from);
        let _one_at_a_time = asking.lock().await;
        // Another task may have asked meanwhile.
        if matches!(processes.claim(from, sender), Claim::Known) {
            return Ok(());
        }
        let is_there =
            (!afresh && processes.is_present(from, current.boot)) || self.answers(&current).await;
        if !is_there {
            // First: from here on, the silence of the previous process is not reported.
            processes.accept(from, sender);
            tracing::info!(
                server = from,
                was = %current.rpc_addr,
                is = %sender.rpc_addr,
                "a server has started again"
            );
            return Ok(());
        }
        processes.found_present(from, current.boot);
        // If the log does not know the running process yet, neither is preferred: the newcomer asks again.
        let recorded = processes.recorded(from, &sender.store_id).map(|(boot, _)| boot);
        Err(if recorded == Some(current.boot) {
            Refusal::InUse(current.rpc_addr)
        } else {
            Refusal::OtherBoot(processes.sender())
        })
    }

    /// Another process with this server's own id.
    fn admit_own(&self, sender: &ProcessIdentity) -> Result<(), Refusal> {
        let own = self.processes.sender();
        if sender.boot == own.boot {
            return Ok(());
        }
        let is_copy = sender.store_id == own.store_id;
        Err(match (own.incarnation, sender.incarnation) {
            (Some(_), None) if is_copy => Refusal::InUse(own.rpc_addr),
            // The log decides, now or later.
            (Some(_) | None, _) => Refusal::OtherBoot(own),
        })
    }

    /// Whether this same process still answers at its address.
    pub(super) async fn answers(&self, process: &ProcessIdentity) -> bool {
        if process.boot == self.processes.own() {
            return true;
        }
        let answer = self.call_address(&process.rpc_addr, Request::WhoAreYou, PROBE_TIMEOUT).await;
        matches!(answer, Ok(Response::Identity(there)) if there.boot == process.boot)
    }

    /// Takes note of why a member refused a request.
    pub(super) async fn note_refusal(&self, member: NodeId, refusal: &Refusal) {
        if let Refusal::OtherBoot(sender) = refusal {
            // If that process may speak for the member, the next request is addressed to it.
            if let Err(refusal) = self.admit_process(member, sender, false).await {
                tracing::debug!(member, %refusal, "another process answers under a server's identity");
            }
        }
        self.processes.told(refusal);
    }
}
