//! Random hostile requests.

use jepsen_style_tests::raw::Request;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Map, Number, Value};

use super::routes::{ROUTES, Route};
use crate::dice::Dice;

const PATH_BYTES_MAX: usize = 4096;
const QUERY_BYTES_MAX: usize = 32 * 1024;
/// Far more than any parser should follow.
const NESTING: usize = 100_000;

const METHODS: &[&str] =
    &["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"];

/// Names of parameters that mean something somewhere. None that names a server to remove.
const NAMES: &[&str] = &[
    "stale",
    "consistent",
    "cached",
    "max_stale",
    "wait",
    "dc",
    "datacenter",
    "ns",
    "partition",
    "token",
    "pretty",
    "near",
    "node-meta",
    "filter",
    "tag",
    "passing",
    "recurse",
    "keys",
    "raw",
    "separator",
    "seperator",
    "flags",
    "cas",
    "acquire",
    "release",
    "enable",
    "reason",
    "note",
    "format",
    "replace-existing-checks",
    "agent",
    "name",
    "node",
    "service",
    "limit",
    "hash",
    "",
    "nope",
];

/// What they are given.
const VALUES: &[&str] = &[
    "",
    "0",
    "7",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "1e3",
    "true",
    "false",
    "maybe",
    "10s",
    "-5s",
    "1sec",
    "9999999999h",
    "dc1",
    "dc2",
    "*",
    "_agent",
    "_ip",
    "h",
    "a:b",
    ":",
    "(",
    "[a-",
    "a{1000}{1000}",
    "\0",
    "\u{7f}",
    "\u{202e}",
    "é",
    "%",
    "+",
    "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11",
    "{8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b1}",
    "../..",
    "<script>",
    "\r\nX-Injected: 1",
];

/// Pieces of filter expressions.
const TOKENS: &[&str] = &[
    "Node",
    "Service.Tags",
    "ServiceMeta[\"a\"]",
    "Meta.",
    "Checks.Status",
    "==",
    "!=",
    " in ",
    " not ",
    " and ",
    " or ",
    "(",
    ")",
    " is empty",
    " is not empty",
    " contains ",
    " matches ",
    "\"h\"",
    "`[`",
    "`(a+)+$`",
    "\"",
    "`",
    "1",
    "-1.5",
    "10.0.0.1",
    "\\",
    "é",
    "\0",
    "Nope",
];

/// Names of members of bodies.
const MEMBERS: &[&str] = &[
    "ID",
    "Name",
    "Node",
    "Address",
    "Service",
    "Tags",
    "Meta",
    "NodeMeta",
    "Port",
    "Weights",
    "Check",
    "Checks",
    "CheckID",
    "Status",
    "Definition",
    "TaggedAddresses",
    "Kind",
    "Proxy",
    "Connect",
    "Session",
    "LockDelay",
    "Behavior",
    "NodeChecks",
    "ServiceChecks",
    "KV",
    "Verb",
    "Key",
    "Value",
    "Flags",
    "Index",
    "Template",
    "Regexp",
    "DNS",
    "Coord",
    "Vec",
    "Nope",
    "",
    "name",
    "NAME",
    "service_id",
    "Passing",
];

/// Texts in bodies. No short times: what expires would change the state by itself.
const TEXTS: &[&str] = &[
    "",
    "h",
    "set",
    "cas",
    "lock",
    "get-or-empty",
    "get-tree",
    "passing",
    "odd",
    "2h",
    "-1s",
    "abc",
    "0.0.0.0",
    "::",
    "dc2",
    "é",
    "\u{0}",
    "\u{ffff}",
    "\u{2028}",
    "a b",
    "aA==",
    "!!!",
    "(((",
    "name_prefix_match",
    "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11",
];

/// A request, and what is known of it beforehand.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) request: Request,
    /// The path of the route that it is made from.
    pub(crate) path: &'static str,
}

