//! Which sockets serve a ruleset. Pure.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::rules::{Family, PortRule, Protocol, Ruleset, Target};

/// Where connections arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frontend {
    pub(super) protocol: Protocol,
    /// The Service's address and port, or the node's address and a node port.
    pub(super) address: SocketAddr,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) service: ObjectReference,
    pub(super) affinity: Option<Duration>,
    /// At least one.
    pub(super) endpoints: Vec<SocketAddr>,
    /// Which clients may connect; `None` means all.
    pub(super) sources: Option<Vec<IpNet>>,
}

/// A socket for every address that has endpoints: without a socket the kernel refuses, which is what is wanted.
pub(super) fn frontends(ruleset: &Ruleset, node_addresses: &[IpAddr]) -> BTreeMap<Frontend, Rule> {
    let mut frontends = BTreeMap::new();
    for (name, rule) in &ruleset.ports {
        let mut add = |ip: IpAddr, port: u16, target: Target<'_>, sources: Option<&Vec<IpNet>>| {
            if let Target::Endpoints(endpoints) = target {
                let frontend = Frontend { protocol: name.protocol, address: SocketAddr::new(ip, port) };
                frontends.insert(frontend, to_endpoints(rule, endpoints, sources));
            }
        };
        add(rule.cluster_ip, rule.port, rule.internal_target(), None);
        for ip in &rule.external_ips {
            add(*ip, rule.port, rule.external_target(), None);
        }
        for ip in &rule.load_balancer_ips {
            add(*ip, rule.port, rule.external_target(), rule.source_ranges.as_ref());
        }
        for ip in node_addresses.iter().filter(|ip| Family::of(**ip) == name.family) {
            if let Some(port) = rule.node_port {
                add(*ip, port, rule.external_target(), None);
            }
        }
    }
    frontends
}

fn to_endpoints(rule: &PortRule, endpoints: &[SocketAddr], sources: Option<&Vec<IpNet>>) -> Rule {
    Rule {
        service: rule.service.clone(),
        affinity: rule.affinity,
        endpoints: endpoints.to_vec(),
        sources: sources.cloned(),
    }
}
