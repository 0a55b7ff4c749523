//! The identity of a data directory: whose it is, and how often it was opened.
//!
//! ```text
//! DIR/lock        held while a process uses the directory
//! DIR/identity    store id, node id, cluster id, boots
//! DIR/mark        how far the log had reached when it was last looked at (see mark.rs)
//! DIR/log/        sled
//! DIR/snapshots/  snapshot files
//! DIR/ballast     space that an operator can free when the disk is full
//! DIR/condemned   why the cluster has refused what is in here for good
//! ```
//!
//! After [`recovery`](crate::recovery), the identity names a part of the directory, `DIR/recovered-N`, and
//! mark, log, snapshots and a verdict are there: what they were before stays where it was, untouched.
//!
//! Raft relies on a server remembering what it promised. A directory that was emptied, or copied
//! from another server, has no record of those promises; so the directory has a random
//! *store id* that the membership records too, and everything here refuses to start rather than to
//! guess.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice;
use crate::durable::{self, Kind};
use crate::ids::NodeId;
use crate::mark::MarkFile;
use crate::regular;

/// Size of the ballast file: enough room for sled to start, write its recovery snapshot and purge.
pub const BALLAST_BYTES: usize = 8 << 20;

/// The mode of the data directory.
const PRIVATE: u32 = 0o700;

/// What may be there before the first start: the file system's own directory, what a first start has begun with, and what
/// a client agent keeps, which may become a server.
const EXPECTED: [&str; 7] =
    ["lost+found", "lock", "mark", "mark.tmp", "identity.tmp", "node-id", "definitions.json"];
/// How the name of a file ends that an agent writes its process id to, before it opens the directory.
const PROCESS_ID: &str = ".pid";

const IDENTITY: Kind = Kind { magic: b"QRTIDENT", format: 1 };
/// The identity of a directory that was recovered: the same, and which part of the directory is in use. A
/// format of its own, so that a program that does not know of parts does not open the log of the old cluster.
const RECOVERED_IDENTITY: Kind = Kind { magic: b"QRTIDENT", format: 2 };

/// Why a data directory cannot be used. The text is for the operator.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{0}: another process is using this data directory")]
    InUse(PathBuf),
    /// It was made for another server.
    #[error(
        "{dir}: this data directory belongs to node id {found}, but this server was started with node id {wanted}; start it with --node-id {found}, or give it a directory of its own"
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// The node id in it.
        found: NodeId,
        /// The node id that was asked for.
        wanted: NodeId,
    },
    /// It belongs to another cluster.
    #[error(
        "{dir}: this data directory belongs to cluster {found}, but the server was asked to join cluster {wanted}; to move it, start it with an empty data directory under a new node id"
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// The cluster in it.
        found: String,
        /// The cluster that was asked for.
        wanted: String,
    },
    /// The identity file is damaged.
    #[error(
        "{file}: the identity of this data directory is damaged: {what}; restore the file, or remove this server from the cluster and add it again with an empty directory under a new node id"
    )]
    Damaged {
        /// The identity file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is a log, but no identity.
    #[error(
        "{dir}: there is a log but no identity file in this data directory; restore the file, or remove this server from the cluster and add it again with an empty directory under a new node id"
    )]
    NoIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// It is somebody else's: there is something in it, and no identity.
    #[error(
        "{dir}: this is not a server's data directory, and it is not empty ({found}); give the server a directory of its own"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The cluster has found out that it lacks what this server had acknowledged.
    #[error(
        "{file}: this data directory must not be used again, the cluster has found when this server ran last: {why}"
    )]
    Condemned {
        /// The file that says so.
        file: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// There is no server's data in it.
    #[error("{dir}: this is not a server's data directory: it has no identity file")]
    NoServer {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {source}{}", advice::on_data(.source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the identity file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    store_id: String,
    node_id: NodeId,
    cluster_id: Option<String>,
    boots: u64,
    /// How often the directory was recovered, which names the part of it that is in use.
    #[serde(skip)]
    recoveries: u32,
}

/// A data directory that this process owns until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    path: PathBuf,
    identity: Mutex<Identity>,
    /// Held, not used: the lock ends with the file.
    _lock: File,
}

impl DataDir {
    /// Takes possession of a directory, creating it if it is missing, and begins a new boots,
    /// which is durable when this returns. `fresh_store_id` becomes the store's id if it has none:
    /// random bytes in text, because nothing in this crate is random.
    pub fn open(
        path: impl Into<PathBuf>,
        node_id: NodeId,
        fresh_store_id: String,
    ) -> Result<Self, DataDirError> {
        let path = path.into();
        refuse_a_strangers(&path)?;
        at(&path, fs::create_dir_all(&path))?;
        keep_private(&path);
        at(&path, durable::sync_parent(&path))?;
        let lock = lock(&path)?;
        let mut identity = match read_identity(&path)? {
            Some(identity) => identity,
            None => fresh_identity(&path, node_id, fresh_store_id)?,
        };
        if identity.node_id != node_id {
            let found = identity.node_id;
            return Err(DataDirError::OtherNode { dir: path, found, wanted: node_id });
        }
        let condemned = PartOfDir::number(&path, identity.recoveries).condemned_file();
        if let Some(why) = verdict(&condemned)? {
            return Err(DataDirError::Condemned { file: condemned, why });
        }
        identity.boots += 1;
        write_identity(&path, &identity)?;
        Ok(Self(Arc::new(Owned { path, identity: Mutex::new(identity), _lock: lock })))
    }

