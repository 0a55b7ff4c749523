//! Every command of the binary, in one table: what it prints for programs, and how it ends when all is well, when what
//! it asks for is not there, when somebody else was first, without a leader, and without a server.
//!
//! A command without a case fails the test. So whoever adds one adds a line here.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::http::HttpExt as _;
use jepsen_style_tests::script::is_present;
use jepsen_style_tests::{Cluster, Failure, Limit, Result, skipped};
use regex::Regex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::shell::{CONFLICT, FAILED, OK, Ran, Shell, UNAVAILABLE, USAGE};

/// Commands that run at once: they mostly wait.
const AT_ONCE: usize = 12;
/// What a server waits for a leader here, so that the test takes less long.
const HOLD: &str = "1s";
/// How long until a picture is on the terminal, and until a command has ended.
const LIMIT: Duration = Duration::from_secs(30);
/// The rules that presences and facts need.
const LEVEL: u64 = 10;
/// A session that there is not.
const NO_SESSION: &str = "00000000-0000-0000-0000-000000000000";
/// What a shell says of a program that is not there.
const NO_PROGRAM: i32 = 127;
/// What a program writes to a terminal when it gives the screen back.
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";
/// What a command's help lists that is no command of ours.
const NOT_OURS: &str = "help";

/// Pages that show commands.
const PAGES: [&str; 4] = [
    include_str!("../../../README.md"),
    include_str!("../../../node/docs/operating.md"),
    include_str!("../../../node/docs/worst-days.md"),
    include_str!("../../../client/docs/coming-from.md"),
];

/// Commands that run servers or ask none, and where they are tried; here only how they refuse nonsense.
const ELSEWHERE: &[(&str, &str)] = &[
    ("server", "by every test that starts a cluster"),
    ("dev", "tests/readme"),
    ("agent", "tests/operation/agents.rs"),
    ("recover", "tests/operation/recover.rs"),
    ("completions", "tests/operation/cli.rs"),
    ("top", "below, on a terminal"),
    ("claim", "tests/operation/cli.rs"),
    ("worker", "tests/live/workers.rs"),
    ("tls ca", "tests/operation/tls.rs"),
    ("tls cert", "tests/operation/tls.rs"),
    // Without access control they end alike.
    ("acl bootstrap", "tests/api/acl.rs"),
    ("acl can-i", "tests/api/acl.rs"),
    ("acl policy delete", "tests/api/acl.rs"),
    ("acl policy list", "tests/api/acl.rs"),
    ("acl policy read", "tests/api/acl.rs"),
    ("acl policy set", "tests/api/acl.rs"),
    ("acl role delete", "tests/api/acl.rs"),
    ("acl role list", "tests/api/acl.rs"),
    ("acl role set", "tests/api/acl.rs"),
    ("acl token clone", "tests/api/acl.rs"),
    ("acl token create", "tests/api/acl.rs"),
    ("acl token delete", "tests/api/acl.rs"),
    ("acl token list", "tests/api/acl.rs"),
    ("acl token read", "tests/api/acl.rs"),
];

/// A command line, how it should end, and a part of what it says then on standard error.
type Ending = (&'static str, i32, &'static str);

/// What is tried of a command.
struct Case {
    /// The command, such as `kv get`.
    name: &'static str,
    /// Its arguments where all is well. `DIR`, `FILE`, `SESSION` and `SPARE` stand for what the test has.
    arguments: &'static str,
    /// Whether what it prints with `-o json` is right.
    prints: fn(&Value) -> bool,
    /// Other arguments, which do not end well.
    otherwise: &'static [Ending],
    /// How it ends without a leader, and without a server.
    without: [i32; 2],
    /// Whether `--stale` helps without a leader.
    is_read: bool,
}

/// One that needs a leader.
const fn case(name: &'static str, arguments: &'static str, prints: fn(&Value) -> bool) -> Case {
    let without = [UNAVAILABLE, UNAVAILABLE];
    Case { name, arguments, prints, otherwise: &[], without, is_read: false }
}

/// One that needs none with `--stale`.
const fn read(name: &'static str, arguments: &'static str, prints: fn(&Value) -> bool) -> Case {
    Case { is_read: true, ..case(name, arguments, prints) }
}

impl Case {
    const fn or(self, otherwise: &'static [Ending]) -> Self {
        Self { otherwise, ..self }
    }

    const fn without(self, leader: i32, server: i32) -> Self {
        Self { without: [leader, server], ..self }
    }
}

