//! Which rights a command needs, as the state is when it is applied.
//!
//! Every command has its rule here; the match has no arm for the rest, so a new command does not compile without
//! one. What a command means follows from the state (whose an id is, which node a session is on), so this is asked
//! by apply, where nothing can change in between; a server asks before it proposes only to keep refusals out of the
//! log.

use std::sync::Arc;

use super::Rights;
use crate::command::{
    Agent, Beat, CatalogRegistration, ClaimsCommand, Command, Denial, PresenceOpen, Rejection,
};
use crate::record::{
    Access, AclKind, Authority, Check, CheckRegistration, QueryDefinition, ServiceDefinition,
};
use crate::state::State;
use crate::txn::{KeyVerb, RowVerb, TxnError, TxnOperation};

/// What operations of transactions are told that may not be done (Consul's words).
const DENIED: &str = "Permission denied";

type Permit = Result<(), Denial>;

impl State {
    /// The same, where a command may be the server's own.
    pub(in crate::state) fn permit_if_asked(
        &self,
        by: Option<&Authority>,
        command: &Command,
    ) -> Result<(), Rejection> {
        by.map_or(Ok(()), |by| self.permit(by, command))
    }

    /// Whether a token may give a command.
    ///
    /// # Errors
    /// There is no such token (any more), or it lacks a right.
    pub fn permit(&self, by: &Authority, command: &Command) -> Result<(), Rejection> {
        let rights = self.rights(by).ok_or(Rejection::NoToken)?;
        if let Command::Txn(operations) = command {
            return self.permit_all(&rights, operations);
        }
        self.permit_one(&rights, command).map_err(Rejection::Denied)
    }

    fn permit_one(&self, rights: &Rights, command: &Command) -> Permit {
        match command {
            Command::CatalogRegister(what) => self.registers(rights, what),
            Command::CatalogDeregister { node, service_id, check_id } => {
                self.deregisters(rights, node, service_id, check_id)
            }
            Command::AgentRegisterService { agent, service, checks, .. } => {
                self.enters(rights, agent)?;
                self.writes_service(rights, &agent.name, service)?;
                let ids = checks.iter().map(|check| &*check.id);
                self.replaces_checks(rights, &agent.name, ids, &service.name)
            }
            Command::AgentDeregisterService { agent, service_id } => {
                self.writes_located(rights, agent, service_id)
            }
            Command::AgentRegisterCheck { agent, check } => {
                self.enters(rights, agent)?;
                self.writes_check(rights, &agent.name, check, None)
            }
            Command::AgentDeregisterCheck { agent, check_id }
            | Command::UpdateCheck { agent, check_id, .. } => {
                match self.locate_check(&agent.name, check_id) {
                    Ok(row) => writes_row(rights, row),
                    Err(_) => Ok(()),
                }
            }
            Command::Heartbeat { number, .. } => self.writes_numbered(rights, *number),
            Command::Renew(renewals) => {
                let mut numbers = renewals.all.iter().map(|renewal| renewal.number);
                numbers.try_for_each(|number| self.writes_numbered(rights, number))
            }
            Command::Beat(beats) => beats.all.iter().try_for_each(|beat| {
                let agent = beats.agents.get(beat.agent as usize);
                self.permit_beat(rights, agent, beat)
            }),
            Command::KvPut { .. }
            | Command::KvDelete { .. }
            | Command::SessionCreate(_)
            | Command::SessionDestroy { .. }
            | Command::SessionRenew { .. }
            | Command::FireEvent(_)
            | Command::PutCoordinate { .. }
            | Command::PutQuery { .. }
            | Command::DeleteQuery { .. } => self.permit_by_name(rights, command),
            Command::SetMaintenance { .. }
            | Command::AgentLeave { .. }
            | Command::DescribeAgent { .. }
            | Command::WatchAgent { .. } => self.permit_host(rights, command),
            Command::SetAutopilot { .. } => writes(rights, AclKind::Operator, ""),
            Command::RestoreBegin { .. }
            | Command::RestorePiece { .. }
            | Command::RestoreFinish { .. }
            | Command::Acl(_) => writes(rights, AclKind::Acl, ""),
            Command::PresenceOpen(open) => self.opens(rights, open),
            Command::PresenceOfProcess(what) => self.opens(rights, &what.open),
            Command::PresenceReopen(reopen) => self.writes_numbered(rights, reopen.number),
            Command::Claims(command) => self.permit_claims(rights, command),
            // Operations have their own answers, see `permit_all`.
            Command::Txn(_) => Ok(()),
            // The servers' own, and those of worker processes, which prove that they know the servers' key: no token
            // is behind them.
            Command::RegisterServer(_)
            | Command::RemoveServer { .. }
            | Command::SetServerHealth { .. }
            | Command::ProbeResult { .. }
            | Command::PresenceEnded { .. }
            | Command::Answered { .. }
            | Command::Asked(_)
            | Command::Workers(_)
            | Command::Permits(_) => Err(rights.denial(AclKind::Operator, "", Access::Write)),
        }
    }

