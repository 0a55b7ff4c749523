//! The commands of the README work as they are written, in their order: every command has the exit code 0, or the
//! one that its comment names, and prints what its comment says.
//!
//! The commands are not changed for the test. They run in a copy of the scripts, in a network namespace of their
//! own: no other process has the ports that they name, and 10.0.0.1 is this machine. On a machine without network
//! namespaces, the tour is run if its ports are free, and the rest is skipped.
//!
//! Not run are, with their reasons, `LEFT_OUT` and what cargo runs in release builds; but the harness must know the
//! flags of all of its command lines.

mod sandbox;
mod text;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::Command as Process;

use jepsen_style_tests::Result;
use jepsen_style_tests::skip::skipped;
use jepsen_style_tests::turn::Turn;
use sandbox::Sandbox;
use text::Command;

const README: &str = include_str!("../../../README.md");

/// Inline commands that are not run here, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("quorate recover", "its block is run"),
    ("quorate tls cert --", "tests/operation/tls.rs does it"),
    ("cluster-scripts/up --tls", "scripts.sh does it"),
    ("QUORATE_ROUNDS=100 cargo test", "takes half an hour"),
    ("QUORATE_OPERATIONS=100000 cargo test", "takes nine minutes"),
    ("QUORATE_STORM_INSTANCES=", "takes four minutes, and a quiet machine"),
    ("quorate top", "tests/operation/commands.rs runs it on a terminal"),
    ("quorate presence web", "tests/operation/cli.rs runs it with a command"),
    ("quorate worker --name", "tests/live/workers.rs runs it"),
    ("quorate snapshot save --every", "tests/operation/backups.rs runs it"),
    ("quorate kv cas", "tests/operation/commands.rs runs it"),
    ("QUORATE_OLD_BIN=", "needs a binary of the previous version"),
    (".ci/run", "runs this test"),
    ("cluster-scripts/up --acl", "it would be another cluster at the ports of the tour"),
    ("jepsen-style-tests/tests/clients/install", ".ci/run runs it"),
    (
        "cargo run --release -p jepsen-style-tests --bin figures",
        "takes minutes; its flags are tried",
    ),
];

/// What some commands print: a part of the command, and a part of its output.
const PRINTED: &[(&str, &str)] = &[
    ("health/service/web?passing", "\"ID\": \"web-1\""),
    ("filter=", "\"ID\": \"api\""),
    ("quorate/state-hash", "\"Hash\""),
    ("kind=service.", "\"Kind\":\"service.registered\""),
    ("kind=check.changed&wait", "\"Kind\":\"silence\""),
    ("explain/service", "because no heartbeat came for 1s"),
    ("cluster-scripts/kill leader", "cluster-scripts/url"),
    ("cluster-scripts/demo", "All nodes hold the same state"),
];

/// The HTTP, RPC and DNS ports of the tour.
const PORTS: [u16; 10] = [8500, 8510, 8520, 8300, 8310, 8320, 8400, 8600, 8610, 8620];

/// A script that runs commands of the README and keeps what each printed.
#[derive(Default)]
struct Story {
    script: String,
    commands: Vec<Vec<Command>>,
}

impl Story {
    /// Something that is not in the README.
    fn aside(&mut self, script: &str) {
        self.script.push_str(script);
        self.script.push('\n');
    }

    /// The commands of one block, one after the other in one shell, as they would be pasted.
    fn block(&mut self, commands: Vec<Command>) {
        self.aside("jobs_before=$(jobs -p)");
        for (number, command) in commands.iter().enumerate() {
            let (block, code) = (self.commands.len(), command.exit_code);
            let (text, out) = (&command.text, format!("out/{block}.{number}"));
            let step = format!(
                "{{\n{text}\n}} >{out} 2>&1\nstatus=$?\n\
                 [ $status = {code} ] || {{ cat {out}; fail \"exit code $status\"; }}"
            );
            self.aside(&step);
        }
        // What still waits in the background is part of the block.
        self.aside("for job in $(jobs -p); do case $jobs_before in *$job*) ;; *) wait \"$job\" ;; esac; done");
        self.commands.push(commands);
    }

    fn blocks(&mut self, blocks: Vec<Vec<Command>>) {
        for block in blocks {
            self.block(block);
        }
    }

    /// A command from the prose.
    fn inline(&mut self, readme: &mut Inline, command: &str) {
        readme.take(command);
        self.block(text::blocks(&format!("    {command}")).remove(0));
    }

    /// A server that runs until it is stopped: it must serve at `address`, and end in order when asked to as soon
    /// as it does.
    fn server(&mut self, readme: &mut Inline, command: &str, address: &str) {
        readme.take(command);
        let script = format!(
            "{command} >out/server 2>&1 &\nserver=$!\n\
             wait_for curl http://{address}/v1/status/leader\n\
             kill -s TERM $server; wait $server || {{ cat out/server; fail '{command}'; }}"
        );
        self.aside(&script);
    }

