//! Claims: exclusive use of an idle instance.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::claim::{ClaimPool, ClaimPoolCounts, ClaimStatus};

impl Client {
    /// Claims of instances.
    #[must_use]
    pub const fn claims(&self) -> Claims<'_> {
        Claims(self)
    }
}

/// Claims: `/v1/quorate/claims/` and `/v1/quorate/claim/`. [`Client::claim`] asks for one and keeps it.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a>(&'a Client);

impl Claims<'_> {
    /// The pools, with counts.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pools(&self, query: &Query) -> Result<Response<Vec<ClaimPoolCounts>>, Error> {
        self.0.get("/v1/quorate/claims", query).await
    }

    /// The pool of a service: its instances, who has them, and who waits.
    ///
    /// # Errors
    /// Status 404: none of its instances is in a pool.
    pub async fn pool(&self, service: &str, query: &Query) -> Result<Response<ClaimPool>, Error> {
        self.0.get(with_id("/v1/quorate/claims/", service), query).await
    }

    /// How a claim is.
    ///
    /// # Errors
    /// Status 404: there is none with this id, or it has ended more than a minute ago.
    pub async fn status(&self, id: &str, query: &Query) -> Result<Response<ClaimStatus>, Error> {
        self.0.get(with_id("/v1/quorate/claim/", id), query).await
    }

    /// Begins a claim's TTL anew.
    ///
    /// # Errors
    /// Any status below 500: it has ended, and the text says why.
    pub async fn renew(&self, id: &str) -> Result<(), Error> {
        let path = with_id("/v1/quorate/claim/", &format!("{id}/renew"));
        self.0.perform(&Call::put(path).idempotent()).await.map(drop)
    }

    /// Gives the instance to the next in line. One that is released already stays so.
    ///
    /// # Errors
    /// Status 404: there is none with this id.
    pub async fn release(&self, id: &str) -> Result<(), Error> {
        let path = with_id("/v1/quorate/claim/", &format!("{id}/release"));
        self.0.remove(&Call::put(path).idempotent()).await
    }
}
