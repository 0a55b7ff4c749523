//! The browser in which tests look at pages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::skipped;

/// Its names on different systems.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser's program. If there is none, `test` is reported as skipped.
pub fn program(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() {
        skipped(test, "no chromium is installed");
    }
    found
}

/// A command that starts the browser without a window, with this profile, and without requests of its own.
pub fn headless(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
