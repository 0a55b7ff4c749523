//! What the leader does for checks: it keeps aliases in step with what they follow, and says of a check that no worker
//! of its network is alive.
//!
//! Aliases are computed from the state whenever checks, services or nodes change, so an alias follows within
//! milliseconds and costs nothing in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use quorate_storage::Topic;
use quorate_storage::command::{Command, WorkersCommand};
use quorate_storage::machine::StateReader;
use quorate_storage::record::CheckStatus;
use quorate_storage::state::{Probes, State, WORKERS_LEVEL};

use super::alias::{self, is_alias};
use super::server_desk::tell;
use super::{ALIAS_PAUSE, ALIAS_WRITES_AT_ONCE_MAX, Finding, LOOK_EVERY};
use crate::host::clock::Clock;
use crate::raft::propose::Proposer;
use crate::watch::Watches;

/// Looks after checks while this node leads.
#[derive(Debug)]
pub struct LeaderDesk {
    /// Time.
    pub clock: Clock,
    /// Where results are proposed.
    pub proposer: Arc<Proposer>,
    /// The applied state.
    pub state: StateReader,
    /// Tells when it changes.
    pub watches: Arc<Watches>,
}

impl LeaderDesk {
    /// Runs until it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.follow_aliases(), self.watch_networks());
    }

    async fn follow_aliases(&self) {
        let topics = [Topic::Checks, Topic::Services, Topic::Nodes];
        let [mut checks, mut services, mut nodes] =
            topics.map(|topic| self.watches.subscribe(&topic));
        let mut known = Probes::default();
        let mut aliases = BTreeMap::new();
        loop {
            let published = self.state.load();
            known = note_aliases(&mut aliases, &published.state, &known);
            let outdated = outdated_aliases(&aliases, &published.state);
            drop(published);
            futures_util::stream::iter(outdated)
                .for_each_concurrent(
                    ALIAS_WRITES_AT_ONCE_MAX,
                    |(check, probe, finding)| async move {
                        tell(&self.proposer, check, probe, finding).await;
                    },
                )
                .await;
            tokio::select! {
                () = checks.changed() => {}
                () = services.changed() => {}
                () = nodes.changed() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            self.clock.sleep(ALIAS_PAUSE).await;
        }
    }

    /// Tells of checks whose network nobody works in.
    async fn watch_networks(&self) {
        loop {
            self.clock.sleep(LOOK_EVERY).await;
            let published = self.state.load();
            let commands = deserted(&published.state);
            drop(published);
            for command in commands {
                if let Err(error) = self.proposer.propose(Command::Workers(command)).await {
                    tracing::debug!(%error, "a check whose network has no worker is told of later");
                }
            }
        }
    }
}

/// Checks that are to warn because no worker of their network is alive, and do not.
fn deserted(state: &State) -> Vec<WorkersCommand> {
    if state.level() < WORKERS_LEVEL || !state.has_empty_networks() {
        return Vec::new();
    }
    let all = state.probes().iter().filter(|(check, _)| state.is_deserted(*check));
    let untold = all.filter(|(check, _)| {
        state.check_numbered(*check).is_some_and(|row| {
            let what = &row.registration;
            let output = State::deserted_output(&what.definition.later.network);
            what.status != CheckStatus::Warning || what.output != output
        })
    });
    untold.map(|(number, probe)| WorkersCommand::Deserted { number, probe }).collect()
}

/// Takes over what changed in the set of aliases since `known`; returns the present version.
fn note_aliases(aliases: &mut BTreeMap<u64, u64>, state: &State, known: &Probes) -> Probes {
    let probes = state.probes();
    for change in probes.changes_since(known) {
        let row = state.check_numbered(change.check).filter(|row| is_alias(row));
        match (change.probe, row) {
            (Some(probe), Some(_)) => drop(aliases.insert(change.check, probe)),
            _ => drop(aliases.remove(&change.check)),
        }
    }
    probes.clone()
}

/// Aliases that do not show what they follow: number, probe, and what they should show.
fn outdated_aliases(aliases: &BTreeMap<u64, u64>, state: &State) -> Vec<(u64, u64, Finding)> {
    let found = aliases.iter().filter_map(|(check, probe)| {
        let row = state.check_numbered(*check)?;
        let finding = alias::look(row, state);
        let shown = &row.registration;
        let is_shown = shown.status == finding.status && shown.output == finding.output;
        (!is_shown).then_some((*check, *probe, finding))
    });
    found.collect()
}
