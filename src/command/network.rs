//! The addresses of a cluster.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;

/// How pods and Services get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Addresses in 127.0.0.0/8, which need no privileges.
    Loopback,
}

/// The addresses of a cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct NetworkArguments {
    /// How pods and Services get their addresses.
    #[arg(long, value_enum, default_value_t = Mode::Loopback)]
    pub(super) network: Mode,
    /// The range of the pods' addresses.
    #[arg(long, value_name = "CIDR", default_value = "127.64.0.0/16")]
    pub(super) pod_cidr: Ipv4Net,
    /// The range of the Services' addresses.
    #[arg(long, value_name = "CIDR", default_value = "127.96.0.0/16")]
    pub(super) service_cidr: Ipv4Net,
    /// The node's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(super) node_ip: IpAddr,
}

impl NetworkArguments {
    /// Whether the ranges go with the mode.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Mode::Loopback = self.network;
        for (flag, range) in [("--pod-cidr", self.pod_cidr), ("--service-cidr", self.service_cidr)] {
            anyhow::ensure!(
                range.network().is_loopback() && range.prefix_len() >= 8 && range.prefix_len() <= 28,
                "{flag} {range} must be a part of 127.0.0.0/8 with a prefix of at most 28 bits in --network loopback"
            );
        }
        let overlap = self.pod_cidr.contains(&self.service_cidr.network())
            || self.service_cidr.contains(&self.pod_cidr.network());
        anyhow::ensure!(
            !overlap,
            "--pod-cidr {} and --service-cidr {} overlap",
            self.pod_cidr,
            self.service_cidr
        );
        anyhow::ensure!(
            self.node_ip.is_loopback(),
            "--node-ip {} must be a loopback address in --network loopback",
            self.node_ip
        );
        Ok(())
    }
}
