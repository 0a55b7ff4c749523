//! Observers: whoever looks at every server all the time, and goes on looking when the clients have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Result;
use crate::client::{Call, Client, OBSERVER, Site};
use crate::http::Answer;

/// The status of a list.
const OK: u16 = 200;

/// One look at one server.
pub(super) struct Look {
    /// At whom.
    pub(super) node: u64,
    /// Whether the server answered from what it has itself.
    pub(super) stale: bool,
    /// When it was asked.
    pub(super) call: u64,
    /// When it answered.
    pub(super) ret: u64,
    /// What it listed; none if the answer cannot be read, which must not be passed over.
    pub(super) listed: Option<Vec<u64>>,
}

/// What observers look at, how often, and how it is written down.
#[derive(Clone, Copy)]
pub(super) struct Observation {
    /// The path without a query.
    pub(super) path: &'static str,
    /// Between two looks at the same server.
    pub(super) every: Duration,
    /// The numbers in an answer's list; none if it is no list, or holds what cannot be read.
    pub(super) listed_in: fn(&Answer) -> Option<Vec<u64>>,
    /// Writes a look down.
    pub(super) note: fn(&Site, Look),
}

impl Observation {
    /// Two observers at every server until the run is over, one with default and one with stale reads.
    pub(super) fn start(self, site: &Arc<Site>, parts: &mut JoinSet<Result<()>>) {
        for position in 0..site.nodes.len() {
            for stale in [false, true] {
                parts.spawn(self.observe(Client::new(OBSERVER, Arc::clone(site)), position, stale));
            }
        }
    }

    async fn observe(self, client: Client, position: usize, stale: bool) -> Result<()> {
        let path = format!("{}{}", self.path, if stale { "?stale" } else { "" });
        while !client.site.is_over() {
            let reply = client.send_to(position, Call::read(&path)).await;
            if let Some(answer) = reply.answer() {
                let (node, call, ret) = (reply.node, reply.call, reply.end);
                let listed = (self.listed_in)(answer);
                (self.note)(&client.site, Look { node, stale, call, ret, listed });
            }
            tokio::time::sleep(self.every).await;
        }
        Ok(())
    }

    /// Looks at all servers, by default reads, for `span`.
    pub(super) async fn stay(self, site: &Site, span: Duration) -> Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            for (node, http) in &site.nodes {
                let call = site.now();
                let answer = http.get(self.path).await?;
                let ret = site.now();
                // A server that says that it cannot answer has listed nothing.
                if answer.status == OK {
                    let listed = (self.listed_in)(&answer);
                    (self.note)(site, Look { node: *node, stale: false, call, ret, listed });
                }
            }
            tokio::time::sleep(self.every).await;
        }
        Ok(())
    }
}
