//! What nodes say to each other.
//!
//! One envelope and one enum for everything but snapshots, encoded with postcard. The encoding is by
//! position, so **append variants and members at the end**; a node that gets what it cannot read
//! answers with an error, and the sender tries again.
//!
//! Members appended to the end of a whole message, an [`Envelope`] or a [`Greeting`], are read with
//! [`or_default`]: earlier versions do not send them, and do not look at what follows the members that they
//! know. So servers of both versions understand each other while a cluster is upgraded.

use std::collections::BTreeMap;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use quorate_storage::command::Part;
use quorate_storage::raft::{
    BootId, LogId, NodeId, Peer, Position, SnapshotMeta, TypeConfig, Vote,
};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// A request with its addressee. A node answers only requests for its cluster, its id, and the data directory
/// that the sender knows, so that a server that lost its disk cannot vote a second time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's cluster, if it belongs to one.
    pub cluster: Option<String>,
    /// The sender.
    pub from: NodeId,
    /// The addressee; `None` where the sender knows only an address.
    pub to: Option<NodeId>,
    /// The addressee's store id as the membership has it.
    pub store: Option<String>,
    /// What is asked.
    pub request: Request,
    /// The process that sends it.
    pub sender: ProcessIdentity,
    /// The boot of the addressee, where the sender knows one. An answer from another process with the same id
    /// does not count.
    pub addressee: Option<BootId>,
    /// The level of the rules that the sender knows, see [`LEVEL`](quorate_storage::state::LEVEL).
    #[serde(deserialize_with = "or_default")]
    pub level: u32,
}

/// The process that speaks for a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its boot.
    pub boot: BootId,
    /// The number that the log gave that boot, once it has.
    pub incarnation: Option<u64>,
    /// Random id of its data directory.
    pub store_id: String,
    /// `IP:PORT` where it listens.
    pub rpc_addr: String,
}

/// What one node asks of another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Raft's AppendEntries.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Raft's RequestVote.
    Vote(VoteRequest<TypeConfig>),
    /// Raft's Pre-Vote.
    PreVote(VoteRequest<TypeConfig>),
    /// Asks the addressee to take over leadership.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Commands for the leader to propose.
    Forward(Part),
    /// Asks the leader for a position in the log that a linearizable read must have applied.
    ReadIndex,
    /// Asks a server to introduce itself: used before a cluster exists, and to find the leader of one.
    Hello(ServerInfo),
    /// Asks the leader to make the sender a member.
    Join(ServerInfo),
    /// Asks the leader to remove a server.
    Remove(NodeId),
    /// Asks the leader to hand leadership over, perhaps to this voter.
    HandOver(Option<NodeId>),
    /// Asks the leader how far its followers are.
    Progress,
    /// Asks the leader to enter the sender's boot into the log.
    RecordBoot(ServerInfo),
    /// Asks which process listens here. Answered without checking the sender, so that two servers can ask
    /// about each other at the same time.
    WhoAreYou,
    /// Asks for the hash of the addressee's state after this entry.
    StateHash {
        /// The entry.
        index: u64,
        /// The version of the program that asks: see [`super::comparison`].
        version: String,
    },
    /// Tells the hashes of states that differ, after this entry.
    StateHashes {
        /// The entry.
        index: u64,
        /// By server.
        hashes: BTreeMap<NodeId, StateHash>,
    },
}

/// A hash of everything replicated ([`quorate_storage::State::hash`]).
pub type StateHash = [u8; 32];

impl Request {
    /// How the sender introduces itself, if it does.
    #[must_use]
    pub const fn info(&self) -> Option<&ServerInfo> {
        match self {
            Self::Hello(info) | Self::Join(info) | Self::RecordBoot(info) => Some(info),
            Self::Append(_)
            | Self::Vote(_)
            | Self::PreVote(_)
            | Self::TransferLeader(_)
            | Self::Forward(_)
            | Self::ReadIndex
            | Self::Remove(_)
            | Self::HandOver(_)
            | Self::Progress
            | Self::WhoAreYou
            | Self::StateHash { .. }
            | Self::StateHashes { .. } => None,
        }
    }

    /// Whether it is one of Raft's own, which a server answers once it knows that its identity is free.
    #[must_use]
    pub fn is_consensus(&self) -> bool {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::PreVote(_) | Self::TransferLeader(_) => true,
            Self::Forward(_)
            | Self::ReadIndex
            | Self::Hello(_)
            | Self::Join(_)
            | Self::Remove(_)
            | Self::HandOver(_)
            | Self::Progress
            | Self::RecordBoot(_)
            | Self::WhoAreYou
            | Self::StateHash { .. }
            | Self::StateHashes { .. } => false,
        }
    }
}

