//! What an agent's definition files say, compared with what is registered on its node.

use std::collections::BTreeMap;

use quorate_storage::State;
use quorate_storage::record::{CheckRegistration, FromFile as _, ServiceDefinition};
use quorate_storage::state::FILE_MARK_LEVEL;
use serde::{Deserialize, Serialize};

/// How what is registered on a node differs from the definition files of its agent. It is only about what the
/// agent has registered from files: what clients register, also under an id that a file defines, is theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Comparison {
    /// Whether agents mark what they register from files: all servers know the marks.
    pub marks: bool,
    /// Services.
    pub services: Ids,
    /// Checks.
    pub checks: Ids,
}

/// Ids of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ids {
    /// What somebody else has changed.
    pub changed: Vec<String>,
    /// What is in no file any more.
    pub left: Vec<String>,
}

impl Comparison {
    /// Compares what files define with what is on the agent's node.
    pub(crate) fn new<'a>(
        state: &State,
        agent: &str,
        services: impl Iterator<Item = &'a ServiceDefinition>,
        checks: impl Iterator<Item = &'a CheckRegistration>,
    ) -> Self {
        let marks = state.level() >= FILE_MARK_LEVEL;
        let mut compared = Self { marks, ..Self::default() };
        let services: BTreeMap<&str, _> = services.map(|given| (&*given.id, given)).collect();
        let checks: BTreeMap<&str, _> = checks.map(|given| (&*given.id, given)).collect();
        for row in state.services_on(agent).map(|row| &row.definition) {
            if row.is_from_file() {
                let given = services.get(&*row.id);
                compared.services.note(&row.id, given.map(|given| is_service(row, given)));
            }
        }
        for row in state.checks_on(agent).map(|row| &row.registration) {
            if row.is_from_file() {
                let given = checks.get(&*row.id);
                compared.checks.note(&row.id, given.map(|given| is_check(row, given)));
            }
        }
        compared
    }
}

impl Ids {
    /// Notes what became of a row: whether it is as its file says, if there is one.
    fn note(&mut self, id: &str, is_as_defined: Option<bool>) {
        match is_as_defined {
            Some(true) => {}
            Some(false) => self.changed.push(id.to_owned()),
            None => self.left.push(id.to_owned()),
        }
    }
}

/// Whether a row is what a file says. Others may change the tags where it allows that.
fn is_service(row: &ServiceDefinition, given: &ServiceDefinition) -> bool {
    let mut given = given.clone();
    given.mark_from_file();
    if given.enable_tag_override && row.enable_tag_override {
        given.tags = row.tags.clone();
    }
    *row == given
}

/// The same of a check, whose status and output are not its file's to say.
fn is_check(row: &CheckRegistration, given: &CheckRegistration) -> bool {
    let mut given = CheckRegistration {
        status: row.status.clone(),
        output: row.output.clone(),
        ..given.clone()
    };
    given.mark_from_file();
    *row == given
}

#[cfg(test)]
mod tests {
    use quorate_storage::command::{Agent, Batch, CatalogRegistration, Command, Duty, Part};
    use quorate_storage::record::CheckStatus;
    use quorate_storage::state::LEVEL;
    use serde_json::{Value, json};

    use super::super::{parse_check, parse_service};
    use super::*;

    struct Cluster {
        state: State,
        seq: u64,
    }

    fn agent() -> Agent {
        Agent { name: "h".into(), id: String::new(), address: "10.0.0.1".into() }
    }

    fn service(body: &Value) -> (ServiceDefinition, Vec<CheckRegistration>) {
        parse_service(body).unwrap()
    }

    impl Cluster {
        fn new(level: u32) -> Self {
            let mut state = State::default();
            state.apply(&Batch { duty: Some(Duty::Level(level)), ..Batch::default() });
            Self { state, seq: 0 }
        }

        fn run(&mut self, command: Command) {
            self.seq += 1;
            let commands = vec![(self.seq, command)];
            let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
            self.state.apply(&Batch { parts: vec![part], ..Batch::default() });
        }

        fn register(&mut self, body: &Value, from_file: bool) {
            let (mut service, mut checks) = service(body);
            if from_file {
                service.mark_from_file();
                checks.iter_mut().for_each(CheckRegistration::mark_from_file);
            }
            let service = Box::new(service);
            let agent = agent();
            let replace_existing_checks = false;
            self.run(Command::AgentRegisterService {
                agent,
                service,
                checks,
                replace_existing_checks,
            });
        }

