//! The encodings that lie on disks: every command, outcome, refusal and snapshot record, byte by
//! byte. A log or snapshot of the previous release must stay readable, so a changed line is a broken
//! format, never something to accept in passing; only new lines are added.
//!
//! `UPDATE_GOLDEN=1` writes the files. A variant without a line is found by asking the decoder how
//! many variants there are.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::command::{
    AclCommand, AclRefusal, Asked, Batch, Beat, Beats, BeatsOutcome, Boot, CatalogRegistration,
    ClaimLimit, ClaimRequest, ClaimsCommand, Command, Denial, Duty, KvDeleteMode, KvPutMode,
    LinkRequest, LinkRequests, LogEnd, Outcome, Part, Permits, PolicyRequest, PresenceOpen,
    PresenceReopen, ProcessPresence, Refused, Rejection, Renewal, Renewals, RoleRequest, RunResult,
    ServerRecord, SessionRequest, Stamp, TokenRequest, Work, WorkerOpen, WorkerResults,
    WorkersCommand,
};
use quorate_storage::raft::{BootId, Position};
use quorate_storage::record::{
    Access, AclKind, AclLinks, AclPolicy, AclRole, AclRule, AclToken, Attachment, Authority,
    Autopilot, AutopilotSettings, Cause, Check, CheckDefinition, CheckRegistration, CheckStatus,
    Claim, ClaimEnd, ClaimFacts, ClaimPhase, ClosedSlot, Coordinate, DefaultPolicy, Detail,
    EndedPresence, Event, Facts, Grant, HistoryKind, HistoryRecord, Indexes, KvEntry, LaterMembers,
    Lease, Node, NodeIdentity, NodeKind, OnClose, PoolCounts, PoolMember, Presence, PresenceEnd,
    PresenceTerms, Query, QueryDefinition, RequestFacts, Said, SecretHash, Service, ServiceAddress,
    ServiceDefinition, ServiceIdentity, Session, SessionBehavior, Standing, Subject, Tags, TextMap,
    View, Views, WallTime, Weights, Worker, WorkerId, WorkerProcess,
};
use quorate_storage::state::{
    AclHeader, ClaimsHeader, HistoryHeader, ServerBoot, SnapshotRecord, StateHeader, TableIndexes,
    Tombstone, TopicIndexes,
};
use quorate_storage::txn::{KeyVerb, RowVerb, TxnError, TxnOperation, TxnResult};
use quorate_storage::{ClusterTime, Index, Millis};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn text_map() -> TextMap {
    [("k".to_owned(), "v".to_owned())].into()
}

fn indexes() -> Indexes {
    Indexes { create: Index(300), modify: Index(70_000) }
}

fn definition() -> CheckDefinition {
    CheckDefinition {
        interval: Millis(1),
        timeout: Millis(2),
        deregister_critical_service_after: Millis(90_000),
        ttl: Millis(10_000),
        http: "http".to_owned(),
        method: "GET".to_owned(),
        header: Some([("h".to_owned(), vec!["1".to_owned(), "2".to_owned()])].into()),
        body: "body".to_owned(),
        tls_server_name: "tls".to_owned(),
        tls_skip_verify: true,
        tcp: "tcp".to_owned(),
        grpc: "grpc".to_owned(),
        grpc_use_tls: true,
        udp: "udp".to_owned(),
        h2ping: "h2".to_owned(),
        alias_node: "an".to_owned(),
        alias_service: "as".to_owned(),
        success_before_passing: 3,
        failures_before_warning: 4,
        failures_before_critical: 5,
        output_max_bytes: 6,
        disable_redirects: true,
        tcp_use_tls: true,
        later: LaterMembers { h2ping_use_tls: Some(false), ..LaterMembers::default() },
    }
}

fn registration() -> CheckRegistration {
    CheckRegistration {
        id: "c1".into(),
        name: "check".to_owned(),
        status: CheckStatus::Warning,
        notes: "notes".to_owned(),
        output: "output".to_owned(),
        service_id: "web-1".into(),
        kind: "ttl".to_owned(),
        definition: definition(),
    }
}

fn service() -> ServiceDefinition {
    let lan = ServiceAddress { address: "10.1.1.1".to_owned(), port: -1 };
    ServiceDefinition {
        id: "web-1".into(),
        name: "web".into(),
        tags: ["blue".to_owned()].into(),
        address: "10.1.1.1".to_owned(),
        tagged_addresses: [("lan".to_owned(), lan)].into(),
        meta: Some(text_map()),
        port: 70_000,
        weights: Weights { passing: 5, warning: 0 },
        enable_tag_override: true,
        kind: "kind".to_owned(),
    }
}

fn session_request() -> SessionRequest {
    SessionRequest {
        id: "s1".into(),
        agent: common::agent("h1"),
        node: "n".into(),
        name: "name".to_owned(),
        lock_delay_nanos: 15_000_000_000,
        behavior: SessionBehavior::Delete,
        ttl_text: "10s".to_owned(),
        ttl: Millis(10_000),
        node_checks: vec!["serfHealth".to_owned()],
        service_checks: Some(vec![("c".to_owned(), "ns".to_owned())]),
        checks: Some(vec!["d".to_owned()]),
    }
}

fn autopilot() -> AutopilotSettings {
    AutopilotSettings {
        min_quorum: 3,
        redundancy_zone_tag: "z".to_owned(),
        disable_upgrade_migration: true,
        upgrade_version_tag: "u".to_owned(),
        ..AutopilotSettings::default()
    }
}

