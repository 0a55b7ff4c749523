//! A node's own commands, from the request that brought them to the answer.
//!
//! Every command gets a number `(node, incarnation, seq)` when it is first sent. The log assigns the
//! incarnation ([`super::processes`]); commands that come earlier wait for it. A command stays in this table
//! until *this node* has applied an entry that holds its number, and its outcome comes from that apply. So
//! clients can read what they were told was written from this node, even with `?stale`, and a lost reply
//! costs nothing. When the leader changes, all open commands go to the next leader under the same numbers;
//! the replicated origin record makes each take effect once.
//!
//! The table has two parts: commands that were never sent (`fresh`), and numbered ones (`open`). The lowest
//! open number minus one is what the origin has "answered through". It travels with every batch and lets the
//! record forget all numbers up to it. One number may stay open while thousands above it are answered, for
//! example because its forward was lost; then a batch names those as well, now and then
//! ([`Command::Answered`]).
//!
//! Heartbeats and writes are batched separately ([`Lane`]) and share the numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::command::{Asked, ClaimsCommand, Command, CommandId, Outcome, Part, Permits};
use quorate_storage::limits::{self, Excess};
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::record::RequestFacts;
use quorate_storage::state::{
    ACL_LEVEL, ANSWERED_PER_NOTE, HISTORY_LEVEL, State, UsedNumbers, level_of,
};
use tokio::sync::{Notify, oneshot, watch};

use super::context::Context;
use super::intake::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, Intake};
use super::lane::{ByLane, Lane};
use super::leadership::Leadership;
use super::protocol::{Forwarded, Request, Response};
use super::transport::{Purpose, TransportError};
use crate::host::clock::Moment;
use crate::host::durations::Durations;
use crate::host::supervise::{catch, contained};
use crate::raft::error::ProposeError;

/// Pause before a batch that was refused is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// How long one forward may take before it is sent again to the same leader. A healthy disk takes less, and a
/// newer leader ends the wait at once.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of a command that has none: real ones begin at 1.
const UNNUMBERED: u64 = 0;
/// What a command's number, names and lengths add to its payload, roughly.
const COMMAND_OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests;

/// Numbers this node's commands, sends them, and answers their clients.
#[derive(Debug)]
pub struct Proposer {
    context: Context,
    /// A std lock: held for map operations, never across an await.
    table: Mutex<Table>,
    wake: Notify,
    durations: Durations,
}

#[derive(Debug, Default)]
struct Table {
    lanes: ByLane<Queue>,
    open: BTreeMap<u64, Open>,
    last_seq: u64,
    /// Numbers that were answered or given up since a batch last named those above the floor.
    answered_since_note: u64,
    /// Incremented with every change of leadership: what was sent under an older epoch is due again.
    epoch: u64,
}

/// What one lane has to send, and what it has sent.
#[derive(Debug, Default)]
struct Queue {
    fresh: VecDeque<Fresh>,
    /// Open numbers that are to be sent (again).
    due: BTreeSet<u64>,
    /// How many numbers are open.
    open: usize,
    /// Batches on their way.
    forwards: usize,
    /// Of all commands, fresh and open.
    bytes: usize,
}

/// A command that was never sent, hence has no number yet.
#[derive(Debug)]
struct Fresh {
    command: Command,
    request: Option<Arc<RequestFacts>>,
    bytes: usize,
    since: Moment,
    ticket: Arc<AtomicU64>,
    reply: oneshot::Sender<Outcome>,
}

/// A command with a number.
#[derive(Debug)]
struct Open {
    lane: Lane,
    command: Command,
    request: Option<Arc<RequestFacts>>,
    bytes: usize,
    reply: oneshot::Sender<Outcome>,
    /// Shipments that hold it and are not resolved.
    in_flight: usize,
    /// Whether a resolved shipment may have been appended.
    appended: bool,
}

impl Open {
    /// Whether a leader may have appended it.
    fn was_handed(&self) -> bool {
        self.appended || self.in_flight > 0
    }
}

/// Commands that are to be sent, each with the request that it comes from.
#[derive(Debug, Default)]
struct Taken {
    commands: Vec<(u64, Command)>,
    requests: Vec<Option<Arc<RequestFacts>>>,
    bytes: usize,
}

/// A batch on its way: its numbers, and the leadership that it was made for.
#[derive(Debug)]
struct Shipment {
    lane: Lane,
    part: Part,
    bytes: usize,
    epoch: u64,
}

