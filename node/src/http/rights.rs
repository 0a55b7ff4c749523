//! Who asks, and what they may see.
//!
//! # Where it is decided
//!
//! * **Every endpoint names its [`Rule`]** when it is made, so that one without a rule does not compile. Before a
//!   handler runs, the token is looked up ([`identify`]), and what the rule says by itself is asked for.
//! * **Commands** carry the token's accessor, and apply decides ([`State::permit`]): what an id means, and what the
//!   token may do, is what it is at that place of the log. The server asks its own state first, so that what is
//!   refused does not get into the log; "no" counts only if it is said behind a barrier.
//! * **What is shown** is filtered by the rights that the token has in the very version of the state that is shown
//!   ([`Call::rights`]). So a query that has waited is answered with the rights of then, and one whose token is gone
//!   is refused.
//! * **A handler that forgets** to ask is not answered: with rules [`Rule::Rows`] and [`Rule::Commands`] an answer
//!   that nobody's rights were asked for becomes an error.
//!
//! Rights are derived by apply and are part of each version of the state, so there is no cache that could be out of
//! date.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use quorate_storage::State;
use quorate_storage::command::{Command, Denial, Rejection};
use quorate_storage::machine::Published;
use quorate_storage::record::{Access, AclKind, AclToken, Authority, SecretHash};
use quorate_storage::state::{ACL_LEVEL, Rights};

use super::asker::{Asker, secret};
use super::call::{Asked, Call};
use super::error::ApiError;
use crate::node::{Consistency, Node};

/// What a request needs, beside a token that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Tokens are not looked at.
    Open,
    /// Any token will do, and there is nothing that not everybody may see.
    Any,
    /// Any token will do: the handler shows only what it may see, or asks for rights itself.
    Rows,
    /// Any token will do: the rights are those that the commands need.
    Commands,
    /// A right to the agent of this server's host.
    Server(Access),
    /// A right to the agent that asks.
    Agent(Access),
    /// A right to the cluster's servers and settings.
    Operator(Access),
    /// A right to tokens, policies and roles.
    Acl(Access),
}

impl Rule {
    /// Whether the handler has to ask for rights.
    pub(super) const fn is_left_to_handler(self) -> bool {
        matches!(self, Self::Rows | Self::Commands)
    }

    /// What it needs by itself.
    fn need(self, call: &Call) -> Option<(AclKind, String, Access)> {
        Some(match self {
            Self::Open | Self::Any | Self::Rows | Self::Commands => return None,
            Self::Server(access) => (AclKind::Agent, call.node.info().agent_name, access),
            Self::Agent(access) => {
                let asked = call.asked().ok();
                let name = asked.and_then(|asked| match asked {
                    Asked::One(agent) => Some(agent.name.to_string()),
                    Asked::All => None,
                });
                (AclKind::Agent, name.unwrap_or_else(|| call.node.info().agent_name), access)
            }
            Self::Operator(access) => (AclKind::Operator, String::new(), access),
            Self::Acl(access) => (AclKind::Acl, String::new(), access),
        })
    }
}

/// Nobody has this token (any more).
pub(super) fn no_token() -> ApiError {
    Rejection::NoToken.into()
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        Self::new(StatusCode::FORBIDDEN, denial.to_string())
    }
}

