//! Keeps what an agent's configuration says registered: its node's description, and services and checks,
//! when it starts and again whenever the files are read again.
//!
//! What vanishes from the files is deregistered. What came from files is marked in the catalogue, so that this
//! also holds for what vanished while the agent was down, and so that nothing that a client registered is
//! ever taken for a definition. While a cluster is upgraded there may be no marks; then ids that are remembered
//! in the data directory stand in for them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_storage::regular;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::anti_entropy::{Doomed, Withdrawn, changed, left};
use super::definitions::{Parsed, Step, parse};
use super::files::{Reading, Sources};
use super::registry::Registry;
use crate::host::clock::Clock;
use crate::host::log_stream::LevelHandle;
use crate::http::definition::Description;
use crate::http::process::ReloadRequest;

/// The file of remembered ids, in the data directory.
const FILE: &str = "definitions.json";
/// What it holds are ids; this is room for a hundred thousand.
const REMEMBERED_BYTES_MAX: u64 = 64 << 20;
/// Pause before what could not be registered at the start is tried again. It doubles each time,
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// up to this: what is refused as it stands will be refused again, and each attempt is a write.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The node, and what is on it, is looked at this often, in case somebody else has written or deregistered
/// it (Consul's agents do so every minute in a small cluster). Not less often than
/// [`DEREGISTER_AFTER_MIN`](quorate_storage::record::DEREGISTER_AFTER_MIN).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps what a configuration says registered.
#[derive(Debug)]
pub struct Registrar {
    /// Where.
    pub registry: Registry,
    /// The configuration.
    pub sources: Sources,
    /// Where ids are remembered.
    pub data_dir: PathBuf,
    /// The log's level, which a reload may change.
    pub level: LevelHandle,
    /// What stays away although files define it.
    pub withdrawn: Withdrawn,
    /// The id of the node, unless the configuration names one; `None`: the one that the cluster gives it.
    pub node_id: Option<String>,
}

/// What the files defined when they were last read.
#[derive(Debug, Default)]
struct Kept {
    /// What registers all of it.
    defined: Vec<Step>,
    /// Whether it was registered with marks.
    marked: bool,
}

/// Ids that came from files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    /// Services, each with its checks.
    services: BTreeMap<String, BTreeSet<String>>,
    /// Checks of the host, and of services that no file defines.
    checks: BTreeSet<String>,
    /// Whether a configuration described the node: one that no longer does takes that back.
    #[serde(default)]
    described: bool,
    /// Whether all of it was registered with a mark. Then the marks alone say what came from files.
    #[serde(default)]
    marked: bool,
}

impl Registrar {
    /// Registers everything, again at each request, and again when somebody has deregistered the node of a
    /// client agent. Does not return.
    pub async fn keep(self, requests: mpsc::Receiver<ReloadRequest>) -> Infallible {
        let gone = Notify::new();
        tokio::select! {
            never = self.registry.keep_alive(&gone) => never,
            never = self.keep_registered(requests, &gone) => never,
        }
    }

    async fn keep_registered(
        &self,
        mut requests: mpsc::Receiver<ReloadRequest>,
        gone: &Notify,
    ) -> Infallible {
        let clock = Clock::monotonic();
        let mut pause = RETRY_PAUSE;
        let (mut kept, mut doomed) = (Kept::default(), Doomed::default());
        let mut loaded = self.load(&mut kept).await;
        loop {
            if let Err(error) = &loaded {
                tracing::warn!(%error, ?pause, "cannot register the definitions of the configuration; trying again");
            }
            let wait = if loaded.is_ok() { LOOK_EVERY } else { pause };
            tokio::select! {
                // When nobody is left who could ask, the rest goes on.
                Some(done) = requests.recv() => {
                    let again = self.reload(&mut kept).await;
                    match &again {
                        Ok(()) => tracing::info!("reloaded the definitions of the configuration"),
                        Err(error) => tracing::warn!(%error, "cannot reload the configuration"),
                    }
                    // What was registered before files became wrong still is.
                    if loaded.is_err() {
                        loaded = again.clone();
                    }
                    pause = RETRY_PAUSE;
                    // Nobody need wait for the answer.
                    let _ = done.send(again);
                }
                () = gone.notified() => {
                    tracing::warn!("the cluster no longer knows this agent: registering everything again");
                    loaded = self.load(&mut kept).await;
                    pause = RETRY_PAUSE;
                }
                () = clock.sleep(wait) => {
                    if loaded.is_ok() {
                        self.describe_again().await;
                        self.register_missing(&kept.defined, &mut doomed).await;
                        self.register_changed(&mut kept).await;
                    } else {
                        loaded = self.load(&mut kept).await;
                        pause = longer(pause);
                    }
                }
            }
        }
    }

