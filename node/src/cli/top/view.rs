//! What of the scene is looked at.

use ratatui::termion::event::Key;

/// The tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shown {
    /// Services, with how many of their instances are how well.
    #[default]
    Services,
    /// Every instance.
    Instances,
    /// Nodes, with how many of their instances are how well.
    Nodes,
}

impl Shown {
    /// The tables in the order of their keys.
    pub(super) const ALL: [Self; 3] = [Self::Services, Self::Instances, Self::Nodes];

    /// Its heading.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Instances => "instances",
            Self::Nodes => "nodes",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Services => Self::Instances,
            Self::Instances => Self::Nodes,
            Self::Nodes => Self::Services,
        }
    }
}

/// Which table is shown, from which row.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) shown: Shown,
    first: usize,
    /// Rows that had room when it was last drawn.
    page: usize,
    is_over: bool,
}

impl View {
    /// Whether its user has seen enough.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes a key.
    pub(super) fn take(&mut self, key: Key) {
        match key {
            Key::Char('q') | Key::Ctrl('c') => self.is_over = true,
            Key::Char('\t') => self.show(self.shown.next()),
            Key::Char('1') => self.show(Shown::Services),
            Key::Char('2') => self.show(Shown::Instances),
            Key::Char('3') => self.show(Shown::Nodes),
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::Down => self.first = self.first.saturating_add(1),
            Key::PageUp => self.first = self.first.saturating_sub(self.page),
            Key::PageDown => self.first = self.first.saturating_add(self.page),
            Key::Home => self.first = 0,
            Key::End => self.first = usize::MAX,
            _ => {}
        }
    }

    const fn show(&mut self, shown: Shown) {
        self.shown = shown;
        self.first = 0;
    }

    /// The first row to be drawn of so many, where so many have room. The last page is full.
    pub(super) fn first_of(&mut self, rows: usize, page: usize) -> usize {
        self.page = page;
        self.first = self.first.min(rows.saturating_sub(page));
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, keys: &[Key]) {
        keys.iter().for_each(|key| view.take(*key));
    }

    #[test]
    fn keys_choose_the_table_and_scroll_within_it() {
        let mut view = View::default();
        press(&mut view, &[Key::Char('\t'), Key::Down, Key::Down]);
        assert_eq!((view.shown, view.first_of(10, 4)), (Shown::Instances, 2));
        press(&mut view, &[Key::PageDown]);
        assert_eq!(view.first_of(10, 4), 6);
        press(&mut view, &[Key::End, Key::Down]);
        assert_eq!(view.first_of(10, 4), 6);
        press(&mut view, &[Key::PageUp, Key::Up]);
        assert_eq!(view.first_of(10, 4), 1);
        // A table that has become shorter is not scrolled past its end.
        press(&mut view, &[Key::End]);
        assert_eq!(view.first_of(3, 4), 0);
        press(&mut view, &[Key::Char('3')]);
        assert_eq!((view.shown, view.is_over()), (Shown::Nodes, false));
    }

    #[test]
    fn q_and_control_c_end_it() {
        for (key, ends) in [(Key::Char('c'), false), (Key::Ctrl('c'), true), (Key::Char('q'), true)]
        {
            let mut view = View::default();
            view.take(key);
            assert_eq!(view.is_over(), ends, "{key:?}");
        }
    }
}
