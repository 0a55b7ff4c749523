//! Which records of the history somebody wants.

use quorate_storage::index::fold;
use quorate_storage::record::{Detail, HistoryKind, HistoryRecord, Ring, Subject};

/// A choice of records. Of each list that is not empty a record has to match one entry; an empty filter
/// chooses all. Services and nodes are found in any letter case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    services: Vec<String>,
    nodes: Vec<String>,
    ids: Vec<String>,
    checks: Vec<String>,
    keys: Vec<String>,
    prefixes: Vec<String>,
    sessions: Vec<String>,
    claims: Vec<String>,
    kinds: Vec<String>,
    /// Services and prefixes add up instead of narrowing each other.
    is_union: bool,
}

/// What a filter can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A service.
    Service,
    /// A node.
    Node,
    /// An instance's id.
    Id,
    /// A check's id.
    Check,
    /// A key.
    Key,
    /// All keys that begin so.
    Prefix,
    /// A session's id.
    Session,
    /// A claim, by its number or by its id.
    Claim,
    /// A kind, or how it begins (`check.`).
    Kind,
}

impl Filter {
    /// A filter of a stream: of services, prefixes of keys and kinds. A record has to be about one of the
    /// services or below one of the prefixes, if any are named, and of one of the kinds. Keys and locks are in
    /// it only if a prefix or a kind asks for them.
    #[must_use]
    pub fn of_stream() -> Self {
        Self { is_union: true, ..Self::default() }
    }

    /// Narrows the filter: a record has to match this too, or another entry of the same sort.
    ///
    /// # Errors
    /// No kind begins with this text.
    pub fn add(&mut self, by: By, text: &str) -> Result<(), String> {
        if by == By::Kind && !HistoryKind::ALL.iter().any(|kind| kind.as_str().starts_with(text)) {
            return Err(format!("no kind of record begins with {text:?}"));
        }
        let list = match by {
            By::Service => &mut self.services,
            By::Node => &mut self.nodes,
            By::Id => &mut self.ids,
            By::Check => &mut self.checks,
            By::Key => &mut self.keys,
            By::Prefix => &mut self.prefixes,
            By::Session => &mut self.sessions,
            By::Claim => &mut self.claims,
            By::Kind => &mut self.kinds,
        };
        list.push(match by {
            By::Service | By::Node => fold(text).into_owned(),
            _ => text.to_owned(),
        });
        Ok(())
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.lists().into_iter().map(Vec::len).sum()
    }

    fn lists(&self) -> [&Vec<String>; 9] {
        let Self {
            services,
            nodes,
            ids,
            checks,
            keys,
            prefixes,
            sessions,
            claims,
            kinds,
            is_union: _,
        } = self;
        [services, nodes, ids, checks, keys, prefixes, sessions, claims, kinds]
    }

    /// The services to which it is limited, in lower case; empty: it is not.
    #[must_use]
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// Whether it is limited to services, and takes nothing else.
    #[must_use]
    pub fn is_of_services_only(&self) -> bool {
        !self.services.is_empty() && self.prefixes.is_empty()
    }

    /// The rings that can have a record that matches.
    #[must_use]
    pub fn rings(&self) -> Vec<Ring> {
        let kinds = HistoryKind::ALL.into_iter().filter(|kind| self.takes(*kind));
        let wanted: Vec<Ring> = kinds.map(HistoryKind::ring).collect();
        Ring::ALL.into_iter().filter(|ring| self.suits(*ring) && wanted.contains(ring)).collect()
    }

    /// Whether a ring can have what it names, whatever the kinds.
    fn suits(&self, ring: Ring) -> bool {
        if self.is_union {
            return match ring {
                Ring::Keys => {
                    !self.prefixes.is_empty() || self.services.is_empty() && !self.kinds.is_empty()
                }
                Ring::Catalogue => self.prefixes.is_empty() || !self.services.is_empty(),
                Ring::Claims => !self.kinds.is_empty() && self.prefixes.is_empty(),
            };
        }
        if !self.claims.is_empty() && ring != Ring::Claims {
            return false;
        }
        let of_keys = [&self.keys, &self.prefixes];
        let of_catalogue = [&self.services, &self.nodes, &self.ids, &self.checks];
        match ring {
            Ring::Keys => of_catalogue.iter().all(|list| list.is_empty()),
            Ring::Catalogue | Ring::Claims => of_keys.iter().all(|list| list.is_empty()),
        }
    }