    /// Makes what is registered what the files define, but for what stays away.
    async fn load(&self, kept: &mut Kept) -> Result<(), String> {
        let (reading, parsed) = self.read()?;
        self.register(reading, parsed, kept).await
    }

    /// The same when somebody asks for it: then nothing stays away.
    async fn reload(&self, kept: &mut Kept) -> Result<(), String> {
        let (reading, parsed) = self.read()?;
        self.withdrawn.clear();
        self.register(reading, parsed, kept).await
    }

    /// Reads the files. They are judged as a whole: one fault leaves everything as it was.
    fn read(&self) -> Result<(Reading, Parsed), String> {
        let reading = self.sources.reload().map_err(|error| error.to_string())?;
        let parsed = parse(&reading.defined)?;
        Ok((reading, parsed))
    }

    /// A definition that the cluster refuses does not keep the others from it.
    async fn register(
        &self,
        reading: Reading,
        parsed: Parsed,
        kept: &mut Kept,
    ) -> Result<(), String> {
        if matches!(self.registry, Registry::Through { .. }) {
            log_loopback(&parsed);
        }
        self.level.set(reading.log_level);
        let path = self.data_dir.join(FILE);
        let before = remembered(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut now = Registered::of(&parsed, &reading.description);
        *kept = Kept { defined: parsed.steps(), marked: false };
        let compared = self.registry.compare(&kept.defined).await?;
        now.marked = compared.is_some();
        let puts = self.wanted(&kept.defined);
        // Before anything is registered, so that nothing is forgotten when this is interrupted.
        remember(&path, &before.with(&now)).map_err(|error| error.to_string())?;
        let described = self.identified(described(reading.description, before.described));
        let carry_out = |step| self.registry.carry_out(step);
        let mut steps = Vec::new();
        if !described.is_empty() || self.registry.needs(&described) {
            steps.push(Step::Describe(described));
        }
        if !before.marked || compared.is_none() {
            steps.extend(self.registry.only_own(before.gone(&now)).await?);
        }
        steps.extend(compared.iter().flat_map(left));
        let mut refused = each(steps, carry_out).await?;
        if refused.is_empty() {
            remember(&path, &now).map_err(|error| error.to_string())?;
        }
        refused.extend(each(puts, carry_out).await?);
        kept.marked = now.marked;
        if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
    }

    /// The same with the node's id.
    fn identified(&self, said: Description) -> Description {
        Description { id: said.id.or_else(|| self.node_id.clone()), ..said }
    }

    /// What registers all that the files define, but for what stays away.
    fn wanted(&self, defined: &[Step]) -> Vec<Step> {
        defined.iter().filter(|step| !self.withdrawn.has(step)).cloned().collect()
    }

    /// Describes the node again if its row is not what the configuration says.
    async fn describe_again(&self) {
        // The files may have changed since: they count when they are read again as a whole.
        let Ok(reading) = self.sources.reload() else { return };
        if !self.registry.needs(&reading.description) {
            return;
        }
        let described = self.identified(reading.description);
        match self.registry.carry_out(Step::Describe(described)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "cannot set the address and metadata of the node")
            }
        }
    }

    /// Registers again what the files define and somebody has deregistered.
    async fn register_missing(&self, defined: &[Step], doomed: &mut Doomed) {
        let look = match self.registry.look().await {
            Ok(Some(look)) => look,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "cannot see what is registered of the definitions");
                return;
            }
        };
        self.put_back("deregistered", doomed.missing(defined, &look, &self.withdrawn)).await;
    }

    /// Registers again what the files define and somebody has changed; all of it once marks are in force, if
    /// they were not before.
    async fn register_changed(&self, kept: &mut Kept) {
        let compared = match self.registry.compare(&kept.defined).await {
            Ok(Some(compared)) => compared,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "cannot compare the definitions with the catalogue");
                return;
            }
        };
        if kept.marked {
            let changed = changed(&kept.defined, &compared, &self.withdrawn);
            self.put_back("changed", changed).await;
            return;
        }
        let carry_out = |step| self.registry.carry_out(step);
        kept.marked = match each(self.wanted(&kept.defined), carry_out).await {
            Ok(refused) if refused.is_empty() => true,
            Ok(refused) => {
                tracing::warn!(refused = refused.join("; "), "cannot mark what is from files");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "cannot mark what is from files");
                false
            }
        };
    }

    /// Registers again what somebody has `done` something to.
    async fn put_back(&self, done: &str, steps: Vec<Step>) {
        for step in steps {
            let what = step.about();
            match self.registry.carry_out(step).await {
                Ok(Ok(())) => tracing::info!(%what, "somebody had {done} it: registered it again"),
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(%what, %error, "somebody has {done} it, and it cannot be registered again");
                }
            }
        }
    }
}

