use std::sync::Arc;

use crate::command::{
    AclCommand, AclRefusal, Agent, Batch, Command, Duty, KvPutMode, LinkRequest, LinkRequests,
    Outcome, Part, Permits, PolicyRequest, Rejection, RoleRequest, TokenRequest,
};
use crate::record::{
    ANONYMOUS_ACCESSOR, Access, AclKind, AclRule, Authority, DefaultPolicy, MANAGEMENT_POLICY,
    SecretHash, ServiceDefinition,
};
use crate::state::ACL_LEVEL;
use crate::{ClusterTime, Millis, State, Topic};

/// A state whose commands are those of one server.
struct Cluster {
    state: State,
    last: u64,
    /// In whose name the next commands are given.
    by: Option<Arc<str>>,
}

impl Cluster {
    fn new() -> Self {
        let mut state = State::default();
        state.apply(&Batch { duty: Some(Duty::Level(ACL_LEVEL)), ..Batch::default() });
        Self { state, last: 0, by: None }
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.last += 1;
        let mut commands = vec![(self.last, command)];
        let by = self.by.clone().map(authority);
        if let Some(permits) = Permits::note([by.as_ref()]) {
            commands.insert(0, (0, Command::Permits(permits)));
        }
        let part = Part { origin: 1, incarnation: 1, answered_through: self.last - 1, commands };
        let stamp = self.state.time();
        let effects = self.state.apply(&Batch { stamp, duty: None, parts: vec![part] });
        self.state.check_invariants().unwrap();
        let [(_, outcome)] = &effects.outcomes[..] else { panic!("one outcome") };
        outcome.clone()
    }

    fn acl(&mut self, command: AclCommand) -> Outcome {
        self.run(Command::Acl(command))
    }

    /// A policy of this name and id, with one rule about names that begin so.
    fn policy(&mut self, id: &str, kind: AclKind, prefix: &str, access: Access) {
        let rule = AclRule { kind, is_prefix: true, name: prefix.into(), access };
        let request = PolicyRequest {
            id: id.into(),
            is_new: self.state.acl_policy(id).is_none(),
            name: id.to_owned(),
            rules: vec![rule],
            counts: true,
            ..PolicyRequest::default()
        };
        assert_eq!(self.acl(AclCommand::PutPolicy(Box::new(request))), Outcome::Done);
    }

    /// A token with these policies and roles; its secret is its accessor.
    fn token(&mut self, accessor: &str, policies: &[&str], roles: &[&str], ttl: Millis) -> Outcome {
        let link = |name: &&str| LinkRequest { id: "".into(), name: (*name).to_owned() };
        let links = LinkRequests {
            policies: policies.iter().map(link).collect(),
            roles: roles.iter().map(link).collect(),
            ..LinkRequests::default()
        };
        self.acl(AclCommand::PutToken(Box::new(TokenRequest {
            accessor: accessor.into(),
            is_new: self.state.acl_token(accessor).is_none(),
            secret: Some(SecretHash::of(accessor)),
            links,
            ttl,
            ..TokenRequest::default()
        })))
    }

    fn put(&mut self, key: &str) -> Outcome {
        let (key, value) = (key.into(), bytes::Bytes::new());
        self.run(Command::KvPut { key, value, flags: 0, mode: KvPutMode::Set })
    }

    fn tick(&mut self, time: u64) {
        let duty = Some(Duty::ExpireDue { up_to: ClusterTime(time), max: 100 });
        self.state.apply(&Batch { stamp: ClusterTime(time), duty, parts: Vec::new() });
        self.state.check_invariants().unwrap();
    }
}

fn authority(token: Arc<str>) -> Authority {
    Authority { token, default: DefaultPolicy::Deny }
}

fn is_denied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(Rejection::Denied(_)))
}

const NO_TOKEN: Outcome = Outcome::Rejected(Rejection::NoToken);

#[test]
fn there_is_an_anonymous_token_and_a_policy_that_allows_everything() {
    let cluster = Cluster::new();
    assert!(cluster.state.acl_token(ANONYMOUS_ACCESSOR).is_some());
    assert_eq!(cluster.state.acl_policies().count(), 1);
    let anonymous = cluster.state.rights(&authority(ANONYMOUS_ACCESSOR.into())).unwrap();
    assert!(!anonymous.sees_key("a"));
}

#[test]
fn a_command_takes_effect_only_if_its_token_may_give_it_when_it_is_applied() {
    let mut cluster = Cluster::new();
    cluster.policy("p", AclKind::Key, "app/", Access::Write);
    assert_eq!(cluster.token("t", &["p"], &[], Millis::ZERO), Outcome::Done);
    cluster.by = Some("t".into());
    assert_eq!(cluster.put("app/a"), Outcome::Condition(true));
    assert!(is_denied(&cluster.put("other")));
    assert!(cluster.state.key("other").is_none());
    // Its rights are those of the moment.
    cluster.by = None;
    cluster.policy("p", AclKind::Key, "app/", Access::Read);
    cluster.by = Some("t".into());
    assert!(is_denied(&cluster.put("app/b")));
    cluster.by = None;
    cluster.acl(AclCommand::DeleteToken { accessor: "t".into() });
    cluster.by = Some("t".into());
    assert_eq!(cluster.put("app/c"), NO_TOKEN);
    // A server's own commands need none.
    cluster.by = None;
    assert_eq!(cluster.put("other"), Outcome::Condition(true));
}

