//! Definitions of prepared queries.

use quorate_client::types::query::PreparedQuery;

use super::{Body, Kind, Shape, TEXT_MAP, TEXTS, Unknown, field};

static TEMPLATE: Shape = Shape {
    name: "QueryTemplateOptions",
    fields: &[
        field("Type", Kind::Text),
        field("Regexp", Kind::Text),
        field("RemoveEmptyTags", Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static FAILOVER: Shape = Shape {
    name: "QueryFailoverOptions",
    fields: &[
        field("NearestN", Kind::Int),
        field("Datacenters", TEXTS),
        field("Targets", Kind::Any),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static SERVICE: Shape = Shape {
    name: "ServiceQuery",
    fields: &[
        field("Service", Kind::Text),
        field("SamenessGroup", Kind::Text),
        field("Peer", Kind::Text),
        field("Failover", Kind::Object(&FAILOVER)),
        field("OnlyPassing", Kind::Bool),
        field("IgnoreCheckIDs", TEXTS),
        field("Near", Kind::Text),
        field("Tags", TEXTS),
        field("NodeMeta", TEXT_MAP),
        field("ServiceMeta", TEXT_MAP),
        field("Connect", Kind::Bool),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static DNS: Shape = Shape {
    name: "QueryDNSOptions",
    fields: &[field("TTL", Kind::Text)],
    shared: &[],
    unknown: Unknown::Refused,
};

static QUERY: Shape = Shape {
    name: "PreparedQuery",
    fields: &[
        field("ID", Kind::Text),
        field("Name", Kind::Text),
        field("Session", Kind::Text),
        field("Token", Kind::Text),
        field("Template", Kind::Object(&TEMPLATE)),
        field("Service", Kind::Object(&SERVICE)),
        field("DNS", Kind::Object(&DNS)),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for PreparedQuery {
    const SHAPE: &'static Shape = &QUERY;
}
