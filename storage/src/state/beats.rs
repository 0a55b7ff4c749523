//! Heartbeats with facts: the heartbeat is the registration.
//!
//! A heartbeat says what its sender is, all of it or parts. What becomes of it is planned first ([`Plan`]), from
//! the state and nothing else, and then carried out: so a heartbeat that is refused has written nothing, though
//! others of its command have. A server uses the same plan to see whether a heartbeat says anything new. One that
//! does not travels as a [`Renewal`].

use std::net::IpAddr;
use std::sync::Arc;

use super::State;
use super::catalog::{Slot, fold_arc};
use super::change::Change;
use super::checks::HEARTBEAT_AGE_MIN;
use super::facts::{Process, Silence, judge};
use super::level::{COMPLETION_LEVEL, LATE_HEARTBEATS_LEVEL};
use crate::command::{
    Agent, Beat, Beats, BeatsOutcome, Outcome, Refused, Rejection, Renewal, Renewals,
};
use crate::index::fold;
use crate::record::{
    Check, CheckDefinition, CheckRegistration, CheckStatus, Facts, HEARTBEAT_CHECK, HistoryKind,
    LaterMembers, NodeKind, SERVER_SERVICE, Service, ServiceAddress, ServiceDefinition,
};
use crate::{ClusterTime, Millis};

/// Begins the id of the check that a registration gives an instance. Heartbeats renew it if it is a TTL check.
const SERVICE_CHECK: &str = "service:";
/// The name of a check that a heartbeat made.
const CHECK_NAME: &str = "Heartbeat";
/// After so long a silence an instance is critical, unless its heartbeats say otherwise.
const CRITICAL_AFTER: Millis = Millis::from_secs(90);
/// After so long a silence there is a warning, unless its heartbeats say otherwise.
const WARN_AFTER: Millis = Millis::from_secs(30);
/// A note that changes alone is shown this much after the last one at the earliest.
const NOTE_EVERY: Millis = Millis::from_secs(60);

/// What a heartbeat does.
#[derive(Debug)]
struct Plan {
    /// The instance's id.
    instance: Arc<str>,
    /// The node of the instance that is there; `None`: it is new, at its agent.
    node: Option<Arc<str>>,
    /// The instance, if it is new or another one than before.
    definition: Option<ServiceDefinition>,
    /// The check, if it is new or another one than before.
    check: Option<CheckRegistration>,
    /// The check that is there.
    present: Option<Arc<Check>>,
    /// What is known of the process from now on, if that is something else than before.
    facts: Option<Facts>,
    /// Whether that is to be seen.
    shows_facts: bool,
    /// How far it has counted.
    counter: Option<u64>,
    is_restart: bool,
    /// It came late: it only tells that the instance lives.
    is_older: bool,
    /// It came late, and renews nothing.
    late: Option<Late>,
    /// A check that the instance was renewed by before it got one of its own.
    replaces: Option<Arc<Check>>,
}

/// Whose a heartbeat is that came late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// Of the process that is known.
    Same,
    /// Of the one before.
    Previous,
}

impl State {
    /// Says in a heartbeat that travels in full what follows from what it leaves out, for the server that takes it.
    /// From [`COMPLETION_LEVEL`] on the state does that by itself, whatever its server has applied.
    pub fn complete(&self, agents: &[Agent], beat: &mut Beat) {
        if self.level >= COMPLETION_LEVEL {
            return;
        }
        let Ok(Some(node)) = self.node_of(agents, beat) else { return };
        let Some(slot) = self.catalog.nodes.get(&node) else { return };
        let Some(row) = present_check(slot, &beat.id) else { return };
        if beat.status.is_none() && replaced_check(slot, &beat.id, Some(row)).is_none() {
            beat.status = first_status(row);
        }
        if !warning_fits(&row.registration.definition, beat) {
            beat.warn_after = Some(Millis::ZERO);
        }
    }

