//! Progress of a run on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::Watcher;

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(200);

/// One line that follows a run. Without a terminal there is no line to redraw, and nothing is printed.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins a line that starts with `title`.
    pub(super) fn new(title: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_prefix(title.to_owned());
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix} [{elapsed_precise}] {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// The line of a run; none if there are several at once, which would overwrite each other's.
    pub(super) fn of_one(is_one_of_several: bool, title: &str) -> Self {
        if is_one_of_several { Self(ProgressBar::hidden()) } else { Self::new(title) }
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Watcher for Progress {
    fn say(&self, sentence: &str) {
        self.0.set_message(sentence.to_owned());
    }
}
