//! This server's own log lines, for who wants to read along: `GET /v1/agent/monitor`.
//!
//! A layer beside the one that writes to stderr. While nobody reads it formats nothing, and what the
//! libraries have to say below a warning never reaches it. The channel has a limit: a reader that is
//! too slow loses lines and is told how many; no log line ever waits for a reader.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Lines that are kept for a slow reader.
const LINES_MAX: usize = 1_024;

/// Where lines come from and go to; cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    lines: broadcast::Sender<Line>,
    readers: Arc<AtomicUsize>,
}

/// One log line.
#[derive(Debug, Clone)]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// As Consul writes it, with a newline at the end:
    /// `2026-01-31T23:59:59.000Z [INFO]  quorate::node: a message: key=value`.
    pub text: Arc<str>,
}

/// Changes the least important line that goes to the log. Without a log it does nothing.
#[derive(Clone, Default)]
pub struct LevelHandle(Option<Arc<SetLevel>>);

type SetLevel = dyn Fn(&str) + Send + Sync;

impl LevelHandle {
    /// A handle that changes the level with this.
    pub fn new(set: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(set)))
    }

    /// Changes the level, in the words of `tracing`.
    pub fn set(&self, level: &str) {
        if let Some(set) = &self.0 {
            set(level);
        }
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LevelHandle").field(&self.0.is_some()).finish()
    }
}

/// One who reads along, until it is dropped.
#[derive(Debug)]
pub struct Reader {
    lines: broadcast::Receiver<Line>,
    level: Level,
    readers: Arc<AtomicUsize>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { lines: broadcast::Sender::new(LINES_MAX), readers: Arc::default() }
    }
}

impl Logs {
    /// Reads along from now on what is as important as this level, or more.
    #[must_use]
    pub fn read(&self, level: Level) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader { lines: self.lines.subscribe(), level, readers: Arc::clone(&self.readers) }
    }

    /// The layer that feeds the readers.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    {
        Feed(self.clone()).with_filter(Wanted(Arc::clone(&self.readers)))
    }
}

impl Reader {
    /// The next line; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            match self.lines.recv().await {
                Ok(line) if line.level <= self.level => return Some(line.text.to_string()),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    return Some(format!(
                        "[WARN]  {lost} lines were lost: this reader is too slow\n"
                    ));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The least important line of a library or of ours that a reader may see.
fn limit(target: &str) -> LevelFilter {
    match target.split("::").next() {
        Some("quorate" | "quorate_storage" | "quorate_client") => LevelFilter::TRACE,
        // It calls every unanswered heartbeat to an absent server a warning.
        Some("openraft") => LevelFilter::ERROR,
        Some(_) | None => LevelFilter::WARN,
    }
}

/// Lets lines through while somebody reads. What is never wanted is known when a log statement is
/// first reached, so that the many of the libraries cost nothing.
#[derive(Debug)]
struct Wanted(Arc<AtomicUsize>);

impl<S> Filter<S> for Wanted {
    fn enabled(&self, about: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *about.level() <= limit(about.target()) && self.0.load(Ordering::Relaxed) > 0
    }

    fn callsite_enabled(&self, about: &'static Metadata<'static>) -> Interest {
        match *about.level() <= limit(about.target()) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }
}

/// Formats lines and hands them to the readers.
#[derive(Debug)]
struct Feed(Logs);

impl<S: Subscriber> Layer<S> for Feed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let level = *about.level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, others } = fields;
        let separator = if others.is_empty() { "" } else { ":" };
        let now = clock::wall_time();
        let text = format!(
            "{now} {:<7} {}: {message}{separator}{others}\n",
            format!("[{level}]"),
            about.target(),
        );
        // That the last reader has gone is no error.
        let _ = self.0.lines.send(Line { level, text: text.into() });
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    /// ` key=value` each.
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn recorded(logs: &Logs, work: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, work);
    }

    #[tokio::test]
    async fn a_reader_sees_what_is_important_enough_from_when_it_begins() {
        let logs = Logs::default();
        let mut reader = None;
        recorded(&logs, || {
            tracing::info!("before");
            reader = Some(logs.read(Level::INFO));
            tracing::debug!("too little");
            tracing::info!(answer = 42, name = %"n1", "hello");
        });
        let line = reader.unwrap().next().await.unwrap();
        assert!(
            line.ends_with("[INFO]  quorate::log_stream::tests: hello: answer=42 name=n1\n"),
            "{line}"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let logs = Logs::default();
        let mut reader = logs.read(Level::INFO);
        recorded(&logs, || {
            for number in 0..LINES_MAX + 3 {
                tracing::info!(number, "line");
            }
        });
        let line = reader.next().await.unwrap();
        assert!(line.contains("3 lines were lost"), "{line}");
        assert!(reader.next().await.unwrap().contains("number=3"));
    }

    #[tokio::test]
    async fn libraries_are_heard_when_something_is_wrong() {
        let logs = Logs::default();
        let mut reader = logs.read(Level::TRACE);
        recorded(&logs, || {
            tracing::info!(target: "hyper::proto", "nothing");
            tracing::warn!(target: "openraft::engine", "nothing");
            tracing::warn!(target: "hyper::proto", "something");
        });
        assert!(reader.next().await.unwrap().contains("something"));
    }
}
