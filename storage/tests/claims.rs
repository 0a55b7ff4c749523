//! Bounds of claims, and what a grant costs where many wait.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use quorate_storage::command::{
    Batch, ClaimLimit, ClaimRequest, ClaimsCommand, Command, Duty, Outcome, Part, Rejection,
};
use quorate_storage::record::{ClaimEnd, SLOTS, TextMap};
use quorate_storage::state::{CLAIMS_LEVEL, ENDED_CLAIMS_MAX};
use quorate_storage::{Millis, State};

/// A state whose commands are those of one server.
struct Cluster {
    state: State,
    last: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut state = State::default();
        let duty = Some(Duty::Level(CLAIMS_LEVEL));
        state.apply(&Batch { duty, ..Batch::default() });
        Self { state, last: 0 }
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.last += 1;
        let part = Part {
            origin: 1,
            incarnation: 1,
            answered_through: self.last - 1,
            commands: vec![(self.last, command)],
        };
        let stamp = self.state.time();
        let effects = self.state.apply(&Batch { stamp, duty: None, parts: vec![part] });
        effects.outcomes.into_iter().next().unwrap().1
    }

    fn claims(&mut self, command: ClaimsCommand) -> Outcome {
        self.run(Command::Claims(command))
    }

    fn instance(&mut self, service: &str, number: u32, slots: u32, meta: &[(&str, &str)]) {
        let mut row = common::service(&format!("{service}-{number}"), service, "10.0.0.7", 80);
        let texts = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let slots = [(SLOTS.to_owned(), slots.to_string())];
        row.meta = Some(texts.chain(slots).collect());
        self.run(Command::AgentRegisterService {
            agent: common::agent("h1"),
            service: Box::new(row),
            checks: Vec::new(),
            replace_existing_checks: false,
        });
    }

    fn claim(&mut self, service: &str, id: &str, holder: &str, require: &TextMap) -> Outcome {
        self.claims(ClaimsCommand::Claim(Box::new(ClaimRequest {
            id: id.into(),
            service: service.into(),
            holder: holder.into(),
            ttl: Millis(30_000),
            require: require.clone(),
            waits: true,
            ..ClaimRequest::default()
        })))
    }
}

fn full(limit: ClaimLimit) -> Outcome {
    Outcome::Rejected(Rejection::ClaimsFull(limit))
}

#[test]
fn so_many_wait_for_a_holder_a_pool_and_the_cluster() {
    let mut cluster = Cluster::new();
    let none = TextMap::new();
    for pool in 0..11 {
        let service = format!("s{pool}");
        cluster.instance(&service, 1, 1, &[]);
        assert_eq!(cluster.claim(&service, &format!("{service}-busy"), "op", &none), Outcome::Done);
    }
    for waiter in 0..1_000 {
        let id = format!("first-{waiter}");
        assert_eq!(cluster.claim("s0", &id, "gw", &none), Outcome::Done);
    }
    assert_eq!(cluster.claim("s1", "one-more", "gw", &none), full(ClaimLimit::Holder));
    for waiter in 1_000..10_000 {
        let holder = format!("h{}", waiter % 50);
        assert_eq!(cluster.claim("s0", &format!("w-{waiter}"), &holder, &none), Outcome::Done);
    }
    assert_eq!(cluster.claim("s0", "more", "other", &none), full(ClaimLimit::Pool));
    for pool in 1..10 {
        for waiter in 0..10_000 {
            let (id, holder) = (format!("w-{pool}-{waiter}"), format!("h-{pool}-{}", waiter % 50));
            assert_eq!(cluster.claim(&format!("s{pool}"), &id, &holder, &none), Outcome::Done);
        }
    }
    assert_eq!(cluster.claim("s10", "more", "other", &none), full(ClaimLimit::Cluster));
    // One that ends makes room, and an instance that is free needs none.
    cluster.claims(ClaimsCommand::Release { id: "first-0".into() });
    assert_eq!(cluster.claim("s10", "more", "gw", &none), Outcome::Done);
    cluster.instance("s11", 1, 1, &[]);
    assert_eq!(cluster.claim("s11", "free", "gw", &none), Outcome::Done);
    assert_eq!(cluster.state.pool("s0").unwrap().waiting(), 9_999);
}

#[test]
fn so_many_requirements_can_be_waited_for() {
    let mut cluster = Cluster::new();
    let require = |text: &str| TextMap::from([("region".to_owned(), text.to_owned())]);
    cluster.instance("rdb", 1, 1, &[]);
    for line in 0..64 {
        let (id, region) = (format!("c-{line}"), format!("r-{line}"));
        assert_eq!(cluster.claim("rdb", &id, "gw", &require(&region)), Outcome::Done);
    }
    assert_eq!(cluster.claim("rdb", "more", "gw", &require("r-64")), full(ClaimLimit::Requires));
    // As many as there is room for may use one line, and one in which nobody waits gives way.
    assert_eq!(cluster.claim("rdb", "same", "gw", &require("r-3")), Outcome::Done);
    cluster.claims(ClaimsCommand::Release { id: "c-7".into() });
    assert_eq!(cluster.claim("rdb", "more", "gw", &require("r-64")), Outcome::Done);
    cluster.state.check_invariants().unwrap();
}

#[test]
fn so_many_that_are_over_are_remembered() {
    let mut cluster = Cluster::new();
    cluster.instance("rdb", 1, 1, &[]);
    for claim in 0..=ENDED_CLAIMS_MAX {
        let id = format!("c-{claim}");
        assert_eq!(cluster.claim("rdb", &id, "gw", &TextMap::new()), Outcome::Done);
        assert_eq!(cluster.claims(ClaimsCommand::Release { id: id.into() }), Outcome::Done);
    }
    assert_eq!(cluster.state.claim("c-0"), None);
    let kept = cluster.state.claim("c-1").unwrap();
    assert_eq!(kept.ended(), Some(ClaimEnd::Released));
    cluster.state.check_invariants().unwrap();
}

#[test]
fn what_a_pool_counted_is_not_counted_again_when_it_was_forgotten() {
    let mut cluster = Cluster::new();
    for pool in 0..1_025 {
        let service = format!("s{pool:04}");
        cluster.instance(&service, 1, 1, &[]);
        let id = format!("{service}-claim");
        cluster.claim(&service, &id, "gw", &TextMap::new());
        cluster.claims(ClaimsCommand::Release { id: id.into() });
        cluster.run(Command::AgentDeregisterService {
            agent: common::agent("h1"),
            service_id: format!("{service}-1").into(),
        });
    }
    assert!(cluster.state.pool("s0000").is_none(), "the first is forgotten");
    assert_eq!(cluster.state.pool("s0001").unwrap().granted(), 1);
    cluster.instance("s0000", 1, 1, &[]);
    cluster.claim("s0000", "again", "gw", &TextMap::new());
    let claim = cluster.state.claim("again").unwrap();
    assert_eq!(claim.grant().unwrap().seq, 2);
    cluster.state.check_invariants().unwrap();
}
