//! For which client a request is being answered, for what is counted by clients.
//!
//! Rendering and sending are far below the handler that knows the request, so the address goes with the task.

use std::net::IpAddr;

tokio::task_local! {
    static CLIENT: IpAddr;
}

/// Does something for a client.
pub(super) async fn on_behalf_of<T>(client: Option<IpAddr>, work: impl Future<Output = T>) -> T {
    match client {
        Some(client) => CLIENT.scope(client.to_canonical(), work).await,
        None => work.await,
    }
}

/// The client for which this is done; `None`: for none, as in tests.
pub(super) fn current() -> Option<IpAddr> {
    CLIENT.try_with(|client| *client).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_done_for_a_client_knows_it() {
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let known = on_behalf_of(Some(mapped), async { current() }).await;
        assert_eq!(known, Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(on_behalf_of(None, async { current() }).await, None);
    }
}
