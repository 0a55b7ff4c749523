use std::collections::BTreeSet;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;
use quorate_storage::State;
use quorate_storage::command::{Batch, Command, Part};
use quorate_storage::record::{
    CatalogRegistration, CheckDefinition, CheckRegistration, CheckStatus, QueryDefinition,
    ServiceDefinition, Weights,
};

use super::settings::domain as domain_name;
use super::*;
use crate::host::clock::Clock;

use CheckStatus::{Critical, Passing, Warning};
use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SRV, TXT};

/// A catalogue in the making, and who answers for it.
struct Domain {
    state: State,
    seq: u64,
    responder: Responder,
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: ResponseCode,
    is_cut: bool,
    /// Each `NAME TTL TYPE DATA`, sorted.
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

const SOA: &str = "consul. 0 SOA ns.consul. hostmaster.consul. N 3600 600 86400 0";

impl Domain {
    fn new(settings: DnsSettings) -> Self {
        let responder = Responder::new(settings, "dc1".to_owned(), Clock::monotonic());
        Self { state: State::default(), seq: 0, responder }
    }

    fn run(&mut self, command: Command) {
        self.seq += 1;
        let commands = vec![(self.seq, command)];
        let part = Part { origin: 1, incarnation: 1, answered_through: 0, commands };
        self.state.apply(&Batch { parts: vec![part], ..Batch::default() });
    }

    fn node(&mut self, node: &str, address: &str, meta: &[(&str, &str)]) {
        let meta = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.run(Command::CatalogRegister(Box::new(CatalogRegistration {
            node: node.into(),
            address: address.to_owned(),
            node_meta: Some(meta.collect()),
            ..CatalogRegistration::default()
        })));
    }

    /// An instance on a node with its number, whose check has a status.
    fn instance(&mut self, id: &str, address: &str, status: &CheckStatus) -> &mut Self {
        self.instance_of("web", id, address, status)
    }

    fn instance_of(
        &mut self,
        service: &str,
        id: &str,
        address: &str,
        status: &CheckStatus,
    ) -> &mut Self {
        let check = CheckRegistration {
            id: format!("c{id}").into(),
            name: String::new(),
            status: status.clone(),
            notes: String::new(),
            output: String::new(),
            service_id: id.into(),
            kind: String::new(),
            definition: CheckDefinition::default(),
        };
        self.run(Command::CatalogRegister(Box::new(CatalogRegistration {
            node: format!("n{id}").into(),
            address: "10.1.1.1".to_owned(),
            service: Some(ServiceDefinition {
                id: id.into(),
                name: service.into(),
                tags: vec!["v1.2".to_owned(), "Blue".to_owned()].into(),
                address: address.to_owned(),
                port: 8000,
                weights: Weights { passing: 7, warning: 2 },
                ..ServiceDefinition::default()
            }),
            checks: vec![check],
            ..CatalogRegistration::default()
        })));
        self
    }

    fn respond(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let agent = || Some("n1".to_owned());
        let asker = Asker { ip: [127, 0, 0, 1].into(), agent: &agent, rights: None };
        self.responder.respond(Some(&self.state), message, transport, asker)
    }

    fn ask_with(
        &self,
        name: &str,
        kind: RecordType,
        edns: Option<u16>,
        transport: Transport,
    ) -> Answer {
        let mut message = question(name, kind);
        if let Some(bytes) = edns {
            message.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(bytes);
        }
        let bytes = self.respond(&message.to_vec().unwrap(), transport).unwrap();
        let limit = edns.unwrap_or(512).clamp(512, 4_096);
        assert!(
            transport == Transport::Tcp || bytes.len() <= usize::from(limit),
            "{}",
            bytes.len()
        );
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (7, MessageType::Response));
        assert!(answer.queries[0].name.eq_case(&message.queries[0].name), "letters are kept");
        assert_eq!(answer.edns.is_some(), edns.is_some());
        let texts = |records: &[Record]| {
            let text = |record: &Record| {
                let data = match &record.data {
                    RData::SOA(soa) => format!(
                        "{} {} N {} {} {} {}",
                        soa.mname, soa.rname, soa.refresh, soa.retry, soa.expire, soa.minimum
                    ),
                    data => data.to_string(),
                };
                format!("{} {} {} {data}", record.name, record.ttl, record.record_type())
            };
            let mut texts: Vec<_> = records.iter().map(text).collect();
            texts.sort();
            texts
        };
        Answer {
            code: answer.metadata.response_code,
            is_cut: answer.metadata.truncation,
            answers: texts(&answer.answers),
            authorities: texts(&answer.authorities),
            additionals: texts(&answer.additionals),
        }
    }