fn node_row() -> Node {
    Node {
        name: "n".into(),
        id: "id".to_owned(),
        address: "10.0.0.1".to_owned(),
        tagged_addresses: Some(text_map()),
        meta: Some(text_map()),
        kind: NodeKind::Agent,
        indexes: indexes(),
    }
}

fn service_row() -> Service {
    Service { node: "n".into(), definition: service(), indexes: indexes() }
}

fn check_row() -> Check {
    Check {
        node: "n".into(),
        registration: registration(),
        service_name: "web".into(),
        service_tags: ["blue".to_owned()].into(),
        number: 9,
        critical_since: Some(ClusterTime(5)),
        said: None,
        indexes: indexes(),
    }
}

fn key_row() -> KvEntry {
    KvEntry {
        key: "k".into(),
        value: Bytes::from_static(b"\x00v"),
        flags: u64::MAX,
        lock_index: 2,
        session: Some("s1".into()),
        indexes: indexes(),
    }
}

fn transaction() -> Vec<TxnOperation> {
    vec![
        TxnOperation::Key {
            verb: KeyVerb::Cas,
            key: "k".into(),
            value: Bytes::from_static(b"\x00v"),
            flags: 300,
            index: 301,
            session: "s1".into(),
        },
        TxnOperation::Node {
            verb: RowVerb::Set,
            node: Box::new(CatalogRegistration {
                node: "n".into(),
                ..CatalogRegistration::default()
            }),
            index: 300,
        },
        TxnOperation::Service {
            verb: RowVerb::DeleteCas,
            node: "n".into(),
            service: Box::new(service()),
            index: 300,
        },
        TxnOperation::Check {
            verb: RowVerb::Get,
            node: "n".into(),
            check: Box::new(registration()),
            index: 300,
        },
        TxnOperation::Faulty("f".to_owned()),
        TxnOperation::Unknown("u".to_owned()),
    ]
}

fn txn_results() -> Vec<TxnResult> {
    vec![
        TxnResult::Key(Arc::new(key_row())),
        TxnResult::Node(Arc::new(node_row())),
        TxnResult::Service(Arc::new(service_row())),
        TxnResult::Check(Arc::new(check_row())),
    ]
}

fn event() -> Event {
    Event {
        id: "e1".into(),
        name: "deploy".to_owned(),
        payload: Bytes::from_static(b"\x00v"),
        node_filter: "n.*".to_owned(),
        service_filter: "s.*".to_owned(),
        tag_filter: "t.*".to_owned(),
        time: 300,
    }
}

fn coordinate() -> Coordinate {
    Coordinate {
        vector: vec![1.5.into(), (-0.25).into()],
        error: 0.5.into(),
        adjustment: 0.125.into(),
        height: 2.0.into(),
    }
}

fn query() -> QueryDefinition {
    QueryDefinition {
        id: "q1".into(),
        name: "q".to_owned(),
        session: "s1".into(),
        token: "t".to_owned(),
        template_kind: "name_prefix_match".to_owned(),
        template_regexp: "r".to_owned(),
        remove_empty_tags: true,
        service: "web".to_owned(),
        failover_nearest: 3,
        failover_datacenters: Some(vec!["dc2".to_owned()]),
        only_passing: true,
        ignored_checks: Some(vec!["c".to_owned()]),
        near: "_agent".to_owned(),
        tags: Some(vec!["!a".to_owned()]),
        node_meta: Some(text_map()),
        service_meta: Some(text_map()),
        connect: true,
        dns_ttl: "7s".to_owned(),
    }
}

fn commands() -> Vec<Command> {
    let agent = common::agent("h1");
    let seen = ClusterTime(123_456);
    vec![
        Command::CatalogRegister(Box::new(CatalogRegistration {
            node: "n".into(),
            node_id: "id".to_owned(),
            address: "10.0.0.1".to_owned(),
            tagged_addresses: Some(text_map()),
            node_meta: Some(text_map()),
            skip_node_update: true,
            service: Some(service()),
            checks: vec![registration()],
        })),
        Command::CatalogDeregister {
            node: "n".into(),
            service_id: "s".into(),
            check_id: "c".into(),
        },
        Command::AgentRegisterService {
            agent: agent.clone(),
            service: Box::new(service()),
            checks: vec![registration()],
            replace_existing_checks: true,
        },
        Command::AgentDeregisterService { agent: agent.clone(), service_id: "s".into() },
        Command::AgentRegisterCheck { agent: agent.clone(), check: Box::new(registration()) },
        Command::AgentDeregisterCheck { agent: agent.clone(), check_id: "c".into() },
        Command::UpdateCheck {
            agent: agent.clone(),
            check_id: "c".into(),
            status: CheckStatus::Critical,
            output: "o".to_owned(),
            seen,
        },
        Command::Heartbeat {
            number: 300,
            status: CheckStatus::Passing,
            output: "o".to_owned(),
            seen,
        },
        Command::KvPut {
            key: "k".into(),
            value: Bytes::from_static(b"\x00v"),
            flags: u64::MAX,
            mode: KvPutMode::Cas(9),
        },
        Command::KvDelete { key: "k".into(), mode: KvDeleteMode::Recurse },
        Command::SessionCreate(Box::new(session_request())),
        Command::SessionDestroy { id: "s1".into() },
        Command::SessionRenew { id: "s1".into(), seen },
        Command::RegisterServer(Box::new(ServerRecord {
            id: 1,
            name: "n1".into(),
            node_id: "id".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 8_300,
            agent,
            meta: text_map(),
        })),
        Command::RemoveServer { id: 1, name: "n1".into() },
        Command::SetServerHealth { name: "n1".into(), alive: true },
    ]
}