impl Hostile {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let route = dice.pick(ROUTES);
        let method = match dice.one_in(8) {
            true => dice.one_of(METHODS),
            false => dice.one_of(route.methods),
        };
        // Mostly one thing is odd, so that it is looked at and not refused for another.
        let odd = dice.below(4);
        let is_odd = |part: usize| odd == part || odd == 3;
        let mut target = route.path.as_bytes().to_vec();
        if is_odd(0) && (route.path.ends_with('/') || dice.one_in(10)) {
            target.extend(tail(dice));
        } else if route.path.ends_with('/') {
            target.push(b'h');
        }
        if is_odd(1) {
            target.push(b'?');
            target.extend(query(dice));
        }
        // A head that is no HTTP ends the connection; a body after it would reset it.
        let is_plain = target.iter().all(|byte| byte.is_ascii_graphic());
        let has_body = is_plain && !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE");
        let body = match (has_body, is_odd(2)) {
            (false, _) => Vec::new(),
            (true, true) => body(dice, route),
            (true, false) => route.body.as_bytes().to_vec(),
        };
        let request = Request { body, ..Request::new(method, target) };
        Self { request, path: route.path }
    }

    /// Whether every percent sign of the query begins an encoded byte, and there is no semicolon.
    pub(crate) fn is_decodable(&self) -> bool {
        let query = self.request.target.split(|byte| *byte == b'?').skip(1);
        let query = query.collect::<Vec<_>>().join(&b'?');
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        let encoded = |part: &[u8]| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit);
        !query.contains(&b';') && query.split(|byte| *byte == b'%').skip(1).all(encoded)
    }

    /// Whether the request can change anything at all.
    pub(crate) fn may_write(&self) -> bool {
        matches!(self.request.method.as_str(), "PUT" | "POST" | "DELETE")
    }
}

/// What comes behind a path.
fn tail(dice: &mut Dice) -> Vec<u8> {
    let most = if dice.one_in(6) { PATH_BYTES_MAX } else { 20 };
    match dice.below(6) {
        0 => percent_encode(&dice.bytes(most), NON_ALPHANUMERIC).to_string().into_bytes(),
        // As they are; only what would end the line must stay out.
        1 => dice.bytes(most).into_iter().filter(|byte| !b"\r\n ".contains(byte)).collect(),
        2 => vec![*dice.pick(b"/.%a"); dice.below(most + 1)],
        3 => b"h".to_vec(),
        _ => {
            let pieces = [
                "%", "%2", "%2F", "%2f", "%zz", "%00", "%0d%0a", "..", ".", "/", "//", "%2e%2e",
                "h", "%ff%fe", "%C3%A9", "execute", "/execute", "/explain", "?", "#", "\\", "*",
                "%F0%9F",
            ];
            let count = dice.below(8);
            (0..count).map(|_| dice.one_of(&pieces)).collect::<String>().into_bytes()
        }
    }
}

fn query(dice: &mut Dice) -> Vec<u8> {
    let mut query = String::new();
    match dice.below(8) {
        0 => {
            let bytes = dice.bytes(200).into_iter().filter(u8::is_ascii_graphic);
            return bytes.filter(|byte| *byte != b'#').collect();
        }
        1 => {
            query.push_str("nope=");
            query.extend(std::iter::repeat_n('x', dice.below(QUERY_BYTES_MAX)));
        }
        2 => {
            // The first counts: it must not wait for long. The name begins after a separator, because the
            // path may end with a question mark that becomes part of the first name.
            query.push_str("&wait=1ms&index=");
            query.push_str(dice.one_of(&[
                "5",
                "1",
                "0",
                "-1",
                "x",
                "99999999999",
                "",
                "1&index=7",
            ]));
        }
        3 => {
            let count = dice.below(12);
            let text: String = (0..count).map(|_| dice.one_of(TOKENS)).collect();
            query.push_str("filter=");
            query.push_str(&percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string());
        }
        _ => {}
    }
    for _ in 0..dice.below(4) {
        let (name, value) = (dice.one_of(NAMES), dice.one_of(VALUES));
        let value = match dice.below(12) {
            0 => dice.one_of(&["%", "%zz", "a;b", "%C3", "a=b=c", "&&"]).to_owned(),
            _ => percent_encode(value.as_bytes(), NON_ALPHANUMERIC).to_string(),
        };
        query.push_str(&format!("&{name}={value}"));
    }
    query.into_bytes()
}

