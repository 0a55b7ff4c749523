//! How a command reaches the cluster, and shows what it learnt.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, ClientBuilder, Query, duration};
use serde::Serialize;

use super::failure::Failure;
use super::output::{self, Format, Table};
use super::tls_flags::TlsFlags;

/// Flags of every command that asks a cluster.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Servers to ask: the first that answers is used [default: QUORATE_HTTP_ADDR, else CONSUL_HTTP_ADDR, else
    /// http://127.0.0.1:8500]
    #[arg(
        long,
        global = true,
        value_name = "URL,...",
        value_delimiter = ',',
        help_heading = "Cluster"
    )]
    http_addr: Vec<String>,
    #[command(flatten, next_help_heading = "Cluster")]
    tls: TlsFlags,
    /// Ask the server's own state, which may lag, and which it has without a leader too
    #[arg(long, global = true, help_heading = "Cluster")]
    stale: bool,
    /// Ask as this agent, whatever this host's address is
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    agent: Option<String>,
    /// Ask with this token; better in the environment, where other users do not see it [default: QUORATE_HTTP_TOKEN,
    /// else CONSUL_HTTP_TOKEN]
    #[arg(long, global = true, value_name = "SECRET", help_heading = "Cluster")]
    token: Option<String>,
    /// How the answer is shown
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        help_heading = "Output"
    )]
    output: Format,
}

/// A client, and the way to show things.
#[derive(Debug)]
pub(super) struct Session {
    /// Asks the cluster.
    pub(super) client: Client,
    /// What it was made of, for a client of one of the servers.
    pub(super) builder: ClientBuilder,
    stale: bool,
    output: Format,
}

impl Session {
    /// # Errors
    /// An address is none.
    pub(super) fn open(access: Access) -> Result<Self, Failure> {
        let mut builder = if access.http_addr.is_empty() {
            Client::builder_from_env()?
        } else {
            Client::builder(access.http_addr).tls_from_env()?.token_from_env()
        };
        builder = access.tls.apply(builder);
        if let Some(secret) = access.token {
            builder = builder.token(secret);
        }
        if let Some(agent) = access.agent {
            builder = builder.agent(agent);
        }
        Ok(Self {
            client: builder.clone().build()?,
            builder,
            stale: access.stale,
            output: access.output,
        })
    }

    /// The parameters of a read.
    pub(super) fn query(&self) -> Query {
        self.narrow(Query::new())
    }

    /// The same for one that has parameters already.
    pub(super) fn narrow(&self, query: Query) -> Query {
        if self.stale { query.stale() } else { query }
    }

    /// Whether reads need no leader.
    pub(super) const fn is_stale(&self) -> bool {
        self.stale
    }

    /// How answers are shown.
    pub(super) const fn format(&self) -> Format {
        self.output
    }

    /// The parameters of a read, with these values of each of these.
    pub(super) fn query_with<V: IntoIterator<Item = String>>(
        &self,
        parameters: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Query {
        let pairs = parameters.into_iter();
        let pairs =
            pairs.flat_map(|(name, values)| values.into_iter().map(move |value| (name, value)));
        pairs.fold(self.query(), |query, (name, value)| query.with(name, value))
    }

    /// Whether programs read the output.
    pub(super) fn is_for_programs(&self) -> bool {
        self.output != Format::Table
    }

    /// Prints an answer: as the API's JSON, or as a table.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<ExitCode, Failure> {
        self.output.print(value, table).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Prints an answer that is a sentence for people.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn say<T: Serialize>(&self, value: &T, sentence: &str) -> Result<ExitCode, Failure> {
        if self.is_for_programs() {
            return self.show(value, |_| Table::new(&[]));
        }
        output::line(&output::printable_lines(sentence))
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A span of time as Go writes it, such as `1m30s`.
///
/// # Errors
/// It is none, or negative.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| "it is negative".to_owned())
}

/// A span of time as Go writes it.
pub(super) fn go_text(span: Duration) -> String {
    duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// `KEY=VALUE`.
///
/// # Errors
/// There is no `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
