//! The rules of a policy: HCL, or JSON of the same shape.
//!
//! ```text
//! key_prefix "app/" { policy = "write" }
//! {"key_prefix": {"app/": {"policy": "write"}}, "operator": "read"}
//! ```
//!
//! Rules are replicated as they are understood here, beside their text, so that what they mean does not depend on
//! which server reads them. What Consul lets through without meaning (misspelt kinds) is refused: a rule that is not
//! there is found out when somebody is locked out, or is not.

use std::fmt;

use hcl::structure::{Body, Structure};
use hcl::{Expression, ObjectKey};
use quorate_storage::record::{Access, AclKind, AclRule};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};

use crate::host::first_hcl::one_member_a_line;

/// Ends the kinds whose rules are about all names that begin with theirs.
const PREFIX: &str = "_prefix";
/// The member of a rule that says what it allows.
const POLICY: &str = "policy";
/// What a rule about a service may say of the service mesh, which there is not.
const INTENTIONS: &str = "intentions";
/// How deep rules may be nested; they need four levels.
const DEPTH_MAX: usize = 64;
/// Kinds of newer versions and of the paid edition, about what there is not.
const MEANINGLESS: [&str; 3] = ["mesh", "peering", "sentinel"];

/// Why rules cannot be used, in Consul's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// They cannot be read.
    Unreadable(String),
    /// One of them says something that there is not.
    Invalid(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "Failed to parse ACL rules: {why}"),
            Self::Invalid(what) => write!(f, "Invalid {what}"),
        }
    }
}

/// What HCL and JSON have in common. Names may come more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Members(Vec<(String, Self)>),
    List(Vec<Self>),
    /// A number, a truth value, an expression.
    Other,
}

/// Reads rules.
///
/// # Errors
/// The first thing that is wrong with them.
pub(super) fn parse(text: &str) -> Result<Vec<AclRule>, Fault> {
    let mut rules = Vec::new();
    for (name, node) in members(text)? {
        add(&mut rules, &name, &node)?;
    }
    Ok(rules)
}

/// Rules of the kind before 1.4, in which all names were beginnings of names, as rules of today.
///
/// # Errors
/// They cannot be read.
pub(super) fn translate(text: &str) -> Result<String, Fault> {
    let written = parse(text)?.into_iter().map(|rule| {
        let (kind, access) = (rule.kind.as_str(), rule.access.as_str());
        match rule.kind.has_names() {
            true => format!("{kind}{PREFIX} {:?} {{\n  policy = {access:?}\n}}", &*rule.name),
            false => format!("{kind} = {access:?}"),
        }
    });
    Ok(written.collect::<Vec<_>>().join("\n\n"))
}

fn members(text: &str) -> Result<Vec<(String, Node)>, Fault> {
    let unreadable = |why: String| Fault::Unreadable(why);
    let text = text.trim();
    if is_deep(text) {
        return Err(unreadable("it is nested too deeply".to_owned()));
    }
    if text.starts_with('{') {
        return match serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))? {
            Node::Members(members) => Ok(members),
            Node::Text(_) | Node::List(_) | Node::Other => Err(unreadable("no object".to_owned())),
        };
    }
    // Consul reads the first HCL, whose members need no lines of their own.
    let body = hcl::parse(text)
        .or_else(|error| hcl::parse(&one_member_a_line(text)).map_err(|_| error))
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(of_body(body))
}

/// Whether a text may lead the parsers, which recurse, too deep. Strings count too: no name has so many of these.
fn is_deep(text: &str) -> bool {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'!' | b'?' => operators += 1,
            _ => {}
        }
        depth > DEPTH_MAX || operators > DEPTH_MAX
    })
}

fn of_body(body: Body) -> Vec<(String, Node)> {
    body.into_iter()
        .map(|structure| match structure {
            Structure::Attribute(attribute) => {
                (attribute.key.as_str().to_owned(), of_expression(attribute.expr))
            }
            Structure::Block(block) => {
                let labels = block.labels.into_iter().rev();
                let inner = Node::Members(of_body(block.body));
                let nested = labels.fold(inner, |inner, label| {
                    Node::Members(vec![(label.as_str().to_owned(), inner)])
                });
                (block.identifier.as_str().to_owned(), nested)
            }
        })
        .collect()
}

