//! Quorate's server: what turns the replicated state of [`quorate_storage`] into a cluster.
//!
//! # What a node is made of
//!
//! ```text
//!            HTTP clients                              other nodes
//!                 │                                         │
//!                 ▼                                         ▼
//!      http: parse, ask Node, render        raft::service: addressed to me?   
//!     ┌───────────┼───────────┐             ┌───────────────┼───────────────┐
//!     ▼           ▼           ▼             ▼               ▼               ▼
//!  Watches     Barrier     Proposer ────► Intake       read index    votes, entries,
//!     ▲           ▲           ▲             │ ▲             │           snapshots
//!     │           │           │             │ └─ Leader:    │               │
//!     │           │           │             │    time,      │               │
//!     │           │           │             ▼    expiry     ▼               ▼
//!     │           │           │     ┌───────────────── openraft ────────────────┐
//!     │           │           │     │        LogStore             Machine        │
//!     │           │           │     └───────────────────────────────┬───────────┘
//!     │ topics    │ position  │ outcomes                            │ applied
//!     └───────────┴───────────┴─────────────────────────────── ApplyObserver
//! ```
//!
//! Where another node leads, the Proposer's batches and the Barrier's question go there instead.
//!
//! [`node::Node`] owns every task and wires the rest. It receives what differs between a process and a
//! simulation ([`node::NodeParts`]): the log, the snapshots, a [`raft::transport::Transport`], a
//! [`Clock`](host::clock::Clock) and an [`Identity`](raft::identity::Identity). [`process::server`] passes
//! sled, files, HTTP and the machine's clock; `tests/in_process.rs` passes memory and a seed.
//!
//! # How a write passes
//!
//! 1. A handler in [`http`] parses the request into a `Command`. Ids and anything random are made here.
//!    Nothing is refused from this node's own state, which may lag behind: only apply knows.
//! 2. [`raft::propose`] gives it a number, `(node, incarnation, seq)`, puts it into a batch with all other
//!    commands that wait, and sends the batch to the leader.
//! 3. There, [`raft::intake`] makes one log entry of all batches that wait, stamps it with cluster time
//!    and proposes it, bound to the term in which it leads. At most two entries of each lane are on their way; commands
//!    that come meanwhile form the next one. That is the group commit. Heartbeats have entries of their own
//!    ([`raft::lane`]), so that large values do not delay them.
//! 4. The entry is durable on a majority, then committed, then applied *on the node that took the
//!    request*, and **that apply answers the client** ([`node::observe`]). So a client can read its own
//!    write here at once, `?stale` included, and no reply between nodes has to arrive for it.
//! 5. Touched topics go to a set; a separate task wakes the blocking queries ([`watch`]).
//!
//! When the leader dies between 2 and 4, the open commands go to the next one under the same numbers.
//! The state remembers each outcome until the node that numbered the command says that it has answered
//! its client. So a command that is sent twice is applied once, and a node that was brought up to date
//! by a snapshot looks its outcomes up there. When the hold time is over, the error says whether a leader may have had the command.
//!
//! # How a read passes
//!
//! A default read waits for a barrier ([`raft::read`]): one question to the leader, which confirms with a
//! quorum that it leads, and this node's apply to reach the answer. It serves the reads that waited
//! when the question was *sent*. Then, like a `?stale` read at once, it renders from one immutable
//! version of the state; no lock is held. A blocking query subscribes to its topic, then reads, then
//! waits; it takes its barrier once, at the beginning, so it needs no leader to end.
//!
//! # How time passes
//!
//! Only [`host::clock`] reads a clock, and it measures durations, never the time of day. Only [`leader`] turns
//! them into cluster time, which it stamps on the entries of its own term, and only it proposes expiry. In
//! doubt, cluster time stands still: in the first two seconds of a leadership, without a quorum, after a
//! pause, and while heartbeats wait. So something silent may expire a little late, but nothing that is alive
//! expires.
//!
//! # Who speaks for a server
//!
//! A server is its id, its data directory and its current *boot*, which has a random id. Every boot is
//! recorded in the log before its first command ([`raft::boot`]): that is where its incarnation
//! comes from, and what ends earlier boots, a copy of the directory included. Every message names the
//! boots of both ends ([`raft::processes`]). A server's address is that of its newest boot, and the membership
//! and the catalogue follow it. The log also notes how far each server's disk had come, so that one
//! that comes back with less is refused.
//!
//! # Where it differs from the usual
//!
//! * **A forward is answered after the commit, with no outcome in it.** The leader says what became of
//!   the batch as a whole: committed, not the leader, unknown. Its only use is to decide whether and
//!   when to send again; outcomes come from the log.
//! * **Followers do not send clients away.** There is no redirect and no leader-only request.
//! * **openraft's replies are ignored.** The state machine answers openraft with nothing
//!   ([`quorate_storage::raft::Applied`]) and the clients through the observer.
//! * **A restarted leader leads nothing until it is elected again**, and the vote on disk that names it
//!   does not count as a leader that is known ([`raft::leadership`]).
//! * **A learner is a join that is not finished.** It asks to join until it votes; the next leader
//!   completes a change that was left half done ([`raft::membership`]).
//! * **Errors of membership changes that only say that leadership was lost** are tried again: a change
//!   names its target, so asking twice is harmless.
//!
//! # What is absent
//!
//! * State: it is in [`quorate_storage::state`], a pure function without clock, randomness and I/O. No
//!   handler keeps anything between requests.
//! * Decisions by a wall clock (entries carry the leader's, for people), leases, and anything that trusts two clocks
//!   to go at one rate.
//! * Queues without a limit, tasks without an owner, and locks of data across an await (the few async locks order
//!   what must happen one after the other).
//! * A private door: the dashboard and the command line use what any client can use.
//!
//! # Where to find what
//!
//! A room depends only on rooms that are drawn below or beside it, and nothing depends on each other in a circle;
//! `.ci/circles` finds what does.
//!
//! ```text
//!   process    the command line, settings, start and stop
//!      ├──── cli      commands that ask a cluster, with the client library
//!      │
//!     http     Consul's API
//!      │
//!     dns      the catalogue as a domain
//!      │
//!     node     one running node, put together from everything below
//!      │
//!    leader    what a node does because it leads
//!      │
//!    checks, presences, claims     checks that workers run; instances that a connection holds; requests
//!      │
//!  raft, watch, live, discovery, agent     consensus; who waits for which change; what happened; which instances a name
//!      │                                  means; who asks
//!     host     what the machine gives: time, tasks, sockets, disk, log
//! ```
//!
//! | room | what to look for there |
//! | --- | --- |
//! | [`process`] | flags and settings ([`process::cli`], [`process::config`]), starting and stopping a server ([`process::server`]), `quorate agent` with Consul's flags and files ([`process::consul_agent`]), `quorate recover` ([`process::recover`]), `quorate tls` ([`process::issue`]) |
//! | [`cli`] | the commands that ask a cluster, one file each; their output and exit codes |
//! | [`http`] | the API: connections, requests, answers; in `http/api/` one file for each area, in `http/definition/` the rules for what clients register |
//! | [`dns`] | DNS: messages, names, answers, sockets |
//! | [`node`] | a running node: tasks, start, stop, readiness, what the API calls; its metrics; what it logs about lost servers ([`node::outages`]) and changed services ([`node::changes`]); what it does when something was applied ([`node::observe`]) |
//! | [`leader`] | what a node does because it leads: time, expiry, the catalogue's picture of the servers |
//! | [`checks`] | the checks that workers run, one file for each kind; how a worker learns which are its own |
//! | [`claims`] | the requests of this node that wait for an instance, and what the cluster is told of them |
//! | [`presences`] | the streams of this node that hold an instance, and what the cluster is told of their end |
//! | [`raft`] | consensus: transport, forwarding, barrier, membership, cluster time ([`raft::cluster_clock`]), log size ([`raft::compaction`]), what a node remembers of itself ([`raft::identity`]) |
//! | [`live`] | the history as it is shown, filtered, followed and explained |
//! | [`watch`] | topics and who waits for them |
//! | [`discovery`] | which instances a name means: prepared queries, their templates, `near` |
//! | [`agent`] | who is asking: the agent of each client host |
//! | [`host`] | clock, tasks and their panics, listeners and addresses, TLS ([`host::tls`]), descriptors, the disk, the process's own log |
//!
//! A new endpoint is a line in the `endpoints()` of its area in `http/api/`, one in the harness' list of
//! verbs (a test asks for it) and one among its hostile routes. A new kind of check is a file in
//! `checks/`, a new duty of the leader a file in `leader/`. What a new command takes is listed at
//! [`quorate_storage::command`]. A type of DNS record is in `dns/zone.rs` (what a name has of it), `dns/question.rs` (what
//! ANY asks for) and `dns/message.rs` (how many fit). What other protocols serve belongs next to
//! [`http`] and calls [`node`] as it does.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "a test's tasks end with it, and it may look at a clock"
    )
)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "these notes are for who works on the code, and name its private parts too"
)]

pub mod agent;
pub mod checks;
pub mod claims;
mod cli;
pub mod discovery;
pub mod dns;
pub mod host;
pub mod http;
pub mod leader;
pub mod live;
pub mod node;
pub mod presences;
pub mod process;
pub mod raft;
pub mod watch;
