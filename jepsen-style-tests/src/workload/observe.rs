//! Observers: tasks that poll every server all the time, and continue when the clients have ended.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::join;
use crate::Result;
pub(crate) use crate::checker::look::Look;
use crate::client::{Call, Client, OBSERVER, Site};
use crate::http::{Answer, AnswerExt as _};

/// The status of a list.
const OK: u16 = 200;

/// What observers poll, how often, and how they write it down.
#[derive(Clone, Copy)]
pub(crate) struct Observation<P, T, N> {
    /// The path without a query.
    pub(crate) path: P,
    /// Pause between two polls of one server.
    pub(crate) every: Duration,
    /// What an answer lists; none if it is no list, or holds what cannot be read.
    pub(crate) listed_in: fn(&Answer) -> Option<T>,
    /// Writes a look down.
    pub(crate) note: N,
}

/// An observation of numbers that a workload writes down.
pub(super) type OfNumbers = Observation<&'static str, Vec<u64>, fn(&Site, Look)>;

impl OfNumbers {
    /// The work of a client whose observers are those of the first client: `parts` of all clients together go on side
    /// by side, each under a number of its own.
    pub(super) async fn beside<F>(
        self,
        client: &Client,
        parts: u64,
        part: fn(Client) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (site, mut tasks) = (&client.site, JoinSet::new());
        if client.number == 0 {
            self.start(site, &mut tasks);
        }
        for place in 0..parts.div_ceil(site.plan.clients) {
            let number = client.number + site.plan.clients * place;
            tasks.spawn(part(Client::new(number, Arc::clone(site))));
        }
        join(tasks).await
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

impl<P, T, N> Observation<P, T, N>
where
    P: Display + Clone + Send + Sync + 'static,
    T: Clone + 'static,
    N: Fn(&Site, Look<T>) + Clone + Send + Sync + 'static,
{
    /// Two observers at every server until the run is over, one with default and one with stale reads.
    pub(crate) fn start(&self, site: &Arc<Site>, parts: &mut JoinSet<Result<()>>) {
        for position in 0..site.nodes.len() {
            for stale in [false, true] {
                let client = Client::new(OBSERVER, Arc::clone(site));
                parts.spawn(self.clone().observe(client, position, stale));
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
}

/// The numbers of the services whose checks an answer lists: what their ids have behind a prefix. A check of a node
/// names no service, and is left out.
pub(super) fn services_in(answer: &Answer, prefix: &str) -> Option<Vec<u64>> {
    let listed = answer.value().ok()?;
    let mut numbers = Vec::new();
    for check in listed.as_array()? {
        match check["ServiceID"].as_str()? {
            "" => {}
            service => numbers.push(service.strip_prefix(prefix)?.parse().ok()?),
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn critical(body: &str) -> Option<Vec<u64>> {
        services_in(&Answer::new(200, body.to_owned()), "ttl-")
    }

    #[test]
    fn a_list_is_read_in_full_or_not_at_all() {
        assert_eq!(critical("[]"), Some(Vec::new()));
        let with_a_node = r#"[{"ServiceID": "ttl-8"}, {"ServiceID": ""}, {"ServiceID": "ttl-7"}]"#;
        assert_eq!(critical(with_a_node), Some(vec![8, 7]));
        for body in
            ["", "null", "{}", r#"[{"ServiceID": "ttl-"}]"#, r#"[{"ServiceID": 7}]"#, "[{}]"]
        {
            assert_eq!(critical(body), None, "{body}");
        }
    }
}