    /// What a host says of itself, and operators of it.
    fn permit_host(&self, rights: &Rights, command: &Command) -> Permit {
        match command {
            Command::SetMaintenance { agent, service_id, .. } if service_id.is_empty() => {
                writes(rights, AclKind::Node, &agent.name)
            }
            Command::SetMaintenance { agent, service_id, .. } => {
                self.writes_located(rights, agent, service_id)
            }
            Command::AgentLeave { agent } => {
                match rights.allows(AclKind::Operator, "", Access::Write) {
                    true => Ok(()),
                    false => writes(rights, AclKind::Agent, &agent.name),
                }
            }
            Command::DescribeAgent { agent, .. } | Command::WatchAgent { agent, .. } => {
                writes(rights, AclKind::Node, &agent.name)
            }
            _ => Err(rights.denial(AclKind::Operator, "", Access::Write)),
        }
    }

    /// Keys, sessions, events and what else has rules about its own names.
    fn permit_by_name(&self, rights: &Rights, command: &Command) -> Permit {
        match command {
            Command::KvPut { key, .. } => writes(rights, AclKind::Key, key),
            Command::KvDelete { key, mode } => match mode {
                crate::command::KvDeleteMode::Recurse => rights.require_keys_below(key),
                crate::command::KvDeleteMode::One | crate::command::KvDeleteMode::Cas(_) => {
                    writes(rights, AclKind::Key, key)
                }
            },
            Command::SessionCreate(what) => {
                let node = if what.node.is_empty() { &what.agent.name } else { &what.node };
                writes(rights, AclKind::Session, self.shown_name(node))
            }
            Command::SessionDestroy { id } | Command::SessionRenew { id, .. } => {
                match self.session(id) {
                    Some(session) => writes(rights, AclKind::Session, &session.node),
                    None => Ok(()),
                }
            }
            Command::FireEvent(event) => writes(rights, AclKind::Event, &event.name),
            Command::PutCoordinate { node, .. } => {
                writes(rights, AclKind::Node, self.shown_name(node))
            }
            Command::PutQuery { query, .. } => {
                writes_query(rights, query)?;
                self.query(&query.id).map_or(Ok(()), |old| writes_query(rights, &old.definition))
            }
            Command::DeleteQuery { id } => {
                self.query(id).map_or(Ok(()), |old| writes_query(rights, &old.definition))
            }
            _ => Err(rights.denial(AclKind::Operator, "", Access::Write)),
        }
    }

    // ---- the catalogue ---------------------------------------------------------------------------

    fn registers(&self, rights: &Rights, what: &CatalogRegistration) -> Permit {
        if self.changes_node(what) {
            writes(rights, AclKind::Node, &what.node)?;
            let holder = match what.node_id.as_str() {
                "" => None,
                id => self.node(id),
            };
            if let Some(holder) = holder.filter(|row| !row.name.eq_ignore_ascii_case(&what.node)) {
                writes(rights, AclKind::Node, &holder.name)?;
            }
        }
        if let Some(service) = &what.service {
            self.writes_service(rights, &what.node, service)?;
        }
        let service = what.service.as_ref();
        what.checks
            .iter()
            .try_for_each(|check| self.writes_check(rights, &what.node, check, service))
    }

    fn changes_node(&self, what: &CatalogRegistration) -> bool {
        let named = self.node(&what.node).filter(|row| row.name.eq_ignore_ascii_case(&what.node));
        let Some(row) = named else { return true };
        !what.skip_node_update
            && (row.id != what.node_id
                || row.name != what.node
                || row.address != what.address
                || row.tagged_addresses != what.tagged_addresses
                || row.meta != what.node_meta)
    }

    fn deregisters(&self, rights: &Rights, node: &str, service: &str, check: &str) -> Permit {
        let name = self.shown_name(node);
        if rights.allows(AclKind::Node, name, Access::Write) {
            return Ok(());
        }
        let refused = Err(rights.denial(AclKind::Node, name, Access::Write));
        if !service.is_empty() {
            return match self.service(node, service) {
                Some(row) => writes(rights, AclKind::Service, &row.definition.name),
                None => refused,
            };
        }
        match self.check(node, check) {
            Some(row) if !check.is_empty() => writes_row(rights, row),
            Some(_) | None => refused,
        }
    }

