//! Packages that people use drive a cluster through their public methods, each call going to the next node: the npm
//! package `consul`, and the PyPI packages `py-consul` and `python-consul`.
//!
//! `tests/clients/install` installs them below the target directory. Where they are missing, the tests say so and
//! pass. The scripts assert what they read, and end at the first surprise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jepsen_style_tests::rounds::rounds;
use jepsen_style_tests::script::{Script, Summary, is_present};
use jepsen_style_tests::{Cluster, Result, binary, skipped};

/// How long a script may take for its steps once.
const STORY_LIMIT: Duration = Duration::from_secs(90);
/// How many steps every script has behind it when the leader is killed.
const STEPS_BEFORE: usize = 10;
/// And how many more it plays after that. Its workers are at different places of the story, so that this is
/// about every step once.
const STEPS_AFTER: usize = 25;
/// How often the nodes' states are compared while the leader dies.
const COMPARE_EVERY: Duration = Duration::from_millis(50);
/// Fewer calls than this to a script prove little.
const CALLS_MIN: usize = 200;
/// A call that met the time without a leader took longer than this: an election needs votes that are on the
/// disks of two servers, and an entry after that.
const ELECTION_MS_MIN: u64 = 10;

#[derive(Debug, Clone, Copy)]
enum Package {
    /// `consul` of npm, which calls itself node-consul.
    Node,
    /// `py-consul` of PyPI.
    Py,
    /// `python-consul` of PyPI.
    Python,
}

impl Package {
    const ALL: [Self; 3] = [Self::Node, Self::Py, Self::Python];

    const fn name(self) -> &'static str {
        match self {
            Self::Node => "node-consul",
            Self::Py => "py-consul",
            Self::Python => "python-consul",
        }
    }

    /// What plays the script, or why nothing does.
    fn command(self) -> Result<Command, String> {
        let dir = installations()?.join(self.name());
        if !dir.join("installed").is_file() {
            let install = "jepsen-style-tests/tests/clients/install";
            return Err(format!("{} is not installed; {install} does it", self.name()));
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let (program, script) = match self {
            Self::Node => (PathBuf::from("node"), "node_consul.cjs"),
            Self::Py => (dir.join("bin/python"), "py_consul.py"),
            Self::Python => (dir.join("bin/python"), "python_consul.py"),
        };
        if !is_present(&program) {
            return Err(format!("{} does not run", program.display()));
        }
        let mut command = Command::new(program);
        // A developer's own settings are not what is tested.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CONSUL_") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(&*name);
            }
        }
        command.env("NODE_PATH", dir.join("node_modules")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(scripts.join(script));
        Ok(command)
    }
}

fn installations() -> Result<PathBuf, String> {
    let target = binary::target_dir().map_err(|error| error.to_string())?;
    Ok(target.join("clients"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_npm_package_consul_drives_a_cluster() {
    drive(Package::Node, "the_npm_package_consul_drives_a_cluster").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pypi_package_py_consul_drives_a_cluster() {
    drive(Package::Py, "the_pypi_package_py_consul_drives_a_cluster").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pypi_package_python_consul_drives_a_cluster() {
    drive(Package::Python, "the_pypi_package_python_consul_drives_a_cluster").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_shows_clients_at_the_survivors_nothing_but_latency() {
    let test = "a_killed_leader_shows_clients_at_the_survivors_nothing_but_latency";
    let (commands, missing): (Vec<_>, Vec<_>) =
        Package::ALL.into_iter().map(Package::command).partition(Result::is_ok);
    for reason in missing.into_iter().filter_map(Result::err) {
        skipped(test, &reason);
    }
    if !commands.is_empty() {
        outlive_leaders().await.unwrap();
    }
}

async fn drive(package: Package, test: &str) -> Result<()> {
    let mut command = match package.command() {
        Ok(command) => command,
        Err(reason) => {
            skipped(test, &reason);
            return Ok(());
        }
    };
    let cluster = Cluster::start_shared(3).await?;
    command.args(["once", &urls(&cluster, &cluster.ids())]);
    let summary = Script::start(package.name(), &mut command)?.finish(STORY_LIMIT)?;
    println!("{}: {summary:?}", package.name());
    assert!(summary.calls >= CALLS_MIN, "vacuous: {summary:?}");
    cluster.finish().await
}

async fn outlive_leaders() -> Result<()> {
    let mut cluster = Cluster::start_shared(3).await?;
    let hashes = cluster.watch_hashes(COMPARE_EVERY);
    for round in 1..=rounds(1) {
        let leader = cluster.leader().await?;
        let summaries = outlive(&mut cluster, leader)?;
        println!("round {round}: {summaries:?}");
        for summary in &summaries {
            assert!(summary.calls >= CALLS_MIN, "vacuous: {summaries:?}");
        }
        let slowest_ms = summaries.iter().map(|summary| summary.slowest_ms).max();
        assert!(slowest_ms >= Some(ELECTION_MS_MIN), "vacuous: no call was held: {summaries:?}");
        cluster.start_node(leader)?;
        cluster.wait_ready(leader).await?;
    }
    drop(hashes);
    cluster.finish().await
}

/// All packages that are there play their steps at the survivors, over and over, while the leader dies.
fn outlive(cluster: &mut Cluster, leader: u64) -> Result<Vec<Summary>> {
    let survivors = urls(cluster, &cluster.others(leader));
    let mut scripts = Vec::new();
    for package in Package::ALL {
        if let Ok(mut command) = package.command() {
            scripts.push(Script::start(package.name(), command.args(["loop", &survivors]))?);
        }
    }
    for script in &mut scripts {
        script.wait_for(STEPS_BEFORE, "step", STORY_LIMIT)?;
    }
    cluster.kill(leader)?;
    let before: Vec<_> = scripts.iter().map(|script| script.count("step")).collect();
    for (script, steps) in scripts.iter_mut().zip(before) {
        script.wait_for(steps + STEPS_AFTER, "step", STORY_LIMIT)?;
    }
    // They finish the stories that they have begun.
    scripts.iter_mut().for_each(Script::tell_to_stop);
    scripts.into_iter().map(|script| script.finish(STORY_LIMIT)).collect()
}

fn urls(cluster: &Cluster, nodes: &[u64]) -> String {
    let bases: Vec<_> = nodes.iter().map(|node| cluster.http(*node).base().to_owned()).collect();
    bases.join(",")
}
