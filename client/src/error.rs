//! What can go wrong with a request.

use thiserror::Error;

/// A failure below HTTP: a broken connection, or no answer in time.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer, or not the one that was asked for.
///
/// What matters to the caller of a write is whether it may have taken effect:
///
/// | variant | a write ... |
/// | --- | --- |
/// | [`Status`](Self::Status) below 500, [`Unreachable`](Self::Unreachable), [`Refused`](Self::Refused) | did not take effect |
/// | [`Status`](Self::Status) from 500 on | was refused by the cluster, in words of Consul's API |
/// | [`OutcomeUnknown`](Self::OutcomeUnknown) | may have taken effect: read, then decide |
///
/// The client itself sends a request again only where that cannot do harm; see [`Client`](crate::Client).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A server answered, and did not do it.
    #[error("{request}: {status} {text}")]
    Status {
        /// Method and address.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The body: a sentence for people.
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
    /// A read was sent and not answered: the connection broke, or the time was up.
    #[error("no answer from {address}")]
    Transport {
        /// Who was asked.
        address: String,
        /// The failure.
        #[source]
        source: Cause,
    },
    /// A write was sent, and whether it took effect is not known.
    #[error("{request}: the outcome is unknown")]
    OutcomeUnknown {
        /// Method and address.
        request: String,
        /// The failure, or what the server said.
        #[source]
        source: Cause,
    },
    /// The answer was not what the API promises.
    #[error("answer not understood: {0}")]
    Decode(String),
    /// The client was built without addresses, or with one that is none.
    #[error("the client cannot be built: {0}")]
    Configuration(String),
    /// The cluster refused what a heartbeat or a claim said.
    #[error("refused: {0}")]
    Refused(String),
    /// What was held was lost: a lock's session ended, a claim expired, another process took the instance over.
    #[error("lost: {0}")]
    Lost(String),
    /// The client was shut down meanwhile.
    #[error("the client was shut down")]
    ShutDown,
}

impl Error {
    /// Whether it is certain that the request was not carried out.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status < 500,
            Self::Unreachable { .. } | Self::Configuration(_) | Self::Refused(_) => true,
            Self::Transport { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Decode(_)
            | Self::Lost(_)
            | Self::ShutDown => false,
        }
    }

    /// The HTTP status, if a server answered.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Unreachable { .. }
            | Self::Transport { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Decode(_)
            | Self::Configuration(_)
            | Self::Refused(_)
            | Self::Lost(_)
            | Self::ShutDown => None,
        }
    }

    /// Whether the thing that was asked for does not exist (404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The sentence with those of its causes, which an HTTP library tells only in the chain of sources.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_told_with_its_cause() {
        let source = "outcome unknown: no leader in time".into();
        let error = Error::OutcomeUnknown { request: "PUT http://a/v1/kv/x".to_owned(), source };
        assert_eq!(
            error.with_causes(),
            "PUT http://a/v1/kv/x: the outcome is unknown: outcome unknown: no leader in time"
        );
        assert!(!error.is_definite());
    }
}
