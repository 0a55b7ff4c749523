//! Tokens, policies and roles.

use quorate_client::types::acl::{AclPolicy, AclQuestion, AclRole, AclToken};

use super::{Body, DecodeError, Kind, Shape, TEXTS, Unknown, field};

/// Reads the body of `POST /v1/internal/acl/authorize`.
///
/// # Errors
/// As [`super::body`].
pub(in crate::http) fn questions(bytes: &[u8]) -> Result<Vec<AclQuestion>, DecodeError> {
    static ELEMENT: Kind = Kind::Object(&QUESTION);
    super::list(&ELEMENT, bytes)
}

static LINK: Shape = Shape {
    name: "ACLLink",
    fields: &[field("ID", Kind::Text), field("Name", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

static SERVICE_IDENTITY: Shape = Shape {
    name: "ACLServiceIdentity",
    fields: &[field("ServiceName", Kind::Text), field("Datacenters", TEXTS)],
    shared: &[],
    unknown: Unknown::Refused,
};

static NODE_IDENTITY: Shape = Shape {
    name: "ACLNodeIdentity",
    fields: &[field("NodeName", Kind::Text), field("Datacenter", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

const LINKS: Kind = Kind::List(&Kind::Object(&LINK));
const SERVICE_IDENTITIES: Kind = Kind::List(&Kind::Object(&SERVICE_IDENTITY));
const NODE_IDENTITIES: Kind = Kind::List(&Kind::Object(&NODE_IDENTITY));

static TOKEN: Shape = Shape {
    name: "ACLToken",
    fields: &[
        field("AccessorID", Kind::Text),
        field("SecretID", Kind::Text),
        field("Description", Kind::Text),
        field("Policies", LINKS),
        field("Roles", LINKS),
        field("ServiceIdentities", SERVICE_IDENTITIES),
        field("NodeIdentities", NODE_IDENTITIES),
        field("TemplatedPolicies", Kind::Any),
        field("Local", Kind::Bool),
        field("AuthMethod", Kind::Text),
        field("ExpirationTime", Kind::Text),
        field("ExpirationTTL", Kind::Duration),
        field("CreateTime", Kind::Text),
        field("Hash", Kind::Any),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
        field("Rules", Kind::Text),
        field("Type", Kind::Text),
        field("ID", Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static POLICY: Shape = Shape {
    name: "ACLPolicy",
    fields: &[
        field("ID", Kind::Text),
        field("Name", Kind::Text),
        field("Description", Kind::Text),
        field("Rules", Kind::Text),
        field("Datacenters", TEXTS),
        field("Hash", Kind::Any),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static ROLE: Shape = Shape {
    name: "ACLRole",
    fields: &[
        field("ID", Kind::Text),
        field("Name", Kind::Text),
        field("Description", Kind::Text),
        field("Policies", LINKS),
        field("ServiceIdentities", SERVICE_IDENTITIES),
        field("NodeIdentities", NODE_IDENTITIES),
        field("TemplatedPolicies", Kind::Any),
        field("Hash", Kind::Any),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static QUESTION: Shape = Shape {
    name: "ACLAuthorizationRequest",
    fields: &[
        field("Resource", Kind::Text),
        field("Segment", Kind::Text),
        field("Access", Kind::Text),
        field("Allow", Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for AclToken {
    const SHAPE: &'static Shape = &TOKEN;
}

impl Body for AclPolicy {
    const SHAPE: &'static Shape = &POLICY;
}

impl Body for AclRole {
    const SHAPE: &'static Shape = &ROLE;
}

impl Body for AclQuestion {
    const SHAPE: &'static Shape = &QUESTION;
}
