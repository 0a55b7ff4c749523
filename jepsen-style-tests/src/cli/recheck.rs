//! `recheck`: checks a run again, from its files.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::table;
use crate::judge::{Overall, judge_and_write};
use crate::record::Record;
use crate::{Result, report};

/// Flags of `recheck`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The run's directory
    run: PathBuf,
}

/// Judges a run again and replaces its verdict and its report.
pub(super) fn recheck(args: &Args) -> Result<Overall> {
    let record = Record::load(&args.run)?;
    let conclusion = judge_and_write(&record)?;
    let report = report::write(&record, &conclusion)?;
    println!("{}", table::of_run(&record, &conclusion));
    println!("written to {}", report.display());
    Ok(conclusion.overall)
}
