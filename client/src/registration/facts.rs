//! What a process says of itself without being asked.

use std::sync::LazyLock;

/// When this process first asked, in milliseconds since 1970. A later process of the same instance has a larger one.
static STARTED: LazyLock<u64> = LazyLock::new(|| {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is told to people, and compared with nothing here"
    )]
    let now = std::time::SystemTime::now();
    let since_1970 = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
});

/// Facts about this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The name of its program.
    pub(super) process: String,
    pub(super) pid: u64,
    pub(super) started: u64,
}

impl Facts {
    pub(super) fn of_this_process() -> Self {
        let program = std::env::current_exe().ok();
        let process = program.as_deref().and_then(|path| path.file_name()?.to_str());
        Self {
            process: process.unwrap_or_default().to_owned(),
            pid: std::process::id().into(),
            started: *STARTED,
        }
    }
}

/// An id that is the same after a restart, and that no other host and no other port has: `web-host1-8080`. Where there is
/// no port, the process id stands for it.
pub(super) fn default_id(service: &str, port: i64) -> String {
    let host = hostname::get().ok().and_then(|name| name.into_string().ok());
    let host = host.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned());
    let last = if port > 0 { port } else { std::process::id().into() };
    format!("{service}-{host}-{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_same_each_time_it_is_asked() {
        let facts = Facts::of_this_process();
        assert_eq!(facts, Facts::of_this_process());
        assert!(!facts.process.is_empty() && facts.pid > 0 && facts.started > 1_700_000_000_000);
    }

    #[test]
    fn an_id_is_the_hosts_and_the_ports() {
        let id = default_id("web", 8080);
        assert!(id.starts_with("web-") && id.ends_with("-8080"), "{id}");
        assert_eq!(id, default_id("web", 8080));
        assert_ne!(id, default_id("web", 8081));
    }
}
