//! The `quorate` binary: the server, and later the command-line tools.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    quorate::process::cli::main()
}