/// How a node introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its Raft id.
    pub id: NodeId,
    /// Its addresses and store.
    pub peer: Peer,
    /// What it found on its disk when it started.
    pub disk: DiskState,
    /// Name of its datacenter.
    pub datacenter: String,
}

/// What a server found on its disk when it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// How often its data directory was opened.
    pub boots: u64,
    /// The end of its log.
    pub last: Option<Position>,
    /// The term of its vote.
    pub term: u64,
    /// Position of the committed membership, if this server is in it.
    pub member_since: Option<Position>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    /// To `Append`.
    Append(AppendEntriesResponse<TypeConfig>),
    /// To `Vote` and `PreVote`.
    Vote(VoteResponse<TypeConfig>),
    /// To `TransferLeader`.
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To `Forward`.
    Forward(Forwarded),
    /// To `ReadIndex`: `None` when the addressee cannot say, because it does not lead.
    ReadIndex(Option<LogId>),
    /// To `Hello`.
    Hello(Box<Greeting>),
    /// To `Join`, `Remove`, `HandOver` and `RecordBoot`.
    Changed(Result<(), ChangeRefusal>),
    /// To a snapshot.
    Snapshot(SnapshotResponse<TypeConfig>),
    /// The request was refused.
    Refused(Refusal),
    /// To `Progress`: `None` when the addressee does not lead.
    Progress(Option<BTreeMap<NodeId, Progress>>),
    /// To `WhoAreYou`.
    Identity(ProcessIdentity),
    /// To `StateHash`: `None` when the addressee does not have that version of its state.
    StateHash(Option<StateHash>),
    /// To `StateHashes`.
    Noted,
}

/// How far a member is, as the leader knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Time since it last answered, in milliseconds; `None` if it never did.
    pub silence_ms: Option<u64>,
    /// The last entry it is known to have.
    pub matched: Option<LogId>,
    /// Whether it has lost what it had acknowledged. It gets no more entries then.
    pub is_damaged: bool,
}

/// What became of forwarded commands, as far as the leader can tell. The outcomes themselves are
/// never sent: each node learns them from its own apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// Committed, and applied by the leader.
    Committed,
    /// Certainly not appended: send them again, to the current leader.
    NotLeader,
    /// Appended, but whether they commit is not known: send them again (their numbers make that safe).
    Unknown,
}

/// The answer to [`Request::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who answers.
    pub info: ServerInfo,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<String>,
    /// How many servers it was told to wait for.
    pub bootstrap_expect: usize,
    /// Members of its cluster; empty if it belongs to none.
    pub members: BTreeMap<NodeId, Peer>,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The process that answers.
    pub sender: ProcessIdentity,
    /// The level of the rules that it knows. A greeting is the end of its message: what is appended here is
    /// read with [`or_default`] too.
    #[serde(deserialize_with = "or_default")]
    pub level: u32,
}

/// Reads a member that earlier versions do not send, from the end of a message.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(T::deserialize(deserializer).unwrap_or_default())
}

