//! The management token that a configuration names (`acl.tokens.initial_management`): made once all servers know
//! tokens, if the cluster has none with this secret. Several servers may try; the secret makes it one token.

use std::time::Duration;

use quorate_storage::command::{
    AclCommand, AclRefusal, Command, LinkRequest, LinkRequests, Outcome, Rejection, TokenRequest,
};
use quorate_storage::record::{MANAGEMENT_POLICY, SecretHash};
use quorate_storage::state::ACL_LEVEL;
use uuid::Uuid;

use crate::node::{Consistency, Node};

/// Time between two attempts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What the token is called if there was a bootstrap before.
const DESCRIPTION: &str = "Initial Management Token";

/// Makes the token; returns when it is there.
pub(super) async fn make(node: &Node, secret: SecretHash) {
    while !is_made(node, secret).await {
        node.clock().sleep(AGAIN_AFTER).await;
    }
}

/// Looks for the token, and proposes it if it is not there.
async fn is_made(node: &Node, secret: SecretHash) -> bool {
    let Ok(published) = node.read(Consistency::Linearizable).await else { return false };
    let state = &published.state;
    if state.level() < ACL_LEVEL || state.acl_token_of(&secret).is_some() {
        return state.level() >= ACL_LEVEL;
    }
    let accessor = || Uuid::new_v4().to_string().into();
    let bootstrap = AclCommand::Bootstrap { accessor: accessor(), secret, reset: None };
    match node.propose(Command::Acl(bootstrap), None).await {
        Ok(Outcome::Rejected(Rejection::Acl(AclRefusal::Bootstrapped(_)))) => {}
        // Looked for once more.
        Ok(_) | Err(_) => return false,
    }
    let policy = LinkRequest { id: MANAGEMENT_POLICY.into(), name: String::new() };
    let token = TokenRequest {
        accessor: accessor(),
        is_new: true,
        secret: Some(secret),
        description: DESCRIPTION.to_owned(),
        links: LinkRequests { policies: vec![policy], ..LinkRequests::default() },
        ..TokenRequest::default()
    };
    if let Ok(Outcome::Done) =
        node.propose(Command::Acl(AclCommand::PutToken(Box::new(token))), None).await
    {
        tracing::warn!("made the management token that acl.tokens.initial_management names");
    }
    false
}