    /// Whether it lists instances before it follows.
    #[must_use]
    pub fn has_instances(&self) -> bool {
        self.rings().contains(&Ring::Catalogue)
    }

    /// Whether an instance of a service (in lower case) is among what it wants.
    #[must_use]
    pub fn wants_service(&self, service: &str) -> bool {
        any_or_none(&self.services, |name| name == service)
    }

    /// Whether it wants records of a kind.
    #[must_use]
    pub fn takes(&self, kind: HistoryKind) -> bool {
        any_or_none(&self.kinds, |begin| kind.as_str().starts_with(begin))
    }

    /// Whether it wants a record.
    #[must_use]
    pub fn matches(&self, record: &HistoryRecord) -> bool {
        let names = Names::of(&record.subject);
        let session = record.session.as_deref().unwrap_or(names.session);
        let is_below = matches!(record.detail, Detail::Below(_));
        let has_key = |key: &str| *names.key == *key || is_below && key.starts_with(names.key);
        let touches = |prefix: &str| {
            names.key.starts_with(prefix) || is_below && prefix.starts_with(names.key)
        };
        let is_key = matches!(record.subject, Subject::Key(_));
        if self.is_union {
            let is_of_service = self.services.iter().any(|name| fold(names.service) == *name);
            let is_below_one = is_key && self.prefixes.iter().any(|prefix| touches(prefix));
            let is_narrow = !self.services.is_empty() || !self.prefixes.is_empty();
            return self.takes(record.kind)
                && self.suits(record.kind.ring())
                && (!is_narrow || is_of_service || is_below_one);
        }
        self.takes(record.kind)
            && any_or_none(&self.services, |name| fold(names.service) == *name)
            && any_or_none(&self.nodes, |name| fold(names.node) == *name)
            && any_or_none(&self.ids, |id| names.id == id)
            && any_or_none(&self.checks, |id| names.check == id)
            && any_or_none(&self.sessions, |id| session == id)
            && any_or_none(&self.claims, |claim| is_claim(&record.subject, claim))
            && any_or_none(&self.keys, |key| is_key && has_key(key))
            && any_or_none(&self.prefixes, |prefix| is_key && touches(prefix))
    }
}

/// The node, if a record is about what decides the status of everything on it: a check of the node itself, or
/// its maintenance.
#[must_use]
pub fn decided_node(record: &HistoryRecord) -> Option<&str> {
    let is_maintenance =
        matches!(record.kind, HistoryKind::MaintenanceOn | HistoryKind::MaintenanceOff);
    match &record.subject {
        Subject::Check { node, id, .. } => id.is_empty().then_some(node),
        Subject::Node { node } => is_maintenance.then_some(node),
        Subject::Cluster
        | Subject::Instance { .. }
        | Subject::Key(_)
        | Subject::Session { .. }
        | Subject::Claim { .. }
        | Subject::Acl { .. } => None,
    }
}

/// The names in a subject; empty where it has none.
#[derive(Default)]
struct Names<'a> {
    node: &'a str,
    service: &'a str,
    id: &'a str,
    check: &'a str,
    key: &'a str,
    session: &'a str,
}

impl<'a> Names<'a> {
    fn of(subject: &'a Subject) -> Self {
        let mut names = Self::default();
        match subject {
            Subject::Cluster => {}
            Subject::Node { node } => names.node = node,
            Subject::Instance { node, service, id } => {
                (names.node, names.service, names.id) = (node, service, id);
            }
            Subject::Check { node, service, id, check } => {
                (names.node, names.service, names.id, names.check) = (node, service, id, check);
            }
            Subject::Key(key) => names.key = key,
            Subject::Session { id, node } => (names.session, names.node) = (id, node),
            Subject::Claim { service, .. } => names.service = service,
            Subject::Acl { id, .. } => names.id = id,
        }
        names
    }
}

