//! `event`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::Table;
use super::session::Session;

/// Arguments of `event`.
#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    #[command(subcommand)]
    verb: EventVerb,
}

#[derive(Debug, Subcommand)]
enum EventVerb {
    /// Fires an event
    Fire {
        /// What it is called
        name: String,
        /// What it says
        #[arg(default_value = "")]
        payload: String,
        /// For nodes whose name matches this regular expression
        #[arg(long)]
        node: Option<String>,
        /// For services whose name matches this regular expression
        #[arg(long)]
        service: Option<String>,
    },
    /// Lists the latest events, the newest last
    ///
    /// Where there are none, the list is empty, and the exit code 0.
    List {
        /// Only those of this name
        name: Option<String>,
    },
}

pub(super) async fn run(session: &Session, args: EventArgs) -> Result<ExitCode, Failure> {
    let events = session.client.events();
    match args.verb {
        EventVerb::Fire { name, payload, node, service } => {
            let query = session.query_with([("node", node), ("service", service)]);
            let event = events.fire(&name, payload, &query).await?;
            session.say(&event, &event.id)
        }
        EventVerb::List { name } => {
            let query = session.query_with([("name", name)]);
            session.show(&events.list(&query).await?.value, |events| {
                Table::of(&["ID", "NAME", "PAYLOAD"], events, |event| {
                    let payload = String::from_utf8_lossy(&event.payload).into_owned();
                    vec![event.id.clone(), event.name.clone(), payload]
                })
            })
        }
    }
}
