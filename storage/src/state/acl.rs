//! Tokens, policies and roles.
//!
//! What each token may do is derived from its links when one of them changes ([`Authorizer`]), so that neither apply
//! nor a reader merges rules: with a version of the state comes what every token may do in it. A token that has
//! expired is nobody's at once; it is removed when its deadline comes up, as everything that expires.

mod authorizer;
mod permit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub use self::authorizer::{Authorizer, Rights};

use super::State;
use super::change::Change;
use super::deadline::Owner;
use super::level::ACL_LEVEL;
use crate::command::{
    AclCommand, AclRefusal, LinkRequest, LinkRequests, Outcome, PolicyRequest, Rejection,
    RoleRequest, TokenRequest,
};
use crate::index::fold;
use crate::record::{
    ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, AclLinks, AclPolicy, AclRole, AclToken, Authority,
    DefaultPolicy, HistoryKind, Indexes, MANAGEMENT_NAME, MANAGEMENT_POLICY, SecretHash,
};
use crate::{Index, Millis, Topic};

/// Tokens of a cluster. What each may do is in memory.
pub const TOKENS_MAX: usize = 100_000;
/// Policies of a cluster.
pub const POLICIES_MAX: usize = 10_000;
/// Roles of a cluster.
pub const ROLES_MAX: usize = 10_000;

/// What of all this is not a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclHeader {
    /// The newest change of the table of tokens.
    pub tokens: Index,
    /// Of policies.
    pub policies: Index,
    /// Of roles.
    pub roles: Index,
    /// When there was a bootstrap.
    pub bootstrapped: Option<Index>,
}

/// Everything about who may do what.
#[derive(Debug, Clone, Default)]
pub(super) struct Acl {
    pub(super) header: AclHeader,
    /// By accessor.
    tokens: OrdMap<Arc<str>, Arc<AclToken>>,
    /// By id.
    policies: OrdMap<Arc<str>, Arc<AclPolicy>>,
    /// By id.
    roles: OrdMap<Arc<str>, Arc<AclRole>>,
    /// Derived: accessors by secret.
    secrets: OrdMap<SecretHash, Arc<str>>,
    /// Derived: ids of policies by name in lower case.
    policy_names: OrdMap<Arc<str>, Arc<str>>,
    /// Derived: ids of roles by name in lower case.
    role_names: OrdMap<Arc<str>, Arc<str>>,
    /// Derived: what each token may do, by accessor.
    authorizers: OrdMap<Arc<str>, Arc<Authorizer>>,
}

impl Acl {
    // ---- rows ------------------------------------------------------------------------------------

    fn put_policy(&mut self, row: AclPolicy) {
        if let Some(old) = self.policies.get(&row.id) {
            self.policy_names.remove(&*fold(&old.name));
        }
        self.policy_names.insert(fold(&row.name).into(), row.id.clone());
        let id = row.id.clone();
        self.policies.insert(id.clone(), Arc::new(row));
        let concerned = self.concerned(|links| links.policies.contains(&id));
        self.derive(concerned);
    }

    fn put_role(&mut self, row: AclRole) {
        if let Some(old) = self.roles.get(&row.id) {
            self.role_names.remove(&*fold(&old.name));
        }
        self.role_names.insert(fold(&row.name).into(), row.id.clone());
        let id = row.id.clone();
        self.roles.insert(id.clone(), Arc::new(row));
        let concerned = self.concerned(|links| links.roles.contains(&id));
        self.derive(concerned);
    }

    fn put_token(&mut self, row: AclToken) {
        self.secrets.insert(row.secret, row.accessor.clone());
        let authorizer = self.derived(&row.links);
        self.authorizers.insert(row.accessor.clone(), Arc::new(authorizer));
        self.tokens.insert(row.accessor.clone(), Arc::new(row));
    }

    /// When a token expires.
    pub(super) fn expiry(&self, accessor: &str) -> Option<crate::ClusterTime> {
        self.tokens.get(accessor)?.expires
    }

    fn remove_token(&mut self, accessor: &str) -> Option<Arc<AclToken>> {
        let row = self.tokens.remove(accessor)?;
        self.secrets.remove(&row.secret);
        self.authorizers.remove(accessor);
        Some(row)
    }

