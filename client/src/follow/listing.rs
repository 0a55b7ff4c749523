//! The list that a stream begins with, put together from its pages.

use std::collections::BTreeMap;

use crate::types::live::{Instance, StreamChange, StreamSnapshot};

/// A list that is still coming. Changes of what was listed come between its pages; they are part of it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    rows: BTreeMap<(String, String, String), Instance>,
    /// Changes of what is no instance. They follow the list.
    held: Vec<StreamChange>,
}

/// A change names more instances than it shows, so that the list cannot be completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Incomplete;

/// A whole list.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) seq: u64,
    pub(super) instances: Vec<Instance>,
    pub(super) held: Vec<StreamChange>,
}

impl Listing {
    /// Takes a page; returns the list if that was the last one.
    pub(super) fn page(&mut self, page: StreamSnapshot) -> Option<Listed> {
        page.instances.into_iter().for_each(|row| self.put(row));
        page.complete.then(|| {
            let Self { rows, held } = std::mem::take(self);
            Listed { seq: page.seq, instances: rows.into_values().collect(), held }
        })
    }

    /// Takes a change that came between two pages.
    pub(super) fn change(&mut self, change: StreamChange) -> Result<(), Incomplete> {
        if change.rows_left > 0 {
            return Err(Incomplete);
        }
        let event = &change.event;
        if event.id.is_empty() && change.rows.is_empty() {
            self.held.push(change);
            return Ok(());
        }
        match change.row {
            None if !event.id.is_empty() => {
                let place = (event.service.clone(), event.node.clone(), event.id.clone());
                self.rows.remove(&place);
            }
            row => row.into_iter().for_each(|row| self.put(row)),
        }
        change.rows.into_iter().for_each(|row| self.put(row));
        Ok(())
    }

    fn put(&mut self, row: Instance) {
        self.rows.insert((row.service.clone(), row.node.clone(), row.id.clone()), row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::history::HistoryEvent;

    fn row(id: &str, status: &str) -> Instance {
        let (service, node) = ("web".to_owned(), "n".to_owned());
        Instance {
            service,
            node,
            id: id.to_owned(),
            status: status.to_owned(),
            ..Instance::default()
        }
    }

    fn change(seq: u64, id: &str, row: Option<Instance>) -> StreamChange {
        let (service, node) = ("web".to_owned(), "n".to_owned());
        let event =
            HistoryEvent { seq, service, node, id: id.to_owned(), ..HistoryEvent::default() };
        StreamChange { event, row, ..StreamChange::default() }
    }

    fn page(seq: u64, instances: Vec<Instance>, complete: bool) -> StreamSnapshot {
        StreamSnapshot { seq, index: 1, instances, complete }
    }

    #[test]
    fn changes_between_pages_are_part_of_the_list() {
        let mut listing = Listing::default();
        let first = vec![row("a", "passing"), row("b", "passing"), row("c", "passing")];
        assert_eq!(listing.page(page(1, first, false)), None);
        listing.change(change(2, "a", Some(row("a", "critical")))).unwrap();
        listing.change(change(3, "b", None)).unwrap();
        let of_node = StreamChange { rows: vec![row("c", "warning")], ..StreamChange::default() };
        listing.change(of_node).unwrap();
        let listed = listing.page(page(4, vec![row("d", "passing")], true)).unwrap();
        let seen: Vec<_> =
            listed.instances.iter().map(|row| (row.id.as_str(), row.status.as_str())).collect();
        assert_eq!(
            (listed.seq, seen),
            (4, vec![("a", "critical"), ("c", "warning"), ("d", "passing")])
        );
    }

    #[test]
    fn what_is_no_instance_follows_the_list() {
        let mut listing = Listing::default();
        listing.change(change(2, "", None)).unwrap();
        let listed = listing.page(page(3, Vec::new(), true)).unwrap();
        assert_eq!((listed.instances.len(), listed.held.len()), (0, 1));
    }

    #[test]
    fn a_list_that_cannot_be_completed_is_given_up() {
        let cut = StreamChange { rows_left: 1, ..change(2, "", None) };
        assert_eq!(Listing::default().change(cut), Err(Incomplete));
    }
}