fn of_expression(expression: Expression) -> Node {
    match expression {
        Expression::String(text) => Node::Text(text),
        Expression::Array(all) => Node::List(all.into_iter().map(of_expression).collect()),
        Expression::Object(members) => Node::Members(
            members
                .into_iter()
                .filter_map(|(key, value)| {
                    let key = match key {
                        ObjectKey::Identifier(name) => name.as_str().to_owned(),
                        ObjectKey::Expression(Expression::String(text)) => text,
                        _ => return None,
                    };
                    Some((key, of_expression(value)))
                })
                .collect(),
        ),
        _ => Node::Other,
    }
}

/// Adds the rules of one member.
fn add(rules: &mut Vec<AclRule>, name: &str, node: &Node) -> Result<(), Fault> {
    let lower = name.to_ascii_lowercase();
    let (word, is_prefix) = match lower.strip_suffix(PREFIX) {
        Some(word) => (word, true),
        None => (&*lower, false),
    };
    if MEANINGLESS.contains(&word) {
        return Ok(());
    }
    let kind = AclKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    let Some(kind) = kind.filter(|kind| kind.has_names() || !is_prefix) else {
        return Err(Fault::Invalid(format!("{name} policy: there is no such kind of rules")));
    };
    if kind.has_names() {
        return each(name, node, &mut |label, body| {
            let access = access(kind, &lower, label, body)?;
            rules.push(AclRule { kind, is_prefix, name: label.into(), access });
            Ok(())
        });
    }
    match node {
        Node::Text(text) if text.is_empty() => Ok(()),
        Node::Text(text) => {
            let access = level(text).filter(|access| *access != Access::List);
            let access =
                access.ok_or_else(|| Fault::Invalid(format!("{lower} policy: {text:?}")))?;
            rules.push(AclRule { kind, is_prefix: false, name: "".into(), access });
            Ok(())
        }
        Node::Members(_) | Node::List(_) | Node::Other => {
            Err(Fault::Unreadable(format!("{name}: a text is expected, such as \"read\"")))
        }
    }
}

/// Hands over each name with what is said of it. Lists stand for repeated members.
fn each(
    name: &str,
    node: &Node,
    take: &mut impl FnMut(&str, &Node) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match node {
        Node::Members(members) => members.iter().try_for_each(|(label, body)| match body {
            Node::List(bodies) => bodies.iter().try_for_each(|body| take(label, body)),
            body => take(label, body),
        }),
        Node::List(all) => all.iter().try_for_each(|node| each(name, node, take)),
        Node::Text(_) | Node::Other => {
            Err(Fault::Unreadable(format!("{name}: a block with a name is expected")))
        }
    }
}

/// What a rule about a name allows.
fn access(kind: AclKind, word: &str, label: &str, body: &Node) -> Result<Access, Fault> {
    let invalid = || Fault::Invalid(format!("{word} policy: {label:?}"));
    let Node::Members(members) = body else {
        return Err(Fault::Unreadable(format!("{word} {label:?}: a block is expected")));
    };
    let mut found = None;
    for (name, value) in members {
        let text = match value {
            Node::Text(text) => Some(text.as_str()),
            Node::Members(_) | Node::List(_) | Node::Other => None,
        };
        if name.eq_ignore_ascii_case(POLICY) {
            let given = text.and_then(level).ok_or_else(invalid)?;
            found = Some(found.map_or(given, |access: Access| access.merged(given)));
        } else if name.eq_ignore_ascii_case(INTENTIONS) && kind == AclKind::Service {
            let given = text.map(|text| (text.is_empty(), level(text)));
            if !matches!(
                given,
                Some((true, _) | (_, Some(Access::Read | Access::Write | Access::Deny)))
            ) {
                return Err(Fault::Invalid(format!("{word} intentions policy: {label:?}")));
            }
        }
    }
    let found = found.ok_or_else(invalid)?;
    match found {
        Access::List if kind != AclKind::Key => Err(invalid()),
        found => Ok(found),
    }
}

fn level(text: &str) -> Option<Access> {
    let all = [Access::Read, Access::List, Access::Write, Access::Deny];
    all.into_iter().find(|access| access.as_str().eq_ignore_ascii_case(text))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfJson)
    }
}

struct OfJson;