    /// What the links of a token come to.
    fn derived(&self, links: &AclLinks) -> Authorizer {
        let mut authorizer = Authorizer::default();
        let roles = links.roles.iter().filter_map(|id| self.roles.get(id));
        for links in std::iter::once(links).chain(roles.map(|role| &role.links)) {
            let policies = links.policies.iter().filter_map(|id| self.policies.get(id));
            for policy in policies.filter(|policy| policy.counts) {
                match &*policy.id {
                    MANAGEMENT_POLICY => authorizer.add_all(),
                    _ => policy.rules.iter().for_each(|rule| authorizer.add(rule)),
                }
            }
            links.services.iter().for_each(|identity| authorizer.add_service(identity));
            links.nodes.iter().for_each(|identity| authorizer.add_node(identity));
        }
        authorizer
    }

    /// The accessors of tokens with such links, or with roles that have such links.
    fn concerned(&self, has: impl Fn(&AclLinks) -> bool) -> Vec<Arc<str>> {
        let is_concerned = |token: &&Arc<AclToken>| {
            let mut roles = token.links.roles.iter().filter_map(|id| self.roles.get(id));
            has(&token.links) || roles.any(|role| has(&role.links))
        };
        let tokens = self.tokens.values().filter(is_concerned);
        tokens.map(|token| token.accessor.clone()).collect()
    }

    /// Derives anew what tokens may do whose links, or whose roles' links, changed.
    fn derive(&mut self, accessors: Vec<Arc<str>>) {
        for accessor in accessors {
            let Some(token) = self.tokens.get(&accessor) else { continue };
            let authorizer = Arc::new(self.derived(&token.links));
            self.authorizers.insert(accessor, authorizer);
        }
    }

    // ---- snapshots -------------------------------------------------------------------------------

    /// Whether there was never any of it.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.policies.is_empty()
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<AclPolicy>> {
        self.policies.values()
    }

    pub(super) fn roles(&self) -> impl Iterator<Item = &Arc<AclRole>> {
        self.roles.values()
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = &Arc<AclToken>> {
        self.tokens.values()
    }

    /// Adds a policy of a snapshot; `false` if there is one with its id or name.
    pub(super) fn add_policy(&mut self, row: AclPolicy) -> bool {
        let is_new = !self.policies.contains_key(&row.id)
            && !self.policy_names.contains_key(&*fold(&row.name));
        if is_new {
            self.put_policy(row);
        }
        is_new
    }

    /// Adds a role of a snapshot, behind the policies.
    pub(super) fn add_role(&mut self, row: AclRole) -> bool {
        let is_new =
            !self.roles.contains_key(&row.id) && !self.role_names.contains_key(&*fold(&row.name));
        let is_linked = self.knows_links(&row.links);
        if is_new && is_linked {
            self.put_role(row);
        }
        is_new && is_linked
    }

    /// Adds a token of a snapshot, behind the roles.
    pub(super) fn add_token(&mut self, row: AclToken) -> bool {
        let is_new =
            !self.tokens.contains_key(&row.accessor) && !self.secrets.contains_key(&row.secret);
        let is_linked = self.knows_links(&row.links);
        if is_new && is_linked {
            self.put_token(row);
        }
        is_new && is_linked
    }

    fn knows_links(&self, links: &AclLinks) -> bool {
        links.policies.iter().all(|id| self.policies.contains_key(id))
            && links.roles.iter().all(|id| self.roles.contains_key(id))
    }

    /// Checks what must hold of it.
    ///
    /// # Errors
    /// A sentence that names the first thing that does not fit.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.secrets.len() != self.tokens.len() || self.authorizers.len() != self.tokens.len() {
            return Err("tokens and what is derived from them differ in number".to_owned());
        }
        for (accessor, row) in &self.tokens {
            if row.accessor != *accessor || self.secrets.get(&row.secret) != Some(accessor) {
                return Err(format!("token {accessor} is misfiled"));
            }
            if !self.knows_links(&row.links) {
                return Err(format!("token {accessor} has a link to nothing"));
            }
            if self.authorizers.get(accessor).map(|known| &**known)
                != Some(&self.derived(&row.links))
            {
                return Err(format!("what token {accessor} may do is out of date"));
            }
        }
        for (id, row) in &self.roles {
            let is_filed = row.id == *id && self.role_names.get(&*fold(&row.name)) == Some(id);
            if !is_filed || !self.knows_links(&row.links) {
                return Err(format!("role {id} is misfiled, or has a link to nothing"));
            }
        }
        for (id, row) in &self.policies {
            if row.id != *id || self.policy_names.get(&*fold(&row.name)) != Some(id) {
                return Err(format!("policy {id} is misfiled"));
            }
        }
        let is_complete = self.policy_names.len() == self.policies.len()
            && self.role_names.len() == self.roles.len();
        if is_complete {
            Ok(())
        } else {
            Err("names of policies or roles that are gone".to_owned())
        }
    }
}