    fn ask(&self, name: &str, kind: RecordType) -> Answer {
        self.ask_with(name, kind, None, Transport::Udp)
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn domain_of_instances(instances: &[(&str, &str, CheckStatus)]) -> Domain {
    let mut domain = Domain::new(DnsSettings::default());
    for (id, address, status) in instances {
        domain.instance(id, address, status);
    }
    domain
}

fn many(count: u32) -> Domain {
    let mut domain = Domain::new(DnsSettings::default());
    for number in 0..count {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        domain.instance(&number.to_string(), &address, &Passing);
    }
    domain
}

fn found(answers: &[&str]) -> Answer {
    let answers = answers.iter().map(|text| (*text).to_owned()).collect();
    let nothing = Vec::new;
    Answer {
        code: ResponseCode::NoError,
        is_cut: false,
        answers,
        authorities: nothing(),
        additionals: nothing(),
    }
}

fn nothing(code: ResponseCode) -> Answer {
    Answer { code, authorities: vec![SOA.to_owned()], ..found(&[]) }
}

#[test]
fn instances_with_a_critical_check_are_left_out_and_warning_ones_by_wish() {
    let instances =
        [("1", "10.5.0.1", Passing), ("2", "10.5.0.2", Warning), ("3", "10.5.0.3", Critical)];
    let mut domain = domain_of_instances(&instances);
    let both = ["Web.Service.Consul. 0 A 10.5.0.1", "Web.Service.Consul. 0 A 10.5.0.2"];
    assert_eq!(domain.ask("Web.Service.Consul.", A), found(&both));
    domain.responder.settings.only_passing = true;
    assert_eq!(domain.ask("Web.Service.Consul.", A), found(&both[..1]));
    domain.instance("1", "10.5.0.1", &Critical).instance("2", "10.5.0.2", &Critical);
    assert_eq!(domain.ask("web.service.consul.", A), nothing(ResponseCode::NXDomain));
}

#[test]
fn a_tag_in_any_case_chooses_instances() {
    let domain = domain_of_instances(&[("1", "10.5.0.1", Passing)]);
    for name in
        ["blue.web.service.consul.", "v1.2.web.service.dc1.consul.", "_web._Blue.service.consul."]
    {
        assert_eq!(domain.ask(name, A).answers, [format!("{name} 0 A 10.5.0.1")]);
    }
    assert_eq!(domain.ask("green.web.service.consul.", A), nothing(ResponseCode::NXDomain));
}

#[test]
fn an_srv_record_has_the_weight_and_the_target_with_its_address_comes_along() {
    let instances =
        [("1", "", Passing), ("2", "2001:db8::1", Warning), ("3", "www.example.com", Passing)];
    let domain = domain_of_instances(&instances);
    let name = "_web._tcp.consul.";
    let answer = domain.ask(name, SRV);
    let addr = "20010db8000000000000000000000001.addr.dc1.consul.";
    let expected = [
        format!("{name} 0 SRV 1 2 8000 {addr}"),
        format!("{name} 0 SRV 1 7 8000 n1.node.dc1.consul."),
        format!("{name} 0 SRV 1 7 8000 www.example.com."),
    ];
    assert_eq!(answer.answers, expected);
    assert_eq!(
        answer.additionals,
        [format!("{addr} 0 AAAA 2001:db8::1"), "n1.node.dc1.consul. 0 A 10.1.1.1".to_owned()]
    );
    // What the targets are asked for next.
    assert_eq!(domain.ask(addr, AAAA).answers, [format!("{addr} 0 AAAA 2001:db8::1")]);
    assert_eq!(domain.ask(addr, A), nothing(ResponseCode::NoError));
    assert_eq!(domain.ask("n1.node.dc1.consul.", A).answers, ["n1.node.dc1.consul. 0 A 10.1.1.1"]);
}

#[test]
fn a_name_without_such_records_exists_and_says_how_long_that_may_be_remembered() {
    let mut domain = domain_of_instances(&[("1", "10.5.0.1", Passing)]);
    for name in ["web.service.consul.", "n1.node.consul."] {
        assert_eq!(domain.ask(name, AAAA), nothing(ResponseCode::NoError), "{name}");
        assert_eq!(domain.ask(name, RecordType::MX), nothing(ResponseCode::NoError), "{name}");
    }
    for name in ["consul.", "service.consul.", "dc1.consul.", "_tcp.service.consul."] {
        assert_eq!(domain.ask(name, A), nothing(ResponseCode::NoError), "{name}");
    }
    for name in ["none.service.consul.", "none.node.consul.", "none.query.consul.", "foo.consul."] {
        assert_eq!(domain.ask(name, A), nothing(ResponseCode::NXDomain), "{name}");
    }
    domain.responder.settings.soa.negative_ttl = 5;
    let negative = domain.ask("foo.consul.", A).authorities;
    assert_eq!(negative, ["consul. 5 SOA ns.consul. hostmaster.consul. N 3600 600 86400 5"]);
}

#[test]
fn other_domains_and_classes_are_refused_and_a_second_domain_is_answered_in_its_own_name() {
    let mut domain = domain_of_instances(&[("1", "", Passing)]);
    let refused = Answer { code: ResponseCode::Refused, ..found(&[]) };
    assert_eq!(domain.ask("example.com.", A), refused);
    assert_eq!(domain.ask("9.9.9.10.in-addr.arpa.", PTR), refused);
    let mut chaos = question("web.service.consul.", A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let answer = domain.respond(&chaos.to_vec().unwrap(), Transport::Udp).unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::Refused);
    domain.responder.settings.domains.push(domain_name("x.example").unwrap());
    let answer = domain.ask("web.service.x.example.", SRV);
    assert_eq!(answer.answers, ["web.service.x.example. 0 SRV 1 7 8000 n1.node.dc1.x.example."]);
}

#[test]
fn a_node_has_its_metadata_and_an_address_its_names() {
    let mut domain = domain_of_instances(&[("1", "10.5.0.1", Passing)]);
    domain.node("a.b", "10.9.9.9", &[("k", "v"), ("rfc1035-x", "raw")]);
    let name = "a.b.node.consul.";
    let (address, meta) =
        (format!("{name} 0 A 10.9.9.9"), ["k=v", "raw"].map(|text| format!("{name} 0 TXT {text}")));
    let answer = domain.ask(name, A);
    assert_eq!((answer.answers, answer.additionals), (vec![address.clone()], meta.to_vec()));
    assert_eq!(domain.ask(name, TXT).answers, meta);
    assert_eq!(domain.ask(name, ANY).answers, [&[address], &meta[..]].concat());
    let name = "9.9.9.10.in-addr.arpa.";
    assert_eq!(domain.ask(name, PTR), found(&[&format!("{name} 0 PTR a.b.node.dc1.consul.")]));
    let name = "1.0.5.10.in-addr.arpa.";
    assert_eq!(domain.ask(name, PTR), found(&[&format!("{name} 0 PTR web.service.consul.")]));
}

#[test]
fn a_name_in_the_place_of_an_address_is_an_alias_and_one_of_ours_is_followed() {
    let mut domain = domain_of_instances(&[("1", "www.example.com", Passing)]);
    let alias = "web.service.consul. 0 CNAME www.example.com.";
    assert_eq!(domain.ask("web.service.consul.", A), found(&[alias]));
    assert_eq!(domain.ask("web.service.consul.", CNAME), found(&[alias]));
    domain.instance("2", "10.5.0.2", &Passing);
    // A name with other records has no alias.
    assert_eq!(domain.ask("web.service.consul.", A), found(&["web.service.consul. 0 A 10.5.0.2"]));
    domain.node("a", "b.node.consul", &[]);
    domain.node("b", "10.0.0.2", &[]);
    let both = ["a.node.consul. 0 CNAME b.node.consul.", "b.node.consul. 0 A 10.0.0.2"];
    assert_eq!(domain.ask("a.node.consul.", A), found(&both));
    domain.node("b", "a.node.consul", &[]);
    assert_eq!(domain.ask("a.node.consul.", A).answers.len(), 4, "a circle ends");
}

#[test]
fn a_prepared_query_has_its_own_rules_and_ttl() {
    let mut domain = domain_of_instances(&[("1", "10.5.0.1", Passing), ("2", "10.5.0.2", Warning)]);
    domain.run(Command::PutQuery {
        query: Box::new(QueryDefinition {
            id: "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11".into(),
            name: "Q.1".to_owned(),
            service: "web".to_owned(),
            only_passing: true,
            dns_ttl: "9s".to_owned(),
            ..QueryDefinition::default()
        }),
        is_new: true,
    });
    assert_eq!(domain.ask("q.1.query.consul.", A), found(&["q.1.query.consul. 9 A 10.5.0.1"]));
}

#[test]
fn ttls_are_those_of_the_settings() {
    let mut domain = domain_of_instances(&[("1", "", Passing)]);
    domain.responder.settings = DnsSettings::default().with_ttl(9);
    domain.responder.settings.service_ttl.add("web", 3);
    assert_eq!(domain.ask("web.service.consul.", A), found(&["web.service.consul. 3 A 10.1.1.1"]));
    assert_eq!(domain.ask("n1.node.consul.", A), found(&["n1.node.consul. 9 A 10.1.1.1"]));
}

#[test]
fn the_servers_are_the_domains_name_servers() {
    let mut domain = Domain::new(DnsSettings::default());
    domain.instance_of("consul", "1", "", &Passing);
    let answer = domain.ask("consul.", NS);
    assert_eq!(answer.answers, ["consul. 0 NS n1.node.dc1.consul."]);
    assert_eq!(answer.additionals, ["n1.node.dc1.consul. 0 A 10.1.1.1"]);
    let answer = domain.ask("consul.", RecordType::SOA);
    assert_eq!(
        (answer.answers, answer.authorities),
        (vec![SOA.to_owned()], vec!["consul. 0 NS n1.node.dc1.consul.".to_owned()])
    );
    assert_eq!(domain.ask("ns.consul.", A), found(&["ns.consul. 0 A 10.1.1.1"]));
}

#[test]
fn what_does_not_fit_is_left_out_and_said_and_tcp_has_all() {
    let mut domain = many(150);
    let name = "web.service.consul.";
    let plain = domain.ask(name, A);
    assert!(plain.is_cut && plain.answers.len() > 25, "{plain:?}");
    let large = domain.ask_with(name, A, Some(4_096), Transport::Udp);
    assert_eq!((large.is_cut, large.answers.len()), (false, 150));
    let srv = domain.ask_with(name, SRV, Some(1_232), Transport::Udp);
    assert!(srv.is_cut && srv.additionals.is_empty(), "{srv:?}");
    // More than 4 KiB is not sent, whatever a client says.
    assert!(domain.ask_with(name, SRV, Some(u16::MAX), Transport::Udp).is_cut);
    let all = domain.ask_with(name, SRV, None, Transport::Tcp);
    assert_eq!((all.is_cut, all.answers.len(), all.additionals.len()), (false, 150, 150));
    domain.responder.settings.marks_truncation = false;
    assert!(!domain.ask(name, A).is_cut);
    domain.responder.settings.udp_answers_max = Some(3);
    assert_eq!(domain.ask(name, A).answers.len(), 3);
    assert_eq!(domain.ask_with(name, A, None, Transport::Tcp).answers.len(), 150);
    domain.responder.settings.addresses_max = Some(2);
    assert_eq!(domain.ask_with(name, A, None, Transport::Tcp).answers.len(), 2);
}

#[test]
fn additional_records_alone_are_no_loss() {
    // Six SRV records fit, their addresses do not.
    let domain = many(9);
    let answer = domain.ask("web.service.consul.", SRV);
    assert_eq!((answer.is_cut, answer.answers.len()), (false, 9));
    assert!(answer.additionals.len() < 9);
}

#[test]
fn every_instance_comes_first_at_times() {
    let domain = many(60);
    let first =
        || domain.ask("web.service.consul.", A).answers.into_iter().collect::<BTreeSet<_>>();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.extend(first());
    }
    assert_eq!(seen.len(), 60);
}

#[test]
fn messages_that_ask_nothing_are_errors_or_not_answered() {
    let domain = many(1);
    let good = question("web.service.consul.", A).to_vec().unwrap();
    let code = |message: &[u8]| {
        let answer = domain.respond(message, Transport::Udp)?;
        assert!(answer.len() <= message.len().max(12), "no more than was received");
        Some(Message::from_vec(&answer).unwrap().metadata.response_code)
    };
    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    assert_eq!(code(&[]), None);
    assert_eq!(code(&good[..11]), None);
    assert_eq!(code(&changed(2, 0x80)), None, "a response");
    assert_eq!(code(&good[..12]), Some(ResponseCode::FormErr));
    assert_eq!(code(&good[..good.len() - 1]), Some(ResponseCode::FormErr));
    assert_eq!(code(&changed(2, 0x28)), Some(ResponseCode::NotImp), "an update");
    for (at, what) in
        [(5, "two questions"), (7, "an answer"), (9, "an authority"), (10, "256 records")]
    {
        assert_eq!(code(&changed(at, 2)), Some(ResponseCode::FormErr), "{what}");
    }
    assert_eq!(
        code(&changed(12, 0xc0)),
        Some(ResponseCode::FormErr),
        "a name that points at itself"
    );
}

#[test]
fn a_zone_is_not_transferred() {
    let domain = many(1);
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        let mut message = question("consul.", kind);
        if kind == RecordType::IXFR {
            let name = Name::from_ascii("consul.").unwrap();
            let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 5);
            message.authorities.push(Record::from_rdata(name, 0, RData::SOA(soa)));
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            let answer = domain.respond(&message.to_vec().unwrap(), transport).unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            let (code, records) = (answer.metadata.response_code, answer.answers.len());
            assert_eq!((code, records), (ResponseCode::Refused, 0), "{kind}");
        }
    }
}

