//! How large what clients send may be.
//!
//! Everything replicated is kept in memory by every server, written to every log and sent in every
//! snapshot, and some of it is shown again in each row that refers to it. So a command is validated here
//! before it is numbered, whichever way it came in: [`validate`] looks at its members, and its encoding
//! may have at most [`COMMAND_BYTES_MAX`] bytes.
//!
//! The figures are Consul's where Consul has one, and otherwise far above what its users have: the
//! point is that no single request costs much more than its own size.
//!
//! **Only the door looks at these.** What is in a log or snapshot already is applied and loaded
//! whatever its size, and what exists can be read and removed under any name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::command::{
    AclCommand, Agent, BEATS_MAX, Beat, Beats, CatalogRegistration, ClaimRequest, ClaimsCommand,
    Command, LinkRequests, PresenceOpen, RENEWALS_MAX, SessionRequest, WorkersCommand,
};
use crate::record::{
    AutopilotSettings, CheckDefinition, CheckRegistration, PresenceTerms, QueryDefinition,
    ServiceDefinition, TextMap, is_locality,
};
use crate::txn::TxnOperation;

#[cfg(test)]
mod tests;

/// The encoding of one command. An entry of the log is little more than this at most, and what servers
/// take from each other is many times that.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// A name or an id: of a node, agent, service, check, session or query. Ids that schedulers make have
/// some 200 bytes.
pub const NAME_BYTES_MAX: usize = 1_024;
/// An address: a host name has at most 253 bytes, and a port or a scope may follow.
pub const ADDRESS_BYTES_MAX: usize = 1_024;
/// A text for people, or one that is handed on: notes, a reason, a URL, an HTTP body, a proxy's settings.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// The output of a check. What heartbeats and runs bring is cut below this; what the catalogue is given
/// is refused above.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What a heartbeat says beside its facts.
pub const NOTE_BYTES_MAX: usize = 512;
/// Tags of an instance.
pub const TAGS_MAX: usize = 1_024;
/// All tags of an instance together. Every check of the instance shows them again.
pub const TAGS_BYTES_MAX: usize = 64 << 10;
/// Pairs of an instance's metadata (Consul's figure).
pub const META_PAIRS_MAX: usize = 64;
/// A key of an instance's metadata (Consul's figure).
pub const META_KEY_BYTES_MAX: usize = 128;
/// A value of an instance's metadata (Consul's figure).
pub const META_VALUE_BYTES_MAX: usize = 512;
/// All metadata of a node, or of a query, together. Consul does not bound it in the catalogue; 64 pairs
/// of an instance's size would have 40 KiB.
pub const NODE_META_BYTES_MAX: usize = 64 << 10;
/// Addresses by purpose, of a node or an instance; Consul knows six purposes.
pub const TAGGED_ADDRESSES_MAX: usize = 64;
/// Checks in one registration.
pub const CHECKS_MAX: usize = 256;
/// All HTTP headers of a check together.
pub const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Checks that a session depends on, of each kind.
pub const SESSION_CHECKS_MAX: usize = 256;
/// Operations of a transaction (Consul's figure since 1.10).
pub const TXN_OPERATIONS_MAX: usize = 128;
/// A key. What a URL can carry is just below this.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// A value (Consul's figure).
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// The tags of a prepared query, its datacenters and its ignored checks: each at most so many.
pub const QUERY_LIST_MAX: usize = 1_024;
/// All texts of a prepared query together. A template puts the name that was asked for into each of
/// them.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Name, filters and payload of an event together (what Consul's gossip carries).
pub const EVENT_BYTES_MAX: usize = 512;

/// Who holds a presence: a UUID, or another text of about that length.
pub const OWNER_BYTES_MAX: usize = 64;
/// Presences whose end one command reports.
pub const PRESENCES_ENDED_MAX: usize = 1_024;
/// A claim's id: a UUID, or another text of about that length.
pub const CLAIM_ID_BYTES_MAX: usize = 64;
/// What a claim requires of the metadata of its instance: pairs.
pub const REQUIRE_PAIRS_MAX: usize = 4;
/// Requests whose clients have gone, and grants that were handed over, in one command.
pub const CLAIMS_REPORTED_MAX: usize = 1_024;
/// Results of runs of checks that a worker process sends at once.
pub const RESULTS_MAX: usize = 1_024;

