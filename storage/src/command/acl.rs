//! Commands about tokens, policies and roles, and commands that somebody may or may not give.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Rejection;
use crate::Millis;
use crate::record::{
    ANONYMOUS_ACCESSOR, AclRule, Authority, NodeIdentity, SecretHash, ServiceIdentity, WallTime,
};

/// [`Command::Permits`](super::Command::Permits): in whose names the commands of a part are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// Each once.
    pub authorities: Vec<Authority>,
    /// For each command behind the notes, in order: 0, or the place of its authority plus 1. A command that it does not
    /// reach to is the server's own.
    pub of: Vec<u32>,
}

impl Permits {
    /// Notes in whose names commands are given, in their order; `None` if all are the server's own.
    #[must_use]
    pub fn note<'a>(authorities: impl IntoIterator<Item = Option<&'a Authority>>) -> Option<Self> {
        let (mut note, mut places) = (Self::default(), BTreeMap::new());
        for authority in authorities {
            let Some(authority) = authority else {
                note.of.push(0);
                continue;
            };
            note.of.push(*places.entry(authority).or_insert_with(|| {
                note.authorities.push(authority.clone());
                u32::try_from(note.authorities.len()).unwrap_or(u32::MAX)
            }));
        }
        while note.of.last() == Some(&0) {
            note.of.pop();
        }
        (!note.of.is_empty()).then_some(note)
    }

    /// In whose name a command is given, by its place behind the notes.
    ///
    /// # Errors
    /// Its place leads nowhere.
    pub fn of(&self, place: usize) -> Result<Option<&Authority>, Rejection> {
        match self.of.get(place) {
            None | Some(0) => Ok(None),
            Some(at) => {
                let authority = self.authorities.get(*at as usize - 1);
                authority.map(Some).ok_or(Rejection::NoToken)
            }
        }
    }
}

/// A change of tokens, policies and roles. **Append only**: stored by position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclCommand {
    /// `PUT /v1/acl/bootstrap`: the first management token.
    Bootstrap {
        /// Its accessor.
        accessor: Arc<str>,
        /// What is kept of its secret.
        secret: SecretHash,
        /// The number with which an operator allows another one.
        reset: Option<u64>,
    },
    /// Makes a token, or changes one that must exist.
    PutToken(Box<TokenRequest>),
    /// Makes a token with the links of another one.
    CloneToken {
        /// The accessor of the other one.
        of: Arc<str>,
        /// That of the new one.
        accessor: Arc<str>,
        /// What is kept of its secret.
        secret: SecretHash,
        /// For people; `None`: that of the other one.
        description: Option<String>,
    },
    /// Removes a token; one that is not there is no error.
    DeleteToken {
        /// Its accessor.
        accessor: Arc<str>,
    },
    /// Makes a policy, or changes one that must exist.
    PutPolicy(Box<PolicyRequest>),
    /// Removes a policy, and all links to it.
    DeletePolicy {
        /// Its id.
        id: Arc<str>,
    },
    /// Makes a role, or changes one that must exist.
    PutRole(Box<RoleRequest>),
    /// Removes a role, and all links to it.
    DeleteRole {
        /// Its id.
        id: Arc<str>,
    },
}

/// A policy or a role as a client names it: by its id, or else by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequest {
    /// Its id, or empty.
    pub id: Arc<str>,
    /// Its name.
    pub name: String,
}

/// What a token or a role is to be linked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequests {
    /// Policies.
    pub policies: Vec<LinkRequest>,
    /// Roles; for a role none.
    pub roles: Vec<LinkRequest>,
    /// Services.
    pub services: Vec<ServiceIdentity>,
    /// Nodes.
    pub nodes: Vec<NodeIdentity>,
}

/// See [`AclCommand::PutToken`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Its accessor.
    pub accessor: Arc<str>,
    /// Whether it is made.
    pub is_new: bool,
    /// What is kept of its secret; `None` of one that exists: the client did not say.
    pub secret: Option<SecretHash>,
    /// For people.
    pub description: String,
    /// What it may do.
    pub links: LinkRequests,
    /// Accepted and shown.
    pub is_local: bool,
    /// After how long it counts no more; zero: it stays.
    pub ttl: Millis,
    /// Of one that exists: when it expires, as the client read it.
    pub expires_at: Option<WallTime>,
}

