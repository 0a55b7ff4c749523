//! `watch`: every change of something, as a line of JSON or as a command's input.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::{Event, Follow, Watch, WatchBuilder};
use serde::Serialize;

use super::ending::Ending;
use super::failure::Failure;
use super::key::{Writing, key};
use super::output::Format;
use super::patience::patiently;
use super::session::Session;
use super::{child, output};

/// What a stream that is connected never is: it says that nothing has happened.
const SILENT: &str = "nothing has come from a stream";

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate watch service web --passing\n  \
    quorate watch key app/config --run 'systemctl reload app'\n  quorate watch stream --service web\n\n\
    The first value comes at once, the next ones when they differ: each as a line of JSON, with -o yaml as a document. A \
    command gets the value as JSON on its standard input; the next one starts when it has ended. SIGINT and SIGTERM go to \
    the command too, and end the watch with exit code 130 and 143. With --once the exit code is 3 when no server answers \
    for 10 s; what is not there is no failure: null, or an empty list.")]
pub(crate) struct WatchArgs {
    #[command(subcommand)]
    what: What,
    /// Run this with the shell at every change, instead of printing it
    #[arg(long, global = true, value_name = "COMMAND")]
    run: Option<String>,
    /// End after the first value
    #[arg(long, global = true)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The instances of a service
    Service {
        /// Its name
        name: String,
        /// Only those whose every check passes
        #[arg(long)]
        passing: bool,
        /// Only those with this tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// A key
    Key {
        /// The key
        #[arg(value_parser = key(Writing::No))]
        key: String,
    },
    /// Keys that begin with a prefix
    Prefix {
        /// The prefix
        #[arg(value_parser = key(Writing::No))]
        prefix: String,
    },
    /// The names of services, with their tags
    Services,
    /// The nodes
    Nodes,
    /// Checks by status
    Checks {
        /// Only those with this status
        #[arg(value_parser = ["any", "passing", "warning", "critical"], default_value = "any")]
        status: String,
    },
    /// What happens, record by record
    Stream {
        /// Only of this service; repeatable
        #[arg(long)]
        service: Vec<String>,
        /// Only of keys that begin with it; repeatable
        #[arg(long)]
        prefix: Vec<String>,
        /// Only of this kind, such as `check.`; repeatable
        #[arg(long)]
        kind: Vec<String>,
        /// After this record
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
    },
}

/// What is done with each value.
#[derive(Debug)]
struct Sink {
    run: Option<String>,
    once: bool,
    format: Format,
    ending: Ending,
}

pub(super) async fn run(session: &Session, args: WatchArgs) -> Result<ExitCode, Failure> {
    let ending = if args.run.is_some() { Ending::by_signal()? } else { Ending::with_reader()? };
    let mut sink = Sink { run: args.run, once: args.once, format: session.format(), ending };
    let client = &session.client;
    match args.what {
        What::Service { name, passing, tag } => {
            let narrow = |query: quorate_client::Query| {
                let query = if passing { query.passing() } else { query };
                tag.into_iter().fold(query, quorate_client::Query::tag)
            };
            follow(session, client.watch_service(&name).query(narrow), sink).await
        }
        What::Key { key } => follow(session, client.watch_key(&key), sink).await,
        What::Prefix { prefix } => follow(session, client.watch_prefix(&prefix), sink).await,
        What::Services => follow(session, client.watch_services(), sink).await,
        What::Nodes => follow(session, client.watch_nodes(), sink).await,
        What::Checks { status } => follow(session, client.watch_checks(&status), sink).await,
        What::Stream { service, prefix, kind, since } => {
            let builder =
                service.into_iter().fold(client.follow(), quorate_client::FollowBuilder::service);
            let builder = prefix.into_iter().fold(builder, quorate_client::FollowBuilder::prefix);
            let builder = kind.into_iter().fold(builder, quorate_client::FollowBuilder::kind);
            let builder = since.into_iter().fold(builder, quorate_client::FollowBuilder::since);
            let builder = if session.is_stale() { builder.stale() } else { builder };
            let mut follow = builder.start()?;
            let next = async |follow: &mut Follow| follow.next_event().await;
            let silence = |_: &Follow| Some(SILENT.to_owned());
            while let Some(event) =
                sink.ending.unless(patiently(&mut follow, sink.once, next, silence)).await?
            {
                match event? {
                    Event::Change(change) if sink.take(&change).await? => break,
                    Event::Gap(gap) => output::note(&format!(
                        "the records from {} on are not kept any more, or were never written: the last one is {}",
                        gap.since.saturating_add(1),
                        gap.last
                    )),
                    _ => {}
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn follow<T>(
    session: &Session,
    builder: WatchBuilder<T>,
    mut sink: Sink,
) -> Result<ExitCode, Failure>
where
    T: Serialize + PartialEq + Send + Sync + 'static,
{
    let mut watch: Watch<T> = builder.query(|query| session.narrow(query)).start()?;
    let next = async |watch: &mut Watch<T>| watch.changed().await;
    let trouble = |watch: &Watch<T>| watch.trouble().map(|trouble| trouble.error);
    while let Some(value) =
        sink.ending.unless(patiently(&mut watch, sink.once, next, trouble)).await?
    {
        if sink.take(&*value).await? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Sink {
    /// Prints a value or runs the command with it; returns whether that was all.
    async fn take(&mut self, value: &impl Serialize) -> Result<bool, Failure> {
        match &self.run {
            None => {
                output::line(&text(value, self.format)?)
                    .map_err(|error| Failure::failed(error.to_string()))?;
            }
            Some(command) => {
                let json = text(value, Format::Json)?;
                let signals = &mut self.ending.signals;
                let status =
                    child::run_with_input(&shell(command), json.as_bytes(), signals).await?;
                if !status.success() {
                    let text = format!("the command ended with {status}");
                    if self.once {
                        return Err(Failure::failed(text));
                    }
                    output::note(&text);
                }
            }
        }
        Ok(self.once)
    }
}

/// One value of many: a line of JSON, or a YAML document.
fn text(value: &impl Serialize, format: Format) -> Result<String, Failure> {
    match format {
        Format::Table | Format::Json => {
            let json = serde_json::to_string(value);
            let json = json.map_err(|error| Failure::failed(error.to_string()))?;
            Ok(output::json_line(&json))
        }
        Format::Yaml => {
            let yaml = serde_norway::to_string(value);
            let yaml = yaml.map_err(|error| Failure::failed(error.to_string()))?;
            Ok(format!("---\n{}", yaml.trim_end()))
        }
    }
}

/// A command line for the shell.
pub(super) fn shell(command: &str) -> [OsString; 3] {
    ["/bin/sh".into(), "-c".into(), command.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_a_line_or_a_document() {
        let value = serde_json::json!({ "Key": "a", "Tags": ["b"] });
        assert_eq!(text(&value, Format::Table).unwrap(), r#"{"Key":"a","Tags":["b"]}"#);
        assert_eq!(text(&value, Format::Json).unwrap(), text(&value, Format::Table).unwrap());
        assert_eq!(text(&value, Format::Yaml).unwrap(), "---\nKey: a\nTags:\n- b");
    }
}
