//! What nodes say to each other.
//!
//! One envelope and one enum for everything but snapshots, encoded with postcard. The encoding is by
//! position, so **append variants and members at the end**; a node that gets what it cannot read
//! answers with an error, and the sender tries again.

use std::collections::BTreeMap;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use quorate_storage::command::Part;
use quorate_storage::raft::{LogId, NodeId, Peer, SnapshotMeta, TypeConfig, Vote};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A request with its addressee. A node answers only what is meant for it: the right cluster, the
/// right id, and the very data directory that the sender knows, so that a server that lost its disk
/// cannot vote a second time.
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
    /// Asks who is there: used before a cluster exists, and to find the leader of one.
    Hello(Introduction),
    /// Asks the leader to make the sender a member.
    Join(Introduction),
    /// Asks the leader to remove a server.
    Remove(NodeId),
    /// Asks the leader to hand leadership over, perhaps to this voter.
    HandOver(Option<NodeId>),
    /// Asks the leader how far its followers are.
    Progress,
}

/// How a node introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Its Raft id.
    pub id: NodeId,
    /// Its addresses and store.
    pub peer: Peer,
    /// Name of its datacenter.
    pub datacenter: String,
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
    Hello(Greeting),
    /// To `Join`, `Remove` and `HandOver`.
    Changed(Result<(), ChangeRefusal>),
    /// To a snapshot.
    Snapshot(SnapshotResponse<TypeConfig>),
    /// The request was not looked at.
    Refused(Refusal),
    /// To `Progress`: `None` when the addressee does not lead.
    Progress(Option<BTreeMap<NodeId, Progress>>),
}

/// How far a member is, as the leader knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Time since it last answered, in milliseconds; `None` if it never did.
    pub silence_ms: Option<u64>,
    /// The last entry it is known to have.
    pub matched: Option<LogId>,
    /// Whether it has lost what it had acknowledged: then it gets no entries any more.
    pub is_damaged: bool,
}

/// What became of forwarded commands, as far as the leader can tell. The outcomes themselves are
/// never sent: each node learns them from its own apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// Committed, and applied by the leader.
    Committed,
    /// Certainly not appended: send them again, to whoever leads.
    NotLeader,
    /// Appended, but whether they commit is not known: send them again (their numbers make that safe).
    Unknown,
}

/// The answer to [`Request::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who answers.
    pub introduction: Introduction,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<String>,
    /// How many servers it was told to wait for.
    pub bootstrap_expect: usize,
    /// Members of its cluster; empty if it belongs to none.
    pub members: BTreeMap<NodeId, Peer>,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
}

/// Why a membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ChangeRefusal {
    /// Only the leader can: ask this one, if it is known.
    #[error("not the leader")]
    NotLeader(Option<Peer>),
    /// Another change is under way; try again.
    #[error("another membership change is under way")]
    Busy,
    /// No such server.
    #[error("no such server")]
    Unknown,
    /// The id was used by another data directory.
    #[error(
        "server id {0} belongs to another data directory. A server that lost its data must not come back under \
         its old id: remove it with `curl -X DELETE http://HOST:PORT/v1/operator/raft/peer?id={0}` on a \
         server that is up, and start it again with an empty data directory and a new --node-id"
    )]
    IdTaken(NodeId),
    /// openraft refused.
    #[error("{0}")]
    Refused(String),
    /// Leadership or time ran out on the way: the change may be under way. Ask again.
    #[error("the change was interrupted")]
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
        "the leader asked for server {id} at {address}, the address that it gave (--rpc-addr), and {why}"
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
         again: start this server with an empty data directory and a new --node-id"
    )]
    IdUsed(NodeId),
}

impl ChangeRefusal {
    /// Whether asking again under the same settings can never succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::IdTaken(_)
            | Self::IdUsed(_)
            | Self::NameTaken { .. }
            | Self::OtherDatacenter { .. } => true,
            Self::NotLeader(_)
            | Self::Busy
            | Self::Unknown
            | Self::Refused(_)
            | Self::Interrupted
            | Self::NotThere { .. } => false,
        }
    }
}

/// Why a request was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// It was meant for another server.
    #[error("this is server {0}")]
    WrongServer(NodeId),
    /// It was meant for another data directory of this server.
    #[error("this server's data directory is not the one that the cluster knows")]
    WrongStore,
    /// It came from another cluster.
    #[error("this server belongs to another cluster")]
    WrongCluster,
    /// The server is stopping or has failed.
    #[error("this server is not running: {0}")]
    NotRunning(String),
    /// It did not say whom it was meant for.
    #[error("the request names no server and data directory")]
    NoAddressee,
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
}
