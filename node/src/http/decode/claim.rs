//! Claims.

use quorate_client::types::claim::ClaimAsk;

use super::{Body, Kind, Shape, Unknown, field};

static CLAIM: Shape = Shape {
    name: "ClaimRequest",
    fields: &[
        field("ID", Kind::Text),
        field("Holder", Kind::Text),
        field("TTL", Kind::Text),
        field("Session", Kind::Text),
        field("Require", Kind::Map(&Kind::Text)),
        field("Prefer", Kind::Text),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for ClaimAsk {
    const SHAPE: &'static Shape = &CLAIM;
}
