//! What a set of rules allows.
//!
//! Rules of all policies of a token are merged by what they are about; then the exact rule decides, else that of
//! the longest prefix, else the default policy (Consul's order). A shorter prefix adds nothing to a longer one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::command::Denial;
use crate::record::{
    Access, AclKind, AclRule, Authority, DefaultPolicy, NodeIdentity, ServiceIdentity,
};

/// The proxy that Consul runs beside a service has this behind its name.
const SIDECAR: &str = "-sidecar-proxy";

/// Merged rules of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    exact: BTreeMap<Arc<str>, Access>,
    prefixes: BTreeMap<Arc<str>, Access>,
}

impl Rules {
    fn of(&self, name: &str) -> Option<Access> {
        self.exact.get(name).copied().or_else(|| self.of_prefix(name))
    }

    /// The rule of the longest prefix of a name.
    fn of_prefix(&self, name: &str) -> Option<Access> {
        let mut bound = name;
        loop {
            let (prefix, access) = self.prefixes.range::<str, _>(up_to(bound)).next_back()?;
            // In order, prefixes of a name lie at or before it; a longer one lies behind a shorter one.
            if name.starts_with(&**prefix) {
                return Some(*access);
            }
            bound = common(bound, prefix);
        }
    }

    /// Whether every name below a prefix may be written, existing or not.
    fn allows_all_below(&self, prefix: &str, default: DefaultPolicy) -> bool {
        let covering = self.of_prefix(prefix);
        let is_covered =
            covering.map_or(default == DefaultPolicy::Allow, |access| access == Access::Write);
        let below = |rules: &BTreeMap<Arc<str>, Access>| {
            rules
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(name, _)| name.starts_with(prefix))
                .all(|(_, access)| *access == Access::Write)
        };
        is_covered && below(&self.exact) && below(&self.prefixes)
    }
}

/// All texts up to one, which is among them.
const fn up_to(last: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(last))
}

/// What two texts begin with in common. Shorter than `text` if `other` is no prefix of it and before it in order.
fn common<'a>(text: &'a str, other: &str) -> &'a str {
    let mut same = 0;
    for (own, their) in text.chars().zip(other.chars()) {
        if own != their {
            break;
        }
        same += own.len_utf8();
    }
    &text[..same]
}

/// The rules of a token, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorizer {
    kinds: BTreeMap<AclKind, Rules>,
}

impl Authorizer {
    /// Merges a rule.
    pub(super) fn add(&mut self, rule: &AclRule) {
        let rules = self.kinds.entry(rule.kind).or_default();
        let table = if rule.is_prefix { &mut rules.prefixes } else { &mut rules.exact };
        table
            .entry(rule.name.clone())
            .and_modify(|access| *access = access.merged(rule.access))
            .or_insert(rule.access);
    }

    fn add_one(&mut self, kind: AclKind, is_prefix: bool, name: &str, access: Access) {
        self.add(&AclRule { kind, is_prefix, name: name.into(), access });
    }

    /// What the instances of a service need: to register themselves, and to find all others.
    pub(super) fn add_service(&mut self, identity: &ServiceIdentity) {
        if identity.counts {
            self.add_one(AclKind::Service, false, &identity.service, Access::Write);
            let sidecar = format!("{}{SIDECAR}", identity.service);
            self.add_one(AclKind::Service, false, &sidecar, Access::Write);
            self.add_one(AclKind::Service, true, "", Access::Read);
            self.add_one(AclKind::Node, true, "", Access::Read);
        }
    }

    /// What the agent of a node needs.
    pub(super) fn add_node(&mut self, identity: &NodeIdentity) {
        if identity.counts {
            self.add_one(AclKind::Node, false, &identity.node, Access::Write);
            self.add_one(AclKind::Service, true, "", Access::Read);
        }
    }

    /// Everything.
    pub(super) fn add_all(&mut self) {
        for kind in AclKind::ALL {
            self.add_one(kind, kind.has_names(), "", Access::Write);
        }
    }

    fn of(&self, kind: AclKind, name: &str) -> Option<Access> {
        self.kinds.get(&kind)?.of(name)
    }
}

/// What a token may do at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Whose they are.
    pub by: Authority,
    authorizer: Arc<Authorizer>,
}

impl Rights {
    pub(super) const fn new(by: Authority, authorizer: Arc<Authorizer>) -> Self {
        Self { by, authorizer }
    }

    /// Whether something may be done to what has a name; what has none is asked for with an empty one.
    #[must_use]
    pub fn allows(&self, kind: AclKind, name: &str, wanted: Access) -> bool {
        match self.authorizer.of(kind, name) {
            Some(access) => access.includes(wanted),
            // Who may change rights may do everything: that is never allowed by default.
            None => self.by.default == DefaultPolicy::Allow && kind != AclKind::Acl,
        }
    }

    /// The same as an error.
    ///
    /// # Errors
    /// It may not.
    pub fn require(&self, kind: AclKind, name: &str, wanted: Access) -> Result<(), Denial> {
        if self.allows(kind, name, wanted) { Ok(()) } else { Err(self.denial(kind, name, wanted)) }
    }

    /// Says what is lacking.
    #[must_use]
    pub fn denial(&self, kind: AclKind, name: &str, wanted: Access) -> Denial {
        Denial {
            token: self.by.token.clone(),
            permission: format!("{}:{}", kind.as_str(), wanted.as_str()),
            resource: name.to_owned(),
        }
    }

