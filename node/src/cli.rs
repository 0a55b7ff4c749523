//! The command line: what the binaries do with their arguments.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::config::{ConfigError, ServerArgs, ServerConfig, remarks_on_environment};
use crate::consul_agent::client::{self, ClientSettings};
use crate::consul_agent::flags::{AgentArgs, with_two_dashes};
use crate::consul_agent::settings::{AgentSettings, LogSettings};
use crate::log_stream::{LevelHandle, Logs};
use crate::mutants;
use crate::recover::{self, RecoverArgs};
use crate::server::{self, Surroundings};

/// Exit code of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;

/// Service discovery that survives its leader: a Raft-replicated cluster with Consul's HTTP API.
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
    /// Runs a server with the flags and files of a Consul agent
    Agent(Box<AgentArgs>),
    /// Founds a new cluster from the data directory of a stopped server, when a majority is lost for good
    Recover(RecoverArgs),
}

/// Flags of `quorate dev`.
#[derive(Debug, Args)]
struct DevArgs {
    /// Where clients are served
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8500")]
    http_addr: SocketAddr,
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
    exit_code(carry_out(Cli::parse_from(arguments()).command))
}

/// What `quorate-mutants` can do beside what `quorate` can.
#[cfg(feature = "mutants")]
#[derive(Debug, Parser)]
#[command(version, about = "Deliberately broken servers, for the fault-injection suite to find")]
struct MutantsCli {
    #[command(subcommand)]
    command: MutantsVerb,
}

#[cfg(feature = "mutants")]
#[derive(Debug, Subcommand)]
enum MutantsVerb {
    /// Lists the mutants, one on each line, as JSON; QUORATE_MUTANT chooses one
    Mutants,
    #[command(flatten)]
    Quorate(Verb),
}

/// The `quorate-mutants` binary: the same, and the list of mutants.
#[cfg(feature = "mutants")]
#[must_use]
pub fn main_of_mutants() -> ExitCode {
    match MutantsCli::parse_from(arguments()).command {
        MutantsVerb::Quorate(verb) => exit_code(carry_out(verb)),
        MutantsVerb::Mutants => {
            print!("{}", mutants::list());
            ExitCode::SUCCESS
        }
    }
}

fn carry_out(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Server(args) => server(*args),
        Verb::Dev(args) => dev(&args),
        Verb::Agent(args) => agent(*args),
        Verb::Recover(args) => Ok(recover::run(&args)?),
    }
}

/// Says why a command failed, if it did.
fn exit_code(ended: Result<(), Failure>) -> ExitCode {
    let (code, error) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => (ExitCode::from(EXIT_USAGE), error.to_string()),
        Err(Failure::Failed(error)) => (ExitCode::FAILURE, error.to_string()),
    };
    eprintln!("quorate: {error}");
    code
}

/// The command line. `agent` takes Consul's flags, which may have one dash.
fn arguments() -> Vec<OsString> {
    with_two_dashes(std::env::args_os().collect())
}

/// Begins to log; the handle changes the level.
fn begin_log(settings: &LogSettings) -> Result<(Logs, LevelHandle), Failure> {
    let (stderr_filter, stderr_level) = reload::Layer::new(filter(settings.level));
    let (file_filter, file_level) = reload::Layer::new(filter(settings.level));
    let logs = Logs::default();
    let to_stderr = log_lines(settings.json, std::io::stderr).with_filter(stderr_filter);
    let to_file = match &settings.file {
        None => None,
        Some(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let told =
                |error| std::io::Error::other(format!("log_file {}: {error}", path.display()));
            let file = std::sync::Mutex::new(file.map_err(told)?);
            Some(log_lines(settings.json, file).with_filter(file_filter))
        }
    };
    tracing_subscriber::registry().with(to_stderr).with(to_file).with(logs.layer()).init();
    let set = move |level: &str| {
        // They fail only if the layers are gone, and then there is no log.
        let _ = stderr_level.reload(filter(level));
        let _ = file_level.reload(filter(level));
    };
    Ok((logs, LevelHandle::new(set)))
}

/// `QUORATE_LOG`, else everything from this level on.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env("QUORATE_LOG").unwrap_or_else(|_| {
        // openraft warns with every heartbeat that an absent peer does not answer; a line for each
        // change of state is ours to write.
        EnvFilter::new(format!("{level},openraft=error,sled=warn,hyper=warn"))
    })
}

/// A layer that writes lines: of text, or each a JSON object.
fn log_lines<S, W>(json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    if json { lines.json().boxed() } else { lines.boxed() }
}

fn server(args: ServerArgs) -> Result<(), Failure> {
    let mut config = args.resolve()?;
    config.remarks = remarks_on_environment();
    let (logs, _) = begin_log(&LogSettings { level: "info", ..LogSettings::default() })?;
    run(config, Surroundings { logs, ..Surroundings::default() })
}

fn dev(args: &DevArgs) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    server(ServerArgs {
        data_dir: Some(directory.path().join("data")),
        name: Some("dev".to_owned()),
        http_addr: Some(args.http_addr.into()),
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
    let config = settings.server_config(temporary.as_ref().map(tempfile::TempDir::path))?;
    let (logs, level) = begin_log(&settings.log)?;
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
    };
    run(config, surroundings)
}

fn client_agent(settings: AgentSettings) -> Result<(), Failure> {
    let config = settings.server_config(None)?;
    let (_, level) = begin_log(&settings.log)?;
    settings.notes.log();
    let _pid_file = settings.pid_file.map(PidFile::write).transpose()?;
    std::fs::create_dir_all(&config.data_dir)?;
    let settings = ClientSettings {
        name: config.agent_name,
        servers: settings.client_of.unwrap_or_default(),
        listeners: settings.listeners,
        sources: settings.sources,
        data_dir: config.data_dir,
        connections_per_client: settings.limits.connections_per_client,
        level,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(client::run(settings))?)
}

/// The file with this process's id, which is removed in the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> std::io::Result<Self> {
        std::fs::write(&path, format!("{}\n", std::process::id())).map_err(|error| {
            std::io::Error::new(error.kind(), format!("pid_file {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the file of the process id is left behind");
        }
    }
}

fn run(config: ServerConfig, surroundings: Surroundings) -> Result<(), Failure> {
    mutants::prepare(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(server::run(config, surroundings))?)
}
