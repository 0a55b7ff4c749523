//! Services and checks that configuration files define: registered for the agent of the server's own
//! host when it starts, and again whenever the files are read again.
//!
//! What vanishes from the files is deregistered. Which ids came from files is remembered in the data
//! directory, so that this also holds for what vanished while the server was down, and so that nothing
//! that a client registered is ever taken for a definition.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::State;
use quorate_storage::command::{Agent, Command, Rejection};
use quorate_storage::record::CheckRegistration;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::definitions::{Parsed, parse};
use super::files::Sources;
use crate::clock::Clock;
use crate::node::{Consistency, Node, ProposeError};
use crate::process::ReloadRequest;

/// The file of remembered ids, in the data directory.
const FILE: &str = "definitions.json";
/// Pause before what could not be registered at the start is tried again. It doubles each time,
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// up to this: what is refused as it stands will be refused again, and each attempt is a write.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Keeps what files define registered.
#[derive(Debug)]
pub struct Definitions {
    /// The node that registers.
    pub node: Arc<Node>,
    /// The files.
    pub sources: Sources,
    /// Where ids are remembered.
    pub data_dir: PathBuf,
}

/// Ids that came from files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    /// Services, each with its checks.
    services: BTreeMap<String, BTreeSet<String>>,
    /// Checks of the host, and of services that no file defines.
    checks: BTreeSet<String>,
}

impl Definitions {
    /// Registers everything, and again at each request. Ends when nobody can ask any more.
    pub async fn keep(self, mut requests: mpsc::Receiver<ReloadRequest>) {
        let clock = Clock::monotonic();
        let mut pause = RETRY_PAUSE;
        let mut loaded = self.load().await;
        while let Err(error) = loaded {
            tracing::warn!(%error, ?pause, "the definitions of the configuration are not registered yet");
            loaded = tokio::select! {
                () = clock.sleep(pause) => {
                    pause = longer(pause);
                    self.load().await
                }
                request = requests.recv() => {
                    let Some(done) = request else { return };
                    // Somebody has mended the files.
                    pause = RETRY_PAUSE;
                    let again = self.load().await;
                    // Nobody need wait for the answer.
                    let _ = done.send(again.clone());
                    again
                }
            };
        }
        while let Some(done) = requests.recv().await {
            let loaded = self.load().await;
            match &loaded {
                Ok(()) => tracing::info!("the definitions of the configuration were read again"),
                Err(error) => tracing::warn!(%error, "the configuration was not read again"),
            }
            let _ = done.send(loaded);
        }
    }

    /// Makes what is registered what the files define. They are judged as a whole first: one fault
    /// leaves everything as it was. One that the cluster refuses does not keep the others from it.
    async fn load(&self) -> Result<(), String> {
        let parsed = parse(&self.sources.defined().map_err(|error| error.to_string())?)?;
        let path = self.data_dir.join(FILE);
        let before = remembered(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let now = Registered::of(&parsed);
        // Before anything is registered, so that nothing is forgotten when this is interrupted.
        remember(&path, &before.with(&now)).map_err(|error| error.to_string())?;
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let agent = self.node.agent_of(local, None).ok_or("the cluster is not known yet")?;
        let propose = |command| self.propose(command);
        let mut gone = before.gone(&now, &agent);
        let newest = self.node.read(Consistency::Linearizable).await;
        let newest = newest.map_err(|error| error.to_string())?;
        gone.retain(|command| is_own(command, &newest.state));
        drop(newest);
        let mut refused = each(gone, propose).await?;
        if refused.is_empty() {
            remember(&path, &now).map_err(|error| error.to_string())?;
        }
        refused.extend(each(parsed.commands(&agent), propose).await?);
        if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
    }

    async fn propose(&self, command: Command) -> Result<Result<(), Rejection>, ProposeError> {
        Ok(match self.node.propose(command).await?.into_result() {
            // Somebody else has deregistered it already.
            Ok(_) | Err(Rejection::UnknownService(_) | Rejection::UnknownCheck(_)) => Ok(()),
            Err(rejection) => Err(rejection),
        })
    }
}

/// Whether what a deregistration names is on its agent's own node. If it is not, the id may mean the
/// only other agent that has it: from a client that is taken as meant, from a file it is a stranger's.
fn is_own(command: &Command, state: &State) -> bool {
    match command {
        Command::AgentDeregisterService { agent, service_id } => {
            let own = state.service(&agent.name, service_id);
            let meant = state.find_service(&agent.name, service_id);
            own.zip(meant.ok()).is_some_and(|(own, meant)| Arc::ptr_eq(own, meant))
        }
        Command::AgentDeregisterCheck { agent, check_id } => {
            let own = state.check(&agent.name, check_id);
            let meant = state.find_check(&agent.name, check_id);
            own.zip(meant.ok()).is_some_and(|(own, meant)| Arc::ptr_eq(own, meant))
        }
        _ => true,
    }
}

/// The pause after one of this length.
fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(RETRY_PAUSE_MAX)
}