    /// A host that registers something gets a node by itself, under the name that follows from its address. Under any
    /// other name a new node is one that somebody makes up.
    fn enters(&self, rights: &Rights, agent: &Agent) -> Permit {
        let is_known = self.node(&agent.name).is_some();
        match is_known || agent.has_own_name() {
            true => Ok(()),
            false => writes(rights, AclKind::Node, &agent.name),
        }
    }

    /// A service under its new name, and under the one that its id has on the node.
    fn writes_service(&self, rights: &Rights, node: &str, service: &ServiceDefinition) -> Permit {
        writes(rights, AclKind::Service, &service.name)?;
        match self.service(node, &service.id) {
            Some(old) => writes(rights, AclKind::Service, &old.definition.name),
            None => Ok(()),
        }
    }

    fn writes_located(&self, rights: &Rights, agent: &Agent, id: &str) -> Permit {
        match self.locate_service(&agent.name, id) {
            Ok(row) => writes(rights, AclKind::Service, &row.definition.name),
            // The command itself says what is wrong.
            Err(_) => Ok(()),
        }
    }

    /// A check of an instance or of a node, and the one that has its id there. `beside` is an instance that is
    /// registered with it.
    fn writes_check(
        &self,
        rights: &Rights,
        node: &str,
        check: &CheckRegistration,
        beside: Option<&ServiceDefinition>,
    ) -> Permit {
        if check.service_id.is_empty() {
            writes(rights, AclKind::Node, self.shown_name(node))?;
        } else if let Some(service) = beside.filter(|service| service.id == check.service_id) {
            writes(rights, AclKind::Service, &service.name)?;
        } else if let Some(row) = self.service(node, &check.service_id) {
            writes(rights, AclKind::Service, &row.definition.name)?;
        }
        match self.check(node, &check.id) {
            Some(old) => writes_row(rights, old),
            None => Ok(()),
        }
    }