/// Those that came after the first release.
fn later_commands() -> Vec<Command> {
    vec![
        Command::Txn(transaction()),
        Command::FireEvent(event()),
        Command::PutCoordinate { node: "n".into(), coordinate: coordinate() },
        Command::PutQuery { query: Box::new(query()), is_new: true },
        Command::DeleteQuery { id: "q1".into() },
        Command::SetMaintenance {
            agent: common::agent("h1"),
            service_id: "s".into(),
            reason: Some("r".to_owned()),
        },
        Command::AgentLeave { agent: common::agent("h1") },
        Command::SetAutopilot { settings: Box::new(autopilot()), cas: Some(300) },
        Command::ProbeResult {
            number: 300,
            probe: 301,
            status: CheckStatus::Passing,
            output: "o".to_owned(),
        },
        Command::RestoreBegin { id: "r1".into() },
        Command::RestorePiece { id: "r1".into(), offset: 300, piece: Bytes::from_static(b"\x00v") },
        Command::RestoreFinish { id: "r1".into() },
        Command::DescribeAgent {
            agent: common::agent("h1"),
            id: Some("id".to_owned()),
            tagged_addresses: Some(text_map()),
            meta: None,
        },
        Command::Answered { runs: vec![(301, 302), (400, 400)] },
        Command::WatchAgent { agent: common::agent("h1"), ttl: Millis::from_secs(10) },
        Command::Asked(asked()),
        Command::PresenceOpen(Box::new(PresenceOpen {
            agent: common::agent("h1"),
            service: service(),
            checks: vec![registration()],
            deregister_after: Millis(90_000),
            terms: terms(),
        })),
        Command::PresenceReopen(PresenceReopen {
            number: 300,
            defined: Index(301),
            terms: terms(),
        }),
        Command::PresenceEnded { seqs: vec![1, 300], why: PresenceEnd::Connection },
        Command::Renew(Box::new(Renewals {
            seen: ClusterTime(6),
            all: vec![Renewal {
                number: 300,
                restarts: 1,
                counter: Some(301),
                status: Some(CheckStatus::Passing),
            }],
        })),
        Command::Beat(Box::new(Beats {
            seen: ClusterTime(6),
            agents: vec![common::agent("h1")],
            all: vec![beat()],
        })),
    ]
}

fn claim_commands() -> Vec<ClaimsCommand> {
    vec![
        ClaimsCommand::Claim(Box::new(ClaimRequest {
            id: "c1".into(),
            service: "rdb".into(),
            holder: "gateway-1".into(),
            ttl: Millis(30_000),
            session: "s1".into(),
            require: text_map(),
            prefer: "rdb-1".into(),
            waits: true,
        })),
        ClaimsCommand::Renew { id: "c1".into(), seen: ClusterTime(6), fence: 7 },
        ClaimsCommand::Release { id: "c1".into() },
        ClaimsCommand::Withdraw { id: "c1".into(), seq: 300 },
        ClaimsCommand::Detached { seqs: vec![1, 300] },
        ClaimsCommand::Collected { fences: vec![1, 300] },
        ClaimsCommand::Force { service: "rdb".into(), fence: 300 },
    ]
}

fn latest_commands() -> Vec<Command> {
    vec![
        Command::Claims(ClaimsCommand::Release { id: "c1".into() }),
        Command::PresenceOfProcess(Box::new(ProcessPresence {
            open: PresenceOpen {
                agent: common::agent("h1"),
                service: service(),
                checks: vec![registration()],
                deregister_after: Millis(90_000),
                terms: terms(),
            },
            beat: beat(),
        })),
        Command::Workers(WorkersCommand::Deserted { number: 300, probe: 301 }),
        Command::Permits(permits()),
        Command::Acl(AclCommand::DeleteToken { accessor: "t".into() }),
    ]
}

fn permits() -> Permits {
    let by = Authority { token: "t".into(), default: DefaultPolicy::Deny };
    Permits::note([None, Some(&by), Some(&by)]).unwrap()
}

fn acl_rule() -> AclRule {
    AclRule { kind: AclKind::Service, is_prefix: true, name: "a".into(), access: Access::Write }
}

fn service_identity() -> ServiceIdentity {
    let datacenters = vec!["dc1".to_owned()];
    ServiceIdentity { service: "web".to_owned(), datacenters, counts: true }
}

fn node_identity() -> NodeIdentity {
    NodeIdentity { node: "n".to_owned(), datacenter: "dc1".to_owned(), counts: true }
}

fn link_requests() -> LinkRequests {
    LinkRequests {
        policies: vec![LinkRequest { id: "p".into(), name: String::new() }],
        roles: vec![LinkRequest { id: "".into(), name: "r".to_owned() }],
        services: vec![service_identity()],
        nodes: vec![node_identity()],
    }
}

fn acl_links() -> AclLinks {
    AclLinks {
        policies: vec!["p".into()],
        roles: vec!["r".into()],
        services: vec![service_identity()],
        nodes: vec![node_identity()],
    }
}

