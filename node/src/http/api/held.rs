//! Checks by which connections hold instances: they end with their instances only.

use quorate_storage::State;

use crate::http::error::ApiError;

/// Refuses to take away the check by which a connection holds an instance: that would pass for ever.
///
/// # Errors
/// It is one.
pub(in crate::http::api) fn refuse_held(
    state: &State,
    node: &str,
    check: &str,
) -> Result<(), ApiError> {
    let row = state.check(node, check);
    match row.is_some_and(|row| state.presence(row.number).is_some()) {
        true => Err(ApiError::bad_request(format!(
            "{check:?} is the check of a presence: deregister its instance instead"
        ))),
        false => Ok(()),
    }
}
