//! `wherry up`: a whole cluster.

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use wherry_proxy::ProxyMode;

use super::{DataDirArguments, network, shutdown, store, wasm_runtime};
use crate::{
    cluster::{Cluster, Options},
    containerd::ContainerRuntime,
    data_dir::DataDir,
    logging,
    network::{Mode, Network},
    node,
    wasm_process::WasmProcess,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    directory: DataDirArguments,
    /// Where the API server listens; port 0 takes any that is free [default: 127.0.0.1:6443, or the node's address in routed
    /// mode].
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    network: network::NetworkArguments,
    /// How Services are served: auto, ebpf, nftables, iptables or userspace.
    #[arg(long, value_name = "MODE", default_value_t)]
    proxy_mode: ProxyMode,
    /// Gives Services of type LoadBalancer addresses of this range; without it they wait for somebody else.
    #[arg(long, value_name = "CIDR")]
    load_balancer_cidr: Option<IpNet>,
    #[command(flatten)]
    store: store::StoreArguments,
}

/// What can be said of the node.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArguments {
    /// The node's name [default: the host's].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The port of the node's own API; 0 takes any that is free.
    #[arg(long, value_name = "PORT", default_value_t = wherry_kubelet::DEFAULT_PORT)]
    pub(super) kubelet_port: u16,
    /// Run the pods whose manifests are in this directory, without the API server's word.
    #[arg(long, value_name = "DIR")]
    pub(super) static_pod_dir: Option<PathBuf>,
    /// The CRI endpoint that runs Linux containers [default in routed mode: the machine's containerd if it answers, else
    /// one that is started and watched over].
    #[arg(long, value_name = "unix:///PATH")]
    pub(super) container_runtime_endpoint: Option<String>,
}

impl NodeArguments {
    /// The node's name.
    pub(super) fn node_name(&self) -> anyhow::Result<String> {
        self.node_name.clone().map_or_else(node::host_name, Ok)
    }

    /// Who runs Linux containers.
    pub(super) fn container_runtime(&self, data_dir: &DataDir, network: &Network) -> ContainerRuntime {
        ContainerRuntime::choose(self.container_runtime_endpoint.as_deref(), data_dir, network.mode)
    }
}

impl Arguments {
    pub(super) async fn run(self, log: &str, log_format: logging::Format) -> anyhow::Result<()> {
        let started = Instant::now();
        let network = self.network.resolve_on_node()?;
        let data_dir = self.directory.data_dir()?;
        let _lock = data_dir.lock("up")?;
        let options = Options {
            listen: network::listen(self.listen, &network)?,
            node_name: self.node.node_name()?,
            kubelet_port: self.node.kubelet_port,
            network,
            proxy_mode: self.proxy_mode,
            static_pod_dir: self.node.static_pod_dir.clone(),
            wasm_process: wasm_process(&data_dir, &network, log, log_format)?,
            runtime_owner_uid: wasm_runtime::owner_uid(),
            container_runtime: self.node.container_runtime(&data_dir, &network),
            load_balancer_cidr: network::load_balancer_cidr(self.load_balancer_cidr, &network)?,
            data_dir: data_dir.clone(),
        };
        let store = self.store.open(&data_dir).await?;
        let cluster = Cluster::start(options, store).await?;
        tracing::info!(address = %cluster.address(), "the API is served");
        tokio::select! {
            asked = shutdown::asked() => asked?,
            () = cluster.ready() => {
                say_ready(&cluster, started);
                shutdown::asked().await?;
            }
        }
        tracing::info!("stopping");
        cluster.stop().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// How the node starts the Wasm runtime: this binary again, in a process of its own.
pub(super) fn wasm_process(
    data_dir: &DataDir,
    network: &Network,
    log: &str,
    log_format: logging::Format,
) -> anyhow::Result<WasmProcess> {
    let socket = data_dir.wasm_socket();
    let mut arguments = vec![
        "wasm-runtime".to_owned(),
        format!("--listen=unix://{}", socket.display()),
        format!("--root={}", data_dir.wasm().display()),
        format!("--pod-cidr={}", network.pod_cidr),
        format!("--service-cidr={}", network.service_cidr),
        format!("--node-ip={}", network.node_ip),
        format!("--log={log}"),
    ];
    // In routed mode the server may be on another node, and the proxy, which is root's, serves port 53.
    if let (Mode::Loopback, Some(ip), Some(listen)) = (network.mode, network.dns_ip(), network.dns_listen()) {
        arguments.push(format!("--cluster-dns={ip}={listen}"));
    }
    if log_format == logging::Format::Json {
        arguments.push("--log-format=json".to_owned());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(WasmProcess { program, arguments, socket })
}

#[expect(clippy::print_stdout, reason = "this is what the user waits for")]
fn say_ready(cluster: &Cluster, started: Instant) {
    println!(
        "\nThe cluster is ready after {} ms. Try:\n\n    export KUBECONFIG={}\n    kubectl get nodes\n\nCtrl-C stops it; the next `wherry up` finds everything as it was.",
        started.elapsed().as_millis(),
        cluster.kubeconfig().display()
    );
}
