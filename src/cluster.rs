//! A whole cluster in one process: the API server, and every component as its client.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::net::TcpListener;
use wherry_apiserver::{
    pki::{ClientIdentity, Pki, ServingNames},
    server::{self, ApiServer, Tls},
};
use wherry_storage::Store;

use crate::{
    containerd::ContainerRuntime,
    data_dir::DataDir,
    network::{Mode, Network},
    node::{self, Node},
    supervise::Supervisor,
    version,
    wasm_process::WasmProcess,
};

/// What distinguishes one cluster from another.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its files are.
    pub data_dir: DataDir,
    /// Where the API server listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The node's name.
    pub node_name: String,
    /// The cluster's addresses, and the node's.
    pub network: Network,
    /// How Services are served.
    pub proxy_mode: wherry_proxy::ProxyMode,
    /// The port of the node's own API; 0 takes any that is free.
    pub kubelet_port: u16,
    /// Where manifests of static pods are.
    pub static_pod_dir: Option<PathBuf>,
    /// How the Wasm runtime is started.
    pub wasm_process: WasmProcess,
    /// The user that the Wasm runtime runs as, if it is not ours.
    pub runtime_owner_uid: Option<u32>,
    /// Who runs Linux containers.
    pub container_runtime: ContainerRuntime,
    /// Where Services of type LoadBalancer get their addresses from.
    pub load_balancer_cidr: Option<IpNet>,
}

/// The names under which components report in `/readyz`, in the order in which they start.
pub fn components(mode: Mode) -> &'static [&'static str] {
    const ALL: [&str; 7] =
        ["wasm-runtime", "controllers", "scheduler", "kubelet", "dns", "proxy", "pod-network"];
    match mode {
        Mode::Loopback => &ALL[..6],
        Mode::Routed => &ALL,
    }
}

/// A running cluster.
pub struct Cluster {
    api: ApiServer,
    supervisor: Supervisor,
    address: SocketAddr,
    mode: Mode,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Start everything; returns as soon as the API is answered. The rest becomes ready on its own: see [`Cluster::ready`].
    ///
    /// # Errors
    /// Certificates, the store or the API server's port cannot be had.
    pub async fn start(options: Options, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let mut supervisor = Supervisor::default();
        let wasm = options.wasm_process.clone();
        supervisor.spawn("wasm-runtime", move |lifecycle| {
            let wasm = wasm.clone();
            Box::pin(async move { wasm.run(lifecycle).await })
        });
        match Self::start_api(&options, store, &mut supervisor).await {
            Ok((api, pki, address)) => {
                start_components(&options, &api, &pki, &mut supervisor)?;
                let kubeconfig = options.data_dir.kubeconfig();
                pki.write_kubeconfig(&kubeconfig, &format!("https://{address}"), &ClientIdentity::Admin)
                    .context("cannot write the kubeconfig")?;
                Ok(Self { api, supervisor, address, mode: options.network.mode, kubeconfig })
            }
            Err(error) => {
                supervisor.stop().await;
                Err(error)
            }
        }
    }

    async fn start_api(
        options: &Options,
        store: Arc<dyn Store>,
        supervisor: &mut Supervisor,
    ) -> anyhow::Result<(ApiServer, Arc<Pki>, SocketAddr)> {
        let api = Api::start(&options.data_dir, options.listen, &options.network, store).await?;
        let board = supervisor.board();
        for &component in components(options.network.mode) {
            let board = board.clone();
            api.server.health().register(component, move || board.check(component));
        }
        let parts = (api.server.clone(), Arc::clone(&api.pki), options.network.reached_at(api.address));
        let listener = Arc::new(std::sync::Mutex::new(Some(api.listener)));
        let (server, tls, address) = (api.server, api.tls, api.address);
        supervisor.spawn("apiserver", move |lifecycle| {
            let (server, tls) = (server.clone(), tls.clone());
            // The first run has the listener that start-up opened; a restart opens the same address again.
            let first = listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            Box::pin(async move {
                let listener = match first {
                    Some(listener) => listener,
                    None => TcpListener::bind(address).await?,
                };
                lifecycle.readiness.set_ready();
                server.serve(listener, tls, lifecycle.shutdown).await;
                Ok(())
            })
        });
        Ok(parts)
    }

    /// Wait until every component is ready.
    pub async fn ready(&self) {
        for name in components(self.mode) {
            self.supervisor.board().wait_ready(name).await;
        }
    }

    /// Where the API server is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// Stop everything in order: proxy first, the Wasm runtime after the kubelet, the store last.
    pub async fn stop(self) {
        self.supervisor.stop().await;
        self.api.stop().await;
    }
}