/// Why a membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ChangeRefusal {
    /// Only the leader can: ask this one, if it is known.
    #[error("not the leader")]
    NotLeader(Option<Peer>),
    /// Another change is under way; try again.
    #[error("another membership change is in progress")]
    Busy,
    /// No such server.
    #[error("no such server")]
    Unknown,
    /// The id was used by another data directory.
    #[error(
        "server id {0} belongs to another data directory. A server that lost its data must not come back under \
         its old id: remove it with `curl -X DELETE http://HOST:PORT/v1/operator/raft/peer?id={0}` on a \
         server that is up, and start it again with an empty data directory and a new --node-id (under `quorate \
         agent`: another node_id, a new UUID, or another node_name if none is set)"
    )]
    IdTaken(NodeId),
    /// openraft refused.
    #[error("{0}")]
    Refused(String),
    /// Leadership or time ran out on the way: the change may be under way. Ask again.
    #[error("the cluster's leader changed, or time ran out, before the change was complete")]
    Interrupted,
    /// Another server has the name.
    #[error(
        "the name {name:?} belongs to server {owner} of this cluster: start this server with another --name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        owner: NodeId,
    },
    /// The cluster is that of another datacenter.
    #[error(
        "this server was started with --datacenter {theirs:?}, and the cluster is that of datacenter {ours:?}: all servers of a cluster have the same"
    )]
    OtherDatacenter {
        /// The cluster's.
        ours: String,
        /// The newcomer's.
        theirs: String,
    },
    /// The newcomer does not answer where it says that it is.
    #[error(
        "the leader checked for server {id} at {address}, the address that it gave (--rpc-addr): {why}"
    )]
    NotThere {
        /// The newcomer.
        id: NodeId,
        /// Where it said that it is.
        address: String,
        /// What happened instead of its answer.
        why: String,
    },
    /// The id was used by a server that was removed. Its commands have used up their numbers.
    #[error(
        "server id {0} was used by a server that has been removed from this cluster, and an id is never used \
         again: start this server with an empty data directory and a new --node-id (under `quorate agent`: another \
         node_id, a new UUID, or another node_name if none is set)"
    )]
    IdUsed(NodeId),
    /// Not safe while the servers that the sentence names are silent. Nothing was changed.
    #[error("{0}")]
    NotNow(String),
    /// The member with the newcomer's id runs.
    #[error("server {id} is running at {address}: start this server with another --node-id")]
    IdInUse {
        /// The id of both.
        id: NodeId,
        /// Where the member answers.
        address: String,
    },
    /// Another member has the newcomer's address. Both would be voters, and one of them never answers.
    #[error(
        "server {owner} of this cluster has this address ({address}): remove it first: DELETE \
         /v1/operator/raft/peer?id={owner}"
    )]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        owner: NodeId,
    },
}

impl ChangeRefusal {
    /// Whether asking again under the same settings can never succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::IdTaken(_)
            | Self::IdUsed(_)
            | Self::IdInUse { .. }
            | Self::NameTaken { .. }
            | Self::OtherDatacenter { .. } => true,
            Self::NotLeader(_)
            | Self::Busy
            | Self::Unknown
            | Self::Refused(_)
            | Self::Interrupted
            | Self::NotThere { .. }
            | Self::NotNow(_)
            // It can join once the other one is removed.
            | Self::AddressTaken { .. } => false,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// It was meant for another server.
    #[error("this is server {0}")]
    WrongServer(NodeId),
    /// It was meant for another data directory of this server.
    #[error("this server's data directory is not the one that the cluster has for it")]
    WrongStore,
    /// It came from another cluster.
    #[error("this server belongs to another cluster")]
    WrongCluster,
    /// The server is stopping or has failed.
    #[error("this server is not running: {0}")]
    NotRunning(String),
    /// It did not say whom it was meant for.
    #[error("the request does not say which server and data directory it is for")]
    NoAddressee,
    /// The sender has just booted, and another process of its identity answers at this address.
    #[error(
        "this server's identity is in use at {0}; one of the two is a copy: stop one of the two"
    )]
    InUse(String),
    /// A later boot of the sender's identity was entered into the log, from this address.
    #[error(
        "this server's identity is in use at {0}; one of the two is a copy: stop one of the two"
    )]
    Superseded(String),
    /// The sender is no member any more.
    #[error(
        "this server was removed from the cluster; to add it again, start it with an empty data directory and a \
         --node-id that was never used"
    )]
    Removed,
    /// The sender's disk has lost what the sender had acknowledged.
    #[error(
        "this server's data directory has lost data: {0}. It must not take part again, because it may have \
         forgotten votes and entries that it acknowledged: remove it from the cluster (DELETE /v1/operator/raft/peer?id=ID at \
         another server), and add it again with an empty data directory under a new --node-id. If a majority of the \
         servers reports this, keep all directories and see `quorate recover`"
    )]
    Lost(String),
    /// It was meant for another boot of this server; this is the one that answers.
    #[error("this server has restarted")]
    OtherBoot(ProcessIdentity),
    /// The server has not asked the others yet whether its identity is free.
    #[error("this server is starting")]
    Starting,
    /// The sender was started with settings that cannot be right, in words.
    #[error("{0}")]
    Misconfigured(String),
    /// No correct server of this cluster sends such a message.
    #[error("the message is implausible: {0}")]
    Implausible(String),
    /// The sender leads, and denies an entry that this server knows to be committed. The text says what the
    /// sender has there.
    #[error("the leader has {0}, where this server has another entry that is committed")]
    Contradicts(Position),
    /// A server reports this about itself: see [`Refusal::Superseded`], from its own address.
    #[error(
        "the cluster has recorded a later boot of this server than its data directory has, at the same address \
         ({0}): the directory was replaced by an older copy. It must not take part again, because it may have \
         forgotten votes and entries that it acknowledged: remove this server from the cluster (DELETE \
         /v1/operator/raft/peer?id=ID at another server), and add it again with an empty data directory under a \
         new --node-id. If a majority of the servers was replaced by older copies, keep all directories and see `quorate recover`"
    )]
    SetBack(String),
    /// A server reports this about itself: the cluster has lost what it knows to be committed.
    #[error("{0}")]
    Alone(String),
    /// A server reports this about itself: its state is not that of a majority.
    #[error("{0}")]
    Diverged(String),
}

