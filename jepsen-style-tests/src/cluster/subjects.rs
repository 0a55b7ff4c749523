//! The servers to sample, for tasks that run beside the cluster's owner.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::member::Member;
use crate::http::Http;

/// One server.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its number.
    pub id: u64,
    /// An impatient client of it.
    pub probe: Http,
    /// Its process, kept up to date; 0 while there is none.
    pub pid: Arc<AtomicU32>,
}

/// The servers of a cluster, kept up to date while some join and go.
#[derive(Debug, Clone, Default)]
pub struct Subjects(Arc<Mutex<Vec<Subject>>>);

impl Subjects {
    /// All that there are now.
    pub fn all(&self) -> Vec<Subject> {
        self.list().clone()
    }

    pub(super) fn add(&self, member: &Member) {
        let (probe, pid) = (member.probe.clone(), Arc::clone(&member.pid));
        self.list().push(Subject { id: member.id, probe, pid });
    }

    pub(super) fn remove(&self, id: u64) {
        self.list().retain(|subject| subject.id != id);
    }

    /// A panic while the lock was held left the list whole.
    fn list(&self) -> MutexGuard<'_, Vec<Subject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