fn body(dice: &mut Dice, route: &Route) -> Vec<u8> {
    let valid = route.body.as_bytes().to_vec();
    match dice.below(10) {
        0 => Vec::new(),
        1 => dice.bytes(300),
        2 => value(dice, 4).to_string().into_bytes(),
        3 => {
            let (open, close) = *dice.pick(&[("[", "]"), ("{\"Name\":", "}"), ("[{\"KV\":", "}]")]);
            let depth = *dice.pick(&[100, 200, NESTING / open.len()]);
            let ends = if dice.one_in(2) { close.repeat(depth) } else { String::new() };
            format!("{}0{ends}", open.repeat(depth)).into_bytes()
        }
        4 => {
            let cut = dice.below(valid.len() + 1);
            valid[..cut].to_vec()
        }
        5 if !valid.is_empty() => {
            let mut spoiled = valid;
            let at = dice.below(spoiled.len());
            spoiled[at] = dice.bytes(1).first().copied().unwrap_or(0);
            spoiled
        }
        6 => {
            let huge = "9".repeat(400);
            let number = dice.one_of(&["1e999", "-0", "1E400", "0x1", "01", "NaN", "1.", ".5"]);
            let number = if dice.one_in(3) { huge } else { number.to_owned() };
            format!("{{\"Port\":{number},\"Flags\":{number}}}").into_bytes()
        }
        _ => mutated(dice, &valid),
    }
}

/// A valid body in which some things are replaced.
fn mutated(dice: &mut Dice, valid: &[u8]) -> Vec<u8> {
    let Ok(mut tree) = serde_json::from_slice::<Value>(valid) else { return valid.to_vec() };
    for _ in 0..=dice.below(3) {
        mutate(dice, &mut tree);
    }
    tree.to_string().into_bytes()
}

fn mutate(dice: &mut Dice, tree: &mut Value) {
    let goes_deeper = !dice.one_in(4);
    match tree {
        Value::Object(members) if goes_deeper && !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            let name = dice.pick(&names).clone();
            match dice.below(8) {
                0 => {
                    members.remove(&name);
                }
                1 => {
                    let taken = members.remove(&name).unwrap_or_default();
                    members.insert(name.to_lowercase(), taken);
                }
                2 => {
                    members.insert(dice.word(MEMBERS), value(dice, 1));
                }
                _ => mutate(dice, members.get_mut(&name).expect("it is one of them")),
            }
        }
        Value::Array(list) if goes_deeper && !list.is_empty() => {
            let at = dice.below(list.len());
            match dice.below(6) {
                0 => list.resize(list.len() + dice.below(140), list[at].clone()),
                _ => mutate(dice, &mut list[at]),
            }
        }
        other => *other = value(dice, 2),
    }
}

/// Any JSON.
fn value(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => Value::Bool(dice.one_in(2)),
        // Small positive numbers would be short times.
        2 => Value::Number(match dice.below(4) {
            0 => Number::from(0),
            1 => Number::from(-1),
            2 => Number::from(u64::MAX),
            _ => Number::from(dice.number() | 1 << 62),
        }),
        3 => Value::String("x".repeat(dice.below(3000))),
        4 => Value::String(dice.word(TEXTS)),
        5 => (0..dice.below(4)).map(|_| value(dice, depth - 1)).collect(),
        _ => {
            let count = dice.below(4);
            let mut members = Map::new();
            for _ in 0..count {
                members.insert(dice.word(MEMBERS), value(dice, depth - 1));
            }
            Value::Object(members)
        }
    }
}