fn is_list(printed: &Value) -> bool {
    printed.as_array().is_some_and(|rows| !rows.is_empty())
}

fn is_explained(printed: &Value) -> bool {
    printed["Why"].is_string()
}

fn any(_: &Value) -> bool {
    true
}

/// The table, in the order in which it is gone through where all is well.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("doctor", "", |all| all == &json!([])),
    case("status", "", |status| status["Leader"].is_string()),
    case("members", "", is_list).without(OK, UNAVAILABLE),
    read("nodes", "", is_list)
        .or(&[("--filter x==", FAILED, "")]),
    case("register", "api --id api-1 --port 80 --ttl 1h", |it| it["ID"] == "api-1")
        .or(&[("", USAGE, "SERVICE"), ("--file DIR/none", FAILED, "No such file"),
            ("--file FILE --id x", USAGE, "cannot be used with"), ("api --ttl 1x", USAGE, "--ttl")]),
    case("heartbeat", "rdb --id rdb-1 --pid 7 --warn-after 0s --critical-after 1h", |it| it["Accepted"] == 1)
        .or(&[("rdb --critical-after 1ms", FAILED, "CriticalAfter"), ("", USAGE, "SERVICE")]),
    case("presence", "held --id held-1 --port 1 -- true", any)
        .or(&[("held --id held-2 -- false", FAILED, ""), ("held --id held-2", USAGE, "COMMAND"),
            ("held --id held-2 -- /no/such/program", NO_PROGRAM, "cannot run")]),
    read("services", "", |rows| is_list(rows) && rows[0]["Passing"].is_u64()),
    read("service", "rdb --passing", |rows| rows[0]["Service"]["ID"] == "rdb-1")
        .or(&[("nobody", FAILED, "no such instance"), ("rdb --tag none", FAILED, "no such instance")]),
    read("instances", "rdb", |rows| rows[0]["Pid"] == 7)
        .or(&[("rdb --status odd", USAGE, "possible values")]),
    case("maint", "on api-1 --reason disk", |it| it["Maintenance"] == true)
        .or(&[("on nobody", FAILED, "nobody"), ("off rdb-1", FAILED, "is not in maintenance"),
            ("maybe", USAGE, "possible values")]),
    read("health", "critical", is_list)
        .or(&[("odd", USAGE, "possible values")]),
    case("kv put", "cases/a 1", |it| it["Key"] == "cases/a")
        .or(&[("cases/a @/no/such/file", FAILED, "No such file"), ("cases/a", USAGE, "VALUE"),
            ("/a 1", USAGE, "slash"), ("a//b 1", USAGE, "no //")]),
    read("kv get", "cases/a", |it| it["Value"] == "MQ==")
        .or(&[("cases/none", FAILED, "there is no key"), ("/a", USAGE, "slash")]),
    case("kv cas", "cases/new 1 --index 0", any)
        .or(&[("cases/a 2 --index 0", CONFLICT, "exists already"),
            ("cases/a 2 --index 1", CONFLICT, "was changed meanwhile"), ("cases/a 2", USAGE, "--index")]),
    read("kv list", "cases/", |keys| keys[0] == "cases/a"),
    read("kv export", "cases/", |rows| rows[0]["key"] == "cases/a"),
    case("kv import", "FILE --prefix copy/", |it| it["Keys"] == 1)
        .or(&[("DIR/none", FAILED, "No such file"), ("DIR/x.tmpl", USAGE, "nothing was written")]),
    case("kv delete", "cases/new", any)
        .or(&[("cases/none", FAILED, "there is no key"), ("cases/none --cas 7", CONFLICT, "does not exist"),
            ("none/ --recurse", FAILED, "there is no key below"), ("cases/a --cas 1", CONFLICT, "was changed meanwhile"),
            ("cases/a --cas 1 --recurse", USAGE, "cannot be used with")]),
    read("watch key", "cases/a --once", |it| it["Value"] == "MQ==")
        .or(&[("cases/a --once --run false", FAILED, "the command ended with")]),
    read("watch prefix", "cases/ --once", is_list),
    read("watch service", "rdb --once", is_list),
    read("watch services", "--once", Value::is_object),
    read("watch nodes", "--once", is_list),
    read("watch checks", "critical --once", is_list)
        .or(&[("odd", USAGE, "possible values")]),
    read("watch stream", "--since 0 --prefix cases/ --once", |it| it["Seq"].is_u64()),
    case("lock", "cases/lock -- true", any)
        .or(&[("cases/held --wait 0s -- true", CONFLICT, "held by another"),
            ("cases/held --wait 0s -E 42 -- true", 42, "held by another"),
            ("cases/lock -- /no/such/program", NO_PROGRAM, "cannot run"), ("cases/lock -- false", FAILED, ""),
            ("cases/lock", USAGE, "COMMAND")]),
    case("session create", "--ttl 10m", |it| it["ID"].is_string())
        .or(&[("--ttl 1s", FAILED, "TTL")]),
    read("session list", "", is_list),
    read("session info", "SESSION", |rows| rows[0]["ID"].is_string())
        .or(&[(NO_SESSION, FAILED, "unknown session")]),
    case("session renew", "SESSION", any)
        .or(&[(NO_SESSION, FAILED, "not found")]),
    case("session destroy", "SPARE", any)
        .or(&[(NO_SESSION, FAILED, "unknown session")]),
    case("event fire", "deploy v7", |it| it["Name"] == "deploy"),
    read("event list", "deploy", Value::is_array).without(OK, UNAVAILABLE),
    read("history", "--key cases/a", is_list)
        .or(&[("--since 999999999", FAILED, ""), ("--limit 0", USAGE, "--limit"),
            ("--last 1 --limit 1", USAGE, "--limit")]),
    read("explain service", "rdb-1", is_explained).or(&[("nobody", FAILED, "")]),
    read("explain check", "service:api-1", is_explained).or(&[("nobody", FAILED, "")]),
    read("explain node", "quorate", is_explained).or(&[("nobody", FAILED, "")]),
    read("explain key", "cases/a", is_explained).or(&[("nothing", FAILED, "")]),
    read("explain session", "SESSION", is_explained).or(&[(NO_SESSION, FAILED, "")]),
    read("template", "DIR/x.tmpl DIR/x.conf --once", any)
        .or(&[("DIR/none DIR/y.conf", FAILED, "No such file"),
            ("DIR/x.tmpl DIR/y.conf --once --validate false", FAILED, "was not replaced"),
            ("DIR/x.tmpl DIR/x.tmpl --once", USAGE, "would be replaced")]),
    read("snapshot save", "DIR/backup.tgz", |it| it["Index"].is_u64())
        .or(&[("DIR/none/backup.tgz", FAILED, "No such file")]),
    case("snapshot inspect", "DIR/backup.tgz", |it| it["Index"].is_u64())
        .or(&[("FILE", FAILED, "no whole backup")])
        .without(OK, OK),
    case("snapshot restore", "DIR/backup.tgz", any)
        .or(&[("FILE", FAILED, "no whole backup"), ("DIR/none", FAILED, "No such file")]),
    case("deregister", "api-1", |it| it["ID"] == "api-1")
        .or(&[("nobody", FAILED, "Unknown service ID")]),
    read("operator raft list", "", |it| is_list(&it["Servers"])),
    case("operator raft transfer", "--to 1", any)
        .or(&[("--to 77", FAILED, "no server")]),
    case("operator raft remove", "3", |it| it["ID"] == "3")
        .or(&[("77", FAILED, "no server")]),
];

