//! What the packages name is there: flags and settings that a server knows, files, and a unit that systemd accepts.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jepsen_style_tests::process::{Process, free_ports, run};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Result, binary, skipped};
use nix::sys::signal::Signal;
use regex::Regex;
use serde_json::Value;

const UNIT: &str = include_str!("../../../cluster-scripts/packaging/quorate.service");
const SETTINGS: &str = include_str!("../../../cluster-scripts/packaging/server.toml");
const CONTAINER: &str = include_str!("../../../cluster-scripts/packaging/Containerfile");
const COMPOSE: &str = include_str!("../../../cluster-scripts/packaging/compose.yaml");
const MANIFEST: &str = include_str!("../../../node/Cargo.toml");
const PATIENCE: Duration = Duration::from_secs(30);
/// How much a unit is exposed, in tenths, as systemd counts: below it says OK.
const EXPOSURE_MAX: &str = "30";

/// The long flags that a command's help shows.
fn flags(command: &str) -> BTreeSet<String> {
    let (status, help) = run(&[], [command, "--help"]).expect("it prints its help");
    assert!(status.success(), "{help}");
    let flag = Regex::new(r"(?m)^ +(?:-\w, )?(--[a-z-]+)").expect("a pattern");
    flag.captures_iter(&help).map(|found| found[1].to_owned()).collect()
}

/// The words of every command line of the packages: the unit's, the image's, and each server's of the compose file.
fn command_lines() -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let unit = UNIT.lines().filter_map(|line| line.strip_prefix("ExecStart=")).map(words);
    let image = CONTAINER.lines().filter_map(|line| line.strip_prefix("CMD "));
    let image = image.map(|line| serde_json::from_str(line).expect("a list of words"));
    let compose: Value = serde_norway::from_str(COMPOSE).expect("it is YAML");
    let services = compose["services"].as_object().expect("services").values().cloned();
    let compose = services.map(|service| {
        serde_json::from_value(service["command"].clone()).expect("a list of words")
    });
    let lines: Vec<_> = unit.chain(image).chain(compose.collect::<Vec<_>>()).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    lines
}

#[test]
fn packages_name_only_flags_and_settings_that_a_server_knows() {
    let known = flags("server");
    assert!(known.contains("--join"), "vacuous: {known:?}");
    for line in command_lines() {
        assert!(line.iter().any(|word| word == "server"), "{line:?}");
        for word in line.iter().filter(|word| word.starts_with("--")) {
            assert!(known.contains(word), "{word} in {line:?}");
        }
    }
    let setting = Regex::new(r"(?m)^(?:# )?([a-z-]+) = ").expect("a pattern");
    let settings: BTreeSet<_> =
        setting.captures_iter(SETTINGS).map(|found| format!("--{}", &found[1])).collect();
    assert!(settings.len() > 10, "vacuous: {settings:?}");
    assert!(settings.is_subset(&known), "{:?}", settings.difference(&known));
    let health: Value = serde_norway::from_str(COMPOSE).expect("it is YAML");
    let asked = health["x-server"]["healthcheck"]["test"].as_array().expect("words");
    let known = flags("status");
    for word in asked.iter().filter_map(Value::as_str).filter(|word| word.starts_with("--")) {
        assert!(known.contains(word), "{word}");
    }
}

#[test]
fn three_servers_of_the_compose_file_found_one_cluster() {
    let mut ids = BTreeSet::new();
    let compose: Value = serde_norway::from_str(COMPOSE).expect("it is YAML");
    for (name, service) in compose["services"].as_object().expect("services") {
        let words: Vec<String> = serde_json::from_value(service["command"].clone()).expect("words");
        let value = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1).cloned();
        ids.extend(value("--node-id"));
        assert_eq!(value("--name").as_ref(), Some(name));
        assert_eq!(value("--rpc-addr"), Some(format!("{name}:8300")));
        assert_eq!(value("--bootstrap-expect").as_deref(), Some("3"));
        assert_eq!(value("--join").as_deref(), Some("n1:8300,n2:8300,n3:8300"));
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn every_file_of_the_debian_package_is_there() {
    let manifest: Vec<_> = MANIFEST.split("[package.metadata.deb]").collect();
    let package = manifest.get(1).expect("the package is described");
    let asset = Regex::new(r#"(?m)^  \["([^"]+)", "([^"]+)", "\d+"\],"#).expect("a pattern");
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node");
    let assets: Vec<_> = asset.captures_iter(package).map(|found| found[1].to_owned()).collect();
    assert!(assets.len() > 5, "{assets:?}");
    for path in assets.iter().filter(|path| !path.starts_with("target/")) {
        assert!(node.join(path).is_file(), "{path}");
    }
    for path in ["packaging/quorate.service", "packaging/debian/postinst"] {
        assert!(node.join("../cluster-scripts").join(path).is_file(), "{path}");
    }
}

/// systemd's own judgement, with this build's binary in the place of the installed one.
#[test]
fn the_unit_is_what_systemd_accepts_and_calls_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skipped("the unit", "systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (unit, binary) =
        (dir.path().join("quorate.service"), binary::quorate().expect("it is built"));
    let text = UNIT.replace("/usr/bin/quorate", &binary.display().to_string());
    std::fs::write(&unit, text).expect("it is written");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=yes", &threshold]] {
        let ran = Command::new("systemd-analyze").args(arguments).arg(&unit).output();
        let ran = ran.expect("it runs");
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(ran.status.success(), "{arguments:?}: {said}");
        let about = said.lines().filter(|line| line.contains("quorate.service:"));
        assert_eq!(about.count(), usize::from(arguments[0] == "security"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_is_told_when_a_server_serves_and_when_it_ends() {
    let _turn = Turn::share().await.unwrap();
    told().await.unwrap();
}

async fn told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let ports = free_ports(std::net::Ipv4Addr::LOCALHOST, 2)?;
    let [http, rpc] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
    let data = dir.path().join("data").display().to_string();
    let arguments = ["server", "--data-dir", &data, "--http-addr", &http, "--rpc-addr", &rpc];
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap_or_default())];
    let server = Process::start_in(&environment, &dir.path().join("log"), arguments)?;
    assert_eq!(next(&socket)?, "READY=1", "{}", server.log());
    assert!(tokio::net::TcpStream::connect(&http).await.is_ok(), "it said that it serves");
    server.signal(Signal::SIGTERM)?;
    assert_eq!(next(&socket)?, "STOPPING=1", "{}", server.log());
    Ok(())
}

fn next(socket: &UnixDatagram) -> Result<String> {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
}
