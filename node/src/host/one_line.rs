//! Log lines that stay lines, whatever names, texts and errors of others are in them.

use std::borrow::Cow;
use std::io;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Whether a character does something to a terminal or to the order of what is shown, instead of being shown: control
/// characters, and those that turn the direction of text around.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text without such characters: a newline is written as `\n`, an escape as `\u{1b}`. Otherwise a
/// client could write lines of its own into the log, or colour somebody's terminal.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unprintable(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// Makes writers that keep each event on one line. What writes events must write each at once, newline
/// included, as `tracing_subscriber::fmt` does.
#[derive(Debug)]
pub(super) struct OneLine<M>(pub(super) M);

impl<'writer, M: MakeWriter<'writer>> MakeWriter<'writer> for OneLine<M> {
    type Writer = LineWriter<M::Writer>;

    fn make_writer(&'writer self) -> Self::Writer {
        LineWriter(self.0.make_writer())
    }

    fn make_writer_for(&'writer self, about: &Metadata<'_>) -> Self::Writer {
        LineWriter(self.0.make_writer_for(about))
    }
}

#[derive(Debug)]
pub(super) struct LineWriter<W>(W);

impl<W: io::Write> io::Write for LineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // In one write, so that lines of several threads do not mix.
        self.0.write_all(format!("{}\n", escaped(line)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(OneLine(move || writer.clone()));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let name = "web\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
            tracing::info!(service = %name, "a service\r\nwas registered: {name}");
            tracing::info!("the next one, with an \u{e4}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(r"service=web\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m"));
        assert!(lines[0].contains(r"a service\r\nwas registered: web\n2026"), "{text}");
        assert!(lines[1].ends_with("the next one, with an \u{e4}"), "{text}");
    }
}
