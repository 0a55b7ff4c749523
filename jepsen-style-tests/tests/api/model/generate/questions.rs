//! Random reads, and those that are repeated all the time.

use super::super::expression::{self, Expression, Selectors};
use super::super::reads::Read;
use super::super::state::Topic;
use super::{AGENTS, Generator, PREFIXES, SERVICE_IDS};

/// Look-ups ignore case; some of these never have an instance.
const SERVICES_ASKED: &[&str] =
    &["web", "db", "WEB", "wéb", "WéB", "WÉB", "consul", "none", "none/at all"];

impl Generator<'_> {
    fn filter(&mut self, selectors: Selectors) -> Option<Expression> {
        let depth = u32::try_from(self.dice.below(4)).unwrap_or(0);
        self.dice.one_in(2).then(|| Expression::random(self.dice, selectors, depth))
    }

    fn tags(&mut self) -> Vec<String> {
        let count = *self.dice.pick(&[0, 0, 1, 2]);
        (0..count).map(|_| self.dice.word(&["a", "BLUE", "blue", "v1.0", ""])).collect()
    }

    pub(super) fn read(&mut self) -> Read {
        let name = self.dice.word(SERVICES_ASKED);
        let agent = self.dice.word(AGENTS);
        match self.dice.below(30) {
            0 => Read::Key(self.wild_key()),
            1..4 => Read::Key(self.key().into_bytes()),
            4 => Read::RawKey(self.key()),
            5 | 6 => Read::Recurse(self.dice.word(PREFIXES)),
            7 | 8 => Read::Names {
                prefix: self.dice.word(PREFIXES),
                separator: self.dice.word(&["", "/", "b", "//", "é"]),
            },
            9 => Read::Sessions,
            10 => Read::Session(self.a_session()),
            11 => Read::SessionsOf(self.any_node()),
            12 => {
                let meta = self.dice.one_in(3).then(|| ("env".to_owned(), "prod".to_owned()));
                Read::Nodes { meta, filter: self.filter(expression::NODE) }
            }
            13 => Read::Services,
            14 | 15 => {
                let tags = self.tags();
                Read::Service { name, tags, filter: self.filter(expression::CATALOG_SERVICE) }
            }
            16 => Read::Node(self.any_node()),
            17 => Read::NodeServices(self.any_node()),
            18..21 => {
                let (tags, passing) = (self.tags(), self.dice.one_in(3));
                Read::Health { name, tags, passing, filter: self.filter(expression::HEALTH) }
            }
            21 => Read::ChecksOf(name),
            22 => {
                let node = self.any_node();
                Read::ChecksOn { node, filter: self.filter(expression::CHECK) }
            }
            23 => {
                let status = self.dice.word(&["any", "passing", "warning", "critical", "odd"]);
                Read::ChecksIn { status, filter: self.filter(expression::CHECK) }
            }
            24 => match self.dice.below(4) {
                0 => Read::Queries,
                1 => Read::Execute(self.dice.word(&["q1", "q2", "none"])),
                2 => Read::Events(self.dice.word(&["", "deploy"])),
                _ => self.a_query().map_or(Read::Queries, Read::Query),
            },
            25 => Read::AgentServices(agent),
            26 => Read::AgentChecks(agent),
            27 => Read::AgentService { agent, id: self.dice.word(SERVICE_IDS) },
            28 => match self.dice.one_in(2) {
                true => Read::AgentHealth { agent, id: self.dice.word(SERVICE_IDS) },
                false => Read::AgentHealthOf { agent, name },
            },
            _ => match self.dice.one_in(2) {
                true => Read::Coordinates,
                false => Read::Coordinate(self.any_node()),
            },
        }
    }
}

/// What is watched all the time.
pub(crate) fn topics() -> Vec<(Topic, Read)> {
    let mut topics = vec![
        (Topic::Services, Read::Services),
        (Topic::Nodes, Read::Nodes { meta: None, filter: None }),
        (Topic::Checks, Read::ChecksIn { status: "none".to_owned(), filter: None }),
        (Topic::Sessions, Read::Sessions),
        (Topic::Queries, Read::Queries),
        (Topic::Coordinates, Read::Coordinates),
    ];
    for key in ["a", "a/b", "missing"] {
        topics.push((Topic::Key(key.to_owned()), Read::Key(key.as_bytes().to_vec())));
    }
    for prefix in ["a", "a/", "lock/", "never/", ""] {
        let names = Read::Names { prefix: prefix.to_owned(), separator: "/".to_owned() };
        topics.push((Topic::Prefix(prefix.to_owned()), names));
    }
    for node in ["n-a", "alpha", "missing"] {
        topics.push((Topic::Node(node.to_owned()), Read::Node(node.to_owned())));
    }
    for name in ["web", "db", "consul", "wéb", "missing"] {
        topics.push((Topic::Service(name.to_owned()), Read::ChecksOf(name.to_owned())));
    }
    topics
}
