//! Checkers of histories, one per file. Each is a function from what was observed to a [`Verdict`], and has tests
//! with hand-made histories that it must reject or accept.
//!
//! To add one: a file here, called by the `judge` of its workload, or by `judge.rs` for every run; and a mutant in
//! `mutants/` that only this checker finds.

pub mod append;
pub mod availability;
pub mod bank;
pub(crate) mod checks;
pub(crate) mod claims;
pub mod counter;
pub mod coverage;
pub mod early_elections;
pub mod hashes;
pub mod linear;
pub(crate) mod lock;
pub(crate) mod look;
mod order;
pub(crate) mod presence;
pub mod process;
pub(crate) mod restarts;
pub(crate) mod session;
pub mod set;
pub(crate) mod stream;
pub mod terms;
pub(crate) mod ttl;
pub mod versions;
pub(crate) mod watch;
pub(crate) mod weather;

use std::fmt;

/// What a checker says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What was observed can be explained.
    Valid,
    /// It cannot; each sentence names one violation.
    Invalid(Vec<String>),
    /// Too little was observed to say anything; never to be counted as passed.
    Vacuous(String),
}

/// More violations than this are counted, not listed.
const SENTENCES_MAX: usize = 10;

impl Verdict {
    /// Valid if there are no violations.
    pub fn from_violations(violations: Vec<String>) -> Self {
        if violations.is_empty() { Self::Valid } else { Self::Invalid(violations) }
    }

    /// Whether the run is valid.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }

    /// Whether the run shows a violation.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }

    /// Ends a test whose run is not valid.
    ///
    /// # Panics
    /// With the violations, unless the verdict is [`Verdict::Valid`].
    pub fn require(&self, what: &str) {
        assert!(self.is_valid(), "{what}: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Vacuous(why) => write!(f, "vacuous: {why}"),
            Self::Invalid(violations) => {
                write!(f, "{} violations:", violations.len())?;
                for violation in violations.iter().take(SENTENCES_MAX) {
                    write!(f, "\n  {violation}")?;
                }
                Ok(())
            }
        }
    }
}
