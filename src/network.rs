//! The addresses of a cluster, and how they come about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnet::Ipv4Net;

/// The bits of a node's range unless something else is said. Source: Kubernetes' `--node-cidr-mask-size`.
pub const DEFAULT_NODE_CIDR_MASK_SIZE: u8 = 24;

/// The port of cluster DNS unless something else is said: one that needs no privileges; its Service has 53.
pub const DEFAULT_DNS_PORT: u16 = 10053;

/// The cluster's domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The number of the DNS Service's address within the Services' range.
const DNS_ADDRESS_NUMBER: usize = 10;

/// The file that names the node's resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The smallest range of a node: half of it must hold a few containers, the other half a few guests.
pub const MAX_NODE_CIDR_MASK_SIZE: u8 = 27;

/// Names of devices that are never the node's own way out.
const OTHERS: [&str; 6] = ["lo", "wherry", "cni", "docker", "veth", "virbr"];

/// How pods and Services get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Addresses in 127.0.0.0/8, which need no privileges; the node has the whole range.
    Loopback,
    /// A pod network of the node's own, with routes; needs root. Each node has a part of the range.
    Routed,
}

/// The addresses of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// How pods and Services get their addresses.
    pub mode: Mode,
    /// The range of all pods' addresses.
    pub pod_cidr: Ipv4Net,
    /// The bits of each node's part of it, in routed mode.
    pub node_cidr_mask_size: u8,
    /// The range of the Services' addresses.
    pub service_cidr: Ipv4Net,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The port on which cluster DNS listens.
    pub dns_port: u16,
}

impl Network {
    /// The range that nodes get their parts of; `None` where there is one node, which has it all.
    pub fn divided(&self) -> Option<Ipv4Net> {
        (self.mode == Mode::Routed).then_some(self.pod_cidr)
    }

    /// The address of the Service `kube-dns`, which pods ask; `None` in a range that is too small. Source: kubeadm.
    pub fn dns_ip(&self) -> Option<IpAddr> {
        // The first host is the network's address and one.
        self.service_cidr.hosts().nth(DNS_ADDRESS_NUMBER - 1).map(IpAddr::V4)
    }

    /// Where cluster DNS listens. In loopback mode its Service's address is the machine's own and nobody else's; in routed
    /// mode no machine has that.
    pub fn dns_listen(&self) -> Option<SocketAddr> {
        let ip = match self.mode {
            Mode::Loopback => self.dns_ip()?,
            Mode::Routed => self.node_ip,
        };
        Some(SocketAddr::new(ip, self.dns_port))
    }

    /// What cluster DNS is told.
    pub fn dns_config(&self) -> Option<wherry_proxy::dns::Config> {
        Some(wherry_proxy::dns::Config {
            listen: self.dns_listen()?,
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            service_ip: self.dns_ip(),
            cluster_cidrs: vec![self.pod_cidr.into(), self.service_cidr.into()],
            resolv_conf: RESOLV_CONF.into(),
        })
    }

    /// Where clients reach a server that listens on `address`.
    pub fn reached_at(&self, address: SocketAddr) -> SocketAddr {
        if address.ip().is_unspecified() { SocketAddr::new(self.node_ip, address.port()) } else { address }
    }
}

/// The address by which this machine is known to others: that of its default route, else its first that is not on a device
/// of pods. `None` when it has no address but loopback.
pub fn detect_node_ip() -> Option<Ipv4Addr> {
    by_default_route().or_else(first_global)
}

/// Connecting a datagram socket sends nothing; the kernel chooses the source address as for every packet to the world.
fn by_default_route() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-1 (RFC 5737), port `discard`: nobody's.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if is_global(ip) => Some(ip),
        _ => None,
    }
}

fn first_global() -> Option<Ipv4Addr> {
    nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
        let ip = interface.address?.as_sockaddr_in()?.ip();
        let is_other = OTHERS.iter().any(|name| interface.interface_name.starts_with(name));
        (!is_other && is_global(ip)).then_some(ip)
    })
}

fn is_global(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_at_the_nodes() {
        let network = Network {
            mode: Mode::Routed,
            pod_cidr: "10.42.0.0/16".parse().unwrap(),
            node_cidr_mask_size: DEFAULT_NODE_CIDR_MASK_SIZE,
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ip: "192.0.2.7".parse().unwrap(),
            dns_port: DEFAULT_DNS_PORT,
        };
        for (listening, reached) in [
            ("0.0.0.0:6443", "192.0.2.7:6443"),
            ("[::]:1", "192.0.2.7:1"),
            ("192.0.2.8:6443", "192.0.2.8:6443"),
        ] {
            assert_eq!(network.reached_at(listening.parse().unwrap()).to_string(), reached);
        }
        assert_eq!(network.dns_ip().unwrap().to_string(), "10.43.0.10");
        assert_eq!(network.dns_listen().unwrap().to_string(), "192.0.2.7:10053");
        let loopback =
            Network { mode: Mode::Loopback, service_cidr: "127.96.0.0/16".parse().unwrap(), ..network };
        assert_eq!(loopback.dns_listen().unwrap().to_string(), "127.96.0.10:10053");
        let tiny = Network { service_cidr: "127.96.0.0/29".parse().unwrap(), ..loopback };
        assert_eq!(tiny.dns_listen(), None);
        assert_eq!(network.divided(), Some(network.pod_cidr));
        assert_eq!(Network { mode: Mode::Loopback, ..network }.divided(), None);
    }
}
