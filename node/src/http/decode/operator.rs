//! What operators set.

use quorate_client::types::operator::AutopilotConfiguration;

use super::{Body, Kind, Shape, Unknown, field};

static AUTOPILOT: Shape = Shape {
    name: "AutopilotConfiguration",
    fields: &[
        field("CleanupDeadServers", Kind::Bool),
        field("LastContactThreshold", Kind::Duration),
        field("MaxTrailingLogs", Kind::Unsigned),
        field("MinQuorum", Kind::Unsigned),
        field("ServerStabilizationTime", Kind::Duration),
        field("RedundancyZoneTag", Kind::Text),
        field("DisableUpgradeMigration", Kind::Bool),
        field("UpgradeVersionTag", Kind::Text),
        field("CreateIndex", Kind::Unsigned),
        field("ModifyIndex", Kind::Unsigned),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for AutopilotConfiguration {
    const SHAPE: &'static Shape = &AUTOPILOT;
}