fn acl_commands() -> Vec<AclCommand> {
    let secret = SecretHash::of("s");
    vec![
        AclCommand::Bootstrap { accessor: "t".into(), secret, reset: Some(300) },
        AclCommand::PutToken(Box::new(TokenRequest {
            accessor: "t".into(),
            is_new: true,
            secret: Some(secret),
            description: "d".to_owned(),
            links: link_requests(),
            is_local: true,
            ttl: Millis(60_000),
            expires_at: Some(WallTime(1_700_000_000_000)),
        })),
        AclCommand::CloneToken {
            of: "t".into(),
            accessor: "u".into(),
            secret,
            description: Some("d".to_owned()),
        },
        AclCommand::DeleteToken { accessor: "t".into() },
        AclCommand::PutPolicy(Box::new(PolicyRequest {
            id: "p".into(),
            is_new: true,
            name: "name".to_owned(),
            description: "d".to_owned(),
            text: "t".to_owned(),
            rules: vec![acl_rule()],
            datacenters: vec!["dc1".to_owned()],
            counts: true,
        })),
        AclCommand::DeletePolicy { id: "p".into() },
        AclCommand::PutRole(Box::new(RoleRequest {
            id: "r".into(),
            is_new: true,
            name: "name".to_owned(),
            description: "d".to_owned(),
            links: link_requests(),
        })),
        AclCommand::DeleteRole { id: "r".into() },
    ]
}

fn acl_refusals() -> Vec<AclRefusal> {
    let text = || "x".to_owned();
    vec![
        AclRefusal::Bootstrapped(300),
        AclRefusal::WrongReset { given: 1, index: 300 },
        AclRefusal::UnknownToken(text()),
        AclRefusal::UnknownPolicy(text()),
        AclRefusal::UnknownRole(text()),
        AclRefusal::NoSuch { what: text(), by: text(), named: text() },
        AclRefusal::AccessorTaken,
        AclRefusal::SecretTaken,
        AclRefusal::SecretStays,
        AclRefusal::LocalStays(text()),
        AclRefusal::ExpirationStays(text()),
        AclRefusal::NameTaken { what: text(), name: text() },
        AclRefusal::ManagementStays,
        AclRefusal::ManagementChanges(text()),
        AclRefusal::AnonymousStays,
        AclRefusal::TooMany { what: text(), max: 300 },
    ]
}

fn acl_records() -> Vec<SnapshotRecord<'static>> {
    vec![
        SnapshotRecord::Acl(AclHeader {
            tokens: Index(300),
            policies: Index(301),
            roles: Index(302),
            bootstrapped: Some(Index(299)),
        }),
        SnapshotRecord::AclPolicy(Cow::Owned(AclPolicy {
            id: "p".into(),
            name: "name".to_owned(),
            description: "d".to_owned(),
            text: "t".to_owned(),
            rules: vec![acl_rule()],
            datacenters: vec!["dc1".to_owned()],
            counts: true,
            indexes: indexes(),
        })),
        SnapshotRecord::AclRole(Cow::Owned(AclRole {
            id: "r".into(),
            name: "name".to_owned(),
            description: "d".to_owned(),
            links: acl_links(),
            indexes: indexes(),
        })),
        SnapshotRecord::AclToken(Cow::Owned(AclToken {
            accessor: "t".into(),
            secret: SecretHash::of("s"),
            number: 300,
            description: "d".to_owned(),
            links: acl_links(),
            is_local: true,
            expires: Some(ClusterTime(301)),
            expires_at: Some(WallTime(1_700_000_000_000)),
            created_at: WallTime(1_600_000_000_000),
            indexes: indexes(),
        })),
    ]
}

fn acl_words() -> String {
    [
        variant_lines(&acl_commands()),
        variant_lines(&acl_refusals()),
        variant_lines(&[Access::Deny, Access::Read, Access::List, Access::Write]),
        variant_lines(&AclKind::ALL),
        variant_lines(&[DefaultPolicy::Allow, DefaultPolicy::Deny]),
    ]
    .concat()
}

fn grant() -> Grant {
    Grant {
        fence: 300,
        seq: 17,
        node: "h1".into(),
        id: "rdb-1".into(),
        since: ClusterTime(300),
        heard: ClusterTime(301),
        is_offer: true,
    }
}

fn claim_records() -> Vec<SnapshotRecord<'static>> {
    let attachment = Attachment { origin: 1, incarnation: 2, seq: 300 };
    vec![
        SnapshotRecord::Claims(ClaimsHeader {
            index: Index(300),
            last_fence: 301,
            granted_floor: 302,
        }),
        SnapshotRecord::Pool {
            name: "rdb".into(),
            counts: PoolCounts { index: Index(300), granted: 301, expired: 1, last_position: 302 },
        },
        SnapshotRecord::PoolMember {
            node: "h1".into(),
            id: "rdb-1".into(),
            row: PoolMember { number: 300, idle_since: ClusterTime(301) },
        },
        SnapshotRecord::ClosedSlot {
            number: 300,
            row: Cow::Owned(ClosedSlot {
                node: "h1".into(),
                id: "rdb-1".into(),
                since: ClusterTime(300),
                until: ClusterTime(301),
            }),
        },
        SnapshotRecord::Claim(Cow::Owned(Claim {
            id: "c1".into(),
            number: 300,
            service: "rdb".into(),
            holder: "gateway-1".into(),
            ttl: Millis(30_000),
            session: "s1".into(),
            require: text_map(),
            prefer: "rdb-1".into(),
            position: 301,
            asked: ClusterTime(299),
            phase: ClaimPhase::Granted(grant()),
            attachments: vec![attachment],
            index: Index(300),
            void: 299,
        })),
    ]
}

