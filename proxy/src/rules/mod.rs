//! What should be served where: a pure function of Services, EndpointSlices and the node.
//!
//! A [`Ruleset`] holds one [`PortRule`] per Service port and address family, shared (`Arc`) between the plans of one moment
//! and the next: an unchanged Service costs a pointer.
//!
//! Source: KEP-752 (EndpointSlice), KEP-1669 (terminating endpoints), KEP-2086 (internal traffic policy), KEP-1860 (`ipMode`),
//! KEP-2433 and KEP-4444 (hints).

mod endpoints;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{ObjectReference, Service},
    discovery::v1::EndpointSlice,
};

pub use service::Planner;

/// The transport of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The family of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Which port of which Service, in which family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub service: Arc<str>,
    /// The port's name; empty if it has none.
    pub port: Arc<str>,
    /// The transport: two ports of one number have different ones.
    pub protocol: Protocol,
    /// The family of its addresses and endpoints.
    pub family: Family,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, " {}", self.protocol)
    }
}

/// Which endpoints traffic may go to (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Those of the whole cluster.
    Cluster,
    /// Those of this node only.
    Local,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// To one of these: sorted, none twice, at least one.
    Endpoints(&'a [SocketAddr]),
    /// Refused: the Service has no endpoint anywhere.
    Reject,
    /// Not answered: there are endpoints, but none that the traffic policy allows. Another node may answer.
    Drop,
}

/// One port of one Service in one address family.
#[derive(Debug, Clone, PartialEq)]
pub struct PortRule {
    /// The Service, for events.
    pub service: ObjectReference,
    /// The Service's port, at every address but the node's.
    pub port: u16,
    /// `clusterIP`, served to everybody who reaches it; traffic policy [`Self::internal`].
    pub cluster_ip: IpAddr,
    /// `externalIPs`; traffic policy [`Self::external`].
    pub external_ips: BTreeSet<IpAddr>,
    /// The addresses in `status.loadBalancer` that nodes serve (`ipMode: VIP`); traffic policy [`Self::external`].
    pub load_balancer_ips: BTreeSet<IpAddr>,
    /// Who may use the load balancer's addresses; `None` means everybody, an empty list nobody of this family.
    pub source_ranges: Option<Vec<IpNet>>,
    /// The port at the node's addresses; traffic policy [`Self::external`].
    pub node_port: Option<u16>,
    /// How long a client stays with its endpoint; `None` without session affinity.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy`.
    pub internal: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external: TrafficPolicy,
    /// What [`TrafficPolicy::Cluster`] allows: sorted, none twice.
    pub cluster_endpoints: Vec<SocketAddr>,
    /// What [`TrafficPolicy::Local`] allows: sorted, none twice.
    pub local_endpoints: Vec<SocketAddr>,
    /// Whether any endpoint anywhere could be used.
    pub has_endpoints: bool,
}

impl PortRule {
    /// Where connections to the ClusterIP go.
    pub fn internal_target(&self) -> Target<'_> {
        self.target(self.internal)
    }

    /// Where connections from outside the cluster to a node port, an external IP or a load balancer's IP go. What comes from
    /// this node or its pods may go to every endpoint, as if it had gone out and come back in somewhere else:
    /// [`Self::short_cut_target`].
    pub fn external_target(&self) -> Target<'_> {
        self.target(self.external)
    }

    /// Where connections from this node and its pods to a node port, an external IP or a load balancer's IP go.
    pub fn short_cut_target(&self) -> Target<'_> {
        self.target(TrafficPolicy::Cluster)
    }

    /// The external IPs and the load balancer's.
    pub fn outside_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.external_ips.union(&self.load_balancer_ips).copied()
    }

    /// Whether any address but the ClusterIP is served.
    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    fn target(&self, policy: TrafficPolicy) -> Target<'_> {
        let endpoints = match policy {
            TrafficPolicy::Cluster => &self.cluster_endpoints,
            TrafficPolicy::Local => &self.local_endpoints,
        };
        match (endpoints.is_empty(), self.has_endpoints) {
            (false, _) => Target::Endpoints(endpoints),
            (true, true) => Target::Drop,
            (true, false) => Target::Reject,
        }
    }
}

/// What a load balancer is told that asks whether this node has endpoints of a Service with `externalTrafficPolicy: Local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub service: Arc<str>,
    /// How many ready endpoints are on this node.
    pub local_endpoints: usize,
}

/// All rules of the node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ruleset {
    /// The Service ports.
    pub ports: BTreeMap<PortName, Arc<PortRule>>,
    /// By `healthCheckNodePort`.
    pub health_checks: BTreeMap<u16, HealthCheck>,
}

/// A Service port that differs between two rulesets.
#[derive(Debug, Clone, Copy)]
pub struct Difference<'a> {
    /// Which port.
    pub name: &'a PortName,
    /// As it was; `None` if it is new.
    pub old: Option<&'a Arc<PortRule>>,
    /// As it shall be; `None` if it is gone.
    pub new: Option<&'a Arc<PortRule>>,
}

impl Ruleset {
    /// The Service ports that differ, in order of their names. Equal rules that are shared are not looked into.
    pub fn differences<'a>(old: &'a Self, new: &'a Self) -> Vec<Difference<'a>> {
        let mut differences = Vec::new();
        let (mut left, mut right) = (old.ports.iter().peekable(), new.ports.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return differences,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let before = if order.is_le() { left.next() } else { None };
            let after = if order.is_ge() { right.next() } else { None };
            let (old, new) = (before.map(|(_, rule)| rule), after.map(|(_, rule)| rule));
            let Some((name, _)) = before.or(after) else { return differences };
            let is_equal = old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new) || old == new);
            if !is_equal {
                differences.push(Difference { name, old, new });
            }
        }
    }
}

/// The node for which rules are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Its name: endpoints on it are local.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// The rules for these Services and slices, as seen from `node`.
pub fn compute(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &NodeInfo) -> Ruleset {
    Planner::default().plan(services, slices, node)
}
