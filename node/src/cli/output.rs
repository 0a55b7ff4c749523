//! Answers on standard output: tables for people, JSON and YAML for programs.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement};
use serde::Serialize;

use crate::host::one_line::is_unprintable;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// The JSON of the API
    Json,
    /// The same as YAML
    Yaml,
}

/// Rows under headings. Text is shown as it is, control characters aside.
#[derive(Debug)]
pub(super) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) const fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// A table of these rows.
    pub(super) fn of<T>(
        headings: &'static [&'static str],
        items: impl IntoIterator<Item = T>,
        row: impl Fn(T) -> Vec<String>,
    ) -> Self {
        Self { headings, rows: items.into_iter().map(row).collect() }
    }

    /// Two columns: names and what they are.
    pub(super) fn facts(facts: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let rows = facts.into_iter().map(|(name, fact)| vec![name.to_owned(), fact]).collect();
        Self { headings: &[], rows }
    }

    fn render(&self, is_coloured: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !is_coloured {
            table.force_no_tty();
        } else {
            table.enforce_styling();
        }
        if !self.headings.is_empty() {
            let heading = |text: &&str| Cell::new(text).add_attribute(Attribute::Bold);
            table.set_header(self.headings.iter().map(heading));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|text| cell(&printable(text))));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// The word always stands beside the colour.
fn cell(text: &str) -> Cell {
    let colour = match text {
        "passing" | "alive" => Some(Color::Green),
        "warning" => Some(Color::Yellow),
        "critical" | "failed" => Some(Color::Red),
        _ => None,
    };
    let cell = Cell::new(text);
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// Nothing that users wrote moves the cursor, or turns around what is beside it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines.
pub(super) fn printable_lines(text: &str) -> String {
    text.chars()
        .map(|c| if is_unprintable(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect()
}

/// The same JSON, in which strings have such characters as escapes. Some of those that command terminals are no control
/// characters for JSON.
pub(super) fn json_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Between its strings JSON has newlines, and within them none.
        if is_unprintable(c) && c != '\n' {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

impl Format {
    /// Prints an answer.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> io::Result<()> {
        match self {
            Self::Table => {
                let table = table(value);
                if table.rows.is_empty() && table.headings.is_empty() {
                    return Ok(());
                }
                line(&table.render(is_coloured()))
            }
            Self::Json => json(&serde_json::to_string_pretty(value).map_err(io::Error::other)?),
            Self::Yaml => {
                let text = serde_norway::to_string(value).map_err(io::Error::other)?;
                line(text.trim_end())
            }
        }
    }
}

/// Prints JSON, with a newline.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn json(text: &str) -> io::Result<()> {
    line(&json_line(text))
}

/// Prints what a client has stored as it is, but on a terminal without what would command it.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn content(content: &[u8]) -> io::Result<()> {
    if !io::stdout().is_terminal() {
        return bytes(content);
    }
    let text = printable_lines(&String::from_utf8_lossy(content));
    bytes(text.as_bytes())?;
    if text.ends_with('\n') { Ok(()) } else { line("") }
}

/// Prints a line. A reader that has enough (`| head`) is no error.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// The same for bytes as they are.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says something to people, on standard error. One that nobody reads, or that is full, is no reason to fail.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "quorate: {}", printable_lines(text));
}

/// Colours are for terminals, and `NO_COLOR` (no-color.org) turns them off.
pub(super) fn is_coloured() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_refused
}

/// `1 key`, `2 keys`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// How long ago, for people: `850 ms`, `12 s`, `3 min`, `5 h`, `9 d`.
pub(super) fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_no_escape_codes_unless_asked_for() {
        let rows = [("web", "passing"), ("api-long", "critical"), ("\u{1b}[2Jx", "warning")];
        let table = Table::of(&["SERVICE", "STATUS"], rows, |(name, status)| {
            vec![name.to_owned(), status.to_owned()]
        });
        assert_eq!(
            table.render(false),
            "SERVICE   STATUS\nweb       passing\napi-long  critical\n\u{fffd}[2Jx     warning"
        );
        let coloured = table.render(true);
        assert!(coloured.contains("\u{1b}[") && !coloured.contains("[2Jx\u{1b}"), "{coloured}");
    }

    #[test]
    fn what_users_wrote_commands_no_terminal_in_json_and_sentences_either() {
        let name = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}end";
        let value = serde_json::json!({ "Name": name });
        let line = json_line(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!line.contains(|c: char| is_unprintable(c) && c != '\n'), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
        assert_eq!(printable_lines("a\n\tb\u{1b}c\r"), "a\n\tb\u{fffd}c\u{fffd}");
        assert_eq!(printable("a\u{202e}b\nc"), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn ages_are_rounded_down_to_a_unit_that_says_something() {
        let spans = [850, 12_900, 119_999, 180_000, 7_200_000, 172_800_000];
        let texts: Vec<_> = spans.into_iter().map(age).collect();
        assert_eq!(texts, ["850 ms", "12 s", "119 s", "3 min", "2 h", "2 d"]);
    }
}
