//! A place in which the commands of the README run as they are written: a copy of what they need of the checkout,
//! and a network of its own, in which the ports that they name are free.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jepsen_style_tests::{Failure, Result, binary};
use tempfile::TempDir;

/// How long one script may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(240);
/// Pause between two checks whether it has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The kernel makes a network and a set of mounts for one process and its children; as root in a user
/// namespace everybody may do that, unless the system's administrator said no.
const UNSHARE: [&str; 4] = ["unshare", "--map-root-user", "--net", "--mount"];

/// What every script begins with. Its standard input is a pipe that the test holds open: when the test
/// ends, however it ends, everything that the script started is killed, and nothing else, because the
/// waiting shell is itself of the process group that it kills.
const PRELUDE: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3; kill -s KILL -- "-$$"; } >/dev/null 2>&1 &
watchdog=$!
set -o pipefail
fail() { printf 'FAIL: %s\n' "$*"; exit 1; }
# Waits for something to hold, for longer than any machine should need.
wait_for() {
  local deadline=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || fail "not within a minute: $*"
    sleep 0.1
  done
}
"#;

/// The directory, and what the machine allows.
#[derive(Debug)]
pub(crate) struct Sandbox {
    dir: TempDir,
    has_network: bool,
}

impl Sandbox {
    /// Copies the scripts, and puts the tested binary where they and the README expect it.
    pub(crate) fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (scripts, release) =
            (dir.path().join("cluster-scripts"), dir.path().join("target/release"));
        for new in [&scripts, &release, &dir.path().join("bin")] {
            std::fs::create_dir_all(new)?;
        }
        for script in std::fs::read_dir(root.join("cluster-scripts"))? {
            let script = script?;
            if script.file_type()?.is_dir() {
                continue;
            }
            // Copies the permission to run it, too.
            std::fs::copy(script.path(), scripts.join(script.file_name()))?;
        }
        let quorate = binary::quorate()?;
        std::os::unix::fs::symlink(&quorate, release.join("quorate"))?;
        std::os::unix::fs::symlink(&quorate, dir.path().join("bin/quorate"))?;
        // An answer that is an error must fail the command, and a progress bar is no output.
        std::fs::write(dir.path().join(".curlrc"), "fail\nsilent\nshow-error\n")?;
        Ok(Self { dir, has_network: has_network() })
    }

    /// Whether scripts have a network and mounts of their own.
    pub(crate) fn has_network(&self) -> bool {
        self.has_network
    }

    /// A file below the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a script in bash, in the directory; returns what it printed. Fails if it does.
    pub(crate) async fn run(&self, script: &str) -> Result<String> {
        let (file, output) = (self.path("script"), self.path("output"));
        let network = if self.has_network { "ip link set lo up || exit 1\n" } else { "" };
        std::fs::write(&file, format!("{PRELUDE}{network}{script}"))?;
        let prefix: &[&str] = if self.has_network { &UNSHARE } else { &["env"] };
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new(prefix[0])
            .args(&prefix[1..])
            .arg("bash")
            .arg(&file)
            .current_dir(self.dir.path())
            .env("CURL_HOME", self.dir.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("QUORATE_BIN", binary::quorate()?)
            .stdin(Stdio::piped())
            .stdout(File::create(&output)?)
            .stderr(File::options().append(true).open(&output)?)
            .process_group(0)
            .spawn()?;
        let began = Instant::now();
        let ended = loop {
            match child.try_wait()? {
                None if began.elapsed() < LIMIT => tokio::time::sleep(LOOK_PAUSE).await,
                ended => break ended,
            }
        };
        // Ends what is left of it: see the prelude.
        drop(child.stdin.take());
        let said = std::fs::read_to_string(&output)?;
        match ended {
            Some(status) if status.success() => Ok(said),
            Some(status) => Err(Failure::new(format!("the script ended with {status}:\n{said}"))),
            None => {
                child.wait()?;
                Err(Failure::new(format!("the script did not end within {LIMIT:?}:\n{said}")))
            }
        }
    }
}

/// Whether this machine makes a network, and lets its loopback device be switched on.
fn has_network() -> bool {
    let up = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    up.is_ok_and(|status| status.success())
}
