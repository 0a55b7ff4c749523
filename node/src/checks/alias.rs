//! Alias checks: the health of another service or node, as the state has it.

use std::sync::Arc;

use quorate_storage::record::{Check, CheckStatus};
use quorate_storage::state::State;

use super::{Finding, OUTPUT_BYTES_DEFAULT};
use crate::agent::SERF_HEALTH;

/// What an alias check should show.
///
/// It follows the checks of the aliased service and of its node; without `AliasService`, those of the
/// node alone. The first critical one decides, else a warning, else it passes, also when there are no
/// checks at all. An unknown service or node is critical. Whether a node is alive counts only if the
/// definition names the node, as in Consul. Nobody follows itself, or an alias on its own node would
/// never pass again.
pub(super) fn look(row: &Check, state: &State) -> Finding {
    let definition = &row.registration.definition;
    let names_node = !definition.alias_node.is_empty();
    let node: &str = if names_node { &definition.alias_node } else { &row.node };
    let service = definition.alias_service.as_str();
    let is_known = match service {
        "" => state.node(node).is_some(),
        id => state.service(node, id).is_some(),
    };
    if !is_known {
        return Finding::critical(match service {
            "" => format!("Node {node} could not be found"),
            id => format!("Service {id} could not be found on node {node}"),
        });
    }
    let followed = state.checks_on(node).filter(|check| {
        let of = &*check.registration.service_id;
        (of.is_empty() || of == service)
            && check.number != row.number
            && (names_node || &*check.registration.id != SERF_HEALTH)
    });
    worst(followed)
}

fn worst<'a>(checks: impl Iterator<Item = &'a Arc<Check>>) -> Finding {
    let mut worst = Finding::passing("No checks found.".to_owned());
    for check in checks {
        let shown = &check.registration;
        match &shown.status {
            CheckStatus::Critical => {
                return Finding::critical(failing(check));
            }
            CheckStatus::Warning => {
                worst = Finding { status: CheckStatus::Warning, output: failing(check) };
            }
            CheckStatus::Passing | CheckStatus::Other(_) => {
                if worst.status == CheckStatus::Passing {
                    "All checks passing.".clone_into(&mut worst.output);
                }
            }
        }
    }
    worst
}

/// Says which check fails. Cut, so that two aliases that follow each other come to rest instead of
/// quoting each other for ever.
fn failing(check: &Check) -> String {
    let shown = &check.registration;
    let mut text = format!("Aliased check {:?} failing: {}", shown.name, shown.output);
    text.truncate(text.floor_char_boundary(OUTPUT_BYTES_DEFAULT));
    text
}
