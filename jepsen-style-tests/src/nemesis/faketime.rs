//! Wrong clocks while a server runs: libfaketime, loaded into the server, reads the offset and rate of its clocks
//! from a file each time the server asks for the time.
//!
//! At the real moment `t` the server sees `t + offset + (t - start) * (rate - 1)`, where `start` is when its
//! process began. Its sleeps and timeouts follow that clock.
//!
//! No real machine has a monotonic clock that jumps back, and no program could cope with one. So either only the
//! wall clock is faked ([`Scope::Wall`]) and jumps both ways, or both are ([`Scope::Both`]) and jump forward only.
//! The choice is made when a process starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cluster::{Cluster, Options};
use crate::http::Http;
use crate::{Failure, Result};

/// Where Debian, Fedora and others put the library for programs with threads.
const LIBRARIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
    "/opt/homebrew/lib/faketime/libfaketimeMT.so.1",
];
const PRELOAD: &str = "LD_PRELOAD";
const SETTING_FILE: &str = "FAKETIME_TIMESTAMP_FILE";
const NOT_MONOTONIC: &str = "FAKETIME_DONT_FAKE_MONOTONIC";
/// The library keeps shared memory for each process, in files named after its id, and refuses to begin if
/// there are some already. A killed process leaves them behind.
const FORGET_OWN_PREDECESSOR: &str = "rm -f /dev/shm/faketime_shm_$$ /dev/shm/sem.faketime_sem_$$";
/// A process that was just killed is still there for a moment, and then perhaps nobody has waited for it yet.
const FORGET_ENDED: &str = "sleep 0.5; for file in /dev/shm/faketime_shm_*; do pid=${file##*_}; \
                            [ -e /proc/$pid/exe ] || rm -f $file /dev/shm/sem.faketime_sem_$pid; done";
/// Units of `/proc/PID/stat`: the kernel's interface has a hundred per second, whatever it counts itself.
const TICKS_PER_SECOND: f64 = 100.0;
/// When a process began is known to about this, times the change of rate; a clock must not go back.
const MARGIN_S: f64 = 0.05;
/// A server whose clock just jumped closes the connections that were idle for too long by that clock, perhaps
/// while a request is on its way. So it is asked again.
const READING_TRIES: u32 = 5;

/// Which clocks are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The wall clock alone.
    Wall,
    /// The monotonic clock with it.
    Both,
}

/// What a server's clocks are set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Setting {
    /// Seconds.
    pub(super) offset_s: f64,
    /// Seconds of its own per real second.
    pub(super) rate: f64,
}

impl Setting {
    const TRUE: Self = Self { offset_s: 0.0, rate: 1.0 };

    /// As the library reads it.
    fn text(self) -> String {
        format!("{:+.3} x{:.3}\n", self.offset_s, self.rate)
    }

    fn parse(text: &str) -> Option<Self> {
        let (offset, rate) = text.trim().split_once(" x")?;
        Some(Self { offset_s: offset.parse().ok()?, rate: rate.parse().ok()? })
    }

    /// Another rate from now on, for a process that began `age_s` ago: its clock goes on from where it is,
    /// or from a little later.
    fn at_rate(self, rate: f64, age_s: f64) -> Self {
        Self { offset_s: self.offset_s + age_s * (self.rate - rate) + MARGIN_S, rate }
    }

    /// The same, so much later or earlier.
    pub(super) fn moved(self, by_s: f64) -> Self {
        Self { offset_s: self.offset_s + by_s, ..self }
    }
}

/// The clocks of a cluster's servers.
#[derive(Debug)]
pub(super) struct Clocks {
    files: PathBuf,
    _temporary: Option<TempDir>,
}

