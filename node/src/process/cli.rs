//! The command line: what the binary does with its arguments.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::{self, ClientVerb};
use crate::host::address::HostPort;
use crate::host::logging::{self, LogFormat, LogSettings};
use crate::host::path_error::at_path;
use crate::host::resources;
use crate::host::threads;
use crate::http::limits::OfOne;
use crate::process::config::{ConfigError, ServerArgs, ServerConfig, remarks_on_environment};
use crate::process::consul_agent::client::{self, ClientSettings};
use crate::process::consul_agent::flags::{AgentArgs, one_dash, with_two_dashes};
use crate::process::consul_agent::settings::AgentSettings;
use crate::process::issue::{self, TlsArgs};
use crate::process::recover::{self, RecoverArgs};
use crate::process::server::{self, Surroundings};
use crate::process::worker::{self, WorkerArgs};

/// Exit code of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;
/// Commands whose flags people know from Consul, with one dash.
const SERVER_VERBS: [&str; 4] = ["server", "dev", "recover", "worker"];

/// Service discovery that survives its leader: a Raft-replicated cluster with Consul's HTTP API.
///
/// `server`, `dev`, `agent` and `recover` run servers, and `worker` runs checks for them. All other commands ask a cluster through its public API; its
/// addresses are in QUORATE_HTTP_ADDR or --http-addr. Exit codes: 0 done, 1 failed or not found, 2 wrong usage, 3 no
/// leader or no server, 4 permission denied, 5 somebody else was first, 6 sent but not answered: it may have been done.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a server of a cluster
    Server(Box<ServerArgs>),
    /// Runs a single throw-away server, with its data in a temporary directory
    Dev(DevArgs),
    /// Runs a client agent, or with -server or -dev a server, with the flags and files of a Consul agent
    Agent(Box<AgentArgs>),
    /// Runs checks of a cluster, beside its servers
    Worker(Box<WorkerArgs>),
    /// Founds a new cluster from the data directory of a stopped server, when a majority is lost for good
    Recover(RecoverArgs),
    /// Makes the CA of a cluster, and certificates of its members and clients
    Tls(TlsArgs),
    #[command(flatten)]
    Client(Box<ClientVerb>),
    /// Prints the completions of a shell: `source <(quorate completions bash)`
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Flags of `quorate dev`.
#[derive(Debug, Args)]
struct DevArgs {
    /// Where clients are served
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8500")]
    http_addr: HostPort,
}

/// Why a command ended.
#[derive(Debug)]
enum Failure {
    /// Its settings make no sense.
    Usage(ConfigError),
    /// It failed.
    Failed(std::io::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The `quorate` binary: carries out the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = arguments();
    let runs_a_server =
        arguments.get(1).is_some_and(|verb| SERVER_VERBS.iter().any(|name| verb == name));
    if let Some(flag) = one_dash(&arguments).filter(|_| runs_a_server) {
        let text = format!(
            "{flag}: flags have two dashes here, as in -{flag}; `quorate agent` takes Consul's flags with one"
        );
        return exit_code(Err(Failure::Usage(ConfigError::Invalid(text))));
    }
    let command = match Cli::try_parse_from(arguments) {
        Ok(Cli { command }) => command,
        Err(error) if error.use_stderr() => error.exit(),
        // Help, and the version: what was asked for.
        Err(error) => return cli::printed(error.print()),
    };
    exit_code(match command {
        Verb::Server(args) => server(*args),
        Verb::Dev(args) => dev(&args),
        Verb::Agent(args) => agent(*args),
        Verb::Recover(args) => recover::run(&args).map_err(Failure::Failed),
        Verb::Tls(args) => issue::run(args).map_err(Failure::Failed),
        Verb::Client(verb) => return cli::main(*verb),
        Verb::Worker(args) => return worker::main(*args),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut text);
            return cli::print(&text);
        }
    })
}

/// Says why a command failed, if it did.
fn exit_code(ended: Result<(), Failure>) -> ExitCode {
    let (code, error) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (ExitCode::from(EXIT_USAGE), error.to_string()),
        Err(Failure::Failed(error)) => (ExitCode::FAILURE, error.to_string()),
    };
    cli::note(&error);
    code
}

