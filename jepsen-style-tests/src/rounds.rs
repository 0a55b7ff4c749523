//! How long a test goes on: short by default, long when asked.

/// How often a test repeats its fault: `short` (for CI), unless the environment variable
/// `QUORATE_ROUNDS` says otherwise.
///
/// # Panics
/// If the variable is not a number: a long run that silently became a short one would be quoted
/// for what it is not.
pub fn rounds(short: u32) -> u32 {
    match std::env::var("QUORATE_ROUNDS") {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("QUORATE_ROUNDS is {text:?}, not a number"))
        }
        Err(_) => short,
    }
}

/// Whether the long counts were asked for.
pub fn is_long_run() -> bool {
    std::env::var_os("QUORATE_ROUNDS").is_some()
}
