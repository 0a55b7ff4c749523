//! Programs in other languages that use a cluster as their users do.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;

use crate::{Failure, Limit, Result};

/// How many of its last lines a failing script is shown with.
const TAIL_LINES: usize = 40;

/// A running program. It is killed when this is dropped, and its standard input ends with this process.
#[derive(Debug)]
pub struct Script {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    said: Said,
    readers: Vec<JoinHandle<()>>,
}

/// What a script says of itself in its last line, as JSON.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Summary {
    /// How many requests were answered.
    pub calls: usize,
    /// How long the slowest of them took that was not asked to take long, in milliseconds.
    pub slowest_ms: u64,
}

impl Script {
    /// Starts `command`; `name` is for error messages.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("{name} does not start: {error}")))?;
        let said = Said::default();
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| said.listen("", pipe)));
        readers.extend(child.stderr.take().map(|pipe| said.listen("error: ", pipe)));
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, input, said, readers })
    }

    /// How many of its lines so far begin with `start`.
    pub fn count(&self, start: &str) -> usize {
        self.said.lines().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Waits until `count` lines begin with `start`; fails after `limit`, and when the script ends before.
    pub fn wait_for(&mut self, count: usize, start: &str, limit: Duration) -> Result<()> {
        let limit = Limit::new(limit);
        while self.count(start) < count {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended too early: {status}")));
            }
            let missing = || self.failure("does not get on").to_string();
            limit.pause_blocking(missing)?;
        }
        Ok(())
    }

    /// Asks it to stop: its standard input ends.
    pub fn tell_to_stop(&mut self) {
        drop(self.input.take());
    }

    /// Waits for its end; anything but success within `limit` is a failure.
    pub fn finish(mut self, limit: Duration) -> Result<Summary> {
        let status = self.wait(limit)?;
        // The pipes have ended with the process: now everything that it said is there.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if !status.success() {
            return Err(self.failure(&status.to_string()));
        }
        let lines = self.said.lines();
        let last = lines.last().map_or("", String::as_str);
        serde_json::from_str(last).map_err(|_| self.failure("ended without its summary"))
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let limit = Limit::new(limit);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            limit.pause_blocking(|| self.failure("does not end").to_string())?;
        }
    }

    fn failure(&self, what: &str) -> Failure {
        let lines = self.said.lines();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        Failure::new(format!("{} {what}\n{}", self.name, tail.join("\n")))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Already gone is as good; nothing more can be done about another error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of both of a script's outputs.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads on in a thread, so that the script never waits for its reader.
    fn listen(&self, mark: &'static str, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let said = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
                said.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{mark}{line}"));
            }
        })
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines", self.lines().len())
    }
}

/// Whether `program` is there and starts.
pub fn is_present(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|ran| ran.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(text: &str) -> Script {
        Script::start("a shell", Command::new("sh").args(["-c", text])).unwrap()
    }

    #[test]
    fn a_script_is_told_to_stop_and_says_what_it_did() {
        let mut script = shell(r#"echo step 1; cat; echo '{"calls": 7, "slowest_ms": 3}'"#);
        script.wait_for(1, "step", LIMIT).unwrap();
        script.tell_to_stop();
        let summary = script.finish(LIMIT).unwrap();
        assert_eq!((summary.calls, summary.slowest_ms), (7, 3));
    }

    #[test]
    fn a_script_that_fails_is_shown_with_its_last_words() {
        let said = format!("{:?}", shell("echo alas >&2; exit 3").finish(LIMIT).unwrap_err());
        assert!(said.contains("exit status: 3") && said.contains("error: alas"), "{said}");
        let early = shell("exit 0").wait_for(1, "step", LIMIT).unwrap_err();
        assert!(format!("{early:?}").contains("ended too early"), "{early:?}");
    }

    #[test]
    fn a_script_without_an_end_is_killed() {
        let script = shell("exec sleep 600");
        let pid = script.child.id();
        script.finish(Duration::from_millis(50)).unwrap_err();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
