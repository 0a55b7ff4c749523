//! Origin records: why a command that is sent twice takes effect once.
//!
//! A node that does not learn what became of a command sends it again, under the same number, to
//! the next leader. The record of each node decides what such a command is:
//!
//! * of an earlier boot (lower incarnation), at or below the floor, or answered above it: it may have
//!   been applied, and is not applied now;
//! * remembered: it was applied, and this is its outcome;
//! * everything else is new.
//!
//! Only the node itself raises its floor, by saying up to which number it has answered its clients;
//! a higher incarnation begins a new record, because a restarted node has no clients left to answer.
//!
//! **How large a record is.** One command that is lost on its way keeps the floor down until it is sent
//! again, and thousands above it are answered meanwhile. So the node also says, whenever
//! [`ANSWERED_PER_NOTE`] more were answered above the floor, which ones those are
//! ([`Command::Answered`]); their outcomes are forgotten, and what remains of them are runs of numbers,
//! at most one more than there are open numbers. A record therefore holds the outcomes of what its node
//! has not answered (the node limits that), and of what it answered since its last note was applied.
//!
//! **Order within a part, and between parts.** What the part says of answers is noted *before* its
//! commands run. What the origin still owes an answer is not among them by definition, so this refuses
//! none of it; what is among them was answered or given up, and "outcome unknown" must stay true of it
//! rather than become a change that nobody waits for. Parts may overtake each other: what was answered
//! once is answered for ever, so the notes of an older part add nothing and take nothing back.
//!
//! **Removed servers** keep a stub: their incarnation, and a floor at their highest number. Without
//! it, a copy of an old command still on its way would find no record and be applied again.

use imbl::OrdMap;

use super::State;
use crate::Index;
use crate::command::{BeatsOutcome, Command, CommandId, Outcome, Part, Refused, Rejection};
use crate::ids::NodeId;

/// The largest outcome that is remembered as it is, in bytes of its encoding.
pub(super) const REMEMBERED_BYTES_MAX: usize = 1_024;

/// So many commands are answered above the floor before their node says which (see
/// [`Command::Answered`]): few enough that their outcomes do not count, and enough that saying it costs
/// nothing.
pub const ANSWERED_PER_NOTE: u64 = 1_024;

/// What is known of one node's commands.
#[derive(Debug, Clone, Default)]
pub(super) struct OriginRecord {
    /// The node's newest boot.
    pub(super) incarnation: u64,
    /// Everything up to here is answered.
    pub(super) floor: u64,
    /// Outcomes above the floor of what is not known to be answered.
    pub(super) outcomes: OrdMap<u64, Outcome>,
    /// What is answered above the floor: the last number of each run by its first. Runs neither overlap
    /// nor touch, and the floor touches none.
    pub(super) answered: OrdMap<u64, u64>,
}

