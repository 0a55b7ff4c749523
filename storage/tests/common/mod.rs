//! What the state machine's tests share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]

use std::io;

use quorate_storage::State;
use quorate_storage::command::Agent;
use quorate_storage::record::{
    CheckDefinition, CheckRegistration, CheckStatus, NodeKind, ServiceDefinition,
};
use quorate_storage::state::SnapshotRecord;

/// The agent of a host: `h1` has the address 10.0.0.1.
pub fn agent(name: &str) -> Agent {
    let number: String = name.chars().filter(char::is_ascii_digit).collect();
    agent_at(name, &format!("10.0.0.{}", if number.is_empty() { "9" } else { &number }))
}

/// The agent of a host with another address.
pub fn agent_at(name: &str, address: &str) -> Agent {
    Agent { name: name.into(), id: format!("id-of-{name}"), address: address.to_owned() }
}

/// An instance with nothing but id, name, address and port.
pub fn service(id: &str, name: &str, address: &str, port: i64) -> ServiceDefinition {
    ServiceDefinition {
        id: id.into(),
        name: name.into(),
        address: address.to_owned(),
        port,
        ..ServiceDefinition::default()
    }
}

/// A check that nothing runs.
pub fn check(id: &str, status: CheckStatus) -> CheckRegistration {
    CheckRegistration {
        id: id.into(),
        name: id.to_owned(),
        status,
        notes: String::new(),
        output: String::new(),
        service_id: "".into(),
        kind: String::new(),
        definition: CheckDefinition::default(),
    }
}

/// The state's records, encoded as a snapshot file has them.
pub fn export(state: &State) -> Vec<Vec<u8>> {
    export_some(state, |_| true)
}

/// Those of the state's records that are wanted.
pub fn export_some(state: &State, wanted: impl Fn(&SnapshotRecord<'_>) -> bool) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    state
        .export(&mut |record| {
            if !wanted(&record) {
                return Ok(());
            }
            records.push(postcard::to_stdvec(&record).map_err(io::Error::other)?);
            Ok(())
        })
        .unwrap();
    records
}

/// A state rebuilt from its records.
pub fn import(records: &[Vec<u8>]) -> State {
    State::import(records.iter().map(|bytes| {
        postcard::from_bytes::<SnapshotRecord<'static>>(bytes).map_err(io::Error::other)
    }))
    .unwrap()
}

/// The word for what made a node.
pub fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Registered => "registered",
        NodeKind::Agent => "agent",
        NodeKind::ServerAgent => "server-agent",
        NodeKind::Server => "server",
    }
}
