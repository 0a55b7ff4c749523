//! Whose messages the holder of a certificate may send.
//!
//! The handshake shows that a connection is that of a server of this cluster, and of which one. A message says
//! itself which server it is from, and must not say another one: the key of one server is no key to all.
//! Names of members never change, so what the membership says of an id is what its certificate must say.

use quorate_storage::raft::NodeId;
use thiserror::Error;

use crate::host::tls::holder::{Holder, Role};

/// Somebody who speaks in the name of another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Impostor {
    /// It is no server.
    #[error("its certificate is that of the {0}, and only servers send such messages")]
    NoServer(Holder),
    /// It is another server.
    #[error("server {id} has the name {name:?}, and its certificate is that of the {holder}")]
    OtherServer {
        /// In whose name it speaks.
        id: NodeId,
        /// The name of that server.
        name: String,
        /// Whose certificate it has.
        holder: Holder,
    },
}

/// Compares the holder of a certificate with the sender of a message: `claimed` is the name that the message gives
/// it, `member` the one that the membership has for its id.
///
/// # Errors
/// [`Impostor`].
pub fn check(
    holder: &Holder,
    id: NodeId,
    claimed: Option<&str>,
    member: Option<&str>,
) -> Result<(), Impostor> {
    if holder.role != Role::Server {
        return Err(Impostor::NoServer(holder.clone()));
    }
    match claimed.into_iter().chain(member).find(|name| !holder.is_server(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Impostor::OtherServer { id, name: name.to_owned(), holder: holder.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_speaks_for_itself_and_for_nobody_else() {
        let holder = |role| Holder { name: "n1".into(), role, datacenter: "dc1".into() };
        let check = |claimed, member| check(&holder(Role::Server), 1, claimed, member);
        assert_eq!(check(Some("n1"), Some("N1")), Ok(()));
        assert_eq!(check(None, Some("n1")), Ok(()));
        // A server that has not heard of the sender yet, as one that joins.
        assert_eq!(check(None, None), Ok(()));
        for (claimed, member) in [(Some("n2"), None), (None, Some("n2")), (Some("n1"), Some("n2"))]
        {
            let text = check(claimed, member).unwrap_err().to_string();
            assert!(text.contains("has the name \"n2\"") && text.contains("server n1"), "{text}");
        }
        for role in [Role::Agent, Role::Client] {
            let refused = super::check(&holder(role), 1, None, None).unwrap_err();
            assert_eq!(refused, Impostor::NoServer(holder(role)));
        }
    }
}
