//! Control groups of a run: directories of their own, removed at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Failure, Result};

/// How often, and for how long in seconds, the guardian's shell tries to remove a group: its processes
/// were killed, but may not be gone yet.
const REMOVAL_TRIES: &str = "1 2 3 4 5 6 7 8 9 10";
const REMOVAL_PAUSE: &str = "0.2";

/// Runs of this process that have asked for groups.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Which interface the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// Where groups of one controller are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    /// The interface.
    pub(super) version: Version,
    /// The group that this process is in: what it may do, its groups may do at most.
    parent: PathBuf,
    /// Several runs of one process have groups of their own.
    run: u32,
}

/// One group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    path: PathBuf,
    parent: PathBuf,
}

impl Controller {
    /// Finds a controller (`cpu`, `memory`) and tries whether groups can be made; the error says why not.
    pub(super) fn find(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let found = version_one(&mounts, &own, name).or_else(|| version_two(&mounts, &own));
        let found =
            found.ok_or_else(|| Failure::new(format!("no {name} control groups are mounted")))?;
        let found = Self { run: RUNS.fetch_add(1, Ordering::Relaxed), ..found };
        if found.version == Version::Two {
            enable(&found.parent, name)?;
        }
        let tried = found.group("try");
        let usable = tried.make().and_then(|()| tried.remove());
        usable.map_err(|error| {
            Failure::new(format!(
                "no {name} group can be made in {}: {error}",
                found.parent.display()
            ))
        })?;
        Ok(found)
    }

    /// A group of this run; it is not made yet. `{id}` may be part of its name.
    pub(super) fn group(&self, name: &str) -> Group {
        let name = format!("quorate-{}-{}-{name}", std::process::id(), self.run);
        Group { path: self.parent.join(name), parent: self.parent.clone() }
    }
}

impl Group {
    /// Makes it.
    pub(super) fn make(&self) -> Result<()> {
        Ok(fs::create_dir_all(&self.path)?)
    }

    /// A line of shell with which a process makes it, if need be, and goes into it.
    pub(super) fn enter_line(&self) -> String {
        let path = self.path.display();
        format!("mkdir -p {path} && echo $$ > {path}/cgroup.procs")
    }

    /// A line of shell that moves its processes out and removes it, if it is there.
    pub(super) fn removal_line(&self) -> String {
        let (path, parent) = (self.path.display(), self.parent.display());
        format!(
            "for i in {REMOVAL_TRIES}; do [ -d {path} ] || break; while read -r pid; do echo $pid > \
             {parent}/cgroup.procs; done < {path}/cgroup.procs; rmdir {path} && break; sleep \
             {REMOVAL_PAUSE}; done"
        )
    }

    /// Puts a process with all its threads into it.
    pub(super) fn take_in(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether it is there and a process is in it.
    pub(super) fn holds(&self, pid: u32) -> bool {
        let pid = pid.to_string();
        self.read("cgroup.procs").is_ok_and(|pids| pids.lines().any(|line| line == pid))
    }

    /// Moves its processes out and removes it.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        for pid in self.read("cgroup.procs")?.lines() {
            // A process that has just ended need not be moved.
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        Ok(fs::remove_dir(&self.path)?)
    }

    /// Sets one of its values.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        let written = fs::write(&path, value);
        written.map_err(|error| Failure::new(format!("{value} to {}: {error}", path.display())))
    }

    /// One of its files.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path);
        text.map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    }

    /// The number behind a name in one of its files.
    pub(super) fn figure(&self, file: &str, name: &str) -> Result<u64> {
        figure(&self.read(file)?, name)
            .ok_or_else(|| Failure::new(format!("{file} of a control group has no {name}")))
    }
}

fn figure(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The fields of a mount: where, which kind, and its options.
fn mounts_of<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = (&'a Path, &'a str)> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(1);
        let (place, is, options) = (fields.next()?, fields.next()?, fields.next()?);
        (is == kind).then_some((Path::new(place), options))
    })
}

fn version_one(mounts: &str, own: &str, name: &str) -> Option<Controller> {
    let has = |options: &str| options.split(',').any(|option| option == name);
    let (mount, _) = mounts_of(mounts, "cgroup").find(|(_, options)| has(options))?;
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|controller| controller == name).then_some(path)
    });
    Some(Controller { version: Version::One, parent: below(mount, path.unwrap_or("/")), run: 0 })
}

fn version_two(mounts: &str, own: &str) -> Option<Controller> {
    let (mount, _) = mounts_of(mounts, "cgroup2").next()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    Some(Controller { version: Version::Two, parent: below(mount, path.unwrap_or("/")), run: 0 })
}

/// A container may see its own group as the mount's root, under a path that is not there.
fn below(mount: &Path, path: &str) -> PathBuf {
    let inner = mount.join(path.trim_start_matches('/'));
    if inner.is_dir() { inner } else { mount.to_owned() }
}

/// Version 2: the group's own groups get a controller only if it hands it down.
fn enable(parent: &Path, name: &str) -> Result<()> {
    let refused = |error: &dyn std::fmt::Display| {
        let parent = parent.display();
        Failure::new(format!("{parent} does not hand down the {name} controller: {error}"))
    };
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"));
    let controllers = controllers.map_err(|error| refused(&error))?;
    if !controllers.split_whitespace().any(|controller| controller == name) {
        return Err(refused(&"it has none"));
    }
    let enabled = fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
    enabled.map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /nowhere/cg tmpfs rw,mode=755 0 0\n\
        cgroup /nowhere/cg/cpuacct cgroup rw,cpuacct 0 0\n\
        cgroup /nowhere/cg/cpu cgroup rw,relatime,cpu 0 0\n\
        cgroup2 /nowhere/cg/unified cgroup2 rw,relatime 0 0\n";

    #[test]
    fn a_controller_of_version_one_is_found_by_its_own_name() {
        let found = version_one(MOUNTS, "2:cpuacct:/a\n1:cpu:/\n0::/\n", "cpu").unwrap();
        assert_eq!(found.parent, Path::new("/nowhere/cg/cpu"));
        assert!(version_one(MOUNTS, "", "memory").is_none());
    }

    #[test]
    fn the_one_hierarchy_of_version_two_is_found() {
        let found = version_two(MOUNTS, "0::/\n").unwrap();
        assert_eq!(found.version, Version::Two);
        assert_eq!(found.parent, Path::new("/nowhere/cg/unified"));
        assert!(version_two("cgroup /nowhere/cg/cpu cgroup rw,cpu 0 0\n", "").is_none());
    }

    #[test]
    fn groups_are_made_in_the_group_that_this_process_is_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("inner/most")).unwrap();
        assert_eq!(below(dir.path(), "/inner/most"), dir.path().join("inner/most"));
        assert_eq!(below(dir.path(), "/not/there"), dir.path());
    }

    #[test]
    fn a_figure_is_the_number_behind_its_whole_name() {
        let text = "nr_periods 7\nnr_throttled 12\nthrottled_time 99\n";
        assert_eq!(figure(text, "nr_throttled"), Some(12));
        assert_eq!(figure(text, "nr"), None);
    }
}
