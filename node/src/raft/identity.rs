//! What a node remembers of itself across restarts.

use std::fmt::Debug;
use std::io;

/// Who a node is: kept in its data directory, or on a simulated disk.
pub trait Identity: Debug + Send + Sync + 'static {
    /// Random id of the data directory, made with it.
    fn store_id(&self) -> String;
    /// How often the data directory was opened. It does not identify a boot: a copy of the directory counts on
    /// its own.
    fn boots(&self) -> u64;
    /// The cluster it belongs to, once it does.
    fn cluster_id(&self) -> Option<String>;
    /// Joins a cluster; durable when it returns.
    ///
    /// # Errors
    /// When the disk fails, or when the node belongs to another cluster.
    fn adopt_cluster(&self, id: &str) -> io::Result<()>;
    /// Never starts again from what is stored here; durable when it returns.
    ///
    /// # Errors
    /// When the disk fails.
    fn condemn(&self, why: &str) -> io::Result<()>;
}
