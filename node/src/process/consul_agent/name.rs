//! Whether a client agent's node name is its own.
//!
//! As in Consul, an agent has an id, which it keeps in its data directory, and which its node shows. While the
//! agent of a node lives, an agent with another id, or one at another address whose id nobody knows, does not get
//! the node's name: two of them would deregister each other's services, and one would keep the other's node alive.
//!
//! An agent that has died looks alive for a few seconds more, so a name is asked for again for a while
//! ([`TAKEN_MAX`]).

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use quorate_storage::regular;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::registry::{ALIVE_BEGIN_PATH, ask};
use super::servers::Servers;
use crate::agent::HEARTBEAT_TTL;
use crate::host::clock::Clock;
use crate::http::process::ReloadRequest;

/// The file with the id, in the data directory. Consul's agents call it so.
const FILE: &str = "node-id";
/// A server that does not answer in this time is passed over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before it is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// For how long a name may be taken: that of an agent that has died is free after [`HEARTBEAT_TTL`], and what
/// the leader does then takes a moment.
const TAKEN_MAX: Duration = Duration::from_millis(HEARTBEAT_TTL.0 + 5_000);

/// The id in a data directory; a new one, if there is none.
///
/// # Errors
/// Those of the file system; the file holds something else.
pub(super) fn id_in(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FILE);
    match regular::read(&path, regular::SMALL_BYTES_MAX) {
        Ok(text) => {
            let id = Uuid::try_parse_ascii(text.trim_ascii());
            let id = id.map_err(|error| {
                io::Error::other(format!("{}: it is no UUID: {error}", path.display()))
            })?;
            Ok(id.to_string())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4().to_string();
            std::fs::create_dir_all(data_dir)?;
            std::fs::write(path, &id)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// Returns once the servers have given the agent its name: its node is kept alive from now on. Who asks for a
/// reload before that hears why there is none.
///
/// # Errors
/// Another agent that lives has it.
pub(super) async fn claim(
    servers: &Servers,
    id: &str,
    requests: &mut mpsc::Receiver<ReloadRequest>,
) -> Result<(), String> {
    let clock = Clock::monotonic();
    let path = format!("{ALIVE_BEGIN_PATH}&id={id}");
    let mut taken_since = None;
    loop {
        let asking = ask(servers, Method::PUT, &path, &Value::Null);
        let why = match clock.timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Ok((200, _))) => return Ok(()),
            Ok(Ok((409, why))) => {
                let now = clock.now();
                if taken_since.is_none() {
                    tracing::warn!(%why, "this node's name is taken; asking again for {TAKEN_MAX:?}");
                }
                if now.since(*taken_since.get_or_insert(now)) >= TAKEN_MAX {
                    return Err(why);
                }
                why
            }
            Ok(Ok((_, why)) | Err(why)) => {
                servers.pass_over();
                why
            }
            Err(_) => {
                servers.pass_over();
                "timed out".to_owned()
            }
        };
        tracing::debug!(%why, "the servers do not know this agent yet");
        tokio::select! {
            Some(done) = requests.recv() => {
                // Nobody need wait for the answer.
                let _ = done.send(Err(format!("the servers do not know this agent yet: {why}")));
            }
            () = clock.sleep(ASK_AGAIN_AFTER) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_keeps_its_id_in_its_data_directory() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("data");
        let id = id_in(&place).unwrap();
        assert_eq!(id_in(&place).unwrap(), id);
        assert_ne!(id_in(directory.path()).unwrap(), id);
        std::fs::write(place.join(FILE), format!(" {} \n", id.to_uppercase())).unwrap();
        assert_eq!(id_in(&place).unwrap(), id);
        std::fs::write(place.join(FILE), "mine").unwrap();
        assert!(id_in(&place).unwrap_err().to_string().contains("node-id: it is no UUID"));
    }
}
