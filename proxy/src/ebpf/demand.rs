//! What a Service port asks of the sockets: a pure function of its rule.

use std::{net::SocketAddr, time::Duration};

use super::layout::Address;
use crate::rules::{PortName, PortRule, Protocol, Target, TrafficPolicy};

/// Endpoints, and the addresses at which they are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// Which endpoints these are; a Service port has at most one demand of each.
    pub(super) policy: TrafficPolicy,
    /// Sorted, none twice. None at all: connections are refused.
    pub(super) endpoints: Vec<Address>,
    /// Where connections to them arrive; at least one.
    pub(super) addresses: Vec<Address>,
    /// 0 without session affinity.
    pub(super) affinity_seconds: u32,
}

impl Demand {
    /// Whether a choice is remembered, and must be checked against the endpoints of then.
    pub(super) fn wants_members(&self) -> bool {
        self.affinity_seconds > 0 || self.addresses.iter().any(|address| address.protocol == Protocol::Udp)
    }
}

/// What that port asks for. Left to packet filters are: node ports, which depend on the addresses that the node has; load
/// balancers' addresses that only some sources may use, because a socket that connects has no source yet; and connections that
/// are not answered, because a socket's call can only be answered or refused.
pub(super) fn demands(name: &PortName, rule: &PortRule) -> Vec<Demand> {
    let mut demands: Vec<Demand> = Vec::new();
    let mut add = |ip, policy, target: Target<'_>| {
        let endpoints = match target {
            Target::Endpoints(endpoints) => endpoints,
            Target::Reject => &[],
            Target::Drop => return,
        };
        let address = Address { protocol: name.protocol, socket: SocketAddr::new(ip, rule.port) };
        if let Some(demand) = demands.iter_mut().find(|demand| demand.policy == policy) {
            demand.addresses.push(address);
            return;
        }
        let endpoints = endpoints.iter().map(|socket| Address { protocol: name.protocol, socket: *socket });
        demands.push(Demand {
            policy,
            endpoints: endpoints.collect(),
            addresses: vec![address],
            affinity_seconds: rule.affinity.map_or(0, seconds),
        });
    };
    add(rule.cluster_ip, rule.internal, rule.internal_target());
    let balancers = rule.load_balancer_ips.iter().filter(|_| rule.source_ranges.is_none());
    for ip in rule.external_ips.iter().chain(balancers) {
        add(*ip, TrafficPolicy::Cluster, rule.short_cut_target());
    }
    demands
}

fn seconds(affinity: Duration) -> u32 {
    u32::try_from(affinity.as_secs()).unwrap_or(u32::MAX)
}