impl Clocks {
    /// Has the servers started with the library. The error is the reason why that cannot be.
    pub(super) fn prepare(options: &mut Options, scope: Scope) -> Result<Self> {
        let library = LIBRARIES.iter().find(|path| Path::new(path).is_file()).ok_or_else(|| {
            Failure::new("libfaketime (Debian's package faketime) is not installed")
        })?;
        let set = |name: &str| options.environment.iter().find(|(is, _)| is == name);
        if let Some((_, files)) = set(SETTING_FILE) {
            let present = if set(NOT_MONOTONIC).is_some() { Scope::Wall } else { Scope::Both };
            if present != scope {
                return Err(Failure::new(
                    "another nemesis of this run has other clocks faked: use them in separate runs",
                ));
            }
            let files = Path::new(files).parent().unwrap_or(Path::new("/")).to_owned();
            return Ok(Self { files, _temporary: None });
        }
        let temporary = if options.dir.is_some() { None } else { Some(tempfile::tempdir()?) };
        let given = options.dir.as_deref().or(temporary.as_ref().map(TempDir::path));
        let files = given.unwrap_or(Path::new("/")).to_owned();
        for id in 1..=options.nodes {
            write(&files, id, Setting::TRUE)?;
        }
        load(options, library, &files, scope);
        Ok(Self { files, _temporary: temporary })
    }

    /// What a server's clocks are set to.
    pub(super) fn setting(&self, id: u64) -> Result<Setting> {
        let text = fs::read_to_string(file(&self.files, id))?;
        Setting::parse(&text)
            .ok_or_else(|| Failure::new(format!("not a clock's setting: {text:?}")))
    }

    /// Sets a server's clocks; it sees it the next time it asks.
    pub(super) fn set(&self, id: u64, setting: Setting) -> Result<()> {
        write(&self.files, id, setting)
    }

    /// Sets the rate of a server's clocks, which do not go back by it.
    pub(super) fn set_rate(&self, cluster: &Cluster, id: u64, rate: f64) -> Result<()> {
        let age_s = cluster.pid(id).map_or(Ok(0.0), age_s)?;
        self.set(id, self.setting(id)?.at_rate(rate, age_s))
    }
}

/// Adds the library and its settings to what servers start with, with other libraries that are preloaded.
fn load(options: &mut Options, library: &str, files: &Path, scope: Scope) {
    let files = format!("{}/n{{id}}.clock", files.display());
    let environment = &mut options.environment;
    match environment.iter_mut().find(|(name, _)| name == PRELOAD) {
        Some((_, libraries)) => *libraries = format!("{libraries}:{library}"),
        None => environment.push((PRELOAD.to_owned(), library.to_owned())),
    }
    // Files must keep their real times: a data directory has no part in this.
    for (name, value) in
        [(SETTING_FILE, files.as_str()), ("FAKETIME_NO_CACHE", "1"), ("NO_FAKE_STAT", "1")]
    {
        environment.push((name.to_owned(), value.to_owned()));
    }
    if scope == Scope::Wall {
        environment.push((NOT_MONOTONIC.to_owned(), "1".to_owned()));
    }
    options.before_start.push(FORGET_OWN_PREDECESSOR.to_owned());
    options.at_end.push(FORGET_ENDED.to_owned());
}

fn file(files: &Path, id: u64) -> PathBuf {
    files.join(format!("n{id}.clock"))
}

/// In one step: a server may read it at any moment.
fn write(files: &Path, id: u64, setting: Setting) -> Result<()> {
    let beside = files.join(format!("n{id}.clock.new"));
    fs::write(&beside, setting.text())?;
    Ok(fs::rename(beside, file(files, id))?)
}