impl State {
    // ---- reads -----------------------------------------------------------------------------------

    /// The token with this accessor, if it still counts.
    #[must_use]
    pub fn acl_token(&self, accessor: &str) -> Option<&Arc<AclToken>> {
        self.acl.tokens.get(accessor).filter(|token| token.is_valid(self.time))
    }

    /// All tokens that count, by accessor.
    pub fn acl_tokens(&self) -> impl Iterator<Item = &Arc<AclToken>> {
        self.acl.tokens.values().filter(|token| token.is_valid(self.time))
    }

    /// The token with this secret, if it still counts.
    #[must_use]
    pub fn acl_token_of(&self, secret: &SecretHash) -> Option<&Arc<AclToken>> {
        self.acl_token(self.acl.secrets.get(secret)?)
    }

    /// The policy with this id.
    #[must_use]
    pub fn acl_policy(&self, id: &str) -> Option<&Arc<AclPolicy>> {
        self.acl.policies.get(id)
    }

    /// The policy with this name, in any letter case.
    #[must_use]
    pub fn acl_policy_named(&self, name: &str) -> Option<&Arc<AclPolicy>> {
        self.acl_policy(self.acl.policy_names.get(&*fold(name))?)
    }

    /// All policies, by id.
    pub fn acl_policies(&self) -> impl Iterator<Item = &Arc<AclPolicy>> {
        self.acl.policies.values()
    }

    /// The role with this id.
    #[must_use]
    pub fn acl_role(&self, id: &str) -> Option<&Arc<AclRole>> {
        self.acl.roles.get(id)
    }

    /// The role with this name, in any letter case.
    #[must_use]
    pub fn acl_role_named(&self, name: &str) -> Option<&Arc<AclRole>> {
        self.acl_role(self.acl.role_names.get(&*fold(name))?)
    }

    /// All roles, by id.
    pub fn acl_roles(&self) -> impl Iterator<Item = &Arc<AclRole>> {
        self.acl.roles.values()
    }

    /// What a token may do; `None`: there is no such token, or it has expired.
    #[must_use]
    pub fn rights(&self, by: &Authority) -> Option<Rights> {
        let token = self.acl_token(&by.token)?;
        let authorizer = self.acl.authorizers.get(&token.accessor)?;
        Some(Rights::new(by.clone(), authorizer.clone()))
    }

    /// What the token with this secret may do at a server with this default.
    #[must_use]
    pub fn rights_of(&self, secret: &SecretHash, default: DefaultPolicy) -> Option<Rights> {
        let token = self.acl_token_of(secret)?;
        self.rights(&Authority { token: token.accessor.clone(), default })
    }

    /// The newest change of anything that decides about rights.
    #[must_use]
    pub fn acl_index(&self) -> Index {
        let AclHeader { tokens, policies, roles, .. } = self.acl.header;
        tokens.max(policies).max(roles)
    }

    // ---- changes that nobody asked for -----------------------------------------------------------

