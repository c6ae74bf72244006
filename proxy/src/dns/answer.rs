//! What a question is answered: a pure function of the index.
//!
//! Source: Kubernetes' DNS-Based Service Discovery, version 1.1.0; RFC 2308 (NXDOMAIN and NODATA), RFC 8020.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};
use ipnet::IpNet;

use super::index::{Address, Entry, Index, Port, ServiceRecords, dashed};

/// The time to live of the cluster's records, seconds. Source: CoreDNS' plugin `kubernetes`.
pub const TTL_SECONDS: u32 = 5;

/// The version of the schema, as `dns-version.<zone>` says it.
const SCHEMA_VERSION: &str = "1.1.0";

/// Weights of the SRV records of one answer sum up to this. Source: CoreDNS.
const TOTAL_WEIGHT: u16 = 100;

/// The zone, and what is asked about besides.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The cluster's domain, such as `cluster.local.`, in lower case and fully qualified.
    pub domain: Name,
    /// The server's own address: that of its Service.
    pub server: Option<IpAddr>,
    /// Whose reverse names are ours alone: the addresses of Services and pods.
    pub reverse: Vec<IpNet>,
}

/// What a question is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// These records, and others that will be asked for next.
    Records {
        /// At least one.
        answers: Vec<Record>,
        /// Addresses of the names in the answers.
        additionals: Vec<Record>,
    },
    /// The name is another name: the answer is that name's.
    Alias(Box<Record>),
    /// The name exists, but has nothing of this type (NODATA).
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name is not the cluster's: others know.
    Elsewhere,
}

impl Zone {
    /// The cluster's zone for a domain as a user writes it.
    ///
    /// # Errors
    /// It is no domain name.
    pub fn new(
        domain: &str,
        server: Option<IpAddr>,
        reverse: Vec<IpNet>,
    ) -> Result<Self, hickory_proto::ProtoError> {
        let mut domain = Name::from_ascii(domain)?.to_lowercase();
        domain.set_fqdn(true);
        Ok(Self { domain, server, reverse })
    }

    /// The record that says for how long "there is none" is true, and whose word that is.
    pub fn soa(&self, index: &Index) -> Record {
        let below = |label: &str| self.domain.prepend_label(label).unwrap_or_else(|_| self.domain.clone());
        let server = below("dns").prepend_label("ns").unwrap_or_else(|_| self.domain.clone());
        let serial = index.serial();
        let soa = SOA::new(server, below("hostmaster"), serial, 7200, 1800, 86400, TTL_SECONDS);
        record(&self.domain, RData::SOA(soa))
    }

    /// What `name` is answered when asked for `kind`.
    pub fn answer(&self, index: &Index, name: &Name, kind: RecordType) -> Answer {
        let name = &name.to_lowercase();
        if self.domain.zone_of_case(name) {
            let labels: Option<Vec<&str>> =
                name.iter().map(|label| std::str::from_utf8(label).ok()).collect();
            // Nothing of ours has a label that is no text.
            let Some(mut labels) = labels else { return Answer::NoName };
            labels.truncate(labels.len().saturating_sub(usize::from(self.domain.num_labels())));
            return self.inside(index, name, &labels, kind);
        }
        self.reverse(index, name, kind)
    }

