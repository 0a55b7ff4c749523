//! Keeps the catalogue's picture of the servers in step with the membership and with which servers answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::command::{Command, ServerRecord};
use quorate_storage::machine::Published;
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::record::{CheckStatus, NodeKind, RAFT_ID, SERF_HEALTH, SERVER_SERVICE};
use quorate_storage::state::HOSTS_OF_SERVERS;

use super::Leader;
use crate::agent;
use crate::host::address::HostPort;
use crate::host::clock::Moment;
use crate::raft::boot::Noted;
use crate::raft::leadership::has_quorum;
use crate::raft::learners::SilentLearners;

/// A server that has not answered for this long, while the leader was asking all the time, is lost: it is
/// critical in the catalogue, and the logs say so.
pub(crate) const SERVER_LOST_AFTER: Duration = Duration::from_secs(5);
/// A server's silence means nothing if no quorum answered an RPC sent within this long: this leader may be
/// the one that is cut off.
const QUORUM_WITHIN: Duration = Duration::from_secs(1);
/// Time between two notes that this process runs.
const ATTENTION_EVERY: Duration = Duration::from_millis(250);
/// A gap of more than this between two such notes was a pause, in which this leader asked nobody.
const ATTENTION_GAP_MAX: Duration = Duration::from_secs(1);
/// Time between two looks at the servers.
const SERVERS_EVERY: Duration = Duration::from_millis(500);

impl Leader {
    /// Keeps the catalogue and the membership in step; never ends.
    pub(super) async fn keep_servers(&self) {
        let attention = Mutex::new(Attention::begin(self.context.clock.now()));
        // Separate from the rounds below, which may wait long for a quorum or for a server.
        let attending = async {
            loop {
                self.attended_for(&attention);
                self.context.clock.sleep(ATTENTION_EVERY).await;
            }
        };
        tokio::join!(attending, self.keep_servers_in_step(&attention));
    }

    /// For how long this leader has been asking the servers without interruption.
    fn attended_for(&self, attention: &Mutex<Attention>) -> Duration {
        let has_quorum = has_quorum(&self.raft, QUORUM_WITHIN);
        let mut attention = attention.lock().unwrap_or_else(PoisonError::into_inner);
        attention.note(self.context.clock.now(), has_quorum)
    }

    async fn keep_servers_in_step(&self, attention: &Mutex<Attention>) {
        let mut noted = Noted::default();
        let mut silent = SilentLearners::default();
        loop {
            for command in self.server_commands(self.attended_for(attention)) {
                if let Err(error) = self.proposer.propose(command).await {
                    tracing::debug!(%error, "the catalogue of servers is not up to date yet");
                }
            }
            self.membership.complete_change().await;
            self.membership.raise_level().await;
            self.membership.follow_addresses().await;
            self.membership.forget_learners(&mut silent).await;
            self.membership.note_log_ends(&mut noted).await;
            self.context.clock.sleep(SERVERS_EVERY).await;
        }
    }

    /// The commands that make the catalogue show the servers as they are.
    fn server_commands(&self, attended_for: Duration) -> Vec<Command> {
        let published = self.state.load();
        let Some(cluster) = self.context.identity.cluster_id() else { return Vec::new() };
        let members: BTreeMap<NodeId, Peer> =
            published.membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        let alive = self.alive_servers(attended_for);
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
        commands.extend(host_commands(&published, &members, &alive));
        let gone = shown.into_iter().filter(|(id, _)| !members.contains_key(id));
        commands.extend(gone.map(|(id, name)| Command::RemoveServer { id, name }));
        commands
    }

    /// Which servers have answered lately. Only silence while this leader was asking counts. A leader that is
    /// new, was paused or had no quorum gives each server the full time; otherwise it would report running
    /// servers as lost.
    fn alive_servers(&self, attended_for: Duration) -> BTreeMap<NodeId, bool> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heartbeats = metrics.heartbeat.iter().flatten();
        heartbeats
            .map(|(id, acked)| {
                let silence = acked.as_ref().map_or(Duration::MAX, |acked| acked.elapsed());
                let is_lost = silence.min(attended_for) >= SERVER_LOST_AFTER;
                (*id, !is_lost || *id == self.context.id)
            })
            .collect()
    }
}

/// Since when a leader has been asking the servers without interruption.
#[derive(Debug)]
struct Attention {
    since: Moment,
    noted: Moment,
}

impl Attention {
    const fn begin(now: Moment) -> Self {
        Self { since: now, noted: now }
    }

