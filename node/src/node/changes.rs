//! Logs which services came and went, which checks changed their status, and why, and that a backup was
//! restored.
//!
//! Every server logs it, from the state that it applied. It looks once a second, and only where a table has
//! changed. So twenty thousand checks that turn critical together cost one look and a few lines: some of the
//! changes, and how many others there were.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::record::{Cause, Check, CheckStatus, PRESENCE_KIND, SERF_HEALTH};
use quorate_storage::state::History;
use quorate_storage::{Index, Millis, State, Topic};

use crate::host::clock::Moment;
use crate::host::supervise;
use crate::live::threads::status_record;
use crate::node::{Node, Readiness};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether this server has caught up: what happens after that is news.
const READY_LOOK: Duration = Duration::from_millis(50);
/// Lines for each kind of change in each window of time; further changes are counted. Each kind has its own, so
/// that a hundred registrations do not hide the check that turned critical.
const LINES_MAX: usize = 10;
/// A shorter TTL was most likely given as a number of seconds, which counts nanoseconds.
const TTL_LIKELY_MEANT: Millis = Millis(10);
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    /// Where the changes that follow come from. Two restores between two looks are one.
    Restored {
        index: Index,
    },
    Registered {
        node: Arc<str>,
        id: Arc<str>,
        name: Arc<str>,
    },
    Deregistered {
        node: Arc<str>,
        id: Arc<str>,
        name: Arc<str>,
    },
    Check {
        row: Arc<Check>,
        from: Option<CheckStatus>,
        cause: &'static str,
    },
}

impl News {
    /// The name under which it is counted where there are too many.
    fn kind(&self) -> &'static str {
        match self {
            Self::Restored { .. } => "restored",
            Self::Registered { .. } => "registered",
            Self::Deregistered { .. } => "deregistered",
            Self::Check { row, .. } => match row.registration.status {
                CheckStatus::Passing => "passing",
                CheckStatus::Warning => "warning",
                CheckStatus::Critical => "critical",
                CheckStatus::Other(_) => "other",
            },
        }
    }

    fn log(&self) {
        match self {
            Self::Restored { index } => {
                tracing::info!(%index, "a backup was restored: it has replaced what clients had stored");
            }
            Self::Registered { node, id, name } => {
                tracing::info!(service = %name, %id, %node, "a service was registered");
            }
            Self::Deregistered { node, id, name } => {
                tracing::info!(service = %name, %id, %node, "a service was deregistered");
            }
            Self::Check { row, from, cause } => {
                let what = &row.registration;
                tracing::info!(
                    check = %what.id,
                    service = %row.service_name,
                    service_id = %what.service_id,
                    node = %row.node,
                    from = from.as_ref().map_or("", CheckStatus::as_str),
                    to = what.status.as_str(),
                    cause,
                    "a check changed"
                );
                let ttl = what.definition.ttl;
                if !ttl.is_zero() && ttl < TTL_LIKELY_MEANT {
                    tracing::warn!(check = %what.id, ?ttl, "a check has a very short TTL: a number without a unit, as in {{\"TTL\": 15}}, counts nanoseconds; write \"15s\"");
                }
            }
        }
    }
}

/// Why a check has its status. Never its output, which can be anything.
fn cause(history: &History, row: &Check) -> &'static str {
    let what = &row.registration;
    let is_critical = what.status == CheckStatus::Critical;
    let of_record = status_record(history, row).map(|record| &record.cause);
    if matches!(of_record, Some(Cause::Silence { .. })) {
        return match is_critical {
            true => "no heartbeat came within its TTL",
            false => "no heartbeat came within its WarnAfter",
        };
    }
    if &*what.id == SERF_HEALTH {
        "whether the server answers the leader, or the client agent says that it lives"
    } else if is_critical
        && !what.definition.ttl.is_zero()
        && what.output.starts_with("TTL expired")
    {
        "no heartbeat came within its TTL"
    } else if what.kind == PRESENCE_KIND {
        "whether its connection is open"
    } else if what.definition.is_run() {
        "a run by a worker"
    } else {
        "a client's request"
    }
}

/// Where an instance is: its node and its id.
type Place = (Arc<str>, Arc<str>);

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Known {
    restored: Option<Index>,
    checks_index: Index,
    services_index: Index,
    /// By number.
    statuses: HashMap<u64, CheckStatus>,
    services: HashMap<Place, Arc<str>>,
}

