//! What servers and worker processes tell each other.
//!
//! A worker opens a stream with its [`Terms`]. On it come [`Frame`]s: the checks that are its to run, each again
//! whenever something about it changes, and cluster time. It sends [`Results`] in requests of their own. Both ends are
//! this binary, perhaps of two versions: a server refuses a protocol that it does not know.

use std::net::SocketAddr;

use quorate_storage::record::{CheckDefinition, CheckStatus, Lease};
use serde::{Deserialize, Serialize};

use super::assigned::{Assigned, Shown, ShownOutput};

/// The version of what is told here.
pub(crate) const PROTOCOL: u32 = 1;
/// Where a worker's stream is opened; below it, under its name, results are sent.
pub(crate) const PATH: &str = "/v1/quorate/worker";
/// What stands behind the name where results are sent.
pub(crate) const RESULTS: &str = "/results";

/// Who wants to run checks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(crate) struct Terms {
    /// The worker's name.
    pub(crate) name: String,
    /// The network in which it runs checks, or empty.
    pub(crate) network: String,
    /// Its process: a UUID.
    pub(crate) owner: String,
    /// Larger than that of every earlier stream under this name.
    pub(crate) attempt: u64,
    /// See [`PROTOCOL`].
    pub(crate) protocol: u32,
}

/// Something about a worker's checks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Frame {
    /// Cluster time in milliseconds.
    pub(crate) time: u64,
    /// Checks that are the worker's, new or changed.
    pub(crate) set: Vec<SetCheck>,
    /// Numbers of checks that are not any more.
    pub(crate) gone: Vec<u64>,
    /// Where the cluster's servers serve each other: no check goes there. Earlier servers do not say.
    pub(crate) servers: Vec<SocketAddr>,
}

/// A check that is a worker's to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SetCheck {
    check: u64,
    probe: u64,
    rank: u32,
    observers: u32,
    host: Option<String>,
    definition: CheckDefinition,
    shown: Option<SetShown>,
}

/// What the cluster has as the worker's view.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SetShown {
    status: String,
    output: u64,
}

impl SetCheck {
    pub(crate) fn new(what: &Assigned, shown: Option<&Shown>) -> Self {
        Self {
            check: what.check,
            probe: what.probe,
            rank: what.rank,
            observers: what.observers,
            host: what.host.as_deref().map(str::to_owned),
            definition: what.definition.as_ref().clone(),
            shown: shown.map(|shown| SetShown {
                status: shown.status.as_str().to_owned(),
                output: shown.output.digest(),
            }),
        }
    }

    pub(crate) fn into_parts(self) -> (Assigned, Option<Shown>) {
        let shown = self.shown.map(|shown| Shown {
            status: CheckStatus::from_text(&shown.status),
            output: ShownOutput::Digest(shown.output),
        });
        let assigned = Assigned {
            check: self.check,
            probe: self.probe,
            definition: self.definition.into(),
            rank: self.rank,
            observers: self.observers,
            host: self.host.map(Into::into),
        };
        (assigned, shown)
    }
}

/// What a worker found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(crate) struct Results {
    /// As its stream said.
    pub(crate) lease: String,
    /// 1, 2, 3, ... under this lease.
    pub(crate) seq: u64,
    /// At most [`RESULTS_MAX`](quorate_storage::limits::RESULTS_MAX).
    pub(crate) results: Vec<ResultOfRun>,
}

/// What a run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ResultOfRun {
    pub(crate) check: u64,
    pub(crate) probe: u64,
    pub(crate) status: String,
    pub(crate) output: String,
}

/// A lease as text.
pub(crate) fn lease_text(lease: Lease) -> String {
    format!("{}/{}/{}", lease.origin, lease.incarnation, lease.seq)
}

/// Reads it back.
pub(crate) fn parse_lease(text: &str) -> Option<Lease> {
    let mut parts = text.split('/').map(|part| part.parse().ok());
    let mut part = || parts.next().flatten();
    let lease = Lease { origin: part()?, incarnation: part()?, seq: part()? };
    parts.next().is_none().then_some(lease)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_storage::Millis;
    use quorate_storage::record::LaterMembers;

    use super::*;

    #[test]
    fn a_check_is_the_same_at_both_ends() {
        let later = LaterMembers { observers: 3, network: "dmz".into(), ..LaterMembers::default() };
        let header = Some([("A".to_owned(), vec!["b".to_owned()])].into());
        let definition = CheckDefinition {
            interval: Millis(10_000),
            http: "http://127.0.0.1:80/".to_owned(),
            header,
            later,
            ..CheckDefinition::default()
        };
        let what = Assigned {
            check: 7,
            probe: 8,
            definition: Arc::new(definition),
            rank: 1,
            observers: 3,
            host: Some("10.0.0.5".into()),
        };
        let shown =
            Shown { status: CheckStatus::Warning, output: ShownOutput::Text("slow".to_owned()) };
        let sent = serde_json::to_string(&SetCheck::new(&what, Some(&shown))).unwrap();
        let (there, seen) = serde_json::from_str::<SetCheck>(&sent).unwrap().into_parts();
        assert_eq!(there, what);
        let seen = seen.unwrap();
        assert!(
            seen.status == CheckStatus::Warning && seen.output.is("slow") && !seen.output.is("")
        );
    }

    #[test]
    fn a_lease_is_three_numbers() {
        let lease = Lease { origin: 1, incarnation: 2, seq: 300 };
        assert_eq!(parse_lease(&lease_text(lease)), Some(lease));
        for nonsense in ["", "1/2", "1/2/3/4", "a/b/c", "1/2/-3"] {
            assert_eq!(parse_lease(nonsense), None, "{nonsense}");
        }
    }
}