/// Warns of checks that would look at the wrong host.
fn log_loopback(parsed: &Parsed) {
    for (check, target) in parsed.loopback_targets() {
        tracing::warn!(
            %check,
            target,
            "the cluster's workers run this check, and dial it at this host's address: its target has to listen there too"
        );
    }
}

/// What to say of the node: where an earlier configuration said something and this one does not, that
/// there is nothing.
fn described(said: Description, before: bool) -> Description {
    let empty = before.then(Default::default);
    Description {
        id: said.id,
        tagged_addresses: said.tagged_addresses.or_else(|| empty.clone()),
        meta: said.meta.or(empty),
    }
}

/// The pause after one of this length.
fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(RETRY_PAUSE_MAX)
}

/// Carries steps out one after the other; returns what was refused, each with its reason.
///
/// # Errors
/// The cluster cannot be reached: then it cannot for the others either.
async fn each<F>(steps: Vec<Step>, carry_out: impl Fn(Step) -> F) -> Result<Vec<String>, String>
where
    F: Future<Output = Result<Result<(), String>, String>>,
{
    let mut refused = Vec::new();
    for step in steps {
        let about = step.about();
        if let Err(why) = carry_out(step).await? {
            refused.push(format!("{about}: {why}"));
        }
    }
    Ok(refused)
}

impl Registered {
    fn of(parsed: &Parsed, description: &Description) -> Self {
        let services = parsed.services.iter().map(|parsed| {
            let checks = parsed.checks.iter().map(|check| check.id.to_string()).collect();
            (parsed.service.id.to_string(), checks)
        });
        Self {
            services: services.collect(),
            checks: parsed.checks.iter().map(|parsed| parsed.check.id.to_string()).collect(),
            described: !description.is_empty(),
            marked: false,
        }
    }

    /// Both together.
    fn with(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (service, checks) in &other.services {
            all.services.entry(service.clone()).or_default().extend(checks.iter().cloned());
        }
        all.checks.extend(other.checks.iter().cloned());
        all.described |= other.described;
        all.marked &= other.marked;
        all
    }

    /// What takes away everything that is not there any more.
    fn gone(&self, now: &Self) -> Vec<Step> {
        let check = |id: &String| Step::DropCheck(id.as_str().into());
        let mut steps: Vec<_> = self.checks.difference(&now.checks).map(check).collect();
        for (service, checks) in &self.services {
            match now.services.get(service) {
                Some(kept) => steps.extend(checks.difference(kept).map(check)),
                None => steps.push(Step::DropService(service.as_str().into())),
            }
        }
        steps
    }
}

