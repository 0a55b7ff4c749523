//! What an operator says of the checks that a worker process runs.

use clap::Args;

use crate::checks::policy::{Policy, networks};

/// Flags of `quorate worker`; those of a server have the same names.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CheckArgs {
    /// Networks that checks may reach, and no others, such as 10.0.0.0/8 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NETWORK,...")]
    check_allow: Vec<String>,
    /// Networks that checks may not reach
    #[arg(long, value_delimiter = ',', value_name = "NETWORK,...")]
    check_deny: Vec<String>,
    /// Outputs of HTTP checks have the beginning of the answer
    #[arg(long)]
    check_output_body: bool,
}

impl CheckArgs {
    /// What they say.
    ///
    /// # Errors
    /// A sentence that names the flag.
    pub(super) fn policy(&self) -> Result<Policy, String> {
        policy(&self.check_allow, &self.check_deny, self.check_output_body)
    }
}

/// What checks may do, as settings say it.
///
/// # Errors
/// A sentence that names the setting.
pub(super) fn policy(
    allow: &[String],
    deny: &[String],
    shows_body: bool,
) -> Result<Policy, String> {
    let of = |flag: &str, texts: &[String]| {
        networks(texts).map_err(|text| {
            format!("{flag} {text:?}: a network such as 10.0.0.0/8, or an IP address")
        })
    };
    let (allow, deny) = (of("--check-allow", allow)?, of("--check-deny", deny)?);
    Ok(Policy { allow, deny, shows_body })
}
