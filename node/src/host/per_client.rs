//! Counts the connections of each client, where an operator wants them limited.

use std::net::IpAddr;
use std::sync::Arc;

use super::by_client::ByClient;

/// Connections by the client's IP address; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PerClient {
    limit: Option<usize>,
    open: Arc<ByClient>,
}

/// One connection that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    open: Arc<ByClient>,
    client: IpAddr,
}

impl PerClient {
    /// At most this many for each client; `None`: any number.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// Counts one more connection, or `None` if the client has as many as it may have.
    pub(crate) fn open(&self, client: IpAddr) -> Option<Option<Counted>> {
        let Some(limit) = self.limit else { return Some(None) };
        let client = client.to_canonical();
        let is_counted = self.open.add_up_to(client, 1, limit);
        is_counted.then(|| Some(Counted { open: Arc::clone(&self.open), client }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.take_back(self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_connections_as_it_may_have_and_no_more() {
        let counts = PerClient::new(Some(2));
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let first = counts.open(one);
        let second = counts.open("::ffff:10.0.0.1".parse().unwrap());
        assert!(first.is_some() && second.is_some() && counts.open(one).is_none());
        assert!(counts.open("10.0.0.2".parse().unwrap()).is_some());
        drop(first);
        assert!(counts.open(one).is_some());
        drop(second);
        assert!(counts.open.is_empty());
        let unlimited = PerClient::new(None);
        let held: Vec<_> = (0..1_000).map(|_| unlimited.open(one)).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