fn remembered(path: &Path) -> io::Result<Registered> {
    match regular::read(path, REMEMBERED_BYTES_MAX) {
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
    use quorate_storage::State;
    use quorate_storage::command::{Agent, Batch, Part};
    use serde_json::{Value, json};

    use super::super::definitions::Defined;
    use super::super::registry::is_own;
    use super::*;

    fn ids(services: &Value, checks: &Value) -> Registered {
        let defined = Defined {
            services: services.as_array().unwrap().clone(),
            checks: checks.as_array().unwrap().clone(),
        };
        Registered::of(&parse(&defined).unwrap(), &Description::default())
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
        let gone: Vec<String> = before.gone(&now).iter().map(Step::about).collect();
        assert_eq!(gone, ["check \"x\"", "check \"service:a:2\"", "service \"b\""]);
        assert!(now.gone(&now).is_empty());
    }

    #[test]
    fn what_another_agent_has_under_the_same_id_is_left_alone() {
        let parsed = |name: &str| {
            let services = vec![json!({"name": name, "check": {"ttl": "1s"}})];
            let checks = vec![json!({"name": format!("check of {name}"), "ttl": "1s"})];
            parse(&Defined { services, checks }).unwrap()
        };
        let other = Agent { name: "other".into(), ..agent() };
        let commands = |name, agent: &Agent| {
            parsed(name).steps().into_iter().map(|step| step.command(agent)).collect::<Vec<_>>()
        };
        let mut all = commands("own", &agent());
        all.extend(commands("strange", &other));
        let mut state = State::default();
        let commands = (1..).zip(all).collect();
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        state.apply(&Batch { parts: vec![part], ..Batch::default() });
        let gone = |name| {
            let registered = Registered::of(&parsed(name), &Description::default());
            let mut gone = registered.gone(&Registered::default());
            assert_eq!(gone.len(), 2);
            gone.retain(|step| is_own(step, &agent(), &state));
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
        std::fs::write(&path, r#"{"services": {}, "checks": []}"#).unwrap();
        assert_eq!(remembered(&path).unwrap(), Registered::default());
        std::fs::write(&path, "{").unwrap();
        assert!(remembered(&path).is_err());
    }

    #[tokio::test]
    async fn a_definition_that_is_refused_does_not_keep_the_others_from_the_cluster() {
        let defined = Defined {
            services: vec![json!({"name": "a"}), json!({"name": "b"}), json!({"name": "c"})],
            checks: vec![json!({"name": "d", "ttl": "1s", "service_id": "nope"})],
        };
        let steps = || parse(&defined).unwrap().steps();
        let seen = std::cell::RefCell::new(Vec::new());
        let refused = each(steps(), |step| {
            seen.borrow_mut().push(step.about());
            let is_bad = ["service \"b\"", "check \"d\""].contains(&&*step.about());
            std::future::ready(Ok(if is_bad { Err("no".to_owned()) } else { Ok(()) }))
        });
        let refused = refused.await.unwrap();
        assert_eq!(seen.take().len(), 4);
        assert_eq!(refused, ["service \"b\": no", "check \"d\": no"]);
        let unreachable = each(steps(), |step| {
            seen.borrow_mut().push(step.about());
            std::future::ready(Err("no leader".to_owned()))
        });
        assert!(unreachable.await.is_err());
        assert_eq!(seen.take().len(), 1, "the others would wait as long for nothing");
    }

    #[test]
    fn a_description_that_is_gone_is_taken_back_and_one_that_never_was_touches_nothing() {
        let meta = Some([("rack".to_owned(), "7".to_owned())].into());
        let said = Description { meta, ..Description::default() };
        assert_eq!(described(said.clone(), false), said);
        assert!(described(Description::default(), false).is_empty());
        let gone = described(Description::default(), true);
        assert_eq!((gone.meta, gone.id), (Some(BTreeMap::new()), None));
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
