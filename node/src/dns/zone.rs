//! What one version of the state answers to a question.
//!
//! Of a service that has thousands of instances only as many are looked at as an answer can hold, in random order.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use quorate_client::duration;
use quorate_storage::State;
use quorate_storage::record::{CheckStatus, Node, SERVER_SERVICE, Service};
use quorate_storage::state::Rights;
use rand::Rng as _;

use super::question::{Subject, address_label, subject, wants};
use super::settings::{DnsSettings, ttl_seconds};
use crate::discovery::near;
use crate::discovery::query::{Instance, token_of, usable};
use crate::discovery::template;
use crate::live::sight::sees_row;

/// Names that stand for other names are followed so many times, where all are the cluster's.
const ALIASES_MAX: usize = 3;
/// Priority of all SRV records, as in Consul: weights tell instances apart.
const SRV_PRIORITY: u16 = 1;
/// The name server in the SOA record.
const NAME_SERVER_LABEL: &str = "ns";
/// The mailbox in the SOA record.
const HOSTMASTER_LABEL: &str = "hostmaster";
/// Length of one text of a TXT record.
const TEXT_BYTES_MAX: usize = 255;
/// A node's metadata whose key begins like this are shown without the key.
const BARE_META: &str = "rfc1035-";

/// What is found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) code: ResponseCode,
    /// What is asked for.
    pub(super) answers: Vec<Record>,
    /// Whether there is more of it than could be sent.
    pub(super) has_more: bool,
    /// Who says so, where there is nothing.
    pub(super) authorities: Vec<Record>,
    /// What the client would ask next.
    pub(super) additionals: Vec<Record>,
}

impl Found {
    /// Nothing, for this reason.
    pub(super) fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    /// From where.
    pub(super) ip: IpAddr,
    /// Finds the name of the node of its agent.
    pub(super) agent: &'a dyn Fn() -> Option<String>,
    /// What it may see; `None`: everything.
    pub(super) rights: Option<&'a Rights>,
}

/// The cluster's domain as a client sees it.
#[derive(Clone, Copy)]
pub(super) struct Zone<'a> {
    pub(super) settings: &'a DnsSettings,
    pub(super) state: &'a State,
    pub(super) datacenter: &'a str,
    /// The domain, as the settings write it.
    pub(super) domain: &'a Name,
    pub(super) asker: Asker<'a>,
    /// Answers that the message can hold at most.
    pub(super) answers_max: usize,
}

/// A question for one name, perhaps one that another name stands for.
#[derive(Debug, Clone, Copy)]
struct Asked<'q> {
    name: &'q Name,
    kind: RecordType,
    /// How many aliases led here.
    aliases: usize,
}

/// What is known of an instance that may be used.
struct Usable<'a> {
    node: &'a Node,
    service: &'a Service,
    warns: bool,
}

impl Usable<'_> {
    /// The instance's own address, else its node's.
    fn address(&self) -> &str {
        match self.service.definition.address.as_str() {
            "" => &self.node.address,
            own => own,
        }
    }

    fn weight(&self) -> u16 {
        let weights = &self.service.definition.weights;
        let weight = if self.warns { weights.warning } else { weights.passing };
        u16::try_from(weight.max(0)).unwrap_or(u16::MAX)
    }
}

