//! Where the `quorate` binary is.
//!
//! Cargo tells the path of a binary only to tests of the same package. So this crate has it built
//! itself, in the profile and target directory that the running test was built in: what is tested
//! is always the present source, and nothing is compiled twice.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Failure, Result};

/// The binary: the one that `QUORATE_BIN` names, else built by cargo, once per process.
pub fn quorate() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(locate).clone()
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
    build()
}

/// Processes that build at the same time wait for each other: cargo locks the target directory.
fn build() -> Result<PathBuf> {
    let profile_dir = profile_dir()?;
    let target_dir = target_dir()?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => return Err(Failure::new("the test binary's directory has no name")),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "quorate", "--bin", "quorate"])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("cargo build --package quorate failed:\n{said}")));
    }
    Ok(profile_dir.join("quorate"))
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
