//! Where the `quorate` binary is.
//!
//! Cargo tells the path of a binary only to tests of the same package. `cargo test --workspace` builds
//! it all the same, because the server's package has tests of its own: then it lies beside the tests,
//! newer than every source. Otherwise (`cargo test -p jepsen-style-tests` after a change) this crate has
//! it built, in the profile and target directory of the running test. Building it in any case would
//! compile most of it twice: alone, the server's dependencies have other features than in the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::{Failure, Result};

/// The binary: the one that `QUORATE_BIN` names, else built by cargo, once per process.
pub fn quorate() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(locate).clone()
}

/// The same, for a task that must not keep a worker thread while it is built.
pub(crate) async fn quorate_aside() -> Result<PathBuf> {
    let built = tokio::task::spawn_blocking(quorate).await;
    built.map_err(|error| Failure::new(format!("building the binary: {error}")))?
}

fn locate() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUORATE_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::new(format!("QUORATE_BIN names {}, which is no file", path.display())))
        };
    }
    let beside = profile_dir()?.join("quorate");
    if is_present(&beside)? { Ok(beside) } else { build() }
}

/// Whether there is a binary that is newer than everything it is made of.
fn is_present(binary: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(binary).and_then(|meta| meta.modified()) else { return Ok(false) };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = ["node", "storage", "client", "Cargo.toml", "Cargo.lock"];
    for source in sources {
        if newest(&workspace.join(source))? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When the newest file of a tree was written. Tests do not count: they are no part of the binary.
fn newest(path: &Path) -> Result<SystemTime> {
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.modified()?);
    }
    let mut newest_below = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() != "tests" {
            newest_below = newest_below.max(newest(&entry.path())?);
        }
    }
    Ok(newest_below)
}

fn build() -> Result<PathBuf> {
    build_in(Path::new(env!("CARGO_MANIFEST_DIR")), &target_dir()?)
}

/// Has cargo build the workspace that `dir` is in, in the profile of the running test, and returns the binary.
/// Processes that build at the same time wait for each other: cargo locks the target directory.
pub(crate) fn build_in(dir: &Path, target_dir: &Path) -> Result<PathBuf> {
    let profile_dir = profile_dir()?;
    let profile_name = profile_dir
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Failure::new("the test binary's directory has no name"))?;
    let profile = if profile_name == "debug" { "dev" } else { profile_name };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "quorate", "--bin", "quorate"])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(dir)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("cargo build --package quorate failed:\n{said}")));
    }
    Ok(target_dir.join(profile_name).join("quorate"))
}

/// `target/debug`, if the running test is `target/debug/deps/name-0123`.
fn profile_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let dir = test.parent().ok_or_else(|| Failure::new("the test binary lies in no directory"))?;
    let is_below = dir.ends_with("deps") || dir.ends_with("examples");
    Ok(if is_below { dir.parent().unwrap_or(dir) } else { dir }.to_path_buf())
}

/// The target directory that the running test was built in.
pub fn target_dir() -> Result<PathBuf> {
    let profile = profile_dir()?;
    Ok(profile.parent().unwrap_or(Path::new(".")).to_path_buf())
}
