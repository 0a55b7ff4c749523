//! What `/proc` says about processes.

use std::fs;
use std::time::Duration;

use jepsen_style_tests::process;

use crate::Failure;

/// The unit of processor times in `/proc/PID/stat`: a constant of Linux's interface to programs.
const TICKS_PER_SECOND: u32 = 100;

/// Resident memory of each process, in KiB.
pub(crate) fn resident_kib(pids: &[u32]) -> Result<Vec<u64>, Failure> {
    pids.iter().map(|pid| Ok(process::resident_kib(*pid)?)).collect()
}

/// Processor time of all these processes together, user and system.
pub(crate) fn processor_time(pids: &[u32]) -> Result<Duration, Failure> {
    pids.iter().map(|pid| processor_time_of(&pid.to_string())).sum()
}

/// Processor time of this process.
pub(crate) fn own_processor_time() -> Result<Duration, Failure> {
    processor_time_of("self")
}

fn processor_time_of(process: &str) -> Result<Duration, Failure> {
    let stat = read(&format!("/proc/{process}/stat"))?;
    // The second field is the program's name, in parentheses, and may contain anything. Behind it,
    // the times are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(user), Some(system)) = (times.next(), times.next()) else {
        return Err("no times in stat".into());
    };
    Ok(Duration::from_secs(1) / TICKS_PER_SECOND * (user? + system?))
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}").into())
}
