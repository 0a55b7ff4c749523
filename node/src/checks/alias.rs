//! Alias checks: the health of another service or node, as the state has it.
//!
//! An alias follows the checks of the aliased service and of its node; without `AliasService`, those of
//! the node alone. A critical one decides, else a warning, else it passes, also when there are no checks
//! at all. An unknown service or node is critical. Whether a node is alive counts only if the definition
//! names the node. All that is Consul's.
//!
//! Where an alias follows another, it follows what that one follows. What an alias shows therefore
//! depends on checks that are no aliases, and on nothing else: two that follow each other come to rest,
//! where taking over each other's status could go on for ever, a write each time.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_storage::record::{Check, CheckStatus, SERF_HEALTH};
use quorate_storage::state::State;

use super::{Finding, OUTPUT_BYTES_DEFAULT};

/// What an alias check should show.
pub(super) fn look(row: &Arc<Check>, state: &State) -> Finding {
    let mut warning = None;
    let mut found_any = false;
    let mut seen = BTreeSet::from([row.number]);
    let mut to_follow = vec![row];
    while let Some(alias) = to_follow.pop() {
        let followed = match followed(alias, state) {
            Ok(followed) => followed,
            Err(unknown) if alias.number == row.number => return Finding::critical(unknown),
            Err(unknown) => return Finding::critical(failing(alias, &unknown)),
        };
        for check in followed.into_iter().filter(|check| seen.insert(check.number)) {
            found_any = true;
            let is_run = state.probes().get(check.number).is_some();
            if is_run && is_alias(check) {
                to_follow.push(check);
                continue;
            }
            let shown = &check.registration;
            match &shown.status {
                CheckStatus::Critical => return Finding::critical(failing(check, &shown.output)),
                CheckStatus::Warning => warning = Some(failing(check, &shown.output)),
                CheckStatus::Passing | CheckStatus::Other(_) => {}
            }
        }
    }
    match warning {
        Some(output) => Finding { status: CheckStatus::Warning, output },
        None if found_any => Finding::passing("All checks passing.".to_owned()),
        None => Finding::passing("No checks found.".to_owned()),
    }
}

/// The checks that an alias follows, or the sentence that there is nothing to follow.
fn followed<'a>(alias: &Check, state: &'a State) -> Result<Vec<&'a Arc<Check>>, String> {
    let definition = &alias.registration.definition;
    let names_node = !definition.alias_node.is_empty();
    let node: &str = if names_node { &definition.alias_node } else { &alias.node };
    let node = state.node(node).ok_or_else(|| format!("Node {node} could not be found"))?;
    let mut checks: Vec<_> = match definition.alias_service.as_str() {
        "" => state.node_checks(&node.name).collect(),
        id => {
            let service = state.service(&node.name, id);
            let unknown = || format!("Service {id} could not be found on node {}", node.name);
            state.checks_of(service.ok_or_else(unknown)?).collect()
        }
    };
    checks.retain(|check| names_node || &*check.registration.id != SERF_HEALTH);
    Ok(checks)
}

/// Says which check fails.
fn failing(check: &Check, output: &str) -> String {
    let mut text = format!("Aliased check {:?} failing: {output}", check.registration.name);
    text.truncate(text.floor_char_boundary(OUTPUT_BYTES_DEFAULT));
    text
}

/// Whether a check follows others and has no target of its own.
pub(super) fn is_alias(row: &Check) -> bool {
    let definition = &row.registration.definition;
    !definition.has_target() && definition.is_alias()
}

#[cfg(test)]
mod tests {
    use quorate_storage::command::{Agent, Batch, Command, Part};
    use quorate_storage::record::{CheckDefinition, CheckRegistration, ServiceDefinition};

    use super::*;

    /// A state in the making, on one host.
    #[derive(Default)]
    struct Host {
        state: State,
        seq: u64,
    }

    impl Host {
        fn run(&mut self, command: Command) {
            self.seq += 1;
            let commands = vec![(self.seq, command)];
            let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
            self.state.apply(&Batch { parts: vec![part], ..Batch::default() });
        }

