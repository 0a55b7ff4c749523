//! `snapshot`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::file;
use super::output::Table;
use super::session::Session;
use crate::host::hexadecimal::hexadecimal;

/// The small files of an archive, at most.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;
/// What an archive says of itself.
const META: &str = "meta.json";
/// The sums of the others.
const SUMS: &str = "SHA256SUMS";

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Saves a backup of everything into a file
    Save {
        /// The file; it appears when the backup is complete
        file: PathBuf,
    },
    /// Replaces everything by a backup, newer keys included
    Restore {
        /// The file
        file: PathBuf,
    },
    /// Shows what a backup holds, and whether it is whole; asks no server
    Inspect {
        /// The file
        file: PathBuf,
    },
}

/// What an archive says of itself.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Meta {
    #[serde(rename = "ID")]
    id: String,
    index: u64,
    term: u64,
    version: u64,
    size: u64,
}

pub(super) async fn run(session: &Session, args: SnapshotArgs) -> Result<ExitCode, Failure> {
    match args.verb {
        SnapshotVerb::Save { file } => save(session, &file).await,
        SnapshotVerb::Restore { file } => {
            inspect(&file)?;
            let archive = tokio::fs::read(&file).await;
            let archive = archive.map_err(|error| Failure::of_file(&file, &error))?;
            session.client.snapshots().restore(archive).await?;
            session.say(&inspect(&file)?, &format!("restored {}", file.display()))
        }
        SnapshotVerb::Inspect { file } => session.show(&inspect(&file)?, |meta| {
            Table::facts([
                ("ID", meta.id.clone()),
                ("Index", meta.index.to_string()),
                ("Term", meta.term.to_string()),
                ("Version", meta.version.to_string()),
                ("Size", format!("{} bytes", meta.size)),
            ])
        }),
    }
}

/// A backup that is not complete never has the file's name.
async fn save(session: &Session, path: &Path) -> Result<ExitCode, Failure> {
    let of_file = |error: &io::Error| Failure::of_file(path, error);
    let temporary = file::beside(path)?;
    let handle = temporary.reopen().map_err(|error| of_file(&error))?;
    let mut out = tokio::fs::File::from_std(handle);
    let bytes = session.client.snapshots().save(&session.query(), &mut out).await?;
    out.sync_all().await.map_err(|error| of_file(&error))?;
    let meta = inspect(temporary.path())?;
    file::replace(path, temporary)?;
    let sentence = format!("saved index {} to {} ({bytes} bytes)", meta.index, path.display());
    session.say(&meta, &sentence)
}

/// Reads an archive through and checks its sums.
fn inspect(file: &Path) -> Result<Meta, Failure> {
    let damaged =
        |error: String| Failure::failed(format!("{}: no whole backup: {error}", file.display()));
    let archive = File::open(file).map_err(|error| Failure::of_file(file, &error))?;
    read(archive).map_err(|error| damaged(error.to_string()))
}

fn read(archive: impl Read) -> io::Result<Meta> {
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::new(archive)));
    let (mut meta, mut expected, mut found) = (None, String::new(), BTreeMap::new());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        match name.as_str() {
            SUMS => drop(entry.take(SMALL_FILE_BYTES).read_to_string(&mut expected)?),
            META => {
                let mut text = Vec::new();
                entry.take(SMALL_FILE_BYTES).read_to_end(&mut text)?;
                found.insert(name, hexadecimal(&Sha256::digest(&text)));
                meta = Some(serde_json::from_slice(&text)?);
            }
            _ => {
                let mut sum = Hashing(Sha256::default());
                io::copy(&mut entry, &mut sum)?;
                found.insert(name, hexadecimal(&sum.0.finalize()));
            }
        }
    }
    let sums: BTreeMap<_, _> = expected
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    if sums != found || sums.is_empty() {
        return Err(io::Error::other("its sums do not fit"));
    }
    meta.ok_or_else(|| io::Error::other("it does not say what it is"))
}

/// Hashes what is written to it.
struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