/// A client's place in the table. Gives the command up when the client goes or its hold time is over.
struct Ticket<'a> {
    proposer: &'a Proposer,
    /// Set under the table's lock when the command gets its number; zero before that.
    seq: Arc<AtomicU64>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Ticket<'_> {
    /// Ends the wait: returns the outcome if it arrived at the last moment, otherwise what is known without
    /// it.
    ///
    /// All of it happens under the table's lock. Otherwise the command could be answered, or be numbered and
    /// handed to a leader, between the check and the verdict.
    fn conclude(&mut self) -> Result<Outcome, ProposeError> {
        let mut table = self.proposer.table();
        if let Ok(outcome) = self.outcome.try_recv() {
            return Ok(outcome);
        }
        // A fresh command whose channel is closed is never sent.
        self.outcome.close();
        let given_up = table.remove(self.seq.load(Ordering::SeqCst));
        let handed = given_up.is_some_and(|open| open.was_handed());
        Err(if handed { ProposeError::OutcomeUnknown } else { ProposeError::NoLeader })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut table = self.proposer.table();
        self.outcome.close();
        drop(table.remove(self.seq.load(Ordering::SeqCst)));
    }
}

impl Proposer {
    /// A proposer for this boot of this node.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            table: Mutex::default(),
            wake: Notify::new(),
            durations: Durations::default(),
        }
    }

    /// Replicates a command of this node's own and returns its outcome once this node has applied it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.propose_for(command, None).await
    }

    /// The same for a request, which the history names as the cause.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_for(
        &self,
        command: Command,
        request: Option<Arc<RequestFacts>>,
    ) -> Result<Outcome, ProposeError> {
        self.propose_numbered(command, request, &Arc::default()).await
    }

    /// The same where the command's number means something: `seq` has it before any server has the command.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_numbered(
        &self,
        command: Command,
        request: Option<Arc<RequestFacts>>,
        seq: &Arc<AtomicU64>,
    ) -> Result<Outcome, ProposeError> {
        limits::validate(&command)?;
        Excess::of_command(encoded_bytes(&command))?;
        let is_permitted = request.as_ref().is_some_and(|request| request.authority.is_some());
        self.check_level(level_of(&command).max(if is_permitted { ACL_LEVEL } else { 0 }))?;
        let began = self.context.clock.now();
        let (reply, outcome) = oneshot::channel();
        self.enqueue(command, request, reply, Arc::clone(seq))?;
        // The number may have been that of an earlier command.
        let mut ticket = Ticket { proposer: self, seq: Arc::clone(seq), outcome };
        match self.context.hold(&mut ticket.outcome).await {
            Ok(Ok(outcome)) => {
                self.durations.observe(self.context.clock.now().since(began));
                Ok(outcome)
            }
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => ticket.conclude(),
        }
    }

    /// How long commands take from the proposal to the outcome.
    pub fn durations(&self) -> &Durations {
        &self.durations
    }

    /// Refuses what servers of an older version could not apply.
    fn check_level(&self, needed: u32) -> Result<(), ProposeError> {
        let published = self.context.processes.published();
        let level = published.map_or(needed, |published| published.state.level());
        if level < needed { Err(ProposeError::NotYet { needed, level }) } else { Ok(()) }
    }

    fn enqueue(
        &self,
        command: Command,
        request: Option<Arc<RequestFacts>>,
        reply: oneshot::Sender<Outcome>,
        ticket: Arc<AtomicU64>,
    ) -> Result<(), ProposeError> {
        let bytes = encoded_bytes(&command) + COMMAND_OVERHEAD_BYTES;
        let lane = Lane::of(&command);
        // It makes room elsewhere, and there are at most as many as there are streams.
        let is_bounded = !matches!(
            command,
            Command::PresenceEnded { .. }
                | Command::Claims(ClaimsCommand::Detached { .. } | ClaimsCommand::Collected { .. })
        );
        let since = self.context.clock.now();
        let mut table = self.table();
        let queue = &mut table.lanes[lane];
        if is_bounded && !queue.has_room_for(lane, bytes) {
            queue.forget_abandoned();
            if !queue.has_room_for(lane, bytes) {
                return Err(ProposeError::Overloaded);
            }
        }
        queue.bytes += bytes;
        queue.fresh.push_back(Fresh { command, request, bytes, since, ticket, reply });
        let can_be_sent = queue.forwards < lane.forwards_in_flight_max();
        drop(table);
        // Otherwise the end of a forward wakes the sending task, which could do nothing now. Its wake-up costs as much
        // as the rest of a heartbeat, because it runs on other threads than requests do.
        if can_be_sent {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Commands that are not answered yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.table().lanes.iter().map(Queue::unanswered).sum()
    }

    /// How long the oldest heartbeat has waited to be sent.
    #[must_use]
    pub fn oldest_heartbeat(&self) -> Duration {
        let since = self.table().lanes[Lane::Heartbeats].fresh.front().map(|fresh| fresh.since);
        since.map_or(Duration::ZERO, |since| self.context.clock.now().since(since))
    }

    /// Answers the clients whose commands were applied. Called while applying: it costs a map operation for
    /// each of this node's commands.
    pub fn applied(&self, outcomes: impl IntoIterator<Item = (CommandId, Outcome)>) {
        let Some(incarnation) = self.context.processes.incarnation() else { return };
        let mut table = self.table();
        for (id, outcome) in outcomes {
            if id.origin == self.context.id && id.incarnation == incarnation {
                table.answer(id.seq, outcome);
            }
        }
    }

    /// Takes note of how far the log has used the numbers of this boot. They can be ahead of this node only
    /// if another process sent commands in its name. This node then continues after those numbers; otherwise
    /// its own commands would be taken for answered ones.
    pub fn used(&self, used: UsedNumbers) {
        if self.context.processes.incarnation() != Some(used.incarnation) {
            return;
        }
        let mut table = self.table();
        if used.highest > table.last_seq {
            tracing::warn!(
                used = used.highest,
                given = table.last_seq,
                "another process has sent commands in the name of this server: this one continues after their numbers"
            );
            table.last_seq = used.highest;
        }
    }

    /// Looks up the outcomes of open commands after a snapshot replaced the state.
    pub fn installed(&self, state: &State) {
        let Some(incarnation) = self.context.processes.incarnation() else { return };
        let mut table = self.table();
        let open: Vec<u64> = table.open.keys().copied().collect();
        for seq in open {
            let id = CommandId { origin: self.context.id, incarnation, seq };
            if let Some(outcome) = state.remembered(id) {
                table.answer(seq, outcome);
            }
        }
    }

    /// The sending task; ends when leadership is no longer published.
    pub async fn run(
        self: Arc<Self>,
        intake: Arc<Intake>,
        mut leadership: watch::Receiver<Leadership>,
    ) {
        let mut current = leadership.borrow_and_update().clone();
        let mut begun = self.context.processes.begun();
        loop {
            while let Some(shipment) = self.next_shipment(&current) {
                let (proposer, intake) = (Arc::clone(&self), Arc::clone(&intake));
                let (to, changes) = (current.clone(), leadership.clone());
                // At most `Lane::forwards_in_flight_max` of these at a time in each lane.
                drop(contained("a batch on its way", async move {
                    proposer.ship(shipment, &intake, to, changes).await;
                }));
            }
            tokio::select! {
                () = self.wake.notified() => {}
                // Commands that were waiting for this boot's incarnation can be sent now.
                Ok(()) = begun.changed() => {}
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    current = leadership.borrow_and_update().clone();
                    self.table().change_epoch();
                }
            }
        }
    }

    /// The next batch, if there is a leader, something to send, and room for another forward.
    fn next_shipment(&self, leadership: &Leadership) -> Option<Shipment> {
        leadership.leader.as_ref()?;
        // Until the log has assigned this boot its incarnation, its commands have no numbers.
        let incarnation = self.context.processes.incarnation()?;
        let mut table = self.table();
        Lane::ALL.into_iter().find_map(|lane| self.next_of_lane(lane, incarnation, &mut table))
    }

    fn next_of_lane(&self, lane: Lane, incarnation: u64, table: &mut Table) -> Option<Shipment> {
        if table.lanes[lane].forwards >= lane.forwards_in_flight_max() {
            return None;
        }
        let Taken { mut commands, requests, bytes } = table.take(lane);
        if commands.is_empty() {
            return None;
        }
        if self.keeps_history()
            && let Some(asked) = Asked::note(requests.iter().map(Option::as_deref))
        {
            commands.insert(0, (UNNUMBERED, Command::Asked(asked)));
        }
        let authorities = requests.iter().map(|request| request.as_ref()?.authority.as_ref());
        if let Some(permits) = Permits::note(authorities) {
            commands.insert(0, (UNNUMBERED, Command::Permits(permits)));
        }
        table.lanes[lane].forwards += 1;
        if let Some(runs) = table.note() {
            commands.insert(0, (UNNUMBERED, Command::Answered { runs }));
        }
        let part = Part {
            origin: self.context.id,
            incarnation,
            answered_through: table.answered_through(),
            commands,
        };
        Some(Shipment { lane, part, bytes, epoch: table.epoch })
    }

    /// Whether the cluster keeps a history, as far as this node has applied the log.
    fn keeps_history(&self) -> bool {
        let published = self.context.processes.published();
        published.is_some_and(|published| published.state.level() >= HISTORY_LEVEL)
    }

    async fn ship(
        &self,
        shipment: Shipment,
        intake: &Intake,
        to: Leadership,
        changes: watch::Receiver<Leadership>,
    ) {
        let seqs: Vec<u64> = shipment.part.commands.iter().map(|(seq, _)| *seq).collect();
        let (lane, epoch) = (shipment.lane, shipment.epoch);
        let fate = self.fate(self.hand_over(shipment, intake, &to), &to, changes).await;
        self.conclude(lane, &seqs, epoch, fate).await;
    }

    /// Hands a batch over and returns its fate. A panic must not keep the lane occupied: the fate is unknown
    /// then, and the batch is sent again.
    async fn fate(
        &self,
        handed: impl Future<Output = Forwarded> + Send,
        to: &Leadership,
        mut changes: watch::Receiver<Leadership>,
    ) -> Forwarded {
        let superseded = changes.wait_for(|now| now != to);
        tokio::select! {
            biased;
            fate = catch("the hand-over of a batch", handed) => fate.unwrap_or(Forwarded::Unknown),
            // A newer leader: this one's answer no longer matters.
            _ = superseded => Forwarded::Unknown,
        }
    }

    /// Frees the lane, and makes what was not committed due again.
    async fn conclude(&self, lane: Lane, seqs: &[u64], epoch: u64, fate: Forwarded) {
        self.table().resolve(lane, seqs, fate);
        if fate != Forwarded::Committed {
            self.context.clock.sleep(RETRY_PAUSE).await;
            self.table().make_due(seqs, epoch);
        }
        self.wake.notify_one();
    }

    async fn hand_over(&self, shipment: Shipment, intake: &Intake, to: &Leadership) -> Forwarded {
        let Some((leader, peer)) = &to.leader else { return Forwarded::NotLeader };
        if *leader == self.context.id {
            intake.submit(shipment.part, shipment.bytes).await
        } else {
            self.forward(*leader, peer, shipment.part).await
        }
    }

    async fn forward(&self, leader: NodeId, peer: &Peer, part: Part) -> Forwarded {
        let request = Request::Forward(part);
        let answer =
            self.context.call(leader, peer, Purpose::Forward, request, FORWARD_TIMEOUT).await;
        match answer {
            Ok(Response::Forward(fate)) => fate,
            Ok(Response::Refused(_)) | Err(TransportError::Unreachable(_)) => Forwarded::NotLeader,
            Ok(_) | Err(TransportError::NoAnswer(_)) => Forwarded::Unknown,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Size of a command in the log.
fn encoded_bytes(command: &Command) -> usize {
    // Encoding plain data into a counter cannot fail; if it did, the limits would treat the command
    // as the largest there is.
    postcard::experimental::serialized_size(command).unwrap_or(ENTRY_BYTES_MAX)
}

impl Queue {
    fn unanswered(&self) -> usize {
        self.fresh.len() + self.open
    }

    fn has_room_for(&self, lane: Lane, bytes: usize) -> bool {
        self.unanswered() < lane.unanswered_max()
            && self.bytes + bytes <= lane.unanswered_bytes_max()
    }

    /// Drops what was never sent and whose client has gone.
    fn forget_abandoned(&mut self) {
        let bytes = &mut self.bytes;
        self.fresh.retain(|fresh| {
            let abandoned = fresh.reply.is_closed();
            if abandoned {
                *bytes -= fresh.bytes;
            }
            !abandoned
        });
    }

    /// The next fresh command whose client has not gone.
    fn next_fresh(&mut self) -> Option<Fresh> {
        loop {
            let fresh = self.fresh.pop_front()?;
            if !fresh.reply.is_closed() {
                return Some(fresh);
            }
            self.bytes -= fresh.bytes;
        }
    }
}

impl Table {
    /// Every number up to this one is answered or given up.
    fn answered_through(&self) -> u64 {
        self.open.first_key_value().map_or(self.last_seq, |(lowest, _)| lowest - 1)
    }

    /// What the record can forget above the floor, if that has grown large since it was last sent.
    fn note(&mut self) -> Option<Vec<(u64, u64)>> {
        let above = self.last_seq - self.answered_through();
        let answered = above.saturating_sub(self.open.len() as u64);
        if answered.min(self.answered_since_note) < ANSWERED_PER_NOTE {
            return None;
        }
        self.answered_since_note = 0;
        let open = self.open.keys().copied();
        let ends = open.clone().skip(1).chain([self.last_seq + 1]);
        let gaps = open.zip(ends).map(|(open, next)| (open + 1, next - 1));
        Some(gaps.filter(|(first, last)| first <= last).collect())
    }

    /// Takes what is to be sent: numbers that are due again first, then fresh commands, which get their
    /// numbers now. Drops a fresh command whose client has gone.
    fn take(&mut self, lane: Lane) -> Taken {
        let mut taken = Taken::default();
        while taken.commands.len() < ENTRY_COMMANDS_MAX {
            let Some((seq, bytes)) = self.peek_or_admit(lane) else { break };
            if taken.bytes + bytes > ENTRY_BYTES_MAX && !taken.commands.is_empty() {
                break;
            }
            self.lanes[lane].due.remove(&seq);
            if let Some(open) = self.open.get_mut(&seq) {
                open.in_flight += 1;
                taken.bytes += bytes;
                taken.commands.push((seq, open.command.clone()));
                taken.requests.push(open.request.clone());
            }
        }
        taken
    }

    /// The next number that is due, after giving one to a fresh command if none is.
    fn peek_or_admit(&mut self, lane: Lane) -> Option<(u64, usize)> {
        if self.lanes[lane].due.is_empty() {
            let fresh = self.lanes[lane].next_fresh()?;
            self.admit(lane, fresh);
        }
        let seq = *self.lanes[lane].due.first()?;
        let bytes = self.open.get(&seq).map_or(0, |open| open.bytes);
        Some((seq, bytes))
    }

    fn admit(&mut self, lane: Lane, fresh: Fresh) {
        self.last_seq += 1;
        let Fresh { command, request, bytes, ticket, reply, since: _ } = fresh;
        ticket.store(self.last_seq, Ordering::SeqCst);
        let open = Open { lane, command, request, bytes, reply, in_flight: 0, appended: false };
        self.open.insert(self.last_seq, open);
        self.lanes[lane].open += 1;
        self.lanes[lane].due.insert(self.last_seq);
    }

    fn answer(&mut self, seq: u64, outcome: Outcome) {
        if let Some(open) = self.remove(seq) {
            // The receiver may be gone; ignore the error.
            let _ = open.reply.send(outcome);
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Open> {
        let open = self.open.remove(&seq)?;
        let queue = &mut self.lanes[open.lane];
        queue.due.remove(&seq);
        queue.open -= 1;
        queue.bytes -= open.bytes;
        self.answered_since_note += 1;
        Some(open)
    }

    /// Counts a shipment as ended.
    fn resolve(&mut self, lane: Lane, seqs: &[u64], fate: Forwarded) {
        self.lanes[lane].forwards -= 1;
        for seq in seqs {
            if *seq == UNNUMBERED && fate != Forwarded::Committed {
                // The note may be lost; the next batch repeats it.
                self.answered_since_note = u64::MAX / 2;
            }
            if let Some(open) = self.open.get_mut(seq) {
                open.in_flight -= 1;
                open.appended |= fate != Forwarded::NotLeader;
            }
        }
    }

    /// Puts numbers back, unless a newer epoch has done so already.
    fn make_due(&mut self, seqs: &[u64], epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        for seq in seqs {
            if let Some(open) = self.open.get(seq) {
                self.lanes[open.lane].due.insert(*seq);
            }
        }
    }

    /// The leader changed: everything open becomes due for the next one.
    fn change_epoch(&mut self) {
        self.epoch += 1;
        for (seq, open) in &self.open {
            self.lanes[open.lane].due.insert(*seq);
        }
    }
}