    /// Makes what there always is, when the rules come into force.
    pub(super) fn found_acl(&mut self) {
        if !self.acl.is_empty() {
            // A backup has brought it already.
            return;
        }
        let index = self.index;
        let indexes = Indexes { create: index, modify: index };
        self.acl.header =
            AclHeader { tokens: index, policies: index, roles: index, bootstrapped: None };
        self.acl.put_policy(AclPolicy {
            id: MANAGEMENT_POLICY.into(),
            name: MANAGEMENT_NAME.to_owned(),
            description: "Builtin Policy that grants unlimited access".to_owned(),
            text: MANAGEMENT_RULES.to_owned(),
            counts: true,
            indexes,
            ..AclPolicy::default()
        });
        self.last_number += 1;
        let anonymous = AclToken {
            accessor: ANONYMOUS_ACCESSOR.into(),
            secret: SecretHash::of(ANONYMOUS_SECRET),
            number: self.last_number,
            description: "Anonymous Token".to_owned(),
            created_at: self.wall_time(self.time).unwrap_or_default(),
            indexes,
            ..AclToken::default()
        };
        self.own_token(&anonymous);
        self.acl.put_token(anonymous);
    }

    /// Notes whose number a token's is.
    pub(super) fn own_token(&mut self, row: &AclToken) {
        self.deadlines.own(row.number, Owner::Token(row.accessor.clone()));
    }

    /// A token's times lie further in the future by now.
    pub(super) fn postpone_tokens(&mut self, by: Millis) {
        let expiring: Vec<AclToken> = (self.acl.tokens.values())
            .filter(|token| token.expires.is_some())
            .map(|token| AclToken::clone(token))
            .collect();
        for mut token in expiring {
            token.expires = token.expires.map(|expires| expires + by);
            let number = token.number;
            self.acl.put_token(token);
            self.schedule(number);
        }
    }

    /// Keeps who may do what if a backup is from before there was any of it: without tokens nobody could undo that.
    pub(super) fn adopt_acl(&mut self, running: &mut Self, index: Index) {
        let is_known = self.acl.tokens.get(ANONYMOUS_ACCESSOR).is_some();
        if !is_known {
            self.acl = std::mem::take(&mut running.acl);
            let numbers: Vec<Arc<AclToken>> = self.acl.tokens.values().cloned().collect();
            for token in numbers {
                self.own_token(&token);
                self.schedule(token.number);
            }
        }
        if !self.acl.is_empty() {
            let bootstrapped = self.acl.header.bootstrapped.or(running.acl.header.bootstrapped);
            self.acl.header =
                AclHeader { tokens: index, policies: index, roles: index, bootstrapped };
        }
    }
}

/// The rules of the policy that allows everything, as Consul writes them.
const MANAGEMENT_RULES: &str = "\nacl = \"write\"\nagent_prefix \"\" {\n\tpolicy = \"write\"\n}\nevent_prefix \"\" {\n\tpolicy = \"write\"\n}\nkey_prefix \"\" {\n\tpolicy = \"write\"\n}\nkeyring = \"write\"\nnode_prefix \"\" {\n\tpolicy = \"write\"\n}\noperator = \"write\"\nquery_prefix \"\" {\n\tpolicy = \"write\"\n}\nservice_prefix \"\" {\n\tpolicy = \"write\"\n\tintentions = \"write\"\n}\nsession_prefix \"\" {\n\tpolicy = \"write\"\n}";