        fn agent() -> Agent {
            Agent { name: "h1".into(), id: "id".to_owned(), address: "10.0.0.1".to_owned() }
        }

        fn service(&mut self, id: &str) {
            let service = ServiceDefinition {
                id: id.into(),
                name: id.into(),
                ..ServiceDefinition::default()
            };
            self.run(Command::AgentRegisterService {
                agent: Self::agent(),
                service: Box::new(service),
                checks: Vec::new(),
                replace_existing_checks: false,
            });
        }

        fn check(&mut self, id: &str, service: &str, status: &str, definition: CheckDefinition) {
            let check = CheckRegistration {
                id: id.into(),
                name: id.to_owned(),
                status: CheckStatus::from_text(status),
                notes: String::new(),
                output: format!("{id} is {status}"),
                service_id: service.into(),
                kind: String::new(),
                definition,
            };
            self.run(Command::AgentRegisterCheck { agent: Self::agent(), check: Box::new(check) });
        }

        fn remove(&mut self, check: &str) {
            let check_id = check.into();
            self.run(Command::AgentDeregisterCheck { agent: Self::agent(), check_id });
        }

        fn look(&self, id: &str) -> (&'static str, String) {
            let found = look(self.state.check("h1", id).unwrap(), &self.state);
            let status = ["passing", "warning", "critical"];
            (status.into_iter().find(|word| *word == found.status.as_str()).unwrap(), found.output)
        }
    }

    fn follows(node: &str, service: &str) -> CheckDefinition {
        CheckDefinition {
            alias_node: node.to_owned(),
            alias_service: service.to_owned(),
            ..CheckDefinition::default()
        }
    }

    #[test]
    fn an_alias_shows_the_worst_of_what_it_follows() {
        let mut host = Host::default();
        host.service("shadow");
        host.check("alias", "shadow", "critical", follows("", "web"));
        let unknown = "Service web could not be found on node h1".to_owned();
        assert_eq!(host.look("alias"), ("critical", unknown));
        host.service("web");
        assert_eq!(host.look("alias"), ("passing", "No checks found.".to_owned()));
        let own = CheckDefinition::default;
        host.check("a", "web", "passing", own());
        host.check("other", "shadow", "critical", own());
        assert_eq!(host.look("alias"), ("passing", "All checks passing.".to_owned()));
        host.check("b", "web", "warning", own());
        let warns = "Aliased check \"b\" failing: b is warning".to_owned();
        assert_eq!(host.look("alias"), ("warning", warns));
        host.check("node", "", "critical", own());
        let fails = "Aliased check \"node\" failing: node is critical".to_owned();
        assert_eq!(host.look("alias"), ("critical", fails));
    }

    #[test]
    fn an_alias_of_a_node_follows_the_node_alone() {
        let mut host = Host::default();
        host.service("web");
        host.check("alias", "web", "critical", follows("H1", ""));
        host.check("a", "web", "critical", CheckDefinition::default());
        assert_eq!(host.look("alias"), ("passing", "All checks passing.".to_owned()));
        host.check("lost", "web", "critical", follows("h2", ""));
        let unknown = "Node h2 could not be found".to_owned();
        assert_eq!(host.look("lost"), ("critical", unknown));
    }

    #[test]
    fn aliases_that_follow_each_other_come_to_rest() {
        let mut host = Host::default();
        host.service("one");
        host.service("two");
        host.check("to-two", "one", "critical", follows("", "two"));
        host.check("to-one", "two", "passing", follows("", "one"));
        host.check("to-self", "", "critical", follows("", "one"));
        for alias in ["to-two", "to-one", "to-self"] {
            assert_eq!(host.look(alias), ("passing", "All checks passing.".to_owned()));
        }
        host.check("real", "one", "critical", CheckDefinition::default());
        for alias in ["to-two", "to-one", "to-self"] {
            let fails = "Aliased check \"real\" failing: real is critical".to_owned();
            assert_eq!(host.look(alias), ("critical", fails), "{alias}");
        }
        host.remove("real");
        assert_eq!(host.look("to-one").0, "passing");
    }
}
