//! Sessions.

use quorate_client::types::session::SessionCreate;

use super::{Body, Kind, Shape, TEXTS, Unknown, field};

static SERVICE_CHECK: Shape = Shape {
    name: "ServiceCheck",
    fields: &[field("ID", Kind::Text), field("Namespace", Kind::Text)],
    shared: &[],
    unknown: Unknown::Ignored,
};

static SESSION: Shape = Shape {
    name: "SessionRequest",
    fields: &[
        field("Name", Kind::Text),
        field("Node", Kind::Text),
        field("LockDelay", Kind::Any),
        field("Behavior", Kind::Text),
        field("TTL", Kind::Text),
        field("NodeChecks", TEXTS),
        field("ServiceChecks", Kind::List(&Kind::Object(&SERVICE_CHECK))),
        field("Checks", TEXTS),
    ],
    shared: &[],
    unknown: Unknown::Ignored,
};

impl Body for SessionCreate {
    const SHAPE: &'static Shape = &SESSION;
}