    async fn tell(self, sandbox: &Sandbox) -> Result<()> {
        std::fs::create_dir_all(sandbox.path("out"))?;
        if let Err(failure) = sandbox.run(&self.script).await {
            panic!("{failure}\n--- the script\n{}", self.script);
        }
        for (number, block) in self.commands.iter().enumerate() {
            let mut outputs = Vec::new();
            for step in 0..block.len() {
                outputs
                    .push(std::fs::read_to_string(sandbox.path(&format!("out/{number}.{step}")))?);
            }
            for (command, output) in block.iter().zip(&outputs) {
                is_as_told(command, output);
                let Some(word) = &command.block_prints else { continue };
                assert!(
                    outputs.iter().any(|output| output.trim() == word),
                    "{command:?}: {outputs:?}"
                );
            }
        }
        Ok(())
    }
}

fn is_as_told(command: &Command, output: &str) {
    if let Some(told) = &command.output {
        assert_eq!(output.trim(), told, "{}", command.text);
    }
    for (part, printed) in PRINTED {
        if command.text.contains(part) {
            assert!(output.contains(printed), "{} printed: {output}", command.text);
        }
    }
}

/// The commands of the prose that nobody has run yet.
struct Inline(BTreeSet<String>);

impl Inline {
    fn take(&mut self, command: &str) {
        assert!(
            self.0.remove(command),
            "the README does not have `{command}`; it has {:?}",
            self.0
        );
    }
}

/// The blocks of a section, without what cargo runs.
fn blocks(heading: &str) -> Vec<Vec<Command>> {
    let mut blocks = text::blocks(text::section(README, heading));
    for block in &mut blocks {
        block.retain(|command| !command.text.starts_with("cargo "));
    }
    assert!(!blocks.is_empty(), "no commands below {heading}");
    blocks
}

/// The demo, the tour with curl on the cluster that it leaves behind, and single servers.
fn tour(readme: &mut Inline) -> Story {
    let mut story = Story::default();
    story.blocks(blocks(""));
    story.inline(readme, "cluster-scripts/status");
    story.blocks(blocks("## Five minutes with curl"));
    story.blocks(blocks("## What happened, and why"));
    story.blocks(blocks("## Streams"));
    story.blocks(blocks("## Checks"));
    story.blocks(blocks("## From the shell"));
    match Process::new("dig").arg("-v").output().is_ok_and(|ran| ran.status.success()) {
        true => story.blocks(blocks("## DNS")),
        false => skipped("the README's questions to DNS", "there is no dig here (dnsutils)"),
    }
    story.server(readme, "target/release/quorate dev --http-addr 127.0.0.1:8400", "127.0.0.1:8400");
    story.inline(readme, "cluster-scripts/down");
    story.server(readme, "target/release/quorate dev", "127.0.0.1:8500");
    story.server(readme, "quorate server --data-dir DIR --bootstrap-expect 1", "127.0.0.1:8500");
    story.aside("rm -r DIR");
    story.aside("mkdir DIR; printf 'server = true\\nbootstrap = true\\ndata_dir = \"agent\"\\nbind_addr = \"127.0.0.1\"\\n' >DIR/a.hcl");
    story.server(readme, "target/release/quorate agent -config-dir DIR", "127.0.0.1:8500");
    story.inline(readme, "quorate server --help");
    story.inline(readme, "quorate help");
    story
}

/// Servers on machines of their own, which are addresses here, and the loss of a majority of them.
fn operation(readme: &mut Inline) -> Story {
    let mut story = Story::default();
    let mut servers = blocks("## Running it for real");
    let Ok([ca, certificate, server]) = <[Command; 3]>::try_from(servers.remove(0)) else {
        panic!("a CA, a certificate, and a server")
    };
    assert!(servers.is_empty(), "one block");
    let (certificate, server) = (certificate.text, server.text);
    story.block(vec![ca]);
    // Nobody else sees these: the mounts are the script's own.
    story.aside("mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /mnt || fail mount");
    for id in 1..=4 {
        // "Start the same on the others with their ids and addresses."
        let same = server
            .replace("--node-id 1", &format!("--node-id {id}"))
            .replace("addr 10.0.0.1:", &format!("addr 10.0.0.{id}:"))
            .replace("server-n1", &format!("server-n{id}"));
        let own = certificate.replace("server n1", &format!("server n{id}"));
        story.aside(&format!("{{\n{own}\n}} >out/cert{id} || fail 'no certificate'"));
        let same = if id == 1 {
            same
        } else {
            same.replace("/var/lib/quorate", &format!("/var/lib/n{id}"))
        };
        assert!(id == 1 || same != server);
        story.aside(&format!("ip addr add 10.0.0.{id}/32 dev lo || fail address"));
        story.aside(&format!("start{id}() {{\n{same} >out/n{id} 2>&1 &\nserver{id}=$!\n}}"));
        story.aside(&format!("ready{id}() {{ curl http://10.0.0.{id}:8500/readyz; }}"));
    }
    story.aside("for id in 1 2 3; do start$id; done; for id in 1 2 3; do wait_for ready$id; done");
    story.aside("members() { curl http://10.0.0.1:8500/v1/operator/raft/configuration | grep -o '\"Voter\":true' | wc -l; }");
    story.aside("four() { [ \"$(members)\" = 4 ]; }; three() { [ \"$(members)\" = 3 ]; }");
    story.aside("three || fail \"$(members) members\"; start4; wait_for four");
    story.inline(readme, "curl -X DELETE 'http://10.0.0.1:8500/v1/operator/raft/peer?id=4'");
    story.aside("three || fail 'the fourth is still a member'; kill -s KILL $server4");
    // A majority is gone for good.
    story.aside(
        "kill -s KILL $server2 $server3; kill -s TERM $server1; wait $server1 $server2 $server3",
    );
    story.aside("cp -a /var/lib/n2 /mnt/from-n2");
    story.blocks(blocks("### Lost quorum"));
    story
}

