//! `kv`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use quorate_client::Query;
use quorate_client::types::kv::KvPair;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::failure::Failure;
use super::file;
use super::key::{self, Writing, key};
use super::output::{self, Table};
use super::session::Session;

/// The most that a server takes, unless it was told to take less.
const VALUE_BYTES_MAX: usize = 512 * 1024;

/// Arguments of `kv`.
#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    verb: KvVerb,
}

#[derive(Debug, Subcommand)]
enum KvVerb {
    /// Prints a value as it is; with -o json the key with its indexes
    ///
    /// Exit code 1 if there is no such key.
    Get {
        /// The key
        #[arg(value_parser = key(Writing::No))]
        key: String,
    },
    /// Writes a key
    Put {
        /// The key
        #[arg(value_parser = key(Writing::Yes))]
        key: String,
        /// The value; `-` is standard input, `@FILE` a file
        value: String,
    },
    /// Writes a key if nobody has written it since; exit code 5 otherwise
    Cas {
        /// The key
        #[arg(value_parser = key(Writing::Yes))]
        key: String,
        /// The value; `-` is standard input, `@FILE` a file
        value: String,
        /// The ModifyIndex that was read; 0: the key must not exist
        #[arg(long)]
        index: u64,
    },
    /// Deletes a key
    ///
    /// Exit code 1 if there is none.
    Delete {
        /// The key, or the prefix
        #[arg(value_parser = key(Writing::No))]
        key: String,
        /// All keys that begin with it
        #[arg(long)]
        recurse: bool,
        /// Only if nobody has written it since; exit code 5 otherwise
        #[arg(long, value_name = "INDEX", conflicts_with = "recurse")]
        cas: Option<u64>,
    },
    /// Lists keys
    ///
    /// Where there are none, the list is empty, and the exit code 0.
    List {
        /// Only those that begin with it
        #[arg(default_value = "", value_parser = key(Writing::No))]
        prefix: String,
    },
    /// Prints keys with their values as JSON, in the form of Consul's `kv export`
    Export {
        /// Only those that begin with it
        #[arg(default_value = "", value_parser = key(Writing::No))]
        prefix: String,
    },
    /// Writes the keys of an export, after all of them were looked at
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
        KvVerb::Delete { key, recurse: true, .. } => delete_below(session, &key).await,
        KvVerb::Delete { key, cas, .. } => delete(session, &key, cas).await,
        KvVerb::List { prefix } => {
            let keys = kv.keys(&prefix, &session.query()).await?.value;
            session.show(&keys, |keys| Table::of(&["KEY"], keys, |key| vec![key.clone()]))
        }
        KvVerb::Export { prefix } => {
            let pairs = kv.list(&prefix, &session.query()).await?.value;
            let exported: Vec<_> = pairs.into_iter().map(Exported::from).collect();
            let text = serde_json::to_string_pretty(&exported);
            let text = text.map_err(|error| Failure::failed(error.to_string()))?;
            output::json(&text).map_err(|error| Failure::failed(error.to_string()))?;
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

/// Deletes one key, which there must be.
async fn delete(session: &Session, key: &str, cas: Option<u64>) -> Result<ExitCode, Failure> {
    let kv = session.client.kv();
    key::check(key, Writing::Yes).map_err(Failure::usage)?;
    let present = kv.get(key, &Query::new()).await?.value;
    match (present, cas) {
        (None, None) => return Err(absent(key)),
        (None, Some(index)) => return Err(changed(key, index)),
        (Some(_), None) => kv.delete(key).await?,
        (Some(_), Some(index)) => {
            if !kv.delete_cas(key, index).await? {
                return Err(changed(key, index));
            }
        }
    }
    session.say(&json!({ "Key": key }), &format!("deleted {key}"))
}

/// Deletes all keys below a prefix, of which there must be one.
async fn delete_below(session: &Session, prefix: &str) -> Result<ExitCode, Failure> {
    let kv = session.client.kv();
    let keys = kv.keys(prefix, &Query::new()).await?.value.len();
    if keys == 0 {
        return Err(Failure::not_found(format!("there is no key below \"{prefix}\"")));
    }
    kv.delete_tree(prefix).await?;
    let sentence = format!("deleted {} below \"{prefix}\"", output::count(keys, "key"));
    session.say(&json!({ "Key": prefix, "Keys": keys }), &sentence)
}

fn absent(key: &str) -> Failure {
    Failure::not_found(format!("there is no key {key}"))
}

async fn get(session: &Session, key: &str) -> Result<ExitCode, Failure> {
    let pair = session.client.kv().get(key, &session.query()).await?.value;
    let pair = pair.ok_or_else(|| absent(key))?;
    if session.is_for_programs() {
        return session.show(&pair, |_| Table::new(&[]));
    }
    output::content(&pair.value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

async fn import(session: &Session, file: &Path, prefix: &str) -> Result<ExitCode, Failure> {
    let text = file::read(file)?;
    // All are looked at before the first is written.
    let pairs = exported(&text, prefix).map_err(|what| {
        Failure::usage(format!("{}: {what}; nothing was written", file.display()))
    })?;
    let progress = indicatif::ProgressBar::new(pairs.len() as u64);
    for (written, (key, flags, value)) in pairs.iter().enumerate() {
        let query = Query::new().with("flags", flags.to_string());
        let put = session.client.kv().put_with(key, value.clone(), &query).await;
        put.map_err(|error| {
            let so_far = output::count(written, "key");
            Failure::from(error).after(&format!("wrote {so_far} of {}, then {key}", pairs.len()))
        })?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let sentence = format!("wrote {}", output::count(pairs.len(), "key"));
    session.say(&json!({ "Keys": pairs.len() }), &sentence)
}

/// A key that is to be written, with its flags and its value.
type Pair = (String, u64, Vec<u8>);

/// The keys of an export, if a server can take every one.
fn exported(text: &[u8], prefix: &str) -> Result<Vec<Pair>, String> {
    let exported: Vec<Exported> =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let pair = |(place, Exported { key, flags, value }): (usize, Exported)| {
        let key = format!("{prefix}{key}");
        key::check(&key, Writing::Yes).map_err(|what| format!("key {}: {what}", place + 1))?;
        let value = STANDARD.decode(&value).map_err(|error| format!("{key}: {error}"))?;
        if value.len() > VALUE_BYTES_MAX {
            let bytes = value.len();
            return Err(format!("{key}: {bytes} bytes, a value has at most {VALUE_BYTES_MAX}"));
        }
        Ok((key, flags, value))
    };
    exported.into_iter().enumerate().map(pair).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_looked_at_as_a_whole_before_anything_is_written() {
        let two = |second: &str| {
            let first = r#"{"key": "x1", "flags": 7, "value": "MQ=="}"#;
            exported(format!("[{first}, {second}]").as_bytes(), "")
        };
        let good = two(r#"{"key": "x2", "value": ""}"#).unwrap();
        assert_eq!(good[0], ("x1".to_owned(), 7, b"1".to_vec()));
        for wrong in
            [r#"{"key": ""}"#, r#"{"key": "/x"}"#, r#"{"key": "a//b"}"#, r#"{"key": "a\tb"}"#]
        {
            let told = two(wrong).unwrap_err();
            assert!(told.starts_with("key 2: "), "{told}");
        }
        assert!(two(r#"{"key": "x2", "value": "!"}"#).unwrap_err().starts_with("x2: "));
        let large = STANDARD.encode(vec![0; VALUE_BYTES_MAX + 1]);
        assert!(two(&format!(r#"{{"key": "x2", "value": "{large}"}}"#)).is_err());
        assert_eq!(exported(br#"[{"key": ""}]"#, "below").unwrap()[0].0, "below");
    }
}
