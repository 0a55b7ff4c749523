//! The commands that ask a cluster, as a shell runs them: what they print, and how they exit.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::shell::{CONFLICT, FAILED, OK, PATIENCE, Shell, UNAVAILABLE, UNKNOWN, USAGE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_registered_listed_explained_and_taken_out_of_service() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let shell = Shell::new(&cluster);
    catalogue(&shell).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn catalogue(shell: &Shell) -> Result<()> {
    let register =
        ["register", "web", "--id", "web-1", "--port", "8080", "--ttl", "1m", "--tag", "blue"];
    let ran = shell.expect(OK, &register).await?;
    assert_eq!(ran.out, "registered web-1\n");
    let missing = shell.expect(FAILED, &["service", "web", "--passing"]).await?;
    assert!(missing.err.contains("no such instance of \"web\""), "{missing:?}");
    let beat =
        ["heartbeat", "rdb", "--id", "rdb-1", "--pid", "77", "--version", "4.0", "--counter", "5"];
    assert_eq!(shell.expect(OK, &beat).await?.out, "registered\n");
    assert_eq!(shell.expect(OK, &beat).await?.out, "renewed\n");
    let rows = shell.json(&["instances", "rdb"]).await?;
    assert_eq!((&rows[0]["Pid"], &rows[0]["Version"]), (&json!(77), &json!("4.0")));
    let services = shell.json(&["services"]).await?;
    let web = services.as_array().and_then(|rows| rows.iter().find(|row| row["Service"] == "web"));
    assert_eq!(web.map(|web| &web["Critical"]), Some(&json!(1)), "{services}");
    let table = shell.expect(OK, &["instances", "rdb"]).await?.out;
    assert!(
        table.starts_with("SERVICE") && table.contains("rdb-1") && !table.contains('\u{1b}'),
        "{table}"
    );
    let yaml = shell.expect(OK, &["services", "-o", "yaml"]).await?.out;
    assert!(yaml.contains("Service: rdb"), "{yaml}");
    assert_eq!(shell.json(&["service", "rdb", "--passing"]).await?[0]["Service"]["ID"], "rdb-1");

    shell.expect(OK, &["maint", "on", "rdb-1", "--reason", "new disk"]).await?;
    shell.expect(FAILED, &["service", "rdb", "--passing"]).await?;
    let why = shell.expect(OK, &["explain", "service", "rdb-1"]).await?.out;
    assert!(why.contains("new disk"), "{why}");
    shell.expect(OK, &["maint", "off", "rdb-1"]).await?;
    shell.expect(OK, &["service", "rdb", "--passing"]).await?;
    let history = shell.json(&["history", "--id", "rdb-1", "--kind", "maintenance"]).await?;
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");
    let critical = shell.json(&["health", "critical"]).await?;
    assert_eq!(critical[0]["CheckID"], "service:web-1");

    shell.expect(OK, &["deregister", "web-1"]).await?;
    let gone = shell.expect(FAILED, &["deregister", "web-1"]).await?;
    assert!(gone.err.contains("Unknown service ID"), "{gone:?}");
    shell.expect(USAGE, &["register"]).await?;
    shell.expect(USAGE, &["register", "web", "--ttl", "soon"]).await?;
    let id = shell.expect(OK, &["event", "fire", "deploy", "v7"]).await?.out;
    assert_eq!(shell.json(&["event", "list"]).await?[0]["ID"], id.trim());
    let members = shell.json(&["members"]).await?;
    let is_server = |member: &&Value| member["Tags"]["role"] == "consul";
    let servers = members.as_array().map(|members| members.iter().filter(is_server).count());
    assert_eq!(servers, Some(3), "{members}");
    shell.expect(OK, &["nodes"]).await?;
    printed(shell).await
}

