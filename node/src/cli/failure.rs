//! How a command ended: a sentence on standard error, and an exit code that scripts can rely on.

use std::process::ExitCode;

use quorate_client::Error;

/// It failed, or what was asked for does not exist.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// No server can be reached, or there is no leader, so nothing can be done now.
const UNAVAILABLE: u8 = 3;
/// The cluster does not allow it.
const DENIED: u8 = 4;
/// Somebody else has written in between, or holds it.
const CONFLICT: u8 = 5;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// It failed.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self { code: FAILED, text: text.into() }
    }

    /// What was asked for does not exist.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::failed(text)
    }

    /// The arguments contradict each other.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { code: USAGE, text: text.into() }
    }

    /// Nothing can be done now.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self { code: UNAVAILABLE, text: text.into() }
    }

    /// Somebody else was first.
    pub(super) fn conflict(text: impl Into<String>) -> Self {
        Self { code: CONFLICT, text: text.into() }
    }

    /// A file cannot be read or written.
    pub(super) fn of_file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::failed(format!("{}: {error}", path.display()))
    }

    /// Says it on standard error.
    pub(super) fn tell(self) -> ExitCode {
        eprintln!("quorate: {}", self.text);
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Unreachable { .. } | Error::Transport { .. } | Error::OutcomeUnknown { .. } => {
                UNAVAILABLE
            }
            Error::Status { status: 401 | 403, .. } => DENIED,
            Error::Status { status: 409, .. } => CONFLICT,
            Error::Status { status: 429 | 503, .. } => UNAVAILABLE,
            Error::Status { status: 500, text, .. } if text.starts_with("No cluster leader") => {
                UNAVAILABLE
            }
            Error::Configuration(_) => USAGE,
            _ => FAILED,
        };
        Self { code, text: error.with_causes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, text: &str) -> u8 {
        let (request, text) = ("GET http://a/v1/x".to_owned(), text.to_owned());
        Failure::from(Error::Status { request, status, text }).code
    }

    #[test]
    fn exit_codes_tell_what_a_script_has_to_know() {
        assert_eq!(code(404, "unknown"), FAILED);
        assert_eq!(code(400, "bad"), FAILED);
        assert_eq!(code(500, "No cluster leader"), UNAVAILABLE);
        assert_eq!(code(500, "something else"), FAILED);
        assert_eq!(code(503, "too much"), UNAVAILABLE);
        assert_eq!(code(403, "Permission denied"), DENIED);
        assert_eq!(code(409, "several"), CONFLICT);
        assert_eq!(Failure::from(Error::Configuration("no".to_owned())).code, USAGE);
    }
}