    /// Checks that a registration brings along may have ids that others have.
    fn replaces_checks<'a>(
        &self,
        rights: &Rights,
        node: &str,
        mut ids: impl Iterator<Item = &'a str>,
        service: &str,
    ) -> Permit {
        ids.try_for_each(|id| match self.check(node, id) {
            Some(old) if *old.service_name != *service => writes_row(rights, old),
            Some(_) | None => Ok(()),
        })
    }

    /// The check with a number; one that is gone is refused by the command itself.
    fn writes_numbered(&self, rights: &Rights, number: u64) -> Permit {
        self.check_numbered(number).map_or(Ok(()), |row| writes_row(rights, row))
    }

    /// Whether a token may send a heartbeat: it may write the service, and the instance that has the id.
    ///
    /// # Errors
    /// It may not.
    pub fn permit_beat(&self, rights: &Rights, agent: Option<&Agent>, beat: &Beat) -> Permit {
        writes(rights, AclKind::Service, &beat.service)?;
        let Some(agent) = agent else { return Ok(()) };
        self.enters(rights, agent)?;
        match self.locate_service(&agent.name, &beat.id) {
            Ok(old) => writes(rights, AclKind::Service, &old.definition.name),
            Err(_) => Ok(()),
        }
    }

    /// Whether a token may renew the check with a number.
    ///
    /// # Errors
    /// It may not.
    pub fn permit_renewal(&self, rights: &Rights, number: u64) -> Permit {
        self.writes_numbered(rights, number)
    }

    fn opens(&self, rights: &Rights, open: &PresenceOpen) -> Permit {
        self.enters(rights, &open.agent)?;
        writes(rights, AclKind::Service, &open.service.name)?;
        // The owner may have it on another node.
        let rows = self.services_with_id(&open.service.id);
        let mut rows = rows.filter(|row| {
            let number = self.presence_number(&crate::index::fold(&row.node), &row.definition.id);
            let owner = number.and_then(|number| self.presence(number));
            row.node.eq_ignore_ascii_case(&open.agent.name)
                || owner.is_some_and(|presence| presence.terms.owner == open.terms.owner)
        });
        rows.try_for_each(|row| writes(rights, AclKind::Service, &row.definition.name))?;
        let ids = open.checks.iter().map(|check| &*check.id);
        self.replaces_checks(rights, &open.agent.name, ids, &open.service.name)
    }

    /// Whoever claims an instance takes it from all others: that is a change of its service.
    fn permit_claims(&self, rights: &Rights, command: &ClaimsCommand) -> Permit {
        let of = |id: &Arc<str>| self.claim(id).map(|claim| &claim.service);
        let service = match command {
            ClaimsCommand::Claim(request) => {
                writes(rights, AclKind::Service, &request.service)?;
                of(&request.id)
            }
            ClaimsCommand::Renew { id, .. }
            | ClaimsCommand::Release { id }
            | ClaimsCommand::Withdraw { id, .. } => of(id),
            ClaimsCommand::Force { service, .. } => Some(service),
            // What servers report of their own requests.
            ClaimsCommand::Detached { .. } | ClaimsCommand::Collected { .. } => {
                return Err(rights.denial(AclKind::Operator, "", Access::Write));
            }
        };
        service.map_or(Ok(()), |service| writes(rights, AclKind::Service, service))
    }

    /// A node's name in the letter case of the catalogue.
    fn shown_name<'a>(&'a self, name: &'a str) -> &'a str {
        let row = self.node(name).filter(|row| row.name.eq_ignore_ascii_case(name));
        row.map_or(name, |row| &row.name)
    }

    // ---- transactions ----------------------------------------------------------------------------

    fn permit_all(&self, rights: &Rights, operations: &[TxnOperation]) -> Result<(), Rejection> {
        let refused = self.refused_operations(rights, operations);
        if refused.is_empty() { Ok(()) } else { Err(Rejection::Txn(refused)) }
    }

    /// The operations of a transaction that a token has no right to. What is only read is filtered where it is
    /// shown.
    #[must_use]
    pub fn refused_operations(
        &self,
        rights: &Rights,
        operations: &[TxnOperation],
    ) -> Vec<TxnError> {
        let refused = operations.iter().enumerate();
        let refused = refused.filter(|(_, one)| self.permit_operation(rights, one).is_err());
        let refused = refused.map(|(place, _)| TxnError {
            operation: u32::try_from(place).unwrap_or(u32::MAX),
            what: DENIED.to_owned(),
        });
        refused.collect()
    }

    fn permit_operation(&self, rights: &Rights, operation: &TxnOperation) -> Permit {
        match operation {
            TxnOperation::Key { verb, key, .. } => match verb {
                KeyVerb::Get | KeyVerb::GetTree | KeyVerb::GetOrEmpty => Ok(()),
                KeyVerb::CheckIndex | KeyVerb::CheckSession => {
                    rights.require(AclKind::Key, key, Access::Read)
                }
                KeyVerb::DeleteTree => rights.require_keys_below(key),
                KeyVerb::Set
                | KeyVerb::Cas
                | KeyVerb::Lock
                | KeyVerb::Unlock
                | KeyVerb::CheckNotExists
                | KeyVerb::Delete
                | KeyVerb::DeleteCas => writes(rights, AclKind::Key, key),
            },
            TxnOperation::Node { verb: RowVerb::Get, .. }
            | TxnOperation::Service { verb: RowVerb::Get, .. }
            | TxnOperation::Check { verb: RowVerb::Get, .. }
            | TxnOperation::Faulty(_)
            | TxnOperation::Unknown(_) => Ok(()),
            TxnOperation::Node { node, .. } => {
                let named = self.node(&node.node_id).filter(|_| !node.node_id.is_empty());
                if let Some(holder) = named {
                    writes(rights, AclKind::Node, &holder.name)?;
                }
                writes(rights, AclKind::Node, self.shown_name(&node.node))
            }
            TxnOperation::Service { node, service, .. } => {
                if service.name.is_empty() && self.service(node, &service.id).is_none() {
                    return writes(rights, AclKind::Node, self.shown_name(node));
                }
                match service.name.is_empty() {
                    true => self.deregisters(rights, node, &service.id, ""),
                    false => self.writes_service(rights, node, service),
                }
            }
            TxnOperation::Check { node, check, .. } => self.writes_check_of(rights, node, check),
        }
    }

    fn writes_check_of(&self, rights: &Rights, node: &str, check: &CheckRegistration) -> Permit {
        match self.check(node, &check.id) {
            // One that is to be removed is named by its id alone.
            Some(row) if check.service_id.is_empty() => writes_row(rights, row),
            Some(_) | None => self.writes_check(rights, node, check, None),
        }
    }
}

fn writes(rights: &Rights, kind: AclKind, name: &str) -> Permit {
    rights.require(kind, name, Access::Write)
}

fn writes_row(rights: &Rights, row: &Check) -> Permit {
    match row.registration.service_id.is_empty() {
        true => writes(rights, AclKind::Node, &row.node),
        false => writes(rights, AclKind::Service, &row.service_name),
    }
}

/// A query without a name is known by its id alone, which nobody guesses (Consul's rule).
fn writes_query(rights: &Rights, query: &QueryDefinition) -> Permit {
    match query.is_named() {
        true => writes(rights, AclKind::Query, &query.name),
        false => Ok(()),
    }
}
