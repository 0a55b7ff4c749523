//! Reads request bodies as strictly as Consul does.
//!
//! A [`Shape`] names the fields of a body and their kinds. The reader walks the JSON text along the
//! shape and builds a value with the fields' canonical names, which serde then turns into a type of
//! [`types`](quorate_client::types). On the way it applies Go's rules, which no attribute of serde expresses:
//!
//! * names match in any letter case, and by their snake-case aliases;
//! * an unknown name is an error, unless the shape says that the endpoint ignores them;
//! * `null` means absent, and a list's `null` element is the kind's zero value;
//! * of a repeated field the last one counts, whatever case it is written in;
//! * durations are Go texts or numbers of nanoseconds;
//! * a namespace or partition, which only Consul's paid edition has, is an error in any shape that does
//!   not name it, also where unknown names are ignored: what is stored elsewhere than it was meant to be is
//!   found by nobody, or by the wrong one;
//! * what follows the first JSON value is not looked at.

use std::fmt;

use quorate_client::duration;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

mod acl;
mod agent;
mod catalog;
mod claim;
mod coordinate;
mod mesh;
mod operator;
mod query;
mod session;
mod txn;

pub(super) use acl::questions;
pub(super) use txn::operations;

/// The most elements of a list, or members of an object with free names. A few bytes of text stand for
/// an element whose type has hundreds; no endpoint takes nearly as many.
const ELEMENTS_MAX: usize = 8_192;

/// Where Consul's paid edition keeps things apart, and how its error messages call that.
const PLACES: [(&str, &str); 2] = [("Namespace", "Namespaces"), ("Partition", "Partitions")];

/// Why a body could not be read, in Go's words as far as clients and people look at them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct DecodeError(String);

/// The fields of a JSON object.
#[derive(Debug)]
pub(super) struct Shape {
    /// Name of the Go type, for messages.
    name: &'static str,
    /// The fields.
    fields: &'static [Field],
    /// Fields that it has in common with other shapes.
    shared: &'static [Field],
    /// Whether other fields are an error or are ignored.
    unknown: Unknown,
}

/// What happens to fields that a shape does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They are an error.
    Refused,
    /// They are ignored.
    Ignored,
}

/// One field of a [`Shape`].
#[derive(Debug)]
pub(super) struct Field {
    /// Its canonical name.
    name: &'static str,
    /// Other names, in lower case.
    aliases: &'static [&'static str],
    /// What it holds.
    kind: Kind,
}

/// What a field, or an element of a list or map, may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number that fits into 64 bits with sign.
    Int,
    /// A whole number that fits into 64 bits without sign.
    Unsigned,
    /// A number, with or without a fraction.
    Real,
    /// A Go duration or a number of nanoseconds; becomes a number of nanoseconds.
    Duration,
    /// A list.
    List(&'static Self),
    /// An object with free names.
    Map(&'static Self),
    /// An object of a shape.
    Object(&'static Shape),
    /// Anything.
    Any,
}

/// A field without aliases.
#[must_use]
const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, aliases: &[], kind }
}