    /// What a heartbeat is if it says nothing new: then it may travel as a renewal.
    #[must_use]
    pub fn renewal(&self, agents: &[Agent], beat: &Beat) -> Option<Renewal> {
        let plan = self.plan(self.time, agents, beat).ok()?;
        let slot = self.catalog.nodes.get(&plan.node?)?;
        let row = plan.present?;
        let is_plain = plan.definition.is_none()
            && plan.check.is_none_or(|check| is_same_as_said(&row, &check))
            && plan.facts.is_none()
            && plan.replaces.is_none()
            && !plan.is_older
            && plan.late.is_none()
            && slot.node.kind != NodeKind::Registered;
        is_plain.then(|| Renewal {
            number: row.number,
            restarts: self.facts.get(&row.number).map_or(0, |facts| facts.restarts),
            counter: beat.counter,
            status: beat.status.clone().or_else(|| first_status(&row)),
        })
    }

    /// The renewal of an instance by its id: the agent's, else the only one.
    ///
    /// # Errors
    /// There is no such instance, there are several, or no heartbeat renews it.
    pub fn renewal_of(&self, agent: &str, id: &str) -> Result<Renewal, Rejection> {
        let row = self.locate_service(agent, id)?;
        let slot = self.catalog.slot(&row.node);
        let check = slot.and_then(|slot| present_check(slot, id));
        let check =
            check.ok_or_else(|| Rejection::UnknownCheck(format!("{HEARTBEAT_CHECK}{id}")))?;
        let number = check.number;
        let restarts = self.facts.get(&number).map_or(0, |facts| facts.restarts);
        Ok(Renewal { number, restarts, counter: None, status: first_status(check) })
    }

    /// The check of an instance that heartbeats renew, if it has one.
    #[must_use]
    pub fn heartbeat_check(&self, row: &Service) -> Option<&Arc<Check>> {
        present_check(self.catalog.slot(&row.node)?, &row.definition.id)
    }

    /// What is known of the process that renews a check.
    #[must_use]
    pub fn facts(&self, check: u64) -> Option<&Facts> {
        self.facts.get(&check).map(|facts| &**facts)
    }

    /// What is known of the process behind an instance, from its heartbeats or from the connection that holds it.
    #[must_use]
    pub fn process_of(&self, row: &Service) -> Option<&Facts> {
        let (key, id) = (fold(&row.node), &row.definition.id);
        let check = self.heartbeat_check(row).map(|check| check.number);
        let held_by = self.presence_number(&key, id);
        [check, held_by].into_iter().flatten().find_map(|number| self.facts(number))
    }

    /// Whether a client that opens a presence again says nothing new of its process, and no heartbeats are
    /// expected of it: then its instance may be opened with a short command.
    #[must_use]
    pub fn is_known_process(&self, row: &Service, beat: &Beat) -> bool {
        let plan = self.plan_at(self.time, Some(fold_arc(&row.node)), beat);
        plan.is_ok_and(|plan| plan.facts.is_none() && plan.present.is_none() && !is_expected(beat))
    }

    /// Refuses what a client that opens a presence says of its process.
    pub(super) fn validate_process(&self, key: &Arc<str>, beat: &Beat) -> Result<(), Rejection> {
        self.plan_at(self.time, Some(key.clone()), beat).map(drop)
    }

    /// How far the process that renews a check has counted, if it counts.
    #[must_use]
    pub fn counter(&self, check: u64) -> Option<u64> {
        self.heard.counter(check)
    }

    /// The process that is known was heard of: what came late before it is not in a row with what comes late
    /// after it.
    fn forget_counted_back(&mut self, number: u64) {
        if let Some(facts) = self.facts.get(&number).filter(|facts| facts.counted_back) {
            let facts = Facts { counted_back: false, ..facts.as_ref().clone() };
            self.facts.insert(number, Arc::new(facts));
        }
    }

    fn plan(&self, seen: ClusterTime, agents: &[Agent], beat: &Beat) -> Result<Plan, Rejection> {
        self.plan_at(seen, self.node_of(agents, beat)?, beat)
    }

