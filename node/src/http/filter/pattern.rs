//! Regular expressions of Go, as far as they differ from those of the `regex` crate.
//!
//! Both are matched in time linear in the text, and nearly all is written alike. But in Go `\w`,
//! `\d`, `\s` and `\b` mean ASCII, and `\Q...\E` quotes.

use regex::{Regex, RegexBuilder};

use super::parse::MAX_NESTING;
use crate::discovery::regexp::MAX_REGEX_BYTES;

/// Compiles an expression, or says what is wrong with it.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translated(text))
        .size_limit(MAX_REGEX_BYTES)
        // Matching keeps no more in memory than the compiled expression may take.
        .dfa_size_limit(MAX_REGEX_BYTES)
        .nest_limit(u32::try_from(MAX_NESTING).unwrap_or(u32::MAX))
        .octal(true)
        .build()
        .map_err(|fault| format!("Failed to compile regular expression {text:?}: {fault}"))
}

fn translated(text: &str) -> String {
    let mut rest = text;
    let mut pattern = String::with_capacity(text.len());
    while let Some((plain, escape)) = rest.split_once('\\') {
        pattern.push_str(plain);
        let Some(escaped) = escape.chars().next() else {
            // A lone backslash at the end, which the compiler complains about.
            pattern.push('\\');
            return pattern;
        };
        rest = escape.get(escaped.len_utf8()..).unwrap_or("");
        match class(escaped) {
            Some(class) => pattern.push_str(class),
            None if escaped == 'Q' => {
                let (quoted, after) = rest.split_once("\\E").unwrap_or((rest, ""));
                pattern.push_str(&regex::escape(quoted));
                rest = after;
            }
            None => pattern.extend(['\\', escaped]),
        }
    }
    pattern.push_str(rest);
    pattern
}

/// What an escape means in ASCII. Classes may stand within classes.
const fn class(escaped: char) -> Option<&'static str> {
    Some(match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        'b' => "(?-u:\\b)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_what_they_match_in_go() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("b", "abc", true),
            ("^b", "abc", false),
            (r"^\w+$", "web_1", true),
            (r"^\w$", "\u{e4}", false),
            (r"^\W$", "\u{e4}", true),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[^\d\s]$", "\u{661}", true),
            (r"\bweb\b", "\u{e4}web", true),
            (r"^\Qa.b\E+$", "a.bb", true),
            (r"^\Qa.b", "axb", false),
            (r"^\\d$", r"\d", true),
            (r"^\101$", "A", true),
            (r"^.\pL$", "\u{1f600}\u{e4}", true),
            ("(?i)WEB", "web", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} of {text}");
        }
    }

    #[test]
    fn a_large_expression_is_refused_and_a_usual_one_is_not() {
        assert!(compile(r"(?i)^[\w.-]+@(\w+\.)+\w{2,63}$").is_ok());
        for pattern in ["[", "\\", r"(\pL{100}){100}", "((a{1000}){1000}){1000}", &"(".repeat(9000)]
        {
            assert!(compile(pattern).is_err(), "{pattern:.20}");
        }
    }
}
