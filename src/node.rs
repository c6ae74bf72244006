//! What the kubelet of this machine is told.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use ipnet::IpNet;
use wherry_apiserver::pki::{ClientIdentity, Pki};
use wherry_kubelet::{
    ImageKindsEntry, RuntimeEntry, RuntimeRole, ServerTls,
    network::{CniConfig, PeersConfig, RoutedConfig},
};
use wherry_proxy::ProxyMode;

use crate::{
    containerd::{self, ContainerRuntime},
    data_dir::DataDir,
    image_kinds::RegistryImageKinds,
    network::{CLUSTER_DOMAIN, Mode, Network},
    supervise::Supervisor,
};

/// The handler of the RuntimeClass that chooses the Wasm runtime.
pub const WASM_HANDLER: &str = "wasmtime";

/// Where other networks put their CNI configuration. Source: containerd's default.
const OTHERS_CNI_CONFIG: &str = "/etc/cni/net.d";

/// The facts of a node from which its kubelet's configuration is made.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where its files are.
    pub data_dir: DataDir,
    /// Its name.
    pub node_name: String,
    /// The cluster's addresses, and its own.
    pub network: Network,
    /// The port of its API; 0 takes any that is free.
    pub port: u16,
    /// Where manifests of static pods are.
    pub static_pod_dir: Option<PathBuf>,
    /// The user that the Wasm runtime runs as, if it is not ours.
    pub runtime_owner_uid: Option<u32>,
    /// Where the Wasm runtime serves CRI.
    pub runtime_socket: PathBuf,
    /// Who runs Linux containers.
    pub container_runtime: ContainerRuntime,
}

impl Node {
    /// The kubelet's configuration, with a certificate of the cluster's own authority for the node's API.
    ///
    /// # Errors
    /// The certificate cannot be made, or the runtime's socket has no path that can be used.
    pub fn kubelet_config(&self, pki: &Pki) -> anyhow::Result<wherry_kubelet::Config> {
        let serving = pki
            .kubelet_serving(&self.node_name, &[self.network.node_ip.to_string()])
            .context("cannot make the kubelet's certificate")?;
        let runtime =
            wherry_runtime_cri::Client::connect(&format!("unix://{}", self.runtime_socket.display()))
                .context("cannot use the wasm runtime's socket")?;
        let mut runtimes = vec![RuntimeEntry {
            handler: WASM_HANDLER.to_owned(),
            runtime: Arc::new(runtime),
            role: RuntimeRole::Required,
        }];
        if let Some(endpoint) = self.container_runtime.endpoint() {
            let runtime = wherry_runtime_cri::Client::connect(&endpoint)
                .context("cannot use the container runtime's endpoint")?;
            runtimes.push(RuntimeEntry {
                handler: containerd::HANDLER.to_owned(),
                runtime: Arc::new(runtime),
                role: RuntimeRole::Optional,
            });
        }
        Ok(wherry_kubelet::Config {
            node_name: self.node_name.clone(),
            node_ip: self.network.node_ip,
            root_dir: self.data_dir.kubelet(),
            log_dir: self.data_dir.logs(),
            runtimes,
            default_handler: WASM_HANDLER.to_owned(),
            image_kinds: ImageKindsEntry(Some(Arc::new(RegistryImageKinds))),
            pod_cidr: match self.network.mode {
                Mode::Loopback => self.network.pod_cidr.to_string(),
                // The node's part of it comes from its Node.
                Mode::Routed => String::new(),
            },
            routed: (self.network.mode == Mode::Routed).then(|| self.routed_config()),
            cluster_dns: self.network.dns_ip().into_iter().collect(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            static_pod_dir: self.static_pod_dir.clone(),
            tls: Some(ServerTls {
                certificate_pem: serving.certificate_pem,
                key_pem: serving.key_pem,
                client_ca_pem: pki.ca_pem().to_owned(),
            }),
            port: self.port,
            trusted_client_names: vec![ClientIdentity::ApiServerKubeletClient.user()],
            runtime_owner_uid: self.runtime_owner_uid,
            // Pods of processes exist in routed mode only, and that is root's.
            cgroup_root: (self.network.mode == Mode::Routed).then(|| "/".to_owned()),
            protected_dirs: vec![self.data_dir.root().to_owned()],
            ..wherry_kubelet::Config::default()
        })
    }

    /// Starts a containerd of our own, where there is to be one. Wasm pods do not depend on it, nor does the node's readiness.
    pub fn supervise_containerd(&self, supervisor: &mut Supervisor) {
        let ContainerRuntime::Own(own) = &self.container_runtime else { return };
        let (own, directory) = (own.clone(), self.cni_directory());
        supervisor.spawn("containerd", move |lifecycle| {
            let (own, directory) = ((*own).clone(), directory.clone());
            Box::pin(async move { own.run(directory, lifecycle).await })
        });
    }

    /// The directory whose CNI configuration counts for containers.
    pub fn cni_directory(&self) -> PathBuf {
        cni_config(&self.data_dir).directory_in_force().to_owned()
    }

    fn routed_config(&self) -> RoutedConfig {
        RoutedConfig { service_cidr: Some(self.network.service_cidr), cni: Some(cni_config(&self.data_dir)) }
    }
}

/// Where containers' network configuration is on this machine.
pub fn cni_config(data_dir: &DataDir) -> CniConfig {
    CniConfig {
        directory: data_dir.cni_config(),
        others: Path::new(OTHERS_CNI_CONFIG).to_owned(),
        state: data_dir.cni_state(),
    }
}

/// The proxy's configuration.
pub fn proxy_config(network: &Network, node_name: &str, mode: ProxyMode) -> wherry_proxy::Config {
    let config = wherry_proxy::Config::loopback(node_name.to_owned(), network.node_ip);
    let cluster_cidrs = network.divided().map(IpNet::V4).into_iter().collect();
    wherry_proxy::Config { mode, cluster_cidrs, ..config }
}

/// What keeps the routes to the other nodes' pods needs to know; `None` where there are no other nodes.
pub fn peers_config(network: &Network, node_name: &str) -> Option<PeersConfig> {
    peers_config_at(network.mode, network.node_ip, node_name)
}

/// The same for a process that knows no ranges.
pub fn peers_config_at(mode: Mode, node_ip: IpAddr, node_name: &str) -> Option<PeersConfig> {
    match (mode, node_ip) {
        (Mode::Routed, IpAddr::V4(node_ip)) => Some(PeersConfig { node_name: node_name.to_owned(), node_ip }),
        _ => None,
    }
}

/// The machine's host name, as a node is named by default.
///
/// # Errors
/// The kernel does not tell, or it is not text.
pub fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    let name = name.into_string().map_err(|name| anyhow::anyhow!("the host name {name:?} is not text"))?;
    Ok(name.to_ascii_lowercase())
}
