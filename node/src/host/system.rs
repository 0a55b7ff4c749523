//! What there is to say of the machine that a server runs on: `GET /v1/agent/host`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::sys::sysinfo::sysinfo;
use nix::sys::utsname::{UtsName, uname};
use quorate_client::types::agent::{Disk, Host, HostInfo, Memory, Processor};

use crate::host::clock;

/// The machine, as far as it can be read; what cannot is told in `Errors`. Reads files.
#[must_use]
pub fn describe(data_dir: Option<&Path>) -> HostInfo {
    let mut errors = Vec::new();
    HostInfo {
        memory: read("/proc/meminfo", &mut errors).map(|text| memory(&text)),
        cpu: read("/proc/cpuinfo", &mut errors).map_or_else(Vec::new, |text| processors(&text)),
        host: Some(host(&mut errors)),
        disk: data_dir.and_then(|path| disk(path, &mut errors)),
        collection_time: clock::wall_time().unix_nanos(),
        errors: (!errors.is_empty()).then_some(errors),
    }
}

fn read(path: &str, errors: &mut Vec<String>) -> Option<String> {
    fs::read_to_string(path).map_err(|error| errors.push(format!("{path}: {error}"))).ok()
}

fn memory(text: &str) -> Memory {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0).saturating_mul(1024)
    };
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    let used = total.saturating_sub(available);
    Memory { total, available, used, used_percent: percent(used, total), free: bytes("MemFree") }
}

/// `/proc/cpuinfo`: a paragraph for each processor.
fn processors(text: &str) -> Vec<Processor> {
    let paragraphs = text.split("\n\n").filter(|paragraph| paragraph.starts_with("processor"));
    paragraphs
        .map(|paragraph| {
            let value = |name: &str| {
                let line = paragraph.lines().find(|line| line.trim_end().starts_with(name));
                line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
            };
            Processor {
                cpu: value("processor").parse().unwrap_or(0),
                vendor_id: value("vendor_id").to_owned(),
                model_name: value("model name").to_owned(),
                mhz: value("cpu MHz").parse().unwrap_or(0.0),
                cores: 1,
            }
        })
        .collect()
}

fn host(errors: &mut Vec<String>) -> Host {
    let names = uname().map_err(|error| errors.push(format!("uname: {error}"))).ok();
    let name = |field: fn(&UtsName) -> &OsStr| {
        names.as_ref().map_or_else(String::new, |names| field(names).to_string_lossy().into_owned())
    };
    let uptime = sysinfo().map_err(|error| errors.push(format!("sysinfo: {error}"))).ok();
    let seconds = uptime.map_or(0, |system| system.uptime().as_secs());
    Host {
        hostname: name(UtsName::nodename),
        uptime: seconds,
        boot_time: (clock::wall_time().unix_nanos() / 1_000_000_000).saturating_sub(seconds),
        os: std::env::consts::OS.to_owned(),
        kernel_version: name(UtsName::release),
        kernel_arch: std::env::consts::ARCH.to_owned(),
    }
}

/// The disk that the data directory is on.
fn disk(path: &Path, errors: &mut Vec<String>) -> Option<Disk> {
    let figures =
        statvfs(path).map_err(|error| errors.push(format!("{}: {error}", path.display()))).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(figures.fragment_size());
    let (total, free) = (bytes(figures.blocks()), bytes(figures.blocks_available()));
    let used = total.saturating_sub(bytes(figures.blocks_free()));
    Some(Disk {
        path: path.display().to_string(),
        total,
        free,
        used,
        used_percent: percent(used, total),
    })
}

/// In hundredths of a percent, which a float shows exactly enough.
fn percent(part: u64, whole: u64) -> f64 {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let memory = memory("MemTotal:  1000 kB\nMemFree:   100 kB\nMemAvailable:  250 kB\n");
        assert_eq!((memory.total, memory.used, memory.free), (1_024_000, 768_000, 102_400));
        assert!((memory.used_percent - 75.0).abs() < 0.01);
    }

    #[test]
    fn each_processor_is_listed() {
        let text = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2000.5\n\nprocessor\t: 1\n\n";
        let listed = processors(text);
        assert_eq!((listed.len(), listed[0].model_name.as_str(), listed[1].cpu), (2, "A", 1));
    }

    #[test]
    fn the_host_has_the_names_and_the_uptime_that_the_kernel_shows_in_its_files() {
        let file = |path| fs::read_to_string(path).unwrap().trim().to_owned();
        let mut errors = Vec::new();
        let host = host(&mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(host.hostname, file("/proc/sys/kernel/hostname"));
        assert_eq!(host.kernel_version, file("/proc/sys/kernel/osrelease"));
        assert!(host.uptime > 0 && host.boot_time > 0);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let info = describe(Some(Path::new("/no/such/directory")));
        assert!(info.disk.is_none());
        assert!(info.errors.unwrap()[0].contains("/no/such/directory"));
    }
}
