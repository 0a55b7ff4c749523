//! Broken servers do not start by mistake: a sound build refuses to be one, and a build that has mutants
//! refuses directories that are not marked for it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use quorate::mutants::CHOOSES;

/// Looks for something that is to appear, each after a pause: no start takes as long as all of them,
/// however busy the machine.
const LOOKS_MAX: usize = 1_500;
const PAUSE: Duration = Duration::from_millis(20);

/// A server on ports that the system chooses, alone.
fn server(binary: &str, data_dir: &Path, mutant: &str) -> Command {
    let mut command = Command::new(binary);
    command.args(["server", "--http-addr", "127.0.0.1:0", "--rpc-addr", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(data_dir).env(CHOOSES, mutant).env("QUORATE_LOG", "warn");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A server that is killed at the end of its test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("cargo has built the binary"))
    }

    /// Waits until it has taken possession of its directory, which comes after all refusals.
    fn wait_until_it_owns(&mut self, data_dir: &Path) {
        for _ in 0..LOOKS_MAX {
            if data_dir.join("identity").exists() {
                return;
            }
            let ended = self.0.try_wait().expect("the server is a child of this process");
            assert_eq!(ended, None, "the server has ended");
            std::thread::sleep(PAUSE);
        }
        panic!("the server does not start");
    }

    /// Ends it and returns what it said.
    #[cfg(feature = "mutants")]
    fn end(mut self) -> String {
        use std::io::Read as _;
        self.0.kill().expect("it is running");
        let mut stderr = self.0.stderr.take().expect("its log is piped");
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("a log is text");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A refusal: the words, and nothing touched.
fn assert_refused(output: &Output, words: &str, data_dir: &Path) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!data_dir.exists(), "a server that is refused leaves no trace");
}

#[cfg(not(feature = "mutants"))]
mod a_build_without_mutants {
    use super::*;

    const BINARY: &str = env!("CARGO_BIN_EXE_quorate");

    #[test]
    fn refuses_to_be_one() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join(quorate::mutants::MARKER), "").unwrap();
        let data_dir = run.path().join("data");
        let refused = server(BINARY, &data_dir, "cas-ignores-index").output().unwrap();
        assert_refused(&refused, "this build has no mutants", &data_dir);
    }

    #[test]
    fn starts_when_the_variable_is_empty() {
        let run = tempfile::tempdir().unwrap();
        let data_dir = run.path().join("data");
        let mut running = Running::start(server(BINARY, &data_dir, ""));
        running.wait_until_it_owns(&data_dir);
    }
}

#[cfg(feature = "mutants")]
mod a_build_with_mutants {
    use quorate::mutants::MARKER;
    use quorate_storage::mutant::Mutant;

    use super::*;

    const BINARY: &str = env!("CARGO_BIN_EXE_quorate-mutants");
    const PLAIN: &str = env!("CARGO_BIN_EXE_quorate");

    fn marked() -> tempfile::TempDir {
        let run = tempfile::tempdir().expect("there is room for temporary files");
        std::fs::write(run.path().join(MARKER), "").expect("the directory is ours");
        run
    }

    #[test]
    fn refuses_a_directory_that_is_not_marked() {
        for (binary, mutant) in [(BINARY, "cas-ignores-index"), (BINARY, ""), (PLAIN, "")] {
            let run = tempfile::tempdir().unwrap();
            let data_dir = run.path().join("data");
            let refused = server(binary, &data_dir, mutant).output().unwrap();
            assert_refused(&refused, MARKER, &data_dir);
        }
    }

    #[test]
    fn refuses_a_mutant_that_it_does_not_have() {
        let run = marked();
        let data_dir = run.path().join("data");
        let refused = server(BINARY, &data_dir, "a-mutant-of-no-rule").output().unwrap();
        assert_refused(&refused, "there is no mutant", &data_dir);
    }

    #[test]
    fn says_at_start_what_it_is() {
        for (mutant, said) in [("cas-ignores-index", "cas-ignores-index"), ("", "none")] {
            let run = marked();
            let data_dir = run.path().join("node").join("data");
            let mut running = Running::start(server(BINARY, &data_dir, mutant));
            running.wait_until_it_owns(&data_dir);
            let log = running.end();
            assert!(log.contains(&format!("mutant=\"{said}\"")), "{log}");
        }
    }

    #[test]
    fn lists_its_mutants() {
        let output = Command::new(BINARY).arg("mutants").output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let names = listed.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["breaks"].as_str().is_some_and(|text| !text.is_empty()), "{line}");
            line["name"].as_str().unwrap().to_owned()
        });
        assert!(names.eq(Mutant::ALL.iter().map(|mutant| mutant.name())));
    }
}
