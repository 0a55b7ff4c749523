//! Reads what an agent is configured with: its flags, and files in JSON and HCL.
//!
//! Everything becomes one JSON object, merged as Consul merges: lists grow (those of the flags come
//! first), objects merge member by member, the rest is replaced by whatever comes later. Files come in
//! the order of the command line, those of a directory in the order of their names, then `-hcl`
//! fragments, and flags win.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::configuration::Configuration;
use super::definitions::Defined;
use super::keys::{self, Findings};
use super::merge::merge;
use crate::host::first_hcl::one_member_a_line;
use crate::http::definition::Description;
use crate::process::config::ConfigError;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// HCL, or JSON in a file that is called so.
    Hcl,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "hcl" => Ok(Self::Hcl),
            _ => Err("hcl or json".to_owned()),
        }
    }
}

/// Where an agent's configuration comes from. It can be read again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// What the flags say, as a file would.
    pub(super) flags: Map<String, Value>,
    /// Files and directories in the order of the command line.
    pub(super) paths: Vec<PathBuf>,
    /// How every file is written, whatever its name.
    pub(super) format: Option<Format>,
    /// The texts of `-hcl`.
    pub(super) fragments: Vec<String>,
    /// Run although a key asks for what there is not.
    pub(super) ignore_unsupported: bool,
}

/// What of a configuration can change while an agent runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Services and checks.
    pub defined: Defined,
    /// What is said of the node.
    pub description: Description,
    /// The least important line of the log, in the words of `tracing`.
    pub log_level: &'static str,
}

/// A configuration, and what there is to say about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    pub(super) configuration: Configuration,
    pub(super) findings: Findings,
    /// Files that were passed over.
    pub(super) skipped: Vec<PathBuf>,
}

impl Sources {
    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.flags.is_empty() && self.fragments.is_empty()
    }

    /// Reads what can change while an agent runs.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn reload(&self) -> Result<Reading, ConfigError> {
        let configuration = self.read()?.configuration;
        Ok(Reading {
            defined: configuration.defined(),
            description: configuration.description()?,
            log_level: configuration.log_level()?,
        })
    }

    /// Reads everything as one.
    ///
    /// # Errors
    /// See [`ConfigError`]; a key that cannot be honoured is one, unless such keys are to be ignored.
    pub(super) fn read(&self) -> Result<Read, ConfigError> {
        let mut findings = Findings::default();
        let (lists, values): (Map<_, _>, Map<_, _>) =
            self.flags.clone().into_iter().partition(|(_, value)| value.is_array());
        let mut all = Value::Object(Map::new());
        let mut add = |object: Map<String, Value>, origin: &dyn fmt::Display| {
            let kept = keys::sift(object, &origin.to_string(), &mut findings);
            if let Some(fault) = Configuration::fault(&kept) {
                return Err(ConfigError::Invalid(format!("{origin}: {fault}")));
            }
            merge(&mut all, kept);
            Ok(())
        };
        add(lists, &"command line")?;
        let (paths, skipped) = self.files()?;
        for path in paths {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            let format = self.format.or_else(|| format_of(&path)).unwrap_or(Format::Json);
            let object = parse(&text, format)
                .map_err(|error| ConfigError::Invalid(format!("{}: {error}", path.display())))?;
            add(object, &path.display())?;
        }
        for fragment in &self.fragments {
            let object = parse(fragment, Format::Hcl)
                .map_err(|error| ConfigError::Invalid(format!("-hcl {fragment:?}: {error}")))?;
            add(object, &"-hcl")?;
        }
        add(values, &"command line")?;
        if !self.ignore_unsupported && !findings.refused.is_empty() {
            return Err(ConfigError::Invalid(refusal(&findings.refused)));
        }
        let configuration = serde_json::from_value(all)
            .map_err(|error| ConfigError::Invalid(format!("configuration: {error}")))?;
        Ok(Read { configuration, findings, skipped })
    }

    /// The files to read, and those of directories that are passed over because nothing says how they
    /// are written.
    fn files(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ConfigError> {
        let (mut paths, mut skipped) = (Vec::new(), Vec::new());
        for path in &self.paths {
            let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
            if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
                if self.format.is_none() && format_of(path).is_none() {
                    return Err(ConfigError::Invalid(format!(
                        "{}: a name that ends with .json or .hcl, or -config-format, must say how it is written",
                        path.display()
                    )));
                }
                paths.push(path.clone());
                continue;
            }
            let mut found = Vec::new();
            for entry in std::fs::read_dir(path).map_err(unreadable)? {
                found.push(entry.map_err(unreadable)?.path());
            }
            found.sort();
            // A directory in it is not entered. (A link to a file is a file: Kubernetes mounts such.)
            found.retain(|path| path.is_file());
            for path in found {
                let is_known = self.format.is_some() || format_of(&path).is_some();
                if is_known { paths.push(path) } else { skipped.push(path) }
            }
        }
        Ok((paths, skipped))
    }
}

