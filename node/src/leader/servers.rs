//! The catalogue's picture of the servers: keeps it in step with the membership, and with who answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::command::{Command, ServerRecord};
use quorate_storage::machine::Published;
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::record::{CheckStatus, NodeKind, SERF_HEALTH, SERVER_SERVICE};

use super::Leader;
use crate::agent;
use crate::host::address::HostPort;
use crate::raft::boot::Noted;
use crate::raft::learners::SilentLearners;

/// A server that has not answered for this long is critical in the catalogue.
const SERVER_LOST_AFTER: Duration = Duration::from_secs(5);
/// Time between two looks at the servers.
const SERVERS_EVERY: Duration = Duration::from_millis(500);
/// Key of a server's Raft id in the metadata of its instance.
const RAFT_ID: &str = "raft_id";

impl Leader {
    /// Keeps the catalogue and the membership in step; never ends.
    pub(super) async fn keep_servers(&self) {
        let began = self.context.clock.now();
        let mut noted = Noted::default();
        let mut silent = SilentLearners::default();
        loop {
            let led_for = self.context.clock.now().since(began);
            for command in self.server_commands(led_for) {
                if let Err(error) = self.proposer.propose(command).await {
                    tracing::debug!(%error, "the catalogue of servers is not up to date yet");
                }
            }
            self.membership.complete_change().await;
            self.membership.follow_addresses().await;
            self.membership.forget_learners(&mut silent).await;
            self.membership.note_log_ends(&mut noted).await;
            self.context.clock.sleep(SERVERS_EVERY).await;
        }
    }

    /// What has to change so that the catalogue shows the servers as they are.
    fn server_commands(&self, led_for: Duration) -> Vec<Command> {
        let published = self.state.load();
        let Some(cluster) = self.context.identity.cluster_id() else { return Vec::new() };
        let members: BTreeMap<NodeId, Peer> =
            published.membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        let alive = self.alive_servers(led_for);
        let mut commands = Vec::new();
        let shown = shown_servers(&published);
        for (id, peer) in &members {
            match shown.get(id) {
                None => {
                    commands
                        .extend(server_record(&cluster, *id, peer).map(Command::RegisterServer));
                }
                Some(name) => {
                    let record = server_record(&cluster, *id, peer);
                    let moved = record.filter(|record| !is_shown(&published, name, record));
                    commands.extend(moved.map(Command::RegisterServer));
                    let alive = alive.get(id).copied().unwrap_or(true);
                    commands.extend(health_command(&published, name, alive));
                }
            }
        }
        let gone = shown.into_iter().filter(|(id, _)| !members.contains_key(id));
        commands.extend(gone.map(|(id, name)| Command::RemoveServer { id, name }));
        commands
    }

    /// Which servers answered lately. One that has not answered this leader yet gets as long as one
    /// that stopped answering, or each new leader would call the slower of its followers lost.
    fn alive_servers(&self, led_for: Duration) -> BTreeMap<NodeId, bool> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heartbeats = metrics.heartbeat.iter().flatten();
        heartbeats
            .map(|(id, acked)| {
                let silence = acked.as_ref().map_or(led_for, |acked| acked.elapsed());
                (*id, silence < SERVER_LOST_AFTER || *id == self.context.id)
            })
            .collect()
    }
}

/// The servers in the catalogue: Raft id and name of their nodes.
fn shown_servers(published: &Published) -> BTreeMap<NodeId, Arc<str>> {
    let state = &published.state;
    let instances = state.instances(SERVER_SERVICE);
    // A client may register an instance of that name on a server's node, but not with that id.
    let of_servers = instances.filter(|instance| {
        &*instance.definition.id == SERVER_SERVICE
            && state.node(&instance.node).is_some_and(|node| node.kind == NodeKind::Server)
    });
    of_servers
        .filter_map(|instance| {
            let id = instance.definition.meta.as_ref()?.get(RAFT_ID)?.parse().ok()?;
            Some((id, Arc::clone(&instance.node)))
        })
        .collect()
}

fn server_record(cluster: &str, id: NodeId, peer: &Peer) -> Option<Box<ServerRecord>> {
    let advertised: HostPort = peer.rpc_addr.parse().ok()?;
    let host = agent::of_own_host(cluster, &advertised, &peer.agent_name);
    let meta =
        [(RAFT_ID.to_owned(), id.to_string()), ("http_addr".to_owned(), peer.http_addr.clone())];
    Some(Box::new(ServerRecord {
        id,
        name: peer.name.as_str().into(),
        node_id: agent::node_id(cluster, &peer.name),
        address: advertised.host().to_owned(),
        port: advertised.port(),
        agent: host,
        meta: meta.into(),
    }))
}

/// Whether the catalogue shows a server where it is.
fn is_shown(published: &Published, name: &Arc<str>, record: &ServerRecord) -> bool {
    let state = &published.state;
    let mut instances = state.instances(SERVER_SERVICE);
    let row = instances.find(|row| row.node == *name && &*row.definition.id == SERVER_SERVICE);
    let port = i64::from(record.port);
    // A node of another name is not this one to move.
    *record.name != **name
        || row.is_some_and(|row| {
            row.definition.port == port && row.definition.meta.as_ref() == Some(&record.meta)
        }) && state.node(name).is_some_and(|node| node.address == record.address)
}

fn health_command(published: &Published, name: &Arc<str>, alive: bool) -> Option<Command> {
    let node = published.state.node(name).filter(|node| node.kind == NodeKind::Server)?;
    let check = published.state.check(&node.name, SERF_HEALTH)?;
    let shown_alive = check.registration.status == CheckStatus::Passing;
    (shown_alive != alive).then(|| Command::SetServerHealth { name: Arc::clone(name), alive })
}
