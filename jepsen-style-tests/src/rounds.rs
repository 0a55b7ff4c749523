//! Sizes of tests: short by default, long when asked.

use std::str::FromStr;

/// What an environment variable sets, or `usual`.
///
/// # Panics
/// If the variable has another form: a long run that silently became a short one would be quoted for what it is not.
pub fn setting<T: FromStr>(variable: &str, usual: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")),
        Err(_) => usual,
    }
}

/// The environment variable that sets [`rounds`].
const ROUNDS: &str = "QUORATE_ROUNDS";

/// How often a test repeats its fault: `short` (for CI), unless `QUORATE_ROUNDS` is set.
pub fn rounds(short: u32) -> u32 {
    setting(ROUNDS, short)
}

/// Whether the long counts were asked for.
pub fn is_long_run() -> bool {
    std::env::var_os(ROUNDS).is_some()
}