/// How long ago a process began, in seconds.
fn age_s(pid: u32) -> Result<f64> {
    let strange = || Failure::new(format!("the start of process {pid} is not known"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime_s: f64 =
        uptime.split(' ').next().and_then(|text| text.parse().ok()).ok_or_else(strange)?;
    Ok(uptime_s - started_s(&stat).ok_or_else(strange)?)
}

/// When a process began, in seconds since the machine did. Its name, in parentheses, may have spaces.
fn started_s(stat: &str) -> Option<f64> {
    const FIELDS_BETWEEN: usize = 19;
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(FIELDS_BETWEEN)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// What a server takes the time for, seen from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    wall_s: f64,
    at: Instant,
}

impl Reading {
    /// Asks a server for its wall clock.
    pub(super) async fn take(http: &Http) -> Result<Self> {
        for _ in 1..READING_TRIES {
            if let Ok(reading) = Self::try_take(http).await {
                return Ok(reading);
            }
        }
        Self::try_take(http).await
    }

    async fn try_take(http: &Http) -> Result<Self> {
        let asked = Instant::now();
        let host = http.must_get("/v1/agent/host").await?;
        let nanos = host["CollectionTime"].as_f64();
        let nanos = nanos.ok_or_else(|| Failure::new(format!("no CollectionTime in {host}")))?;
        Ok(Self { wall_s: nanos / 1e9, at: asked + asked.elapsed() / 2 })
    }

    /// How much further its clock is than it would be at the right rate since `earlier`, in seconds.
    pub(super) fn ahead_since(self, earlier: Self) -> f64 {
        self.wall_s - earlier.wall_s - self.real_s_since(earlier)
    }

    /// Seconds of its clock per real second since `earlier`.
    pub(super) fn rate_since(self, earlier: Self) -> f64 {
        (self.wall_s - earlier.wall_s) / self.real_s_since(earlier)
    }

    fn real_s_since(self, earlier: Self) -> f64 {
        self.at.duration_since(earlier.at).as_secs_f64()
    }
}

/// Has a server hold a request for `wait` of its own monotonic clock, and returns how long that took. What
/// the request waits for is beyond any index, so nothing but the clock ends it.
pub(super) async fn hold_request(http: &Http, wait: Duration) -> Result<Duration> {
    const NEVER: u64 = 1 << 62;
    let path = format!("/v1/kv/nemesis/clock?stale&index={NEVER}&wait={}ms", wait.as_millis());
    let asked = Instant::now();
    let answer = http.get(&path).await?;
    if answer.status != 404 {
        return Err(Failure::new(format!("GET {path}: {} {}", answer.status, answer.text())));
    }
    Ok(asked.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_as_it_was_written() {
        for (setting, text) in [
            (Setting::TRUE, "+0.000 x1.000\n"),
            (Setting { offset_s: -3600.25, rate: 0.7 }, "-3600.250 x0.700\n"),
        ] {
            assert_eq!(setting.text(), text);
            assert_eq!(Setting::parse(text), Some(setting));
        }
        assert_eq!(Setting::parse("x1"), None);
    }

    /// What a clock shows `age_s` after its process began.
    fn shown(setting: Setting, age_s: f64) -> f64 {
        age_s * setting.rate + setting.offset_s
    }

    #[test]
    fn a_clock_goes_on_when_its_rate_changes() {
        let slow = Setting::TRUE.moved(60.0).at_rate(0.7, 100.0);
        assert!((shown(slow, 100.0) - 160.0 - MARGIN_S).abs() < 1e-9);
        let right = slow.at_rate(1.0, 110.0);
        assert!((shown(right, 110.0) - 167.0 - 2.0 * MARGIN_S).abs() < 1e-9);
        assert!((shown(right, 111.0) - shown(right, 110.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_process_began_when_its_twenty_second_field_says() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4321 20 21";
        assert_eq!(started_s(stat), Some(43.21));
        assert!(age_s(std::process::id()).unwrap() < 3_600.0);
    }

    #[test]
    fn clocks_of_two_scopes_are_not_faked_in_one_run() {
        let mut options = Options::default();
        let Ok(_wall) = Clocks::prepare(&mut options, Scope::Wall) else {
            return crate::skipped("faked clocks", "libfaketime is not installed");
        };
        assert!(Clocks::prepare(&mut options, Scope::Wall).is_ok());
        assert!(Clocks::prepare(&mut options, Scope::Both).is_err());
        let preloads = options.environment.iter().filter(|(name, _)| name == PRELOAD);
        assert_eq!(preloads.count(), 1);
    }
}
