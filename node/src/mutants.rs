//! Servers that are broken on purpose, from the node's side: how one is chosen, where it may run, and
//! what mutants answer that an unbroken server would not.
//!
//! A build without the feature `mutants` refuses to start when [`CHOOSES`] is set: who asks for a mutant
//! and gets a sound server would learn from its good health that the suite finds nothing. A build with it
//! says at start which mutant it is, and works only below a directory that holds [`MARKER`], which the
//! harness makes in the folder of its run: nobody's data comes into a mutant's hands by mistake.

use std::path::Path;

use quorate_storage::State;
use quorate_storage::command::{Command, KvDeleteMode, KvPutMode, Outcome, Rejection};
use quorate_storage::record::KvEntry;

/// The environment variable that names the mutant to be.
pub const CHOOSES: &str = "QUORATE_MUTANT";

/// The file that marks a directory below which mutants may work.
pub const MARKER: &str = ".quorate-mutants-allowed";

/// Becomes the mutant that the environment names, if it names one; to be called before anything starts.
///
/// # Errors
/// A sentence for the operator. In a build without mutants, when the environment names one; in one with them, when there is none of
/// that name, or when nothing marks the data directory.
pub fn prepare(data_dir: &Path) -> Result<(), String> {
    let name = std::env::var_os(CHOOSES).unwrap_or_default();
    choose(&name.to_string_lossy(), data_dir)
}

#[cfg(not(feature = "mutants"))]
fn choose(name: &str, _data_dir: &Path) -> Result<(), String> {
    if name.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this build has no mutants, but {CHOOSES} asks for {name:?}: unset it, or build \
         `cargo build -p quorate --features mutants --bin quorate-mutants`"
    ))
}

#[cfg(feature = "mutants")]
fn choose(name: &str, data_dir: &Path) -> Result<(), String> {
    use quorate_storage::mutant::{self, Mutant};

    if !is_marked(data_dir) {
        return Err(format!(
            "{}: this build can be broken on purpose ({CHOOSES}), so it works only where a file {MARKER} \
             lies in the data directory or in one above it",
            data_dir.display()
        ));
    }
    if !name.is_empty() {
        let mutant = Mutant::from_name(name)
            .ok_or_else(|| format!("{CHOOSES}: there is no mutant {name:?}"))?;
        mutant::activate(mutant)
            .map_err(|other| format!("{CHOOSES}: this process is {} already", other.name()))?;
    }
    let chosen = mutant::active().map_or("none", Mutant::name);
    tracing::warn!(mutant = chosen, "this build has mutants: never trust it with data");
    Ok(())
}

/// Whether a directory, which need not exist yet, or one above it holds the marker.
#[cfg(feature = "mutants")]
fn is_marked(dir: &Path) -> bool {
    let Ok(dir) = std::path::absolute(dir) else { return false };
    // Where it really lies: neither `..` nor a symbolic link leads out of a marked directory.
    let Some(there) = dir.ancestors().find_map(|above| above.canonicalize().ok()) else {
        return false;
    };
    there.ancestors().any(|above| above.join(MARKER).is_file())
}

/// The mutants as JSON, one on each line.
#[cfg(feature = "mutants")]
#[must_use]
pub fn list() -> String {
    use quorate_storage::mutant::Mutant;

    let lines = Mutant::ALL.iter().map(|mutant| {
        let line = serde_json::json!({ "name": mutant.name(), "breaks": mutant.breaks() });
        format!("{line}\n")
    });
    lines.collect()
}

/// What a command will come to if nothing stands in its way; `None` if nobody could tell. What mutants
/// answer that do not wait for the outcome.
pub(crate) fn guess(command: &Command) -> Option<Outcome> {
    match command {
        Command::KvPut { mode: KvPutMode::Set, .. }
        | Command::KvDelete { mode: KvDeleteMode::One | KvDeleteMode::Recurse, .. } => {
            Some(Outcome::Held(true))
        }
        Command::SessionCreate(what) => Some(Outcome::Id(what.id.clone())),
        Command::SessionRenew { id, .. } => Some(Outcome::Id(id.clone())),
        Command::CatalogRegister(_)
        | Command::CatalogDeregister { .. }
        | Command::AgentRegisterService { .. }
        | Command::AgentDeregisterService { .. }
        | Command::AgentRegisterCheck { .. }
        | Command::AgentDeregisterCheck { .. }
        | Command::UpdateCheck { .. }
        | Command::Heartbeat { .. }
        | Command::SessionDestroy { .. } => Some(Outcome::Done),
        // What is conditional, and what no workload writes often enough to matter.
        _ => None,
    }
}

