//! How a command ended: a sentence on standard error, and an exit code that scripts can rely on.

use std::io;
use std::process::ExitCode;

use nix::sys::signal::Signal;
use quorate_client::Error;

use super::output;

/// It failed, or what was asked for does not exist.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// No server can be reached, or there is no leader, so nothing can be done now.
const UNAVAILABLE: u8 = 3;
/// The cluster does not allow it.
const DENIED: u8 = 4;
/// Somebody else has written in between, or holds it.
pub(super) const CONFLICT: u8 = 5;
/// It was sent and not answered: it may have been done.
const UNKNOWN: u8 = 6;
/// What a shell adds to the number of the signal that ended a command.
pub(super) const SIGNALLED: i32 = 128;
/// A shell's codes for a program that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NO_PROGRAM: u8 = 127;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// How a command ends whose answer is that it is not allowed.
    pub(super) fn denied_code() -> ExitCode {
        ExitCode::from(DENIED)
    }

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
    pub(super) fn of_file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::failed(format!("{}: {error}", path.display()))
    }

    /// A program cannot be run.
    pub(super) fn cannot_run(program: &str, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { NO_PROGRAM } else { CANNOT_RUN };
        Self { code, text: format!("cannot run {program}: {error}") }
    }

    /// A signal came, and ended what would have gone on. Nothing is said, and the code is that of a shell.
    pub(super) fn signalled(signal: Signal) -> Self {
        let code = u8::try_from(SIGNALLED + signal as i32).unwrap_or(FAILED);
        Self { code, text: String::new() }
    }

    /// The reader of standard output has enough: nothing is said, and all is well.
    pub(super) const fn nobody_reads() -> Self {
        Self { code: 0, text: String::new() }
    }

    /// With this said before.
    pub(super) fn after(self, text: &str) -> Self {
        Self { text: format!("{text}: {}", self.text), ..self }
    }

    /// With another code for scripts.
    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Says it on standard error.
    pub(super) fn tell(self) -> ExitCode {
        if !self.text.is_empty() {
            output::note(&self.text);
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Unreachable { .. } | Error::Transport { .. } => UNAVAILABLE,
            Error::OutcomeUnknown { .. } => UNKNOWN,
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
        let source = "no answer".into();
        let unknown = Error::OutcomeUnknown { request: "PUT http://a/v1/x".to_owned(), source };
        assert_eq!(Failure::from(unknown).code, UNKNOWN);
    }

    #[test]
    fn what_ends_without_a_word_has_the_codes_of_a_shell() {
        let code = |failure: Failure| (failure.code, failure.text.is_empty());
        assert_eq!(code(Failure::signalled(Signal::SIGTERM)), (143, true));
        assert_eq!(code(Failure::nobody_reads()), (0, true));
        let gone = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(code(Failure::cannot_run("x", &gone)), (127, false));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(code(Failure::cannot_run("x", &denied)), (126, false));
    }
}
