//! The flags of `quorate agent`: Consul's, with one dash or two.
//!
//! A flag says what a key of a file says, so it becomes that key; which ones are honoured is decided in
//! one place, [`keys`](super::keys), for both.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value};

use super::files::{Format, Sources};

/// How a flag's value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `-ui`, `-ui=false`.
    Switch,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A text; each adds to a list.
    List,
    /// `key:value`; each adds to a map.
    Pair,
}

use Kind::{List, Number, Pair, Switch, Text};

/// A flag, the key that it stands for (a path, members after dots), and its help.
type Flag = (&'static str, &'static str, Kind, &'static str);

const FLAGS: &[Flag] = &[
    ("advertise", "advertise_addr", Text, "Address that other servers connect to"),
    ("advertise-wan", "advertise_addr_wan", Text, "The node's tagged address wan"),
    ("allow-write-http-from", "http_config.allow_write_http_from", List, "Not supported"),
    ("alt-domain", "alt_domain", Text, "A second domain for DNS"),
    ("auto-reload-config", "auto_reload_config", Switch, "Ignored"),
    ("bind", "bind_addr", Text, "Address for other servers"),
    ("bootstrap", "bootstrap", Switch, "Found a cluster of one"),
    ("bootstrap-expect", "bootstrap_expect", Number, "How many servers found a cluster together"),
    ("check_output_max_size", "check_output_max_size", Number, "Bytes kept of a check's output"),
    ("client", "client_addr", Text, "Addresses for clients: IPs or unix:///PATH, with blanks"),
    ("data-dir", "data_dir", Text, "Where the log and the snapshots are kept"),
    ("datacenter", "datacenter", Text, "Name of the datacenter"),
    ("default-query-time", "default_query_time", Text, "Ignored"),
    ("disable-host-node-id", "disable_host_node_id", Switch, "Ignored"),
    ("disable-keyring-file", "disable_keyring_file", Switch, "Ignored"),
    ("dns-port", "ports.dns", Number, "Port for DNS, or -1"),
    ("domain", "domain", Text, "Domain of all names in DNS"),
    ("enable-local-script-checks", "enable_local_script_checks", Switch, "Ignored"),
    ("enable-script-checks", "enable_script_checks", Switch, "Ignored"),
    ("encrypt", "encrypt", Text, "Not supported"),
    ("grpc-port", "ports.grpc", Number, "Ignored"),
    ("grpc-tls-port", "ports.grpc_tls", Number, "Not supported"),
    ("http-port", "ports.http", Number, "Port for clients"),
    ("https-port", "ports.https", Number, "Port for clients that use TLS"),
    (
        "insecure-rpc",
        "insecure_rpc",
        Switch,
        "Serve other servers without TLS where strangers may come",
    ),
    ("join", "start_join", List, "As -retry-join"),
    ("join-wan", "start_join_wan", List, "Not supported"),
    ("log-file", "log_file", Text, "File to log to, in addition to standard error"),
    ("log-format", "log_format", Text, "How lines of the log look: text or json"),
    ("log-json", "log_json", Switch, "Log one JSON object a line"),
    ("log-level", "log_level", Text, "trace, debug, info, warn or err"),
    ("log-rotate-bytes", "log_rotate_bytes", Number, "Ignored"),
    ("log-rotate-duration", "log_rotate_duration", Text, "Ignored"),
    ("log-rotate-max-files", "log_rotate_max_files", Number, "Ignored"),
    ("max-query-time", "max_query_time", Text, "Ignored"),
    ("node", "node_name", Text, "Name of this agent and its node"),
    ("node-id", "node_id", Text, "Id of the node, a UUID"),
    ("node-meta", "node_meta", Pair, "Metadata of the node, KEY:VALUE"),
    ("non-voting-server", "non_voting_server", Switch, "Not supported"),
    ("pid-file", "pid_file", Text, "File to write the process id to"),
    ("primary-gateway", "primary_gateways", List, "Not supported"),
    ("protocol", "protocol", Number, "Ignored"),
    ("raft-protocol", "raft_protocol", Number, "Ignored"),
    ("read-replica", "read_replica", Switch, "Not supported"),
    ("recursor", "recursors", List, "Not supported"),
    ("rejoin", "rejoin_after_leave", Switch, "Ignored"),
    ("retry-interval", "retry_interval", Text, "Ignored"),
    ("retry-interval-wan", "retry_interval_wan", Text, "Ignored"),
    ("retry-join", "retry_join", List, "Another server: IP or host name, with its port or without"),
    ("retry-join-wan", "retry_join_wan", List, "Not supported"),
    ("retry-max", "retry_max", Number, "Ignored: joining is tried until it succeeds"),
    ("retry-max-wan", "retry_max_wan", Number, "Ignored"),
    ("segment", "segment", Text, "Not supported"),
    ("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", List, "Not supported"),
    ("serf-lan-bind", "serf_lan", Text, "Address of -serf-lan-port"),
    ("serf-lan-port", "ports.serf_lan", Number, "A second port for other servers"),
    ("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", List, "Not supported"),
    ("serf-wan-bind", "serf_wan", Text, "Ignored"),
    ("serf-wan-port", "ports.serf_wan", Number, "Ignored"),
    ("server", "server", Switch, "Run a server of the cluster"),
    ("server-port", "ports.server", Number, "Port for other servers"),
    ("syslog", "enable_syslog", Switch, "Not supported"),
    ("ui", "ui", Switch, "Ignored"),
    ("ui-content-path", "ui_config.content_path", Text, "Ignored"),
    ("ui-dir", "ui_config.dir", Text, "Ignored"),
    (
        "ui-host",
        "ui_host",
        List,
        "Host name by which this server may be asked; any: whatever a client calls it",
    ),
    ("worker-key-file", "worker_key_file", Text, "File with the key of worker processes"),
];

const CONFIG_FILE: &str = "config-file";
const CONFIG_DIR: &str = "config-dir";
const CONFIG_FORMAT: &str = "config-format";
const HCL: &str = "hcl";
const DEV: &str = "dev";
const IGNORE_UNSUPPORTED: &str = "ignore-unsupported";

/// The flags of `quorate agent`.
#[derive(Debug, Clone, Default)]
pub struct AgentArgs {
    /// A single throw-away server with its data in a temporary directory.
    pub(super) dev: bool,
    /// Everything else.
    pub(super) sources: Sources,
}

impl Args for AgentArgs {
    fn augment_args(command: Command) -> Command {
        let path = |name, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("PATH")
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf))
                .help(help)
        };
        command
            .arg(path(CONFIG_FILE, "File with Consul's keys, in JSON or HCL; may be repeated"))
            .arg(path(CONFIG_DIR, "Directory with such files, read in the order of their names"))
            .arg(
                Arg::new(CONFIG_FORMAT)
                    .long(CONFIG_FORMAT)
                    .value_parser(clap::value_parser!(Format))
                    .help("hcl or json: how every file is written, whatever its name"),
            )
            .arg(
                Arg::new(HCL)
                    .long(HCL)
                    .action(ArgAction::Append)
                    .help("Keys in HCL, as in a file; may be repeated"),
            )
            .arg(switch(DEV).help("A single throw-away server, its data in a temporary directory"))
            .arg(
                switch(IGNORE_UNSUPPORTED)
                    .help("Ignore keys for features that Quorate does not have (each is logged)"),
            )
            .args(FLAGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument((name, _, kind, help): &Flag) -> Arg {
    let plain = || Arg::new(*name).long(*name).action(ArgAction::Append);
    let argument = match kind {
        Switch => switch(name),
        Number => plain()
            .allow_negative_numbers(true)
            .value_parser(clap::value_parser!(i64))
            .value_name("N"),
        Text | List => plain().value_name("TEXT"),
        Pair => plain().value_name("KEY:VALUE"),
    };
    argument.help(*help)
}

/// A flag that may have a value, behind `=`, as Go's may.
fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::Append)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(switched)
        .value_name("true|false")
}