impl Change<'_> {
    /// Runs a command about tokens, policies and roles.
    pub(super) fn run_acl(&mut self, command: &AclCommand) -> Result<Outcome, Rejection> {
        if self.state.level() < ACL_LEVEL {
            return Err(Rejection::NoToken);
        }
        match command {
            AclCommand::Bootstrap { accessor, secret, reset } => {
                self.bootstrap(accessor, *secret, *reset)?;
            }
            AclCommand::PutToken(request) => self.put_acl_token(request)?,
            AclCommand::CloneToken { of, accessor, secret, description } => {
                self.clone_token(of, accessor, *secret, description.as_ref())?;
            }
            AclCommand::DeleteToken { accessor } => self.delete_token(accessor)?,
            AclCommand::PutPolicy(request) => self.put_acl_policy(request)?,
            AclCommand::DeletePolicy { id } => self.delete_policy(id)?,
            AclCommand::PutRole(request) => self.put_acl_role(request)?,
            AclCommand::DeleteRole { id } => self.delete_role(id),
        }
        Ok(Outcome::Done)
    }

    fn bootstrap(
        &mut self,
        accessor: &Arc<str>,
        secret: SecretHash,
        reset: Option<u64>,
    ) -> Result<(), AclRefusal> {
        match (self.state.acl.header.bootstrapped, reset) {
            (None, _) => {}
            (Some(index), Some(given)) if given == index.0 => {}
            (Some(index), Some(given)) => {
                return Err(AclRefusal::WrongReset { given, index: index.0 });
            }
            (Some(index), None) => return Err(AclRefusal::Bootstrapped(index.0)),
        }
        let policies = vec![MANAGEMENT_POLICY.into()];
        let links = AclLinks { policies, ..AclLinks::default() };
        let description = "Bootstrap Token (Global Management)".to_owned();
        let row = AclToken { description, links, ..self.new_token(accessor, secret)? };
        self.store_token(row);
        self.state.acl.header.bootstrapped = Some(self.index());
        Ok(())
    }

    /// A token with nothing but its names.
    fn new_token(
        &mut self,
        accessor: &Arc<str>,
        secret: SecretHash,
    ) -> Result<AclToken, AclRefusal> {
        let acl = &self.state.acl;
        if acl.tokens.contains_key(accessor) {
            return Err(AclRefusal::AccessorTaken);
        }
        if acl.secrets.contains_key(&secret) {
            return Err(AclRefusal::SecretTaken);
        }
        room("tokens", acl.tokens.len(), TOKENS_MAX)?;
        let now = self.time();
        Ok(AclToken {
            accessor: accessor.clone(),
            secret,
            created_at: self.state.wall_time(now).unwrap_or_default(),
            ..AclToken::default()
        })
    }

    /// Writes a token; a new one gets its number and its first index.
    fn store_token(&mut self, mut row: AclToken) {
        let index = self.index();
        let kind = match row.number {
            0 => HistoryKind::TokenCreated,
            _ => HistoryKind::TokenChanged,
        };
        if row.number == 0 {
            row.number = self.next_number();
            row.indexes.create = index;
            self.state.own_token(&row);
        }
        row.indexes.modify = index;
        let number = row.number;
        self.record_acl(kind, &row.accessor, &row.description);
        self.state.acl.put_token(row);
        self.state.schedule(number);
        self.touch(Topic::AclTokens);
    }

    fn put_acl_token(&mut self, request: &TokenRequest) -> Result<(), AclRefusal> {
        let links = self.links(&request.links)?;
        let old = self.state.acl_token(&request.accessor).cloned();
        let row = match (old, request.is_new) {
            (None, false) => return Err(AclRefusal::UnknownToken(request.accessor.to_string())),
            (Some(_), true) => return Err(AclRefusal::AccessorTaken),
            (Some(old), false) => changed(&old, request)?,
            (None, true) => {
                let secret = request.secret.unwrap_or_default();
                let mut row = self.new_token(&request.accessor, secret)?;
                row.is_local = request.is_local;
                if !request.ttl.is_zero() {
                    let expires = self.time() + request.ttl;
                    row.expires = Some(expires);
                    row.expires_at = self.state.wall_time(expires);
                }
                row
            }
        };
        self.store_token(AclToken { description: request.description.clone(), links, ..row });
        Ok(())
    }

    fn clone_token(
        &mut self,
        of: &str,
        accessor: &Arc<str>,
        secret: SecretHash,
        description: Option<&String>,
    ) -> Result<(), AclRefusal> {
        let of = self.state.acl_token(of).cloned();
        let of = of.ok_or_else(|| AclRefusal::UnknownToken(String::new()))?;
        let row = self.new_token(accessor, secret)?;
        self.store_token(AclToken {
            description: description.unwrap_or(&of.description).clone(),
            links: of.links.clone(),
            is_local: of.is_local,
            expires: of.expires,
            expires_at: of.expires_at,
            ..row
        });
        Ok(())
    }

    fn delete_token(&mut self, accessor: &Arc<str>) -> Result<(), AclRefusal> {
        if &**accessor == ANONYMOUS_ACCESSOR {
            return Err(AclRefusal::AnonymousStays);
        }
        self.end_token(accessor, HistoryKind::TokenDeleted);
        Ok(())
    }

    /// Removes a token: it was deleted, or it has expired.
    pub(super) fn end_token(&mut self, accessor: &Arc<str>, kind: HistoryKind) {
        if let Some(row) = self.state.acl.remove_token(accessor) {
            self.state.deadlines.disown(row.number);
            self.record_acl(kind, accessor, &row.description);
            self.touch(Topic::AclTokens);
        }
    }

    fn put_acl_policy(&mut self, request: &PolicyRequest) -> Result<(), AclRefusal> {
        let acl = &self.state.acl;
        let old = acl.policies.get(&request.id).cloned();
        match (&old, request.is_new) {
            (None, false) => return Err(AclRefusal::UnknownPolicy(request.id.to_string())),
            (None, true) => room("policies", acl.policies.len(), POLICIES_MAX)?,
            (Some(_), _) => {}
        }
        name_is_free("Policy", &acl.policy_names, &request.id, &request.name)?;
        if &*request.id == MANAGEMENT_POLICY {
            check_management(old.as_deref(), request)?;
        }
        let index = self.index();
        let create = old.as_ref().map_or(index, |old| old.indexes.create);
        let kind = match old {
            None => HistoryKind::PolicyCreated,
            Some(_) => HistoryKind::PolicyChanged,
        };
        self.record_acl(kind, &request.id, &request.name);
        self.state.acl.put_policy(AclPolicy {
            id: request.id.clone(),
            name: request.name.clone(),
            description: request.description.clone(),
            text: request.text.clone(),
            rules: request.rules.clone(),
            datacenters: request.datacenters.clone(),
            counts: request.counts,
            indexes: Indexes { create, modify: index },
        });
        self.touch(Topic::AclPolicies);
        Ok(())
    }

    fn delete_policy(&mut self, id: &Arc<str>) -> Result<(), AclRefusal> {
        if &**id == MANAGEMENT_POLICY {
            return Err(AclRefusal::ManagementStays);
        }
        let acl = &mut self.state.acl;
        let Some(row) = acl.policies.remove(id) else { return Ok(()) };
        let concerned = acl.concerned(|links| links.policies.contains(id));
        acl.policy_names.remove(&*fold(&row.name));
        self.record_acl(HistoryKind::PolicyDeleted, id, &row.name);
        let acl = &mut self.state.acl;
        let roles: Vec<_> =
            acl.roles.values().filter(|role| role.links.policies.contains(id)).cloned().collect();
        for role in roles {
            let mut role = AclRole::clone(&role);
            role.links.policies.retain(|linked| linked != id);
            self.state.acl.roles.insert(role.id.clone(), Arc::new(role));
            self.touch(Topic::AclRoles);
        }
        self.unlink(
            |links| links.policies.contains(id),
            |links| links.policies.retain(|of| of != id),
        );
        self.state.acl.derive(concerned);
        self.touch(Topic::AclPolicies);
        Ok(())
    }

    fn put_acl_role(&mut self, request: &RoleRequest) -> Result<(), AclRefusal> {
        let links = self.links(&request.links)?;
        let acl = &self.state.acl;
        let old = acl.roles.get(&request.id).cloned();
        match (&old, request.is_new) {
            (None, false) => return Err(AclRefusal::UnknownRole(request.id.to_string())),
            (None, true) => room("roles", acl.roles.len(), ROLES_MAX)?,
            (Some(_), _) => {}
        }
        name_is_free("Role", &acl.role_names, &request.id, &request.name)?;
        let index = self.index();
        let create = old.as_ref().map_or(index, |old| old.indexes.create);
        let kind = match old {
            None => HistoryKind::RoleCreated,
            Some(_) => HistoryKind::RoleChanged,
        };
        self.record_acl(kind, &request.id, &request.name);
        self.state.acl.put_role(AclRole {
            id: request.id.clone(),
            name: request.name.clone(),
            description: request.description.clone(),
            links: AclLinks { roles: Vec::new(), ..links },
            indexes: Indexes { create, modify: index },
        });
        self.touch(Topic::AclRoles);
        Ok(())
    }

    fn delete_role(&mut self, id: &Arc<str>) {
        let acl = &mut self.state.acl;
        let Some(row) = acl.roles.remove(id) else { return };
        let concerned = acl.concerned(|links| links.roles.contains(id));
        acl.role_names.remove(&*fold(&row.name));
        self.record_acl(HistoryKind::RoleDeleted, id, &row.name);
        self.unlink(|links| links.roles.contains(id), |links| links.roles.retain(|of| of != id));
        self.state.acl.derive(concerned);
        self.touch(Topic::AclRoles);
    }

    /// Takes links away from tokens.
    fn unlink(&mut self, has: impl Fn(&AclLinks) -> bool, take: impl Fn(&mut AclLinks)) {
        let linked: Vec<_> =
            self.state.acl.tokens.values().filter(|token| has(&token.links)).cloned().collect();
        for token in linked {
            let mut token = AclToken::clone(&token);
            take(&mut token.links);
            self.state.acl.tokens.insert(token.accessor.clone(), Arc::new(token));
            self.touch(Topic::AclTokens);
        }
    }

    /// Finds what a client names; what is named twice is linked once.
    fn links(&self, given: &LinkRequests) -> Result<AclLinks, AclRefusal> {
        let acl = &self.state.acl;
        let policies = resolve("policy", &given.policies, &acl.policy_names, &acl.policies)?;
        let roles = resolve("role", &given.roles, &acl.role_names, &acl.roles)?;
        let (mut services, mut nodes) = (given.services.clone(), given.nodes.clone());
        unique(&mut services);
        unique(&mut nodes);
        Ok(AclLinks { policies, roles, services, nodes })
    }
}

