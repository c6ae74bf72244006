//! What the kernel's rules depend on besides Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{Config, rules::Family};

/// The bit of packet marks that asks for masquerading; as kube-proxy's, which cluster networks leave alone.
pub(crate) const MASQUERADE_MARK: u32 = 0x4000;

/// What the kernel's rules depend on besides Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    cluster_cidrs: Vec<IpNet>,
    node_port_addresses: Vec<IpAddr>,
}

impl Network {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cluster_cidrs: config.cluster_cidrs.clone(),
            node_port_addresses: config.node_port_addresses.clone(),
        }
    }

    /// The pods' ranges of the whole cluster.
    pub(crate) fn cidrs_of(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        self.cluster_cidrs.iter().filter(move |cidr| Family::of(cidr.addr()) == family).map(IpNet::trunc)
    }

    /// Whether node ports are served on every address of the machine but the loopback ones.
    pub(crate) fn is_every_address(&self, family: Family) -> bool {
        self.node_port_addresses.iter().any(|ip| Family::of(*ip) == family && ip.is_unspecified())
    }

    /// The addresses on which node ports are served, where they are named.
    pub(crate) fn node_ips(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        let named = self.node_port_addresses.iter().filter(|ip| !ip.is_unspecified());
        named.filter(move |ip| Family::of(**ip) == family).copied()
    }
}

/// `127.0.0.0/8`, `::1`.
pub(crate) fn loopback_range(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    }
}

/// `224.0.0.0/4`, `ff00::/8`.
pub(crate) fn multicast_range(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).into(),
    }
}
