//! Who waits for what.

use std::sync::Arc;

use quorate_storage::Topic;

/// The table of waiting queries, by topic.
#[derive(Debug, Default)]
pub struct Watches {}

impl Watches {
    /// Registers interest *before* the caller looks at the state: a change after this call, and
    /// before `changed` is awaited, is not lost.
    pub fn subscribe(self: &Arc<Self>, _topic: &Topic) -> Subscription {
        unimplemented!()
    }
}

/// Interest in one topic; dropping it ends the interest.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// Resolves when the topic may have changed since `subscribe` or since the last `changed`.
    pub async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}