/// What needs no cluster, also where there is no room for it.
async fn printed(shell: &Shell) -> Result<()> {
    let completions = shell.expect(OK, &["completions", "bash"]).await?.out;
    assert!(completions.contains("snapshot"), "no completions");
    for arguments in [&["completions", "bash"][..], &["--help"], &["kv", "--help"], &["--version"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        let ended = shell.command(arguments)?.stdout(full).status().await?;
        assert_eq!(ended.code(), Some(FAILED), "{arguments:?}: {ended:?}");
        // Nobody reads.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let ended = shell.command(arguments)?.stdout(writer).status().await?;
        assert_eq!(ended.code(), Some(OK), "{arguments:?}: {ended:?}");
    }
    let full = std::fs::File::options().write(true).open("/dev/full")?;
    let ended = shell.command(&["kv", "get", "none"])?.stderr(full).status().await?;
    assert_eq!(ended.code(), Some(FAILED), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_read_written_compared_exported_and_restored() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let shell = Shell::new(&cluster);
    keys(&shell, cluster.dir()).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn keys(shell: &Shell, dir: &Path) -> Result<()> {
    shell.expect(OK, &["kv", "put", "app/limit", "7"]).await?;
    assert_eq!(shell.expect(OK, &["kv", "get", "app/limit"]).await?.out, "7");
    let missing = shell.expect(FAILED, &["kv", "get", "app/none"]).await?;
    assert!(missing.err.contains("there is no key app/none"), "{missing:?}");
    let index = shell.json(&["kv", "get", "app/limit"]).await?["ModifyIndex"].to_string();
    shell.expect(OK, &["kv", "cas", "app/limit", "8", "--index", &index]).await?;
    shell.expect(CONFLICT, &["kv", "cas", "app/limit", "9", "--index", &index]).await?;
    shell.expect(CONFLICT, &["kv", "cas", "app/limit", "9", "--index", "0"]).await?;
    shell.expect(CONFLICT, &["kv", "delete", "app/limit", "--cas", &index]).await?;
    let value = dir.join("value");
    std::fs::write(&value, b"\x00\xff\n")?;
    shell.expect(OK, &["kv", "put", "app/bytes", &format!("@{}", value.display())]).await?;
    assert_eq!(shell.json(&["kv", "list", "app/"]).await?, json!(["app/bytes", "app/limit"]));

    let export = dir.join("export.json");
    std::fs::write(&export, shell.expect(OK, &["kv", "export", "app/"]).await?.out)?;
    let backup = dir.join("backup.tgz").display().to_string();
    shell.expect(OK, &["snapshot", "save", &backup]).await?;
    let piped = shell.command(&["snapshot", "save", "-"])?.output().await?;
    std::fs::write(&export, &piped.stdout)?;
    let file = export.display().to_string();
    let inspected = shell.json(&["snapshot", "inspect", &file]).await?;
    assert!(inspected["Index"].as_u64() > Some(0));
    assert!(
        inspected["Saved"].as_str().is_some_and(|saved| saved.starts_with("20")),
        "{inspected}"
    );
    std::fs::write(&export, shell.expect(OK, &["kv", "export", "app/"]).await?.out)?;
    shell.expect(OK, &["kv", "delete", "app/", "--recurse"]).await?;
    shell.expect(FAILED, &["kv", "get", "app/limit"]).await?;
    shell.expect(OK, &["kv", "import", &file, "--prefix", "copy/"]).await?;
    assert_eq!(shell.expect(OK, &["kv", "get", "copy/app/limit"]).await?.out, "8");
    std::fs::write(&export, "[{\"key\":\"a\",\"value\":\"!\"}]")?;
    shell.expect(USAGE, &["kv", "import", &file]).await?;
    std::fs::write(&export, "[{\"key\":\"half\",\"value\":\"\"},{\"key\":\"\"}]")?;
    shell.expect(USAGE, &["kv", "import", &file]).await?;
    shell.expect(FAILED, &["kv", "get", "half"]).await?;

    assert!(shell.json(&["snapshot", "inspect", &backup]).await?["Index"].as_u64() > Some(0));
    shell.expect(OK, &["snapshot", "restore", &backup]).await?;
    assert_eq!(shell.expect(OK, &["kv", "get", "app/limit"]).await?.out, "8");
    shell.expect(FAILED, &["kv", "get", "copy/app/limit"]).await?;
    let mut damaged = std::fs::read(&backup)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    std::fs::write(&backup, damaged)?;
    let refused = shell.expect(FAILED, &["snapshot", "restore", &backup]).await?;
    assert!(refused.err.contains("no whole backup"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_while_a_lock_a_presence_or_a_claim_holds_and_on_every_change() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let shell = Shell::new(&cluster);
    holding(&shell).await.unwrap();
    claiming(&shell).await.unwrap();
    watching(&shell).await.unwrap();
    template(&shell, cluster.dir()).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Lines that a command prints, one by one.
struct Lines {
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    child: Child,
}

impl Lines {
    fn of(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let out = child.stdout.take().ok_or_else(|| Failure::new("no output"))?;
        Ok(Self { lines: BufReader::new(out).lines(), child })
    }

    /// Sends a signal; returns the exit code.
    async fn signalled(mut self, signal: &str) -> Result<Option<i32>> {
        let id = self.child.id().ok_or_else(|| Failure::new("it has ended"))?.to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().await?.success());
        self.ended().await
    }

    async fn ended(&mut self) -> Result<Option<i32>> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.map_err(|_| Failure::new("it goes on"))??.code())
    }

    async fn next(&mut self) -> Result<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.map_err(|_| Failure::new("no line came"))??;
        line.ok_or_else(|| Failure::new("it has ended"))
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn holding(shell: &Shell) -> Result<()> {
    let wait = "echo $QUORATE_LOCK_FENCE; sleep 60";
    let mut first = Lines::of(shell.command(&["lock", "jobs/a", "--", "sh", "-c", wait])?)?;
    let fence = number(&first.next().await?);
    let busy = ["lock", "jobs/a", "--wait", "0s", "--", "true"];
    let refused = shell.expect(CONFLICT, &busy).await?;
    assert!(refused.err.contains("held by another"), "{refused:?}");
    let sessions = shell.json(&["session", "list"]).await?;
    let id = sessions[0]["ID"].as_str().unwrap_or_default();
    shell.expect(OK, &["session", "destroy", id]).await?;
    let ended = tokio::time::timeout(PATIENCE, first.child.wait()).await;
    assert_eq!(ended.map_err(|_| Failure::new("it goes on"))??.code(), Some(CONFLICT));
    let second = ["lock", "jobs/a", "--", "sh", "-c", "echo $QUORATE_LOCK_FENCE; exit 7"];
    let ran = shell.expect(7, &second).await?;
    assert!(number(&ran.out) > fence, "{ran:?}");

    shell.expect(OK, &["kv", "put", "jobs/data", "1"]).await?;
    shell.expect(OK, &["lock", "jobs/data", "--", "true"]).await?;
    assert_eq!(shell.expect(OK, &["kv", "get", "jobs/data"]).await?.out, "1", "it keeps its value");
    let program = shell.command(&[])?.as_std().get_program().display().to_string();
    shell.expect(OK, &["lock", "jobs/data", "--", &program, "kv", "put", "jobs/data", "2"]).await?;
    assert_eq!(shell.expect(OK, &["kv", "get", "jobs/data"]).await?.out, "2", "the new one too");
    let wait = ["lock", "jobs/two", "--permits", "2", "--", "sh", "-c", "echo in; sleep 60"];
    let mut permit = Lines::of(shell.command(&wait)?)?;
    assert_eq!(permit.next().await?, "in");
    let three = ["lock", "jobs/two", "--permits", "3", "--wait", "0s", "--", "true"];
    let refused = shell.expect(CONFLICT, &three).await?;
    assert!(refused.err.contains("with 2 permits, not with 3"), "{refused:?}");
    shell.expect(CONFLICT, &["lock", "jobs/two", "--wait", "0s", "--", "true"]).await?;
    shell.expect(OK, &["lock", "jobs/two", "--permits", "2", "--wait", "0s", "--", "true"]).await?;
    assert_eq!(permit.signalled("TERM").await?, Some(143));

    let work = "echo $QUORATE_SERVICE_ID; read line";
    let mut command =
        shell.command(&["presence", "web", "--id", "w1", "--port", "1", "--", "sh", "-c", work])?;
    let mut present = Lines::of({
        command.stdin(Stdio::piped());
        command
    })?;
    assert_eq!(present.next().await?, "w1");
    shell.expect(OK, &["service", "web", "--passing"]).await?;
    drop(present.child.stdin.take());
    tokio::time::timeout(PATIENCE, present.child.wait())
        .await
        .map_err(|_| Failure::new("it goes on"))??;
    shell.until(&["instances", "web"], |rows| rows.as_array().is_some_and(Vec::is_empty)).await
}

async fn claiming(shell: &Shell) -> Result<()> {
    let none = shell.expect(FAILED, &["claim", "rdb", "--wait", "0s", "--", "true"]).await?;
    assert!(none.err.contains("no instance of \"rdb\" is in a pool"), "{none:?}");
    let register =
        ["register", "rdb", "--id", "rdb-1", "--address", "10.0.0.7", "--port", "5010", "--meta"];
    shell.expect(OK, &[&register[..], &["slots=1", "--meta", "claim-delay=0"]].concat()).await?;
    let tells = "echo $QUORATE_CLAIM_INSTANCE $QUORATE_CLAIM_HOST $QUORATE_CLAIM_PORT $QUORATE_CLAIM_SEQ; \
                 echo $QUORATE_CLAIM_FENCE; sleep 60";
    let mut first = Lines::of(shell.command(&[
        "claim", "rdb", "--holder", "batch", "--ttl", "10s", "--", "sh", "-c", tells,
    ])?)?;
    assert_eq!(first.next().await?, "rdb-1 10.0.0.7 5010 1");
    let fence = number(&first.next().await?);
    let refused = shell.expect(CONFLICT, &["claim", "rdb", "--wait", "0s", "--", "true"]).await?;
    assert!(refused.err.contains("all instances of rdb are busy"), "{refused:?}");
    // Who waits in line gets it when the first has lost it.
    let work = ["claim", "rdb", "--", "sh", "-c", "echo $QUORATE_CLAIM_FENCE; exit 7"];
    let second = tokio::spawn(shell.command(&work)?.output());
    shell.expect(OK, &["maint", "on", "rdb-1", "--reason", "new disk"]).await?;
    let ended = tokio::time::timeout(PATIENCE, first.child.wait()).await;
    assert_eq!(ended.map_err(|_| Failure::new("it goes on"))??.code(), Some(CONFLICT));
    shell.expect(OK, &["maint", "off", "rdb-1"]).await?;
    let second = tokio::time::timeout(PATIENCE, second).await;
    let second = second.map_err(|_| Failure::new("it waits"))?;
    let second = second.map_err(|error| Failure::new(error.to_string()))??;
    assert_eq!(second.status.code(), Some(7), "{second:?}");
    let next = number(&String::from_utf8_lossy(&second.stdout));
    assert!(next > fence, "fence {next} after {fence}");
    // It was released, so nobody has to wait.
    shell.expect(OK, &["claim", "rdb", "--wait", "0s", "--", "true"]).await?;
    shell.expect(FAILED, &["claim", "rdb", "--ttl", "1ms", "--", "true"]).await?;
    shell.expect(USAGE, &["claim", "rdb", "--wait", "soon", "--", "true"]).await?;
    shell.expect(USAGE, &["claim", "rdb"]).await.map(drop)
}

async fn watching(shell: &Shell) -> Result<()> {
    let mut values = Lines::of(shell.command(&["watch", "key", "app/colour"])?)?;
    assert_eq!(values.next().await?, "null");
    shell.expect(OK, &["kv", "put", "app/colour", "green"]).await?;
    let pair: Value = serde_json::from_str(&values.next().await?)?;
    assert_eq!(pair["Value"], "Z3JlZW4=");
    let once = shell.expect(OK, &["watch", "key", "app/colour", "--once", "--run", "cat"]).await?;
    assert!(once.out.contains("Z3JlZW4="), "{once:?}");
    let yaml = ["watch", "key", "app/colour", "--once", "-o", "yaml"];
    assert!(shell.expect(OK, &yaml).await?.out.starts_with("---\nLockIndex: 0\n"));
    // A signal ends it also after a command has run, and so does the end of its reader between two values.
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let run = ["watch", "key", "app/colour", "--run", "cat; echo"];
        let mut running = Lines::of(shell.command(&run)?)?;
        running.next().await?;
        assert_eq!(running.signalled(signal).await?, Some(code));
    }
    for unread in [&["watch", "key", "app/colour"][..], &["watch", "stream", "--since", "0"]] {
        let mut unread = Lines::of(shell.command(unread)?)?;
        unread.next().await?;
        let Lines { lines, mut child } = unread;
        drop(lines);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        assert_eq!(ended.map_err(|_| Failure::new("it goes on"))??.code(), Some(OK));
    }
    let mut stream = Lines::of(shell.command(&["watch", "stream", "--prefix", "app/"])?)?;
    // It begins with the present, whenever that is.
    let record = loop {
        shell.expect(OK, &["kv", "put", "app/colour", "red"]).await?;
        if let Ok(line) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
            break serde_json::from_str::<Value>(&line?)?;
        }
    };
    assert_eq!((&record["Kind"], &record["Key"]), (&json!("key.set"), &json!("app/colour")));
    let all = shell.json(&["history", "--key", "app/colour"]).await?;
    let last = shell.json(&["history", "--key", "app/colour", "--last", "1"]).await?;
    let newest = all.as_array().and_then(|all| all.last());
    assert_eq!((last.as_array().map(Vec::len), last.get(0)), (Some(1), newest), "{all}");
    Ok(())
}

async fn template(shell: &Shell, dir: &Path) -> Result<()> {
    let (source, made) = (dir.join("x.tmpl"), dir.join("x.conf"));
    let text = "# {{ key(\"app/colour\") }}\n{% for i in service(\"api\") %}\n{{ i.id }} {{ i.port }}\n{% endfor %}";
    std::fs::write(&source, text)?;
    let (source, target) = (source.display().to_string(), made.display().to_string());
    shell.expect(OK, &["template", &source, &target, "--once"]).await?;
    assert_eq!(std::fs::read_to_string(&made)?, "# red\n");
    let check = ["--validate", "grep -q red {}", "--run", "echo changed"];
    let follow = [&["template", source.as_str(), target.as_str()], check.as_slice()].concat();
    let mut follower = Lines::of(shell.command(&follow)?)?;
    shell.expect(OK, &["register", "api", "--id", "a1", "--port", "81"]).await?;
    assert_eq!(follower.next().await?, "changed");
    assert_eq!(std::fs::read_to_string(&made)?, "# red\na1 81\n");
    // Refused by its checker, so the file stays.
    shell.expect(OK, &["kv", "put", "app/colour", "blue"]).await?;
    shell.expect(OK, &["deregister", "a1"]).await?;
    shell.expect(OK, &["kv", "put", "app/colour", "dark red"]).await?;
    assert_eq!(follower.next().await?, "changed");
    assert_eq!(std::fs::read_to_string(&made)?, "# dark red\n");
    assert_eq!(follower.signalled("TERM").await?, Some(143));
    // It says that it waits only for what is not there.
    let again = shell.expect(OK, &["template", &source, "-", "--once"]).await?;
    assert_eq!((again.out.as_str(), again.err.as_str()), ("# dark red\n", ""));
    std::fs::write(dir.join("wrong.tmpl"), "{% for %}")?;
    let wrong = dir.join("wrong.tmpl").display().to_string();
    let refused = shell.expect(USAGE, &["template", &wrong, &target]).await?;
    assert!(refused.err.contains("wrong.tmpl"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_cluster_is_told_with_what_mends_it() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let shell = Shell::new(&cluster);
    troubles(&shell, &mut cluster).await.unwrap();
    cluster.abandon();
}

async fn troubles(shell: &Shell, cluster: &mut Cluster) -> Result<()> {
    shell
        .until(&["operator", "raft", "list"], |raft| {
            raft["Servers"].as_array().is_some_and(|all| all.len() == 3)
        })
        .await?;
    assert!(shell.expect(OK, &["status"]).await?.out.contains("3 of 3 healthy, 1 may fail"));
    assert_eq!(shell.expect(OK, &["doctor"]).await?.out, "nothing is wrong\n");
    let leader = cluster.leader().await?;
    let to = cluster.others(leader)[0];
    let transfer = ["operator", "raft", "transfer", "--to", &to.to_string()];
    assert!(shell.expect(OK, &transfer).await?.out.contains("leads"));
    assert_eq!(cluster.leader().await?, to);
    assert!(shell.expect(OK, &transfer).await?.out.contains("leads already, nothing was done"));
    let unknown = shell.expect(FAILED, &["operator", "raft", "remove", "77"]).await?;
    assert!(unknown.err.contains("there are 1 ("), "{unknown:?}");

    cluster.kill(leader)?;
    let wait = Limit::new(PATIENCE);
    loop {
        let found = shell.run(&["doctor", "-o", "json"]).await?;
        assert_eq!(found.code, FAILED, "{found:?}");
        let findings: Value = serde_json::from_str(&found.out)?;
        let says = |text: &str| findings.to_string().contains(text);
        if says("does not answer")
            && says("is not healthy")
            && says(&format!("operator raft remove {leader}"))
        {
            break;
        }
        wait.pause(|| format!("{findings}")).await?;
    }
    shell.expect(OK, &["kv", "put", "still", "works"]).await?;
    cluster.kill(to)?;
    // One that was under way when the leader died may have been done.
    let put = shell.run(&["kv", "put", "still", "works"]).await?;
    assert!([UNAVAILABLE, UNKNOWN].contains(&put.code), "{put:?}");
    assert_eq!(shell.expect(OK, &["kv", "get", "still", "--stale"]).await?.out, "works");
    let once = ["watch", "key", "still", "--once", "--stale"];
    assert!(shell.expect(OK, &once).await?.out.contains("\"Key\":\"still\""));
    let status = shell.expect(UNAVAILABLE, &["status"]).await?;
    assert!(status.out.starts_with("leader      none\n"), "{status:?}");
    let doctor = shell.expect(UNAVAILABLE, &["doctor"]).await?;
    assert!(
        doctor.out.contains("there is no leader") && doctor.out.contains("--stale"),
        "{doctor:?}"
    );
    let silent = format!("n{leader} (");
    assert!(
        doctor.out.contains("do not answer here: ") && doctor.out.contains(&silent),
        "{doctor:?}"
    );
    let nobody = Shell::at("http://127.0.0.1:1");
    nobody.expect(UNAVAILABLE, &["services"]).await?;
    nobody.expect(UNAVAILABLE, &["doctor"]).await?;
    nobody.expect(USAGE, &["services", "--http-addr", "http://"]).await?;
    Ok(())
}
