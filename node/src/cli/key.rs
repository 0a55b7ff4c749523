//! Keys on the command line.

use std::sync::LazyLock;

use clap::builder::{StringValueParser, TypedValueParser};
use regex::Regex;

/// What servers take in a path, as Consul does: Go's `unicode.IsPrint`.
static PRINTABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$").expect("the expression is a valid one")
});

/// What a key is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// It is only read.
    No,
    /// It is written or deleted.
    Yes,
}

/// Takes keys that requests can name.
pub(super) fn key(writing: Writing) -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(move |key| check(&key, writing).map(|()| key))
}

/// Whether a request can name this key, and why not. A key is a part of a path: a server answers 301 to one with parts
/// that are empty, `.` or `..`, as Consul does, and 400 without a word to characters that cannot be printed.
///
/// # Errors
/// It cannot; the text says why.
pub(super) fn check(key: &str, writing: Writing) -> Result<(), String> {
    if key.is_empty() {
        return match writing {
            Writing::Yes => Err("a key cannot be empty".to_owned()),
            Writing::No => Ok(()),
        };
    }
    let parts: Vec<_> = key.split('/').collect();
    let (last, before) = parts.split_last().unwrap_or((&"", &[]));
    if before.first() == Some(&"") {
        return Err(format!(
            "a key cannot begin with a slash: try {:?}",
            key.trim_start_matches('/')
        ));
    }
    let is_path = |part: &&str| matches!(*part, "." | "..");
    if before.contains(&"") || before.iter().chain([last]).any(is_path) {
        return Err(format!("{key:?}: a key has no //, and no part that is . or .."));
    }
    if !PRINTABLE.is_match(key) {
        return Err(format!("{key:?}: a key has no characters that cannot be printed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_request_can_name_are_refused_with_a_reason() {
        for wrong in ["/lead", "a//b", "a/./b", "../b", "a/..", ".", "x\ty", "x\n"] {
            let told = check(wrong, Writing::No).unwrap_err();
            assert!(!told.contains('\t') && !told.contains('\n'), "{told}");
        }
        for right in ["a", "a/b/", "a.b/..c", "ключ/ü", " "] {
            check(right, Writing::Yes).unwrap();
        }
        assert!(check("/lead", Writing::Yes).unwrap_err().contains("try \"lead\""));
        check("", Writing::No).unwrap();
        check("", Writing::Yes).unwrap_err();
    }
}
