//! Whether a client agent's servers are those of its own datacenter.
//!
//! A configuration that names another one has the addresses of the wrong servers: what it defines must not
//! appear in their catalogue. One that names none goes with any.

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::registry::ask;
use super::servers::Servers;
use crate::host::clock::Clock;
use crate::http::process::ReloadRequest;

/// A server that does not answer in this time is passed over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before another server is asked.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Returns once a server has said that it is of the datacenter `own`. Who asks for a reload before that hears
/// that there is nobody to register at.
///
/// # Errors
/// A server is of another one.
pub(super) async fn agree(
    servers: &Servers,
    own: &str,
    requests: &mut mpsc::Receiver<ReloadRequest>,
) -> Result<(), String> {
    let clock = Clock::monotonic();
    loop {
        let asking = ask(servers, Method::GET, "/v1/catalog/datacenters", &Value::Null);
        let why = match clock.timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Ok((200, theirs))) => match serde_json::from_str::<Vec<String>>(&theirs) {
                Ok(theirs) => return compare(own, &theirs),
                Err(error) => error.to_string(),
            },
            Ok(Ok((_, why)) | Err(why)) => why,
            Err(_) => "timed out".to_owned(),
        };
        tracing::debug!(%why, "no server says of which datacenter it is");
        servers.pass_over();
        tokio::select! {
            Some(done) = requests.recv() => {
                // Nobody need wait for the answer.
                let _ = done.send(Err(format!("no server answers: {why}")));
            }
            () = clock.sleep(ASK_AGAIN_AFTER) => {}
        }
    }
}

fn compare(own: &str, theirs: &[String]) -> Result<(), String> {
    if theirs.iter().any(|name| name.eq_ignore_ascii_case(own)) {
        return Ok(());
    }
    Err(format!(
        "this client agent was started with datacenter {own:?}, and its servers (retry_join) are those of \
         datacenter {:?}: start it with that, or name other servers",
        theirs.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_datacenter_is_refused_and_both_are_named() {
        let theirs = ["dc1".to_owned()];
        assert_eq!(compare("DC1", &theirs), Ok(()));
        let refused = compare("dc9", &theirs).unwrap_err();
        assert!(refused.contains("\"dc9\"") && refused.contains("\"dc1\""), "{refused}");
    }
}