/// Looks up the token of a request, and asks for what its endpoint's rule says.
///
/// # Errors
/// 403: there is no such token, or it lacks a right; 503: not all servers know tokens.
pub(super) async fn identify(call: &Call, rule: Rule) -> Result<Option<Need>, ApiError> {
    let Some(asker) = call.asker().filter(|_| rule != Rule::Open) else { return Ok(None) };
    let need = Need { what: rule.need(call), asker: Arc::clone(asker) };
    let decide = |state: &State| {
        if state.level() < ACL_LEVEL {
            let text = "not all servers know the rules of access control yet, try again later";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        need.still_holds(state)
    };
    let by = confirmed(&call.node, decide).await?;
    // Nobody else sets it.
    let _ = asker.authority.set(by);
    Ok(Some(need))
}

/// What a request needs by its endpoint's rule, for as long as it is answered.
#[derive(Debug)]
pub(super) struct Need {
    what: Option<(AclKind, String, Access)>,
    asker: Arc<Asker>,
}

impl Need {
    /// Whose request it is, if it may be answered from a state.
    ///
    /// # Errors
    /// 403: the token is gone, or lacks a right.
    pub(super) fn still_holds(&self, state: &State) -> Result<Authority, ApiError> {
        let rights = self.asker.rights_in(state).ok_or_else(no_token)?;
        if let Some((kind, name, access)) = &self.what {
            rights.require(*kind, name, *access)?;
        }
        Ok(rights.by)
    }
}

/// A decision about rights from this server's own state; a refusal counts only if it is one behind a barrier too.
async fn confirmed<T>(
    node: &Node,
    decide: impl Fn(&State) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    if let Ok(decided) = decide(&node.published().state) {
        return Ok(decided);
    }
    let published = node.read(Consistency::Linearizable).await?;
    decide(&published.state)
}

/// What may be seen of a version of the state. Without access control, everything.
#[derive(Debug)]
pub(super) struct Sight {
    rights: Option<Rights>,
    asker: Option<Arc<Asker>>,
}

impl Sight {
    /// The rights behind it; `None`: there is no access control.
    pub(super) const fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    /// Whether something may be done.
    pub(super) fn allows(&self, kind: AclKind, name: &str, access: Access) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.allows(kind, name, access))
    }

    /// The same as an error.
    ///
    /// # Errors
    /// 403: it may not.
    pub(super) fn require(
        &self,
        kind: AclKind,
        name: &str,
        access: Access,
    ) -> Result<(), ApiError> {
        match &self.rights {
            Some(rights) => Ok(rights.require(kind, name, access)?),
            None => Ok(()),
        }
    }

    /// Whether a row of a list is shown; what is left out shows in the answer's headers.
    fn keeps(&self, sees: impl FnOnce(&Rights) -> bool) -> bool {
        let kept = self.rights.as_ref().is_none_or(sees);
        if let (false, Some(asker)) = (kept, &self.asker) {
            asker.filtered.store(true, Ordering::Relaxed);
        }
        kept
    }

    pub(super) fn keeps_key(&self, key: &str) -> bool {
        self.keeps(|rights| rights.sees_key(key))
    }

    pub(super) fn keeps_node(&self, node: &str) -> bool {
        self.keeps(|rights| rights.sees_node(node))
    }

    pub(super) fn keeps_service(&self, service: &str) -> bool {
        self.keeps(|rights| rights.sees_service(service))
    }

    pub(super) fn keeps_instance(&self, node: &str, service: &str) -> bool {
        self.keeps(|rights| rights.sees_instance(node, service))
    }

    pub(super) fn keeps_check(&self, node: &str, service: &str) -> bool {
        self.keeps(|rights| rights.sees_check(node, service))
    }

    pub(super) fn keeps_named(&self, kind: AclKind, name: &str) -> bool {
        self.keeps(|rights| rights.allows(kind, name, Access::Read))
    }

    pub(super) fn keeps_if(&self, sees: impl FnOnce(&Rights) -> bool) -> bool {
        self.keeps(sees)
    }
}

impl Call {
    /// What the caller may see of a version of the state.
    ///
    /// # Errors
    /// 403: the token is gone.
    pub(super) fn rights(&self, state: &State) -> Result<Sight, ApiError> {
        let Some(asker) = self.asker() else { return Ok(Sight { rights: None, asker: None }) };
        asker.was_asked.store(true, Ordering::Relaxed);
        let rights = asker.rights_in(state).ok_or_else(no_token)?;
        Ok(Sight { rights: Some(rights), asker: Some(Arc::clone(asker)) })
    }

    /// What a token whose secret has this hash may see, for what runs in its name.
    ///
    /// # Errors
    /// 403: there is no such token.
    pub(super) fn rights_of(&self, state: &State, secret: &SecretHash) -> Result<Sight, ApiError> {
        let Some(asker) = self.asker() else { return Ok(Sight { rights: None, asker: None }) };
        asker.was_asked.store(true, Ordering::Relaxed);
        let rights = state.rights_of(secret, asker.default).ok_or_else(no_token)?;
        Ok(Sight { rights: Some(rights), asker: Some(Arc::clone(asker)) })
    }

    /// Asks for a right that no row decides about, for an endpoint that answers or refuses as a whole.
    ///
    /// # Errors
    /// 403: the token is gone, or lacks it.
    pub(super) async fn require(
        &self,
        kind: AclKind,
        name: &str,
        access: Access,
    ) -> Result<(), ApiError> {
        self.confirm(|sight, _| sight.require(kind, name, access)).await
    }