/// What stands for what the test has, in command lines.
struct Place {
    dir: String,
    session: String,
    spare: String,
}

impl Place {
    /// Makes what the table needs: a file of keys, a template, two sessions, and a key that is locked.
    async fn furnish(shell: &Shell, cluster: &Cluster) -> Result<Self> {
        // All servers have to be known before there is nothing to complain of.
        let limit = Limit::new(LIMIT);
        loop {
            let ran = shell.run(&["doctor"]).await?;
            if ran.code == OK {
                break;
            }
            limit.pause(|| format!("{ran:?}")).await?;
        }
        let dir = cluster.dir();
        std::fs::write(dir.join("export.json"), r#"[{"key": "z", "flags": 0, "value": "MQ=="}]"#)?;
        std::fs::write(dir.join("x.tmpl"), r#"{{ key("cases/a") }}"#)?;
        let new = ["session", "create", "--ttl", "10m"];
        let id = async || -> Result<String> {
            Ok(shell.json(&new).await?["ID"].as_str().unwrap_or_default().to_owned())
        };
        let (session, spare) = (id().await?, id().await?);
        let path = format!("/v1/kv/cases/held?acquire={session}");
        assert_eq!(cluster.http(1).must_put(&path, "").await?, "true");
        Ok(Self { dir: dir.display().to_string(), session, spare })
    }

    /// Runs a command for programs, or as it is if it refuses to be.
    async fn run(&self, shell: &Shell, name: &str, arguments: &str) -> Result<Ran> {
        let words = name.split_whitespace().chain(["-o", "json"]);
        let words = words.chain(arguments.split_whitespace()).map(|word| {
            let word = word.replace("DIR", &self.dir).replace("SESSION", &self.session);
            word.replace("SPARE", &self.spare).replace("FILE", &format!("{}/export.json", self.dir))
        });
        let words: Vec<_> = words.collect();
        shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Goes through the table once, and returns what did not end as it should.
    async fn all(
        &self,
        shell: &Shell,
        lines: impl IntoIterator<Item = (&'static str, String, i32)>,
    ) -> Result<Vec<String>> {
        let runs = lines.into_iter().map(|(name, arguments, code)| async move {
            let ran = self.run(shell, name, &arguments).await?;
            let wrong = (ran.code != code).then(|| format!("{name} {arguments}: {code}? {ran:?}"));
            Ok::<_, Failure>(wrong)
        });
        let ended: Vec<_> = stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
        Ok(ended.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_prints_and_ends_as_the_table_says() {
    let flags = vec!["--hold-timeout".to_owned(), HOLD.to_owned()];
    let mut cluster = Cluster::start_with(Options { flags, ..Options::default() }).await.unwrap();
    cluster.wait_level(LEVEL).await.unwrap();
    let shell = Shell::new(&cluster);
    every_command_has_a_case(&shell).await.unwrap();
    let place = Place::furnish(&shell, &cluster).await.unwrap();
    let mut wrong = where_all_is_well(&shell, &place).await.unwrap();
    // The third was removed; of the two that are left, one is lost.
    cluster.kill(1).unwrap();
    let second = cluster.http(2);
    second.wait_for("/v1/status/leader", LIMIT, |leader| leader == "").await.unwrap();
    let second = Shell::at(second.base());
    let without = |place: usize| {
        CASES.iter().map(move |case| (case.name, case.arguments.to_owned(), case.without[place]))
    };
    wrong.extend(place.all(&second, without(0)).await.unwrap());
    let stale = |case: &Case| (case.name, format!("--stale {}", case.arguments), OK);
    let reads = CASES.iter().filter(|case| case.is_read).map(stale);
    wrong.extend(place.all(&second, reads).await.unwrap());
    wrong.extend(place.all(&Shell::at("http://127.0.0.1:1"), without(1)).await.unwrap());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.abandon();
}

async fn where_all_is_well(shell: &Shell, place: &Place) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for Case { name, arguments, prints, otherwise, .. } in CASES {
        for (arguments, code, says) in *otherwise {
            let ran = place.run(shell, name, arguments).await?;
            if ran.code != *code || !ran.err.contains(says) {
                wrong.push(format!("{name} {arguments}: {code}, {says:?}? {ran:?}"));
            }
        }
        let ran = place.run(shell, name, arguments).await?;
        let printed: Value = serde_json::from_str(&ran.out).unwrap_or_default();
        if ran.code != OK || !prints(&printed) {
            wrong.push(format!("{name} {arguments}: {ran:?}"));
        }
    }
    Ok(wrong)
}

/// The binary's own help says what commands there are.
async fn every_command_has_a_case(shell: &Shell) -> Result<()> {
    let mut commands = BTreeSet::new();
    let mut groups = vec![String::new()];
    while let Some(group) = groups.pop() {
        let line: Vec<_> = group.split_whitespace().chain(["--help"]).collect();
        let help = shell.expect(OK, &line).await?.out;
        let listed = help.split_once("\nCommands:\n").map(|(_, rest)| rest);
        if listed.is_none() {
            commands.insert(group);
            continue;
        }
        let names = listed.into_iter().flat_map(str::lines).take_while(|line| !line.is_empty());
        // A description that takes several lines is indented further.
        let names =
            names.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        let names = names.filter_map(|line| line.split_whitespace().next());
        groups.extend(
            names
                .filter(|name| *name != NOT_OURS)
                .map(|name| format!("{group} {name}").trim().to_owned()),
        );
    }
    let cases = CASES.iter().map(|case| case.name).chain(ELSEWHERE.iter().map(|(name, _)| *name));
    let cases: BTreeSet<_> = cases.map(str::to_owned).collect();
    assert_eq!(commands, cases, "the commands that there are, and those of the table");
    let shown = Regex::new(r"(?m)(?:^    |`|\| )quorate ([a-z]+)").expect("a pattern");
    for found in PAGES.into_iter().flat_map(|page| shown.captures_iter(page)) {
        let is_this = |command: &String| command.split(' ').next() == Some(&found[1]);
        assert!(commands.iter().any(is_this) || &found[1] == NOT_OURS, "{}", &found[0]);
    }
    for command in commands {
        let line: Vec<_> = command.split_whitespace().chain(["--no-such-flag"]).collect();
        shell.expect(USAGE, &line).await?;
    }
    Ok(())
}

/// `top` on a terminal that `script` makes.
struct Terminal {
    child: tokio::process::Child,
    shown: String,
}

impl Terminal {
    fn open(shell: &Shell, arguments: &str) -> Result<Self> {
        let command = shell.command(&[])?;
        let binary = command.as_std().get_program().to_string_lossy().into_owned();
        let line = format!("stty rows 24 cols 100; exec {binary} {arguments}");
        let mut script = tokio::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.env("QUORATE_HTTP_ADDR", shell.addresses()).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Ok(Self { child: script.spawn()?, shown: String::new() })
    }

    /// Waits until this word was drawn since the last key. (Blanks are not drawn where there were some.)
    async fn shows(&mut self, text: &str) -> Result<()> {
        let out = self.child.stdout.as_mut().ok_or_else(|| Failure::new("no output"))?;
        let mut bytes = [0; 4_096];
        let limit = Limit::new(LIMIT);
        while !self.shown.contains(text) {
            let missing = || format!("{text:?} in {:?}", self.shown);
            limit.check(missing)?;
            let read = tokio::time::timeout(LIMIT, out.read(&mut bytes)).await;
            let read = read.map_err(|_| Failure::new(missing()))??;
            if read == 0 {
                return Err(Failure::new(format!("it ended without {text:?}: {:?}", self.shown)));
            }
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        Ok(())
    }

    async fn press(&mut self, key: &str) -> Result<()> {
        self.shown.clear();
        let keys = self.child.stdin.as_mut().ok_or_else(|| Failure::new("no input"))?;
        keys.write_all(key.as_bytes()).await?;
        Ok(keys.flush().await?)
    }

    /// Presses the last key; returns the exit code.
    async fn end(mut self, key: &str) -> Result<Option<i32>> {
        self.press(key).await?;
        // Whatever it says at the end, the terminal has room for it.
        self.shows(LEAVE_SCREEN).await?;
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        Ok(ended.map_err(|_| Failure::new("it goes on"))??.code())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_draws_what_there_is_until_a_key_ends_it_and_refuses_without_a_terminal() {
    let cluster = Cluster::start(3).await.unwrap();
    top(&cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn top(cluster: &Cluster) -> Result<()> {
    let shell = Shell::new(cluster);
    shell
        .expect(OK, &["register", "web", "--id", "web-7", "--port", "8080", "--ttl", "1h"])
        .await?;
    let refused = shell.expect(USAGE, &["top"]).await?;
    assert!(refused.err.contains("here is none") && refused.out.is_empty(), "{refused:?}");
    if !is_present(Path::new("script")) {
        skipped("top on a terminal", "there is no script here (util-linux)");
        return Ok(());
    }
    let mut terminal = Terminal::open(&shell, "top --interval 200ms")?;
    terminal.shows("leads,").await?;
    terminal.shows("SERVICE").await?;
    terminal.shows("web").await?;
    terminal.press("2").await?;
    terminal.shows("web-7").await?;
    // What happens meanwhile is drawn without a key.
    shell.expect(OK, &["register", "api", "--id", "api-9", "--port", "80"]).await?;
    terminal.shows("api-9").await?;
    assert_eq!(terminal.end("q").await?, Some(OK));
    let mut terminal = Terminal::open(&shell, "top")?;
    terminal.shows("web").await?;
    assert_eq!(terminal.end("\u{3}").await?, Some(OK));
    let mut nobody = Terminal::open(&Shell::at("http://127.0.0.1:1"), "top")?;
    nobody.shows("quorate:").await?;
    let ended = tokio::time::timeout(LIMIT, nobody.child.wait()).await;
    assert_eq!(ended.map_err(|_| Failure::new("it goes on"))??.code(), Some(UNAVAILABLE));
    Ok(())
}
