//! Errors with their causes, which libraries tell only in the chain of sources.

use std::error::Error;

/// The sentence of an error with those of its causes.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it failed")]
    struct Failed(#[source] std::io::Error);

    #[test]
    fn what_is_behind_an_error_is_told_with_it() {
        let failed = Failed(std::io::Error::other("the disk is full"));
        assert_eq!(with_causes(&failed), "it failed: the disk is full");
    }
}
