//! The `quorate-mutants` binary: `quorate`, and its deliberately broken variants.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    quorate::process::cli::main_of_mutants()
}