/// Whether a subject is the claim that a client names by its number, or, if it may, by its id.
fn is_claim(subject: &Subject, claim: &str) -> bool {
    match subject {
        Subject::Claim { id, number, .. } => **id == *claim || number.to_string() == claim,
        _ => false,
    }
}

fn any_or_none(list: &[String], suits: impl FnMut(&str) -> bool) -> bool {
    list.is_empty() || list.iter().map(String::as_str).any(suits)
}

#[cfg(test)]
mod tests {
    use quorate_storage::record::{Cause, WallTime};
    use quorate_storage::{ClusterTime, Index};

    use super::*;

    fn record(kind: HistoryKind, subject: Subject, detail: Detail) -> HistoryRecord {
        HistoryRecord {
            seq: 1,
            index: Index(1),
            time: ClusterTime(0),
            at: WallTime(0),
            kind,
            subject,
            session: None,
            from: None,
            to: None,
            detail,
            cause: Cause::Server { server: 1 },
            previous: 0,
        }
    }

    fn filter(entries: &[(By, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (by, text) in entries {
            filter.add(*by, text).unwrap();
        }
        filter
    }

    #[test]
    fn a_record_has_to_match_each_sort_of_entry() {
        let check = record(
            HistoryKind::CheckChanged,
            Subject::Check {
                node: "N1".into(),
                service: "Web".into(),
                id: "web-1".into(),
                check: "c".into(),
            },
            Detail::None,
        );
        assert!(Filter::default().matches(&check));
        assert!(filter(&[(By::Service, "WEB"), (By::Node, "n1")]).matches(&check));
        assert!(filter(&[(By::Service, "db"), (By::Service, "web")]).matches(&check));
        assert!(!filter(&[(By::Service, "web"), (By::Node, "n2")]).matches(&check));
        assert!(
            filter(&[(By::Kind, "check."), (By::Id, "web-1"), (By::Check, "c")]).matches(&check)
        );
        assert!(!filter(&[(By::Kind, "service.")]).matches(&check));
        assert!(!filter(&[(By::Prefix, "")]).matches(&check));
        assert!(Filter::default().add(By::Kind, "chek").unwrap_err().contains("\"chek\""));
    }

    #[test]
    fn a_key_is_found_by_itself_its_prefix_and_what_was_deleted_around_it() {
        let key =
            |key: &str, detail| record(HistoryKind::KeyDeleted, Subject::Key(key.into()), detail);
        assert!(filter(&[(By::Key, "a/b")]).matches(&key("a/b", Detail::None)));
        assert!(!filter(&[(By::Key, "a/b")]).matches(&key("a/", Detail::None)));
        assert!(filter(&[(By::Key, "a/b")]).matches(&key("a/", Detail::Below(2))));
        assert!(filter(&[(By::Prefix, "a/")]).matches(&key("a/b", Detail::None)));
        assert!(filter(&[(By::Prefix, "a/b/")]).matches(&key("a/", Detail::Below(2))));
        assert!(!filter(&[(By::Prefix, "b")]).matches(&key("a/", Detail::Below(2))));
    }

    #[test]
    fn rings_that_have_nothing_of_it_are_not_needed() {
        assert_eq!(Filter::default().rings(), Ring::ALL);
        assert_eq!(filter(&[(By::Prefix, "a")]).rings(), [Ring::Keys]);
        assert_eq!(filter(&[(By::Kind, "lock.")]).rings(), [Ring::Keys]);
        assert_eq!(filter(&[(By::Kind, "check.")]).rings(), [Ring::Catalogue]);
        assert_eq!(filter(&[(By::Service, "web")]).rings(), [Ring::Catalogue, Ring::Claims]);
        assert_eq!(filter(&[(By::Service, "web"), (By::Kind, "key.")]).rings(), []);
    }
}