fn worker_records() -> Vec<SnapshotRecord<'static>> {
    let view = View {
        worker: WorkerId::Process("w1".into()),
        status: CheckStatus::Warning,
        output: "o".to_owned(),
    };
    vec![
        SnapshotRecord::Worker {
            id: WorkerId::Process("w1".into()),
            row: Cow::Owned(Worker {
                number: 300,
                standing: Standing::Returning { until: ClusterTime(301) },
                process: Some(WorkerProcess {
                    network: "dmz".into(),
                    lease: Lease { origin: 1, incarnation: 2, seq: 300 },
                    attempt: 302,
                    last_seq: 303,
                }),
            }),
        },
        SnapshotRecord::Views {
            check: 300,
            views: Cow::Owned(Views { probe: 301, all: vec![view] }),
        },
        SnapshotRecord::EmptyNetwork { name: "dmz".into(), since: ClusterTime(300) },
    ]
}

fn terms() -> PresenceTerms {
    PresenceTerms {
        owner: "o".into(),
        attempt: 3,
        linger: Millis(500),
        on_close: OnClose::Deregister,
    }
}

fn presence_row() -> Presence {
    Presence {
        lease: Some(Lease { origin: 1, incarnation: 2, seq: 300 }),
        terms: terms(),
        ended: Some(EndedPresence {
            why: PresenceEnd::Lost,
            server: 1,
            since: ClusterTime(300),
            deadline: ClusterTime(301),
        }),
        replaced: vec![ClusterTime(299)],
    }
}

fn beat() -> Beat {
    Beat {
        agent: 0,
        service: "web".into(),
        id: "web-1".into(),
        address: Some("10.1.1.1".to_owned()),
        port: Some(80),
        tags: Some(["blue".to_owned()].into()),
        meta: Some(text_map()),
        process: Some("web-1".into()),
        pid: Some(301),
        started: Some(302),
        version: Some("4.0".into()),
        counter: Some(303),
        warn_after: Some(Millis(30_000)),
        critical_after: Some(Millis(90_000)),
        status: Some(CheckStatus::Warning),
        note: Some("o".to_owned()),
    }
}

fn request() -> RequestFacts {
    RequestFacts {
        agent_claimed: "h1".into(),
        client: Some("10.0.0.9:5000".parse().unwrap()),
        action: "kv".into(),
        token: "t".into(),
        authority: None,
    }
}

fn asked() -> Asked {
    let other = RequestFacts { client: Some("[::1]:1".parse().unwrap()), ..request() };
    Asked::note([None, Some(&request()), Some(&other), Some(&request())]).unwrap()
}

fn history_record() -> HistoryRecord {
    HistoryRecord {
        seq: 300,
        index: Index(301),
        time: ClusterTime(302),
        at: WallTime(1_700_000_000_000),
        kind: HistoryKind::CheckChanged,
        subject: Subject::Check {
            node: "n".into(),
            service: "web".into(),
            id: "web-1".into(),
            check: "c".into(),
        },
        session: Some("s1".into()),
        from: Some(CheckStatus::Passing),
        to: Some(CheckStatus::Critical),
        detail: Detail::Output("o".into()),
        cause: Cause::Request { server: 2, request: Some(Arc::new(request())) },
        previous: 299,
    }
}

/// One of each, in the order of their variants.
fn kinds_of_history() -> (Vec<HistoryKind>, Vec<Subject>, Vec<Detail>, Vec<Cause>) {
    let (node, id): (Arc<str>, Arc<str>) = ("n".into(), "web-1".into());
    let subjects = vec![
        Subject::Cluster,
        Subject::Node { node: node.clone() },
        Subject::Instance { node: node.clone(), service: "web".into(), id },
        history_record().subject,
        Subject::Key("k".into()),
        Subject::Session { id: "s1".into(), node },
        Subject::Claim { service: "rdb".into(), id: "c1".into(), number: 300 },
        Subject::Acl { id: "t".into(), name: "n".into() },
    ];
    let details = vec![
        Detail::None,
        Detail::Output("o".into()),
        Detail::Value { bytes: 300, flags: 1 },
        Detail::Below(300),
        Detail::Check("c".into()),
        Detail::Term(3),
        Detail::Reason("r".into()),
        Detail::Claim(Box::new(ClaimFacts {
            holder: "gateway-1".into(),
            fence: 300,
            seq: 17,
            node: "h1".into(),
            instance: "rdb-1".into(),
            position: 301,
            ended: Some(ClaimEnd::Forced),
            require: "a=b".into(),
        })),
    ];
    let causes = vec![
        history_record().cause,
        Cause::Silence { last_heard: ClusterTime(300), ttl: Millis(1) },
        Cause::DeregisterAfter { since: ClusterTime(300), after: Millis(1) },
        Cause::Probe { by: 2 },
        Cause::Server { server: 2 },
        Cause::Session("s1".into()),
        Cause::Idle { since: ClusterTime(300) },
        Cause::Connection { server: 2, why: PresenceEnd::Lost, since: ClusterTime(300) },
        Cause::SlotOpened { since: ClusterTime(300) },
        Cause::Worker { name: "w1".into() },
        Cause::Expired,
    ];
    (HistoryKind::ALL.to_vec(), subjects, details, causes)
}

fn works() -> Vec<Work> {
    duties().into_iter().filter_map(Duty::into_work).take(5).collect()
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Done,
        Outcome::Condition(true),
        Outcome::Id("s1".into()),
        Outcome::AppliedAt(Index(300)),
        Outcome::Rejected(Rejection::OutcomeUnknown),
        Outcome::Txn(txn_results().into_iter().take(1).collect()),
        Outcome::Beats(BeatsOutcome {
            accepted: 300,
            registered: 2,
            refused: Refused::These(vec![(301, Rejection::InstanceGone)]),
        }),
    ]
}