    /// Notes that the leader runs, and whether a quorum answers it. Returns how long both have been true.
    fn note(&mut self, now: Moment, has_quorum: bool) -> Duration {
        if !has_quorum || now.since(self.noted) > ATTENTION_GAP_MAX {
            self.since = now;
        }
        self.noted = now;
        now.since(self.since)
    }
}

/// The servers in the catalogue: Raft id and name of their nodes.
fn shown_servers(published: &Published) -> BTreeMap<NodeId, Arc<str>> {
    let state = &published.state;
    let instances = state.instances(SERVER_SERVICE);
    // A client may register an instance of that name on a server's node, but not with this id.
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

/// Whether the catalogue shows a server at its address.
fn is_shown(published: &Published, name: &Arc<str>, record: &ServerRecord) -> bool {
    let state = &published.state;
    let mut instances = state.instances(SERVER_SERVICE);
    let row = instances.find(|row| row.node == *name && &*row.definition.id == SERVER_SERVICE);
    let port = i64::from(record.port);
    let host = state.node(&record.agent.name).map(|node| node.kind);
    // A node of another name is not this one's to move.
    *record.name != **name
        || row.is_some_and(|row| {
            row.definition.port == port && row.definition.meta.as_ref() == Some(&record.meta)
        }) && state.node(name).is_some_and(|node| node.address == record.address)
            && matches!(host, Some(NodeKind::ServerAgent | NodeKind::Server))
}

/// What has to change so that the agents of the servers' hosts are shown as alive or not. Several servers
/// may have one such agent: it is lost when none of them answers.
fn host_commands(
    published: &Published,
    members: &BTreeMap<NodeId, Peer>,
    alive: &BTreeMap<NodeId, bool>,
) -> Vec<Command> {
    if published.state.level() < HOSTS_OF_SERVERS {
        return Vec::new();
    }
    let wrong = alive_hosts(members, alive).into_iter().filter_map(|(agent, alive)| {
        let node = published.state.node(&agent)?;
        (node.kind == NodeKind::ServerAgent)
            .then(|| health_command(published, &node.name, alive))?
    });
    wrong.collect()
}

/// Which agents of servers' hosts, by name in lower case, have a server that answers.
fn alive_hosts(
    members: &BTreeMap<NodeId, Peer>,
    alive: &BTreeMap<NodeId, bool>,
) -> BTreeMap<String, bool> {
    let mut hosts: BTreeMap<String, bool> = BTreeMap::new();
    for (id, peer) in members {
        let host = hosts.entry(peer.agent_name.to_ascii_lowercase()).or_default();
        *host |= alive.get(id).copied().unwrap_or(true);
    }
    hosts
}

/// The change to the `serfHealth` of a server's node, or of its host's agent's, if it says something else.
fn health_command(published: &Published, name: &Arc<str>, alive: bool) -> Option<Command> {
    let is_told = |kind| matches!(kind, NodeKind::Server | NodeKind::ServerAgent);
    let node = published.state.node(name).filter(|node| is_told(node.kind))?;
    let check = published.state.check(&node.name, SERF_HEALTH)?;
    let shown_alive = check.registration.status == CheckStatus::Passing;
    (shown_alive != alive).then(|| Command::SetServerHealth { name: Arc::clone(name), alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_alive_while_one_of_its_servers_is() {
        let on = |agent: &str| Peer { agent_name: agent.to_owned(), ..Peer::default() };
        let members = [(1, on("Pair")), (2, on("pair")), (3, on("alone")), (4, on("new"))].into();
        let hosts = |alive: &[(NodeId, bool)]| {
            let hosts = alive_hosts(&members, &alive.iter().copied().collect());
            hosts.into_iter().filter(|(_, alive)| *alive).map(|(host, _)| host).collect::<Vec<_>>()
        };
        assert_eq!(hosts(&[(1, true), (2, false), (3, false)]), ["new", "pair"]);
        assert_eq!(hosts(&[(1, false), (2, false), (3, true), (4, false)]), ["alone"]);
    }

    #[test]
    fn a_pause_and_a_lost_quorum_begin_the_time_of_asking_anew() {
        let at = |ms| Moment::at(Duration::from_millis(ms));
        let mut attention = Attention::begin(at(1_000));
        let mut note = |ms, has_quorum| attention.note(at(ms), has_quorum).as_millis();
        assert_eq!(note(1_250, true), 250);
        assert_eq!(note(2_250, true), 1_250);
        assert_eq!(note(3_251, true), 0, "it was paused");
        assert_eq!(note(3_500, true), 249);
        assert_eq!(note(3_750, false), 0, "nobody answered");
        assert_eq!(note(4_000, false), 0);
        assert_eq!(note(4_100, true), 100);
    }
}