impl<'de> Visitor<'de> for OfJson {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rules")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Members(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(Node::List(all))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String, &'static str)>, String> {
        let rules = parse(text).map_err(|fault| fault.to_string())?;
        let shown = rules.into_iter().map(|rule| {
            let prefix = if rule.is_prefix { PREFIX } else { "" };
            let kind = format!("{}{prefix}", rule.kind.as_str());
            (kind, rule.name.to_string(), rule.access.as_str())
        });
        Ok(shown.collect())
    }

    fn rule(kind: &str, name: &str, access: &'static str) -> (String, String, &'static str) {
        (kind.to_owned(), name.to_owned(), access)
    }

    #[test]
    fn hcl_and_json_say_the_same_in_all_their_forms() {
        let app = vec![rule("key_prefix", "app/", "write")];
        for text in [
            "key_prefix \"app/\" { policy = \"write\" }",
            "key_prefix = { \"app/\" = { policy = \"write\" } }",
            "# one\n// two\n/* three */ key_prefix \"app/\" {\n  policy = \"write\", # four\n}\n",
            "KEY_PREFIX \"app/\" { policy = \"WRITE\" foo = \"bar\" }",
            r#"{"key_prefix":{"app/":{"policy":"write"}}}"#,
            r#" {"key_prefix":[{"app/":[{"policy":"write"}]}]}"#,
        ] {
            assert_eq!(read(text), Ok(app.clone()), "{text}");
        }
        assert_eq!(read(" \n "), Ok(Vec::new()));
        assert_eq!(read("acl = \"\"\nmesh = \"read\""), Ok(Vec::new()));
        assert_eq!(read("operator = \"read\"").unwrap(), [rule("operator", "", "read")]);
        assert_eq!(read("key a { policy = \"list\" }").unwrap(), [rule("key", "a", "list")]);
    }

    #[test]
    fn what_is_said_twice_is_kept_twice() {
        for text in [
            "key \"a\" { policy = \"read\" }\nkey \"a\" { policy = \"deny\" }",
            r#"{"key":{"a":{"policy":"read"}},"key":{"a":{"policy":"deny"}}}"#,
            r#"{"key":{"a":{"policy":"read"},"a":{"policy":"deny"}}}"#,
        ] {
            let both = vec![rule("key", "a", "read"), rule("key", "a", "deny")];
            assert_eq!(read(text), Ok(both), "{text}");
        }
    }

    #[test]
    fn rules_are_refused_in_the_words_of_consul() {
        for (text, words) in [
            ("key \"a\" { policy = \"rw\" }", "Invalid key policy: "),
            ("service \"a\" { policy = \"list\" }", "Invalid service policy: "),
            ("key_prefix \"a\" { }", "Invalid key_prefix policy: "),
            ("key \"a\" { policy = \"\" }", "Invalid key policy: "),
            ("acl = \"admin\"", "Invalid acl policy: \"admin\""),
            ("operator { policy = \"read\" }", "Failed to parse ACL rules: "),
            ("key \"a\" { policy = \"read\"", "Failed to parse ACL rules: "),
            ("}{", "Failed to parse ACL rules: "),
            ("key = \"read\"", "Failed to parse ACL rules: "),
            ("key", "Failed to parse ACL rules: "),
            ("key \"a\" \"b\" { policy = \"read\" }", "Invalid key policy: "),
            (
                "service \"a\" { policy = \"read\" intentions = \"maybe\" }",
                "Invalid service intentions policy: ",
            ),
            ("keys \"a\" { policy = \"read\" }", "Invalid keys policy: there is no such kind"),
            ("acl_prefix = \"read\"", "Invalid acl_prefix policy: there is no such kind"),
            ("{\"key\":{\"a\":{\"policy\":\"read\"}}", "Failed to parse ACL rules: "),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.starts_with(words), "{text}: {told}");
        }
    }

    #[test]
    fn old_rules_become_rules_about_beginnings() {
        let text = "key \"a\" { policy = \"read\" }\nagent \"\" { policy = \"read\" }\n";
        let new = "key_prefix \"a\" {\n  policy = \"read\"\n}\n\nagent_prefix \"\" {\n  policy = \"read\"\n}";
        assert_eq!(translate(text).unwrap(), new);
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_refused(text in "[a-z_{}\"= \\[\\]:,\n#/*\\\\]{0,60}") {
            let _ = parse(&text);
        }
    }
}