impl OriginRecord {
    /// The lowest number whose outcome is remembered.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.outcomes.get_min().map(|(seq, _)| *seq)
    }

    /// Whether the node has answered a number, as far as it said so.
    pub(super) fn is_answered(&self, seq: u64) -> bool {
        let run = self.answered.get_prev(&seq);
        seq <= self.floor || run.is_some_and(|(_, last)| seq <= *last)
    }

    /// Everything up to a number is answered.
    fn raise_floor(&mut self, answered_through: u64) {
        self.floor = self.floor.max(answered_through);
        while let Some((first, last)) = self.answered.get_min().copied()
            && first <= self.floor.saturating_add(1)
        {
            self.answered.remove(&first);
            self.floor = self.floor.max(last);
        }
        while let Some(seq) = self.lowest()
            && seq <= self.floor
        {
            self.outcomes.remove(&seq);
        }
    }

    /// A run of numbers above the floor is answered.
    fn answer_run(&mut self, mut first: u64, mut last: u64) {
        if let Some((start, end)) = self.answered.get_prev(&first).map(|(s, e)| (*s, *e))
            && end.saturating_add(1) >= first
        {
            if end >= last {
                return;
            }
            first = start;
        }
        while let Some((start, end)) = self.answered.get_next(&first).map(|(s, e)| (*s, *e))
            && start <= last.saturating_add(1)
        {
            self.answered.remove(&start);
            last = last.max(end);
        }
        self.answered.insert(first, last);
        let forgotten: Vec<u64> = self.outcomes.range(first..=last).map(|(seq, _)| *seq).collect();
        for seq in forgotten {
            self.outcomes.remove(&seq);
        }
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
    /// Gives a server that has booted its incarnation: one that was never given, to this id or by its
    /// data directory, which counted them itself once.
    pub(super) fn begin_incarnation(&mut self, id: NodeId, boots: u64, newest: Option<u64>) -> u64 {
        let record = self.records.entry(id).or_default();
        let last = record.incarnation.max(newest.unwrap_or(0)).max(boots.saturating_sub(1));
        let incarnation = last + 1;
        *record = OriginRecord { incarnation, ..OriginRecord::default() };
        incarnation
    }

    /// Takes note of a part's incarnation and of what its origin has answered.
    pub(super) fn begin(&mut self, part: &Part) {
        let record = self.records.entry(part.origin).or_default();
        if part.incarnation > record.incarnation {
            *record = OriginRecord { incarnation: part.incarnation, ..OriginRecord::default() };
        }
        if part.incarnation != record.incarnation {
            return;
        }
        if let Some((_, Command::Answered { runs })) = part.commands.first() {
            let runs = runs.iter().filter(|(first, last)| first <= last && *last > record.floor);
            for (first, last) in runs.copied().collect::<Vec<_>>() {
                record.answer_run(first, last);
            }
        }
        record.raise_floor(part.answered_through);
    }

    /// Whether a command is to be applied.
    pub(super) fn lookup(&self, id: CommandId) -> Verdict {
        let unknown = Verdict::Known(Outcome::Rejected(Rejection::OutcomeUnknown));
        match self.records.get(&id.origin) {
            Some(record) if id.incarnation < record.incarnation => unknown,
            Some(record) if id.incarnation == record.incarnation => {
                if record.is_answered(id.seq) {
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
            && !record.is_answered(id.seq)
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
            record.floor = record.highest();
            record.outcomes = OrdMap::new();
            record.answered = OrdMap::new();
        }
    }
}

/// Which numbers of commands a server has used, as far as the log says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsedNumbers {
    /// Its newest boot.
    pub incarnation: u64,
    /// The highest number of that boot.
    pub highest: u64,
}

impl OriginRecord {
    /// The highest number that was applied or answered.
    fn highest(&self) -> u64 {
        let outcome = self.outcomes.get_max().map_or(0, |(seq, _)| *seq);
        let answered = self.answered.get_max().map_or(0, |(_, last)| *last);
        self.floor.max(outcome).max(answered)
    }
}

impl State {
    /// Which numbers a server has used.
    #[must_use]
    pub fn used_numbers(&self, id: NodeId) -> UsedNumbers {
        self.origins.records.get(&id).map_or_else(UsedNumbers::default, |record| UsedNumbers {
            incarnation: record.incarnation,
            highest: record.highest(),
        })
    }
}

/// What is kept of an outcome. A refusal that is too long is not kept as "applied": that would be a
/// lie, while "unknown" is only less.
fn shortened(outcome: &Outcome, index: Index) -> Outcome {
    let is_small = match outcome {
        Outcome::Done | Outcome::Condition(_) | Outcome::AppliedAt(_) => true,
        Outcome::Beats(beats) => !matches!(beats.refused, Refused::These(_)),
        Outcome::Id(_) | Outcome::Rejected(_) | Outcome::Txn(_) => {
            postcard::experimental::serialized_size(outcome)
                .is_ok_and(|size| size <= REMEMBERED_BYTES_MAX)
        }
    };
    match outcome {
        kept if is_small => kept.clone(),
        Outcome::Rejected(_) => Outcome::Rejected(Rejection::OutcomeUnknown),
        Outcome::Beats(beats) => {
            Outcome::Beats(BeatsOutcome { refused: Refused::Some, ..beats.clone() })
        }
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
        | Command::DescribeAgent { .. }
        | Command::WatchAgent { .. }
        | Command::Answered { .. }
        | Command::Asked(_)
        | Command::PresenceOpen(_)
        | Command::PresenceOfProcess(_)
        | Command::PresenceReopen(_)
        | Command::PresenceEnded { .. }
        | Command::Renew(_)
        | Command::Beat(_)
        | Command::Claims(_)
        | Command::Workers(_)
        | Command::Permits(_)
        | Command::Acl(_) => false,
    }
}