fn rejections() -> Vec<Rejection> {
    let text = || "x".to_owned();
    vec![
        Rejection::OutcomeUnknown,
        Rejection::HeartbeatTooOld,
        Rejection::NoSuchNumber,
        Rejection::UnknownCheck(text()),
        Rejection::UnknownService(text()),
        Rejection::ServiceDoesNotExist(text()),
        Rejection::NotTtl(text()),
        Rejection::Ambiguous { what: "check".to_owned(), id: text(), agents: "a, b".to_owned() },
        Rejection::MissingServiceRegistration(text()),
        Rejection::NodeNameReserved {
            id: text(),
            name: "n".to_owned(),
            holder: "h".to_owned(),
            address: "a".to_owned(),
        },
        Rejection::InvalidSession(text()),
        Rejection::MissingNode,
        Rejection::MissingCheck(text()),
        Rejection::CriticalCheck(text()),
        Rejection::UnknownSession(text()),
        Rejection::Txn(vec![TxnError { operation: 300, what: text() }]),
        Rejection::UnknownQuery(text()),
        Rejection::QueryNameTaken(text()),
        Rejection::RestoreInProgress,
        Rejection::RestoreLost,
        Rejection::InvalidBackup(text()),
        Rejection::QueryNameIsId(text()),
        Rejection::EmptyTemplateTaken,
        Rejection::PresenceAttempt { id: text(), newest: 300 },
        Rejection::PresenceContested(text()),
        Rejection::TooManyKeys("s".into()),
        Rejection::EarlierProcess(text()),
        Rejection::InstanceGone,
        Rejection::WarnsTooLate { warn_after: Millis(300), critical_after: Millis(200) },
        Rejection::NotInPool(text()),
        Rejection::PoolBusy { service: text(), instances: 4, waiting: 300 },
        Rejection::ClaimsFull(ClaimLimit::Holder),
        Rejection::ClaimIdTaken(text()),
        Rejection::ClaimOver { id: text(), why: ClaimEnd::Expired },
        Rejection::UnknownClaim(text()),
        Rejection::ClaimWaits(text()),
        Rejection::UnknownFence { service: text(), fence: 300 },
        Rejection::NotResponsible,
        Rejection::NoSuchWorker(text()),
        Rejection::WorkerNameTaken(text()),
        Rejection::NoToken,
        Rejection::Denied(Denial {
            token: "t".into(),
            permission: "key:read".to_owned(),
            resource: text(),
        }),
        Rejection::Acl(AclRefusal::AnonymousStays),
    ]
}

fn catalog_records() -> Vec<SnapshotRecord<'static>> {
    let topics = TopicIndexes {
        nodes: Index(2),
        services: Index(3),
        checks: Index(4),
        sessions: Index(5),
        kv: Index(6),
        kv_floor: Index(7),
        extinction: Some(Index(8)),
    };
    vec![
        SnapshotRecord::Header(StateHeader {
            time: ClusterTime(123_456),
            index: Index(300),
            last_number: 9,
            topics,
        }),
        SnapshotRecord::Node {
            row: Cow::Owned(node_row()),
            number: 9,
            index: Index(300),
            idle_since: Some(ClusterTime(5)),
        },
        SnapshotRecord::Service(Cow::Owned(service_row())),
        SnapshotRecord::ServiceIndex { name: "web".into(), index: Index(300) },
        SnapshotRecord::Check { row: Cow::Owned(check_row()), last_seen: Some(ClusterTime(6)) },
    ]
}

fn life_record() -> SnapshotRecord<'static> {
    SnapshotRecord::Boot {
        id: 3,
        row: Cow::Owned(ServerBoot {
            boot: BootId([7; 16]),
            incarnation: 300,
            store_id: "store".to_owned(),
            rpc_addr: "10.0.0.1:8300".to_owned(),
            http_addr: "10.0.0.1:8500".to_owned(),
            agent_name: "quorate".to_owned(),
            log_end: Some((Position { term: 4, index: 300 }, 5)),
        }),
    }
}

