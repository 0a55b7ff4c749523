//! `snapshot`.

mod schedule;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use self::schedule::Schedule;
use super::failure::Failure;
use super::file::{self, Draft};
use super::output::{self, Table};
use super::session::{Session, span};
use crate::host::clock::WallTime;
use crate::host::hexadecimal::hexadecimal;

/// The mode of a new file: it holds everything that clients stored.
const PRIVATE: u32 = 0o600;
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
        /// The file, which appears when the backup is complete; `-` is standard output. With --every, a directory
        file: PathBuf,
        /// Save again and again into the directory, after each such span, until a signal ends it. One that fails is
        /// told of and tried again; the exit code is that of the last one
        #[arg(long, value_name = "SPAN", value_parser = span)]
        every: Option<Duration>,
        /// Keep so many of the files that --every made there, the newest, and remove the others
        #[arg(long, value_name = "N", requires = "every", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
    /// Replaces everything by a backup, newer keys included
    Restore {
        /// The file; `-` is standard input
        file: PathBuf,
    },
    /// Shows what a backup holds, and whether it is whole; asks no server
    Inspect {
        /// The file; `-` is standard input
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
    /// When it was saved, by the clock of the server that did; older versions do not say it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
}

pub(super) async fn run(session: &Session, args: SnapshotArgs) -> Result<ExitCode, Failure> {
    match args.verb {
        SnapshotVerb::Save { file, every: None, .. } => save(session, &file).await,
        SnapshotVerb::Save { file, every: Some(every), keep } => {
            let keep = keep.and_then(|keep| usize::try_from(keep).ok());
            schedule::run(session, &file, Schedule { every, keep }).await
        }
        SnapshotVerb::Restore { file } => {
            let archive = file::read(&file)?;
            let meta = inspect(&file, archive.as_slice())?;
            session.client.snapshots().restore(archive).await?;
            session.say(&meta, &format!("restored {}", file.display()))
        }
        SnapshotVerb::Inspect { file } => {
            let meta = inspect(&file, file::read(&file)?.as_slice())?;
            session.show(&meta, table)
        }
    }
}

fn table(meta: &Meta) -> Table {
    let facts = [
        ("ID", meta.id.clone()),
        ("Index", meta.index.to_string()),
        ("Term", meta.term.to_string()),
        ("Version", meta.version.to_string()),
        ("Size", format!("{} bytes", meta.size)),
    ];
    Table::facts(facts.into_iter().chain(meta.saved.clone().map(|saved| ("Saved", saved))))
}

/// A backup that is not complete never has the file's name, and nothing of it goes to a device or a pipe.
async fn save(session: &Session, path: &Path) -> Result<ExitCode, Failure> {
    let mut draft = Draft::new(path, PRIVATE)?;
    let (meta, bytes) = receive(session, path, draft.file()).await?;
    draft.publish()?;
    let sentence = format!("saved index {} to {} ({bytes} bytes)", meta.index, path.display());
    if file::is_standard(path) {
        output::note(&sentence);
        return Ok(ExitCode::SUCCESS);
    }
    session.say(&meta, &sentence)
}

/// Receives a backup into a file that will be `path`, and checks it; returns its size, too.
async fn receive(
    session: &Session,
    path: &Path,
    file: &mut NamedTempFile,
) -> Result<(Meta, u64), Failure> {
    let of_file = |error: io::Error| Failure::of_file(path, &error);
    let mut out = tokio::fs::File::from_std(file.reopen().map_err(of_file)?);
    let bytes = session.client.snapshots().save(&session.query(), &mut out).await?;
    let meta = inspect(path, file.reopen().map_err(of_file)?)?;
    Ok((meta, bytes))
}

/// Reads an archive through and checks its sums.
fn inspect(file: &Path, archive: impl Read) -> Result<Meta, Failure> {
    let damaged =
        |error: io::Error| Failure::failed(format!("{}: no whole backup: {error}", file.display()));
    read(archive).map_err(damaged)
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
                let saved = entry.header().mtime()?;
                let mut text = Vec::new();
                entry.take(SMALL_FILE_BYTES).read_to_end(&mut text)?;
                found.insert(name, hexadecimal(&Sha256::digest(&text)));
                let said: Meta = serde_json::from_slice(&text)?;
                meta = Some(Meta { saved: date_of(saved), ..said });
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

/// The time of a file in an archive, in seconds after 1970; 0: it says none.
fn date_of(seconds: u64) -> Option<String> {
    (seconds > 0).then(|| WallTime::from_unix_millis(seconds.saturating_mul(1_000)).to_string())
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