/// Proposes commands one after the other; returns what was refused, each with its reason.
///
/// # Errors
/// The cluster cannot be reached: then it cannot for the others either.
async fn each<F>(
    commands: Vec<Command>,
    propose: impl Fn(Command) -> F,
) -> Result<Vec<String>, String>
where
    F: Future<Output = Result<Result<(), Rejection>, ProposeError>>,
{
    let mut refused = Vec::new();
    for command in commands {
        let about = about(&command);
        if let Err(rejection) = propose(command).await.map_err(|error| error.to_string())? {
            refused.push(format!("{about}: {rejection}"));
        }
    }
    Ok(refused)
}

/// What a command is about, for people.
fn about(command: &Command) -> String {
    match command {
        Command::AgentRegisterService { service, .. } => format!("service {:?}", service.id),
        Command::AgentDeregisterService { service_id, .. } => format!("service {service_id:?}"),
        Command::AgentRegisterCheck { check, .. } => format!("check {:?}", check.id),
        Command::AgentDeregisterCheck { check_id, .. } => format!("check {check_id:?}"),
        _ => "a definition".to_owned(),
    }
}

impl Registered {
    fn of(parsed: &Parsed) -> Self {
        let ids = |checks: &[CheckRegistration]| {
            checks.iter().map(|check| check.id.to_string()).collect::<BTreeSet<_>>()
        };
        let services = parsed.services.iter();
        Self {
            services: services
                .map(|(service, checks)| (service.id.to_string(), ids(checks)))
                .collect(),
            checks: ids(&parsed.checks),
        }
    }

    /// Both together.
    fn with(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (service, checks) in &other.services {
            all.services.entry(service.clone()).or_default().extend(checks.iter().cloned());
        }
        all.checks.extend(other.checks.iter().cloned());
        all
    }

    /// What takes away everything that is not there any more.
    fn gone(&self, now: &Self, agent: &Agent) -> Vec<Command> {
        let check = |id: &String| Command::AgentDeregisterCheck {
            agent: agent.clone(),
            check_id: id.as_str().into(),
        };
        let mut commands: Vec<_> = self.checks.difference(&now.checks).map(check).collect();
        for (service, checks) in &self.services {
            match now.services.get(service) {
                Some(kept) => commands.extend(checks.difference(kept).map(check)),
                None => commands.push(Command::AgentDeregisterService {
                    agent: agent.clone(),
                    service_id: service.as_str().into(),
                }),
            }
        }
        commands
    }
}

