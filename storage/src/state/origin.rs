//! Origin records: why a command that is sent twice takes effect once.
//!
//! A node that does not learn what became of a command sends it again, under the same number, to
//! the next leader. The record of each node decides what such a command is:
//!
//! * of an earlier life (lower incarnation), or at or below the floor: it may have been applied, and
//!   is not applied now;
//! * remembered: it was applied, and this is its outcome;
//! * everything else is new.
//!
//! Only the node itself raises its floor, by saying up to which number it has answered its clients;
//! a higher incarnation begins a new record, because a restarted node has no clients left to answer.
//!
//! **Order within a part.** The floor is raised *before* the part's commands run. What the origin
//! still owes an answer lies above the floor by definition, so this refuses none of it; what lies at
//! or below it was answered or given up, and "outcome unknown" must stay true of it rather than
//! become a change that nobody waits for.
//!
//! **Removed servers** keep a stub: their incarnation, and a floor at their highest number. Without
//! it, a copy of an old command still on its way would find no record and be applied again.

use imbl::OrdMap;

use super::State;
use crate::Index;
use crate::command::{Command, CommandId, Outcome, Part, Rejection};
use crate::mutant::{self, Mutant};
use crate::raft::NodeId;

/// The largest outcome that is remembered as it is, in bytes of its encoding. At most 8,192 of them
/// are unanswered per node.
pub(super) const REMEMBERED_BYTES_MAX: usize = 1_024;

/// What is known of one node's commands.
#[derive(Debug, Clone, Default)]
pub(super) struct OriginRecord {
    /// The node's newest life.
    pub(super) incarnation: u64,
    /// Everything up to here is answered.
    pub(super) floor: u64,
    /// Outcomes above the floor.
    pub(super) outcomes: OrdMap<u64, Outcome>,
}

impl OriginRecord {
    /// The lowest number whose outcome is remembered.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.outcomes.get_min().map(|(seq, _)| *seq)
    }
}

/// All nodes' records.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    /// By Raft id.
    pub(super) records: OrdMap<NodeId, OriginRecord>,
}

/// What a numbered command turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was never applied.
    New,
    /// It is answered with this, and not applied.
    Known(Outcome),
}

impl Origins {
    /// Takes note of a part's incarnation and of what its origin has answered.
    pub(super) fn begin(&mut self, part: &Part) {
        let record = self.records.entry(part.origin).or_default();
        if part.incarnation > record.incarnation {
            *record = OriginRecord { incarnation: part.incarnation, ..OriginRecord::default() };
        }
        if part.incarnation == record.incarnation && part.answered_through > record.floor {
            record.floor = part.answered_through;
            while let Some(seq) = record.lowest()
                && seq <= record.floor
            {
                record.outcomes.remove(&seq);
            }
        }
    }

    /// Whether a command is to be applied.
    pub(super) fn judge(&self, id: CommandId) -> Verdict {
        let unknown = Verdict::Known(Outcome::Rejected(Rejection::OutcomeUnknown));
        match self.records.get(&id.origin) {
            Some(record) if id.incarnation < record.incarnation => {
                if mutant::is_active(Mutant::LowerIncarnationApplied) {
                    return Verdict::New;
                }
                unknown
            }
            Some(record) if id.incarnation == record.incarnation => {
                if id.seq <= record.floor && !mutant::is_active(Mutant::FloorIgnored) {
                    return unknown;
                }
                record
                    .outcomes
                    .get(&id.seq)
                    .map_or(Verdict::New, |known| Verdict::Known(known.clone()))
            }
            Some(_) | None => Verdict::New,
        }
    }

    /// Remembers an outcome until its origin says that it answered it.
    pub(super) fn remember(&mut self, id: CommandId, outcome: &Outcome, index: Index) {
        if let Some(record) = self.records.get_mut(&id.origin)
            && record.incarnation == id.incarnation
            && id.seq > record.floor
        {
            record.outcomes.insert(id.seq, shortened(outcome, index));
        }
    }

    /// A remembered outcome.
    pub(super) fn remembered(&self, id: CommandId) -> Option<Outcome> {
        let record = self.records.get(&id.origin)?;
        let outcome = (record.incarnation == id.incarnation).then(|| record.outcomes.get(&id.seq));
        outcome.flatten().cloned()
    }

    /// Forgets a removed server's outcomes, but not how far it had come.
    pub(super) fn retire(&mut self, id: NodeId) {
        if let Some(record) = self.records.get_mut(&id) {
            let highest = record.outcomes.get_max().map_or(0, |(seq, _)| *seq);
            record.floor = record.floor.max(highest);
            record.outcomes = OrdMap::new();
        }
    }
}

impl State {
    /// Forgets which commands were applied: a mutant's doing.
    pub(crate) fn forget_origins(&mut self) {
        self.origins = Origins::default();
    }
}

/// What is kept of an outcome. A refusal that is too long is not kept as "applied": that would be a
/// lie, while "unknown" is only less.
fn shortened(outcome: &Outcome, index: Index) -> Outcome {
    let is_small = match outcome {
        Outcome::Done | Outcome::Held(_) | Outcome::AppliedAt(_) => true,
        Outcome::Id(_) | Outcome::Rejected(_) | Outcome::Txn(_) => {
            postcard::experimental::serialized_size(outcome)
                .is_ok_and(|size| size <= REMEMBERED_BYTES_MAX)
        }
    };
    match outcome {
        kept if is_small => kept.clone(),
        Outcome::Rejected(_) => Outcome::Rejected(Rejection::OutcomeUnknown),
        _ => Outcome::AppliedAt(index),
    }
}

/// Whether a command may be found impossible after it has begun to write, so that what it wrote has
/// to be taken back.
pub(super) fn may_fail_midway(command: &Command) -> bool {
    match command {
        Command::CatalogRegister(_)
        | Command::AgentRegisterCheck { .. }
        | Command::SessionCreate(_)
        | Command::Txn(_) => true,
        Command::CatalogDeregister { .. }
        | Command::AgentRegisterService { .. }
        | Command::AgentDeregisterService { .. }
        | Command::AgentDeregisterCheck { .. }
        | Command::UpdateCheck { .. }
        | Command::Heartbeat { .. }
        | Command::KvPut { .. }
        | Command::KvDelete { .. }
        | Command::SessionDestroy { .. }
        | Command::SessionRenew { .. }
        | Command::RegisterServer(_)
        | Command::RemoveServer { .. }
        | Command::SetServerHealth { .. }
        | Command::FireEvent(_)
        | Command::PutCoordinate { .. }
        | Command::PutQuery { .. }
        | Command::DeleteQuery { .. }
        | Command::SetMaintenance { .. }
        | Command::AgentLeave { .. }
        | Command::SetAutopilot { .. }
        | Command::ProbeResult { .. }
        | Command::RestoreBegin { .. }
        | Command::RestorePiece { .. }
        | Command::RestoreFinish { .. }
        | Command::DescribeAgent { .. } => false,
    }
}
