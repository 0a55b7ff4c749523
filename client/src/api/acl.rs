//! Tokens, policies and roles.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::acl::{AclPolicy, AclPolicyStub, AclQuestion, AclRole, AclToken};

impl Client {
    /// Tokens, policies and roles.
    #[must_use]
    pub const fn acl(&self) -> Acl<'_> {
        Acl(self)
    }
}

/// Tokens, policies and roles: `/v1/acl/`. All of it is answered with status 401 where access control is off, and
/// with 403 if the client's own token has no right to it.
#[derive(Debug, Clone, Copy)]
pub struct Acl<'a>(&'a Client);

impl Acl<'_> {
    /// Makes the first management token.
    ///
    /// # Errors
    /// Status 403: there is one already. [`Error::OutcomeUnknown`]: there may be one whose secret nobody knows.
    pub async fn bootstrap(&self) -> Result<AclToken, Error> {
        self.0.perform(&Call::put("/v1/acl/bootstrap")).await?.json()
    }

    /// Makes a token. Only this answer has its secret.
    ///
    /// # Errors
    /// Status 500: a policy or role that it names does not exist.
    pub async fn create_token(&self, token: &AclToken) -> Result<AclToken, Error> {
        self.0.perform(&Call::put("/v1/acl/token").json(token)?).await?.json()
    }

    /// Replaces what a token may do.
    ///
    /// # Errors
    /// Status 500: it does not exist, or what it names does not.
    pub async fn update_token(&self, token: &AclToken) -> Result<AclToken, Error> {
        let path = with_id("/v1/acl/token/", &token.accessor_id);
        self.0.perform(&Call::put(path).json(token)?.idempotent()).await?.json()
    }

    /// Makes a token that may do what another one may.
    ///
    /// # Errors
    /// Status 403: it does not exist.
    pub async fn clone_token(&self, accessor: &str, description: &str) -> Result<AclToken, Error> {
        let path = format!("{}/clone", with_id("/v1/acl/token/", accessor));
        let body = AclToken { description: description.to_owned(), ..AclToken::default() };
        self.0.perform(&Call::put(path).json(&body)?).await?.json()
    }

    /// A token by its accessor.
    ///
    /// # Errors
    /// Status 403: it does not exist.
    pub async fn token(&self, accessor: &str, query: &Query) -> Result<Response<AclToken>, Error> {
        self.0.get(with_id("/v1/acl/token/", accessor), query).await
    }

    /// The token that this client sends.
    ///
    /// # Errors
    /// Status 403: it sends none, or one that does not exist.
    pub async fn own_token(&self, query: &Query) -> Result<Response<AclToken>, Error> {
        self.0.get("/v1/acl/token/self".to_owned(), query).await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tokens(&self, query: &Query) -> Result<Response<Vec<AclToken>>, Error> {
        self.0.get("/v1/acl/tokens".to_owned(), query).await
    }

    /// Removes a token. One that does not exist is removed already.
    ///
    /// # Errors
    /// Status 500: it is the client's own, or the anonymous one.
    pub async fn delete_token(&self, accessor: &str) -> Result<(), Error> {
        self.delete(with_id("/v1/acl/token/", accessor)).await
    }

    /// Makes a policy, or replaces one if it has an id.
    ///
    /// # Errors
    /// Status 500: the rules cannot be read, or another one has the name.
    pub async fn put_policy(&self, policy: &AclPolicy) -> Result<AclPolicy, Error> {
        let path = match policy.id.as_str() {
            "" => "/v1/acl/policy".to_owned(),
            id => with_id("/v1/acl/policy/", id),
        };
        self.0.perform(&Call::put(path).json(policy)?).await?.json()
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// Status 403: there is none.
    pub async fn policy_named(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<AclPolicy>, Error> {
        self.0.get(with_id("/v1/acl/policy/name/", name), query).await
    }

    /// All policies, without their rules.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn policies(&self, query: &Query) -> Result<Response<Vec<AclPolicyStub>>, Error> {
        self.0.get("/v1/acl/policies".to_owned(), query).await
    }

    /// Removes a policy by its id; tokens and roles lose it.
    ///
    /// # Errors
    /// Status 500: it is the one that allows everything.
    pub async fn delete_policy(&self, id: &str) -> Result<(), Error> {
        self.delete(with_id("/v1/acl/policy/", id)).await
    }

    /// Makes a role, or replaces one if it has an id.
    ///
    /// # Errors
    /// Status 500: what it names does not exist, or another one has the name.
    pub async fn put_role(&self, role: &AclRole) -> Result<AclRole, Error> {
        let path = match role.id.as_str() {
            "" => "/v1/acl/role".to_owned(),
            id => with_id("/v1/acl/role/", id),
        };
        self.0.perform(&Call::put(path).json(role)?).await?.json()
    }

    /// All roles.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn roles(&self, query: &Query) -> Result<Response<Vec<AclRole>>, Error> {
        self.0.get("/v1/acl/roles".to_owned(), query).await
    }

    /// Removes a role by its id; tokens lose it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_role(&self, id: &str) -> Result<(), Error> {
        self.delete(with_id("/v1/acl/role/", id)).await
    }

    /// Whether the client's own token may do some things.
    ///
    /// # Errors
    /// Status 400: there is no such kind of rules.
    pub async fn authorize(&self, questions: &[AclQuestion]) -> Result<Vec<AclQuestion>, Error> {
        let call = Call::post("/v1/internal/acl/authorize").json(&questions)?;
        self.0.perform(&call).await?.json()
    }

    async fn delete(&self, path: String) -> Result<(), Error> {
        self.0.perform(&Call::delete(path).idempotent()).await.map(drop)
    }
}
