//! Rewrites the first HCL, which Consul reads, as its successor wants it.
//!
//! The first one separates the members of a block or object by commas, blanks or lines, as in
//! `ports { http = 8500 dns = -1 }`. Its successor wants a line for each, and allows lines in objects too.

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Blanks within a line.
    Blank,
    /// The end of a line.
    Line,
    /// A comment, without the end of its line.
    Comment,
    /// A name, number or truth value.
    Word,
    /// What stands in quotes, or a heredoc.
    Quoted,
    /// A brace, bracket, comma or equals sign.
    Mark(char),
}

/// The text with a line for each member of a block or object.
pub(crate) fn one_member_a_line(text: &str) -> String {
    let pieces = pieces(text);
    let mut lines = String::with_capacity(text.len());
    let mut open = Vec::new();
    // Of the present member: its last piece, and whether it has a value.
    let (mut last, mut has_value) = (None, false);
    for (at, (kind, piece)) in pieces.iter().enumerate() {
        match kind {
            Kind::Blank | Kind::Comment => {
                lines.push_str(piece);
                continue;
            }
            Kind::Line => has_value = false,
            Kind::Mark('{') => {
                open.push('{');
                has_value = false;
                lines.push_str("{\n");
            }
            Kind::Mark('}') => {
                open.pop();
                has_value = true;
                lines.push_str("\n}");
            }
            Kind::Mark(',') if open.last() == Some(&'{') => {
                has_value = false;
                lines.push('\n');
            }
            Kind::Mark('[') => open.push('['),
            Kind::Mark(']') => drop(open.pop()),
            Kind::Mark('=') => has_value = true,
            Kind::Word | Kind::Quoted
                if has_value
                    && open.last() != Some(&'[')
                    && last.is_some_and(ends_value)
                    && begins_member(&pieces[at + 1..]) =>
            {
                has_value = false;
                lines.push('\n');
            }
            Kind::Word | Kind::Quoted | Kind::Mark(_) => {}
        }
        let is_written = matches!(kind, Kind::Mark('{' | '}'))
            || (*kind == Kind::Mark(',') && open.last() == Some(&'{'));
        if !is_written {
            lines.push_str(piece);
        }
        last = Some(*kind);
    }
    lines
}

/// Whether a value may end with such a piece.
const fn ends_value(kind: Kind) -> bool {
    matches!(kind, Kind::Word | Kind::Quoted | Kind::Mark('}' | ']'))
}

/// Whether a name followed by this begins a member: `name =`, `name {` or `name "label" {`.
fn begins_member(rest: &[(Kind, &str)]) -> bool {
    let mut kinds = rest.iter().map(|(kind, _)| *kind).filter(|kind| *kind != Kind::Blank);
    match kinds.next() {
        Some(Kind::Mark('=' | '{')) => true,
        Some(Kind::Quoted) => kinds.next() == Some(Kind::Mark('{')),
        _ => false,
    }
}

fn pieces(text: &str) -> Vec<(Kind, &str)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            '\n' => (Kind::Line, 1),
            '#' => (Kind::Comment, line(rest)),
            '/' if rest.starts_with("//") => (Kind::Comment, line(rest)),
            '/' if rest.starts_with("/*") => {
                (Kind::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2))
            }
            '"' => (Kind::Quoted, quoted(rest)),
            '<' if rest.starts_with("<<") => (Kind::Quoted, heredoc(rest)),
            '{' | '}' | '[' | ']' | ',' | '=' => (Kind::Mark(first), 1),
            blank if blank.is_whitespace() => {
                let is_blank = |next: char| next.is_whitespace() && next != '\n';
                (Kind::Blank, rest.find(|next| !is_blank(next)).unwrap_or(rest.len()))
            }
            _ => {
                let ends = |next: char| next.is_whitespace() || "\"#{}[],=".contains(next);
                (Kind::Word, rest.find(ends).unwrap_or(rest.len()))
            }
        };
        let (piece, after) = rest.split_at(length);
        pieces.push((kind, piece));
        rest = after;
    }
    pieces
}

/// The length of the rest of the line.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// The length of what stands in quotes, with them.
fn quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a heredoc, up to the end of the line with its mark.
fn heredoc(text: &str) -> usize {
    let first = line(text);
    let mark = text[..first].trim_start_matches(['<', '-']).trim();
    let mut at = first;
    for next in text[first..].split_inclusive('\n') {
        at += next.len();
        if next.trim() == mark {
            return at - usize::from(next.ends_with('\n'));
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Value {
        let lines = one_member_a_line(text);
        hcl::from_str(&lines).unwrap_or_else(|error| panic!("{error}\n{lines}"))
    }

    #[test]
    fn blanks_separate_members() {
        assert_eq!(
            read("ports { http = 8500 dns = -1 } server = true"),
            json!({"ports": {"http": 8500, "dns": -1}, "server": true})
        );
        assert_eq!(
            read(r#"service = { name = "a" port = 80 tags = ["x", "y"] meta { a = "b" } }"#
                .replace("meta {", "meta = {")
                .as_str()),
            json!({"service": {"name": "a", "port": 80, "tags": ["x", "y"], "meta": {"a": "b"}}})
        );
        assert_eq!(
            read(
                r#"service { name = "a" check { http = "http://h:1/{a = b}" interval = "2s" } } service { name = "b" }"#
            ),
            json!({"service": [
                {"name": "a", "check": {"http": "http://h:1/{a = b}", "interval": "2s"}},
                {"name": "b"},
            ]})
        );
        assert_eq!(
            read(
                r#"services = [{ id = "a" tags = ["x"] }, { id = "b", port = 1 }] a = 1 b { c = 2 }"#
            ),
            json!({"services": [{"id": "a", "tags": ["x"]}, {"id": "b", "port": 1}], "a": 1, "b": {"c": 2}})
        );
    }

    #[test]
    fn what_stands_in_quotes_comments_and_heredocs_is_left_alone() {
        let text = "a = \"x = 1 y = 2, {\\\"\" # b = 1 { c = 2\n// d { e = 1 f = 2\n/* g = 1 h = 2 } */ i = <<EOF\nj = 1 k = 2 {\n  l, m\nEOF\nn = 3 o = 4";
        assert_eq!(
            read(text),
            json!({"a": "x = 1 y = 2, {\"", "i": "j = 1 k = 2 {\n  l, m\n", "n": 3, "o": 4})
        );
        for cut in ["a = \"x", "a = <<EOF\nx", "/* x", "a = <<EOF"] {
            assert_eq!(one_member_a_line(cut), cut);
        }
    }
}