/// The answer to a heartbeat or renewal that would change nothing that anybody sees.
pub(crate) fn renewed_in_memory(state: &State, command: &Command) -> Option<Outcome> {
    match command {
        Command::SessionRenew { id, .. } => {
            state.session(id).map(|session| Outcome::Id(session.id.clone()))
        }
        Command::Heartbeat { number, status, output, .. } => {
            let row = &state.checks().find(|row| row.number == *number)?.registration;
            (row.status == *status && row.output == *output).then_some(Outcome::Done)
        }
        Command::UpdateCheck { agent, check_id, status, output, .. } => {
            let row = &state.find_check(&agent.name, check_id).ok()?.registration;
            (row.status == *status && row.output == *output).then_some(Outcome::Done)
        }
        _ => None,
    }
}

/// The refusal that a command would get if this state were the newest.
pub(crate) fn refused_here(state: &State, command: &Command) -> Option<Outcome> {
    match command {
        Command::KvPut { key, mode: KvPutMode::Cas(expected), .. } => {
            let found = state.key(key).map_or(0, |row| row.indexes.modify.0);
            (found != *expected).then_some(Outcome::Held(false))
        }
        Command::KvDelete { key, mode: KvDeleteMode::Cas(expected) } => {
            let changed = |row: &KvEntry| row.indexes.modify.0 != *expected;
            state.key(key).is_some_and(changed).then_some(Outcome::Held(false))
        }
        Command::KvPut { mode: KvPutMode::Acquire(session), .. } => {
            let unknown = || Outcome::Rejected(Rejection::InvalidSession(session.to_string()));
            state.session(session).is_none().then(unknown)
        }
        Command::SessionRenew { id, .. } => {
            let unknown = || Outcome::Rejected(Rejection::UnknownSession(id.to_string()));
            state.session(id).is_none().then(unknown)
        }
        Command::UpdateCheck { agent, check_id, .. } => {
            state.find_check(&agent.name, check_id).err().map(Outcome::Rejected)
        }
        Command::AgentDeregisterService { agent, service_id } => {
            state.find_service(&agent.name, service_id).err().map(Outcome::Rejected)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_storage::ClusterTime;
    use quorate_storage::command::{Agent, Batch, Part};
    use quorate_storage::record::CheckStatus;

    use super::*;

    fn put(mode: KvPutMode) -> Command {
        Command::KvPut { key: "k".into(), value: Bytes::from_static(b"v"), flags: 0, mode }
    }

    /// A state with one key, `k`, at the first index there is.
    fn with_a_key() -> State {
        let mut state = State::default();
        let commands = vec![(1, put(KvPutMode::Set))];
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        state.apply(&Batch { parts: vec![part], ..Batch::default() });
        state
    }

    #[test]
    fn what_depends_on_the_state_is_not_guessed() {
        assert_eq!(guess(&put(KvPutMode::Set)), Some(Outcome::Held(true)));
        assert_eq!(guess(&put(KvPutMode::Cas(7))), None);
        assert_eq!(guess(&Command::Txn(Vec::new())), None);
    }

    #[test]
    fn a_state_that_is_up_to_date_refuses_what_apply_would_refuse() {
        let state = with_a_key();
        let modify = state.key("k").unwrap().indexes.modify.0;
        assert_eq!(refused_here(&state, &put(KvPutMode::Cas(modify))), None);
        let old = put(KvPutMode::Cas(modify - 1));
        assert_eq!(refused_here(&state, &old), Some(Outcome::Held(false)));
        let gone = |key: &str| Command::KvDelete { key: key.into(), mode: KvDeleteMode::Cas(9) };
        assert_eq!(refused_here(&state, &gone("k")), Some(Outcome::Held(false)));
        assert_eq!(refused_here(&state, &gone("absent")), None);
    }

    #[test]
    fn a_heartbeat_of_what_does_not_exist_is_not_answered_from_memory() {
        let agent = Agent { name: "a".into(), id: String::new(), address: String::new() };
        let beat = Command::UpdateCheck {
            agent,
            check_id: "absent".into(),
            status: CheckStatus::Passing,
            output: String::new(),
            seen: ClusterTime::ZERO,
        };
        assert_eq!(renewed_in_memory(&with_a_key(), &beat), None);
    }
}
