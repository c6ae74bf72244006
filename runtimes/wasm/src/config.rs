//! Settings of the runtime.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::image::PlainHttp;

/// Settings of the runtime; [`Config::new`] has a default for all but the directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where images, compiled code and state are.
    pub root_dir: PathBuf,
    /// The node's part of the pod network, until the kubelet tells another.
    pub pod_cidr: Option<Ipv4Net>,
    /// All pods of the cluster: what may be granted as an address inside loopback.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service addresses: every guest may connect there.
    pub service_cidrs: Vec<IpNet>,
    /// Where pods of the host network listen.
    pub node_ip: IpAddr,
    /// Where cluster DNS is asked; `None`: at the address that pods are told.
    pub cluster_dns: Option<ClusterDns>,
    /// The cluster's domain, within which every guest may look names up.
    pub cluster_domain: String,
    /// HTTP instances at once, of all pods together.
    pub max_http_instances: u32,
    /// HTTP requests at once for one container; more wait.
    pub max_requests_per_container: usize,
    /// Connections at once to one container; more wait.
    pub max_connections_per_container: usize,
    /// How long a guest may take for a request.
    pub request_timeout: Duration,
    /// How long an address rests before another pod gets it.
    pub address_rest: Duration,
    /// Threads that run guests; `None`: one per core.
    pub guest_threads: Option<usize>,
    /// Registries that may be spoken to without TLS.
    pub plain_http: PlainHttp,
}

/// Where cluster DNS really listens. The Service in front of it has port 53, which an ordinary user's proxy cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterDns {
    /// The name server that pods are told.
    pub service_ip: IpAddr,
    /// Where it is asked.
    pub listen: SocketAddr,
}

impl Config {
    /// Defaults of the loopback network: pods in 127.64.0.0/16, Services in 127.96.0.0/16.
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        let loopback = |third: u8| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, third, 0, 0), 16));
        Self {
            root_dir: root_dir.into(),
            pod_cidr: None,
            cluster_cidrs: vec![loopback(64)],
            service_cidrs: vec![loopback(96)],
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            cluster_dns: None,
            cluster_domain: "cluster.local".to_owned(),
            max_http_instances: 1000,
            max_requests_per_container: 1000,
            max_connections_per_container: 4096,
            request_timeout: Duration::from_secs(300),
            address_rest: Duration::from_secs(30),
            guest_threads: None,
            plain_http: PlainHttp::Loopback,
        }
    }

    /// The image store's directory: the same for the runtime and for the command line.
    pub fn images_dir(root_dir: &Path) -> PathBuf {
        root_dir.join("images")
    }
}
