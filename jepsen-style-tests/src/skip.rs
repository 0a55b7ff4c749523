//! Tests that this machine cannot run.

use std::io::Write;

/// Reports that `test` was skipped, and why.
///
/// libtest knows no skipped tests, and shows nothing of what a passing test prints; what goes to the
/// standard error by itself it does not catch.
pub fn skipped(test: &str, reason: &str) {
    // In one write, because tests run in parallel. Ignore the error: there is no other place to report it.
    let _ = std::io::stderr().lock().write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes());
}
