//! The harness's own command line: its exit codes, and that nothing stays behind when it is ended.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jepsen_style_tests::Limit;
use jepsen_style_tests::process::send_signal;
use nix::sys::signal::Signal;

/// How long a run may take until its servers run; another test may have its turn before.
const START_LIMIT: Duration = Duration::from_secs(240);
/// How long the servers of an ended harness may live on.
const END_LIMIT: Duration = Duration::from_secs(10);

fn harness() -> Command {
    Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"))
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Process ids of servers whose data lie below `dir`.
fn servers(dir: &Path) -> Vec<u32> {
    let wanted = format!("--data-dir\0{}", dir.display());
    let processes = std::fs::read_dir("/proc").expect("there is /proc").filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&wanted)
        })
        .collect()
}

/// Waits until `count` servers run.
fn wait_for(dir: &Path, count: usize, limit: Duration) {
    let limit = Limit::new(limit);
    while servers(dir).len() != count {
        let missing = || format!("{count} servers: {:?} run", servers(dir));
        limit.pause_blocking(missing).expect("the servers start and end");
    }
}

/// A harness that does not outlive its test.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run that is under way, with three servers.
fn begun(out: &Path) -> Begun {
    let child = harness()
        .args(["run", "--workload", "kv-register", "--nemesis", "pause", "--time", "60", "--out"])
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the harness can be started");
    let begun = Begun(child);
    wait_for(out, 3, START_LIMIT);
    begun
}

fn send(begun: &Begun, signal: Signal) {
    send_signal(&begun.0, signal).expect("it was not waited for yet");
}

#[test]
fn a_harness_that_is_killed_leaves_no_server_behind() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().canonicalize().unwrap();
    let mut child = begun(&dir);
    send(&child, Signal::SIGKILL);
    child.0.wait().unwrap();
    wait_for(&dir, 0, END_LIMIT);
}

#[test]
fn a_harness_that_is_terminated_ends_its_servers_and_proves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().canonicalize().unwrap();
    let mut child = begun(&dir);
    send(&child, Signal::SIGTERM);
    assert_eq!(child.0.wait().unwrap().code(), Some(2));
    wait_for(&dir, 0, END_LIMIT);
}

#[test]
fn a_run_without_faults_is_valid_and_can_be_judged_again() {
    let out = tempfile::tempdir().unwrap();
    let run = harness()
        .args(["run", "--workload", "kv-register", "--time", "4", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", text(&run));
    let dir = std::fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    let again = harness().arg("recheck").arg(&dir).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));

    // A value from nowhere in the history, and the same run is invalid.
    let history = dir.join("history.jsonl");
    let mut lines = std::fs::read_to_string(&history).unwrap();
    let made_up = r#"{"w":"kv-register","client":1,"key":1,"f":"read","from":null,"arg":null,"ok":true,"val":77777777777,"call":1,"ret":2}"#;
    lines.push_str(made_up);
    std::fs::write(&history, lines).unwrap();
    let damaged = harness().arg("recheck").arg(&dir).output().unwrap();
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged));
}

#[test]
fn a_run_without_room_for_a_fault_proves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let run = harness()
        .args(["run", "--workload", "kv-register", "--nemesis", "kill", "--time", "4", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", text(&run));
    assert!(text(&run).contains("only 0 faults took effect"), "{}", text(&run));
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    for (flag, name) in [("--workload", "knitting"), ("--nemesis", "dragons")] {
        let mut command = harness();
        command.arg("run").args([flag, name]);
        if flag == "--nemesis" {
            command.args(["--workload", "kv-register"]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(&format!("{name:?}")), "{}", text(&output));
    }
    let list = harness().arg("list").output().unwrap();
    assert!(text(&list).contains("kv-register") && text(&list).contains("kill-leader"));
}
