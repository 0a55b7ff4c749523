//! What can go wrong with a request.

use thiserror::Error;

/// Why a request has no answer.
///
/// The distinction that matters to whoever judges a history: [`Error::Status`] and
/// [`Error::Unreachable`] mean that a write did not happen (a status of 500 and above leaves it
/// open, see [`Error::is_definite`]); [`Error::Broken`] means that it may have happened.
#[derive(Debug, Error)]
pub enum Error {
    /// The server refused it.
    #[error("{request}: {status} {text}")]
    Status {
        /// Method and address.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        text: String,
    },
    /// No server could be connected to: the request was never sent.
    #[error("no server can be reached (tried {addresses})")]
    Unreachable {
        /// The addresses tried, separated by a comma.
        addresses: String,
        /// The last failure.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke, or the time was up, after the request may have been sent.
    #[error("no answer from {address}, the outcome is unknown")]
    Broken {
        /// Who was asked.
        address: String,
        /// The failure.
        #[source]
        source: reqwest::Error,
    },
    /// The answer was not what the API promises.
    #[error("answer not understood: {0}")]
    Decode(String),
    /// The client was built without addresses, or its HTTP client could not be made.
    #[error("the client cannot be built: {0}")]
    Configuration(String),
}

impl Error {
    /// Whether it is certain that the request changed nothing.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status < 500,
            Self::Unreachable { .. } | Self::Configuration(_) => true,
            Self::Broken { .. } | Self::Decode(_) => false,
        }
    }

    /// The HTTP status, if the server answered.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Decode(_)
            | Self::Configuration(_) => None,
        }
    }
}
