//! Registers again what the files of an agent define and somebody has changed or, for a client agent,
//! deregistered, as Consul's agents do (anti-entropy): the agent is the authority of what came from its files,
//! not the catalogue. What clients have registered lives in the cluster, and none of this is about it.
//!
//! What came from files is marked in the catalogue, from the level on that brings marks
//! ([`FILE_MARK_LEVEL`](quorate_storage::state::FILE_MARK_LEVEL)). So an agent that has lost its data directory
//! still knows what it has to take back.
//!
//! A definition stays away until the files are read again if it was deregistered through the agent's own
//! API, or, for a service, because it was critical for too long: Consul's agents have forgotten it then. The
//! first is seen when the request passes, the second by a last look at the checks: the cluster waits for a
//! minute at least, and looks are not further apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{Method, Request};
use percent_encoding::percent_decode_str;

use super::definitions::Step;
use crate::http::AGENT_HEADER;
use crate::http::definition::Comparison;
use quorate_storage::record::CheckRegistration;

/// What is registered on the agent's own node.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Ids of services.
    pub(super) services: BTreeSet<String>,
    /// Ids of checks, and whether each is critical.
    pub(super) checks: BTreeMap<String, bool>,
}

/// What a definition is of, by its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Service(String),
    Check(String),
}

/// Definitions that stay away until the files are read again; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Withdrawn(Arc<Mutex<BTreeSet<Id>>>);

impl Withdrawn {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<Id>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: Id) {
        self.ids().insert(id);
    }

    /// The files are read again.
    pub(super) fn clear(&self) {
        self.ids().clear();
    }

    fn has_service(&self, id: &str) -> bool {
        self.ids().contains(&Id::Service(id.to_owned()))
    }

    fn has_check(&self, id: &str) -> bool {
        self.ids().contains(&Id::Check(id.to_owned()))
    }

    /// Whether what a step registers stays away.
    pub(super) fn has(&self, step: &Step) -> bool {
        match step {
            Step::PutService(parsed) => self.has_service(&parsed.service.id),
            Step::PutCheck(parsed) => {
                self.has_check(&parsed.check.id) || self.has_service(&parsed.check.service_id)
            }
            Step::Describe(_) | Step::DropService(_) | Step::DropCheck(_) => false,
        }
    }
}

/// What a request to this agent deregisters of its own.
pub(super) fn deregistered<B>(request: &Request<B>) -> Option<Id> {
    let query = request.uri().query().unwrap_or_default();
    let names_agent = request.headers().contains_key(AGENT_HEADER)
        || query.split('&').any(|part| part.starts_with("agent="));
    if names_agent || request.method() != Method::PUT {
        return None;
    }
    let path = request.uri().path();
    let id = |prefix| {
        let id = path.strip_prefix(prefix).filter(|id| !id.is_empty())?;
        percent_decode_str(id).decode_utf8().ok().map(String::from)
    };
    id("/v1/agent/service/deregister/")
        .map(Id::Service)
        .or_else(|| id("/v1/agent/check/deregister/").map(Id::Check))
}

/// Services that may be deregistered for being critical, since the last look.
#[derive(Debug, Default)]
pub(super) struct Doomed(BTreeSet<String>);

impl Doomed {
    /// What has to be registered again after a look, of what registers all definitions.
    pub(super) fn missing(
        &mut self,
        defined: &[Step],
        look: &Look,
        withdrawn: &Withdrawn,
    ) -> Vec<Step> {
        for id in std::mem::take(&mut self.0) {
            if !look.services.contains(&id) {
                tracing::info!(
                    service = id,
                    "was critical for too long and is deregistered until the files are read again"
                );
                withdrawn.add(Id::Service(id));
            }
        }
        let is_critical = |check: &&CheckRegistration| {
            !check.definition.deregister_critical_service_after.is_zero()
                && look.checks.get(&*check.id) == Some(&true)
        };
        let critical = defined.iter().flat_map(checks_of).filter(is_critical);
        self.0.extend(critical.map(|check| check.service_id.to_string()));
        let missing = defined.iter().filter(|step| is_missing(step, defined, look, withdrawn));
        missing.filter(|step| !withdrawn.has(step)).cloned().collect()
    }
}

/// What registers again what somebody else has changed, of what registers all definitions.
pub(super) fn changed(defined: &[Step], compared: &Comparison, withdrawn: &Withdrawn) -> Vec<Step> {
    let is_changed = |step: &&Step| {
        let (service, checks) = step.registers();
        service.is_some_and(|service| has(&compared.services.changed, &service.id))
            || checks.iter().any(|check| has(&compared.checks.changed, &check.id))
    };
    let changed = defined.iter().filter(is_changed);
    changed.filter(|step| !withdrawn.has(step)).cloned().collect()
}

/// What deregisters what this agent once registered from files and no file defines any more. A service takes
/// its checks along.
pub(super) fn left(compared: &Comparison) -> Vec<Step> {
    let checks = compared.checks.left.iter().map(|id| Step::DropCheck(id.as_str().into()));
    let services = compared.services.left.iter().map(|id| Step::DropService(id.as_str().into()));
    services.chain(checks).collect()
}

fn has(ids: &[String], id: &str) -> bool {
    ids.iter().any(|changed| changed == id)
}

fn checks_of(step: &Step) -> &[CheckRegistration] {
    step.registers().1
}

