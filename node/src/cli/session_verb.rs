//! `session`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::types::session::SessionCreate;
use serde_json::json;

use super::failure::Failure;
use super::output::Table;
use super::session::{Session, go_text, span};

/// Arguments of `session`.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    verb: SessionVerb,
}

#[derive(Debug, Subcommand)]
enum SessionVerb {
    /// Makes a session and prints its id
    Create {
        /// A name for people
        #[arg(long, default_value = "")]
        name: String,
        /// It ends after so long without a renewal: 10s to 24h
        #[arg(long, value_name = "SPAN", value_parser = span)]
        ttl: Option<Duration>,
        /// What becomes of its keys when it ends
        #[arg(long, value_parser = ["release", "delete"], default_value = "release")]
        behavior: String,
        /// How long its keys cannot be locked after it has ended
        #[arg(long, value_name = "SPAN", value_parser = span)]
        lock_delay: Option<Duration>,
    },
    /// Lists sessions
    List,
    /// Shows a session
    Info {
        /// Its id
        id: String,
    },
    /// Renews a session
    Renew {
        /// Its id
        id: String,
    },
    /// Ends a session
    ///
    /// Exit code 1 if there is none with this id.
    Destroy {
        /// Its id
        id: String,
    },
}

pub(super) async fn run(session: &Session, args: SessionArgs) -> Result<ExitCode, Failure> {
    let sessions = session.client.sessions();
    let unknown = |id: &str| Failure::not_found(format!("unknown session {id}"));
    match args.verb {
        SessionVerb::Create { name, ttl, behavior, lock_delay } => {
            let create = SessionCreate {
                name,
                behavior,
                ttl: ttl.map(go_text).unwrap_or_default(),
                lock_delay: lock_delay.map(go_text).map_or(serde_json::Value::Null, Into::into),
                ..SessionCreate::default()
            };
            let id = sessions.create(&create).await?;
            session.say(&json!({ "ID": id }), &id)
        }
        SessionVerb::List => list(session, &sessions.list(&session.query()).await?.value),
        SessionVerb::Info { id } => {
            let info = sessions.info(&id, &session.query()).await?.value;
            list(session, &vec![info.ok_or_else(|| unknown(&id))?])
        }
        SessionVerb::Renew { id } => {
            let renewed = sessions.renew(&id).await?.ok_or_else(|| unknown(&id))?;
            session.say(&renewed, &format!("renewed {id}"))
        }
        SessionVerb::Destroy { id } => {
            // The API says yes to any.
            let info = sessions.info(&id, &quorate_client::Query::new()).await?.value;
            info.ok_or_else(|| unknown(&id))?;
            sessions.destroy(&id).await?;
            session.say(&json!({ "ID": id }), &format!("destroyed {id}"))
        }
    }
}

fn list(
    session: &Session,
    sessions: &Vec<quorate_client::types::session::Session>,
) -> Result<ExitCode, Failure> {
    session.show(sessions, |sessions| {
        Table::of(&["ID", "NAME", "NODE", "TTL", "BEHAVIOR"], sessions, |session| {
            vec![
                session.id.clone(),
                session.name.clone(),
                session.node.clone(),
                session.ttl.clone(),
                session.behavior.clone(),
            ]
        })
    })
}
