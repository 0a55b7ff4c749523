use serde_json::{Value, json};

use super::super::definitions::Defined;
use super::*;

fn args(file: &Value) -> AgentArgs {
    let fragments = vec![file.to_string()];
    AgentArgs { sources: Sources { fragments, ..Sources::default() }, dev: false }
}

fn settings(file: &Value) -> Result<AgentSettings, String> {
    args(file).resolve().map_err(|error| error.to_string())
}

fn resolver<'a>(of: &'a Configuration, interfaces: &'a [Interface]) -> Resolver<'a> {
    Resolver { dev: false, of, interfaces }
}

fn configuration(file: Value) -> Configuration {
    serde_json::from_value(file).unwrap()
}

/// A machine with one private address.
fn machine() -> Vec<Interface> {
    let one = |name: &str, address: &str| Interface {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        has_default_route: name == "eth0",
    };
    vec![one("lo", "127.0.0.1"), one("eth0", "10.0.0.5")]
}

#[test]
fn a_file_of_consuls_test_suite_makes_a_server() {
    let file = json!({
        "node_name": "node-1", "node_id": "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11",
        "datacenter": "dc7", "data_dir": "/x", "bind_addr": "127.0.0.1", "bootstrap": true,
        "server": true, "log_level": "debug", "performance": {"raft_multiplier": 1},
        "ports": {"http": 1234, "dns": -1, "server": 1235, "serf_lan": 1236, "serf_wan": 1237},
        "http_config": {"response_headers": {"Access-Control-Allow-Origin": "*"}},
    });
    let settings = settings(&file).unwrap();
    let config = settings.server_config(None).unwrap();
    assert_eq!((config.name.as_str(), config.agent_name.as_str()), ("node-1", "node-1"));
    assert_eq!(config.http_addr.to_string(), "127.0.0.1:1234");
    assert_eq!(config.rpc_addr.to_string(), "127.0.0.1:1235");
    assert_eq!((config.bootstrap_expect, config.datacenter.as_str()), (1, "dc7"));
    assert_eq!(settings.listeners.rpc[1], Listen::Tcp("127.0.0.1:1236".parse().unwrap()));
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.response_headers["access-control-allow-origin"], "*");
    assert_eq!(settings.notes.ignored, ["performance.raft_multiplier", "ports.serf_wan"]);
}

#[test]
fn others_are_told_of_the_http_listener_that_they_can_reach() {
    let told = |client: &str, advertise: &str| {
        let file = json!({"server": true, "node_name": "x", "data_dir": "/x", "bootstrap": true,
            "bind_addr": "127.0.0.1", "advertise_addr": advertise, "client_addr": client,
            "ui_host": ["discovery.example"], "ports": {"serf_lan": -1}});
        let config = settings(&file).unwrap().server_config(None).unwrap();
        assert_eq!(config.hosts, ["discovery.example"]);
        config.advertised.http.to_string()
    };
    assert_eq!(told("0.0.0.0", "127.0.0.9"), "127.0.0.9:8500");
    assert_eq!(told("127.0.0.1 127.0.0.9", "127.0.0.9"), "127.0.0.9:8500");
    assert_eq!(told("127.0.0.1", "127.0.0.9"), "127.0.0.1:8500");
}

#[test]
fn nonsense_is_named() {
    for (file, text) in [
        (json!({"server": true, "node_name": "x"}), "data_dir cannot be empty"),
        (json!({"data_dir": "/x", "server": false}), "client agent"),
        (json!({"data_dir": "/x"}), "client agent"),
        (json!({"data_dir": "/x", "server": true, "node_id": "7"}), "node_id"),
        (json!({"data_dir": "/x", "server": true, "node_meta": {"a b": "c"}}), "node_meta"),
        (json!({"data_dir": "/x", "server": true, "session_ttl_min": "25h"}), "session_ttl_min"),
        (
            json!({"data_dir": "/x", "server": true, "check_output_max_size": 0}),
            "discard_check_output",
        ),
        (
            json!({"data_dir": "/x", "server": true, "limits": {"kv_max_value_size": 524_289}}),
            "limits.kv_max_value_size",
        ),
        (json!({"data_dir": "/x", "bootstrap": true}), "need \"server\": true"),
        (json!({"data_dir": "/x", "bootstrap_expect": 3, "bind_addr": "::1"}), "need \"server\""),
        (
            json!({"data_dir": "/x", "server": true, "bootstrap": true, "bootstrap_expect": 3, "bind_addr": "::1"}),
            "one of them",
        ),
        (json!({"data_dir": "/x", "server": true, "ports": {"http": -1}}), "ports.http"),
        (json!({"data_dir": "/x", "server": true, "bind_addr": "eth0"}), "bind_addr"),
        (json!({"data_dir": "/x", "server": true, "client_addr": "{{ Nope }}"}), "client_addr"),
        (json!({"data_dir": "/x", "server": true, "advertise_addr": "0.0.0.0"}), "advertise_addr"),
        (json!({"data_dir": "/x", "server": true, "log_level": "loud"}), "log_level"),
        (json!({"data_dir": "/x", "server": true, "bootstrap": "yes"}), "-hcl: bootstrap: invalid"),
        (json!({"data_dir": "/x", "server": true, "unix_sockets": {"mode": "999"}}), "mode"),
        (json!({"data_dir": "/x", "server": true, "primary_datacenter": "dc2"}), "federate"),
        (
            json!({"data_dir": "/x", "server": true, "bind_addr": "::1", "retry_join": ["provider=aws tag_key=x"]}),
            "cloud providers",
        ),
    ] {
        let error = settings(&file).unwrap_err();
        assert!(error.contains(text), "{file}: {error}");
    }
}

