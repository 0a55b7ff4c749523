//! The `quorate` binary: the server, and the commands that ask a cluster.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    quorate::process::cli::main()
}