    /// Takes possession of the directory of a server that is stopped, to look at it: nothing is created, and
    /// no boots begins.
    ///
    /// # Errors
    /// Also when there is no server's data in it.
    pub fn open_stopped(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        if !path.join("identity").exists() {
            return Err(DataDirError::NoServer { dir: path });
        }
        let lock = lock(&path)?;
        let Some(identity) = read_identity(&path)? else {
            return Err(DataDirError::NoServer { dir: path });
        };
        Ok(Self(Arc::new(Owned { path, identity: Mutex::new(identity), _lock: lock })))
    }

    /// Random id of this store. The membership names it, so that a server that lost its disk cannot
    /// vote a second time under its old id.
    pub fn store_id(&self) -> String {
        self.identity().store_id.clone()
    }

    /// The Raft id of the server whose directory this is.
    pub fn node_id(&self) -> NodeId {
        self.identity().node_id
    }

    /// How often this directory was opened: 1, 2, 3, ... A copy of the directory counts on its own, so
    /// this does not identify a boot; the incarnation that the log gives does.
    pub fn boots(&self) -> u64 {
        self.identity().boots
    }

    /// The cluster that the server belongs to, once it belongs to one.
    pub fn cluster_id(&self) -> Option<String> {
        self.identity().cluster_id.clone()
    }

    /// Binds the directory to a cluster for good; durable when this returns. Refused if it belongs to
    /// another.
    pub fn adopt_cluster(&self, cluster_id: &str) -> Result<(), DataDirError> {
        let mut identity = self.identity();
        match &identity.cluster_id {
            Some(found) if found == cluster_id => Ok(()),
            Some(found) => Err(DataDirError::OtherCluster {
                dir: self.0.path.clone(),
                found: found.clone(),
                wanted: cluster_id.to_owned(),
            }),
            None => {
                let adopted =
                    Identity { cluster_id: Some(cluster_id.to_owned()), ..identity.clone() };
                write_identity(&self.0.path, &adopted)?;
                *identity = adopted;
                Ok(())
            }
        }
    }

    /// Notes that this directory lacks what its server had acknowledged; durable when this returns. It is
    /// never opened again. Whoever found it out may be gone at the next start, and the servers that are there
    /// then may not know.
    pub fn condemn(&self, why: &str) -> Result<(), DataDirError> {
        let file = self.part().condemned_file();
        at(&file, durable::replace_file(&file, format!("{why}\n").as_bytes()))
    }

    /// What was said when it was condemned.
    pub(crate) fn condemned(&self) -> Result<Option<String>, DataDirError> {
        verdict(&self.part().condemned_file())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where the log is kept.
    pub fn log_dir(&self) -> PathBuf {
        self.part().log_dir()
    }

    /// Whether the ballast is there: some space that an operator can free by deleting a file, so that a
    /// server on a full disk can be started and made to purge.
    pub fn has_ballast(&self) -> bool {
        let data = fs::metadata(self.ballast());
        data.is_ok_and(|data| data.len() == BALLAST_BYTES as u64)
    }

    /// Writes the ballast. To be called when everything is open and there is ample room: whoever deleted
    /// it needs the room for the log.
    pub fn write_ballast(&self) -> io::Result<()> {
        let path = self.ballast();
        let mut file = File::create(&path)?;
        let written = file.write_all(&incompressible(BALLAST_BYTES)).and_then(|()| file.sync_all());
        if written.is_err() {
            // What was written takes the very room that is missing.
            fs::remove_file(&path)?;
        }
        written
    }

    fn ballast(&self) -> PathBuf {
        self.0.path.join("ballast")
    }

    /// Where the snapshots are kept.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.part().snapshot_dir()
    }

    /// The log's high-water mark.
    pub fn mark_file(&self) -> PathBuf {
        self.part().mark_file()
    }

    /// The part of the directory that is in use.
    fn part(&self) -> PartOfDir {
        PartOfDir::number(&self.0.path, self.identity().recoveries)
    }

    /// The part that the next recovery makes. What is there was left by one that was cut short.
    pub(crate) fn next_part(&self) -> PartOfDir {
        PartOfDir::number(&self.0.path, self.identity().recoveries + 1)
    }

