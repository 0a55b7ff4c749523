//! The copy of the workspace in which mutants are made and built.
//!
//! It is in the target directory, always at the same path, and has its own target directory, which all mutants
//! share: cargo builds the dependencies once, and for each mutant only the two or three crates of the server. The
//! workspace itself is never changed, and a broken binary is never where the harness looks for the real one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Mutant, head, patch};
use crate::{Failure, Result, binary};

/// Lines of context around each change: few, so that a patch survives changes near by.
const CONTEXT: &str = "-U2";

/// What the head of a new patch begins as.
const NEW_HEAD: &str = "Rule: \nBroken: \nWorkload: \nNemeses: \nChecker: \n\n";

/// The copy. One process has it at a time.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    target: PathBuf,
    /// Used by git in the place of the workspace's own index.
    index: PathBuf,
    _lock: File,
}

/// The directory of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in its workspace")
}

/// Whether a patch applies to the workspace, which is not changed.
///
/// # Errors
/// When it does not, with git's reason.
pub fn check_applies(name: &str) -> Result<()> {
    run(git(workspace()).args(["apply", "--check"]).arg(patch(name))).map(drop)
}

impl Tree {
    /// The copy, which may be of other sources until [`Tree::reset`]. Waits while another process has it.
    pub fn open() -> Result<Self> {
        let dir = binary::target_dir()?.join("mutants");
        let (path, target) = (dir.join("tree"), dir.join("target"));
        fs::create_dir_all(&path)?;
        let dir = dir.canonicalize()?;
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        Ok(Self { path: path.canonicalize()?, target, index: dir.join("index"), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it equal to the workspace: what git tracks or would. Files that are equal already are not
    /// touched, because cargo rebuilds what is newer than its last build.
    pub fn reset(&self) -> Result<()> {
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = run(git(workspace()).args(listed))?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let files = listed.split('\0').filter(|file| workspace().join(file).is_file());
        let files: BTreeSet<PathBuf> = files.map(|file| self.path.join(file)).collect();
        remove_others(&self.path, &files)?;
        for copy in &files {
            let source = workspace().join(copy.strip_prefix(&self.path).unwrap_or(copy));
            if fs::read(copy).ok() == Some(fs::read(&source)?) {
                continue;
            }
            if let Some(dir) = copy.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::copy(&source, copy)?;
        }
        Ok(())
    }

    /// Makes it that mutant.
    pub fn apply(&self, mutant: &Mutant) -> Result<()> {
        self.reset()?;
        run(git(&self.path).arg("apply").arg(patch(&mutant.name))).map(drop)
    }

    /// Builds the server and returns its binary, which the next build replaces.
    pub fn build(&self) -> Result<PathBuf> {
        binary::build_in(&self.path, &self.target)
    }

    /// Has cargo check the server's code.
    pub fn check(&self) -> Result<()> {
        run(self.cargo("cargo").args(["check", "--quiet", "--package", "quorate"])).map(drop)
    }

    /// Runs the command of one test; whether it passes.
    ///
    /// # Errors
    /// When it does not compile, or there is no such test.
    pub fn passes(&self, command: &[String]) -> Result<bool> {
        let (program, words) = command.split_first().expect("a command has a first word");
        run(self.cargo(program).args(words).arg("--no-run"))?;
        let output = output(self.cargo(program).args(words))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let (passed, failed) = (said.contains(" 1 passed"), said.contains(" 1 failed"));
        if passed || failed {
            return Ok(passed && output.status.success());
        }
        Err(Failure::new(format!("{} ran no test", command.join(" "))))
    }

    fn cargo(&self, program: &str) -> Command {
        let mut command = match (program, std::env::var_os("CARGO")) {
            ("cargo", Some(cargo)) => Command::new(cargo),
            (program, _) => Command::new(program),
        };
        command.current_dir(&self.path).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Writes a patch anew that applied to earlier sources, by a three-way merge with these.
    ///
    /// # Errors
    /// When both changed the same lines: then the copy has git's marks of the conflict.
    pub fn refresh(&self, name: &str) -> Result<()> {
        self.reset()?;
        let base = self.snapshot(&self.path)?;
        let merge = run(self.git(&self.path)?.args(["apply", "--3way"]).arg(patch(name)));
        merge.map_err(|failure| {
            Failure::new(format!(
                "{failure}\nResolve the conflicts in {}, then run `mutants --record {name}`",
                self.path.display()
            ))
        })?;
        self.write(name, &base)
    }

    /// Writes what was changed by hand in the copy as the diff of a patch, under the head that it has.
    pub fn record(&self, name: &str) -> Result<()> {
        let base = self.snapshot(workspace())?;
        self.write(name, &base)
    }

    fn write(&self, name: &str, base: &str) -> Result<()> {
        let diff = ["diff", "--no-color", "--no-ext-diff", CONTEXT, base];
        let diff = run(self.git(&self.path)?.args(diff))?.stdout;
        if diff.is_empty() {
            return Err(Failure::new(format!("{} is like the sources", self.path.display())));
        }
        let old = fs::read_to_string(patch(name));
        let head = old.as_deref().map_or(NEW_HEAD, head);
        fs::write(patch(name), [head.as_bytes(), &diff].concat())?;
        Ok(())
    }

    /// The files of a directory as a tree in git's store, and in the index that is used here.
    fn snapshot(&self, dir: &Path) -> Result<String> {
        run(self.git(dir)?.args(["read-tree", "--empty"]))?;
        run(self.git(dir)?.args(["add", "--all", "."]))?;
        let id = run(self.git(dir)?.arg("write-tree"))?.stdout;
        Ok(String::from_utf8_lossy(&id).trim().to_owned())
    }

    /// Git at work on the files of `dir`, with the workspace's store of objects and the index of the copy.
    fn git(&self, dir: &Path) -> Result<Command> {
        let store = run(git(workspace()).args(["rev-parse", "--absolute-git-dir"]))?.stdout;
        let mut command = git(dir);
        command.env("GIT_DIR", String::from_utf8_lossy(&store).trim());
        command.env("GIT_WORK_TREE", dir).env("GIT_INDEX_FILE", &self.index);
        Ok(command)
    }
}

/// Removes what is not among `files`.
fn remove_others(dir: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Git in a directory. In the copy it must not find the repository that the target directory is in: it
/// would skip the files of a patch as lying elsewhere.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    command.current_dir(dir).env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir));
    command
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> Result<Output> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(output);
    }
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let program = command.get_program().to_string_lossy();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program} {} failed:\n{}", words.join(" "), said.trim_end())))
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| {
        let program = command.get_program().to_string_lossy();
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound => format!("{program} is needed here, and is not installed"),
            _ => format!("{program}: {error}"),
        })
    })
}
