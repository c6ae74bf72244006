//! What the kubelet of this machine is told.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use ipnet::Ipv4Net;
use wherry_apiserver::pki::{ClientIdentity, Pki};
use wherry_kubelet::{RuntimeEntry, ServerTls};

use crate::data_dir::DataDir;

/// The handler of the RuntimeClass that chooses the Wasm runtime.
pub const WASM_HANDLER: &str = "wasmtime";

/// The facts of a node from which its kubelet's configuration is made.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where its files are.
    pub data_dir: DataDir,
    /// Its name.
    pub node_name: String,
    /// Its address.
    pub node_ip: IpAddr,
    /// The port of its API; 0 takes any that is free.
    pub port: u16,
    /// The range of the pods' addresses.
    pub pod_cidr: Ipv4Net,
    /// Where manifests of static pods are.
    pub static_pod_dir: Option<PathBuf>,
    /// The user that the Wasm runtime runs as, if it is not ours.
    pub runtime_owner_uid: Option<u32>,
    /// Where the Wasm runtime serves CRI.
    pub runtime_socket: PathBuf,
}

impl Node {
    /// The kubelet's configuration, with a certificate of the cluster's own authority for the node's API.
    ///
    /// # Errors
    /// The certificate cannot be made, or the runtime's socket has no path that can be used.
    pub fn kubelet_config(&self, pki: &Pki) -> anyhow::Result<wherry_kubelet::Config> {
        let serving = pki
            .kubelet_serving(&self.node_name, &[self.node_ip.to_string()])
            .context("cannot make the kubelet's certificate")?;
        let runtime =
            wherry_runtime_cri::Client::connect(&format!("unix://{}", self.runtime_socket.display()))
                .context("cannot use the wasm runtime's socket")?;
        Ok(wherry_kubelet::Config {
            node_name: self.node_name.clone(),
            node_ip: self.node_ip,
            root_dir: self.data_dir.kubelet(),
            log_dir: self.data_dir.logs(),
            runtimes: vec![RuntimeEntry { handler: WASM_HANDLER.to_owned(), runtime: Arc::new(runtime) }],
            default_handler: WASM_HANDLER.to_owned(),
            pod_cidr: self.pod_cidr.to_string(),
            static_pod_dir: self.static_pod_dir.clone(),
            tls: Some(ServerTls {
                certificate_pem: serving.certificate_pem,
                key_pem: serving.key_pem,
                client_ca_pem: pki.ca_pem().to_owned(),
            }),
            port: self.port,
            trusted_client_names: vec![ClientIdentity::ApiServerKubeletClient.user()],
            runtime_owner_uid: self.runtime_owner_uid,
            ..wherry_kubelet::Config::default()
        })
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