    fn inside(&self, index: &Index, name: &Name, labels: &[&str], kind: RecordType) -> Answer {
        match labels {
            [] => self.apex(index, kind),
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
                of_type(kind, RecordType::TXT, || vec![record(name, text)])
            }
            ["dns"] | ["svc" | "pod"] => Answer::NoData,
            ["ns", "dns"] => addresses(name, kind, self.server),
            [namespace, "svc" | "pod"] => exists(index.has_namespace(namespace)),
            [address, namespace, "pod"] => pod(index, name, address, namespace, kind),
            [rest @ .., service, namespace, "svc"] => match index.service(namespace, service) {
                Some((records, entry)) => {
                    let of = Asked { zone: self, name, service, namespace, records, entry, kind };
                    of.answer(rest)
                }
                None => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    fn apex(&self, index: &Index, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => found(vec![self.soa(index)]),
            RecordType::NS => {
                let Ok(server) = self.domain.prepend_label("dns").and_then(|dns| dns.prepend_label("ns"))
                else {
                    return Answer::NoData;
                };
                let additionals = self.server.map(|ip| address_record(&server, ip)).into_iter().collect();
                Answer::Records { answers: vec![record(&self.domain, RData::NS(NS(server)))], additionals }
            }
            _ => Answer::NoData,
        }
    }

    fn reverse(&self, index: &Index, name: &Name, kind: RecordType) -> Answer {
        // `parse_arpa_name` takes parts of an address for ranges.
        let Some(range) = name.parse_arpa_name().ok() else { return Answer::Elsewhere };
        let is_ours = self.reverse.iter().any(|ours| ours.contains(&range));
        let missing = if is_ours { Answer::NoName } else { Answer::Elsewhere };
        if range.prefix_len() != range.max_prefix_len() {
            // What lies below it may exist.
            return if is_ours { Answer::NoData } else { missing };
        }
        let names = self.names_of(index, range.addr());
        if names.is_empty() {
            return missing;
        }
        of_type(kind, RecordType::PTR, || {
            names.into_iter().map(|target| record(name, RData::PTR(PTR(target)))).collect()
        })
    }

    /// The names that an address has: its Service's; else those of the endpoint that say who it is; else those that
    /// headless Services give it.
    fn names_of(&self, index: &Index, address: IpAddr) -> BTreeSet<Name> {
        let services = index.services_at(address);
        let names: BTreeSet<Name> =
            services.filter_map(|(namespace, service)| self.service_name(namespace, service)).collect();
        if !names.is_empty() {
            return names;
        }
        let named = |explicit: bool| -> BTreeSet<Name> {
            let endpoints = index.endpoints_at(address).filter(|(_, entry, endpoint)| {
                let headless =
                    entry.service.as_ref().is_some_and(|service| service.address == Address::Headless);
                if explicit { endpoint.hostname.is_some() && entry.service.is_some() } else { headless }
            });
            let names = endpoints.filter_map(|((namespace, service), _, endpoint)| {
                self.service_name(namespace, service)?.prepend_label(endpoint.label(address)).ok()
            });
            names.collect()
        };
        let explicit = named(true);
        if explicit.is_empty() { named(false) } else { explicit }
    }

    fn service_name(&self, namespace: &str, service: &str) -> Option<Name> {
        let name = Name::from_labels([service.as_bytes(), namespace.as_bytes(), b"svc"]).ok()?;
        name.append_name(&self.domain).ok()
    }
}

/// Port and name that SRV records lead to, with the name's addresses.
type Targets = BTreeMap<(u16, Name), BTreeSet<IpAddr>>;

/// A question about a Service.
struct Asked<'a> {
    zone: &'a Zone,
    name: &'a Name,
    service: &'a str,
    namespace: &'a str,
    records: &'a ServiceRecords,
    entry: &'a Entry,
    kind: RecordType,
}