impl Known {
    /// Takes over the present state, and returns what is new in it.
    fn look(&mut self, state: &State) -> Vec<News> {
        let mut news = Vec::new();
        let restored = state.restored();
        if let Some(index) = restored.filter(|_| restored != self.restored) {
            self.restored = restored;
            news.push(News::Restored { index });
        }
        let services_index = state.topic_index(&Topic::Services);
        if services_index != self.services_index {
            self.services_index = services_index;
            self.look_at_services(state, &mut news);
        }
        let checks_index = state.topic_index(&Topic::Checks);
        if checks_index != self.checks_index {
            self.checks_index = checks_index;
            self.look_at_checks(state, &mut news);
        }
        news
    }

    fn look_at_services(&mut self, state: &State, news: &mut Vec<News>) {
        let mut services = HashMap::with_capacity(self.services.len());
        for row in state.services() {
            let (node, id) = (Arc::clone(&row.node), Arc::clone(&row.definition.id));
            let name = Arc::clone(&row.definition.name);
            if self.services.remove(&(Arc::clone(&node), Arc::clone(&id))).is_none() {
                let (node, id, name) = (Arc::clone(&node), Arc::clone(&id), Arc::clone(&name));
                news.push(News::Registered { node, id, name });
            }
            services.insert((node, id), name);
        }
        let gone = std::mem::replace(&mut self.services, services);
        let mut gone: Vec<_> = gone.into_iter().collect();
        gone.sort();
        news.extend(gone.into_iter().map(|((node, id), name)| News::Deregistered {
            node,
            id,
            name,
        }));
    }

    fn look_at_checks(&mut self, state: &State, news: &mut Vec<News>) {
        let mut statuses = HashMap::with_capacity(self.statuses.len());
        for row in state.checks() {
            let status = &row.registration.status;
            let from = self.statuses.get(&row.number);
            // A check that arrives passing with its service is no news.
            if from != Some(status) && (from.is_some() || *status != CheckStatus::Passing) {
                let cause = cause(state.history(), row);
                news.push(News::Check { row: Arc::clone(row), from: from.cloned(), cause });
            }
            statuses.insert(row.number, status.clone());
        }
        self.statuses = statuses;
    }
}

/// Which changes are logged, and how many are only counted.
#[derive(Debug, Default)]
struct Window {
    began: Option<Moment>,
    lines: BTreeMap<&'static str, usize>,
    counted: BTreeMap<&'static str, u64>,
}

impl Window {
    /// Begins a new window if it is time. Returns what the old one only counted.
    fn turn(&mut self, now: Moment) -> Option<BTreeMap<&'static str, u64>> {
        if self.began.is_some_and(|began| now.since(began) < WINDOW) {
            return None;
        }
        let counted = std::mem::take(&mut self.counted);
        *self = Self::default();
        (!counted.is_empty()).then_some(counted)
    }

    /// Whether this change is logged. A restore always is: it is rare, and explains the others.
    fn admit(&mut self, now: Moment, news: &News) -> bool {
        if matches!(news, News::Restored { .. }) {
            return true;
        }
        self.began.get_or_insert(now);
        let lines = self.lines.entry(news.kind()).or_default();
        if *lines < LINES_MAX {
            *lines += 1;
            return true;
        }
        *self.counted.entry(news.kind()).or_default() += 1;
        false
    }
}

/// Looks for changes and logs them; never ends. It begins when this server has caught up: what is applied
/// again after a start is no news.
pub async fn watch(node: Arc<Node>) {
    let clock = node.clock().clone();
    while node.readiness() != Readiness::Ready {
        clock.sleep(READY_LOOK).await;
    }
    let (mut known, _) = look(&node, Known::default()).await;
    let mut window = Window::default();
    loop {
        clock.sleep(LOOK_EVERY).await;
        let now = clock.now();
        if let Some(counted) = window.turn(now) {
            let counted: Vec<_> =
                counted.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
            tracing::info!(not_logged = counted.join(", "), "more checks and services changed");
        }
        let news;
        (known, news) = look(&node, known).await;
        news.iter().filter(|news| window.admit(now, news)).for_each(News::log);
    }
}