/// One text for everything that is refused, and what to do about it.
fn refusal(refused: &[String]) -> String {
    let list = refused.join("\n  ");
    format!(
        "the configuration uses features that Quorate does not have:\n  {list}\nremove them, or start with -ignore-unsupported to run without them"
    )
}

fn format_of(path: &Path) -> Option<Format> {
    path.extension()?.to_str()?.to_ascii_lowercase().parse().ok()
}

/// What a text says. An empty one says nothing.
fn parse(text: &str, format: Format) -> Result<Map<String, Value>, String> {
    // Editors on Windows begin with a mark of the byte order.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    let is_json = format == Format::Json || text.starts_with('{');
    match (text.is_empty(), is_json) {
        (true, _) => Ok(Map::new()),
        (false, true) => serde_json::from_str(text).map_err(|error| error.to_string()),
        (false, false) => {
            let strict = hcl::from_str(text).map_err(|error| error.to_string());
            strict.or_else(|error| hcl::from_str(&one_member_a_line(text)).map_err(|_| error))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hcl(text: &str) -> Value {
        Value::Object(parse(text, Format::Hcl).unwrap())
    }

    #[test]
    fn hcl_and_json_say_the_same() {
        let text = r#"
            # as in Consul's documentation
            server = true
            bootstrap_expect = 3
            retry_join = ["10.0.0.1", "10.0.0.2",]
            bind_addr = "{{ GetPrivateIP }}"
            ports { http = 8501 }
            // services
            service {
              name = "web"
              tags = ["a"]
              check = { ttl = "1s", id = "c" }
            }
        "#;
        assert_eq!(
            hcl(text),
            json!({
                "server": true, "bootstrap_expect": 3, "retry_join": ["10.0.0.1", "10.0.0.2"],
                "bind_addr": "{{ GetPrivateIP }}", "ports": {"http": 8501},
                "service": {"name": "web", "tags": ["a"], "check": {"ttl": "1s", "id": "c"}},
            })
        );
        assert_eq!(
            hcl(
                "ports { http = 1, dns = 2 } # a { comment\ntls { https { ca_file = \"}{\\\"\" } }"
            ),
            json!({"ports": {"http": 1, "dns": 2}, "tls": {"https": {"ca_file": "}{\""}}})
        );
        assert_eq!(
            hcl(
                "services = [{ id = \"a\", tags = [\"x\", \"y\"] }, {}]\nacl { tokens { agent = \"t\" } }"
            ),
            json!({"services": [{"id": "a", "tags": ["x", "y"]}, {}], "acl": {"tokens": {"agent": "t"}}})
        );
        assert_eq!(hcl("{\"server\": true}"), json!({"server": true}));
        assert_eq!(hcl("service {}\nservice {}")["service"], json!([{}, {}]));
        assert_eq!(hcl(r#"a = "x\"${y}\\ü""#), json!({"a": "x\"${y}\\ü"}));
        for format in [Format::Hcl, Format::Json] {
            assert_eq!(parse(" \n", format), Ok(Map::new()));
            assert!(parse("server =", format).is_err());
        }
    }

    #[test]
    fn later_wins_and_lists_grow() {
        let mut all = json!({"a": 1, "list": [1], "in": {"x": 1, "y": [1]}, "service": {"n": 1}});
        let later = json!({
            "a": 2, "b": 3, "list": [2], "in": {"y": [2], "z": 1}, "service": {"n": 2}, "c": null
        });
        merge(&mut all, later);
        merge(&mut all, json!({"service": [{"n": 3}], "a": null}));
        let several = json!({"services": [{"n": 1}], "checks": {"n": 1}});
        merge(&mut all, several.clone());
        merge(&mut all, json!({"services": {"n": 2}, "checks": {"n": 2}}));
        merge(&mut all, several);
        let lists: Vec<_> = ["services", "checks"].map(|key| all[key].take()).into();
        assert_eq!(lists[0], json!([{"n": 1}, {"n": 2}, {"n": 1}]));
        assert_eq!(lists[0], lists[1]);
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert_eq!(
            all,
            json!({
                "a": 2, "b": 3, "list": [1, 2], "in": {"x": 1, "y": [1, 2], "z": 1},
                "service": [{"n": 1}, {"n": 2}, {"n": 3}],
            })
        );
    }

    #[test]
    fn the_order_of_the_command_line_counts_and_a_directory_is_read_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        write("d/b.hcl", "node_name = \"b\"\nretry_join = [\"b\"]");
        write("d/a.json", r#"{"node_name": "a", "retry_join": ["a"]}"#);
        write("d/notes.txt", "{");
        write("d/below/c.json", r#"{"node_name": "below"}"#);
        let file = write("f.json", r#"{"node_name": "f", "retry_join": ["f"]}"#);
        let odd = write("odd", "node_name = \"odd\"");
        let empty = write("empty.json", "");
        let d = directory.path().join("d");
        let flags = json!({"retry_join": ["flag"]}).as_object().unwrap().clone();
        let read = |paths: &[&PathBuf]| {
            let paths = paths.iter().map(|path| (*path).clone()).collect();
            Sources { paths, flags: flags.clone(), ..Sources::default() }.read()
        };
        let both = read(&[&d, &file, &empty]).unwrap();
        assert_eq!(both.configuration.node_name.as_deref(), Some("f"));
        assert_eq!(both.configuration.retry_join, ["flag", "a", "b", "f"]);
        assert_eq!(both.skipped.len(), 1);
        let both = read(&[&file, &d]).unwrap();
        assert_eq!(both.configuration.node_name.as_deref(), Some("b"));
        assert!(read(&[&odd]).is_err());
        let format = Some(Format::Hcl);
        let sources = Sources { paths: vec![odd], format, ..Sources::default() };
        assert_eq!(sources.read().unwrap().configuration.node_name.as_deref(), Some("odd"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_its_file_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        for (text, fault) in [
            (r#"{"bootstrap_expect": "three"}"#, "a.json: bootstrap_expect: invalid type: string"),
            (r#"{"server": true, "ports": {"dns": 1, "HTTP": "x"}}"#, "a.json: ports.http: inval"),
            (r#"{"node_meta": {"rack": 7}}"#, "a.json: node_meta.rack: invalid type"),
            (r#"{"retry_join": [7]}"#, "a.json: retry_join: invalid type"),
        ] {
            std::fs::write(&path, text).unwrap();
            let sources = Sources { paths: vec![path.clone()], ..Sources::default() };
            let error = sources.read().unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_ignored_only_when_told_so() {
        let fragments = vec!["encrypt = \"x\"\nnope = 1\nnode_name = \"n\"".to_owned()];
        let mut sources = Sources { fragments, ..Sources::default() };
        let error = sources.read().unwrap_err().to_string();
        assert!(error.contains("-hcl: encrypt: ") && error.contains("-hcl: nope: "), "{error}");
        sources.ignore_unsupported = true;
        let read = sources.read().unwrap();
        assert_eq!(read.findings.refused.len(), 2);
        assert_eq!(read.configuration.node_name.as_deref(), Some("n"));
    }
}