    /// The same where it is known which node the instance is on, if it is there at all.
    fn plan_at(
        &self,
        seen: ClusterTime,
        node: Option<Arc<str>>,
        beat: &Beat,
    ) -> Result<Plan, Rejection> {
        let slot = node.as_ref().and_then(|key| self.catalog.nodes.get(key));
        let instance = slot.and_then(|slot| slot.services.get(&beat.id));
        let present = slot.and_then(|slot| present_check(slot, &beat.id)).cloned();
        let replaces = slot.and_then(|slot| replaced_check(slot, &beat.id, present.as_deref()));
        let known_by = replaces.as_ref().or(present.as_ref()).map(|row| row.number);
        let held_by = node.as_ref().and_then(|key| self.presence_number(key, &beat.id));
        let none = Facts::default();
        let known = [known_by, held_by].into_iter().flatten().find_map(|number| self.facts(number));
        let known = known.unwrap_or(&none);
        let highest = known_by.and_then(|number| self.heard.counter(number));
        let silence = self.silence(replaces.as_ref().or(present.as_ref()));
        let (mut facts, is_restart, late) = match judge(known, highest, beat, silence)? {
            Process::Same(facts) => (facts, false, None),
            Process::Restarted(facts) => (facts, true, None),
            Process::Older(facts) => (facts, false, Some(None)),
            Process::Late => (known.clone(), false, Some(Some(Late::Same))),
            Process::Previous(facts) => (facts, false, Some(Some(Late::Previous))),
        };
        let (is_older, late) = (late.is_some(), late.flatten());
        let definition = if is_older { None } else { definition(instance, beat) };
        let shows_facts = is_restart
            || (facts.pid, &facts.process, &facts.version)
                != (known.pid, &known.process, &known.version);
        let shows = shows_facts || definition.is_some();
        let said = replaces.as_ref().or(present.as_ref()).map(|row| row.said());
        let mut check =
            self.wanted_check(seen, beat, present.as_deref(), said, is_older, replaces.is_none())?;
        if let (Some(row), Some((status, output))) = (&present, said)
            && output != check.output
        {
            let is_alone = *status == check.status
                && row.registration.definition == check.definition
                && !shows;
            if is_alone && self.time.since(facts.noted) < NOTE_EVERY && facts.noted > none.noted {
                output.clone_into(&mut check.output);
            } else {
                facts.noted = self.time;
            }
        }
        let counter = match is_older {
            true => highest,
            false => beat.counter.or(highest.filter(|_| !is_restart)),
        };
        let check = match &present {
            Some(row) if row.registration == check => None,
            Some(_) | None => Some(check),
        };
        let facts = (facts != *known).then_some(facts);
        Ok(Plan {
            instance: beat.id.clone(),
            node,
            definition,
            check,
            present,
            facts,
            shows_facts,
            counter,
            is_restart,
            is_older,
            late,
            replaces,
        })
    }

    /// How long an instance was silent, by the check that its heartbeats renew.
    fn silence(&self, check: Option<&Arc<Check>>) -> Silence {
        if self.level < LATE_HEARTBEATS_LEVEL {
            return Silence::NotAsked;
        }
        let Some(row) = check else { return Silence::Long };
        let definition = &row.registration.definition;
        let shows_after = match definition.later.warn_after {
            Millis::ZERO => definition.ttl,
            warn_after => warn_after,
        };
        let heard = self.heard.get(row.number);
        match heard {
            Some(heard) if self.time.since(heard).0 < shows_after.0 / 2 => Silence::Short,
            Some(_) | None => Silence::Long,
        }
    }

    /// Where the instance of a heartbeat is: at its agent, else at the one other agent that has this service
    /// with this id, and this address and port if they are given. `None`: it is new.
    fn node_of(&self, agents: &[Agent], beat: &Beat) -> Result<Option<Arc<str>>, Rejection> {
        let agent = agents.get(beat.agent as usize).ok_or(Rejection::MissingNode)?;
        let own = fold(&agent.name);
        let slot = self.catalog.nodes.get(&*own);
        if &*beat.id == SERVER_SERVICE
            && slot.is_some_and(|slot| slot.node.kind == NodeKind::Server)
        {
            return Err(Rejection::UnknownService(beat.id.to_string()));
        }
        if slot.is_some_and(|slot| slot.services.contains_key(&beat.id)) {
            return Ok(Some(own.as_ref().into()));
        }
        if beat.agent > 0 {
            return Ok(None);
        }
        let is_same = |slot: &&Arc<Slot>| {
            slot.services.get(&beat.id).is_some_and(|row| {
                let there = &row.definition;
                there.name == beat.service
                    && beat.address.as_ref().is_none_or(|address| *address == there.address)
                    && beat.port.is_none_or(|port| port == there.port)
            })
        };
        let catalog = &self.catalog;
        let mut same = catalog.agents_with(&catalog.service_ids, &beat.id, &own).filter(is_same);
        let Some(only) = same.next() else { return Ok(None) };
        if let Some(other) = same.next() {
            return Err(Rejection::Ambiguous {
                what: "service".to_owned(),
                id: beat.id.to_string(),
                agents: format!("{}, {}", only.node.name, other.node.name),
            });
        }
        Ok(Some(fold_arc(&only.node.name)))
    }