#[test]
fn another_version_of_edns_is_told_so() {
    let domain = many(1);
    let mut message = question("web.service.consul.", A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let answer = domain.respond(&message.to_vec().unwrap(), Transport::Udp).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    // 16 has two names.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!((answer.edns.unwrap().version(), answer.answers.len()), (0, 0));
}

#[test]
fn without_a_state_the_client_is_sent_to_another_server() {
    let domain = many(1);
    let agent = || None;
    let asker = Asker { ip: [127, 0, 0, 1].into(), agent: &agent, rights: None };
    let message = question("web.service.consul.", A).to_vec().unwrap();
    let answer = domain.responder.respond(None, &message, Transport::Udp, asker).unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}

/// A name of labels as they occur, and of any others.
fn any_name() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const KNOWN: &[&str] = &[
        "web", "_web", "_tcp", "service", "node", "query", "addr", "consul", "dc1", "ns",
        "0a000001", "arpa",
    ];
    let label = prop_oneof![
        6 => prop::sample::select(KNOWN).prop_map(|label| label.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..63),
    ];
    (prop::collection::vec(label, 0..6), any::<bool>()).prop_map(|(mut labels, ours)| {
        if ours {
            labels.push(b"consul".to_vec());
        }
        labels
    })
}

proptest! {
    /// Whatever comes, there is an answer that can be read, or none; it is never longer than allowed, and for what
    /// cannot be read never longer than what came.
    #[test]
    fn bytes_are_answered_or_dropped(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&many(3), &bytes)?;
    }

    #[test]
    fn changed_questions_are_answered_or_dropped(
        labels in any_name(),
        kind in any::<u16>(),
        edns in any::<Option<u16>>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let name = Name::from_labels(labels.iter().map(Vec::as_slice));
        prop_assume!(name.is_ok());
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name.unwrap(), RecordType::from(kind)));
        if let Some(bytes) = edns {
            message.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(bytes);
        }
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&many(3), &bytes)?;
    }
}

fn check(domain: &Domain, bytes: &[u8]) -> Result<(), TestCaseError> {
    for transport in [Transport::Udp, Transport::Tcp] {
        let Some(answer) = domain.respond(bytes, transport) else { continue };
        prop_assert!(bytes.len() >= 12 && bytes[2] & 0x80 == 0);
        prop_assert!(transport == Transport::Tcp || answer.len() <= 4_096);
        let read = Message::from_vec(&answer);
        prop_assert!(read.is_ok(), "{:?}", read);
        let read = read.unwrap();
        prop_assert_eq!(read.metadata.message_type, MessageType::Response);
        if read.metadata.response_code == ResponseCode::FormErr {
            prop_assert!(answer.len() <= bytes.len());
        }
    }
    Ok(())
}

#[test]
fn a_domain_that_is_longer_wins() {
    let mut nested = domain_of_instances(&[("1", "", Passing)]);
    nested.responder.settings.domains.push(domain_name("b.consul").unwrap());
    assert_eq!(nested.ask("n1.node.b.consul.", A).answers.len(), 1);
}
