//! What happened, with causes.

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::transport::Call;
use crate::types::history::HistoryEvent;

impl Client {
    /// What happened, with causes.
    #[must_use]
    pub const fn history(&self) -> History<'_> {
        History(self)
    }
}

/// The history of every visible change: `/v1/quorate/history`.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::Query;
///
/// let query = Query::new().with("service", "web").with("kind", "check.changed");
/// for record in client.history().list(&query).await?.records {
///     println!("{} {} {} -> {}: {}", record.at, record.id, record.from, record.to, record.cause.kind);
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`Follow`](crate::Follow) follows it.
#[derive(Debug, Clone, Copy)]
pub struct History<'a>(&'a Client);

/// Some records of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The records, oldest first.
    pub records: Vec<HistoryEvent>,
    /// The number of the first record that is kept of what was asked for.
    pub oldest_seq: Option<u64>,
    /// The number of the newest record of all.
    pub last_seq: Option<u64>,
}

impl History<'_> {
    /// Records that the query's parameters choose: `service`, `id`, `check`, `node`, `key`, `prefix`, `session`, `kind`,
    /// `since`, `limit`; with [`Query::waiting`] it waits for the first one after `since`.
    ///
    /// # Errors
    /// Status 410: some after `since` are no longer kept.
    pub async fn list(&self, query: &Query) -> Result<HistoryPage, Error> {
        let answer = self.0.perform(&Call::get("/v1/quorate/history", query)).await?;
        let number = |name: &str| answer.header(name)?.parse().ok();
        Ok(HistoryPage {
            records: answer.json()?,
            oldest_seq: number("x-quorate-oldest-seq"),
            last_seq: number("x-quorate-last-seq"),
        })
    }
}