impl Asked<'_> {
    /// `rest` are the labels before the Service's.
    fn answer(&self, rest: &[&str]) -> Answer {
        if let Address::ExternalName(target) = &self.records.address {
            return match (rest, external_name(target)) {
                ([], Some(target)) => Answer::Alias(Box::new(record(self.name, RData::CNAME(CNAME(target))))),
                _ => Answer::NoName,
            };
        }
        match rest {
            [] => self.addresses(),
            [label] => match label.strip_prefix('_') {
                Some(protocol) => exists(self.ports().any(|port| port.protocol == protocol)),
                None => self.endpoint(label),
            },
            [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => self.port(port, protocol),
                _ => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    fn addresses(&self) -> Answer {
        match &self.records.address {
            Address::ClusterIps(ips) => addresses(self.name, self.kind, ips.iter().copied()),
            // "If there are no ready endpoints for the headless Service, the answer should be NXDOMAIN."
            _ => self.of_endpoints(self.entry.ready().map(|(endpoint, _)| endpoint.addresses.as_slice())),
        }
    }

    fn endpoint(&self, label: &str) -> Answer {
        let with_label = self.entry.ready().filter_map(|(endpoint, _)| match &endpoint.hostname {
            Some(hostname) => (hostname == label).then_some(endpoint.addresses.as_slice()),
            None => {
                let at = endpoint.addresses.iter().position(|address| dashed(*address) == label)?;
                endpoint.addresses.get(at..=at)
            }
        });
        self.of_endpoints(with_label)
    }

    fn of_endpoints<'e>(&self, endpoints: impl Iterator<Item = &'e [IpAddr]>) -> Answer {
        let found: BTreeSet<IpAddr> = endpoints.flatten().copied().collect();
        if found.is_empty() { Answer::NoName } else { addresses(self.name, self.kind, found) }
    }

    /// The ports that have records: of a headless Service, those of its ready endpoints.
    fn ports(&self) -> impl Iterator<Item = &Port> {
        let headless = self.records.address == Address::Headless;
        let of_service = self.records.ports.iter().filter(move |_| !headless);
        let of_endpoints = self.entry.ready().filter(move |_| headless).flat_map(|(_, ports)| ports);
        of_service.chain(of_endpoints)
    }

    fn port(&self, port: &str, protocol: &str) -> Answer {
        let is_asked = |candidate: &&Port| candidate.name == port && candidate.protocol == protocol;
        let targets: Targets = match &self.records.address {
            Address::ClusterIps(ips) => {
                let numbers = self.records.ports.iter().filter(is_asked).map(|port| port.number);
                let name = self.zone.service_name(self.namespace, self.service);
                numbers
                    .filter_map(|number| Some(((number, name.clone()?), ips.iter().copied().collect())))
                    .collect()
            }
            _ => self.endpoint_targets(is_asked),
        };
        if targets.is_empty() {
            return Answer::NoName;
        }
        if !matches!(self.kind, RecordType::SRV | RecordType::ANY) {
            return Answer::NoData;
        }
        let count = u16::try_from(targets.len()).unwrap_or(TOTAL_WEIGHT);
        let weight = (TOTAL_WEIGHT / count).max(1);
        let answers = targets.keys().map(|(number, target)| {
            record(self.name, RData::SRV(SRV::new(0, weight, *number, target.clone())))
        });
        let answers = answers.collect();
        let additionals: BTreeSet<(&Name, IpAddr)> =
            targets.iter().flat_map(|((_, target), ips)| ips.iter().map(move |ip| (target, *ip))).collect();
        Answer::Records {
            answers,
            additionals: additionals.into_iter().map(|(name, ip)| address_record(name, ip)).collect(),
        }
    }

    fn endpoint_targets(&self, is_asked: impl Fn(&&Port) -> bool) -> Targets {
        let mut targets = Targets::new();
        let Some(service) = self.zone.service_name(self.namespace, self.service) else { return targets };
        for (endpoint, ports) in self.entry.ready() {
            for port in ports.iter().filter(&is_asked) {
                // Addresses of one hostname share a name; an endpoint without one has a name per address.
                for address in &endpoint.addresses {
                    let Ok(target) = service.prepend_label(endpoint.label(*address)) else { continue };
                    targets.entry((port.number, target)).or_default().insert(*address);
                }
            }
        }
        targets
    }
}

/// `1-2-3-4.<ns>.pod.<domain>`: whatever the address says, in a namespace that exists.
fn pod(index: &Index, name: &Name, address: &str, namespace: &str, kind: RecordType) -> Answer {
    let address = match address.replace('-', ".").parse() {
        Ok(ip) => Some(IpAddr::V4(ip)),
        Err(_) => address.replace('-', ":").parse().ok().map(IpAddr::V6),
    };
    match address {
        Some(ip) if index.has_namespace(namespace) => addresses(name, kind, [ip]),
        _ => Answer::NoName,
    }
}

fn external_name(target: &str) -> Option<Name> {
    let mut name = Name::from_ascii(target).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

/// The addresses of the family that is asked for.
fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
    let asked = ips.into_iter().filter(|ip| match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        kind => kind == RecordType::ANY,
    });
    found(asked.map(|ip| address_record(name, ip)).collect())
}

fn of_type(asked: RecordType, kind: RecordType, records: impl FnOnce() -> Vec<Record>) -> Answer {
    if asked == kind || asked == RecordType::ANY { found(records()) } else { Answer::NoData }
}

fn found(answers: Vec<Record>) -> Answer {
    if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals: Vec::new() } }
}

/// A name that has nothing itself, but something below it.
fn exists(it_does: bool) -> Answer {
    if it_does { Answer::NoData } else { Answer::NoName }
}

fn address_record(name: &Name, ip: IpAddr) -> Record {
    record(
        name,
        match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        },
    )
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
