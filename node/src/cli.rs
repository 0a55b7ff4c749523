//! What a person, or a script, does with a cluster from a shell.
//!
//! Every command asks the cluster through its public API, with [`quorate_client`], as any program would. Answers go
//! to standard output, as a table for people or as the API's own JSON; everything else that is said goes to standard
//! error. The exit code says how it ended ([`failure`]).
//!
//! To add a command: a variant of [`ClientVerb`], a file with its arguments and a function that takes a
//! [`Session`](session::Session), and a line in the table of `jepsen-style-tests/tests/operation/commands.rs`.

mod acl;
mod child;
mod claim;
mod doctor;
mod ending;
mod event;
mod failure;
mod file;
mod health;
mod history;
mod instance;
mod key;
mod kv;
mod lock;
mod node;
mod operator;
mod output;
mod patience;
mod presence;
mod register;
mod service;
mod session;
mod session_verb;
mod snapshot;
mod status;
mod tally;
mod template;
mod tls_flags;
mod top;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::failure::Failure;
use self::session::{Access, Session};
pub(crate) use self::tls_flags::TlsFlags;

/// Arguments of a command, and how to reach the cluster.
#[derive(Debug, Args)]
pub(crate) struct Asking<A: Args> {
    #[command(flatten)]
    what: A,
    #[command(flatten)]
    access: Access,
}

/// A command that needs nothing else.
#[derive(Debug, Args)]
pub(crate) struct Nothing {}

/// The commands that ask a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientVerb {
    /// Shows the cluster in a few lines: leader, servers, what it holds
    Status(Asking<Nothing>),
    /// Says what is wrong with the cluster or with the way to it, and what mends it
    Doctor(Asking<Nothing>),
    /// Lists the servers and client agents
    Members(Asking<Nothing>),
    /// Lists the nodes of the catalogue
    Nodes(Asking<node::NodesArgs>),
    /// Lists the names of services, with their instances by status
    Services(Asking<service::ServicesArgs>),
    /// Shows the instances of a service as those who look it up see them
    Service(Asking<service::ServiceArgs>),
    /// Lists instances with status, age of the last heartbeat, process and version
    Instances(Asking<instance::InstancesArgs>),
    /// Registers an instance of a service
    Register(Asking<register::RegisterArgs>),
    /// Deregisters an instance
    Deregister(Asking<register::DeregisterArgs>),
    /// Sends a heartbeat, which registers the instance if it is not known
    Heartbeat(Asking<register::HeartbeatArgs>),
    /// Registers an instance for as long as a command runs
    Presence(Asking<presence::PresenceArgs>),
    /// Takes an instance or this host's agent out of service, and back
    Maint(Asking<register::MaintArgs>),
    /// Lists checks by their status
    Health(Asking<health::HealthArgs>),
    /// Reads and writes keys
    Kv(Asking<kv::KvArgs>),
    /// Prints every change of something, or runs a command on it
    Watch(Asking<watch::WatchArgs>),
    /// Runs a command while holding a lock
    Lock(Asking<lock::LockArgs>),
    /// Runs a command while it has an instance of a service for itself
    Claim(Asking<claim::ClaimArgs>),
    /// Makes, lists, renews and destroys sessions
    Session(Asking<session_verb::SessionArgs>),
    /// Fires and lists events
    Event(Asking<event::EventArgs>),
    /// Shows what happened, and why
    History(Asking<history::HistoryArgs>),
    /// Says why something is as it is, and what happens next
    Explain(Asking<history::ExplainArgs>),
    /// Saves, restores and inspects backups
    Snapshot(Asking<snapshot::SnapshotArgs>),
    /// Looks after tokens, policies and roles
    Acl(Asking<acl::AclArgs>),
    /// Looks after the servers of the cluster
    Operator(Asking<operator::OperatorArgs>),
    /// Renders files from services and keys, again with every change
    Template(Asking<template::TemplateArgs>),
    /// Shows services, instances and nodes on the terminal, as they are at the moment
    Top(Asking<top::TopArgs>),
}

/// Carries a command out and says how it ended.
#[must_use]
pub(crate) fn main(verb: ClientVerb) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(verb)),
        Err(error) => Err(Failure::failed(format!("cannot start: {error}"))),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    }
}

/// Prints what another command has made for standard output.
pub(crate) fn print(text: &[u8]) -> ExitCode {
    printed(output::bytes(text))
}

/// How a command ends that has printed this. A reader that has enough is no failure.
pub(crate) fn printed(outcome: io::Result<()>) -> ExitCode {
    match outcome.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::failed(format!("standard output: {error}")).tell()
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Says something to people, on standard error.
pub(crate) fn note(text: &str) {
    output::note(text);
}

async fn carry_out(verb: ClientVerb) -> Result<ExitCode, Failure> {
    /// Opens a session and hands it over with the arguments.
    async fn with<A: Args>(
        asking: Asking<A>,
        run: impl AsyncFnOnce(&Session, A) -> Result<ExitCode, Failure>,
    ) -> Result<ExitCode, Failure> {
        let session = Session::open(asking.access)?;
        let ended = run(&session, asking.what).await;
        session.client.shutdown().await;
        ended
    }
    match verb {
        ClientVerb::Status(asking) => with(asking, status::run).await,
        ClientVerb::Doctor(asking) => with(asking, doctor::run).await,
        ClientVerb::Members(asking) => with(asking, node::members).await,
        ClientVerb::Nodes(asking) => with(asking, node::nodes).await,
        ClientVerb::Services(asking) => with(asking, service::services).await,
        ClientVerb::Service(asking) => with(asking, service::service).await,
        ClientVerb::Instances(asking) => with(asking, instance::run).await,
        ClientVerb::Register(asking) => with(asking, register::register).await,
        ClientVerb::Deregister(asking) => with(asking, register::deregister).await,
        ClientVerb::Heartbeat(asking) => with(asking, register::heartbeat).await,
        ClientVerb::Presence(asking) => with(asking, presence::run).await,
        ClientVerb::Maint(asking) => with(asking, register::maint).await,
        ClientVerb::Health(asking) => with(asking, health::run).await,
        ClientVerb::Kv(asking) => with(asking, kv::run).await,
        ClientVerb::Watch(asking) => with(asking, watch::run).await,
        ClientVerb::Lock(asking) => with(asking, lock::run).await,
        ClientVerb::Claim(asking) => with(asking, claim::run).await,
        ClientVerb::Session(asking) => with(asking, session_verb::run).await,
        ClientVerb::Event(asking) => with(asking, event::run).await,
        ClientVerb::History(asking) => with(asking, history::history).await,
        ClientVerb::Explain(asking) => with(asking, history::explain).await,
        ClientVerb::Snapshot(asking) => with(asking, snapshot::run).await,
        ClientVerb::Acl(asking) => with(asking, acl::run).await,
        ClientVerb::Operator(asking) => with(asking, operator::run).await,
        ClientVerb::Template(asking) => with(asking, template::run).await,
        ClientVerb::Top(asking) => with(asking, top::run).await,
    }
}