    /// The check of an instance as a heartbeat wants it, with what follows from what the heartbeat leaves out:
    ///
    /// * The first one of an instance whose TTL check was registered otherwise makes it passing. (Consul registers
    ///   checks as critical, and its client never said that.)
    /// * A warning that the client did not ask for does not stand in the way of a shorter `CriticalAfter`.
    fn wanted_check(
        &self,
        seen: ClusterTime,
        beat: &Beat,
        present: Option<&Check>,
        said: Option<(&CheckStatus, &str)>,
        is_older: bool,
        is_first: bool,
    ) -> Result<CheckRegistration, Rejection> {
        let mut check = present.map_or_else(|| new_check(beat), |row| row.registration.clone());
        if let Some((status, output)) = said {
            check.status = status.clone();
            output.clone_into(&mut check.output);
        }
        if !is_older {
            let completes = self.level >= COMPLETION_LEVEL;
            if completes && !warning_fits(&check.definition, beat) {
                check.definition.later.warn_after = Millis::ZERO;
            }
            apply_spans(&mut check.definition, beat);
            let first = present.filter(|_| completes && is_first).and_then(first_status);
            if let Some(status) = beat.status.clone().or(first) {
                check.status = status;
            }
            if let Some(note) = &beat.note {
                check.output.clone_from(note);
            }
        }
        let ttl = check.definition.ttl;
        if check.definition.later.warn_after >= ttl {
            return Err(Rejection::WarnsTooLate {
                warn_after: check.definition.later.warn_after,
                critical_after: ttl,
            });
        }
        if self.time.since(seen) > ttl.max(HEARTBEAT_AGE_MIN) {
            return Err(Rejection::HeartbeatTooOld);
        }
        Ok(check)
    }
}

