//! What one Service port puts into the tables. Pure.
//!
//! Rules are written as `iptables-restore` reads them, without the chain in front.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, time::Duration};

use sha2::{Digest as _, Sha256};

use super::layout::{MARK_CHAIN, OFF_CLUSTER_CHAIN};
use crate::{
    network::Network,
    rules::{Family, PortName, PortRule, Protocol, Target, TrafficPolicy},
};

/// What one Service port puts into the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortPlan {
    /// Chains of its own in table `nat`.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// Rules in the chain that all Services share, by address.
    pub(super) ips: Vec<String>,
    /// The same for node ports.
    pub(super) node_ports: Vec<String>,
    /// What is refused at addresses, in table `filter`.
    pub(super) refused_ips: Vec<String>,
    /// The same for node ports.
    pub(super) refused_node_ports: Vec<String>,
}

impl PortPlan {
    pub(super) fn new(name: &PortName, rule: &PortRule, network: &Network) -> Self {
        Planning { name, rule, network, comment: comment(name), plan: Self::default() }.plan()
    }
}

struct Planning<'a> {
    name: &'a PortName,
    rule: &'a PortRule,
    network: &'a Network,
    comment: String,
    plan: PortPlan,
}

impl Planning<'_> {
    fn plan(mut self) -> PortPlan {
        let rule = self.rule;
        let port = rule.port;
        let cluster_ip = self.at(&rule.cluster_ip.to_string(), port);
        let (everywhere, here) = (self.chain("SVC"), self.chain("LCL"));
        let mut is_used = [false, false];
        match (rule.internal_target(), rule.internal) {
            (Target::Endpoints(_), TrafficPolicy::Cluster) => {
                is_used[0] = true;
                self.serve_ip(&cluster_ip, &everywhere);
            }
            (Target::Endpoints(_), TrafficPolicy::Local) => {
                is_used[1] = true;
                self.serve_ip(&cluster_ip, &here);
            }
            (refused, _) => {
                let refusal = self.refusal(refused);
                self.plan.refused_ips.push(format!("{cluster_ip} {refusal}"));
            }
        }

        if rule.is_external() {
            if let Target::Endpoints(_) = rule.short_cut_target() {
                is_used[0] = true;
                is_used[1] |= matches!(
                    (rule.external, rule.external_target()),
                    (TrafficPolicy::Local, Target::Endpoints(_))
                );
                self.outsiders(&everywhere, &here);
            } else {
                self.refuse_outside();
            }
        }
        for (is_used, chain, endpoints) in
            [(is_used[0], everywhere, &rule.cluster_endpoints), (is_used[1], here, &rule.local_endpoints)]
        {
            if is_used {
                self.balance(&chain, endpoints, &cluster_ip);
            }
        }
        self.plan
    }

    /// Packets to an address and port.
    fn at(&self, ip: &str, port: u16) -> String {
        let Self { name: PortName { protocol, .. }, comment, .. } = self;
        format!("-d {ip} -p {protocol} -m {protocol} --dport {port}{comment}")
    }

    fn at_node_port(&self, port: u16) -> String {
        let Self { name: PortName { protocol, .. }, comment, .. } = self;
        format!("-p {protocol} -m {protocol} --dport {port}{comment}")
    }

    fn chain(&self, kind: &str) -> String {
        chain_name(kind, self.name, None)
    }

    fn serve_ip(&mut self, at: &str, chain: &str) {
        self.plan.ips.push(format!("{at} -j {chain}"));
    }

    fn refusal(&self, target: Target<'_>) -> &'static str {
        match (target, self.name.protocol, self.name.family) {
            (Target::Drop, ..) => "-j DROP",
            // A reset needs no address of this machine, and the kernel does not limit how many it sends.
            (_, Protocol::Tcp, _) => "-j REJECT --reject-with tcp-reset",
            (_, Protocol::Udp, Family::V4) => "-j REJECT --reject-with icmp-port-unreachable",
            (_, Protocol::Udp, Family::V6) => "-j REJECT --reject-with icmp6-port-unreachable",
        }
    }

    fn refuse_outside(&mut self) {
        let refusal = self.refusal(self.rule.short_cut_target());
        for ip in self.rule.outside_ips() {
            let at = self.at(&ip.to_string(), self.rule.port);
            self.plan.refused_ips.push(format!("{at} {refusal}"));
        }
        if let Some(port) = self.rule.node_port {
            let at = self.at_node_port(port);
            self.plan.refused_node_ports.push(format!("{at} {refusal}"));
        }
    }

    /// What comes to an address outside of the cluster's.
    fn outsiders(&mut self, everywhere: &str, here: &str) {
        let external = self.chain("EXT");
        let mut rules = Vec::new();
        match self.rule.external {
            TrafficPolicy::Cluster => {
                rules.push(format!("-j {MARK_CHAIN}"));
                rules.push(format!("-j {everywhere}"));
            }
            TrafficPolicy::Local => {
                for cidr in self.network.cidrs_of(self.name.family) {
                    rules.push(format!("-s {cidr} -j {everywhere}"));
                }
                rules.push(format!("-m addrtype --src-type LOCAL -j {MARK_CHAIN}"));
                rules.push(format!("-m addrtype --src-type LOCAL -j {everywhere}"));
                if let Target::Endpoints(_) = self.rule.external_target() {
                    rules.push(format!("-j {here}"));
                } else {
                    // What is not translated is dropped in the table that may drop.
                    self.drop_outside();
                }
            }
        }
        self.plan.chains.insert(external.clone(), rules);

        let firewall = self.chain("FW");
        for ip in &self.rule.external_ips {
            let at = self.at(&ip.to_string(), self.rule.port);
            self.serve_ip(&at, &external);
        }
        for ip in &self.rule.load_balancer_ips {
            let at = self.at(&ip.to_string(), self.rule.port);
            if let Some(ranges) = &self.rule.source_ranges {
                self.serve_ip(&at, &firewall);
                // What the ranges do not let through is not translated, and still has this address.
                self.plan.refused_ips.push(format!("{at} -j DROP"));
                let allowed = ranges.iter().map(|range| format!("-s {range} -j {external}")).collect();
                self.plan.chains.insert(firewall.clone(), allowed);
            } else {
                self.serve_ip(&at, &external);
            }
        }
        if let Some(port) = self.rule.node_port {
            let at = self.at_node_port(port);
            self.plan.node_ports.push(format!("{at} -j {external}"));
        }
    }

    fn drop_outside(&mut self) {
        for ip in &self.rule.external_ips {
            let at = self.at(&ip.to_string(), self.rule.port);
            self.plan.refused_ips.push(format!("{at} -j DROP"));
        }
        if self.rule.source_ranges.is_none() {
            for ip in &self.rule.load_balancer_ips {
                let at = self.at(&ip.to_string(), self.rule.port);
                self.plan.refused_ips.push(format!("{at} -j DROP"));
            }
        }
        if let Some(port) = self.rule.node_port {
            let at = self.at_node_port(port);
            self.plan.refused_node_ports.push(format!("{at} -j DROP"));
        }
    }

    /// A chain that chooses an endpoint, and one for each endpoint.
    fn balance(&mut self, chain: &str, endpoints: &[SocketAddr], cluster_ip: &str) {
        let mut rules = Vec::new();
        if self.network.cidrs_of(self.name.family).next().is_some() {
            rules.push(format!("{cluster_ip} -j {OFF_CLUSTER_CHAIN}"));
        }
        let names: Vec<String> =
            endpoints.iter().map(|endpoint| chain_name("SEP", self.name, Some(*endpoint))).collect();
        if let Some(timeout) = self.rule.affinity {
            for name in &names {
                let seconds = timeout.as_secs();
                rules.push(format!(
                    "-m recent --name {name} --rcheck --seconds {seconds} --reap --rsource -j {name}"
                ));
            }
        }
        for (index, name) in names.iter().enumerate() {
            let left = names.len() - index;
            if left == 1 {
                rules.push(format!("-j {name}"));
            } else {
                rules.push(format!("-m statistic --mode random --probability {} -j {name}", share(left)));
            }
        }
        self.plan.chains.insert(chain.to_owned(), rules);
        for (name, endpoint) in names.into_iter().zip(endpoints) {
            let rules = self.endpoint_rules(&name, *endpoint, self.rule.affinity);
            self.plan.chains.insert(name, rules);
        }
    }

    fn endpoint_rules(&self, chain: &str, endpoint: SocketAddr, affinity: Option<Duration>) -> Vec<String> {
        let protocol = self.name.protocol;
        let seen = affinity.map_or(String::new(), |_| format!(" -m recent --name {chain} --set --rsource"));
        vec![
            // A pod that reaches itself through its Service: the answer must come back this way.
            format!("-s {} -m addrtype ! --src-type LOCAL -j {MARK_CHAIN}", endpoint.ip()),
            format!("-p {protocol}{seen} -m {protocol} -j DNAT --to-destination {endpoint}"),
        ]
    }
}

/// One part in so many, as the statistic match takes it.
fn share(parts: usize) -> String {
    let parts = u32::try_from(parts).unwrap_or(u32::MAX);
    format!("{:.10}", 1.0 / f64::from(parts))
}

/// Names of chains have up to 28 characters: the Service port is in them as a hash.
fn chain_name(kind: &str, name: &PortName, endpoint: Option<SocketAddr>) -> String {
    let mut hash = Sha256::new();
    hash.update(name.to_string());
    if let Some(endpoint) = endpoint {
        hash.update([0]);
        hash.update(endpoint.to_string());
    }
    let mut chain = format!("{}{kind}-", super::layout::PREFIX);
    for byte in hash.finalize().iter().take(8) {
        let _infallible = write!(chain, "{byte:02X}");
    }
    chain
}

/// For whoever reads the rules; left out if it would need quoting.
fn comment(name: &PortName) -> String {
    let text = name.to_string().replace(' ', "/");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-./:".contains(c);
    if text.len() <= 200 && text.chars().all(is_plain) {
        format!(" -m comment --comment {text}")
    } else {
        String::new()
    }
}