/// A field with aliases (in lower case).
#[must_use]
const fn alias(name: &'static str, aliases: &'static [&'static str], kind: Kind) -> Field {
    Field { name, aliases, kind }
}

static LOCALITY: Shape = Shape {
    name: "Locality",
    fields: &[field("Region", Kind::Text), field("Zone", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

static SERVICE_ADDRESS: Shape = Shape {
    name: "ServiceAddress",
    fields: &[field("Address", Kind::Text), field("Port", Kind::Int)],
    shared: &[],
    unknown: Unknown::Refused,
};

static WEIGHTS: Shape = Shape {
    name: "Weights",
    fields: &[field("Passing", Kind::Int), field("Warning", Kind::Int)],
    shared: &[],
    unknown: Unknown::Refused,
};

/// A list of texts.
const TEXTS: Kind = Kind::List(&Kind::Text);
/// A map of text to text.
const TEXT_MAP: Kind = Kind::Map(&Kind::Text);
/// Addresses with ports, by purpose.
const SERVICE_ADDRESSES: Kind = Kind::Map(&Kind::Object(&SERVICE_ADDRESS));

/// A type that is read from a request body of a [`Shape`].
pub(super) trait Body: DeserializeOwned {
    /// Its shape.
    const SHAPE: &'static Shape;
}

/// Reads a request body.
///
/// # Errors
/// With Go's words: `EOF` (no body), `unexpected EOF` (cut off), `json: unknown field "Nope"`,
/// `json: cannot unmarshal string into Go struct field ServiceDefinition.Port of type int`, ...
pub(super) fn body<T: Body>(bytes: &[u8]) -> Result<T, DecodeError> {
    let value = match read(Kind::Object(T::SHAPE), bytes)? {
        Value::Null => Value::Object(Map::new()),
        value => value,
    };
    typed(value)
}

/// Reads a request body that is a list of objects; `null` is an empty list.
///
/// # Errors
/// As [`body`].
pub(super) fn list<T: Body>(element: &'static Kind, bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    match read(Kind::List(element), bytes)? {
        Value::Null => Ok(Vec::new()),
        value => typed(value),
    }
}

/// Reads what has a kind.
fn read(kind: Kind, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let place = Place { kind, path: Path::Root };
    place.deserialize(&mut reader).map_err(|error| words(&error, bytes))
}

/// Makes a type of a value whose kinds were checked, so that only numbers outside a type's range
/// can fail here.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, DecodeError> {
    serde_json::from_value(value).map_err(|error| DecodeError(format!("json: {error}")))
}

/// Turns serde_json's message into what Go says.
fn words(error: &serde_json::Error, bytes: &[u8]) -> DecodeError {
    if error.is_eof() {
        let empty = bytes.iter().all(u8::is_ascii_whitespace);
        return DecodeError(if empty { "EOF" } else { "unexpected EOF" }.to_owned());
    }
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    DecodeError(text.strip_suffix(&position).unwrap_or(&text).to_owned())
}

/// Where in the body the reader is: a kind to read, and its name for messages.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    path: Path,
}

#[derive(Clone, Copy)]
enum Path {
    Root,
    Field { shape: &'static str, field: &'static str },
}

impl Place {
    /// Go's complaint about a value of the wrong type.
    fn mismatch<E: serde::de::Error>(self, found: &str) -> E {
        let kind = self.kind.go_name();
        E::custom(match self.path {
            Path::Root => format!("json: cannot unmarshal {found} into Go value of type {kind}"),
            Path::Field { shape, field } => format!(
                "json: cannot unmarshal {found} into Go struct field {shape}.{field} of type {kind}"
            ),
        })
    }

    /// The zero value of the kind, which stands for a `null` in a list or map.
    fn zero(self) -> Value {
        match self.kind {
            Kind::Text => Value::String(String::new()),
            Kind::Bool => Value::Bool(false),
            Kind::Int | Kind::Unsigned | Kind::Real | Kind::Duration => Value::from(0),
            Kind::List(_) => Value::Array(Vec::new()),
            Kind::Map(_) | Kind::Object(_) => Value::Object(Map::new()),
            Kind::Any => Value::Null,
        }
    }
}

impl Kind {
    /// How Go calls the type.
    fn go_name(self) -> String {
        match self {
            Self::Text => "string".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Unsigned => "uint64".to_owned(),
            Self::Real => "float64".to_owned(),
            Self::Duration => "time.Duration".to_owned(),
            Self::List(element) => format!("[]{}", element.go_name()),
            Self::Map(element) => format!("map[string]{}", element.go_name()),
            Self::Object(shape) => format!("structs.{}", shape.name),
            Self::Any => "interface {}".to_owned(),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        match self.kind {
            Kind::Any => Value::deserialize(reader),
            _ => reader.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.go_name())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.kind {
            Kind::Bool => Ok(Value::Bool(value)),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        match self.kind {
            Kind::Int | Kind::Duration | Kind::Real => Ok(Value::from(value)),
            _ => Err(self.mismatch(&format!("number {value}"))),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match (self.kind, i64::try_from(value)) {
            (Kind::Unsigned | Kind::Real, _) => Ok(Value::from(value)),
            (Kind::Int | Kind::Duration, Ok(value)) => Ok(Value::from(value)),
            _ => Err(self.mismatch(&format!("number {value}"))),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match self.kind {
            Kind::Real => Ok(Value::from(value)),
            // Go's conversion drops the fraction; `as` saturates where Go's result is undefined.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "dropping the fraction is the rule"
            )]
            Kind::Duration => Ok(Value::from(value as i64)),
            _ => Err(self.mismatch(&format!("number {value}"))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        match self.kind {
            Kind::Text => Ok(Value::String(value.to_owned())),
            // An empty text is no time at all in the bodies that we read.
            Kind::Duration if value.is_empty() => Ok(Value::from(0)),
            Kind::Duration => duration::parse(value).map(Value::from).map_err(E::custom),
            _ => Err(self.mismatch("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Kind::List(element) = self.kind else { return Err(self.mismatch("array")) };
        let place = Self { kind: *element, path: self.path };
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(place)? {
            values.push(if value.is_null() { place.zero() } else { value });
            refuse_too_many(values.len())?;
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Value, A::Error> {
        match self.kind {
            Kind::Object(shape) => read_object(shape, object),
            Kind::Map(element) => read_map(Self { kind: *element, path: self.path }, object),
            _ => Err(self.mismatch("object")),
        }
    }
}

fn read_object<'de, A: MapAccess<'de>>(
    shape: &'static Shape,
    mut object: A,
) -> Result<Value, A::Error> {
    let mut fields = Map::new();
    while let Some(name) = object.next_key::<String>()? {
        let Some(field) = shape.find(&name) else {
            if let Some((_, feature)) = PLACES.iter().find(|(p, _)| p.eq_ignore_ascii_case(&name)) {
                refuse_place(&name, feature, &object.next_value()?)?;
                continue;
            }
            if shape.unknown == Unknown::Refused {
                return Err(A::Error::custom(format!("json: unknown field {name:?}")));
            }
            object.next_value::<serde::de::IgnoredAny>()?;
            continue;
        };
        let path = Path::Field { shape: shape.name, field: field.name };
        let value = object.next_value_seed(Place { kind: field.kind, path })?;
        // `null` leaves a field as it was: absent, unless it was given before.
        if !value.is_null() {
            fields.insert(field.name.to_owned(), value);
        }
    }
    Ok(Value::Object(fields))
}

/// Refuses a namespace or partition, unless none is named.
fn refuse_place<E: serde::de::Error>(name: &str, feature: &str, value: &Value) -> Result<(), E> {
    match value {
        Value::Null => Ok(()),
        Value::String(place) if place.is_empty() => Ok(()),
        _ => Err(E::custom(format!(
            "json: unknown field {name:?} - {feature} are a Consul Enterprise feature"
        ))),
    }
}

fn read_map<'de, A: MapAccess<'de>>(place: Place, mut object: A) -> Result<Value, A::Error> {
    let mut members = Map::new();
    while let Some(name) = object.next_key::<String>()? {
        let value = object.next_value_seed(place)?;
        members.insert(name, if value.is_null() { place.zero() } else { value });
        refuse_too_many(members.len())?;
    }
    Ok(Value::Object(members))
}

fn refuse_too_many<E: serde::de::Error>(elements: usize) -> Result<(), E> {
    match elements > ELEMENTS_MAX {
        true => Err(E::custom(format!("json: more than {ELEMENTS_MAX} elements in a list or map"))),
        false => Ok(()),
    }
}

impl Shape {
    fn find(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().chain(self.shared).find(|field| {
            field.name.eq_ignore_ascii_case(name)
                || field.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use quorate_client::types::agent::{CheckRegistration, CheckUpdate, ServiceRegistration};
    use quorate_client::types::catalog::{Deregistration, Registration};
    use quorate_client::types::session::SessionCreate;

    fn service(text: &str) -> Result<ServiceRegistration, String> {
        body(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_match_in_any_case_and_by_alias() {
        let read = service(
            r#"{"name":"web","iD":"w1","enable_tag_override":true,
                "tagged_addresses":{"lan":{"address":"1.2.3.4","PORT":4}},
                "check":{"ttl":"30s","deregister_critical_service_after":"90m"}}"#,
        )
        .unwrap();
        assert_eq!((read.name.as_str(), read.id.as_str()), ("web", "w1"));
        assert!(read.enable_tag_override);
        assert_eq!(read.tagged_addresses["lan"].port, 4);
        let check = read.check.unwrap();
        assert_eq!(check.ttl, 30_000_000_000);
        assert_eq!(check.deregister_critical_service_after, 5_400_000_000_000);
    }

    #[test]
    fn an_alias_counts_only_where_consul_has_it() {
        let text = br#"{"Node":"n","node_meta":{}}"#;
        let error = body::<Registration>(text).unwrap_err();
        assert_eq!(error.to_string(), "json: unknown field \"node_meta\"");
    }

    #[test]
    fn a_namespace_or_partition_is_refused_in_every_body_unless_it_is_empty() {
        fn read<T: Body>(text: &str) -> Result<(), String> {
            body::<T>(text.as_bytes()).map(drop).map_err(|error| error.to_string())
        }
        let namespace =
            "json: unknown field \"Namespace\" - Namespaces are a Consul Enterprise feature";
        let partition =
            "json: unknown field \"partition\" - Partitions are a Consul Enterprise feature";
        for (field, words) in
            [("\"Namespace\":\"default\"", namespace), ("\"partition\":\"p\"", partition)]
        {
            let flat = format!("{{{field}}}");
            assert_eq!(read::<ServiceRegistration>(&flat).unwrap_err(), words);
            assert_eq!(read::<CheckRegistration>(&flat).unwrap_err(), words);
            assert_eq!(read::<SessionCreate>(&flat).unwrap_err(), words);
            assert_eq!(read::<Registration>(&flat).unwrap_err(), words);
            assert_eq!(read::<Deregistration>(&flat).unwrap_err(), words);
            let service = format!("{{\"Service\":{flat}}}");
            assert_eq!(read::<Registration>(&service).unwrap_err(), words);
            for table in ["KV", "Service", "Node", "Check"] {
                let operation = match table {
                    "KV" => format!("[{{\"KV\":{flat}}}]"),
                    row => format!("[{{\"{row}\":{{\"{row}\":{flat}}}}}]"),
                };
                let error = operations(operation.as_bytes()).unwrap_err();
                assert_eq!(error.to_string(), words, "{operation}");
            }
        }
        let none = r#"{"Namespace":"","Partition":null}"#;
        read::<ServiceRegistration>(none).unwrap();
        read::<SessionCreate>(none).unwrap();
        read::<Registration>(none).unwrap();
    }

    #[test]
    fn errors_are_in_the_words_of_go() {
        for (text, words) in [
            ("", "EOF"),
            ("  \n", "EOF"),
            (r#"{"Name":"#, "unexpected EOF"),
            (r#"{"Name":"x","Nope":1}"#, "json: unknown field \"Nope\""),
            (
                r#"{"Port":"80"}"#,
                "json: cannot unmarshal string into Go struct field ServiceDefinition.Port of type int",
            ),
            (
                r#"{"Name":5}"#,
                "json: cannot unmarshal number 5 into Go struct field ServiceDefinition.Name of type string",
            ),
            (
                r#"{"Meta":{"a":1}}"#,
                "json: cannot unmarshal number 1 into Go struct field ServiceDefinition.Meta of type string",
            ),
            (
                r#"{"Port":5.5}"#,
                "json: cannot unmarshal number 5.5 into Go struct field ServiceDefinition.Port of type int",
            ),
            ("[]", "json: cannot unmarshal array into Go value of type structs.ServiceDefinition"),
            (r#"{"Check":{"TTL":"abc"}}"#, "time: invalid duration \"abc\""),
        ] {
            assert_eq!(service(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn a_list_or_map_of_too_many_elements_is_refused_before_it_is_built() {
        let words = "json: more than 8192 elements in a list or map";
        let list = |count: usize| format!(r#"{{"Checks":[{}]}}"#, vec!["{}"; count].join(","));
        assert_eq!(service(&list(ELEMENTS_MAX)).unwrap().checks.len(), ELEMENTS_MAX);
        assert_eq!(service(&list(ELEMENTS_MAX + 1)).unwrap_err(), words);
        let members = (0..=ELEMENTS_MAX).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>();
        let map = format!(r#"{{"Meta":{{{}}}}}"#, members.join(","));
        assert_eq!(service(&map).unwrap_err(), words);
    }

    #[test]
    fn null_is_absent_and_what_follows_the_value_is_ignored() {
        assert_eq!(service("null").unwrap(), service("{}").unwrap());
        let read =
            service(r#"{"Name":"x","Tags":null,"Check":null,"Meta":null} trailing"#).unwrap();
        assert_eq!(read, service(r#"{"Name":"x"}"#).unwrap());
        let read = service(r#"{"Tags":[null,"a"],"Checks":[null]}"#).unwrap();
        assert_eq!(read.tags, ["", "a"]);
        assert_eq!(read.checks.len(), 1);
    }

    #[test]
    fn of_a_repeated_field_the_last_one_counts() {
        assert_eq!(service(r#"{"Name":"a","NAME":"b"}"#).unwrap().name, "b");
        assert_eq!(service(r#"{"NAME":"b","Name":"a"}"#).unwrap().name, "a");
    }

    #[test]
    fn durations_are_texts_or_nanoseconds() {
        let read = service(r#"{"Check":{"TTL":15000000000,"Timeout":"0.5s"}}"#).unwrap();
        let check = read.check.unwrap();
        assert_eq!((check.ttl, check.timeout), (15_000_000_000, 500_000_000));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = body::<ServiceRegistration>(&bytes);
            let _ = body::<CheckUpdate>(&bytes);
        }

        #[test]
        fn no_json_makes_the_reader_panic(
            name in "Name|Check|Checks|Tags|Port|Weights|[a-z]{1,3}",
            value in "null|true|-?[0-9]{1,30}(\\.[0-9]{1,4})?|\"[^\"\\\\]{0,9}\"|\\[\\]|\\{\\}|\\[\\{\"TTL\":1\\}\\]",
        ) {
            let text = format!("{{{name:?}:{value}}}");
            let _ = body::<ServiceRegistration>(text.as_bytes());
            let _ = body::<Registration>(text.as_bytes());
        }
    }
}
