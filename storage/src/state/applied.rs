//! What must hold after every entry, as far as it is cheap to see: a running server looks at it, and stops
//! rather than continue with a state that contradicts itself.
//!
//! It costs a few look-ups for each topic that was touched. The whole cross-check is in `invariants.rs`.

use super::{Effects, State};
use crate::index::fold;
use crate::{ClusterTime, Index, Topic};

/// Of an entry that touches more, this many are looked at: a deletion may touch a million.
const TOPICS_LOOKED_AT_MAX: usize = 32;
/// Of a service with more instances, this many are.
const INSTANCES_LOOKED_AT_MAX: usize = 4;

/// What a state was before an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    time: ClusterTime,
    index: Index,
    /// The claims' own counter.
    claims: Index,
}

impl State {
    /// What [`State::check_applied`] has to know of the state before an entry.
    #[must_use]
    pub fn before(&self) -> Before {
        Before { time: self.time, index: self.index, claims: self.claims.header.index }
    }

    /// Checks what an entry did.
    ///
    /// # Errors
    /// A sentence that names the first thing that does not fit.
    pub fn check_applied(&self, before: Before, effects: &Effects) -> Result<(), String> {
        if self.time < before.time {
            return Err(format!("time fell from {} to {}", before.time, self.time));
        }
        if self.index < before.index {
            return Err(format!("the index fell from {} to {}", before.index.0, self.index.0));
        }
        if self.claims.header.index < before.claims {
            return Err("the counter of the claims fell".to_owned());
        }
        let mut topics = effects.touched.iter().take(TOPICS_LOOKED_AT_MAX);
        topics.try_for_each(|topic| self.check_topic(before, topic))
    }

    /// What was touched has an index of this entry, and its tables agree on it.
    fn check_topic(&self, before: Before, topic: &Topic) -> Result<(), String> {
        let index = self.topic_index(topic);
        let (first, last) = match topic.is_of_claims() {
            true => (before.claims, self.claims.header.index),
            false => (before.index, self.index),
        };
        if *topic != Topic::Everything && (index <= first || index > last) {
            return Err(format!(
                "{topic:?} was touched, but its index {} is not between {} and {}",
                index.0, first.0, last.0
            ));
        }
        let agrees = match topic {
            Topic::Key(key) => self.kv.entries.get(key).is_none_or(|row| {
                let holder = row.session.as_ref();
                row.key == *key && holder.is_none_or(|holder| self.sessions.contains_key(holder))
            }),
            Topic::Node(name) => {
                self.catalog.nodes.get(name).is_none_or(|slot| fold(&slot.node.name) == **name)
            }
            Topic::Service(name) => self.catalog.names.get(name).is_none_or(|named| {
                let mut instances = named.instances.iter().take(INSTANCES_LOOKED_AT_MAX);
                !named.instances.is_empty()
                    && instances.all(|((node, id), row)| {
                        let slot = self.catalog.nodes.get(node);
                        slot.and_then(|slot| slot.services.get(id)) == Some(row)
                    })
            }),
            Topic::Prefix(_)
            | Topic::Services
            | Topic::Nodes
            | Topic::Checks
            | Topic::Sessions
            | Topic::Events
            | Topic::Coordinates
            | Topic::Queries
            | Topic::Everything
            | Topic::Autopilot
            | Topic::Pool(_)
            | Topic::Claim(_)
            | Topic::AclTokens
            | Topic::AclPolicies
            | Topic::AclRoles => true,
        };
        if agrees { Ok(()) } else { Err(format!("the tables differ about {topic:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::command::{Batch, Command, KvPutMode, Part};

    fn put(state: &mut State, seq: u64) -> Effects {
        let command = Command::KvPut {
            key: "k".into(),
            value: Vec::from(seq.to_string()).into(),
            flags: 0,
            mode: KvPutMode::Set,
        };
        let part =
            Part { origin: 1, incarnation: 1, answered_through: 0, commands: vec![(seq, command)] };
        state.apply(&Batch { stamp: ClusterTime(5), duty: None, parts: vec![part] })
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        let mut state = State::default();
        let before = state.before();
        let effects = put(&mut state, 1);
        assert_eq!(state.check_applied(before, &effects), Ok(()));
        let after = state.before();
        let nothing = Effects::default();
        assert!(State::default().check_applied(after, &nothing).unwrap_err().contains("time fell"));
        assert_eq!(state.check_applied(after, &nothing), Ok(()));
        let unsaid = state.check_applied(after, &effects);
        assert!(unsaid.unwrap_err().contains("was touched, but its index"));
        let mut fallen = state.clone();
        fallen.index = Index(1);
        assert!(fallen.check_applied(after, &nothing).unwrap_err().contains("the index fell"));
        // A key that is held by a session that nobody has.
        let effects = put(&mut state, 2);
        let row = state.kv.entries.get("k").map(|row| row.as_ref().clone()).expect("it was put");
        let held = crate::record::KvEntry { session: Some("nobody".into()), ..row };
        state.kv.entries.insert(Arc::new(held));
        let touched = BTreeSet::from([Topic::Key("k".into())]);
        let effects = Effects { touched, ..effects };
        assert!(state.check_applied(after, &effects).unwrap_err().contains("the tables differ"));
    }
}