fn other_records() -> Vec<SnapshotRecord<'static>> {
    vec![
        SnapshotRecord::Session {
            row: Cow::Owned(Session {
                id: "s1".into(),
                name: "name".to_owned(),
                node: "n".into(),
                lock_delay_nanos: 15_000_000_000,
                behavior: SessionBehavior::Delete,
                ttl_text: "10s".to_owned(),
                ttl: Millis(10_000),
                node_checks: vec!["serfHealth".to_owned()],
                service_checks: Some(vec![("c".to_owned(), "ns".to_owned())]),
                checks: Some(vec!["d".to_owned()]),
                number: 9,
                indexes: indexes(),
            }),
            last_seen: Some(ClusterTime(6)),
        },
        SnapshotRecord::Key(Cow::Owned(key_row())),
        SnapshotRecord::Tombstone {
            key: "k".into(),
            grave: Tombstone { index: Index(300), until: ClusterTime(900_000) },
        },
        SnapshotRecord::LockDelay { key: "k".into(), until: ClusterTime(900_000) },
        SnapshotRecord::Origin { id: 1, incarnation: 2, floor: 300 },
        SnapshotRecord::Outcome { id: 1, seq: 301, outcome: Cow::Owned(Outcome::Condition(true)) },
        SnapshotRecord::Tables(TableIndexes {
            events: Index(2),
            coordinates: Index(3),
            queries: Index(4),
            last_event: 5,
        }),
        SnapshotRecord::Event(Cow::Owned(event())),
        SnapshotRecord::Coordinate { node: "n".into(), coordinate: Cow::Owned(coordinate()) },
        SnapshotRecord::Query(Cow::Owned(Query { definition: query(), indexes: indexes() })),
        SnapshotRecord::Autopilot(Cow::Owned(Autopilot {
            settings: autopilot(),
            indexes: indexes(),
        })),
        SnapshotRecord::Probe { check: 300, probe: 301 },
        SnapshotRecord::Staged { id: "r1".into(), touched: ClusterTime(300) },
        SnapshotRecord::StagedPiece(Bytes::from_static(b"\x00v")),
        SnapshotRecord::Answered { id: 1, first: 302, last: 400 },
        SnapshotRecord::Cut {
            prefix: "k/".into(),
            grave: Tombstone { index: Index(300), until: ClusterTime(900_000) },
        },
        SnapshotRecord::StagedReservation { index: Index(300), time: ClusterTime(123_456) },
        SnapshotRecord::StagedNumber(300),
        SnapshotRecord::Restored(Index(300)),
        SnapshotRecord::CheckOfService {
            row: Cow::Owned(Check {
                service_name: "".into(),
                service_tags: Tags::default(),
                ..check_row()
            }),
            last_seen: Some(ClusterTime(6)),
        },
        life_record(),
        SnapshotRecord::Level(300),
        SnapshotRecord::History(HistoryHeader {
            last_seq: 300,
            clock: Some((ClusterTime(301), WallTime(1_700_000_000_000))),
            term: 3,
            lost_through: [1, 300, 0],
        }),
        SnapshotRecord::HistoryRecord(Cow::Owned(history_record())),
        SnapshotRecord::Presence { check: 300, row: Cow::Owned(presence_row()) },
    ]
}

fn heartbeat_records() -> Vec<SnapshotRecord<'static>> {
    vec![
        SnapshotRecord::Said {
            check: 300,
            said: Cow::Owned(Said { status: CheckStatus::Passing, output: "o".to_owned() }),
        },
        SnapshotRecord::Facts {
            check: 300,
            facts: Some(Cow::Owned(Facts {
                process: "p".into(),
                pid: 301,
                started: 302,
                version: "4.0".into(),
                previous_pid: 299,
                restarts: 1,
                counted_back: true,
                noted: ClusterTime(6),
            })),
            counter: Some(303),
        },
    ]
}

fn batches() -> Vec<Batch> {
    let part = Part {
        origin: 1,
        incarnation: 2,
        answered_through: 3,
        commands: vec![(4, Command::SessionDestroy { id: "s1".into() })],
    };
    let duty = Some(Duty::Expire { up_to: ClusterTime(123_456), max: 512 });
    vec![Batch { stamp: ClusterTime(123_456), duty, parts: vec![part] }]
}

fn duties() -> Vec<Duty> {
    let log_end =
        LogEnd { id: 3, boot: BootId([7; 16]), upto: Position { term: 4, index: 300 }, term: 5 };
    let (up_to, max) = (ClusterTime(300), 512);
    vec![
        Duty::Expire { up_to, max },
        Duty::ExpireDue { up_to, max },
        Duty::Reap { up_to, max },
        Duty::Booted(Box::new(Boot {
            id: 3,
            boot: BootId([7; 16]),
            replaces: Some(BootId([6; 16])),
            boots: 300,
            store_id: "store".to_owned(),
            rpc_addr: "10.0.0.1:8300".to_owned(),
            http_addr: "10.0.0.1:8500".to_owned(),
            agent_name: "quorate".to_owned(),
        })),
        Duty::LogEnds(vec![log_end]),
        Duty::Level(300),
        Duty::Stamped(Stamp {
            at: WallTime(1_700_000_000_000),
            term: 3,
            leader: 2,
            work: Some(Work::Reap { up_to, max }),
        }),
    ]
}

/// How many variants an enum has, says its decoder: no data begins with a variant that it does not
/// know. (Zeros are empty texts, lists and first variants.)
fn variants<T: DeserializeOwned>() -> u8 {
    (0..)
        .find(|tag| {
            let mut bytes = vec![0; 256];
            bytes[0] = *tag;
            postcard::take_from_bytes::<T>(&bytes).is_err()
        })
        .unwrap()
}

/// Lines `name hex`, in the order of the samples.
fn lines<T: Serialize + DeserializeOwned + Debug + PartialEq>(samples: &[T]) -> String {
    let mut lines = String::new();
    for sample in samples {
        let bytes = postcard::to_stdvec(sample).unwrap();
        assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), *sample);
        let name = format!("{sample:?}");
        let name = name.split([' ', '(']).next().unwrap();
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        writeln!(lines, "{name} {hex}").unwrap();
    }
    lines
}

/// Lines for an enum, one for each of its variants.
fn variant_lines<T: Serialize + DeserializeOwned + Debug + PartialEq>(samples: &[T]) -> String {
    let tags: Vec<u8> =
        samples.iter().map(|sample| postcard::to_stdvec(sample).unwrap()[0]).collect();
    let all: Vec<u8> = (0..variants::<T>()).collect();
    assert_eq!(tags, all, "every variant needs a sample, in the order of its tag");
    lines(samples)
}

