//! What becomes of a panic in a task that a library started: a process of its own, because the hook is the
//! whole process's.

#![allow(clippy::disallowed_methods, reason = "stands for a library that starts its own tasks")]

use std::time::Duration;

use quorate::host::supervise::{Supervisor, contained, watch_panics};

#[tokio::test]
async fn a_panic_that_nobody_contains_is_a_failure_and_a_contained_one_is_not() {
    let supervisor = Supervisor::default();
    watch_panics(&supervisor);
    let ended = contained("a request", async { panic!("dealt with") }).await;
    assert!(ended.is_ok_and(|ended: Result<(), _>| ended.is_err()));
    let failed = tokio::time::timeout(Duration::from_millis(50), supervisor.failed()).await;
    assert!(failed.is_err(), "a contained panic is no failure: {failed:?}");

    // As openraft's tasks, which nobody waits for.
    drop(tokio::spawn(async { panic!("no peer {}", 7) }));
    let reason = tokio::time::timeout(Duration::from_secs(20), supervisor.failed()).await;
    let reason = reason.expect("it is a failure");
    assert!(reason.starts_with("a task panicked at node/tests/panics.rs:"), "{reason}");
    assert!(reason.ends_with(": no peer 7"), "{reason}");
}
