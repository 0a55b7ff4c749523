//! `history` and `explain`.

use std::collections::VecDeque;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::types::history::{Explanation, HistoryEvent};
use quorate_client::{Error, Query};

use super::failure::Failure;
use super::output::{self, Table};
use super::session::Session;

/// How the API and the command line say whose an id is.
const AGENT_OF_API: &str = "?agent=";
const AGENT_OF_COMMANDS: &str = "--agent";

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  quorate history --service web --kind check.\n  quorate history --since 4711\n  \
    quorate history --last 20\n\n\
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
    /// At most so many, the oldest
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: Option<u32>,
    /// Only so many, the newest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000), conflicts_with = "limit")]
    last: Option<u32>,
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
    ]);
    let since = args.since;
    let records = match args.last {
        Some(last) => newest(session, &query, since, last as usize).await?,
        None => {
            let query = from(&query, since);
            let limit = args.limit.map(|limit| limit.to_string());
            let query = limit.into_iter().fold(query, |query, limit| query.with("limit", limit));
            session.client.history().list(&query).await?.records
        }
    };
    session.show(&records, table)
}

fn from(query: &Query, since: Option<u64>) -> Query {
    let query = query.clone();
    since.into_iter().fold(query, |query, seq| query.with("since", seq.to_string()))
}

/// The newest records: the API gives the oldest first, page by page.
async fn newest(
    session: &Session,
    query: &Query,
    mut since: Option<u64>,
    number: usize,
) -> Result<Vec<HistoryEvent>, Failure> {
    let mut newest = VecDeque::new();
    loop {
        let page = session.client.history().list(&from(query, since)).await?;
        let Some(seq) = page.records.last().map(|record| record.seq) else { break };
        newest.extend(page.records);
        newest.drain(..newest.len().saturating_sub(number));
        since = Some(seq);
        if page.last_seq.is_some_and(|last| last <= seq) {
            break;
        }
    }
    Ok(newest.into())
}

fn table(records: &Vec<HistoryEvent>) -> Table {
    Table::of(&["SEQ", "AT", "KIND", "WHAT", "CHANGE", "CAUSE", "DETAIL"], records, |record| {
        let change = match (record.from.as_str(), record.to.as_str()) {
            ("", to) => to.to_owned(),
            (from, to) => format!("{from} -> {to}"),
        };
        let detail = if record.detail.is_empty() { &record.name } else { &record.detail };
        vec![
            record.seq.to_string(),
            record.at.clone(),
            record.kind.clone(),
            subject(record).to_owned(),
            change,
            record.cause.kind.clone(),
            detail.lines().next().unwrap_or_default().to_owned(),
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
    };
    let explanation = explanation.map_err(unexplained)?;
    if !session.is_for_programs() {
        tell(&explanation).map_err(|error| Failure::failed(error.to_string()))?;
    }
    session.show(&explanation, |explanation| table(&explanation.timeline))
}

/// An id that several nodes have is one that says too little, in the words of the command line.
fn unexplained(error: Error) -> Failure {
    match error {
        Error::Status { status: 409, text, .. } => {
            Failure::usage(text.replace(AGENT_OF_API, AGENT_OF_COMMANDS))
        }
        error => error.into(),
    }
}

fn tell(explanation: &Explanation) -> std::io::Result<()> {
    output::line(&output::printable(&explanation.why))?;
    if !explanation.next.is_empty() {
        output::line(&output::printable(&explanation.next))?;
    }
    output::line("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_several_nodes_is_answered_in_the_words_of_the_command_line() {
        let text = "registered on several nodes (n1, n2): name one with ?agent=".to_owned();
        let request = "GET http://a/v1/quorate/explain/service/x".to_owned();
        let failure = unexplained(Error::Status { request, status: 409, text });
        let told = format!("{failure:?}");
        assert!(told.contains("with --agent\"") && told.contains("code: 2"), "{told}");
    }
}
