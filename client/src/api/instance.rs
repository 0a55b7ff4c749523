//! The table of all instances.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response};
use crate::types::live::Instance;

impl Client {
    /// All that is registered, by whatever API, in the order of service, node and id: `/v1/quorate/instances`. `service`,
    /// `status` (repeatable) and [`Query::filter`] choose rows.
    ///
    /// ```no_run
    /// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// # use quorate_client::Query;
    /// let query = Query::new().with("service", "rdb");
    /// for row in client.instances(&query).await?.value {
    ///     println!("{} {} {} {:?} ms", row.id, row.status, row.version, row.age_ms);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn instances(&self, query: &Query) -> Result<Response<Vec<Instance>>, Error> {
        self.get("/v1/quorate/instances", query).await
    }
}