#[test]
fn other_servers_are_named_as_in_consul() {
    for (text, expected) in [
        ("10.0.0.2", "10.0.0.2:7300"),
        ("10.0.0.2:8301", "10.0.0.2:8301"),
        ("consul-1.example.com", "consul-1.example.com:7300"),
        (" consul-1:8301 ", "consul-1:8301"),
        ("::1", "[::1]:7300"),
        ("[::1]:8301", "[::1]:8301"),
        ("[fe80::1]", "[fe80::1]:7300"),
    ] {
        assert_eq!(peer(text, 7300).unwrap(), expected);
    }
    for text in ["", "a b", "host:x", "host:70000", "provider=gce"] {
        assert!(peer(text, 7300).is_err(), "{text}");
    }
}

#[test]
fn a_server_is_told_where_it_can_be_reached() {
    for (file, listen, advertise) in [
        (json!({}), "127.0.0.1", "127.0.0.1"),
        (json!({"bind_addr": "0.0.0.0"}), "0.0.0.0", "10.0.0.5"),
        (json!({"bind_addr": "{{ GetPrivateIP }}"}), "10.0.0.5", "10.0.0.5"),
        (json!({"bind_addr": "0.0.0.0", "advertise_addr": "192.0.2.1"}), "0.0.0.0", "192.0.2.1"),
        (
            json!({"bind_addr": "127.0.0.1", "advertise_addr": "192.0.2.1"}),
            "127.0.0.1",
            "192.0.2.1",
        ),
        (json!({"advertise_addr": "192.0.2.1"}), "0.0.0.0", "192.0.2.1"),
        (json!({"advertise_addr": "2001:db8::1"}), "::", "2001:db8::1"),
        (json!({"advertise_addr": "10.0.0.5"}), "10.0.0.5", "10.0.0.5"),
        (json!({"advertise_addr_ipv4": "10.0.0.5"}), "10.0.0.5", "10.0.0.5"),
        (json!({"bind_addr": "127.0.0.2", "bootstrap_expect": 3}), "127.0.0.2", "127.0.0.2"),
        // Servers on other machines could not reach loopback.
        (json!({"retry_join": ["10.0.0.6"]}), "10.0.0.5", "10.0.0.5"),
        (json!({"bootstrap_expect": 3}), "10.0.0.5", "10.0.0.5"),
        (
            json!({"retry_join": ["127.0.0.1:8301"], "bootstrap_expect": 3}),
            "127.0.0.1",
            "127.0.0.1",
        ),
        (json!({"bootstrap_expect": 1}), "127.0.0.1", "127.0.0.1"),
    ] {
        let text = file.to_string();
        let configuration = configuration(file);
        let rpc = resolver(&configuration, &machine()).rpc().unwrap();
        let seen = (rpc.listen.to_string(), rpc.advertise.to_string());
        assert_eq!((seen.0.as_str(), seen.1.as_str()), (listen, advertise), "{text}");
    }
}

#[test]
fn a_server_founds_a_cluster_only_when_told_so() {
    for (file, dev, expected) in [
        (json!({"server": true}), false, Some(0)),
        (json!({"server": true, "retry_join": ["10.0.0.1"]}), false, Some(0)),
        (json!({"server": true, "bootstrap": true}), false, Some(1)),
        (json!({"server": true, "bootstrap_expect": 3}), false, Some(3)),
        (json!({}), true, Some(1)),
        (json!({"server": false}), false, Some(0)),
        (json!({}), false, Some(0)),
        (json!({"bootstrap": true}), false, None),
    ] {
        let configuration = configuration(file.clone());
        let resolver = Resolver { dev, of: &configuration, interfaces: &[] };
        assert_eq!(resolver.expected().ok(), expected, "{file}");
    }
}

