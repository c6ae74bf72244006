//! The addresses of a cluster, as the command line gives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use clap::Args;
use ipnet::{IpNet, Ipv4Net};

use crate::network::{self, Mode, Network};

/// The port of the API server unless something else is said. Source: Kubernetes.
const API_PORT: u16 = 6443;

/// The ranges of pods and Services unless something else is said.
const LOOPBACK: [Ipv4Net; 2] = [range(127, 64), range(127, 96)];
const ROUTED: [Ipv4Net; 2] = [range(10, 42), range(10, 43)];

const fn range(first: u8, second: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(first, second, 0, 0), 16)
}

/// The addresses of a cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct NetworkArguments {
    /// How pods and Services get their addresses.
    #[arg(long, value_enum, default_value_t = Mode::Loopback)]
    pub(super) network: Mode,
    /// The range of the pods' addresses [default: 127.64.0.0/16, or 10.42.0.0/16 in routed mode].
    #[arg(long, value_name = "CIDR", visible_alias = "cluster-cidr")]
    pod_cidr: Option<Ipv4Net>,
    /// The range of the Services' addresses [default: 127.96.0.0/16, or 10.43.0.0/16 in routed mode].
    #[arg(long, value_name = "CIDR", visible_alias = "service-cluster-ip-range")]
    service_cidr: Option<Ipv4Net>,
    /// The bits of each node's part of the pods' range, in routed mode.
    #[arg(long, value_name = "BITS", default_value_t = network::DEFAULT_NODE_CIDR_MASK_SIZE)]
    node_cidr_mask_size: u8,
    /// The node's address [default: 127.0.0.1, or in routed mode the one that packets to the world leave with].
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// The port on which cluster DNS listens, with UDP and TCP; pods ask it at port 53 of Service kube-system/kube-dns.
    #[arg(long, value_name = "PORT", default_value_t = network::DEFAULT_DNS_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: u16,
}

/// The range of all pods' addresses in routed mode unless something else is said.
pub(super) const ROUTED_POD_CIDR: Ipv4Net = ROUTED[0];

impl NetworkArguments {
    /// The addresses, complete and consistent.
    pub(super) fn resolve(&self) -> anyhow::Result<Network> {
        let defaults = match self.network {
            Mode::Loopback => LOOPBACK,
            Mode::Routed => ROUTED,
        };
        let network = Network {
            mode: self.network,
            pod_cidr: self.pod_cidr.unwrap_or(defaults[0]).trunc(),
            node_cidr_mask_size: self.node_cidr_mask_size,
            service_cidr: self.service_cidr.unwrap_or(defaults[1]).trunc(),
            node_ip: match (self.node_ip, self.network) {
                (Some(ip), _) => ip,
                (None, Mode::Loopback) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                (None, Mode::Routed) => network::detect_node_ip()
                    .context("this machine has no address but loopback; name the node's with --node-ip")?
                    .into(),
            },
            dns_port: self.dns_port,
        };
        check(&network)?;
        Ok(network)
    }

    /// The same for a process that changes the machine's network.
    pub(super) fn resolve_on_node(&self) -> anyhow::Result<Network> {
        anyhow::ensure!(
            self.network == Mode::Loopback || nix::unistd::geteuid().is_root(),
            "--network routed makes routes and starts containers, which only root may do: start it with sudo, or leave \
             --network out for loopback mode, which needs no privileges and runs Wasm pods"
        );
        self.resolve()
    }
}

/// The range of load balancers' addresses, if it goes with the others.
pub(super) fn load_balancer_cidr(said: Option<IpNet>, network: &Network) -> anyhow::Result<Option<IpNet>> {
    let Some(range) = said else { return Ok(None) };
    for (flag, other) in [("--pod-cidr", network.pod_cidr), ("--service-cidr", network.service_cidr)] {
        let other = IpNet::V4(other);
        anyhow::ensure!(
            !range.contains(&other.network()) && !other.contains(&range.network()),
            "--load-balancer-cidr {range} and {flag} {other} overlap"
        );
    }
    anyhow::ensure!(
        network.mode == Mode::Routed || range.network().is_loopback(),
        "--load-balancer-cidr {range} must be a part of 127.0.0.0/8 in --network loopback"
    );
    Ok(Some(range.trunc()))
}

/// Where the API server listens: as said, else on its usual port where the nodes and pods of the mode reach it.
pub(super) fn listen(said: Option<SocketAddr>, network: &Network) -> anyhow::Result<SocketAddr> {
    let listen = said.unwrap_or(SocketAddr::new(network.node_ip, API_PORT));
    match network.mode {
        Mode::Loopback if said.is_none() => Ok(SocketAddr::from(([127, 0, 0, 1], API_PORT))),
        Mode::Routed if listen.ip().is_loopback() => anyhow::bail!(
            "--listen {listen} cannot be reached by pods and other nodes in --network routed; leave it out, or name the \
             node's address, {}",
            network.node_ip
        ),
        Mode::Loopback | Mode::Routed => Ok(listen),
    }
}