/// The text of a policy's rules.
pub const ACL_RULES_BYTES_MAX: usize = 64 << 10;
/// Rules of a policy.
pub const ACL_RULES_MAX: usize = 1_024;
/// Policies, roles and identities that a token or a role is linked to, each.
pub const ACL_LINKS_MAX: usize = 128;

/// What an excess of a whole command is called.
const WHOLE_COMMAND: &str = "command";

/// Something is larger than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub struct Excess {
    /// What it is, such as `service name` or `service tags`.
    pub what: &'static str,
    /// How much was given.
    pub given: usize,
    /// How much is allowed.
    pub limit: usize,
    /// What is counted.
    pub unit: Unit,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of text or of an encoding.
    Bytes,
    /// Things.
    Entries,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, given, limit, unit } = self;
        match unit {
            Unit::Bytes => {
                write!(f, "{what} too large: {given} bytes, at most {limit} are allowed")
            }
            Unit::Entries => write!(f, "too many {what}: {given}, at most {limit} are allowed"),
        }
    }
}

impl Excess {
    /// Refuses a command whose encoding has too many bytes.
    ///
    /// # Errors
    /// It does.
    pub fn of_command(bytes: usize) -> Result<(), Self> {
        at_most(WHOLE_COMMAND, bytes, COMMAND_BYTES_MAX, Unit::Bytes)
    }

    /// Whether the command as a whole is too large, rather than a member of it.
    #[must_use]
    pub fn is_of_whole_command(&self) -> bool {
        self.what == WHOLE_COMMAND
    }
}