#[test]
fn clients_are_served_at_several_addresses() {
    let file = json!({"client_addr": "127.0.0.1 ::1 unix:///run/q.sock", "unix_sockets": {"mode": "0660"}});
    let of = configuration(file);
    let listeners = resolver(&of, &machine()).http().unwrap();
    assert_eq!(listeners[0], Listen::Tcp("127.0.0.1:8500".parse().unwrap()));
    assert_eq!(listeners[1], Listen::Tcp("[::1]:8500".parse().unwrap()));
    assert_eq!(listeners[2], Listen::Unix { path: "/run/q.sock".into(), mode: Some(0o660) });
    let file = json!({"client_addr": "0.0.0.0", "addresses": {"http": "{{ GetPrivateIP }}"}});
    let of = configuration(file);
    let listeners = resolver(&of, &machine()).http().unwrap();
    assert_eq!(listeners, [Listen::Tcp("10.0.0.5:8500".parse().unwrap())]);
}

#[test]
fn without_server_it_is_a_client_agent_of_the_servers_that_it_names() {
    let of = |file: Value| settings(&file).unwrap().client_of;
    let file = json!({"data_dir": "/x", "retry_join": ["127.0.0.1", "127.0.0.2:8301"]});
    assert_eq!(of(file), Some(vec!["127.0.0.1:8300".to_owned(), "127.0.0.2:8301".to_owned()]));
    assert_eq!(of(json!({"data_dir": "/x", "server": true, "bind_addr": "::1"})), None);
}

#[test]
fn a_client_agents_node_has_the_advertised_address_else_the_one_it_binds_to() {
    for (file, expected) in [
        (json!({}), None),
        (json!({"bind_addr": "0.0.0.0"}), None),
        (json!({"bind_addr": "::"}), None),
        (json!({"bind_addr": "10.0.0.5"}), Some("10.0.0.5")),
        (json!({"advertise_addr": "192.0.2.1"}), Some("192.0.2.1")),
        (json!({"bind_addr": "10.0.0.5", "advertise_addr": "192.0.2.1"}), Some("192.0.2.1")),
    ] {
        let text = file.to_string();
        let configuration = configuration(file);
        let address = resolver(&configuration, &machine()).advertised().unwrap();
        assert_eq!(address.map(|ip| ip.to_string()).as_deref(), expected, "{text}");
    }
}

#[test]
fn what_is_said_of_the_node() {
    let said = configuration(json!({
        "node_id": "6B1F3C1E-94A5-4AB1-A7F6-7C6DBB1F4C11", "node_meta": [{"rack": "7"}, {"zone": "a"}],
        "advertise_addr_wan": "198.51.100.7", "tagged_addresses": {"vpn": "10.8.0.1"},
    }));
    let said = said.description().unwrap();
    assert_eq!(said.id.as_deref(), Some("6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11"));
    assert_eq!(json!(said.meta), json!({"rack": "7", "zone": "a"}));
    assert_eq!(
        json!(said.tagged_addresses),
        json!({"vpn": "10.8.0.1", "wan": "198.51.100.7", "wan_ipv4": "198.51.100.7"})
    );
    assert!(configuration(json!({})).description().unwrap().is_empty());
}

#[test]
fn limits_are_read() {
    let of = configuration(json!({
        "session_ttl_min": "2s", "check_output_max_size": 100, "discard_check_output": true,
        "limits": {"http_max_conns_per_client": 7, "kv_max_value_size": 1000, "txn_max_req_len": 2000},
    }));
    let limits = of.limits().unwrap();
    assert_eq!(limits.session_ttl_min_nanos, Some(2_000_000_000));
    assert_eq!((limits.value_bytes, limits.txn_bytes), (Some(1_000), Some(2_000)));
    assert_eq!(limits.connections_per_client, Some(7));
    let output = of.check_output().unwrap();
    assert_eq!((output.bytes_max, output.discard), (Some(100), true));
    let unlimited = configuration(json!({"limits": {"http_max_conns_per_client": -1}}));
    assert_eq!(unlimited.limits().unwrap(), ApiLimits::default());
}

#[test]
fn definitions_of_all_files_add_up() {
    let defined = configuration(json!({
        "service": [{"name": "a"}, {"name": "b", "check": [{"id": "c", "ttl": "1s"}]}],
        "services": {"name": "d", "checks": {"id": "e", "ttl": "1s"}},
        "check": {"name": "x", "ttl": "1s"}, "checks": [{"name": "y", "ttl": "1s"}],
    }));
    let Defined { services, checks } = defined.defined();
    assert_eq!(services[0], json!({"name": "a"}));
    assert_eq!(services[1]["check"], json!({"CheckID": "c", "ttl": "1s"}));
    assert_eq!(services[2]["checks"], json!([{"CheckID": "e", "ttl": "1s"}]));
    assert_eq!((services.len(), checks.len()), (3, 2));
}
