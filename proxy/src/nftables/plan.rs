//! What one Service port puts into the table. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    batch::{Value, Verdict},
    layout::{
        CLUSTER_IPS, FIREWALL_IPS, HAIRPINS, REFUSED_IPS, REFUSED_NODE_PORTS, REJECT_CHAIN, SERVICE_IPS,
        SERVICE_NODE_PORTS,
    },
};
use crate::rules::{PortName, PortRule, Protocol, Target, TrafficPolicy};

/// What a chain does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chain {
    /// Chooses an endpoint.
    Balance { endpoints: Vec<SocketAddr> },
    /// Lets a client stay with its endpoint, or chooses one: each has a chain.
    BalanceWithAffinity { endpoints: Vec<String>, timeout: Duration },
    /// Remembers the client, and sends the connection to the endpoint.
    Endpoint { endpoint: SocketAddr, timeout: Duration },
    /// Takes what came to an address outside of the cluster's: masquerades it, and goes on.
    FromOutside { to: String },
    /// Takes what came to an address outside of the cluster's, and keeps the client's address. This node and its pods may
    /// use the endpoints of the whole cluster (`everywhere`), others those of the node (`here`).
    FromOutsideLocal { everywhere: String, here: Verdict },
    /// Drops what does not come from these ranges.
    Firewall { ranges: Vec<IpNet> },
}

/// Which element of which set.
pub(super) type ElementKey = (&'static str, Vec<u8>);

/// What one Service port puts into the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortPlan {
    pub(super) chains: BTreeMap<String, Chain>,
    /// Several ports may put the same element into a set.
    pub(super) elements: Vec<(ElementKey, Value)>,
}

impl PortPlan {
    pub(super) fn new(name: &PortName, rule: &PortRule) -> Self {
        let mut plan = Self::default();
        let chain = |kind: &str| chain_name(kind, name);
        let goto = |chain: &str| Value::Verdict(Verdict::Goto(chain.to_owned()));
        let (everywhere, here) = (chain("svc"), chain("local"));

        let at = |ip: IpAddr| service_key(ip, name.protocol, rule.port);
        plan.elements.push(((CLUSTER_IPS, address_key(rule.cluster_ip)), Value::None));
        let mut is_used = [false, false];
        match (rule.internal_target(), rule.internal) {
            (Target::Endpoints(_), TrafficPolicy::Cluster) => {
                is_used[0] = true;
                plan.elements.push(((SERVICE_IPS, at(rule.cluster_ip)), goto(&everywhere)));
            }
            (Target::Endpoints(_), TrafficPolicy::Local) => {
                is_used[1] = true;
                plan.elements.push(((SERVICE_IPS, at(rule.cluster_ip)), goto(&here)));
            }
            (refused, _) => plan.refuse((REFUSED_IPS, at(rule.cluster_ip)), refused),
        }

        let mut outside: Vec<(ElementKey, ElementKey)> =
            rule.outside_ips().map(|ip| ((SERVICE_IPS, at(ip)), (REFUSED_IPS, at(ip)))).collect();
        outside.extend(rule.node_port.map(|port| {
            let key = node_port_key(name.protocol, port);
            ((SERVICE_NODE_PORTS, key.clone()), (REFUSED_NODE_PORTS, key))
        }));
        if let (false, Target::Endpoints(_)) = (outside.is_empty(), rule.short_cut_target()) {
            is_used[0] = true;
            let from_outside = match (rule.external, rule.external_target()) {
                (TrafficPolicy::Cluster, _) => Chain::FromOutside { to: everywhere.clone() },
                (TrafficPolicy::Local, Target::Endpoints(_)) => {
                    is_used[1] = true;
                    let here = Verdict::Goto(here.clone());
                    Chain::FromOutsideLocal { everywhere: everywhere.clone(), here }
                }
                (TrafficPolicy::Local, _) => {
                    Chain::FromOutsideLocal { everywhere: everywhere.clone(), here: Verdict::Drop }
                }
            };
            let external = chain("ext");
            plan.elements.extend(outside.into_iter().map(|(served, _)| (served, goto(&external))));
            plan.chains.insert(external, from_outside);
        } else {
            for (_, refused) in outside {
                plan.refuse(refused, rule.short_cut_target());
            }
        }

        if let (Some(ranges), false) = (&rule.source_ranges, rule.load_balancer_ips.is_empty()) {
            let firewall = chain("fw");
            let ips = rule.load_balancer_ips.iter();
            plan.elements.extend(ips.map(|ip| ((FIREWALL_IPS, at(*ip)), goto(&firewall))));
            plan.chains.insert(firewall, Chain::Firewall { ranges: ranges.clone() });
        }
        for (is_used, chain, endpoints) in
            [(is_used[0], everywhere, &rule.cluster_endpoints), (is_used[1], here, &rule.local_endpoints)]
        {
            if is_used {
                plan.hairpins(endpoints);
                plan.balance(name, chain, endpoints, rule.affinity);
            }
        }
        plan
    }

    fn refuse(&mut self, key: ElementKey, target: Target<'_>) {
        let verdict = match target {
            Target::Drop => Verdict::Drop,
            Target::Reject | Target::Endpoints(_) => Verdict::Goto(REJECT_CHAIN.to_owned()),
        };
        self.elements.push((key, Value::Verdict(verdict)));
    }

    fn balance(
        &mut self,
        name: &PortName,
        chain: String,
        endpoints: &[SocketAddr],
        affinity: Option<Duration>,
    ) {
        let Some(timeout) = affinity else {
            self.chains.insert(chain, Chain::Balance { endpoints: endpoints.to_vec() });
            return;
        };
        let mut chains = Vec::new();
        for endpoint in endpoints {
            let one = endpoint_chain_name(name, *endpoint);
            chains.push(one.clone());
            self.chains.insert(one, Chain::Endpoint { endpoint: *endpoint, timeout });
        }
        self.chains.insert(chain, Chain::BalanceWithAffinity { endpoints: chains, timeout });
    }

    fn hairpins(&mut self, endpoints: &[SocketAddr]) {
        for endpoint in endpoints {
            let ip = address_key(endpoint.ip());
            self.elements.push(((HAIRPINS, [ip.clone(), ip].concat()), Value::None));
        }
    }
}

/// The name of a chain, or of a chain's set: readable in `nft list ruleset`, and unique. Names have up to 255 bytes.
pub(super) fn chain_name(kind: &str, name: &PortName) -> String {
    let PortName { namespace, service, port, protocol, .. } = name;
    format!("{kind}/{namespace}/{service}/{protocol}/{port}")
}

/// The name of an endpoint's chain, and of the set of its clients. `nft` takes no colons in names.
fn endpoint_chain_name(name: &PortName, endpoint: SocketAddr) -> String {
    format!("{}/{}/{}", chain_name("ep", name), endpoint.ip().to_string().replace(':', "_"), endpoint.port())
}

/// An address as a key.
pub(super) fn address_key(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Each part of a key takes whole registers of four bytes.
fn port_key(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Address and port as a value.
pub(super) fn endpoint_value(endpoint: SocketAddr) -> Vec<u8> {
    [address_key(endpoint.ip()), port_key(endpoint.port()).to_vec()].concat()
}

fn service_key(ip: IpAddr, protocol: Protocol, port: u16) -> Vec<u8> {
    [address_key(ip), node_port_key(protocol, port)].concat()
}

fn node_port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    [[protocol.number(), 0, 0, 0], port_key(port)].concat()
}
