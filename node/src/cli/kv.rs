//! `kv`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use quorate_client::types::kv::KvPair;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::failure::Failure;
use super::file;
use super::output::{self, Table};
use super::session::Session;

/// Arguments of `kv`.
#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    verb: KvVerb,
}

#[derive(Debug, Subcommand)]
enum KvVerb {
    /// Prints a value as it is; with -o json the key with its indexes
    Get {
        /// The key
        key: String,
    },
    /// Writes a key
    Put {
        /// The key
        key: String,
        /// The value; `-` is standard input, `@FILE` a file
        value: String,
    },
    /// Writes a key if nobody has written it since; exit code 5 otherwise
    Cas {
        /// The key
        key: String,
        /// The value; `-` is standard input, `@FILE` a file
        value: String,
        /// The ModifyIndex that was read; 0: the key must not exist
        #[arg(long)]
        index: u64,
    },
    /// Deletes a key
    Delete {
        /// The key, or the prefix
        key: String,
        /// All keys that begin with it
        #[arg(long)]
        recurse: bool,
        /// Only if nobody has written it since; exit code 5 otherwise
        #[arg(long, value_name = "INDEX", conflicts_with = "recurse")]
        cas: Option<u64>,
    },
    /// Lists keys
    List {
        /// Only those that begin with it
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Prints keys with their values as JSON, in the form of Consul's `kv export`
    Export {
        /// Only those that begin with it
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Writes the keys of an export
    Import {
        /// The file; `-` is standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Prepended to each key
        #[arg(long, default_value = "")]
        prefix: String,
    },
}

/// A key in Consul's form of exports.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    key: String,
    #[serde(default)]
    flags: u64,
    /// Base64.
    #[serde(default)]
    value: String,
}

pub(super) async fn run(session: &Session, args: KvArgs) -> Result<ExitCode, Failure> {
    let kv = session.client.kv();
    match args.verb {
        KvVerb::Get { key } => get(session, &key).await,
        KvVerb::Put { key, value } => {
            kv.put(&key, content(&value)?).await?;
            session.say(&json!({ "Key": key }), &format!("wrote {key}"))
        }
        KvVerb::Cas { key, value, index } => {
            if !kv.cas(&key, content(&value)?, index).await? {
                return Err(changed(&key, index));
            }
            session.say(&json!({ "Key": key }), &format!("wrote {key}"))
        }
        KvVerb::Delete { key, recurse, cas } => {
            match cas {
                Some(index) if !kv.delete_cas(&key, index).await? => {
                    return Err(changed(&key, index));
                }
                Some(_) => {}
                None if recurse => kv.delete_tree(&key).await?,
                None => kv.delete(&key).await?,
            }
            session.say(&json!({ "Key": key }), &format!("deleted {key}"))
        }
        KvVerb::List { prefix } => {
            let keys = kv.keys(&prefix, &session.query()).await?.value;
            session.show(&keys, |keys| Table::of(&["KEY"], keys, |key| vec![key.clone()]))
        }
        KvVerb::Export { prefix } => {
            let pairs = kv.list(&prefix, &session.query()).await?.value;
            let exported: Vec<_> = pairs.into_iter().map(Exported::from).collect();
            let text = serde_json::to_string_pretty(&exported);
            let text = text.map_err(|error| Failure::failed(error.to_string()))?;
            output::line(&text).map_err(|error| Failure::failed(error.to_string()))?;
            Ok(ExitCode::SUCCESS)
        }
        KvVerb::Import { file, prefix } => import(session, &file, &prefix).await,
    }
}

fn changed(key: &str, index: u64) -> Failure {
    let what =
        if index == 0 { "exists already" } else { "was changed meanwhile, or does not exist" };
    Failure::conflict(format!("{key} {what}; nothing was done"))
}

async fn get(session: &Session, key: &str) -> Result<ExitCode, Failure> {
    let pair = session.client.kv().get(key, &session.query()).await?.value;
    let pair = pair.ok_or_else(|| Failure::not_found(format!("there is no key {key}")))?;
    if session.is_for_programs() {
        return session.show(&pair, |_| Table::new(&[]));
    }
    output::bytes(&pair.value).map_err(|error| Failure::failed(error.to_string()))?;
    if !pair.value.ends_with(b"\n") && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        output::line("").map_err(|error| Failure::failed(error.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(session: &Session, file: &Path, prefix: &str) -> Result<ExitCode, Failure> {
    let text = file::read(file)?;
    let malformed =
        |what: String| Failure::usage(format!("{}: {what}; nothing was written", file.display()));
    let exported: Vec<Exported> =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    // All are read before the first is written.
    let decoded: Vec<_> = exported
        .into_iter()
        .map(|exported| {
            let value = STANDARD.decode(&exported.value);
            let value = value.map_err(|error| malformed(format!("{}: {error}", exported.key)))?;
            Ok((format!("{prefix}{}", exported.key), exported.flags, value))
        })
        .collect::<Result<_, Failure>>()?;
    let progress = indicatif::ProgressBar::new(decoded.len() as u64);
    for (key, flags, value) in &decoded {
        let query = quorate_client::Query::new().with("flags", flags.to_string());
        session.client.kv().put_with(key, value.clone(), &query).await?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    session.say(&json!({ "Keys": decoded.len() }), &format!("wrote {} keys", decoded.len()))
}

/// A value of the command line: itself, standard input, or a file.
fn content(value: &str) -> Result<Vec<u8>, Failure> {
    match value.strip_prefix('@') {
        Some(path) => file::read(Path::new(path)),
        None if value == "-" => file::read(Path::new("-")),
        None => Ok(value.as_bytes().to_vec()),
    }
}

impl From<KvPair> for Exported {
    fn from(pair: KvPair) -> Self {
        Self { key: pair.key, flags: pair.flags, value: STANDARD.encode(pair.value) }
    }
}
