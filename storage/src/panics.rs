//! Panics that are dealt with where they happen: sled's, on files that are damaged, and those of an entry
//! that cannot be applied.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IN_CONTAINED_CALL: Cell<bool> = const { Cell::new(false) };
}

/// Whether what this thread does at present runs in `contain`: for a panic hook, which sees every panic.
#[must_use]
pub fn is_contained() -> bool {
    IN_CONTAINED_CALL.get()
}

/// What a panic says.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Does `work`; a panic in it becomes an error with its message. What `work` changed is in doubt then.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = IN_CONTAINED_CALL.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IN_CONTAINED_CALL.set(before);
    done.map_err(|payload| message(&*payload))
}
