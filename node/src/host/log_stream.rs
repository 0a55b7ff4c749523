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

use super::one_line::escaped;
use crate::host::clock::{self, WallTime};

/// Lines that are kept for a slow reader.
const LINES_MAX: usize = 1_024;

/// Where lines come from and go to; cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    lines: broadcast::Sender<Line>,
    readers: Arc<AtomicUsize>,
}

/// How a reader wants its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// As Consul writes them: `2026-01-31T23:59:59.000Z [INFO]  quorate::node: a message: key=value`.
    Text,
    /// An object with `@level`, `@message`, `@module`, `@timestamp` and the rest, as Consul's `logjson`.
    Json,
}

/// One log line; cheap to clone.
#[derive(Debug, Clone)]
struct Line(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    level: Level,
    time: WallTime,
    target: &'static str,
    fields: Fields,
}

impl Line {
    /// With a newline at the end.
    fn rendered(&self, format: LineFormat) -> String {
        match format {
            LineFormat::Text => self.text(),
            LineFormat::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let Parts { level, time, target, fields } = &*self.0;
        let separator = if fields.others.is_empty() { "" } else { ":" };
        let level = format!("[{level}]");
        let mut text = format!("{time} {level:<7} {target}: {}{separator}", fields.message);
        for (name, value) in &fields.others {
            // Writing to a String cannot fail.
            let _ = match value {
                FieldValue::Shown(shown) => write!(text, " {name}={shown}"),
                FieldValue::Json(value) => write!(text, " {name}={value}"),
            };
        }
        format!("{}\n", escaped(&text))
    }

    fn json(&self) -> String {
        let Parts { level, time, target, fields } = &*self.0;
        let mut object = serde_json::Map::new();
        object.insert("@level".to_owned(), level.as_str().to_ascii_lowercase().into());
        object.insert("@message".to_owned(), fields.message.as_str().into());
        object.insert("@module".to_owned(), (*target).into());
        object.insert("@timestamp".to_owned(), time.to_string().into());
        for (name, value) in &fields.others {
            let value = match value {
                FieldValue::Shown(shown) => shown.as_str().into(),
                FieldValue::Json(value) => value.clone(),
            };
            object.insert((*name).to_owned(), value);
        }
        format!("{}\n", serde_json::Value::Object(object))
    }

    /// What a reader is told that was too slow.
    fn of_loss(lost: u64) -> Self {
        let message = format!("{lost} lines were lost: this reader is too slow");
        let fields = Fields { message, others: Vec::new() };
        let (level, time, target) = (Level::WARN, clock::wall_time(), module_path!());
        Self(Arc::new(Parts { level, time, target, fields }))
    }
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
    format: LineFormat,
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
    pub fn read(&self, level: Level, format: LineFormat) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader { lines: self.lines.subscribe(), level, format, readers: Arc::clone(&self.readers) }
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
                Ok(line) if line.0.level <= self.level => return Some(line.rendered(self.format)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    return Some(Line::of_loss(lost).rendered(self.format));
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

/// Hands lines to the readers.
#[derive(Debug)]
struct Feed(Logs);

impl<S: Subscriber> Layer<S> for Feed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, time, target) = (*about.level(), clock::wall_time(), about.target());
        // That the last reader has gone is no error.
        let _ = self.0.lines.send(Line(Arc::new(Parts { level, time, target, fields })));
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, FieldValue)>,
}

#[derive(Debug)]
enum FieldValue {
    /// As its type shows itself.
    Shown(String),
    /// What JSON has a type for.
    Json(serde_json::Value),
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.others.push((field.name(), FieldValue::Json(value.into())));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, FieldValue::Shown(format!("{value:?}")))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.add(field, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
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
            reader = Some(logs.read(Level::INFO, LineFormat::Text));
            tracing::debug!("too little");
            tracing::info!(answer = 42, name = %"n1", "hello");
        });
        let line = reader.unwrap().next().await.unwrap();
        assert!(
            line.ends_with("[INFO]  quorate::host::log_stream::tests: hello: answer=42 name=n1\n"),
            "{line}"
        );
    }

    #[tokio::test]
    async fn a_reader_that_wants_json_gets_an_object_on_each_line() {
        let logs = Logs::default();
        let mut reader = logs.read(Level::INFO, LineFormat::Json);
        recorded(&logs, || tracing::info!(answer = 42, name = %"n1", text = "a \"b\"", "hello"));
        let line = reader.next().await.unwrap();
        assert!(line.ends_with("}\n"), "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["@level"], "info");
        assert_eq!(object["@message"], "hello");
        assert_eq!(object["@module"], "quorate::host::log_stream::tests");
        assert_eq!((&object["answer"], &object["name"]), (&42.into(), &"n1".into()));
        assert_eq!(object["text"], "a \"b\"");
        assert!(object["@timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let logs = Logs::default();
        let mut reader = logs.read(Level::INFO, LineFormat::Text);
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
        let mut reader = logs.read(Level::TRACE, LineFormat::Text);
        recorded(&logs, || {
            tracing::info!(target: "hyper::proto", "nothing");
            tracing::warn!(target: "openraft::engine", "nothing");
            tracing::warn!(target: "hyper::proto", "something");
        });
        assert!(reader.next().await.unwrap().contains("something"));
    }
}