impl Refusal {
    /// Whether it says that the addressee's disk lacks what the addressee had acknowledged. That stays true,
    /// whoever answers when it starts again.
    #[must_use]
    pub fn condemns(&self) -> bool {
        match self {
            Self::Lost(_) | Self::SetBack(_) => true,
            Self::WrongServer(_)
            | Self::WrongStore
            | Self::WrongCluster
            | Self::NotRunning(_)
            | Self::NoAddressee
            | Self::InUse(_)
            | Self::Superseded(_)
            | Self::Removed
            | Self::OtherBoot(_)
            | Self::Starting
            | Self::Misconfigured(_)
            | Self::Implausible(_)
            | Self::Contradicts(_)
            | Self::Alone(_)
            | Self::Diverged(_) => false,
        }
    }
}

/// What goes before the bytes of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The sender's cluster.
    pub cluster: Option<String>,
    /// The sender.
    pub from: NodeId,
    /// The addressee.
    pub to: NodeId,
    /// The addressee's store id.
    pub store: String,
    /// The leader's vote.
    pub vote: Vote,
    /// What the snapshot covers.
    pub meta: SnapshotMeta,
    /// The process that sends it.
    pub sender: ProcessIdentity,
    /// The boot of the addressee that is meant, where it is known.
    pub addressee: Option<BootId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(level: u32) -> Envelope {
        let (boot, store_id, rpc_addr) = (BootId([7; 16]), "s".to_owned(), "a:1".to_owned());
        Envelope {
            cluster: Some("c".to_owned()),
            from: 3,
            to: Some(1),
            store: None,
            request: Request::ReadIndex,
            sender: ProcessIdentity { boot, incarnation: Some(2), store_id, rpc_addr },
            addressee: Some(BootId([8; 16])),
            level,
        }
    }

    fn answer(level: u32) -> Response {
        let peer = Peer::default();
        let info =
            ServerInfo { id: 3, peer, disk: DiskState::default(), datacenter: "dc1".to_owned() };
        Response::Hello(Box::new(Greeting {
            info,
            cluster: Some("c".to_owned()),
            bootstrap_expect: 3,
            members: BTreeMap::new(),
            leader: Some(1),
            sender: envelope(0).sender,
            level,
        }))
    }

    /// What is good advice for one server would end a cluster whose majority follows it.
    #[test]
    fn lost_data_on_a_majority_leads_to_recovery() {
        for refusal in [Refusal::Lost("x".to_owned()), Refusal::SetBack("x".to_owned())] {
            let text = refusal.to_string();
            assert!(text.contains("majority") && text.contains("`quorate recover`"), "{text}");
        }
    }

    #[test]
    fn a_wiped_server_is_told_what_to_change_in_a_consul_configuration() {
        for refusal in [ChangeRefusal::IdTaken(3), ChangeRefusal::IdUsed(3)] {
            let text = refusal.to_string();
            assert!(text.contains("--node-id") && text.contains("node_id"), "{text}");
        }
    }

    /// The end of a message that earlier versions neither send nor look at.
    #[test]
    fn a_message_without_a_level_is_one_of_a_version_that_knows_none() {
        let bytes = postcard::to_stdvec(&envelope(5)).unwrap();
        let read: Envelope = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read.level, 5);
        let (last, earlier) = bytes.split_last().unwrap();
        assert_eq!(*last, 5, "the level comes last");
        let read: Envelope = postcard::from_bytes(earlier).unwrap();
        assert_eq!((read.level, read.addressee), (0, Some(BootId([8; 16]))));
        assert!(postcard::from_bytes::<Envelope>(&earlier[..earlier.len() - 1]).is_err());

        let bytes = postcard::to_stdvec(&answer(5)).unwrap();
        let (last, earlier) = bytes.split_last().unwrap();
        assert_eq!(*last, 5, "the level comes last");
        let read: Response = postcard::from_bytes(earlier).unwrap();
        let Response::Hello(read) = read else { panic!("{read:?}") };
        assert_eq!((read.level, read.sender), (0, envelope(0).sender));
    }
}