/// Whether not all is registered that a step registers, one of those that register all definitions.
fn is_missing(step: &Step, defined: &[Step], look: &Look, withdrawn: &Withdrawn) -> bool {
    let lacks_check = checks_of(step)
        .iter()
        .any(|check| !look.checks.contains_key(&*check.id) && !withdrawn.has_check(&check.id));
    match step {
        Step::PutService(parsed) => lacks_check || !look.services.contains(&*parsed.service.id),
        Step::PutCheck(parsed) => lacks_check && may_have_check(&parsed.check, look, defined),
        Step::Describe(_) | Step::DropService(_) | Step::DropCheck(_) => false,
    }
}

/// Whether there is, or will be, what a check is of. A service that a client registered may go.
fn may_have_check(check: &CheckRegistration, look: &Look, defined: &[Step]) -> bool {
    let id = &check.service_id;
    let defines =
        |step: &Step| matches!(step, Step::PutService(parsed) if parsed.service.id == *id);
    id.is_empty() || look.services.contains(&**id) || defined.iter().any(defines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::definitions::{Defined, parse};
    use super::*;

    /// Service `a` with a check, `b` with one that may deregister it, and a check of the host.
    fn defined() -> Vec<Step> {
        let services = vec![
            json!({"name": "a", "check": {"ttl": "1s"}}),
            json!({"name": "b", "check": {"ttl": "1s", "deregister_critical_service_after": "1m"}}),
        ];
        let checks = vec![
            json!({"name": "host", "ttl": "1s"}),
            json!({"name": "more", "ttl": "1s", "service_id": "b"}),
            json!({"name": "of it", "ttl": "1s", "service_id": "of a client"}),
        ];
        parse(&Defined { services, checks }).unwrap().steps()
    }

    fn look(services: &[&str], checks: &[(&str, bool)]) -> Look {
        Look {
            services: services.iter().map(|id| (*id).to_owned()).collect(),
            checks: checks.iter().map(|(id, critical)| ((*id).to_owned(), *critical)).collect(),
        }
    }

    fn all() -> Look {
        let checks = [("service:a", true), ("service:b", false), ("host", true), ("more", false)];
        let checks = [&checks[..], &[("of it", true)]].concat();
        look(&["a", "b", "of a client"], &checks)
    }

    fn missing(doomed: &mut Doomed, look: &Look, withdrawn: &Withdrawn) -> Vec<String> {
        let missing = doomed.missing(&defined(), look, withdrawn);
        missing.iter().map(Step::about).collect()
    }

    #[test]
    fn what_somebody_has_deregistered_is_missing() {
        let (doomed, withdrawn) = (&mut Doomed::default(), Withdrawn::default());
        assert!(missing(doomed, &all(), &withdrawn).is_empty());
        let mut without_check = all();
        without_check.checks.remove("service:a");
        without_check.checks.remove("host");
        assert_eq!(
            missing(doomed, &without_check, &withdrawn),
            ["service \"a\"", "check \"host\""]
        );
        let nothing = look(&["of a client"], &[]);
        let own = ["service \"a\"", "service \"b\"", "check \"host\"", "check \"more\""];
        let every = [&own[..], &["check \"of it\""]].concat();
        assert_eq!(missing(doomed, &nothing, &withdrawn), every);
        assert_eq!(missing(doomed, &Look::default(), &withdrawn), own);
    }

    #[test]
    fn what_was_deregistered_here_stays_away_until_the_files_are_read_again() {
        let (doomed, withdrawn) = (&mut Doomed::default(), Withdrawn::default());
        let request =
            |method: &str, uri: &str| Request::builder().method(method).uri(uri).body(()).unwrap();
        for uri in [
            "/v1/agent/service/deregister/b",
            "/v1/agent/check/deregister/ho%73t?x=1",
            "/v1/agent/check/deregister/service%3Aa",
        ] {
            withdrawn.add(deregistered(&request("PUT", uri)).unwrap());
        }
        assert!(missing(doomed, &look(&["a"], &[]), &withdrawn).is_empty());
        assert_eq!(missing(doomed, &look(&[], &[]), &withdrawn), ["service \"a\""]);
        withdrawn.clear();
        assert_eq!(missing(doomed, &look(&[], &[]), &withdrawn).len(), 4);
        for (method, uri) in [
            ("GET", "/v1/agent/service/deregister/b"),
            ("PUT", "/v1/agent/service/deregister/"),
            ("PUT", "/v1/agent/service/deregister/b?x&agent=other"),
            ("PUT", "/v1/agent/service/register"),
        ] {
            assert_eq!(deregistered(&request(method, uri)), None, "{method} {uri}");
        }
        let mut named = request("PUT", "/v1/agent/service/deregister/b");
        named.headers_mut().insert(AGENT_HEADER, "other".parse().unwrap());
        assert_eq!(deregistered(&named), None);
    }

    #[test]
    fn what_was_critical_for_too_long_stays_away_too() {
        let (doomed, withdrawn) = (&mut Doomed::default(), Withdrawn::default());
        let mut critical = all();
        critical.checks.insert("service:b".to_owned(), true);
        assert!(missing(doomed, &critical, &withdrawn).is_empty());
        let gone = look(&["a"], &[("service:a", true), ("host", true), ("of it", false)]);
        assert!(missing(doomed, &gone, &withdrawn).is_empty());
        assert!(missing(doomed, &gone, &withdrawn).is_empty(), "it stays away");
        // One that was not critical at the last look was deregistered by somebody.
        withdrawn.clear();
        assert!(missing(doomed, &all(), &withdrawn).is_empty());
        assert_eq!(missing(doomed, &gone, &withdrawn), ["service \"b\"", "check \"more\""]);
    }
}
