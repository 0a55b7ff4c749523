//! kill -9: what was acknowledged is there afterwards.
//!
//! The test binary runs itself as a child that writes and says on its standard output what was
//! acknowledged; the parent kills it in the middle and looks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

const DIR: &str = "QUORATE_TEST_KILL_DIR";
const ROUNDS: u64 = 12;

/// The child: appends for ever. Does nothing unless the parent runs it.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let dir = DataDir::open(path, 1, "store".to_owned()).unwrap();
    let mut store = LogStore::open(&dir).unwrap();
    let state = store.get_log_state().await.unwrap();
    let mut next = next_index(state.last_log_id.as_ref());
    // As in Raft, votes never go back: the mark relies on it.
    let saved = store.get_log_reader().await.read_vote().await.unwrap();
    let mut term = saved.map_or(0, |vote| vote.leader_id.term);
    loop {
        term += 1;
        store.save_vote(&vote(term)).await.unwrap();
        println!("vote {term}");
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let size = usize::try_from(next * 7919 % 100_000).unwrap();
            waiting.push((next, append_later(&mut store, [sized(next, size)]).await.unwrap()));
            next += 1;
        }
        for (index, durable) in waiting {
            durable.await.unwrap().unwrap();
            println!("entry {index}");
        }
        store.purge(id(1, next - 10)).await.unwrap();
        store.truncate_after(Some(id(1, next - 2))).await.unwrap();
        println!("truncated {}", next - 1);
        next -= 1;
    }
}

/// What the child said before it was killed.
#[derive(Debug, Default)]
struct Acknowledged {
    last: Option<u64>,
    vote: u64,
}

fn write_and_kill(path: &Path, lines: u64) -> Acknowledged {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("log_store::tests::kill::child_that_writes_until_it_is_killed")
        .env(DIR, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("entry", index)) => acknowledged.last = Some(index.parse().unwrap()),
            Some(("vote", term)) => acknowledged.vote = term.parse().unwrap(),
            // From here on the last entry may be gone.
            Some(("truncated", index)) => {
                acknowledged.last = Some(index.parse::<u64>().unwrap() - 1);
            }
            _ => continue,
        }
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= lines, "the child ended by itself after {seen} lines");
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_minus_nine() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data");
    for round in 0..ROUNDS {
        let acknowledged = write_and_kill(&path, 30 + round * 17);
        let mut store = open(&dir);
        let last = store.get_log_state().await.unwrap().last_log_id.unwrap();
        // The child truncates one entry before it says so, so the last one may be gone already.
        assert!(Some(last.index + 1) >= acknowledged.last, "{last} {acknowledged:?}");
        let saved = store.get_log_reader().await.read_vote().await.unwrap().unwrap();
        assert!(saved >= vote(acknowledged.vote), "{saved} {acknowledged:?}");
        for entry in all(&mut store).await {
            let index = entry.log_id.index;
            let size = usize::try_from(index * 7919 % 100_000).unwrap();
            assert_eq!(entry, sized(index, size));
        }
    }
}