#[test]
fn encodings_on_disk_stay_as_they_are() {
    let records = [
        catalog_records(),
        other_records(),
        heartbeat_records(),
        claim_records(),
        worker_records(),
        acl_records(),
    ]
    .concat();
    let files: BTreeMap<&str, String> = [
        ("batch.txt", lines(&batches())),
        (
            "commands.txt",
            variant_lines(&[commands(), later_commands(), latest_commands()].concat()),
        ),
        ("duties.txt", variant_lines(&duties())),
        ("outcomes.txt", variant_lines(&outcomes())),
        ("rejections.txt", variant_lines(&rejections())),
        ("snapshot_records.txt", variant_lines(&records)),
        ("words.txt", words()),
        ("txn_operations.txt", variant_lines(&transaction())),
        ("txn_results.txt", variant_lines(&txn_results())),
    ]
    .into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, lines) in files {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &lines).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(lines, golden, "the encoding of {name} changed");
    }
}

/// What operations of a transaction do to keys and rows.
fn verb_words() -> String {
    [
        variant_lines(&[
            KeyVerb::Set,
            KeyVerb::Cas,
            KeyVerb::Lock,
            KeyVerb::Unlock,
            KeyVerb::Get,
            KeyVerb::GetTree,
            KeyVerb::CheckIndex,
            KeyVerb::CheckSession,
            KeyVerb::CheckNotExists,
            KeyVerb::Delete,
            KeyVerb::DeleteTree,
            KeyVerb::DeleteCas,
            KeyVerb::GetOrEmpty,
        ]),
        variant_lines(&[
            RowVerb::Get,
            RowVerb::Set,
            RowVerb::Cas,
            RowVerb::Delete,
            RowVerb::DeleteCas,
        ]),
    ]
    .concat()
}

/// The small enums inside the others.
fn words() -> String {
    let (kinds, subjects, details, causes) = kinds_of_history();
    [
        variant_lines(&[
            KvPutMode::Set,
            KvPutMode::Cas(300),
            KvPutMode::Acquire("s1".into()),
            KvPutMode::Release("s1".into()),
        ]),
        variant_lines(&[KvDeleteMode::One, KvDeleteMode::Cas(300), KvDeleteMode::Recurse]),
        variant_lines(&[
            CheckStatus::Passing,
            CheckStatus::Warning,
            CheckStatus::Critical,
            CheckStatus::Other("odd".to_owned()),
        ]),
        variant_lines(&[SessionBehavior::Release, SessionBehavior::Delete]),
        verb_words(),
        variant_lines(&[
            NodeKind::Registered,
            NodeKind::Agent,
            NodeKind::ServerAgent,
            NodeKind::Server,
        ]),
        variant_lines(&kinds),
        variant_lines(&subjects),
        variant_lines(&details),
        variant_lines(&causes),
        variant_lines(&works()),
        variant_lines(&[OnClose::Critical, OnClose::Deregister]),
        variant_lines(&[
            PresenceEnd::Connection,
            PresenceEnd::Moved,
            PresenceEnd::Lost,
            PresenceEnd::Restored,
        ]),
        variant_lines(&[
            Refused::None,
            Refused::These(vec![(300, Rejection::InstanceGone)]),
            Refused::Some,
        ]),
        lines(&[LaterMembers {
            h2ping_use_tls: Some(true),
            warn_after: Millis(30_000),
            ..LaterMembers::default()
        }]),
        claim_words(),
        worker_words(),
        acl_words(),
    ]
    .concat()
}

fn worker_commands() -> Vec<WorkersCommand> {
    vec![
        WorkersCommand::Open(Box::new(WorkerOpen {
            open: PresenceOpen {
                agent: common::agent("h1"),
                service: service(),
                checks: Vec::new(),
                deregister_after: Millis(90_000),
                terms: terms(),
            },
            network: "dmz".into(),
        })),
        WorkersCommand::Results(Box::new(WorkerResults {
            name: "w1".into(),
            lease: Lease { origin: 1, incarnation: 2, seq: 300 },
            seq: 301,
            all: vec![RunResult {
                number: 302,
                probe: 303,
                status: CheckStatus::Critical,
                output: "o".to_owned(),
            }],
        })),
        WorkersCommand::Deserted { number: 300, probe: 301 },
    ]
}

fn worker_words() -> String {
    let later = LaterMembers {
        h2ping_use_tls: Some(true),
        warn_after: Millis(30_000),
        observers: 3,
        network: "dmz".into(),
    };
    [
        lines(&[later]),
        variant_lines(&worker_commands()),
        variant_lines(&[WorkerId::Server(300), WorkerId::Process("w1".into())]),
        variant_lines(&[
            Standing::Live,
            Standing::Away { since: ClusterTime(300) },
            Standing::Returning { until: ClusterTime(300) },
        ]),
    ]
    .concat()
}

fn claim_words() -> String {
    [
        variant_lines(&claim_commands()),
        variant_lines(&ClaimEnd::ALL),
        variant_lines(&[
            ClaimPhase::Queued { detached: Some(ClusterTime(300)) },
            ClaimPhase::Granted(grant()),
            ClaimPhase::Ended {
                why: ClaimEnd::Released,
                at: ClusterTime(300),
                grant: Some(grant()),
            },
        ]),
        variant_lines(&[
            ClaimLimit::Pool,
            ClaimLimit::Cluster,
            ClaimLimit::Holder,
            ClaimLimit::Requires,
            ClaimLimit::Attachments,
        ]),
    ]
    .concat()
}
