//! What the node is told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Taint;
use wherry_runtimes::{AuthConfig, Runtime};

use crate::network::RoutedConfig;

/// The port of the node API. Source: Kubernetes.
pub const DEFAULT_PORT: u16 = 10250;
/// Pods per node. Wasm pods are small; Kubernetes' own default of 110 is for containers.
pub const DEFAULT_MAX_PODS: u32 = 10_000;

/// A runtime and the handler (of a RuntimeClass) that chooses it.
#[derive(Clone)]
pub struct RuntimeEntry {
    /// Handler: `wasmtime`, `runc`.
    pub handler: String,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// What the node does without it.
    pub role: RuntimeRole,
}

/// What the node does without a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeRole {
    /// It is not ready, and the kubelet does not start.
    Required,
    /// Pods of the other runtimes go on; those of this one wait.
    Optional,
}

/// Tells for which runtime an image that is on no runtime yet was made.
#[async_trait]
pub trait ImageKinds: Send + Sync {
    /// The handler of the runtime that can run the image, as its registry describes it. `credentials` are tried in turn,
    /// then none.
    async fn handler_of(
        &self,
        image: &str,
        credentials: &[AuthConfig],
    ) -> Result<String, wherry_runtimes::Error>;
}

/// [`ImageKinds`], or none: then the default runtime is asked for every image that is not here.
#[derive(Clone, Default)]
pub struct ImageKindsEntry(pub Option<Arc<dyn ImageKinds>>);

impl fmt::Debug for ImageKindsEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImageKindsEntry").field(&self.0.is_some()).finish()
    }
}

impl fmt::Debug for RuntimeEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeEntry").field("handler", &self.handler).finish_non_exhaustive()
    }
}

/// Certificates of the node API, PEM.
#[derive(Clone, Default)]
pub struct ServerTls {
    /// Serving certificate chain.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The authority that signs the clients.
    pub client_ca_pem: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Configuration of the kubelet.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node_name: String,
    /// Address of the node.
    pub node_ip: IpAddr,
    /// Pods' directories, volumes and checkpoints live below it.
    pub root_dir: PathBuf,
    /// Container logs live below it.
    pub log_dir: PathBuf,
    /// Runtimes by handler.
    pub runtimes: Vec<RuntimeEntry>,
    /// The handler for pods that name no RuntimeClass and whose image no other runtime knows.
    pub default_handler: String,
    /// Who knows for which runtime an image is.
    pub image_kinds: ImageKindsEntry,
    /// The node's part of the pod network; empty leaves it to the runtime.
    pub pod_cidr: String,
    /// The pod network is this machine's to make, and the node's part of it comes from its Node; then `pod_cidr` is empty.
    pub routed: Option<RoutedConfig>,
    /// Pods of runtimes that have cgroups get one each, below `kubepods` in this cgroup (`/` is the root); `None` leaves it
    /// to the runtime.
    pub cgroup_root: Option<String>,
    /// Directory of static pods' manifests.
    pub static_pod_dir: Option<PathBuf>,
    /// Certificates of the node API; without them there is none.
    pub tls: Option<ServerTls>,
    /// Port of the node API; 0 takes any free one.
    pub port: u16,
    /// Common names of client certificates that may do everything at the node API without asking the API server.
    pub trusted_client_names: Vec<String>,
    /// Further labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Directories that a runtime without privileges reads or writes are given to this user.
    pub runtime_owner_uid: Option<u32>,
    /// Directories that no pod gets as a `hostPath`, beside this kubelet's own.
    pub protected_dirs: Vec<PathBuf>,
    /// Kept back from pods: thousandths of a core.
    pub reserved_cpu_millicores: i64,
    /// Kept back from pods: bytes of memory.
    pub reserved_memory_bytes: i64,
    /// Version of this program, after `v1.36.0+`.
    pub version: String,
    /// Address of cluster DNS, for `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Time between two renewals of the node's Lease.
    pub lease_renew_interval: Duration,
    /// A container's log is rotated when it is larger, in bytes.
    pub log_max_bytes: u64,
    /// Log files kept for each container, the current one included.
    pub log_max_files: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: "localhost".to_owned(),
            node_ip: IpAddr::from([127, 0, 0, 1]),
            root_dir: PathBuf::from("/var/lib/wherry/kubelet"),
            log_dir: PathBuf::from("/var/lib/wherry/kubelet/logs"),
            runtimes: Vec::new(),
            default_handler: String::new(),
            image_kinds: ImageKindsEntry::default(),
            pod_cidr: String::new(),
            routed: None,
            cgroup_root: None,
            static_pod_dir: None,
            tls: None,
            port: DEFAULT_PORT,
            trusted_client_names: Vec::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: DEFAULT_MAX_PODS,
            runtime_owner_uid: None,
            protected_dirs: Vec::new(),
            reserved_cpu_millicores: 0,
            reserved_memory_bytes: 0,
            version: concat!("wherry", env!("CARGO_PKG_VERSION")).to_owned(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            lease_renew_interval: Duration::from_secs(10),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
        }
    }
}

impl Config {
    /// `v1.36.0+wherry0.1.0`.
    pub fn kubelet_version(&self) -> String {
        format!("v1.36.0+{}", self.version)
    }
}
