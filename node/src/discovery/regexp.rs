//! Regular expressions that clients store: in filters of events, and in templates of queries. Also what all
//! regular expressions of clients are limited to.

use regex::{Regex, RegexBuilder};

/// The longest expression. Compiling one takes time in proportion to what it stands for, and this bounds it
/// before anything is compiled.
pub(crate) const MAX_PATTERN_BYTES: usize = 1_024;
/// The largest compiled expression, in bytes: a short pattern can stand for a large automaton.
pub(crate) const MAX_REGEX_BYTES: usize = 64 * 1024;

/// Compiles an expression, or says what is wrong with it; an empty one is none.
pub(crate) fn compile(pattern: &str) -> Result<Option<Regex>, String> {
    match pattern {
        "" => Ok(None),
        pattern if pattern.len() > MAX_PATTERN_BYTES => {
            Err(format!("regular expression longer than {MAX_PATTERN_BYTES} bytes"))
        }
        pattern => RegexBuilder::new(pattern)
            .size_limit(MAX_REGEX_BYTES)
            .build()
            .map(Some)
            .map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_is_none_or_too_large_is_refused() {
        compile("(").unwrap_err();
        compile("((a{100}){100}){100}").unwrap_err();
        assert!(compile("").unwrap().is_none());
    }
}