/// The values that Go reads as booleans.
fn switched(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

impl FromArgMatches for AgentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Value::Object(Map::new());
        for (name, key, kind, _) in FLAGS {
            if let Some(value) = value(matches, name, *kind)? {
                // Members of one stanza come from several flags.
                let said = key.rsplit('.').fold(value, |value, member| {
                    Value::Object(Map::from_iter([(member.to_owned(), value)]))
                });
                super::merge::merge(&mut flags, said);
            }
        }
        let Value::Object(flags) = flags else { unreachable!("objects merge into an object") };
        Ok(Self {
            dev: last(matches, DEV).unwrap_or(false),
            sources: Sources {
                flags,
                paths: paths(matches),
                format: matches.get_one(CONFIG_FORMAT).copied(),
                fragments: matches.get_many(HCL).into_iter().flatten().cloned().collect(),
                ignore_unsupported: last(matches, IGNORE_UNSUPPORTED).unwrap_or(false),
            },
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn value(matches: &ArgMatches, name: &str, kind: Kind) -> Result<Option<Value>, clap::Error> {
    let texts = || matches.get_many::<String>(name).into_iter().flatten();
    Ok(match kind {
        Switch => last::<bool>(matches, name).map(Value::from),
        Number => last::<i64>(matches, name).map(Value::from),
        Text => texts().next_back().cloned().map(Value::from),
        List => {
            Some(texts().cloned().collect::<Value>()).filter(|list| list != &Value::Array(vec![]))
        }
        Pair => {
            let mut pairs = Map::new();
            for text in texts() {
                let (key, value) = text.split_once(':').unwrap_or((text, ""));
                if key.is_empty() {
                    let error = format!("-{name} {text:?}: KEY:VALUE is expected\n");
                    return Err(clap::Error::raw(ErrorKind::ValueValidation, error));
                }
                pairs.insert(key.to_owned(), value.into());
            }
            Some(pairs).filter(|pairs| !pairs.is_empty()).map(Value::Object)
        }
    })
}

/// Of a flag that is given several times, the last counts.
fn last<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.get_many(name)?.next_back().cloned()
}

/// Files and directories in the order in which they were given.
fn paths(matches: &ArgMatches) -> Vec<PathBuf> {
    let mut given: Vec<(usize, &PathBuf)> = [CONFIG_FILE, CONFIG_DIR]
        .into_iter()
        .flat_map(|name| {
            let places = matches.indices_of(name).into_iter().flatten();
            places.zip(matches.get_many(name).into_iter().flatten())
        })
        .collect();
    given.sort_unstable();
    given.into_iter().map(|(_, path)| path.clone()).collect()
}

/// The command line with two dashes before each long name, where Consul's users write one; only
/// `agent` has such names.
pub fn with_two_dashes(arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|verb| verb != "agent") {
        return arguments;
    }
    let lengthen = |argument: OsString| match argument.to_str() {
        Some(text) if is_long(text) => format!("-{text}").into(),
        _ => argument,
    };
    arguments.into_iter().map(lengthen).collect()
}

/// A long flag with one dash, where only two are right. Its first letter would be taken for a flag: `-http-addr` for
/// a call for help.
pub fn one_dash(arguments: &[OsString]) -> Option<&str> {
    let flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    flags.filter_map(|argument| argument.to_str()).find(|text| is_long(text))
}

/// Whether an argument is a name of several letters behind one dash.
fn is_long(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|name| {
        name.len() > 1 && name.starts_with(|first: char| first.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        agent: AgentArgs,
    }

    #[test]
    fn a_long_flag_with_one_dash_is_found_unless_it_is_an_agents() {
        let found = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            one_dash(&with_two_dashes(words)).map(str::to_owned)
        };
        let flag = Some("-http-addr=127.0.0.1:1".to_owned());
        assert_eq!(found("quorate server -http-addr=127.0.0.1:1 --name a"), flag);
        assert_eq!(found("quorate dev -h"), None);
        assert_eq!(found("quorate agent -dev -http-port=1"), None);
        assert_eq!(found("quorate server --http-addr=127.0.0.1:1"), None);
    }

    fn parsed(arguments: &[&str]) -> Result<AgentArgs, String> {
        let words = ["quorate", "agent"].iter().chain(arguments).map(OsString::from).collect();
        let mut words = with_two_dashes(words);
        words.remove(1);
        Cli::try_parse_from(words).map(|cli| cli.agent).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_say_what_files_say() {
        let args = parsed(&[
            "-dev",
            "-ui",
            "-server=false",
            "-server=true",
            "-client",
            "127.0.0.1 ::1",
            "-dns-port",
            "-1",
            "-http-port=8501",
            "-node-meta",
            "a:b:c",
            "-node-meta=d",
            "-retry-join",
            "x",
            "--retry-join=y",
            "-bootstrap-expect=3",
            "-log-json",
            "-encrypt=k",
        ]);
        let args = args.unwrap();
        assert!(args.dev);
        assert_eq!(
            Value::Object(args.sources.flags),
            json!({
                "ui": true, "server": true, "client_addr": "127.0.0.1 ::1",
                "ports": {"dns": -1, "http": 8501}, "node_meta": {"a": "b:c", "d": ""},
                "retry_join": ["x", "y"], "bootstrap_expect": 3, "log_json": true, "encrypt": "k",
            })
        );
    }

    #[test]
    fn files_and_directories_keep_their_order() {
        let args = parsed(&[
            "-config-dir",
            "a",
            "-config-file=b",
            "-config-dir=c",
            "-config-file",
            "d",
            "-config-format=hcl",
            "-hcl",
            "x = 1",
        ]);
        let sources = args.unwrap().sources;
        assert_eq!(sources.paths, ["a", "b", "c", "d"].map(PathBuf::from));
        assert_eq!((sources.format, sources.fragments.len()), (Some(Format::Hcl), 1));
    }

    #[test]
    fn nonsense_is_refused() {
        for (arguments, word) in [
            (vec!["-nope"], "--nope"),
            (vec!["-ui=perhaps"], "ui"),
            (vec!["-http-port", "x"], "http-port"),
            (vec!["-node-meta", ":x"], "KEY:VALUE"),
            (vec!["-config-format=toml"], "config-format"),
        ] {
            let error = parsed(&arguments).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn every_flag_is_a_key() {
        for (name, key, ..) in FLAGS {
            let said = key.rsplit('.').fold(Value::Null, |value, member| {
                Value::Object(Map::from_iter([(member.to_owned(), value)]))
            });
            let mut findings = super::super::keys::Findings::default();
            super::super::keys::sift(said.as_object().unwrap().clone(), "", &mut findings);
            assert!(findings.refused.is_empty(), "{name}: {findings:?}");
        }
    }
}