fn remembered(path: &Path) -> io::Result<Registered> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Registered::default()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole, so that a crash leaves the old one or the new one.
fn remember(path: &Path, registered: &Registered) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(registered)?)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use quorate_storage::command::{Batch, Part};
    use serde_json::{Value, json};

    use super::super::files::Defined;
    use super::*;

    fn ids(services: &Value, checks: &Value) -> Registered {
        let defined = Defined {
            services: services.as_array().unwrap().clone(),
            checks: checks.as_array().unwrap().clone(),
        };
        Registered::of(&parse(&defined).unwrap())
    }

    fn agent() -> Agent {
        Agent { name: "h".into(), id: String::new(), address: String::new() }
    }

    #[test]
    fn what_vanished_from_the_files_is_deregistered_and_nothing_else() {
        let two = json!([{"ttl": "1s"}, {"ttl": "1s"}]);
        let before = ids(
            &json!([{"name": "a", "checks": two}, {"name": "b"}]),
            &json!([{"name": "x", "ttl": "1s"}, {"name": "y", "ttl": "1s"}]),
        );
        let now = ids(
            &json!([{"name": "a", "check": {"CheckID": "service:a:1", "ttl": "1s"}}]),
            &json!([{"name": "y", "ttl": "1s"}]),
        );
        let gone = before.gone(&now, &agent());
        let named: Vec<&str> = gone
            .iter()
            .map(|command| match command {
                Command::AgentDeregisterCheck { check_id, .. } => &**check_id,
                Command::AgentDeregisterService { service_id, .. } => &**service_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(named, ["x", "service:a:2", "b"]);
        assert!(now.gone(&now, &agent()).is_empty());
    }

    #[test]
    fn what_another_agent_has_under_the_same_id_is_left_alone() {
        let parsed = |name: &str| {
            let services = vec![json!({"name": name, "check": {"ttl": "1s"}})];
            let checks = vec![json!({"name": format!("check of {name}"), "ttl": "1s"})];
            parse(&Defined { services, checks }).unwrap()
        };
        let other = Agent { name: "other".into(), ..agent() };
        let mut commands = parsed("own").commands(&agent());
        commands.extend(parsed("strange").commands(&other));
        let mut state = State::default();
        let commands = (1..).zip(commands).collect();
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        state.apply(&Batch { parts: vec![part], ..Batch::default() });
        let gone = |name| {
            let mut gone = Registered::of(&parsed(name)).gone(&Registered::default(), &agent());
            assert_eq!(gone.len(), 2);
            gone.retain(|command| is_own(command, &state));
            gone.len()
        };
        assert_eq!((gone("own"), gone("strange"), gone("nobody")), (2, 0, 0));
    }

    #[test]
    fn ids_are_remembered_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(remembered(&path).unwrap(), Registered::default());
        let now = ids(&json!([{"name": "a", "check": {"ttl": "1s"}}]), &json!([]));
        remember(&path, &now).unwrap();
        assert_eq!(remembered(&path).unwrap(), now);
        std::fs::write(&path, "{").unwrap();
        assert!(remembered(&path).is_err());
    }

    #[tokio::test]
    async fn a_definition_that_is_refused_does_not_keep_the_others_from_the_cluster() {
        let defined = Defined {
            services: vec![json!({"name": "a"}), json!({"name": "b"}), json!({"name": "c"})],
            checks: vec![json!({"name": "d", "ttl": "1s", "service_id": "nope"})],
        };
        let commands = || parse(&defined).unwrap().commands(&agent());
        let seen = std::cell::RefCell::new(Vec::new());
        let refused = each(commands(), |command| {
            seen.borrow_mut().push(about(&command));
            let is_bad = ["service \"b\"", "check \"d\""].contains(&&*about(&command));
            let rejection = Rejection::ServiceDoesNotExist("s".to_owned());
            std::future::ready(Ok(if is_bad { Err(rejection) } else { Ok(()) }))
        });
        let refused = refused.await.unwrap();
        assert_eq!(seen.take().len(), 4);
        assert_eq!(refused.len(), 2);
        assert!(refused[0].starts_with("service \"b\": "), "{refused:?}");
        assert!(refused[1].starts_with("check \"d\": "), "{refused:?}");
        let unreachable = each(commands(), |command| {
            seen.borrow_mut().push(about(&command));
            std::future::ready(Err(ProposeError::NoLeader))
        });
        assert!(unreachable.await.is_err());
        assert_eq!(seen.take().len(), 1, "the others would wait as long for nothing");
    }

    #[test]
    fn attempts_become_rarer_and_never_cease() {
        let pauses: Vec<_> = std::iter::successors(Some(RETRY_PAUSE), |pause| Some(longer(*pause)))
            .take(9)
            .collect();
        assert_eq!(pauses[1], Duration::from_secs(1));
        assert_eq!(pauses[8], RETRY_PAUSE_MAX);
    }
}
