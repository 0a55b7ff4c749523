//! `jepsen-style-tests`: runs workloads against real servers while nemeses break things, and judges what
//! the clients saw. See the library's documentation, and `--help`.

use std::process::ExitCode;

use jepsen_style_tests::cli;

fn main() -> ExitCode {
    cli::main()
}
