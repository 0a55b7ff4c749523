//! The keyboard.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::OFlag;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// The terminal of this process.
const TERMINAL: &str = "/dev/tty";
/// Keys that are read at once; a key is a few bytes.
const BYTES: usize = 256;

/// The terminal's keys as they are pressed. No thread waits for them, because one that does keeps its process from
/// ending.
#[derive(Debug)]
pub(super) struct Keys(Receiver);

impl Keys {
    /// # Errors
    /// There is no terminal.
    pub(super) fn open() -> io::Result<Self> {
        // Opened anew: were standard input set not to block, standard output would not either.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let terminal = OpenOptions::new().read(true).custom_flags(flags.bits()).open(TERMINAL)?;
        // A terminal is waited for and read as a pipe is.
        Receiver::from_file_unchecked(terminal).map(Self)
    }

    /// Waits for keys; `None`: there will be none any more.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn pressed(&mut self) -> io::Result<Option<Vec<Key>>> {
        let mut bytes = [0; BYTES];
        let count = self.0.read(&mut bytes).await?;
        let pressed = bytes[..count].keys().map_while(Result::ok).collect();
        Ok((count > 0).then_some(pressed))
    }
}