/// Whether the ranges go with the mode and with each other.
fn check(network: &Network) -> anyhow::Result<()> {
    let Network { pod_cidr, service_cidr, node_ip, node_cidr_mask_size, .. } = network;
    let ranges = [("--pod-cidr", pod_cidr), ("--service-cidr", service_cidr)];
    for (flag, range) in ranges {
        match network.mode {
            Mode::Loopback => anyhow::ensure!(
                range.network().is_loopback() && range.prefix_len() >= 8 && range.prefix_len() <= 28,
                "{flag} {range} must be a part of 127.0.0.0/8 with a prefix of at most 28 bits in --network loopback"
            ),
            Mode::Routed => {
                let first = range.network();
                anyhow::ensure!(
                    range.prefix_len() >= 8 && range.prefix_len() <= 28,
                    "{flag} {range} must have a prefix of 8 to 28 bits"
                );
                anyhow::ensure!(
                    !(first.is_loopback()
                        || first.is_multicast()
                        || first.is_link_local()
                        || first.is_unspecified()),
                    "{flag} {range} cannot be routed; take a private range such as {}",
                    ROUTED[usize::from(flag != "--pod-cidr")]
                );
            }
        }
    }
    anyhow::ensure!(
        !pod_cidr.contains(&service_cidr.network()) && !service_cidr.contains(&pod_cidr.network()),
        "--pod-cidr {pod_cidr} and --service-cidr {service_cidr} overlap"
    );
    if network.mode == Mode::Loopback {
        anyhow::ensure!(
            node_ip.is_loopback(),
            "--node-ip {node_ip} must be a loopback address in --network loopback"
        );
        return Ok(());
    }
    anyhow::ensure!(
        (pod_cidr.prefix_len()..=network::MAX_NODE_CIDR_MASK_SIZE).contains(node_cidr_mask_size),
        "--node-cidr-mask-size {node_cidr_mask_size} must be between the bits of --pod-cidr, {}, and {}",
        pod_cidr.prefix_len(),
        network::MAX_NODE_CIDR_MASK_SIZE
    );
    match node_ip {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => {
            let within = ranges.into_iter().find(|(_, range)| range.contains(ip));
            if let Some((flag, range)) = within {
                anyhow::bail!("the node's address {ip} lies within {flag} {range}; choose another range");
            }
            Ok(())
        }
        _ => anyhow::bail!(
            "--node-ip {node_ip} must be an IPv4 address that other nodes reach in --network routed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        network: NetworkArguments,
    }

    fn resolved(flags: &str) -> Result<Network, String> {
        let words = std::iter::once("x").chain(flags.split_whitespace());
        Flags::parse_from(words).network.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn each_mode_has_its_own_ranges_unless_others_are_named() {
        let loopback = resolved("").unwrap();
        assert_eq!((loopback.pod_cidr, loopback.service_cidr), (LOOPBACK[0], LOOPBACK[1]));
        assert_eq!(loopback.node_ip.to_string(), "127.0.0.1");
        let routed = resolved("--network routed --node-ip 192.0.2.1").unwrap();
        assert_eq!((routed.pod_cidr, routed.service_cidr), (ROUTED[0], ROUTED[1]));
        let named = resolved("--network routed --node-ip 192.0.2.1 --cluster-cidr 172.20.1.0/20").unwrap();
        assert_eq!(named.pod_cidr.to_string(), "172.20.0.0/20");
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        for (flags, said) in [
            ("--pod-cidr 10.0.0.0/16", "--pod-cidr 10.0.0.0/16 must be a part of 127.0.0.0/8"),
            ("--node-ip 192.0.2.1", "must be a loopback address"),
            ("--pod-cidr 127.96.1.0/24", "overlap"),
            ("--network routed --node-ip 192.0.2.1 --pod-cidr 127.1.0.0/16", "cannot be routed"),
            ("--network routed --node-ip 192.0.2.1 --pod-cidr 10.43.0.0/20", "overlap"),
            ("--network routed --node-ip 10.42.3.4", "lies within --pod-cidr 10.42.0.0/16"),
            ("--network routed --node-ip 127.0.0.1", "must be an IPv4 address"),
            ("--network routed --node-ip fd00::1", "must be an IPv4 address"),
            ("--network routed --node-ip 192.0.2.1 --node-cidr-mask-size 30", "--node-cidr-mask-size 30"),
            ("--network routed --node-ip 192.0.2.1 --pod-cidr 10.42.0.0/25", "--node-cidr-mask-size 24"),
        ] {
            let error = resolved(flags).unwrap_err();
            assert!(error.contains(said), "{flags}: {error}");
        }
    }

    #[test]
    fn the_api_server_listens_where_the_modes_pods_reach_it() {
        let routed = resolved("--network routed --node-ip 192.0.2.1").unwrap();
        assert_eq!(listen(None, &routed).unwrap().to_string(), "192.0.2.1:6443");
        assert!(listen(Some("127.0.0.1:6443".parse().unwrap()), &routed).is_err());
        let loopback = resolved("--node-ip 127.3.2.1").unwrap();
        assert_eq!(listen(None, &loopback).unwrap().to_string(), "127.0.0.1:6443");
        let said = "127.0.0.1:0".parse().unwrap();
        assert_eq!(listen(Some(said), &loopback).unwrap(), said);
    }
}
