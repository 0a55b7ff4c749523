//! `operator raft`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::types::operator::RaftServer;
use serde_json::json;

use super::failure::Failure;
use super::output::Table;
use super::session::Session;

/// Arguments of `operator`.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    #[command(subcommand)]
    area: Area,
}

#[derive(Debug, Subcommand)]
enum Area {
    /// The servers that replicate the log
    Raft {
        #[command(subcommand)]
        verb: RaftVerb,
    },
}

#[derive(Debug, Subcommand)]
enum RaftVerb {
    /// Lists the servers
    List,
    /// Removes a server for good; its process ends
    Remove {
        /// Its id or its name
        server: String,
    },
    /// Hands leadership over, and says who leads then
    ///
    /// The exit code is 0 also if the server that was named leads already.
    Transfer {
        /// To this server, by id or name [default: any that is up to date]
        #[arg(long)]
        to: Option<String>,
    },
}

pub(super) async fn run(session: &Session, args: OperatorArgs) -> Result<ExitCode, Failure> {
    let operator = session.client.operator();
    let Area::Raft { verb } = args.area;
    match verb {
        RaftVerb::List => {
            let configuration = operator.raft_configuration(&session.query()).await?;
            session.show(&configuration, |configuration| {
                Table::of(&["ID", "NAME", "ADDRESS", "ROLE"], &configuration.servers, |server| {
                    let role = match (server.leader, server.voter) {
                        (true, _) => "leader",
                        (false, true) => "voter",
                        (false, false) => "learner",
                    };
                    vec![
                        server.id.clone(),
                        server.node.clone(),
                        server.address.clone(),
                        role.to_owned(),
                    ]
                })
            })
        }
        RaftVerb::Remove { server } => {
            let server = find(session, &server).await?;
            operator.remove_server(id(&server)?).await?;
            session.say(&server, &format!("removed server {} ({})", server.id, server.node))
        }
        RaftVerb::Transfer { to } => transfer(session, to).await,
    }
}

/// Hands leadership over, and says who leads then.
async fn transfer(session: &Session, to: Option<String>) -> Result<ExitCode, Failure> {
    let operator = session.client.operator();
    let to = match to {
        Some(name) => Some(find(session, &name).await?),
        None => None,
    };
    if let Some(leader) = to.as_ref().filter(|server| server.leader) {
        let sentence = format!("{} ({}) leads already, nothing was done", leader.node, leader.id);
        return session.say(&transferred(Some(leader), false), &sentence);
    }
    let wanted = to.as_ref().map(id).transpose()?;
    if !operator.transfer_leader(wanted).await? {
        return Err(Failure::failed("leadership was not handed over"));
    }
    let servers = operator.raft_configuration(&session.query()).await?.servers;
    let leader = servers.iter().find(|server| server.leader);
    let sentence = match leader {
        Some(leader) => format!("{} ({}) leads now", leader.node, leader.id),
        None => "leadership was handed over, and nobody leads at the moment".to_owned(),
    };
    session.say(&transferred(leader, true), &sentence)
}

fn transferred(leader: Option<&RaftServer>, is_new: bool) -> serde_json::Value {
    let leader = leader.map(|leader| leader.node.as_str());
    json!({ "Success": true, "Changed": is_new, "Leader": leader })
}

/// A server by its id or name.
async fn find(session: &Session, name: &str) -> Result<RaftServer, Failure> {
    let servers = session.client.operator().raft_configuration(&session.query()).await?.servers;
    let known: Vec<_> =
        servers.iter().map(|server| format!("{} ({})", server.id, server.node)).collect();
    let found = servers.into_iter().find(|server| server.id == name || server.node == name);
    found.ok_or_else(|| {
        Failure::not_found(format!("no server \"{name}\"; there are {}", known.join(", ")))
    })
}

fn id(server: &RaftServer) -> Result<u64, Failure> {
    let id = server.id.parse();
    id.map_err(|_| Failure::failed(format!("server id {} is no number", server.id)))
}