        fn write(&mut self, service: ServiceDefinition, checks: Vec<CheckRegistration>) {
            self.run(Command::CatalogRegister(Box::new(CatalogRegistration {
                node: "h".into(),
                skip_node_update: true,
                service: Some(service),
                checks,
                ..CatalogRegistration::default()
            })));
        }

        /// Compares with files that define these; returns what changed, and what is left.
        fn compare(&self, bodies: &[Value]) -> (Vec<String>, Vec<String>) {
            let parsed: Vec<_> = bodies.iter().map(service).collect();
            let services = parsed.iter().map(|(service, _)| service);
            let checks = parsed.iter().flat_map(|(_, checks)| checks);
            let Comparison { services, checks, .. } =
                Comparison::new(&self.state, "h", services, checks);
            ([services.changed, checks.changed].concat(), [services.left, checks.left].concat())
        }
    }

    fn web() -> Value {
        json!({"Name": "web", "Port": 80, "Tags": ["a"], "Check": {"TTL": "10m"},
            "Proxy": {"LocalServicePort": 9}})
    }

    fn nothing() -> (Vec<String>, Vec<String>) {
        Default::default()
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn what_files_no_longer_define_is_left_and_what_clients_registered_is_theirs() {
        let mut cluster = Cluster::new(LEVEL);
        cluster.register(&web(), true);
        cluster.register(&json!({"Name": "mine"}), false);
        assert_eq!(cluster.compare(&[web()]), nothing());
        assert_eq!(cluster.compare(&[]), (vec![], ids(&["web", "service:web"])));
        // Whoever registers the same id without the mark takes it away.
        cluster.register(&web(), false);
        assert_eq!(cluster.compare(&[]), nothing());
    }

    #[test]
    fn what_somebody_writes_through_the_catalogue_is_a_change_of_the_files() {
        let mut cluster = Cluster::new(LEVEL);
        cluster.register(&web(), true);
        let (mut other, mut checks) = service(&web());
        other.port = 81;
        checks[0].status = CheckStatus::Passing;
        cluster.write(other.clone(), checks.clone());
        assert_eq!(cluster.compare(&[web()]), (ids(&["web"]), vec![]));
        checks[0].notes = "by hand".to_owned();
        other.port = 80;
        cluster.write(other, checks);
        assert_eq!(cluster.compare(&[web()]), (ids(&["service:web"]), vec![]));
        cluster.register(&web(), true);
        assert_eq!(cluster.compare(&[web()]), nothing());
        assert_eq!(cluster.compare(&[]), (vec![], ids(&["web", "service:web"])));
    }

    #[test]
    fn tags_may_be_changed_where_the_file_allows_it() {
        let mut cluster = Cluster::new(LEVEL);
        for (allows, changed) in [(true, vec![]), (false, ids(&["w"]))] {
            let body = json!({"Name": "w", "Tags": ["a"], "EnableTagOverride": allows});
            cluster.register(&body, true);
            let (mut other, _) = service(&body);
            other.tags = ["b".to_owned()].into();
            cluster.write(other, Vec::new());
            assert_eq!(cluster.compare(&[body]), (changed, vec![]));
        }
    }

    #[test]
    fn before_all_servers_know_marks_the_catalogue_keeps_none() {
        let mut cluster = Cluster::new(FILE_MARK_LEVEL - 1);
        let body = json!({"Name": "w"});
        cluster.register(&body, true);
        let (mut other, _) = service(&body);
        other.port = 1;
        cluster.write(other, Vec::new());
        assert_eq!(cluster.compare(&[body]), nothing());
    }

    #[test]
    fn a_check_of_the_host_is_compared_too() {
        let mut cluster = Cluster::new(LEVEL);
        let mut check = parse_check(&json!({"Name": "disk", "TTL": "10m"})).unwrap();
        let given = check.clone();
        check.mark_from_file();
        let check = Box::new(check);
        cluster.run(Command::AgentRegisterCheck { agent: agent(), check });
        let compare = |checks: &[CheckRegistration]| {
            Comparison::new(&cluster.state, "h", std::iter::empty(), checks.iter()).checks
        };
        assert_eq!(compare(std::slice::from_ref(&given)), Ids::default());
        let moved = CheckRegistration { notes: "n".to_owned(), ..given };
        assert_eq!(compare(&[moved]).changed, ["disk"]);
        assert_eq!(compare(&[]).left, ["disk"]);
    }
}