/// Judges the members of a command; its size as a whole is for [`Excess::of_command`].
///
/// # Errors
/// The first member that is too large.
pub fn validate(command: &Command) -> Result<(), Excess> {
    match command {
        Command::CatalogRegister(what) => node(what),
        Command::AgentRegisterService { agent, service: row, checks, .. } => {
            self::agent(agent)?;
            service(row)?;
            all_checks(checks)
        }
        Command::AgentRegisterCheck { agent, check: row } => {
            self::agent(agent)?;
            check(row)
        }
        Command::UpdateCheck { output, .. }
        | Command::Heartbeat { output, .. }
        | Command::ProbeResult { output, .. } => bytes("check output", output, OUTPUT_BYTES_MAX),
        Command::KvPut { key, value, .. } => self::key(key, value.len()),
        Command::SessionCreate(what) => session(what),
        Command::Txn(operations) => transaction(operations),
        Command::FireEvent(event) => {
            let filters = [&event.node_filter, &event.service_filter, &event.tag_filter];
            let filters: usize = filters.iter().map(|filter| filter.len()).sum();
            let given = event.name.len() + filters + event.payload.len();
            at_most("event", given, EVENT_BYTES_MAX, Unit::Bytes)
        }
        Command::PutCoordinate { node, .. } => name("node name", node),
        Command::PutQuery { query: row, .. } => query(row),
        Command::SetMaintenance { agent, service_id, reason } => {
            self::agent(agent)?;
            name("service ID", service_id)?;
            bytes("reason", reason.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
        }
        Command::SetAutopilot { settings, .. } => autopilot(settings),
        Command::DescribeAgent { agent, id, tagged_addresses, meta } => {
            self::agent(agent)?;
            name("node ID", id.as_deref().unwrap_or_default())?;
            node_addresses(tagged_addresses.as_ref())?;
            self::meta("node metadata", meta.as_ref())
        }
        Command::WatchAgent { agent, .. } => self::agent(agent),
        Command::PresenceOpen(open) => presence(open),
        Command::PresenceOfProcess(what) => {
            presence(&what.open)?;
            beat(&what.beat)
        }
        Command::PresenceReopen(reopen) => owner(&reopen.terms),
        Command::PresenceEnded { seqs, .. } => {
            entries("presences", seqs.len(), PRESENCES_ENDED_MAX)
        }
        Command::Claims(command) => claims(command),
        Command::Workers(command) => workers(command),
        Command::Renew(renewals) => entries("heartbeats", renewals.all.len(), RENEWALS_MAX),
        Command::Beat(all) => beats(all),
        // The servers' own, and what only reads, removes or renews: bounded as a whole.
        Command::CatalogDeregister { .. }
        | Command::AgentDeregisterService { .. }
        | Command::AgentDeregisterCheck { .. }
        | Command::KvDelete { .. }
        | Command::SessionDestroy { .. }
        | Command::SessionRenew { .. }
        | Command::RegisterServer(_)
        | Command::RemoveServer { .. }
        | Command::SetServerHealth { .. }
        | Command::DeleteQuery { .. }
        | Command::AgentLeave { .. }
        | Command::RestoreBegin { .. }
        | Command::RestorePiece { .. }
        | Command::RestoreFinish { .. }
        | Command::Answered { .. }
        | Command::Asked(_)
        | Command::Permits(_) => Ok(()),
        Command::Acl(command) => acl(command),
    }
}

fn acl(command: &AclCommand) -> Result<(), Excess> {
    match command {
        AclCommand::PutToken(request) => {
            name("token accessor", &request.accessor)?;
            bytes("description", &request.description, TEXT_BYTES_MAX)?;
            links(&request.links)
        }
        AclCommand::PutPolicy(request) => {
            name("policy name", &request.name)?;
            bytes("description", &request.description, TEXT_BYTES_MAX)?;
            bytes("rules", &request.text, ACL_RULES_BYTES_MAX)?;
            entries("rules", request.rules.len(), ACL_RULES_MAX)?;
            entries("datacenters", request.datacenters.len(), ACL_LINKS_MAX)
        }
        AclCommand::PutRole(request) => {
            name("role name", &request.name)?;
            bytes("description", &request.description, TEXT_BYTES_MAX)?;
            links(&request.links)
        }
        AclCommand::CloneToken { description, .. } => {
            bytes("description", description.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
        }
        AclCommand::Bootstrap { .. }
        | AclCommand::DeleteToken { .. }
        | AclCommand::DeletePolicy { .. }
        | AclCommand::DeleteRole { .. } => Ok(()),
    }
}

fn links(given: &LinkRequests) -> Result<(), Excess> {
    for (what, count) in [
        ("policies", given.policies.len()),
        ("roles", given.roles.len()),
        ("service identities", given.services.len()),
        ("node identities", given.nodes.len()),
    ] {
        entries(what, count, ACL_LINKS_MAX)?;
    }
    for identity in &given.services {
        name("service name", &identity.service)?;
        entries("datacenters", identity.datacenters.len(), ACL_LINKS_MAX)?;
    }
    given.nodes.iter().try_for_each(|identity| name("node name", &identity.node))
}

const fn at_most(what: &'static str, given: usize, limit: usize, unit: Unit) -> Result<(), Excess> {
    if given <= limit { Ok(()) } else { Err(Excess { what, given, limit, unit }) }
}

fn bytes(what: &'static str, text: &str, limit: usize) -> Result<(), Excess> {
    at_most(what, text.len(), limit, Unit::Bytes)
}

fn entries(what: &'static str, count: usize, limit: usize) -> Result<(), Excess> {
    at_most(what, count, limit, Unit::Entries)
}

fn name(what: &'static str, text: &str) -> Result<(), Excess> {
    bytes(what, text, NAME_BYTES_MAX)
}

fn address(what: &'static str, text: &str) -> Result<(), Excess> {
    bytes(what, text, ADDRESS_BYTES_MAX)
}

fn agent(agent: &Agent) -> Result<(), Excess> {
    name("agent name", &agent.name)
}

// ---- the catalogue ---------------------------------------------------------------------------

fn node(what: &CatalogRegistration) -> Result<(), Excess> {
    name("node name", &what.node)?;
    name("node ID", &what.node_id)?;
    address("node address", &what.address)?;
    node_addresses(what.tagged_addresses.as_ref())?;
    meta("node metadata", what.node_meta.as_ref())?;
    what.service.as_ref().map_or(Ok(()), service)?;
    all_checks(&what.checks)
}

fn node_addresses(tagged: Option<&TextMap>) -> Result<(), Excess> {
    let (localities, addresses): (Vec<_>, Vec<_>) =
        tagged.into_iter().flatten().partition(|(purpose, _)| is_locality(purpose));
    localities.into_iter().try_for_each(|(_, text)| address("node locality", text))?;
    entries("node tagged addresses", addresses.len(), TAGGED_ADDRESSES_MAX)?;
    addresses.into_iter().try_for_each(|(purpose, text)| {
        name("name of a tagged address", purpose)?;
        address("tagged address", text)
    })
}

/// Metadata that is bounded as a whole only.
fn meta(what: &'static str, meta: Option<&TextMap>) -> Result<(), Excess> {
    let lengths = meta.into_iter().flatten().map(|(key, value)| key.len() + value.len());
    at_most(what, lengths.sum(), NODE_META_BYTES_MAX, Unit::Bytes)
}

fn service(row: &ServiceDefinition) -> Result<(), Excess> {
    name("service ID", &row.id)?;
    name("service name", &row.name)?;
    name("service kind", row.mesh_kind())?;
    bytes("service settings", row.settings().unwrap_or_default(), TEXT_BYTES_MAX)?;
    address("service address", &row.address)?;
    entries("service tags", row.tags.len(), TAGS_MAX)?;
    let tags = row.tags.iter().map(String::len).sum();
    at_most("service tags", tags, TAGS_BYTES_MAX, Unit::Bytes)?;
    entries("service tagged addresses", row.tagged_addresses.len(), TAGGED_ADDRESSES_MAX)?;
    for (purpose, tagged) in &row.tagged_addresses {
        name("name of a tagged address", purpose)?;
        address("tagged address", &tagged.address)?;
    }
    let none = TextMap::new();
    let meta = row.meta.as_ref().unwrap_or(&none);
    entries("service metadata", meta.len(), META_PAIRS_MAX)?;
    for (key, value) in meta {
        bytes("key of service metadata", key, META_KEY_BYTES_MAX)?;
        bytes("value of service metadata", value, META_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn presence(open: &PresenceOpen) -> Result<(), Excess> {
    agent(&open.agent)?;
    service(&open.service)?;
    all_checks(&open.checks)?;
    owner(&open.terms)
}

fn owner(terms: &PresenceTerms) -> Result<(), Excess> {
    bytes("owner of a presence", &terms.owner, OWNER_BYTES_MAX)
}

fn workers(command: &WorkersCommand) -> Result<(), Excess> {
    match command {
        WorkersCommand::Open(what) => {
            presence(&what.open)?;
            name("network", &what.network)
        }
        WorkersCommand::Results(results) => {
            entries("results", results.all.len(), RESULTS_MAX)?;
            let mut outputs = results.all.iter().map(|result| &result.output);
            outputs.try_for_each(|output| bytes("check output", output, OUTPUT_BYTES_MAX))
        }
        WorkersCommand::Deserted { .. } => Ok(()),
    }
}

fn claims(command: &ClaimsCommand) -> Result<(), Excess> {
    match command {
        ClaimsCommand::Claim(what) => claim(what),
        ClaimsCommand::Detached { seqs: all } | ClaimsCommand::Collected { fences: all } => {
            entries("claims", all.len(), CLAIMS_REPORTED_MAX)
        }
        ClaimsCommand::Renew { id, .. }
        | ClaimsCommand::Release { id }
        | ClaimsCommand::Withdraw { id, .. } => bytes("claim ID", id, CLAIM_ID_BYTES_MAX),
        ClaimsCommand::Force { service, .. } => name("service name", service),
    }
}

fn claim(what: &ClaimRequest) -> Result<(), Excess> {
    bytes("claim ID", &what.id, CLAIM_ID_BYTES_MAX)?;
    name("service name", &what.service)?;
    name("holder", &what.holder)?;
    name("session ID", &what.session)?;
    name("service ID", &what.prefer)?;
    entries("requirements", what.require.len(), REQUIRE_PAIRS_MAX)?;
    what.require.iter().try_for_each(|(key, value)| {
        bytes("key of a requirement", key, META_KEY_BYTES_MAX)?;
        bytes("value of a requirement", value, META_VALUE_BYTES_MAX)
    })
}

fn beats(beats: &Beats) -> Result<(), Excess> {
    beats.agents.iter().try_for_each(agent)?;
    entries("heartbeats", beats.all.len(), BEATS_MAX)?;
    beats.all.iter().try_for_each(beat)
}

/// Judges one heartbeat, which is refused without the others of its request.
///
/// # Errors
/// The first member that is too large.
pub fn beat(beat: &Beat) -> Result<(), Excess> {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    at_most("process", text(&beat.process), NAME_BYTES_MAX, Unit::Bytes)?;
    at_most("version", text(&beat.version), NAME_BYTES_MAX, Unit::Bytes)?;
    bytes("note", beat.note.as_deref().unwrap_or_default(), NOTE_BYTES_MAX)?;
    service(&ServiceDefinition {
        id: beat.id.clone(),
        name: beat.service.clone(),
        address: beat.address.clone().unwrap_or_default(),
        tags: beat.tags.clone().unwrap_or_default(),
        meta: beat.meta.clone(),
        ..ServiceDefinition::default()
    })
}

fn all_checks(checks: &[CheckRegistration]) -> Result<(), Excess> {
    entries("checks of a registration", checks.len(), CHECKS_MAX)?;
    checks.iter().try_for_each(check)
}

fn check(row: &CheckRegistration) -> Result<(), Excess> {
    name("check ID", &row.id)?;
    name("check name", &row.name)?;
    name("check status", row.status.as_str())?;
    name("check type", &row.kind)?;
    name("service ID", &row.service_id)?;
    bytes("check notes", &row.notes, TEXT_BYTES_MAX)?;
    bytes("check output", &row.output, OUTPUT_BYTES_MAX)?;
    definition(&row.definition)
}

fn definition(definition: &CheckDefinition) -> Result<(), Excess> {
    let CheckDefinition { tls_server_name, tcp, grpc, udp, h2ping, .. } = definition;
    for target in [tls_server_name, tcp, grpc, udp, h2ping] {
        address("check target", target)?;
    }
    bytes("check URL", &definition.http, TEXT_BYTES_MAX)?;
    name("check method", &definition.method)?;
    bytes("check body", &definition.body, TEXT_BYTES_MAX)?;
    name("node of an alias check", &definition.alias_node)?;
    name("service of an alias check", &definition.alias_service)?;
    let none = BTreeMap::new();
    let headers = definition.header.as_ref().unwrap_or(&none);
    // Each value goes out as a line of its own, with the name in front.
    let lines = headers.iter().map(|(name, values)| {
        values.iter().map(|value| name.len() + value.len()).sum::<usize>().max(name.len())
    });
    at_most("check headers", lines.sum(), HEADERS_BYTES_MAX, Unit::Bytes)
}

// ---- the rest --------------------------------------------------------------------------------

fn key(key: &str, value_bytes: usize) -> Result<(), Excess> {
    bytes("key", key, KEY_BYTES_MAX)?;
    at_most("value", value_bytes, VALUE_BYTES_MAX, Unit::Bytes)
}

fn session(what: &SessionRequest) -> Result<(), Excess> {
    agent(&what.agent)?;
    name("node name", &what.node)?;
    name("session name", &what.name)?;
    name("session TTL", &what.ttl_text)?;
    let services = what.service_checks.as_deref().unwrap_or_default();
    for count in [what.node_checks.len(), services.len(), what.checks.as_ref().map_or(0, Vec::len)]
    {
        entries("checks of a session", count, SESSION_CHECKS_MAX)?;
    }
    let others = what.node_checks.iter().chain(what.checks.iter().flatten());
    let of_services = services.iter().flat_map(|(id, namespace)| [id, namespace]);
    others.chain(of_services).try_for_each(|id| name("check ID", id))
}

fn transaction(operations: &[TxnOperation]) -> Result<(), Excess> {
    entries("operations of a transaction", operations.len(), TXN_OPERATIONS_MAX)?;
    for operation in operations {
        match operation {
            TxnOperation::Key { key, value, .. } => self::key(key, value.len())?,
            TxnOperation::Node { node, .. } => self::node(node)?,
            TxnOperation::Service { node, service: row, .. } => {
                name("node name", node)?;
                service(row)?;
            }
            TxnOperation::Check { node, check: row, .. } => {
                name("node name", node)?;
                check(row)?;
            }
            TxnOperation::Faulty(_) | TxnOperation::Unknown(_) => {}
        }
    }
    Ok(())
}

fn query(row: &QueryDefinition) -> Result<(), Excess> {
    name("query name", &row.name)?;
    name("service name", &row.service)?;
    let lists = [&row.tags, &row.failover_datacenters, &row.ignored_checks];
    let lists = lists.into_iter().flatten();
    let mut given = [&row.token, &row.template_kind, &row.template_regexp, &row.near, &row.dns_ttl]
        .map(String::len)
        .iter()
        .sum();
    for list in lists {
        entries("list of a query", list.len(), QUERY_LIST_MAX)?;
        given += list.iter().map(String::len).sum::<usize>();
    }
    meta("metadata of a query", row.node_meta.as_ref())?;
    meta("metadata of a query", row.service_meta.as_ref())?;
    at_most("query", given, QUERY_BYTES_MAX, Unit::Bytes)
}

fn autopilot(settings: &AutopilotSettings) -> Result<(), Excess> {
    name("redundancy zone tag", &settings.redundancy_zone_tag)?;
    name("upgrade version tag", &settings.upgrade_version_tag)
}
