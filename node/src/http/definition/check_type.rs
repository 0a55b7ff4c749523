//! The `Type` of a check, which Consul derives from its definition.

use quorate_storage::record::CheckDefinition;

/// What a definition says that a host would have to run. Quorate's agents refuse it; in the catalogue it
/// is only a definition.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct OnHost<'a> {
    pub(in crate::http) script_args: &'a [String],
    pub(in crate::http) container: &'a str,
    pub(in crate::http) os_service: &'a str,
}

/// The type of a check. Of several kinds the first in Consul's order counts, and one that is run at an
/// interval counts only with an interval (agent/structs/check_type.go, `Type`).
pub(in crate::http) fn of(definition: &CheckDefinition, host: OnHost<'_>) -> &'static str {
    let is_run = !definition.interval.is_zero();
    let has = |target: &str| is_run && !target.is_empty();
    let has_script = !host.script_args.is_empty();
    if has(&definition.grpc) {
        "grpc"
    } else if has(&definition.http) {
        "http"
    } else if !definition.ttl.is_zero() {
        "ttl"
    } else if has(&definition.tcp) {
        "tcp"
    } else if has(&definition.udp) {
        "udp"
    } else if definition.is_alias() {
        "alias"
    } else if has_script && has(host.container) {
        "docker"
    } else if has_script {
        "script"
    } else if has(&definition.h2ping) {
        "h2ping"
    } else if has(host.os_service) {
        "os_service"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::Millis;

    use super::*;

    #[test]
    fn of_several_kinds_the_first_in_consuls_order_counts() {
        let text = |text: &str| text.to_owned();
        let all = CheckDefinition {
            interval: Millis(1),
            ttl: Millis(1),
            grpc: text("g"),
            http: text("h"),
            tcp: text("t"),
            udp: text("u"),
            h2ping: text("p"),
            alias_service: text("a"),
            ..CheckDefinition::default()
        };
        let script = [text("true")];
        let host = OnHost { script_args: &script, container: "c", os_service: "s" };
        assert_eq!(of(&all, host), "grpc");
        let all = CheckDefinition { grpc: String::new(), ..all };
        assert_eq!(of(&all, host), "http");
        // Without an interval nothing is run, whatever there is to run.
        let never = CheckDefinition { interval: Millis::ZERO, ..all.clone() };
        assert_eq!(of(&never, host), "ttl");
        let never = CheckDefinition { ttl: Millis::ZERO, ..never };
        assert_eq!(of(&never, host), "alias");
        let never = CheckDefinition { alias_service: String::new(), ..never };
        assert_eq!((of(&never, host), of(&never, OnHost::default())), ("script", ""));
        let all = CheckDefinition { http: String::new(), ttl: Millis::ZERO, ..all };
        assert_eq!(of(&all, host), "tcp");
        let all = CheckDefinition { tcp: String::new(), ..all };
        assert_eq!(of(&all, host), "udp");
        let all = CheckDefinition { udp: String::new(), alias_service: String::new(), ..all };
        assert_eq!(of(&all, host), "docker");
        assert_eq!(of(&all, OnHost::default()), "h2ping");
        let all = CheckDefinition { h2ping: String::new(), ..all };
        let service = OnHost { os_service: "s", ..OnHost::default() };
        assert_eq!((of(&all, service), of(&all, OnHost::default())), ("os_service", ""));
    }
}
