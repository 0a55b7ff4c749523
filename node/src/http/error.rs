//! Why a request has no answer, as the client is told.

use crate::http::decode::DecodeError;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use quorate_client::REASON_HEADER;
use quorate_storage::command::{AclRefusal, Rejection};
use quorate_storage::record::ClaimEnd;

use super::reply::TEXT_UTF8;
use crate::raft::error::{MembershipError, ProposeError, ReadError};

/// When an overloaded or stopping server says to come again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An HTTP status with the sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// Sent as plain text, without a newline at the end.
    pub(super) text: String,
    /// The same in a word for programs, where one status stands for several things. Sent as a header.
    pub(super) reason: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), reason: None }
    }

    /// The same with a word for programs.
    pub(super) fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// The client's fault.
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Status 500, which Consul also uses for bad input that its servers (not its agents) refuse.
    pub(super) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// The response; 503 asks to come again.
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(self.text.into());
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, TEXT_UTF8);
        if let Some(reason) = self.reason {
            let name = HeaderName::from_static(REASON_HEADER);
            response.headers_mut().insert(name, HeaderValue::from_static(reason));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let status = match error {
            ProposeError::NoLeader | ProposeError::OutcomeUnknown => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ProposeError::Overloaded | ProposeError::Stopping | ProposeError::NotYet { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ProposeError::TooLarge(excess) if excess.is_of_whole_command() => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            ProposeError::TooLarge(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let status = match error {
            ReadError::NoLeader => StatusCode::INTERNAL_SERVER_ERROR,
            ReadError::NotReady | ReadError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        Self::bad_request(format!("Request decode failed: {error}"))
    }
}

impl From<Rejection> for ApiError {
    /// Which status goes with a refusal by the state.
    fn from(rejection: Rejection) -> Self {
        let status = match rejection {
            Rejection::UnknownCheck(_)
            | Rejection::UnknownService(_)
            | Rejection::ServiceDoesNotExist(_)
            | Rejection::UnknownSession(_)
            | Rejection::InstanceGone
            | Rejection::NotInPool(_)
            | Rejection::UnknownClaim(_)
            | Rejection::UnknownFence { .. } => StatusCode::NOT_FOUND,
            Rejection::NoToken
            | Rejection::Denied(_)
            | Rejection::Acl(AclRefusal::Bootstrapped(_)) => StatusCode::FORBIDDEN,
            Rejection::Ambiguous { .. }
            | Rejection::Txn(_)
            | Rejection::PresenceAttempt { .. }
            | Rejection::PresenceContested(_)
            | Rejection::EarlierProcess(_)
            | Rejection::PoolBusy { .. }
            | Rejection::ClaimIdTaken(_)
            | Rejection::ClaimOver { .. }
            | Rejection::ClaimWaits(_)
            | Rejection::NotResponsible
            | Rejection::NoSuchWorker(_)
            | Rejection::WorkerNameTaken(_) => StatusCode::CONFLICT,
            Rejection::WarnsTooLate { .. } | Rejection::TooManyKeys(_) => StatusCode::BAD_REQUEST,
            Rejection::HeartbeatTooOld
            | Rejection::RestoreInProgress
            | Rejection::ClaimsFull(_) => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::OutcomeUnknown
            | Rejection::NoSuchNumber
            | Rejection::NotTtl(_)
            | Rejection::MissingServiceRegistration(_)
            | Rejection::NodeNameReserved { .. }
            | Rejection::InvalidSession(_)
            | Rejection::MissingNode
            | Rejection::MissingCheck(_)
            | Rejection::CriticalCheck(_)
            | Rejection::UnknownQuery(_)
            | Rejection::QueryNameTaken(_)
            | Rejection::QueryNameIsId(_)
            | Rejection::EmptyTemplateTaken
            | Rejection::Acl(_)
            | Rejection::RestoreLost
            | Rejection::InvalidBackup(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { reason: reason_of(&rejection), ..Self::new(status, rejection.to_string()) }
    }
}

/// The word for programs, where they have to tell refusals of one status apart.
fn reason_of(rejection: &Rejection) -> Option<&'static str> {
    Some(match rejection {
        Rejection::NotInPool(_) => "not-in-pool",
        Rejection::PoolBusy { .. } => "pool-busy",
        Rejection::ClaimsFull(_) => "line-full",
        Rejection::ClaimIdTaken(_) => "claim-id-taken",
        Rejection::ClaimWaits(_) => "claim-waits",
        Rejection::UnknownClaim(_) => "claim-unknown",
        Rejection::UnknownFence { .. } => "fence-unknown",
        Rejection::ClaimOver { why, .. } => match why {
            ClaimEnd::Released => "claim-released",
            ClaimEnd::Expired => "claim-expired",
            ClaimEnd::SessionEnded => "claim-session-ended",
            ClaimEnd::InstanceLost => "claim-instance-lost",
            ClaimEnd::Withdrawn => "claim-withdrawn",
            ClaimEnd::Forced => "claim-forced",
            ClaimEnd::Restored => "claim-restored",
            ClaimEnd::PoolGone => "not-in-pool",
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_check_is_a_404_in_the_words_of_consul() {
        let error = ApiError::from(Rejection::UnknownCheck("c\"1".to_owned()));
        assert_eq!(error.status, StatusCode::NOT_FOUND);
        assert_eq!(
            error.text,
            "Unknown check ID \"c\\\"1\". Ensure that the check ID is passed, not the check name."
        );
    }

    #[test]
    fn refusals_of_one_status_have_words_for_programs() {
        let why = ClaimEnd::InstanceLost;
        let over = Rejection::ClaimOver { id: "a".to_owned(), why };
        let taken = Rejection::ClaimIdTaken("a".to_owned());
        for (rejection, reason) in [(over, "claim-instance-lost"), (taken, "claim-id-taken")] {
            let response = ApiError::from(rejection).into_response();
            assert_eq!(response.status(), StatusCode::CONFLICT);
            assert_eq!(response.headers()[REASON_HEADER], reason);
        }
        let other = ApiError::from(Rejection::InstanceGone).into_response();
        assert!(!other.headers().contains_key(REASON_HEADER));
    }

    #[test]
    fn an_overloaded_server_says_when_to_come_again() {
        let response = ApiError::from(ProposeError::Overloaded).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let response = ApiError::from(ProposeError::NoLeader).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
