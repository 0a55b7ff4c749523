//! The records of one subject, found by its thread in the history.

use std::sync::Arc;

use quorate_storage::index::fold;
use quorate_storage::record::{
    Cause, Check, CheckStatus, Detail, HistoryKind, HistoryRecord, SERF_HEALTH, Subject,
};
use quorate_storage::state::{History, NODE_MAINTENANCE, SERVICE_MAINTENANCE, Thread};

/// How many records of a subject are found, the newest.
const TIMELINE_MAX: usize = 100;
/// How many records of a thread are looked through for those of one check.
const LOOKED_THROUGH_MAX: usize = 10_000;
/// How many are where each row of a list needs one.
const STEPS_MAX: usize = 8;

/// The records of a service or check that is gone, found by its id, newest first: those on the agent's node,
/// else on the only one. Of several nodes their names are the error.
pub(super) fn of_gone(
    history: &History,
    agent: &str,
    id: &str,
    is_check: bool,
) -> Result<Vec<Arc<HistoryRecord>>, Vec<String>> {
    let id: Arc<str> = id.into();
    let threads: Vec<&Thread> = history.threads_of(&id, is_check).collect();
    let node = |thread: &Thread| match thread {
        Thread::Instance(_, node) | Thread::Check(_, node) => node.to_string(),
        Thread::Node(_)
        | Thread::Key(_)
        | Thread::Session(_)
        | Thread::Cluster
        | Thread::Claim(_)
        | Thread::Acl(_) => String::new(),
    };
    let own = threads.iter().find(|thread| node(thread) == fold(agent));
    let thread = match (own, threads.as_slice()) {
        (Some(own), _) => own,
        (None, []) => return Ok(Vec::new()),
        (None, [only]) => only,
        (None, several) => return Err(several.iter().map(|thread| node(thread)).collect()),
    };
    Ok(match thread {
        Thread::Check(..) => {
            let newest = history.thread(thread).next();
            let whole = newest.and_then(|record| Thread::of(&record.subject).0);
            let records = whole.iter().flat_map(|whole| history.thread(whole));
            only_of_check(records, &id)
        }
        _ => newest(history, thread),
    })
}

/// The newest records of a thread, newest first.
pub(super) fn newest(history: &History, thread: &Thread) -> Vec<Arc<HistoryRecord>> {
    history.thread(thread).take(TIMELINE_MAX).cloned().collect()
}

/// The newest records of a check, newest first.
pub(super) fn of_check(history: &History, row: &Check) -> Vec<Arc<HistoryRecord>> {
    only_of_check(history.thread(&whole_thread(row)), &row.registration.id)
}

/// The thread of what a check belongs to.
fn whole_thread(row: &Check) -> Thread {
    let (node, id) = (fold(&row.node), &row.registration.service_id);
    match id.is_empty() {
        true => Thread::Node(node.into()),
        false => Thread::Instance(id.clone(), node.into()),
    }
}

/// The records of one check, and those that ended it together with what it belongs to. Maintenance is a check
/// whose records are about what it takes out of service.
fn only_of_check<'a>(
    records: impl Iterator<Item = &'a Arc<HistoryRecord>>,
    check: &str,
) -> Vec<Arc<HistoryRecord>> {
    let is_maintenance = is_maintenance(check);
    let is_its = |record: &&Arc<HistoryRecord>| match (&record.subject, record.kind) {
        (Subject::Check { check: of, .. }, _) => &**of == check,
        (_, HistoryKind::MaintenanceOn | HistoryKind::MaintenanceOff) => is_maintenance,
        (_, kind) => matches!(kind, HistoryKind::ServiceDeregistered | HistoryKind::NodeLeft),
    };
    records.take(LOOKED_THROUGH_MAX).filter(is_its).take(TIMELINE_MAX).cloned().collect()
}

/// Whether an id is that of a check of maintenance.
pub(super) fn is_maintenance(check: &str) -> bool {
    check.starts_with(SERVICE_MAINTENANCE) || check == NODE_MAINTENANCE
}

/// The record of the change that gave a check its status. A node that joined came with a passing `serfHealth`.
pub(super) fn of_status<'a>(
    row: &Check,
    records: impl IntoIterator<Item = &'a Arc<HistoryRecord>>,
) -> Option<&'a HistoryRecord> {
    let what = &row.registration;
    let is_own = |record: &HistoryRecord| matches!(&record.subject, Subject::Check { check, .. } if *check == what.id);
    let is_its = |record: &&Arc<HistoryRecord>| match record.kind {
        HistoryKind::MaintenanceOn => is_maintenance(&what.id),
        HistoryKind::NodeJoined => &*what.id == SERF_HEALTH && what.status == CheckStatus::Passing,
        _ => {
            // A first run may find what the check was registered with.
            let is_run = matches!(record.cause, Cause::Probe { .. } | Cause::Worker { .. });
            let gave = record.from != record.to || is_run;
            is_own(record) && gave && record.to.as_ref() == Some(&what.status)
        }
    };
    records.into_iter().find(is_its).map(|record| &**record)
}

/// The same, found by a few steps from the newest record on: `None` if it is not among those.
pub(crate) fn status_record<'a>(history: &'a History, row: &Check) -> Option<&'a HistoryRecord> {
    let id = &row.registration.id;
    let one = history.thread(&Thread::Check(id.clone(), fold(&row.node).into()));
    let whole = history.thread(&whole_thread(row));
    of_status(row, one.take(STEPS_MAX).chain(whole.take(STEPS_MAX)))
}

/// The restore that came after a record, if one did: what is gone went with it.
pub(super) fn restore_after(history: &History, seq: u64) -> Option<&Arc<HistoryRecord>> {
    let later = history.thread(&Thread::Cluster).take_while(|record| record.seq > seq);
    later.into_iter().find(|record| record.kind == HistoryKind::Restored)
}

/// The records of a key, newest first, with the deletion of all below a prefix that ended it. Empty: it never
/// was there, as far as the history goes, whatever was deleted around it.
pub(super) fn of_key(history: &History, key: &str) -> Vec<Arc<HistoryRecord>> {
    let is_below = |record: &HistoryRecord| matches!(record.detail, Detail::Below(_));
    let own = newest(history, &Thread::Key(key.into()));
    let own: Vec<_> = own.into_iter().filter(|record| !is_below(record)).collect();
    let Some(last) = own.first().filter(|last| last.kind != HistoryKind::KeyDeleted) else {
        return own;
    };
    let prefixes = (0..=key.len()).filter(|end| key.is_char_boundary(*end)).map(|end| &key[..end]);
    let cuts = prefixes.filter_map(|prefix| {
        let mut records = history.thread(&Thread::Key(prefix.into())).take(TIMELINE_MAX);
        records.find(|record| is_below(record))
    });
    let cut = cuts.filter(|cut| cut.seq > last.seq).min_by_key(|cut| cut.seq).cloned();
    cut.into_iter().chain(own).collect()
}