impl Change<'_> {
    /// Heartbeats that say nothing new.
    pub(super) fn renew(&mut self, renewals: &Renewals) -> Outcome {
        let mut outcome = Tally::default();
        for (place, renewal) in renewals.all.iter().enumerate() {
            outcome.note(place, self.renew_one(renewal, renewals.seen).map(|()| false));
        }
        outcome.finish()
    }

    fn renew_one(&mut self, renewal: &Renewal, seen: ClusterTime) -> Result<(), Rejection> {
        let Renewal { number, restarts, counter, status } = renewal;
        let row = self.state.check_numbered(*number).ok_or(Rejection::InstanceGone)?;
        let ttl = row.registration.definition.ttl;
        if ttl.is_zero() {
            return Err(Rejection::NotTtl(row.registration.id.to_string()));
        }
        if self.state.time.since(seen) > ttl.max(HEARTBEAT_AGE_MIN) {
            return Err(Rejection::HeartbeatTooOld);
        }
        let known = self.state.facts(*number).map_or(0, |facts| facts.restarts);
        if known != *restarts {
            return Err(Rejection::EarlierProcess(row.registration.service_id.to_string()));
        }
        let highest = self.state.heard.counter(*number);
        let is_older = counter.is_some() && *counter < highest;
        let (said, output) = row.said();
        let status = status.as_ref().filter(|_| !is_older).unwrap_or(said);
        let shown = &row.registration;
        let news = (row.said.is_some() || shown.status != *status)
            .then(|| (row.clone(), status.clone(), output.to_owned()));
        self.state.heard.insert_counting(*number, self.state.time, (*counter).max(highest));
        if !is_older && self.state.level >= LATE_HEARTBEATS_LEVEL {
            self.state.forget_counted_back(*number);
        }
        if let Some((row, status, output)) = news {
            self.put_status(&fold_arc(&row.node), &row, status, output);
        }
        Ok(())
    }

    /// Heartbeats that register an instance or change what is known of it.
    pub(super) fn beat_all(&mut self, beats: &Beats) -> Outcome {
        let mut outcome = Tally::default();
        for (place, beat) in beats.all.iter().enumerate() {
            outcome.note(place, self.beat_one(beats, beat));
        }
        outcome.finish()
    }

    /// One of them; returns whether it registered an instance.
    fn beat_one(&mut self, beats: &Beats, beat: &Beat) -> Result<bool, Rejection> {
        let plan = self.state.plan(beats.seen, &beats.agents, beat)?;
        if let Some(late) = plan.late {
            return self.note_late(beat, &plan, late);
        }
        let agent = &beats.agents[beat.agent as usize];
        let is_new = plan.node.is_none();
        let key = match &plan.node {
            Some(key) if **key != *fold(&agent.name) => key.clone(),
            Some(_) | None => self.ensure_agent(agent, NodeKind::Agent),
        };
        if let Some(definition) = &plan.definition {
            self.put_service(&key, definition);
        }
        self.beat_check(&key, &plan);
        self.show_facts(&key, beat, &plan);
        Ok(is_new)
    }

    /// A heartbeat that came late. All that is remembered is that there was one.
    fn note_late(&mut self, beat: &Beat, plan: &Plan, late: Late) -> Result<bool, Rejection> {
        let known_by = plan.replaces.as_ref().or(plan.present.as_ref());
        if let (Some(row), Some(facts)) = (known_by, &plan.facts) {
            self.state.facts.insert(row.number, Arc::new(facts.clone()));
        }
        match late {
            Late::Same => Ok(false),
            Late::Previous => Err(Rejection::EarlierProcess(beat.id.to_string())),
        }
    }

    /// Writes the check of a heartbeat, and what is known of its process.
    fn beat_check(&mut self, key: &Arc<str>, plan: &Plan) {
        let number = match (&plan.present, &plan.check) {
            (Some(row), _) => row.number,
            (None, Some(check)) => {
                self.register_check(key, check.clone());
                let slot = self.state.catalog.nodes.get(key);
                let Some(row) = slot.and_then(|slot| slot.checks.get(&check.id)) else { return };
                row.number
            }
            (None, None) => return,
        };
        let replaced = plan.replaces.as_ref().and_then(|row| {
            let facts = self.state.facts.get(&row.number).cloned();
            self.remove_check(key, &row.registration.id);
            facts
        });
        // What a connection said of the process is kept by the check of its heartbeats from now on.
        let held_by = self.state.presence_number(key, &plan.instance);
        let held = held_by.and_then(|number| self.state.facts.remove(&number));
        let carried = replaced.or(held);
        self.state.heard.insert_counting(number, self.state.time, plan.counter);
        if let Some(facts) = plan.facts.clone().map(Arc::new).or(carried) {
            self.state.facts.insert(number, facts);
        }
        if let (Some(_), Some(check)) = (&plan.present, &plan.check) {
            self.put_check(key, check.clone());
        }
        self.state.schedule(number);
    }

    /// What a client that opens a presence says of its process, of which nothing is refused any more. Opening is
    /// a sign of life for the check that heartbeats renew, if there is one; there is, if times were given. Returns
    /// whether a restart was reported.
    pub(super) fn tell_process(&mut self, key: &Arc<str>, beat: &Beat, is_new: bool) -> bool {
        let plan = self.state.plan_at(self.time(), Some(key.clone()), beat);
        let Ok(plan) = plan else { return false };
        if plan.present.is_some() || is_expected(beat) {
            self.beat_check(key, &plan);
        } else if let (Some(number), Some(facts)) =
            (self.state.presence_number(key, &beat.id), &plan.facts)
        {
            self.state.facts.insert(number, Arc::new(facts.clone()));
        }
        if !is_new {
            self.show_facts(key, beat, &plan);
        }
        plan.is_restart && !is_new
    }

    /// Another owner holds an instance, and nothing that it says of its process tells of a restart. Where
    /// heartbeats come beside the connection and nothing was said when it was opened, it is they that tell.
    pub(super) fn report_taken_over(&mut self, key: &Arc<str>, id: &Arc<str>, says_process: bool) {
        let slot = self.state.catalog.nodes.get(key);
        let Some(row) = slot.and_then(|slot| slot.services.get(id)).cloned() else { return };
        let beaten = self.state.heartbeat_check(&row).map(|check| check.number);
        if beaten.is_some() && !says_process {
            return;
        }
        let Some(number) = beaten.or_else(|| self.state.presence_number(key, id)) else { return };
        let known = self.state.facts(number).cloned().unwrap_or_default();
        let facts = Facts { restarts: known.restarts.saturating_add(1), ..known };
        self.state.facts.insert(number, Arc::new(facts));
        self.record_service(HistoryKind::ServiceRestarted, &row);
        self.touch_check(key, id);
    }

    /// Reports what is new of the process.
    fn show_facts(&mut self, key: &Arc<str>, beat: &Beat, plan: &Plan) {
        if !plan.shows_facts || plan.node.is_none() {
            return;
        }
        let slot = self.state.catalog.nodes.get(key);
        let Some(row) = slot.and_then(|slot| slot.services.get(&beat.id)).cloned() else { return };
        if plan.is_restart {
            self.record_service(HistoryKind::ServiceRestarted, &row);
            self.note_other_process(key, &beat.id);
        } else if plan.definition.is_none() {
            self.record_service(HistoryKind::ServiceChanged, &row);
        }
        self.touch_check(key, &beat.id);
    }
}