/// One look, on a blocking thread because it reads a row for each check.
async fn look(node: &Arc<Node>, mut known: Known) -> (Known, Vec<News>) {
    let published = node.published();
    let looked = supervise::blocking("looking for changes", move || {
        let news = known.look(&published.state);
        Ok::<_, io::Error>((known, news))
    });
    looked.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use quorate_storage::command::{Agent, Batch, Command, Duty, Part};
    use quorate_storage::record::{CheckDefinition, CheckRegistration, ServiceDefinition};
    use quorate_storage::state::LEVEL;

    use super::*;

    fn apply(state: &mut State, commands: Vec<Command>) {
        let first = state.index().0 * 1_000_000;
        let numbered = (first..).zip(commands).map(|(seq, command)| (seq + 1, command)).collect();
        let part = Part { origin: 1, incarnation: 1, answered_through: first, commands: numbered };
        state.apply(&Batch { stamp: state.time(), duty: None, parts: vec![part] });
    }

    fn agent() -> Agent {
        Agent { name: "h1".into(), id: "i1".to_owned(), address: "10.0.0.1".to_owned() }
    }

    fn register(id: &str) -> Command {
        let check = CheckRegistration {
            id: format!("service:{id}").into(),
            name: "alive".to_owned(),
            status: CheckStatus::Passing,
            notes: String::new(),
            output: String::new(),
            service_id: id.into(),
            kind: "ttl".to_owned(),
            definition: CheckDefinition { ttl: Millis(10_000), ..CheckDefinition::default() },
        };
        let service =
            ServiceDefinition { id: id.into(), name: "web".into(), ..ServiceDefinition::default() };
        Command::AgentRegisterService {
            agent: agent(),
            service: Box::new(service),
            checks: vec![check],
            replace_existing_checks: false,
        }
    }

    fn words(news: &[News]) -> Vec<String> {
        let word = |news: &News| match news {
            News::Restored { .. } => news.kind().to_owned(),
            News::Registered { id, .. } | News::Deregistered { id, .. } => {
                format!("{id} {}", news.kind())
            }
            News::Check { row, from, cause } => {
                let from = from.as_ref().map_or("new", CheckStatus::as_str);
                format!("{} {from} {}: {cause}", row.registration.id, news.kind())
            }
        };
        news.iter().map(word).collect()
    }

    #[test]
    fn services_and_statuses_that_change_are_news_once_with_their_cause() {
        let mut state = State::default();
        let mut known = Known::default();
        apply(&mut state, vec![register("web-1"), register("web-2")]);
        assert_eq!(words(&known.look(&state)), ["web-1 registered", "web-2 registered"]);
        assert_eq!(known.look(&state), []);
        let time = state.time() + Millis(20_000);
        let duty = Some(Duty::Expire { up_to: time, max: 100 });
        state.apply(&Batch { stamp: time, duty, parts: Vec::new() });
        let expired = "passing critical: no heartbeat came within its TTL";
        assert_eq!(
            words(&known.look(&state)),
            [format!("service:web-1 {expired}"), format!("service:web-2 {expired}")]
        );
        let gone = Command::AgentDeregisterService { agent: agent(), service_id: "web-1".into() };
        apply(&mut state, vec![gone]);
        assert_eq!(words(&known.look(&state)), ["web-1 deregistered"]);
        assert_eq!(known.look(&state), []);
    }

    #[test]
    fn a_warning_for_want_of_a_heartbeat_is_not_put_down_to_a_client() {
        let mut state = State::default();
        let level = Duty::Level(LEVEL);
        state.apply(&Batch { stamp: state.time(), duty: Some(level), parts: Vec::new() });
        let mut web = register("web-1");
        let Command::AgentRegisterService { checks, .. } = &mut web else { unreachable!() };
        checks[0].definition.later.warn_after = Millis(2_000);
        let mut known = Known::default();
        apply(&mut state, vec![web]);
        known.look(&state);
        let mut later = |millis| {
            let time = state.time() + Millis(millis);
            let duty = Some(Duty::ExpireDue { up_to: time, max: 100 });
            state.apply(&Batch { stamp: time, duty, parts: Vec::new() });
            words(&known.look(&state))
        };
        let silent = "no heartbeat came within its";
        assert_eq!(later(3_000), [format!("service:web-1 passing warning: {silent} WarnAfter")]);
        assert_eq!(later(9_000), [format!("service:web-1 warning critical: {silent} TTL")]);
    }

    #[test]
    fn twenty_thousand_changes_are_a_few_lines_and_a_count() {
        let mut window = Window::default();
        let change = News::Registered { node: "n".into(), id: "i".into(), name: "s".into() };
        let other = News::Deregistered { node: "n".into(), id: "i".into(), name: "s".into() };
        let at = |seconds| Moment::at(Duration::from_secs(seconds));
        let logged = (0..20_000).filter(|_| window.admit(at(1), &change)).count();
        assert_eq!(logged, LINES_MAX);
        assert!(window.admit(at(1), &other), "another kind has lines of its own");
        assert_eq!(window.turn(at(10)), None);
        let counted = window.turn(at(11)).unwrap();
        assert_eq!(counted, [("registered", 20_000 - LINES_MAX as u64)].into());
        assert_eq!(window.turn(at(12)), None);
        assert!(window.admit(at(12), &change));
    }
}
