//! Waiting for what comes some day, at a cluster that may not answer.

use std::time::Duration;

use super::failure::Failure;
use super::output;

/// A cluster that has not answered for so long has more than a change of leader.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the next thing from `source`, for as long as it takes. When nothing has come for a while and there is
/// `trouble`, that is said, once.
///
/// # Errors
/// There is trouble, and whoever waits wants only one thing (`is_once`).
pub(super) async fn patiently<S, T>(
    source: &mut S,
    is_once: bool,
    next: impl AsyncFn(&mut S) -> T,
    trouble: impl Fn(&S) -> Option<String>,
) -> Result<T, Failure> {
    let mut is_said = false;
    loop {
        if let Ok(come) = tokio::time::timeout(PATIENCE, next(source)).await {
            return Ok(come);
        }
        let Some(trouble) = trouble(source) else { continue };
        let text = format!("the cluster does not answer: {trouble}");
        if is_once {
            return Err(Failure::unavailable(text));
        }
        if !is_said {
            output::note(&text);
            is_said = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn trouble(_: &()) -> Option<String> {
        Some("no route".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_wants_one_thing_is_not_kept_waiting_by_a_silent_cluster() {
        let come = patiently(&mut (), true, async |()| ready(7).await, trouble).await;
        assert_eq!(come.unwrap(), 7);
        let come = patiently(&mut (), true, async |()| pending::<()>().await, trouble).await;
        assert!(format!("{:?}", come.unwrap_err()).contains("no route"));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_follows_waits_on_and_so_does_who_has_nothing_to_complain_of() {
        let (mut one, mut other) = ((), ());
        let follows = patiently(&mut one, false, async |()| pending::<()>().await, trouble);
        tokio::time::timeout(PATIENCE * 5, follows).await.unwrap_err();
        let waits = patiently(&mut other, true, async |()| pending::<()>().await, |()| None);
        tokio::time::timeout(PATIENCE * 5, waits).await.unwrap_err();
    }
}
