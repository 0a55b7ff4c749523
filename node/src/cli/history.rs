//! `history` and `explain`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::types::history::{Explanation, HistoryEvent};

use super::failure::Failure;
use super::output::{self, Table};
use super::session::Session;

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  quorate history --service web --kind check.\n  quorate history --since 4711\n\n\
    `quorate watch stream` goes on with what happens next."
)]
pub(crate) struct HistoryArgs {
    /// Of this service; repeatable
    #[arg(long)]
    service: Vec<String>,
    /// Of this instance; repeatable
    #[arg(long)]
    id: Vec<String>,
    /// Of this node; repeatable
    #[arg(long)]
    node: Vec<String>,
    /// Of this check; repeatable
    #[arg(long)]
    check: Vec<String>,
    /// Of this key; repeatable
    #[arg(long)]
    key: Vec<String>,
    /// Of keys below this prefix; repeatable
    #[arg(long)]
    prefix: Vec<String>,
    /// Of this session; repeatable
    #[arg(long)]
    session: Vec<String>,
    /// Of this kind, or of kinds that begin with it, such as `check.`; repeatable
    #[arg(long)]
    kind: Vec<String>,
    /// After this record
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    /// At most so many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: Option<u32>,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// An instance, by its id
    Service {
        /// Its id
        id: String,
    },
    /// A check, by its id
    Check {
        /// Its id
        id: String,
    },
    /// A node, by its name
    Node {
        /// Its name
        name: String,
    },
    /// A key
    Key {
        /// The key
        key: String,
    },
    /// A session, by its id
    Session {
        /// Its id
        id: String,
    },
}

pub(super) async fn history(session: &Session, args: HistoryArgs) -> Result<ExitCode, Failure> {
    let query = session.query_with([
        ("service", args.service),
        ("id", args.id),
        ("node", args.node),
        ("check", args.check),
        ("key", args.key),
        ("prefix", args.prefix),
        ("session", args.session),
        ("kind", args.kind),
        ("since", args.since.map(|seq| seq.to_string()).into_iter().collect()),
        ("limit", args.limit.map(|limit| limit.to_string()).into_iter().collect()),
    ]);
    let page = session.client.history().list(&query).await?;
    session.show(&page.records, table)
}

fn table(records: &Vec<HistoryEvent>) -> Table {
    Table::of(&["SEQ", "AT", "KIND", "WHAT", "CHANGE", "CAUSE", "DETAIL"], records, |record| {
        let change = match (record.from.as_str(), record.to.as_str()) {
            ("", to) => to.to_owned(),
            (from, to) => format!("{from} -> {to}"),
        };
        vec![
            record.seq.to_string(),
            record.at.clone(),
            record.kind.clone(),
            subject(record).to_owned(),
            change,
            record.cause.kind.clone(),
            record.detail.lines().next().unwrap_or_default().to_owned(),
        ]
    })
}

/// What a record is about, in one word.
fn subject(record: &HistoryEvent) -> &str {
    let names =
        [&record.key, &record.session, &record.check, &record.id, &record.service, &record.node];
    names.into_iter().find(|name| !name.is_empty()).map_or("", String::as_str)
}

pub(super) async fn explain(session: &Session, args: ExplainArgs) -> Result<ExitCode, Failure> {
    let (explain, query) = (session.client.explain(), session.query());
    let explanation = match args.subject {
        Subject::Service { id } => explain.service(&id, &query).await,
        Subject::Check { id } => explain.check(&id, &query).await,
        Subject::Node { name } => explain.node(&name, &query).await,
        Subject::Key { key } => explain.key(&key, &query).await,
        Subject::Session { id } => explain.session(&id, &query).await,
    }?;
    if !session.is_for_programs() {
        tell(&explanation).map_err(|error| Failure::failed(error.to_string()))?;
    }
    session.show(&explanation, |explanation| table(&explanation.timeline))
}

fn tell(explanation: &Explanation) -> std::io::Result<()> {
    output::line(&output::printable(&explanation.why))?;
    if !explanation.next.is_empty() {
        output::line(&output::printable(&explanation.next))?;
    }
    output::line("")
}
