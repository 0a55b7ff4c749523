//! `jepsen-style-tests`: runs workloads against real servers while nemeses inject faults, and checks what the
//! clients saw. See the library's documentation, and `--help`.

use std::process::ExitCode;

use jepsen_style_tests::cli;

fn main() -> ExitCode {
    cli::main()
}