/// See [`AclCommand::PutPolicy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRequest {
    /// Its id.
    pub id: Arc<str>,
    /// Whether it is made.
    pub is_new: bool,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The rules as they were written.
    pub text: String,
    /// What they mean.
    pub rules: Vec<AclRule>,
    /// The datacenters in which it counts; none: in all.
    pub datacenters: Vec<String>,
    /// Whether this cluster's is among them.
    pub counts: bool,
}

/// See [`AclCommand::PutRole`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRequest {
    /// Its id.
    pub id: Arc<str>,
    /// Whether it is made.
    pub is_new: bool,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What who has the role has.
    pub links: LinkRequests,
}

/// What a token has no right to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The accessor of the token.
    pub token: Arc<str>,
    /// Such as `service:write`.
    pub permission: String,
    /// The name of what it was about; empty: it has none.
    pub resource: String,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token, permission, resource } = self;
        match &**token {
            ANONYMOUS_ACCESSOR => f.write_str("Permission denied: the anonymous token")?,
            token => write!(f, "Permission denied: token with AccessorID '{token}'")?,
        }
        write!(f, " lacks permission '{permission}'")?;
        match resource.as_str() {
            "" => Ok(()),
            resource => write!(f, " on {resource:?}"),
        }
    }
}

/// Why a change of tokens, policies or roles was refused, in Consul's words. **Append only**: stored by position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum AclRefusal {
    /// There was a bootstrap, at this index.
    #[error("Permission denied: ACL bootstrap no longer allowed (reset index: {0})")]
    Bootstrapped(u64),
    /// The number with which an operator allows another bootstrap is not the right one.
    #[error("Invalid bootstrap reset index (specified {given}, reset index: {index})")]
    WrongReset {
        /// What the operator wrote.
        given: u64,
        /// What it should have been.
        index: u64,
    },
    /// A token that is to be changed is not there.
    #[error("Cannot find token {0:?}")]
    UnknownToken(String),
    /// A policy that is to be changed is not there.
    #[error("cannot find policy {0}")]
    UnknownPolicy(String),
    /// A role that is to be changed is not there.
    #[error("cannot find role {0}")]
    UnknownRole(String),
    /// Something that is linked to is not there.
    #[error("No such ACL {what} with {by} {named:?}")]
    NoSuch {
        /// `policy` or `role`.
        what: String,
        /// `ID` or `name`.
        by: String,
        /// What was given.
        named: String,
    },
    /// The accessor is taken.
    #[error("Invalid Token: AccessorID is already in use")]
    AccessorTaken,
    /// The secret is taken.
    #[error("Invalid Token: SecretID is already in use")]
    SecretTaken,
    /// A token keeps its secret.
    #[error("Changing a tokens SecretID is not permitted")]
    SecretStays,
    /// A token keeps what it is.
    #[error("cannot toggle local mode of {0}")]
    LocalStays(String),
    /// A token keeps its end.
    #[error("Cannot change expiration time of {0}")]
    ExpirationStays(String),
    /// Another policy or role has the name.
    #[error("Invalid {what}: A {what} with Name {name:?} already exists")]
    NameTaken {
        /// `Policy` or `Role`.
        what: String,
        /// The name.
        name: String,
    },
    /// The policy that allows everything stays.
    #[error("Delete operation not permitted on the builtin global-management policy")]
    ManagementStays,
    /// The rules of the policy that allows everything stay.
    #[error("Changing the {0} the builtin global-management policy is not permitted")]
    ManagementChanges(String),
    /// The anonymous token stays.
    #[error("Delete operation not permitted on the anonymous token")]
    AnonymousStays,
    /// There are as many as there may be.
    #[error("there are {max} {what}, which is the most that a cluster has")]
    TooMany {
        /// `tokens`, `policies` or `roles`.
        what: String,
        /// How many.
        max: u64,
    },
}