/// Which node leads is chance, so a port that is written down may be the killed node's.
#[test]
fn no_command_names_a_port_between_a_kill_and_the_return_of_the_node() {
    for block in text::blocks(README) {
        let mut is_node_down = false;
        for command in block {
            assert!(!is_node_down || !command.text.contains("localhost:"), "{}", command.text);
            is_node_down |= command.text.starts_with("cluster-scripts/kill");
            is_node_down &= !command.text.starts_with("cluster-scripts/up");
        }
        assert!(!is_node_down, "the tour goes on with a node down");
    }
}

fn ports_are_free() -> bool {
    PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

#[tokio::test]
async fn every_command_of_the_readme_works_as_it_is_written() {
    let _turn = Turn::take().await.unwrap();
    let sandbox = Sandbox::new().unwrap();
    let mut readme = Inline(text::inline_commands(README).into_iter().collect());
    let (tour, operation) = (tour(&mut readme), operation(&mut readme));
    let is_left_out = |command: &str| LEFT_OUT.iter().any(|(left, _)| command.starts_with(left));
    readme.0.retain(|command| !is_left_out(command));
    assert!(readme.0.is_empty(), "run them, or say why not: {:?}", readme.0);

    if !sandbox.has_network() && !ports_are_free() {
        skipped("the tour of the README", "no network namespaces here, and its ports are taken");
        return;
    }
    tour.tell(&sandbox).await.unwrap();
    if sandbox.has_network() {
        operation.tell(&sandbox).await.unwrap();
    } else {
        skipped("the README's servers at 10.0.0.1", "no network namespaces here");
    }
}

#[tokio::test]
async fn the_scripts_say_what_they_did_and_what_to_type_next() {
    let _turn = Turn::take().await.unwrap();
    let sandbox = Sandbox::new().unwrap();
    if !sandbox.has_network() && !ports_are_free() {
        skipped("cluster-scripts", "no network namespaces here, and their ports are taken");
        return;
    }
    sandbox.run(include_str!("scripts.sh")).await.unwrap();
}

#[tokio::test]
async fn servers_follow_a_name_to_another_address() {
    let _turn = Turn::take().await.unwrap();
    let sandbox = Sandbox::new().unwrap();
    if !sandbox.has_network() {
        skipped("servers known by names", "no network and mount namespaces here");
        return;
    }
    sandbox.run(include_str!("names.sh")).await.unwrap();
}

/// The words after `after` in each command line of the harness that the README shows.
fn harness_lines() -> Vec<(&'static str, String)> {
    let section = text::section(README, "## Deciding whether to trust it");
    let mut lines = Vec::new();
    for command in text::blocks(section).concat() {
        let words = command.text.split_once(" -- ").expect("cargo run ... -- WORDS").1;
        lines.push((env!("CARGO_BIN_EXE_jepsen-style-tests"), words.to_owned()));
    }
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let words = row.split('`').next().unwrap_or_default();
        lines.push((env!("CARGO_BIN_EXE_jepsen-style-tests"), words.to_owned()));
    }
    for command in text::inline_commands(README) {
        if let Some((_, words)) = command.split_once("--bin figures -- ") {
            lines.push((env!("CARGO_BIN_EXE_figures"), words.to_owned()));
        }
    }
    lines
}

#[test]
fn the_harness_knows_the_flags_of_its_command_lines() {
    let lines = harness_lines();
    assert!(lines.len() > 6, "{lines:?}");
    for (program, words) in lines {
        let words = words.replace("URL", "http://127.0.0.1:1").replace("PID", "1");
        // Flags and values are validated before help is printed instead of doing it.
        let run =
            Process::new(program).args(words.split_whitespace()).arg("--help").output().unwrap();
        let mut said = String::new();
        write!(said, "{words}: {}", String::from_utf8_lossy(&run.stderr)).unwrap();
        assert!(run.status.success(), "{said}");
    }
}
