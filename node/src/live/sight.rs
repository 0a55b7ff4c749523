//! Which records of the history, and which instances, a token may see.

use quorate_storage::record::{Access, AclKind, HistoryRecord, Service, Subject};
use quorate_storage::state::Rights;

/// Whether a record may be seen: whoever may read what it is about. What is about the cluster as a whole is for
/// operators.
#[must_use]
pub fn sees(rights: &Rights, record: &HistoryRecord) -> bool {
    match &record.subject {
        Subject::Cluster => rights.allows(AclKind::Operator, "", Access::Read),
        Subject::Node { node } => rights.sees_node(node),
        Subject::Instance { node, service, .. } => rights.sees_instance(node, service),
        Subject::Check { node, service, .. } => rights.sees_check(node, service),
        Subject::Key(key) => rights.sees_key(key),
        Subject::Session { node, .. } => rights.allows(AclKind::Session, node, Access::Read),
        Subject::Claim { service, .. } => rights.sees_service(service),
        Subject::Acl { .. } => rights.allows(AclKind::Acl, "", Access::Read),
    }
}

/// Whether an instance may be seen; without access control all may.
#[must_use]
pub fn sees_row(rights: Option<&Rights>, row: &Service) -> bool {
    rights.is_none_or(|rights| rights.sees_instance(&row.node, &row.definition.name))
}