/// The command line. `agent` takes Consul's flags, which may have one dash.
fn arguments() -> Vec<OsString> {
    with_two_dashes(std::env::args_os().collect())
}

fn server(args: ServerArgs) -> Result<(), Failure> {
    let mut config = args.resolve()?;
    config.remarks = remarks_on_environment();
    let json = config.log_format == LogFormat::Json;
    let (logs, _) = logging::begin(&LogSettings { level: "info", json, ..LogSettings::default() })
        .map_err(ConfigError::Invalid)?;
    run(config, Surroundings { logs, ..Surroundings::default() })
}

fn dev(args: &DevArgs) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    server(ServerArgs {
        data_dir: Some(directory.path().join("data")),
        name: Some("dev".to_owned()),
        http_addr: Some(args.http_addr.clone()),
        // Nobody else needs to know it, so it must not be in the way of a cluster on this machine.
        rpc_addr: Some(free_loopback_address()?.into()),
        // A server of its own is what was asked for.
        bootstrap_expect: Some(1),
        ..ServerArgs::default()
    })
}

/// An address at which nobody listens now.
fn free_loopback_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn agent(args: AgentArgs) -> Result<(), Failure> {
    let settings = args.resolve()?;
    if settings.client_of.is_some() {
        return client_agent(settings);
    }
    let temporary = match settings.server.data_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let mut config = settings.server_config(temporary.as_ref().map(tempfile::TempDir::path))?;
    // As Consul's agents do, unless `discard_check_output` says otherwise.
    config.check_policy.shows_body = true;
    if let Some(max) = settings.limits.connections_per_client {
        config.http_limits.connections_of_one = OfOne::AtMost(max);
    }
    let (logs, level) = logging::begin(&settings.log).map_err(ConfigError::Invalid)?;
    settings.notes.log();
    let _pid_file = settings.pid_file.map(PidFile::write).transpose()?;
    let surroundings = Surroundings {
        logs,
        level,
        response_headers: settings.response_headers,
        sources: settings.sources,
        listeners: Some(settings.listeners),
        limits: settings.limits,
        check_output: settings.check_output,
        dns: Some(settings.dns),
    };
    run(config, surroundings)
}

fn client_agent(settings: AgentSettings) -> Result<(), Failure> {
    let config = settings.server_config(None)?;
    let (_, level) = logging::begin(&settings.log).map_err(ConfigError::Invalid)?;
    settings.notes.log();
    let _pid_file = settings.pid_file.map(PidFile::write).transpose()?;
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| at_path("-data-dir (data_dir)", &config.data_dir, &error))?;
    // One that is not given is any.
    let datacenter = settings.server.datacenter.map(|_| config.datacenter.clone());
    let settings = ClientSettings {
        datacenter,
        advertised: settings.advertised,
        tokens: settings.tokens,
        name: config.agent_name.clone(),
        servers: settings.client_of.unwrap_or_default(),
        listeners: settings.listeners,
        sources: settings.sources,
        data_dir: config.data_dir.clone(),
        connections_per_client: settings.limits.connections_per_client,
        level,
        leave: settings.leave,
        config,
    };
    raise_limits();
    Ok(threads::main_runtime()?.block_on(client::run(settings))?)
}

/// The file with this process's id, which is removed in the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> std::io::Result<Self> {
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .map_err(|error| at_path("-pid-file (pid_file)", &path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the file with the process id");
        }
    }
}

fn run(config: ServerConfig, surroundings: Surroundings) -> Result<(), Failure> {
    raise_limits();
    let ended = threads::main_runtime()?.block_on(server::run(config, surroundings));
    if let Err(error) = &ended {
        tracing::error!(%error, "ended");
    }
    Ok(ended?)
}

fn raise_limits() {
    if let Err(why) = resources::raise_limits() {
        tracing::warn!("{why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throw_away_server_is_served_at_a_name_too() {
        let line = ["quorate", "dev", "--http-addr", "localhost:21401"];
        let Verb::Dev(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not dev") };
        assert_eq!(args.http_addr.to_string(), "localhost:21401");
    }
}