impl From<AclRefusal> for Rejection {
    fn from(refusal: AclRefusal) -> Self {
        Self::Acl(refusal)
    }
}

/// A token that exists, as far as a request may change it.
fn changed(old: &AclToken, request: &TokenRequest) -> Result<AclToken, AclRefusal> {
    if request.secret.is_some_and(|secret| secret != old.secret) {
        return Err(AclRefusal::SecretStays);
    }
    if request.is_local != old.is_local {
        return Err(AclRefusal::LocalStays(old.accessor.to_string()));
    }
    let is_kept = request.expires_at.is_none_or(|at| Some(at) == old.expires_at);
    if !request.ttl.is_zero() || !is_kept {
        return Err(AclRefusal::ExpirationStays(old.accessor.to_string()));
    }
    Ok(old.clone())
}

fn check_management(old: Option<&AclPolicy>, request: &PolicyRequest) -> Result<(), AclRefusal> {
    let Some(old) = old else { return Ok(()) };
    let changed = match () {
        () if request.text != old.text => "Rules for",
        () if request.datacenters != old.datacenters => "Datacenters of",
        () => return Ok(()),
    };
    Err(AclRefusal::ManagementChanges(changed.to_owned()))
}

fn room(what: &str, count: usize, max: usize) -> Result<(), AclRefusal> {
    match count < max {
        true => Ok(()),
        false => Err(AclRefusal::TooMany { what: what.to_owned(), max: max as u64 }),
    }
}