    /// Makes the [next part](Self::next_part) the one in use, as another store of another cluster. This is
    /// one step: a crash leaves the old state or the new one. The previous identity is kept in a file of its own.
    pub(crate) fn switch_to_next_part(
        &self,
        store_id: String,
        cluster_id: String,
    ) -> Result<(), DataDirError> {
        let mut identity = self.identity();
        let recoveries = identity.recoveries + 1;
        let before = self.0.path.join(format!("identity-before-recovery-{recoveries}"));
        let sealed = at(&before, seal_identity(&identity))?;
        at(&before, durable::replace_file(&before, &sealed))?;
        let cluster_id = Some(cluster_id);
        let recovered = Identity { store_id, cluster_id, recoveries, ..identity.clone() };
        write_identity(&self.0.path, &recovered)?;
        *identity = recovered;
        Ok(())
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        // The identity is replaced as a whole, so a panic elsewhere cannot have left half of one.
        self.0.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where mark, log and snapshots are: the data directory itself, or a part of it.
#[derive(Debug, Clone)]
pub(crate) struct PartOfDir(PathBuf);

impl PartOfDir {
    fn number(dir: &Path, recoveries: u32) -> Self {
        match recoveries {
            0 => Self(dir.to_owned()),
            _ => Self(dir.join(format!("recovered-{recoveries}"))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(crate) fn snapshot_dir(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    pub(crate) fn mark_file(&self) -> PathBuf {
        mark_path(&self.0)
    }

    fn condemned_file(&self) -> PathBuf {
        self.0.join("condemned")
    }
}

/// A file that cannot be read as text condemns as well: only a verdict has this name.
fn verdict(file: &Path) -> Result<Option<String>, DataDirError> {
    match regular::read(file, regular::SMALL_BYTES_MAX) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path: file.to_owned(), source }),
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, DataDirError> {
    result.map_err(|source| DataDirError::Io { path: path.to_owned(), source })
}

/// Refuses a directory that is in use for something else, before anything in it is touched. What a first start leaves
/// that was cut short is ours.
fn refuse_a_strangers(dir: &Path) -> Result<(), DataDirError> {
    // What is wrong with one that cannot be listed is told by whoever needs it.
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    let names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    let has = |name: &str| names.iter().any(|present| present == name);
    if has("identity") {
        return Ok(());
    }
    if has("log") || has("snapshots") {
        return Err(DataDirError::NoIdentity { dir: dir.to_owned() });
    }
    let is_expected = |name: &str| EXPECTED.contains(&name) || name.ends_with(PROCESS_ID);
    match names.into_iter().find(|name| !is_expected(name)) {
        Some(found) => Err(DataDirError::NotEmpty { dir: dir.to_owned(), found }),
        None => Ok(()),
    }
}

/// Everything that clients stored is in here: it is its owner's business. A directory of somebody else's,
/// such as a mounted volume, is left as it is.
fn keep_private(dir: &Path) {
    let is_private = fs::metadata(dir).is_ok_and(|data| data.permissions().mode() & 0o077 == 0);
    if is_private {
        return;
    }
    if let Err(error) = fs::set_permissions(dir, fs::Permissions::from_mode(PRIVATE)) {
        tracing::warn!(dir = %dir.display(), %error, "cannot restrict the data directory to its owner: other users may read it");
    }
}

fn mark_path(dir: &Path) -> PathBuf {
    dir.join("mark")
}

/// sled locks its own file, but only once it is open; this lock also covers the identity, the mark
/// and the snapshots.
fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    match regular::check(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => at(&path, Err(error))?,
        Ok(()) | Err(_) => {}
    }
    let file = at(&path, File::options().create(true).append(true).open(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(DataDirError::Io { path, source }),
    }
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let file = dir.join("identity");
    match regular::read(&file, regular::SMALL_BYTES_MAX) {
        Ok(bytes) => {
            unseal_identity(&bytes).map(Some).map_err(|what| DataDirError::Damaged { file, what })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path: file, source }),
    }
}

fn write_identity(dir: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let file = dir.join("identity");
    let sealed = at(&file, seal_identity(identity))?;
    at(&file, durable::replace_file(&file, &sealed))
}

fn seal_identity(identity: &Identity) -> io::Result<Vec<u8>> {
    match identity.recoveries {
        0 => durable::seal(IDENTITY, identity),
        recoveries => durable::seal(RECOVERED_IDENTITY, &(identity, recoveries)),
    }
}

fn unseal_identity(bytes: &[u8]) -> Result<Identity, String> {
    if durable::is_of(RECOVERED_IDENTITY, bytes) {
        let (identity, recoveries) = durable::unseal(RECOVERED_IDENTITY, bytes)?;
        return Ok(Identity { recoveries, ..identity });
    }
    durable::unseal(IDENTITY, bytes)
}

/// The first start. The empty mark comes before the identity: from then on a missing mark means that
/// somebody removed it, never that the first start was cut short.
fn fresh_identity(dir: &Path, node_id: NodeId, store_id: String) -> Result<Identity, DataDirError> {
    if dir.join("log").exists() || dir.join("snapshots").exists() {
        return Err(DataDirError::NoIdentity { dir: dir.to_owned() });
    }
    let mark = mark_path(dir);
    at(&mark, MarkFile::create(&mark))?;
    Ok(Identity { store_id, node_id, cluster_id: None, boots: 0, recoveries: 0 })
}

/// Bytes that a compressing file system cannot make smaller (a xorshift sequence).
fn incompressible(len: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests;