#[test]
fn a_role_gives_what_its_policies_do_and_goes_with_them() {
    let mut cluster = Cluster::new();
    cluster.policy("p", AclKind::Key, "", Access::Write);
    let links = LinkRequests {
        policies: vec![LinkRequest { id: "p".into(), name: String::new() }],
        ..LinkRequests::default()
    };
    let role = RoleRequest {
        id: "r".into(),
        is_new: true,
        name: "R".to_owned(),
        links,
        ..RoleRequest::default()
    };
    assert_eq!(cluster.acl(AclCommand::PutRole(Box::new(role))), Outcome::Done);
    cluster.token("t", &[], &["r"], Millis::ZERO);
    let may = |cluster: &Cluster| {
        cluster.state.rights(&authority("t".into())).unwrap().allows(
            AclKind::Key,
            "a",
            Access::Write,
        )
    };
    assert!(may(&cluster));
    cluster.acl(AclCommand::DeletePolicy { id: "p".into() });
    assert!(!may(&cluster));
    assert!(cluster.state.acl_role("r").unwrap().links.policies.is_empty());
    cluster.acl(AclCommand::DeleteRole { id: "r".into() });
    assert!(cluster.state.acl_token("t").unwrap().links.roles.is_empty());
}

#[test]
fn a_token_expires_in_cluster_time_and_no_sooner() {
    let mut cluster = Cluster::new();
    cluster.token("t", &[], &[], Millis(60_000));
    let index = cluster.state.topic_index(&Topic::AclTokens);
    cluster.tick(59_999);
    assert!(cluster.state.acl_token("t").is_some());
    // Nobody's from then on, whenever it is removed.
    cluster.state.apply(&Batch { stamp: ClusterTime(60_000), ..Batch::default() });
    assert!(cluster.state.acl_token("t").is_none());
    assert!(cluster.state.acl_token_of(&SecretHash::of("t")).is_none());
    assert_eq!(cluster.state.topic_index(&Topic::AclTokens), index);
    cluster.tick(60_000);
    assert!(cluster.state.topic_index(&Topic::AclTokens) > index);
}

#[test]
fn one_bootstrap_is_allowed_and_another_only_with_the_number_of_the_last_one() {
    let mut cluster = Cluster::new();
    let bootstrap = |accessor: &str, reset| AclCommand::Bootstrap {
        accessor: accessor.into(),
        secret: SecretHash::of(accessor),
        reset,
    };
    assert_eq!(cluster.acl(bootstrap("a", None)), Outcome::Done);
    let rights = cluster.state.rights(&authority("a".into())).unwrap();
    assert!(rights.allows(AclKind::Acl, "", Access::Write) && rights.sees_key("a"));
    let Outcome::Rejected(Rejection::Acl(AclRefusal::Bootstrapped(index))) =
        cluster.acl(bootstrap("b", None))
    else {
        panic!("two bootstraps")
    };
    let wrong = AclRefusal::WrongReset { given: index + 1, index };
    let refused = cluster.acl(bootstrap("b", Some(index + 1)));
    assert_eq!(refused, Outcome::Rejected(Rejection::Acl(wrong)));
    assert_eq!(cluster.acl(bootstrap("b", Some(index))), Outcome::Done);
}

#[test]
fn what_would_lock_everybody_out_is_refused() {
    let mut cluster = Cluster::new();
    let refused = |outcome: Outcome| match outcome {
        Outcome::Rejected(Rejection::Acl(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let management = AclCommand::DeletePolicy { id: MANAGEMENT_POLICY.into() };
    assert_eq!(refused(cluster.acl(management)), AclRefusal::ManagementStays);
    let anonymous = AclCommand::DeleteToken { accessor: ANONYMOUS_ACCESSOR.into() };
    assert_eq!(refused(cluster.acl(anonymous)), AclRefusal::AnonymousStays);
    let without_rules = PolicyRequest {
        id: MANAGEMENT_POLICY.into(),
        name: "global-management".to_owned(),
        ..PolicyRequest::default()
    };
    let changed = refused(cluster.acl(AclCommand::PutPolicy(Box::new(without_rules))));
    assert!(matches!(changed, AclRefusal::ManagementChanges(_)));
    let NoSuch { .. } = refused(cluster.token("t", &["none"], &[], Millis::ZERO)) else {
        panic!("a link to nothing")
    };
    use AclRefusal::NoSuch;
}

#[test]
fn a_service_is_written_under_its_old_name_too() {
    let mut cluster = Cluster::new();
    cluster.policy("p", AclKind::Service, "web", Access::Write);
    cluster.token("t", &["p"], &[], Millis::ZERO);
    let register = |id: &str, name: &str| Command::AgentRegisterService {
        agent: Agent { name: "h1".into(), id: String::new(), address: "10.0.0.1".to_owned() },
        service: Box::new(ServiceDefinition {
            id: id.into(),
            name: name.into(),
            ..ServiceDefinition::default()
        }),
        checks: Vec::new(),
        replace_existing_checks: false,
    };
    assert_eq!(cluster.run(register("a", "db")), Outcome::Done);
    cluster.by = Some("t".into());
    assert!(is_denied(&cluster.run(register("a", "web"))));
    assert_eq!(cluster.run(register("b", "web")), Outcome::Done);
}

#[test]
fn a_command_whose_authority_leads_nowhere_is_refused() {
    let mut cluster = Cluster::new();
    let permits = Permits { authorities: Vec::new(), of: vec![7] };
    let put = Command::KvPut {
        key: "a".into(),
        value: bytes::Bytes::new(),
        flags: 0,
        mode: KvPutMode::Set,
    };
    let commands = vec![(0, Command::Permits(permits)), (1, put)];
    let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
    let batch = Batch { stamp: ClusterTime(1), duty: None, parts: vec![part] };
    assert_eq!(cluster.state.apply(&batch).outcomes[0].1, NO_TOKEN);
}
