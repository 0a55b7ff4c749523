//! Ends the servers of a test process that was itself killed.
//!
//! A destructor does not run on SIGKILL. So each cluster has a small shell that knows the servers' process ids and
//! reads from a pipe. When the test process ends, however it ends, the pipe closes, and the shell kills what is
//! left. The system reuses process ids, so the shell also checks that the command line names the cluster's
//! directory.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Failure, Result};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=' '
undo=
while read -r sign pid; do
  case $sign in
    +) pids="$pids$pid " ;;
    -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    '!') undo="$pid
$undo" ;;
  esac
done
for pid in $pids; do
  case "$(tr '\000' ' ' 2>/dev/null <"/proc/$pid/cmdline") " in
    *"-data-dir $1/"*) kill -s KILL "$pid" 2>/dev/null ;;
  esac
done
[ -z "$undo" ] || sh -c "$undo" >/dev/null 2>&1
"#;

/// The shell that watches over one cluster.
#[derive(Debug)]
pub struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Watches over servers whose data lie below `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A Ctrl-C in the terminal is for the test, and must not end its guardian first.
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }

    /// A server was started.
    pub fn add(&mut self, pid: u32) -> Result<()> {
        self.tell('+', pid)
    }

    /// A server has ended and was waited for: its id may now mean somebody else.
    pub fn remove(&mut self, pid: u32) -> Result<()> {
        self.tell('-', pid)
    }

    /// Has `command` (one line of shell) run at the end, after the servers were killed, last given first.
    /// It must do no harm when it was done already: it always runs.
    pub fn at_end(&mut self, command: &str) -> Result<()> {
        if command.contains('\n') {
            return Err(Failure::new("a guardian's command is one line"));
        }
        self.tell('!', command)
    }

    fn tell(&mut self, sign: char, what: impl std::fmt::Display) -> Result<()> {
        let pipe = self.shell.stdin.as_mut().expect("the pipe is open until drop");
        writeln!(pipe, "{sign} {what}")?;
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Nothing to be done about an error while dropping; the shell ends by itself.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process whose command line looks like a server's with its data in `dir`.
    fn waiting_shell(dir: &str) -> Child {
        Command::new("sh")
            .args(["-c", "read -r line; :", "server", "--data-dir", dir])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_guardian_ends_what_is_left_and_nothing_else() {
        let mut guardian = Guardian::start(Path::new("/nowhere/cluster")).unwrap();
        let mut left = waiting_shell("/nowhere/cluster/n1");
        let mut removed = waiting_shell("/nowhere/cluster/n2");
        let mut stranger = waiting_shell("/elsewhere/n1");
        for pid in [left.id(), removed.id(), stranger.id()] {
            guardian.add(pid).unwrap();
        }
        guardian.remove(removed.id()).unwrap();
        drop(guardian);
        assert!(!left.wait().unwrap().success());
        assert!(removed.try_wait().unwrap().is_none());
        assert!(stranger.try_wait().unwrap().is_none());
        for mut child in [removed, stranger] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn what_was_done_is_undone_in_the_reverse_order() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let mut guardian = Guardian::start(Path::new("/nowhere/cluster")).unwrap();
        for word in ["first", "second \\ 'quoted'"] {
            guardian.at_end(&format!("echo \"{word}\" >> {}", said.display())).unwrap();
        }
        assert!(guardian.at_end("two\nlines").is_err());
        drop(guardian);
        assert_eq!(std::fs::read_to_string(said).unwrap(), "second \\ 'quoted'\nfirst\n");
    }
}
