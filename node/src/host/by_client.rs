//! What each client has of something, by its IP address: so that one of them cannot have all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Amounts by address; who has nothing is not in it.
#[derive(Debug, Default)]
pub struct ByClient(Mutex<BTreeMap<IpAddr, usize>>);

impl ByClient {
    /// Nobody has anything.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// What a client has.
    #[must_use]
    pub fn of(&self, client: IpAddr) -> usize {
        self.amounts().get(&client).copied().unwrap_or(0)
    }

    /// Gives a client more.
    pub fn add(&self, client: IpAddr, amount: usize) {
        if amount > 0 {
            *self.amounts().entry(client).or_default() += amount;
        }
    }

    /// Gives a client more, unless it would have more than `max` then.
    pub fn add_up_to(&self, client: IpAddr, amount: usize, max: usize) -> bool {
        let mut amounts = self.amounts();
        let has = amounts.get(&client).copied().unwrap_or(0);
        let Some(sum) = has.checked_add(amount).filter(|sum| *sum <= max) else { return false };
        if sum > 0 {
            amounts.insert(client, sum);
        }
        true
    }

    /// Takes back what was given.
    pub fn take_back(&self, client: IpAddr, amount: usize) {
        let mut amounts = self.amounts();
        let Some(has) = amounts.get_mut(&client) else { return };
        *has = has.saturating_sub(amount);
        if *has == 0 {
            amounts.remove(&client);
        }
    }

    /// Whether nobody has anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.amounts().is_empty()
    }

    /// A std lock: held for a look-up only.
    fn amounts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_no_more_than_it_may_and_others_have_theirs() {
        let all = ByClient::new();
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        assert!(all.add_up_to(one, 6, 10) && all.add_up_to(one, 4, 10));
        assert!(!all.add_up_to(one, 1, 10) && !all.add_up_to(one, usize::MAX, 10));
        assert!(all.add_up_to(other, 10, 10));
        all.take_back(one, 3);
        assert_eq!((all.of(one), all.of(other)), (7, 10));
        all.add(one, 5);
        assert_eq!(all.of(one), 12);
        all.take_back(one, 12);
        all.take_back(other, 10);
        assert!(all.add_up_to(one, 0, 10) && all.is_empty());
    }
}