    /// Decides by what the caller may see; a refusal counts only if it is one behind a barrier too.
    ///
    /// # Errors
    /// Those of `decide`; 403: the token is gone.
    pub(super) async fn confirm<T>(
        &self,
        decide: impl Fn(&Sight, &State) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        confirmed(&self.node, |state| decide(&self.rights(state)?, state)).await
    }

    /// In whose name its commands are given.
    pub(super) fn authority(&self) -> Option<Authority> {
        let asker = self.asker()?;
        asker.was_asked.store(true, Ordering::Relaxed);
        // An open endpoint has nobody in whose name it could.
        asker.authority.get().cloned()
    }

    /// Refuses a command that the caller may not give, before it gets into the log. Apply decides once more.
    ///
    /// # Errors
    /// 403, or the operations of a transaction.
    pub(super) async fn permit(&self, command: &Command) -> Result<(), Rejection> {
        let Some(by) = self.authority() else { return Ok(()) };
        if self.node.published().state.permit(&by, command).is_ok() {
            return Ok(());
        }
        match self.node.read(Consistency::Linearizable).await {
            Ok(published) => published.state.permit(&by, command),
            // Without a leader the command itself says so.
            Err(_) => Ok(()),
        }
    }

    /// The token itself; `None`: there is no access control, or the request has none.
    pub(super) fn own_token<'s>(&self, state: &'s State) -> Option<&'s Arc<AclToken>> {
        let asker = self.asker().filter(|asker| asker.is_named)?;
        state.acl_token_of(&asker.secret)
    }

    /// The secret that the request has.
    pub(super) fn secret(&self) -> Option<&str> {
        secret(&self.params, self.headers())
    }

    /// Whether something was left out of what was shown since this was last asked.
    pub(super) fn was_filtered(&self) -> bool {
        self.asker().is_some_and(|asker| {
            // Who sends no token is not told that there is more (Consul's rule).
            asker.filtered.swap(false, Ordering::Relaxed) && asker.is_named
        })
    }

    /// Stands for what the caller may see, among questions that others ask too.
    pub(super) fn rights_question(&self) -> Option<(String, u64)> {
        let asker = self.asker()?;
        let rights_since = self.node.published().state.acl_index();
        Some((asker.secret.to_string(), rights_since.0))
    }

    /// Resolves when the caller's rights in the newest state are other ones than these; never without access
    /// control. For what goes on after it was answered.
    pub(super) fn watch_rights(&self, published: &Published) -> Result<RightsWatch, ApiError> {
        let sight = self.rights(&published.state)?;
        Ok(RightsWatch { rights: sight.rights, node: Arc::clone(&self.node) })
    }
}

/// The rights that an open stream was given.
#[derive(Debug, Clone)]
pub(super) struct RightsWatch {
    rights: Option<Rights>,
    node: Arc<Node>,
}

impl RightsWatch {
    /// The rights as they were when it began.
    pub(super) fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    /// Whether they are other ones by now, or the token is gone.
    pub(super) fn are_changed(&self) -> bool {
        self.rights.as_ref().is_some_and(|rights| {
            let now = self.node.published().state.rights(&rights.by);
            now.is_none_or(|now| !now.is_same(rights))
        })
    }

    /// Resolves when their token may not give a command any more; never if there is no access control.
    pub(super) async fn forbids(&self, command: &Command) {
        let Some(rights) = &self.rights else { return std::future::pending().await };
        let by = &rights.by;
        self.until(|| self.node.published().state.permit(by, command).is_err()).await;
    }

    /// Resolves when they are; never if there is no access control.
    pub(super) async fn changed(&self) {
        if self.rights.is_none() {
            return std::future::pending().await;
        }
        self.until(|| self.are_changed()).await;
    }

    /// Resolves when something holds that only a change of tokens, policies or roles brings about.
    async fn until(&self, holds: impl Fn() -> bool) {
        use quorate_storage::Topic::{AclPolicies, AclRoles, AclTokens};
        let watches = self.node.watches();
        let mut changes = [AclTokens, AclPolicies, AclRoles].map(|topic| watches.subscribe(&topic));
        while !holds() {
            let [tokens, policies, roles] = &mut changes;
            tokio::select! {
                () = tokens.changed() => {}
                () = policies.changed() => {}
                () = roles.changed() => {}
            }
        }
    }
}
