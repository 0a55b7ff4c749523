//! Maintenance: a critical check that takes a service, or all of a host, out of what is healthy.
//!
//! It is a check like any other, so health, sessions and watches need to know nothing of it; its id
//! says what it is about (`agent.rs` finds it by that). To begin twice keeps the first reason, and to
//! end what was never begun is no error: both are what Consul does, and what lets a client repeat
//! itself.

use std::sync::Arc;

use super::agent::{NODE_MAINTENANCE, SERVICE_MAINTENANCE};
use super::catalog::fold_arc;
use super::change::Change;
use crate::command::{Agent, Rejection};
use crate::record::{Check, CheckDefinition, CheckRegistration, CheckStatus, NodeKind};

/// The API's `Type` of these checks.
const KIND: &str = "maintenance";
/// Name of the check of a whole host (Consul's words).
const NODE_NAME: &str = "Node Maintenance Mode";
/// Name of the check of a service (Consul's words).
const SERVICE_NAME: &str = "Service Maintenance Mode";

/// Whether a check says that its service or node is under maintenance.
pub(super) fn is_about(row: &Check) -> bool {
    let id = &*row.registration.id;
    row.registration.kind == KIND && (id == NODE_MAINTENANCE || id.starts_with(SERVICE_MAINTENANCE))
}

impl Change<'_> {
    /// Begins (with a reason) or ends maintenance of one of the agent's services, or of its host.
    pub(super) fn set_maintenance(
        &mut self,
        agent: &Agent,
        service_id: &Arc<str>,
        reason: Option<&str>,
    ) -> Result<(), Rejection> {
        if service_id.is_empty() {
            self.maintain_node(agent, reason);
            return Ok(());
        }
        self.maintain_service(agent, service_id, reason)
    }

    fn maintain_service(
        &mut self,
        agent: &Agent,
        service_id: &Arc<str>,
        reason: Option<&str>,
    ) -> Result<(), Rejection> {
        let row = self.state.locate_service(&agent.name, service_id)?;
        let key = fold_arc(&row.node);
        let id = format!("{SERVICE_MAINTENANCE}{service_id}").into();
        self.maintain(&key, &id, service_id, reason.map(|reason| (SERVICE_NAME, reason)));
        Ok(())
    }

    /// Begins (with a reason) or ends maintenance of the agent's host. A host that has nothing
    /// registered needs a node only to begin.
    fn maintain_node(&mut self, agent: &Agent, reason: Option<&str>) {
        let key = match reason {
            Some(_) => self.ensure_agent(agent, NodeKind::Agent),
            None => fold_arc(&agent.name),
        };
        let none = "".into();
        self.maintain(&key, &NODE_MAINTENANCE.into(), &none, reason.map(|why| (NODE_NAME, why)));
    }

    /// `begin`: name and notes of the check; `None` ends maintenance.
    fn maintain(
        &mut self,
        key: &Arc<str>,
        id: &Arc<str>,
        service_id: &Arc<str>,
        begin: Option<(&str, &str)>,
    ) {
        let Some((name, reason)) = begin else { return self.remove_check(key, id) };
        let slot = self.state.catalog.nodes.get(key);
        if slot.is_none_or(|slot| slot.checks.contains_key(id)) {
            return;
        }
        let check = CheckRegistration {
            id: id.clone(),
            name: name.to_owned(),
            status: CheckStatus::Critical,
            notes: reason.to_owned(),
            output: String::new(),
            service_id: service_id.clone(),
            kind: KIND.to_owned(),
            definition: CheckDefinition::default(),
        };
        self.register_check(key, check);
    }

    /// `PUT /v1/agent/leave`: a client's host goes, with everything registered on it. The agents of
    /// the servers' own hosts stay as long as the servers do, and so does what is no agent's.
    pub(super) fn agent_leave(&mut self, agent: &Agent) {
        let key = fold_arc(&agent.name);
        let kind = self.state.catalog.nodes.get(&key).map(|slot| slot.node.kind);
        match kind {
            Some(NodeKind::Agent) => self.remove_node(&key),
            Some(NodeKind::Registered | NodeKind::ServerAgent | NodeKind::Server) | None => {}
        }
    }
}
