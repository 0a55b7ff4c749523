//! What this process writes to its log, and how.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, reload};

use super::one_line::OneLine;
use super::path_error::at_path;
use crate::host::log_stream::{LevelHandle, Logs};

/// The environment variable that says what is logged.
pub const VARIABLE: &str = "QUORATE_LOG";

/// Our own crates, as targets.
const OWN: [&str; 3] = ["quorate", "quorate_storage", "quorate_client"];
/// Libraries that say too much. openraft warns with every heartbeat that an absent peer does not answer; a
/// line for each change of state is ours to write.
const NOISY: &str = "openraft=error,sled=warn,hyper=warn";
/// Names of levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// What the log is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important line, in the words of `tracing`.
    pub level: &'static str,
    /// One JSON object a line.
    pub json: bool,
    /// A file to log to, beside standard error.
    pub file: Option<PathBuf>,
}

/// Begins to log: what `QUORATE_LOG` says, else our own lines from the settings' level on. The handle
/// changes the level.
///
/// # Errors
/// A sentence that says what is wrong with `QUORATE_LOG` or with the file.
pub fn begin(settings: &LogSettings) -> Result<(Logs, LevelHandle), String> {
    let (stderr_filter, stderr_level) = reload::Layer::new(effective(settings.level)?);
    let (file_filter, file_level) = reload::Layer::new(effective(settings.level)?);
    let logs = Logs::default();
    let to_stderr = lines(settings.json, std::io::stderr).with_filter(stderr_filter);
    let to_file = match &settings.file {
        None => None,
        Some(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let told = |error| at_path("-log-file (log_file)", path, &error).to_string();
            let file = std::sync::Mutex::new(file.map_err(told)?);
            Some(lines(settings.json, file).with_filter(file_filter))
        }
    };
    tracing_subscriber::registry().with(to_stderr).with(to_file).with(logs.layer()).init();
    let set = move |level: &str| match (effective(level), effective(level)) {
        (Ok(stderr), Ok(file)) => {
            // They fail only if the layers are gone, and then there is no log.
            let _ = stderr_level.reload(stderr);
            let _ = file_level.reload(file);
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "keeping the current log level");
        }
    };
    Ok((logs, LevelHandle::new(set)))
}

/// `QUORATE_LOG`, else everything of ours from this level on.
fn effective(level: &str) -> Result<EnvFilter, String> {
    let given = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    filter(given.as_deref().unwrap_or(level))
}

/// A layer that writes lines: of text, or each a JSON object.
fn lines<S, W>(json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(OneLine(writer)).with_ansi(false);
    if json {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    } else {
        lines.boxed()
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    let wrong = |what: &str| format!("{VARIABLE}: {what}");
    let mut directives = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if !part.contains(['=', '[']) {
            let level = part.to_ascii_lowercase();
            if !LEVELS.contains(&level.as_str()) {
                return Err(wrong(&format!(
                    "{part:?} is neither a level ({}) nor TARGET=LEVEL, such as openraft=debug",
                    LEVELS.join(", ")
                )));
            }
            directives.insert(0, of_level(&level));
        } else {
            directives.push(part.to_owned());
        }
    }
    let text = directives.join(",");
    EnvFilter::builder().parse(&text).map_err(|error| wrong(&format!("{text:?}: {error}")))
}

/// A level is for our own code; libraries say no more than `info`, and the noisy ones less.
fn of_level(level: &str) -> String {
    match level {
        "debug" | "trace" => {
            let own: Vec<_> = OWN.iter().map(|target| format!("{target}={level}")).collect();
            format!("info,{NOISY},{}", own.join(","))
        }
        "info" => format!("info,{NOISY}"),
        "warn" => "warn,openraft=error".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::Registry;

    use super::*;

    /// Whether a line of a target is logged; the macros take constant targets only.
    fn shown(text: &str) -> [bool; 4] {
        let subscriber = Registry::default().with(filter(text).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            [
                tracing::enabled!(target: "quorate::node", Level::DEBUG),
                tracing::enabled!(target: "openraft::engine", Level::INFO),
                tracing::enabled!(target: "h2::proto", Level::DEBUG),
                tracing::enabled!(target: "reqwest::connect", Level::INFO),
            ]
        })
    }

    #[test]
    fn a_level_is_for_our_own_code() {
        assert_eq!(shown("debug"), [true, false, false, true]);
        assert_eq!(shown("TRACE"), [true, false, false, true]);
        assert_eq!(shown("info"), [false, false, false, true]);
        assert_eq!(shown("error"), [false; 4]);
        assert_eq!(shown("openraft=info,debug"), [true, true, false, true]);
        assert_eq!(shown("off,h2=trace"), [false, false, true, false]);
    }

    #[test]
    fn an_unknown_filter_is_refused_with_a_sentence() {
        let refused = |text| filter(text).unwrap_err();
        assert_eq!(
            refused("verbose"),
            "QUORATE_LOG: \"verbose\" is neither a level (off, error, warn, info, debug, trace) nor \
             TARGET=LEVEL, such as openraft=debug"
        );
        assert!(refused("debug,quorate=loud").starts_with("QUORATE_LOG: "));
    }
}