impl<'a> Zone<'a> {
    /// Answers a question for a name in the domain, and says what kind of name it is.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> (&'static str, Found) {
        let subject = subject(name, self.domain, self.datacenter);
        (subject.kind(), self.about(subject, Asked { name, kind, aliases: 0 }))
    }

    fn about(&self, subject: Subject, asked: Asked<'_>) -> Found {
        match subject {
            Subject::Domain => self.about_domain(asked),
            Subject::NameServer => self.name_server(asked),
            Subject::Between => self.nothing(),
            Subject::Nothing => self.no_such_name(),
            Subject::Service { name: service, tag } => {
                let instances = self.instances(&service, tag.as_deref());
                let ttl = self.settings.service_ttl.of(&service);
                self.found_instances(asked, instances, |instance| self.usable(instance), ttl)
            }
            Subject::Query(query) => self.query(asked, &query),
            Subject::Node(node) => self.node(asked, &node),
            Subject::Address(ip) => {
                let record = address(asked.name, asked.kind, ip, self.settings.node_ttl);
                self.or_nothing(Found { answers: record.into_iter().collect(), ..Found::default() })
            }
        }
    }

    // ---- services ----------------------------------------------------------------------------

    /// The instances of a service, in random order, found one after the other.
    fn instances(
        &self,
        service: &str,
        tag: Option<&str>,
    ) -> impl Iterator<Item = Instance<'a>> + use<'a> {
        let state = self.state;
        let tag = tag.map(str::to_owned);
        let rights = self.asker.rights;
        let instances = state.instances(service).filter(|row| sees_row(rights, row));
        let instances: Vec<_> = instances.collect();
        shuffled(instances).filter_map(move |service| {
            let mut tags = service.definition.tags.iter();
            let has_tag = tag.as_ref().is_none_or(|tag| tags.any(|own| own.to_lowercase() == *tag));
            if has_tag { Some((state.node(&service.node)?, service)) } else { None }
        })
    }

    /// An instance that has no critical check.
    fn usable(&self, (node, service): Instance<'a>) -> Option<Usable<'a>> {
        let mut warns = false;
        for check in self.state.checks_of(service) {
            match check.registration.status {
                CheckStatus::Passing => {}
                CheckStatus::Critical => return None,
                CheckStatus::Warning | CheckStatus::Other(_) => warns = true,
            }
        }
        (!warns || !self.settings.only_passing).then_some(Usable { node, service, warns })
    }

    /// An instance that a query has chosen by its own rules.
    #[expect(clippy::unnecessary_wraps, reason = "it stands where `usable` does")]
    fn chosen(&self, (node, service): Instance<'a>) -> Option<Usable<'a>> {
        let warns = self.state.checks_of(service).any(|check| match check.registration.status {
            CheckStatus::Warning | CheckStatus::Other(_) => true,
            CheckStatus::Passing | CheckStatus::Critical => false,
        });
        Some(Usable { node, service, warns })
    }

    /// The records of instances, as far as `judge` finds them usable.
    fn found_instances(
        &self,
        asked: Asked<'_>,
        instances: impl Iterator<Item = Instance<'a>>,
        judge: impl Fn(Instance<'a>) -> Option<Usable<'a>>,
        ttl: u32,
    ) -> Found {
        let found = match asked.kind {
            RecordType::SRV => self.locations(asked.name, instances.filter_map(judge), ttl),
            _ => self.addresses(asked, instances, judge, ttl),
        };
        match found {
            None => self.no_such_name(),
            Some(found) => self.or_nothing(found),
        }
    }

    /// SRV records. `None` if there are no instances.
    fn locations(
        &self,
        name: &Name,
        instances: impl Iterator<Item = Usable<'a>>,
        ttl: u32,
    ) -> Option<Found> {
        let (mut found, mut exists) = (Found::default(), false);
        let (mut seen, mut located) = (HashSet::new(), HashSet::new());
        for instance in instances {
            exists = true;
            // The API takes any number for a port.
            let Ok(port) = u16::try_from(instance.service.definition.port) else { continue };
            let Some(target) = self.target(&instance) else { continue };
            if !seen.insert((target.clone(), port)) {
                continue;
            }
            if found.answers.len() == self.answers_max {
                found.has_more = true;
                break;
            }
            if let Ok(ip) = instance.address().parse()
                && located.insert(target.clone())
            {
                found.additionals.extend(address(&target, RecordType::ANY, ip, ttl));
            }
            let location = SRV::new(SRV_PRIORITY, instance.weight(), port, target);
            found.answers.push(Record::from_rdata(name.clone(), ttl, RData::SRV(location)));
        }
        exists.then_some(found)
    }

    /// The name under which a client finds an instance: its node's, unless it has an address of its own.
    fn target(&self, instance: &Usable<'_>) -> Option<Name> {
        let has_own = !instance.service.definition.address.is_empty();
        let of_node = || node_name(&instance.node.name, self.datacenter, self.domain);
        if let Some(name) = (!has_own).then(of_node).flatten() {
            return Some(name);
        }
        match instance.address().parse::<IpAddr>() {
            Ok(ip) => {
                let label = address_label(ip);
                let labels = [label.as_str(), "addr", self.datacenter].map(str::as_bytes);
                below(labels, self.domain)
            }
            Err(_) => host_name(instance.address()),
        }
    }

    /// Addresses. Where instances are known by names only, the answer is an alias for one of them. `None` if no
    /// instance can be used.
    fn addresses(
        &self,
        asked: Asked<'_>,
        instances: impl Iterator<Item = Instance<'a>>,
        judge: impl Fn(Instance<'a>) -> Option<Usable<'a>>,
        ttl: u32,
    ) -> Option<Found> {
        let (mut found, mut seen) = (Found::default(), HashSet::new());
        let (mut has_address, mut alias) = (false, None);
        for instance @ (node, service) in instances {
            let text = match service.definition.address.as_str() {
                "" => &node.address,
                own => own,
            };
            let ip = text.parse::<IpAddr>().ok();
            let is_wanted = ip.is_some_and(|ip| wants(asked.kind, family(ip)));
            // Checks cost most. They matter for what would be in the answer, and until it is known that the name
            // exists.
            let matters = is_wanted || (!has_address && (ip.is_some() || alias.is_none()));
            if !matters || judge(instance).is_none() {
                continue;
            }
            let Some(ip) = ip else {
                alias = Some(text);
                continue;
            };
            has_address = true;
            if !is_wanted || !seen.insert(ip) {
                continue;
            }
            if Some(found.answers.len()) == self.settings.addresses_max {
                break;
            }
            if found.answers.len() == self.answers_max {
                found.has_more = true;
                break;
            }
            found.answers.extend(address(asked.name, asked.kind, ip, ttl));
        }
        match alias {
            Some(alias) if !has_address => Some(self.alias(asked, alias, ttl)),
            None if !has_address => None,
            _ => Some(found),
        }
    }

    fn query(&self, asked: Asked<'_>, query: &str) -> Found {
        let Some(Ok(query)) = template::resolve(self.state, query) else {
            return self.no_such_name();
        };
        let definition = &query.definition;
        // With its own token, else with that of who asks.
        let own = token_of(definition).zip(self.asker.rights);
        let own = own.map(|(secret, asker)| self.state.rights_of(&secret, asker.by.default));
        if matches!(own, Some(None)) {
            return Found::error(ResponseCode::ServFail);
        }
        let own = own.flatten();
        let rights = own.as_ref().or(self.asker.rights);
        let usable = usable(self.state, definition).into_iter();
        let usable = usable.filter(|(_, row)| sees_row(rights, row)).collect();
        let mut instances: Vec<_> = shuffled(usable).collect();
        let near = near::named_node(self.state, &definition.near, self.asker.ip, self.asker.agent);
        if let Some(from) = near {
            near::sort_by_distance(self.state, &from, &mut instances, |(node, _)| &node.name);
        }
        let ttl = duration::parse(&definition.dns_ttl).ok();
        let ttl = ttl.and_then(|nanos| ttl_seconds(nanos).ok());
        let of_service = || self.settings.service_ttl.of(&definition.service.to_lowercase());
        let judge = |instance| self.chosen(instance);
        self.found_instances(asked, instances.into_iter(), judge, ttl.unwrap_or_else(of_service))
    }

    // ---- nodes and addresses -----------------------------------------------------------------

    fn node(&self, asked: Asked<'_>, node: &str) -> Found {
        let node = self.state.node(node);
        let rights = self.asker.rights;
        let node = node.filter(|row| rights.is_none_or(|rights| rights.sees_node(&row.name)));
        let Some(node) = node else { return self.no_such_name() };
        let ttl = self.settings.node_ttl;
        let mut found = match node.address.parse() {
            Ok(ip) => {
                let answers = address(asked.name, asked.kind, ip, ttl).into_iter().collect();
                Found { answers, ..Found::default() }
            }
            Err(_) => self.alias(asked, &node.address, ttl),
        };
        let meta = node.meta.iter().flatten().map(|(key, value)| {
            let text = match key.starts_with(BARE_META) {
                true => value.clone(),
                false => format!("{key}={value}"),
            };
            let pieces = text.as_bytes().chunks(TEXT_BYTES_MAX).collect();
            Record::from_rdata(asked.name.clone(), ttl, RData::TXT(TXT::from_bytes(pieces)))
        });
        match asked.kind {
            RecordType::TXT | RecordType::ANY => found.answers.extend(meta),
            RecordType::A | RecordType::AAAA if self.settings.node_meta => {
                found.additionals.extend(meta);
            }
            _ => {}
        }
        self.or_nothing(found)
    }

    /// An alias, with what it stands for if that is in the domain too.
    fn alias(&self, asked: Asked<'_>, alias: &str, ttl: u32) -> Found {
        let Asked { name, kind, aliases } = asked;
        let follows = matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY);
        let Some(target) = host_name(alias).filter(|_| follows || kind == RecordType::CNAME) else {
            return Found::default();
        };
        let record = Record::from_rdata(name.clone(), ttl, RData::CNAME(CNAME(target.clone())));
        let mut found = Found { answers: vec![record], ..Found::default() };
        if follows && aliases < ALIASES_MAX && self.domain.zone_of(&target) {
            let asked = Asked { name: &target, kind, aliases: aliases + 1 };
            let subject = subject(&target, self.domain, self.datacenter);
            found.answers.extend(self.about(subject, asked).answers);
        }
        found
    }

    /// The records of a reverse look-up.
    pub(super) fn reverse(&self, name: &Name, asked: RecordType, names: Vec<Name>) -> Found {
        let record =
            |of| Record::from_rdata(name.clone(), self.settings.node_ttl, RData::PTR(PTR(of)));
        let names = names.into_iter().take(self.answers_max);
        let answers = match wants(asked, RecordType::PTR) {
            true => names.map(record).collect(),
            false => Vec::new(),
        };
        Found { answers, ..Found::default() }
    }

    // ---- the domain itself -------------------------------------------------------------------

    fn about_domain(&self, asked: Asked<'_>) -> Found {
        let (servers, additionals) = self.name_servers(asked.name);
        let soa = self.soa(asked.name).into_iter();
        let found = Found { additionals, ..Found::default() };
        match asked.kind {
            RecordType::NS => Found { answers: servers, ..found },
            RecordType::SOA => Found { answers: soa.collect(), authorities: servers, ..found },
            RecordType::ANY => Found { answers: soa.chain(servers).collect(), ..found },
            _ => self.nothing(),
        }
    }

    /// The servers of the cluster, which the SOA record calls by one name.
    fn name_server(&self, asked: Asked<'_>) -> Found {
        let servers = self.instances(SERVER_SERVICE, None);
        let judge = |instance| self.usable(instance);
        let found = self.addresses(asked, servers, judge, self.settings.node_ttl);
        self.or_nothing(found.unwrap_or_default())
    }

    /// NS records of the servers, and their addresses.
    fn name_servers(&self, name: &Name) -> (Vec<Record>, Vec<Record>) {
        let ttl = self.settings.node_ttl;
        let (mut servers, mut addresses) = (Vec::new(), Vec::new());
        let instances = self.instances(SERVER_SERVICE, None);
        for instance in instances.filter_map(|instance| self.usable(instance)) {
            let server = node_name(&instance.node.name, self.datacenter, self.domain);
            let Some(server) = server else { continue };
            if let Ok(ip) = instance.node.address.parse() {
                addresses.extend(address(&server, RecordType::ANY, ip, ttl));
            }
            servers.push(Record::from_rdata(name.clone(), ttl, RData::NS(NS(server))));
        }
        (servers, addresses)
    }

    fn soa(&self, owner: &Name) -> Option<Record> {
        let times = self.settings.soa;
        let signed = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
        // Grows with every change, as the serial number of a zone does.
        let [_, _, _, _, a, b, c, d] = self.state.index().0.to_be_bytes();
        let soa = SOA::new(
            below([NAME_SERVER_LABEL.as_bytes()], self.domain)?,
            below([HOSTMASTER_LABEL.as_bytes()], self.domain)?,
            u32::from_be_bytes([a, b, c, d]),
            signed(times.refresh),
            signed(times.retry),
            signed(times.expire),
            times.negative_ttl,
        );
        Some(Record::from_rdata(owner.clone(), times.negative_ttl, RData::SOA(soa)))
    }

    /// The name exists, and has no such records.
    fn nothing(&self) -> Found {
        Found { authorities: self.soa(self.domain).into_iter().collect(), ..Found::default() }
    }

    fn or_nothing(&self, found: Found) -> Found {
        match found.answers.is_empty() {
            true => Found { additionals: found.additionals, ..self.nothing() },
            false => found,
        }
    }

    fn no_such_name(&self) -> Found {
        Found { code: ResponseCode::NXDomain, ..self.nothing() }
    }
}

/// The type of an address' record.
fn family(ip: IpAddr) -> RecordType {
    match ip {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

/// The record of an address, if it is of the type that is asked for.
fn address(name: &Name, asked: RecordType, ip: IpAddr, ttl: u32) -> Option<Record> {
    wants(asked, family(ip)).then(|| Record::from_rdata(name.clone(), ttl, RData::from(ip)))
}

/// A name below a domain; `None` if it would be none: a label too long or empty, or all too long.
fn below<'l>(labels: impl IntoIterator<Item = &'l [u8]>, domain: &Name) -> Option<Name> {
    labels
        .into_iter()
        .try_fold(Name::new(), |name, label| name.append_label(label).ok())?
        .append_domain(domain)
        .ok()
}

/// A host name that was given as an address.
fn host_name(text: &str) -> Option<Name> {
    let labels = text.trim_end_matches('.').split('.').map(str::as_bytes);
    below(labels, &Name::root())
}

/// What is in a list, in random order, and as far as it is asked for.
fn shuffled<T>(mut rest: Vec<T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || match rest.len() {
        0 => None,
        count => Some(rest.swap_remove(rand::rng().random_range(0..count))),
    })
}

/// The name of a node, which may have dots in it, below the domain.
pub(super) fn node_name(node: &str, datacenter: &str, domain: &Name) -> Option<Name> {
    let labels = node.split('.').chain(["node", datacenter]).map(str::as_bytes);
    below(labels, domain)
}

/// The name of a service.
pub(super) fn service_name(service: &str, domain: &Name) -> Option<Name> {
    below([service.as_bytes(), b"service"], domain)
}
