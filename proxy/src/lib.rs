//! The Service proxy: connections to a Service's address reach one of its endpoints.
//!
//! Called by the binary ([`run`]); calls the API through `wherry-client`. A pure function computes the [`rules::Ruleset`] from
//! Services, EndpointSlices and the node; a [`Backend`] carries it out: [`userspace`] in loopback mode, and the kernel's in
//! routed mode. [`mode::choose`] says which.
//!
//! Invariants:
//! - A change of endpoints never touches an established connection of an endpoint that stays.
//! - A Service port without endpoints is refused at once.
//! - The rules in force are those of the newest objects seen; nothing is remembered from a former run, and what it left is
//!   replaced.

mod backend;
mod conntrack;
pub mod dns;
pub mod ebpf;
mod health;
pub mod iptables;
pub mod mode;
mod network;
pub mod nftables;
pub mod rules;
mod run;
pub mod userspace;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use backend::{Applied, Backend, BackendError};
pub use mode::ProxyMode;
pub use run::{clean_up, kernel_backend, run};

/// What the proxy needs to know of its node and network.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: endpoints on it are local.
    pub node_name: String,
    /// The addresses on which node ports are served. An unspecified one (`0.0.0.0`, `::`) stands for every address of the
    /// node but the loopback ones, in modes where the kernel serves.
    pub node_port_addresses: Vec<IpAddr>,
    /// How Services are served.
    pub mode: ProxyMode,
    /// The pods' ranges of the whole cluster; what comes from outside of them to a ClusterIP, and what leaves them for the
    /// world, gets the node's address as source. Empty if pods have no network of their own (loopback mode).
    pub cluster_cidrs: Vec<IpNet>,
    /// The cgroup (v2) whose processes' sockets are served in mode `ebpf`; by default the root, which is every process.
    pub cgroup: Option<PathBuf>,
    /// How often the rules in force are compared with the plan.
    pub verify_interval: Duration,
}

/// The default of [`Config::verify_interval`]. What it catches is another program that flushes the rules: it must be noticed
/// before people do.
pub const DEFAULT_VERIFY_INTERVAL: Duration = Duration::from_secs(30);

impl Config {
    /// The configuration of a node without a pod network of its own: addresses in 127.0.0.0/8, served in user space.
    pub fn loopback(node_name: String, node_ip: IpAddr) -> Self {
        Self {
            node_name,
            node_port_addresses: vec![node_ip],
            mode: ProxyMode::Userspace,
            cluster_cidrs: Vec::new(),
            cgroup: None,
            verify_interval: DEFAULT_VERIFY_INTERVAL,
        }
    }

    /// Whether pods and Services have addresses in 127.0.0.0/8, which the kernel does not translate.
    pub fn is_loopback(&self) -> bool {
        self.cluster_cidrs.is_empty()
    }
}

/// Why the proxy stopped early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches ended before the proxy was told to stop.
    #[error("the watches of Services and EndpointSlices ended")]
    Watches,
    /// No backend can be used.
    #[error("{reason}")]
    Mode {
        /// What was found out.
        reason: String,
    },
    /// The backend that was chosen cannot start.
    #[error("cannot start the {mode} backend")]
    Backend {
        /// Which.
        mode: ProxyMode,
        /// Why.
        #[source]
        source: BackendError,
    },
}
