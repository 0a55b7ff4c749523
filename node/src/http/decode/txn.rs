//! Operations of transactions.

use quorate_client::types::txn::TxnOp;

use super::catalog::{CHECK, SERVICE};
use super::{Body, DecodeError, Kind, LOCALITY, Shape, TEXT_MAP, Unknown, field};

/// Reads the body of `PUT /v1/txn`.
///
/// # Errors
/// As [`super::body`].
pub(in crate::http) fn operations(bytes: &[u8]) -> Result<Vec<TxnOp>, DecodeError> {
    static ELEMENT: Kind = Kind::Object(&OPERATION);
    super::list(&ELEMENT, bytes)
}

static KV: Shape = Shape {
    name: "TxnKVOp",
    fields: &[
        field("Verb", Kind::Text),
        field("Key", Kind::Text),
        field("Value", Kind::Text),
        field("Flags", Kind::Unsigned),
        field("Index", Kind::Unsigned),
        field("Session", Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static NODE_ROW: Shape = Shape {
    name: "Node",
    fields: &[
        field("ID", Kind::Text),
        field("Node", Kind::Text),
        field("Address", Kind::Text),
        field("Datacenter", Kind::Text),
        field("TaggedAddresses", TEXT_MAP),
        field("Meta", TEXT_MAP),
        field("PeerName", Kind::Text),
        field("Locality", Kind::Object(&LOCALITY)),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static NODE: Shape = Shape {
    name: "TxnNodeOp",
    fields: &[field("Verb", Kind::Text), field("Node", Kind::Object(&NODE_ROW))],
    shared: &[],
    unknown: Unknown::Refused,
};

// Clients hand back an instance as an agent showed it, so its members are known names too.
static SERVICE_ROW: Shape = Shape {
    name: "AgentService",
    fields: &[field("ContentHash", Kind::Text), field("Datacenter", Kind::Text)],
    shared: SERVICE.fields,
    unknown: Unknown::Refused,
};

static SERVICE_OP: Shape = Shape {
    name: "TxnServiceOp",
    fields: &[
        field("Verb", Kind::Text),
        field("Node", Kind::Text),
        field("Service", Kind::Object(&SERVICE_ROW)),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static CHECK_OP: Shape = Shape {
    name: "TxnCheckOp",
    fields: &[field("Verb", Kind::Text), field("Check", Kind::Object(&CHECK))],
    shared: &[],
    unknown: Unknown::Refused,
};

static OPERATION: Shape = Shape {
    name: "TxnOp",
    fields: &[
        field("KV", Kind::Object(&KV)),
        field("Node", Kind::Object(&NODE)),
        field("Service", Kind::Object(&SERVICE_OP)),
        field("Check", Kind::Object(&CHECK_OP)),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for TxnOp {
    const SHAPE: &'static Shape = &OPERATION;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_in_any_case_with_their_index() {
        let text = br#"[{"kv":{"verb":"cas","KEY":"a","index":7}},{},null,
            {"Service":{"Verb":"get","Node":"n","Service":{"ID":"w","Service":"web","ModifyIndex":3,"ContentHash":"x"}}},
            {"Check":{"Verb":"set","Check":{"Node":"n","CheckID":"c","ModifyIndex":4}}}]"#;
        let read = operations(text).unwrap();
        assert_eq!(read[0].kv.as_ref().unwrap().index, 7);
        assert_eq!((&read[1], &read[2]), (&TxnOp::default(), &TxnOp::default()));
        let service = &read[3].service.as_ref().unwrap().service;
        assert_eq!((service.definition.service.as_str(), service.modify_index), ("web", 3));
        assert_eq!(read[4].check.as_ref().unwrap().check.modify_index, 4);
    }

    #[test]
    fn a_body_that_is_no_list_of_operations_is_refused() {
        for text in ["", "{bad", r#"{"KV":{}}"#, r#"[{"Foo":{}}]"#, r#"[{"KV":{"Index":-1}}]"#] {
            operations(text.as_bytes()).unwrap_err();
        }
        assert_eq!(operations(b"null").unwrap(), []);
    }
}
