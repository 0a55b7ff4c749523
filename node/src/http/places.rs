//! Places that clients take for a while, of which one address gets a part only.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::by_client::ByClient;

/// So many places.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    of: ByClient,
    max: usize,
    of_one_max: usize,
}

/// One that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: &'static Places,
    client: Option<IpAddr>,
}

impl Places {
    /// `max` in all, `of_one_max` for one address.
    pub(super) const fn new(max: usize, of_one_max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), of: ByClient::new(), max, of_one_max }
    }

    /// Takes one; `None`: there is none, for this client or at all.
    pub(super) fn take(&'static self, client: Option<IpAddr>) -> Option<Place> {
        let has_own = |client: IpAddr| self.of.add_up_to(client, 1, self.of_one_max);
        if !client.is_none_or(has_own) {
            return None;
        }
        // Counted from here on: what is given up is given back.
        let place = Place { places: self, client };
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.places.of.take_back(client, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_get_all_places() {
        static PLACES: Places = Places::new(3, 2);
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        let held = [PLACES.take(one).unwrap(), PLACES.take(one).unwrap()];
        assert!(PLACES.take(one).is_none(), "of one client");
        let third = PLACES.take(other).unwrap();
        assert!(PLACES.take(other).is_none() && PLACES.take(None).is_none(), "in all");
        drop(held);
        drop((PLACES.take(other).unwrap(), PLACES.take(None).unwrap(), third));
        assert_eq!(PLACES.taken.load(Ordering::Relaxed), 0);
        assert!(PLACES.of.of(one.unwrap()) == 0 && PLACES.of.of(other.unwrap()) == 0);
    }
}