    /// Whether all keys below a prefix may be removed.
    ///
    /// # Errors
    /// They may not.
    pub fn require_keys_below(&self, prefix: &str) -> Result<(), Denial> {
        let none = Rules::default();
        let rules = self.authorizer.kinds.get(&AclKind::Key).unwrap_or(&none);
        match rules.allows_all_below(prefix, self.by.default) {
            true => Ok(()),
            false => Err(self.denial(AclKind::Key, prefix, Access::Write)),
        }
    }

    /// Whether a key may be seen.
    #[must_use]
    pub fn sees_key(&self, key: &str) -> bool {
        self.allows(AclKind::Key, key, Access::Read)
    }

    /// Whether a node may be seen.
    #[must_use]
    pub fn sees_node(&self, node: &str) -> bool {
        self.allows(AclKind::Node, node, Access::Read)
    }

    /// Whether a service may be seen, on nodes that may be.
    #[must_use]
    pub fn sees_service(&self, service: &str) -> bool {
        self.allows(AclKind::Service, service, Access::Read)
    }

    /// Whether instances of a service on a node may be seen.
    #[must_use]
    pub fn sees_instance(&self, node: &str, service: &str) -> bool {
        self.sees_node(node) && self.sees_service(service)
    }

    /// Whether a check may be seen; one of a node has no service.
    #[must_use]
    pub fn sees_check(&self, node: &str, service: &str) -> bool {
        self.sees_node(node) && (service.is_empty() || self.sees_service(service))
    }

    /// Whether the rules are the same as those of others.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.by == other.by
            && (Arc::ptr_eq(&self.authorizer, &other.authorizer)
                || self.authorizer == other.authorizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(default: DefaultPolicy, rules: &[(AclKind, bool, &str, Access)]) -> Rights {
        let mut authorizer = Authorizer::default();
        for (kind, is_prefix, name, access) in rules {
            authorizer.add_one(*kind, *is_prefix, name, *access);
        }
        Rights::new(Authority { token: "t".into(), default }, Arc::new(authorizer))
    }

    use crate::record::Access::{Deny, List, Read, Write};
    use crate::record::AclKind::{Acl, Key, Operator};

    #[test]
    fn the_exact_rule_decides_and_else_the_longest_prefix() {
        let rights = rights(
            DefaultPolicy::Deny,
            &[
                (Key, true, "", Read),
                (Key, true, "app/", Write),
                (Key, true, "app/secret/", Deny),
                (Key, false, "app/secret/mine", Write),
                (Key, true, "app/zzz", Read),
            ],
        );
        for (name, write, read) in [
            ("other", false, true),
            ("app/", true, true),
            ("app/x", true, true),
            ("app", false, true),
            ("app/secret/x", false, false),
            ("app/secret/mine", true, true),
            ("app/secret/mine2", false, false),
            ("app/zz", true, true),
            ("app/zzzz", false, true),
            ("app/\u{e9}", true, true),
        ] {
            assert_eq!(rights.allows(Key, name, Write), write, "{name}");
            assert_eq!(rights.allows(Key, name, Read), read, "{name}");
        }
        let text = rights.require(Key, "app/secret/x", Read).unwrap_err().to_string();
        assert_eq!(
            text,
            "Permission denied: token with AccessorID 't' lacks permission 'key:read' on \"app/secret/x\""
        );
    }

    #[test]
    fn without_a_rule_the_default_decides_but_not_about_rights() {
        let open = rights(DefaultPolicy::Allow, &[(Key, false, "a", Read)]);
        assert!(open.allows(Key, "b", Write) && open.allows(Operator, "", Write));
        assert!(!open.allows(Key, "a", Write) && !open.allows(Acl, "", Read));
        let closed =
            rights(DefaultPolicy::Deny, &[(Operator, false, "", Read), (Key, false, "", Read)]);
        assert!(closed.allows(Operator, "", Read) && !closed.allows(Operator, "", Write));
        // An exact rule about the empty name covers nothing else.
        assert!(!closed.sees_key("a"));
    }

    #[test]
    fn a_tree_is_removed_only_where_nothing_in_it_is_out_of_reach() {
        let tree = |rules: &[(AclKind, bool, &str, Access)], prefix: &str| {
            rights(DefaultPolicy::Deny, rules).require_keys_below(prefix).is_ok()
        };
        assert!(tree(&[(Key, true, "a/", Write)], "a/b"));
        assert!(!tree(&[(Key, false, "a/", Write)], "a/"));
        assert!(!tree(&[(Key, true, "a/", Write), (Key, false, "a/b/c", Read)], "a/b"));
        assert!(!tree(&[(Key, true, "a/", Write), (Key, true, "a/b/c", List)], "a/"));
        assert!(tree(&[(Key, true, "a/", Write), (Key, true, "a/b/c", Deny)], "a/c"));
    }

    #[test]
    fn the_longest_prefix_is_found_among_many_that_lie_between() {
        let names = ["", "a", "ab", "abc", "abca", "abcb", "abd", "b", "\u{e9}", "\u{e9}a"];
        let rules: Vec<_> = names.iter().map(|name| (Key, true, *name, Read)).collect();
        let rights = rights(DefaultPolicy::Deny, &rules);
        for name in ["abcz", "abcab", "ac", "", "z", "\u{e9}b", "\u{e8}"] {
            assert!(rights.sees_key(name), "{name}");
        }
    }
}
