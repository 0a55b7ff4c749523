//! What there is to see.

use std::collections::BTreeMap;

use quorate_client::Error;
use quorate_client::types::live::Instance;
use quorate_client::types::operator::{AutopilotHealth, ServerHealth};

use crate::cli::session::Session;
use crate::cli::tally::Tally;

/// The cluster as it was when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Scene {
    /// The servers as their leader sees them; empty while there is none.
    pub(super) servers: Vec<ServerHealth>,
    /// How many servers may fail.
    pub(super) may_fail: usize,
    /// The worst first, then in the order of service, node and id.
    pub(super) instances: Vec<Instance>,
    /// Why the rest is not of this moment.
    pub(super) trouble: Option<String>,
}

/// Instances that have something in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) tally: Tally,
    /// The age of the oldest of their last heartbeats.
    pub(super) silence_ms: Option<u64>,
}

impl Scene {
    /// Asks the cluster. Without a leader, a server's own state is shown.
    ///
    /// # Errors
    /// Nobody answers.
    pub(super) async fn look(session: &Session) -> Result<Self, Error> {
        let client = &session.client;
        let (query, health) = match client.status().leader().await? {
            Some(_) => (session.query(), client.operator().autopilot_health().await?),
            None => (session.query().stale(), AutopilotHealth::default()),
        };
        let mut instances = client.instances(&query).await?.value;
        instances.sort_by_key(|instance| rank(&instance.status));
        let AutopilotHealth { servers, failure_tolerance, .. } = health;
        Ok(Self { servers, may_fail: failure_tolerance, instances, trouble: None })
    }

    /// Takes what a later look has come to. What was seen before stays while nobody answers.
    pub(super) fn renew(&mut self, looked: Result<Self, Error>) {
        match looked {
            Ok(scene) => *self = scene,
            Err(error) => self.trouble = Some(error.with_causes()),
        }
    }

    /// Instances by status.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.instances.iter().for_each(|instance| tally.add(&instance.status));
        tally
    }

    /// Instances by a property of theirs, the worst group first.
    pub(super) fn groups(&self, by: impl Fn(&Instance) -> &str) -> Vec<Group> {
        let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
        for instance in &self.instances {
            let group = groups.entry(by(instance)).or_default();
            group.tally.add(&instance.status);
            group.silence_ms = group.silence_ms.max(instance.age_ms);
        }
        let named = |(name, group): (&str, Group)| Group { name: name.to_owned(), ..group };
        let mut groups: Vec<_> = groups.into_iter().map(named).collect();
        groups.sort_by_key(|group| (group.tally.critical == 0, group.tally.warning == 0));
        groups
    }
}

/// The worst status comes first.
fn rank(status: &str) -> u8 {
    match status {
        "passing" => 2,
        "warning" => 1,
        _ => 0,
    }
}