/// Counts what became of heartbeats.
#[derive(Debug, Default)]
struct Tally {
    outcome: BeatsOutcome,
    refused: Vec<(u32, Rejection)>,
}

impl Tally {
    fn note(&mut self, place: usize, outcome: Result<bool, Rejection>) {
        match outcome {
            Ok(registered) => {
                self.outcome.accepted += 1;
                self.outcome.registered += u32::from(registered);
            }
            Err(why) => self.refused.push((u32::try_from(place).unwrap_or(u32::MAX), why)),
        }
    }

    fn finish(self) -> Outcome {
        let refused = match self.refused.is_empty() {
            true => Refused::None,
            false => Refused::These(self.refused),
        };
        Outcome::Beats(BeatsOutcome { refused, ..self.outcome })
    }
}

/// The check of an instance that heartbeats renew.
fn present_check<'a>(slot: &'a Slot, id: &str) -> Option<&'a Arc<Check>> {
    let check = |prefix: &str| {
        let row = slot.checks.get(&*format!("{prefix}{id}"))?;
        let is_own =
            &*row.registration.service_id == id && !row.registration.definition.ttl.is_zero();
        is_own.then_some(row)
    };
    check(SERVICE_CHECK).or_else(|| check(HEARTBEAT_CHECK))
}

/// The check that heartbeats made and renewed, where there is another one by now.
fn replaced_check(slot: &Slot, id: &str, present: Option<&Check>) -> Option<Arc<Check>> {
    let row = slot.checks.get(&*format!("{HEARTBEAT_CHECK}{id}"))?;
    let is_other = present.is_some_and(|present| present.number != row.number);
    is_other.then(|| row.clone())
}

/// The status that the first heartbeat gives to a check that was registered as critical, and of which nobody has
/// said anything yet.
fn first_status(row: &Check) -> Option<CheckStatus> {
    let is_as_registered = row.said.is_none()
        && row.registration.status == CheckStatus::Critical
        && row.registration.output.is_empty()
        && row.indexes.create == row.indexes.modify;
    is_as_registered.then_some(CheckStatus::Passing)
}

/// Whether heartbeats are expected of a client that opens a presence.
const fn is_expected(beat: &Beat) -> bool {
    beat.warn_after.is_some() || beat.critical_after.is_some()
}