fn name_is_free(
    what: &str,
    names: &OrdMap<Arc<str>, Arc<str>>,
    id: &Arc<str>,
    name: &str,
) -> Result<(), AclRefusal> {
    match names.get(&*fold(name)) {
        Some(holder) if holder != id => {
            Err(AclRefusal::NameTaken { what: what.to_owned(), name: name.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// The ids of rows that a client names by their ids or, in any letter case, by their names.
fn resolve<T>(
    what: &str,
    links: &[LinkRequest],
    names: &OrdMap<Arc<str>, Arc<str>>,
    rows: &OrdMap<Arc<str>, Arc<T>>,
) -> Result<Vec<Arc<str>>, AclRefusal> {
    let mut found = Vec::new();
    for link in links {
        let known = match link.id.is_empty() {
            true => names.get(&*fold(&link.name)),
            false => rows.get_key_value(&link.id).map(|(id, _)| id),
        };
        let id = known.cloned().ok_or_else(|| {
            let (by, named) = match link.id.is_empty() {
                true => ("name", link.name.clone()),
                false => ("ID", link.id.to_string()),
            };
            AclRefusal::NoSuch { what: what.to_owned(), by: by.to_owned(), named }
        })?;
        found.push(id);
    }
    unique(&mut found);
    Ok(found)
}

/// Keeps the first of equal elements.
fn unique<T: Ord + Clone>(all: &mut Vec<T>) {
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|one| seen.insert(one.clone()));
}
