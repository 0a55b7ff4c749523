//! The settings of a cluster.

use std::path::PathBuf;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes; 1, 3 or 5.
    pub nodes: u64,
    /// More flags for every server.
    pub flags: Vec<String>,
    /// Environment variables for every server; `{id}` in a value is the server's number, `{ip}` its address.
    pub environment: Vec<(String, String)>,
    /// Where logs and data are kept, instead of a temporary directory. It must exist.
    pub dir: Option<PathBuf>,
    /// The servers' binary, instead of the one that [`crate::binary`] finds.
    pub binary: Option<PathBuf>,
    /// Whether it may run in parallel with other clusters that may.
    pub shares_turn: bool,
    /// Whether every directed link between two servers goes through a proxy of the harness
    /// ([`crate::network`]).
    pub proxied: bool,
    /// Give every server a disk of its own: a loop-mounted ext4 of this many MiB.
    pub disk_mib: Option<u64>,
    /// Lines of shell that a server's process runs before it becomes the server; `{id}` is its number.
    pub before_start: Vec<String>,
    /// Lines of shell that run when all servers have ended, whatever became of the harness; each must do no
    /// harm when it has nothing to do.
    pub at_end: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            flags: Vec::new(),
            environment: Vec::new(),
            dir: None,
            binary: None,
            shares_turn: false,
            proxied: false,
            disk_mib: None,
            before_start: Vec::new(),
            at_end: Vec::new(),
        }
    }
}

impl Options {
    /// Those of a test whose timing tolerates another cluster on the machine.
    #[must_use]
    pub fn shared() -> Self {
        Self { shares_turn: true, ..Self::default() }
    }
}