/// Whether what is wanted of a check is what its client said of it before.
fn is_same_as_said(row: &Check, wanted: &CheckRegistration) -> bool {
    let (_, output) = row.said();
    output == wanted.output && row.registration.definition == wanted.definition
}

fn new_check(beat: &Beat) -> CheckRegistration {
    let ttl = beat.critical_after.unwrap_or(CRITICAL_AFTER);
    let warn_after = if WARN_AFTER < ttl { WARN_AFTER } else { Millis::ZERO };
    CheckRegistration {
        id: format!("{HEARTBEAT_CHECK}{}", beat.id).into(),
        name: CHECK_NAME.to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: beat.id.clone(),
        kind: "ttl".to_owned(),
        definition: CheckDefinition {
            ttl,
            later: LaterMembers { warn_after, ..LaterMembers::default() },
            ..CheckDefinition::default()
        },
    }
}

/// Whether the warning of a check fits the times that a heartbeat gives it, or was asked for.
fn warning_fits(definition: &CheckDefinition, beat: &Beat) -> bool {
    let warn_after = definition.later.warn_after;
    beat.warn_after.is_some()
        || warn_after != WARN_AFTER
        || beat.critical_after.is_none_or(|critical_after| critical_after > warn_after)
}

fn apply_spans(definition: &mut CheckDefinition, beat: &Beat) {
    if let Some(critical_after) = beat.critical_after {
        definition.ttl = critical_after;
    }
    if let Some(warn_after) = beat.warn_after {
        definition.later.warn_after = warn_after;
    }
}

/// The instance as a heartbeat wants it, if that is not what it is.
fn definition(instance: Option<&Arc<Service>>, beat: &Beat) -> Option<ServiceDefinition> {
    let Some(row) = instance else { return Some(new_definition(beat)) };
    let there = &row.definition;
    let moves = beat.address.as_ref().is_some_and(|address| *address != there.address)
        || beat.port.is_some_and(|port| port != there.port);
    let differs = moves
        || there.name != beat.service
        || beat.tags.as_ref().is_some_and(|tags| *tags != there.tags)
        || beat.meta.as_ref().is_some_and(|meta| there.meta.as_ref() != Some(meta));
    if !differs {
        return None;
    }
    let mut definition = there.clone();
    definition.name.clone_from(&beat.service);
    if let Some(tags) = &beat.tags {
        definition.tags.clone_from(tags);
    }
    if let Some(meta) = &beat.meta {
        definition.meta = Some(meta.clone());
    }
    if moves {
        forget_own_address(&mut definition);
        if let Some(address) = &beat.address {
            definition.address.clone_from(address);
        }
        definition.port = beat.port.unwrap_or(definition.port);
        tag_own_address(&mut definition);
    }
    Some(definition)
}

fn new_definition(beat: &Beat) -> ServiceDefinition {
    let mut definition = ServiceDefinition {
        id: beat.id.clone(),
        name: beat.service.clone(),
        tags: beat.tags.clone().unwrap_or_default(),
        address: beat.address.clone().unwrap_or_default(),
        meta: beat.meta.clone(),
        port: beat.port.unwrap_or_default(),
        ..ServiceDefinition::default()
    };
    tag_own_address(&mut definition);
    definition
}

/// The names under which an instance's own address is listed too, if it is an IP address (Consul's rule).
fn own_tags(address: &str) -> &'static [&'static str] {
    match address.parse() {
        Ok(IpAddr::V4(_)) => &["lan_ipv4", "wan_ipv4"],
        Ok(IpAddr::V6(_)) => &["lan_ipv6", "wan_ipv6"],
        Err(_) => &[],
    }
}

fn tag_own_address(definition: &mut ServiceDefinition) {
    for name in own_tags(&definition.address) {
        let own = ServiceAddress { address: definition.address.clone(), port: definition.port };
        definition.tagged_addresses.entry((*name).to_owned()).or_insert(own);
    }
}

fn forget_own_address(definition: &mut ServiceDefinition) {
    let own = ServiceAddress { address: definition.address.clone(), port: definition.port };
    for name in own_tags(&definition.address) {
        if definition.tagged_addresses.get(*name) == Some(&own) {
            definition.tagged_addresses.remove(*name);
        }
    }
}