/// An API server that has a port and does not answer on it yet.
pub struct Api {
    /// The server.
    pub server: ApiServer,
    /// The cluster's certificates.
    pub pki: Arc<Pki>,
    /// The certificates that it serves with.
    pub tls: Tls,
    /// The port.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

impl Api {
    /// Make or read the certificates, open the port, start the server over `store`.
    ///
    /// # Errors
    /// Any of that cannot be done.
    pub async fn start(
        data_dir: &DataDir,
        listen: SocketAddr,
        network: &Network,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"))?;
        let address = listener.local_addr()?;
        let pki = Arc::new(Pki::open(&data_dir.pki()).context("cannot make or read the certificates")?);
        let service_ip = network.service_cidr.hosts().next().map(IpAddr::V4);
        let names = ServingNames {
            host_name: node::host_name().ok(),
            listen_address: Some(address.ip()),
            service_ip,
            additional: vec![network.node_ip.to_string()],
        };
        let tls = Tls::new(&pki, &names).context("cannot make the serving certificate")?;
        let mut config =
            server::Config::new(store, Arc::clone(&pki), network.reached_at(address).to_string());
        config.service_ranges.cluster_ips = network.service_cidr.into();
        config.cluster_dns = network.dns_listen();
        config.version = server::Version::new(version::COMMIT, "");
        let server = ApiServer::start(config).await.context("cannot start the API server")?;
        Ok(Self { server, pki, tls, listener, address })
    }
}

/// Components are clients of the API in this process: the same router, with an identity instead of a connection.
fn client_of(api: &ApiServer, identity: &ClientIdentity) -> kube::Client {
    wherry_client::connect::in_process(api.router_as(identity.identity()))
}

fn start_components(
    options: &Options,
    api: &ApiServer,
    pki: &Arc<Pki>,
    supervisor: &mut Supervisor,
) -> anyhow::Result<()> {
    let client = client_of(api, &ClientIdentity::Controllers);
    let config = wherry_controllers::Config {
        root_ca_pem: Some(pki.ca_pem().to_owned()),
        cluster_cidr: options.network.divided(),
        node_cidr_mask_size: options.network.node_cidr_mask_size,
        load_balancer_cidr: options.load_balancer_cidr,
        ..wherry_controllers::Config::default()
    };
    supervisor.spawn("controllers", move |lifecycle| {
        let (client, config) = (client.clone(), config.clone());
        Box::pin(async move { Ok(wherry_controllers::run(client, config, lifecycle).await?) })
    });

    let client = client_of(api, &ClientIdentity::Scheduler);
    supervisor.spawn("scheduler", move |lifecycle| {
        let client = client.clone();
        Box::pin(async move {
            Ok(wherry_scheduler::run(client, wherry_scheduler::Config::default(), lifecycle).await?)
        })
    });

    let identity = ClientIdentity::Kubelet { node_name: options.node_name.clone() };
    let client = client_of(api, &identity);
    let node = Node {
        data_dir: options.data_dir.clone(),
        node_name: options.node_name.clone(),
        network: options.network,
        port: options.kubelet_port,
        static_pod_dir: options.static_pod_dir.clone(),
        runtime_owner_uid: options.runtime_owner_uid,
        runtime_socket: options.wasm_process.socket.clone(),
        container_runtime: options.container_runtime.clone(),
    };
    let config = node.kubelet_config(pki)?;
    node.supervise_containerd(supervisor);
    supervisor.spawn("kubelet", move |lifecycle| {
        let (client, config) = (client.clone(), config.clone());
        Box::pin(async move { Ok(wherry_kubelet::run(client, config, lifecycle).await?) })
    });

    if let Some(config) = options.network.dns_config() {
        let client = client_of(api, &ClientIdentity::Dns);
        supervisor.spawn("dns", move |lifecycle| {
            let (client, config) = (client.clone(), config.clone());
            Box::pin(async move { Ok(wherry_proxy::dns::run(client, config, lifecycle).await?) })
        });
    }

    let client = client_of(api, &ClientIdentity::Proxy);
    let config = node::proxy_config(&options.network, &options.node_name, options.proxy_mode);
    supervisor.spawn("proxy", move |lifecycle| {
        let (client, config) = (client.clone(), config.clone());
        Box::pin(async move { Ok(wherry_proxy::run(client, config, lifecycle).await?) })
    });

    if let Some(config) = node::peers_config(&options.network, &options.node_name) {
        // A kubelet may read its own Node only; the proxy may read all.
        let client = client_of(api, &ClientIdentity::Proxy);
        supervisor.spawn("pod-network", move |lifecycle| {
            let (client, config) = (client.clone(), config.clone());
            Box::pin(async move { Ok(wherry_kubelet::network::run_peers(client, config, lifecycle).await?) })
        });
    }
    Ok(())
}
