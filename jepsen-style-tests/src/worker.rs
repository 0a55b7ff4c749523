//! A worker process (`quorate worker`) that a workload starts and kills.
//!
//! It runs below a small shell that holds the other end of a pipe: when the harness ends, however it ends, the pipe
//! closes and the shell kills the worker.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::{Failure, Result};

/// Starts the rest of its command line, passes on the signals that it reads, and kills what it has started.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
"$@" </dev/null &
while read -r signal; do kill -s "$signal" $!; done
kill -s KILL $! 2>/dev/null
"#;

/// A running worker process. It is killed on drop.
#[derive(Debug)]
pub struct Worker {
    shell: Child,
    signals: Option<ChildStdin>,
}

impl Worker {
    /// Starts the worker `name` of the servers with these addresses (`http://...`).
    ///
    /// # Errors
    /// It cannot be started. Whether it goes on is not known here.
    pub fn start(binary: &Path, name: &str, servers: &[&str], key_file: &Path) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "worker"])
            .arg(binary)
            .args(["worker", "--name", name, "--cluster", &servers.join(",")])
            .arg("--worker-key-file")
            .arg(key_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let signals = shell.stdin.take();
        Ok(Self { shell, signals })
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Errors
    /// Its shell is gone.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        let signals = self.signals.as_mut();
        let signals = signals.ok_or_else(|| Failure::new("a worker without a shell"))?;
        Ok(writeln!(signals, "{signal}")?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The shell reads the end of its input, kills the worker, and ends.
        drop(self.signals.take());
        let _ = self.shell.wait();
    }
}
