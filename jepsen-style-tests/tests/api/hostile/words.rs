//! The statuses and texts with which a request may be refused.
//!
//! A status 500 must be documented; any other one is a bug.

use jepsen_style_tests::http::Answer;

/// How the documented sentences of status 500 begin.
const INTERNAL: &[&str] = &[
    "Must provide node",
    "Must provide address if SkipNodeUpdate is not set",
    "Must provide service name with ID",
    "Bad node ID: ",
    "check node \"",
    "Invalid check: WarnAfter must ",
    "failed inserting node: ",
    "failed inserting service: ",
    "failed inserting check: ",
    "Missing node registration",
    "Missing check '",
    "Check '",
    "Invalid Session TTL '",
    "Session TTL '",
    "Invalid Behavior setting '",
    "invalid session \"",
    "missing session",
    "strconv.ParseUint: parsing ",
    "No path to datacenter",
    "Failed to create boolean expression evaluator: ",
    "failed to decompress snapshot: ",
    "Scripts are disabled on this agent",
    "OSService checks are not supported",
    "CheckID missing",
    "CheckID \"",
    "ServiceID missing",
    "Invalid prepared query: ",
    "Invalid service address",
    "failed compiling template: ",
    "a query template with an empty name already exists",
    "prepared query templates can only be resolved up by name, not by ID",
    "Node \"",
    "Service name \"",
    "Service ID \"",
    "Cannot modify non-existent prepared query: '",
    "ID must be empty when creating a new prepared query",
    "name '",
    "Cannot provide tag filter without service filter",
    "Invalid node filter: ",
    "Invalid service filter: ",
    "Invalid tag filter: ",
    "1 error occurred:\n\t* error broadcasting event to segment \"\": user event exceeds ",
    "Bad coordinate",
    "Bad limit: ",
    "id \"",
    "address \"",
    "agent: No node found with name '",
    "1 error occurred:\n\t* Failed to join ",
    "No keyring available (encryption not enabled)",
];

/// What is wrong with an answer, if anything is. `is_decodable` says whether the query string is.
pub(crate) fn fault(path: &str, is_decodable: bool, answer: &Answer) -> Option<String> {
    let text = answer.text();
    let is_known = match answer.status {
        200 | 301 | 400 | 404 | 405 | 413 | 414 | 431 => true,
        // The status also reports the health of a service, and of the cluster.
        429 if path == "/v1/operator/autopilot/health" => true,
        429 | 503 => path.starts_with("/v1/agent/health/"),
        // Nobody here has a key.
        403 => path.starts_with("/v1/quorate/worker"),
        401 => text == "ACL support disabled",
        409 => {
            path == "/v1/txn"
                || path.starts_with("/v1/agent/")
                || path.starts_with("/v1/quorate/explain/")
                || path.starts_with("/v1/quorate/claim")
        }
        501 => text.starts_with("Quorate has no "),
        500 if text.is_empty() => !is_decodable,
        // The list of an agent's checks reports a bad filter without a prefix.
        500 if path == "/v1/agent/checks" => true,
        500 => INTERNAL.iter().any(|known| text.starts_with(known)),
        _ => false,
    };
    let is_text = answer.status < 400
        || text.is_empty()
        || answer.header("content-type").is_some_and(|kind| {
            kind.starts_with("text/plain") || kind.starts_with("application/json")
        });
    match (is_known, is_text) {
        (true, true) => None,
        (false, _) => Some(format!("{} {text:.500}", answer.status)),
        (true, false) => Some(format!("{} without a type: {text:.500}", answer.status)),
    }
}
