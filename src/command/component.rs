//! Components that run alone, against a kubeconfig.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use futures::TryFutureExt as _;
use ipnet::{IpNet, Ipv4Net};
use wherry_client::Lifecycle;
use wherry_proxy::ProxyMode;

use super::{network::NetworkArguments, shutdown};
use crate::{
    network::{self, Mode},
    node,
};

/// Whose cluster it is.
#[derive(Debug, Clone, Args)]
pub(super) struct ClusterArguments {
    /// How to reach the API server.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(super) kubeconfig: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ControllersArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The certificate authority that is published as ConfigMap kube-root-ca.crt in every namespace, PEM.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Gives each node that has none a part of this range for its pods.
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Option<Ipv4Net>,
    /// The bits of each node's part.
    #[arg(long, value_name = "BITS", default_value_t = network::DEFAULT_NODE_CIDR_MASK_SIZE)]
    node_cidr_mask_size: u8,
    /// Gives Services of type LoadBalancer addresses of this range.
    #[arg(long, value_name = "CIDR")]
    load_balancer_cidr: Option<IpNet>,
}

#[derive(Debug, Args)]
pub(super) struct DnsArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    network: NetworkArguments,
}

#[derive(Debug, Args)]
pub(super) struct ProxyArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The node's name [default: the host's].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The address on which node ports are served, and by which other nodes know this one [default: 127.0.0.1, or in
    /// routed mode the one that packets to the world leave with].
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// In routed mode, routes to the other nodes' pods are kept too.
    #[arg(long, value_enum, default_value_t = Mode::Loopback)]
    network: Mode,
    /// The range of all pods' addresses, in routed mode.
    #[arg(long, value_name = "CIDR", visible_alias = "pod-cidr", default_value_t = super::network::ROUTED_POD_CIDR)]
    cluster_cidr: Ipv4Net,
    /// How Services are served: auto, ebpf, nftables, iptables or userspace.
    #[arg(long, value_name = "MODE", default_value_t)]
    proxy_mode: ProxyMode,
}

impl ClusterArguments {
    /// A client of that cluster.
    pub(super) async fn client(&self) -> anyhow::Result<kube::Client> {
        let client = wherry_client::connect::from_kubeconfig(&self.kubeconfig).await;
        client.with_context(|| format!("cannot use the kubeconfig {}", self.kubeconfig.display()))
    }

    pub(super) async fn scheduler(self) -> anyhow::Result<()> {
        let client = self.client().await?;
        until_asked("scheduler", |lifecycle| async {
            Ok(wherry_scheduler::run(client, wherry_scheduler::Config::default(), lifecycle).await?)
        })
        .await
    }
}

impl ControllersArguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let root_ca_pem = match &self.root_ca_file {
            Some(path) => Some(
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            ),
            None => None,
        };
        let client = self.cluster.client().await?;
        let config = wherry_controllers::Config {
            root_ca_pem,
            cluster_cidr: self.cluster_cidr,
            node_cidr_mask_size: self.node_cidr_mask_size,
            load_balancer_cidr: self.load_balancer_cidr,
            ..wherry_controllers::Config::default()
        };
        until_asked("controllers", |lifecycle| async {
            Ok(wherry_controllers::run(client, config, lifecycle).await?)
        })
        .await
    }
}

impl DnsArguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let network = self.network.resolve()?;
        let config = network.dns_config().with_context(|| {
            format!("--service-cidr {} is too small for the address of cluster DNS", network.service_cidr)
        })?;
        let client = self.cluster.client().await?;
        until_asked("dns", |lifecycle| async { Ok(wherry_proxy::dns::run(client, config, lifecycle).await?) })
            .await
    }
}

impl ProxyArguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.cluster.client().await?;
        let node_name = self.node_name.map_or_else(node::host_name, Ok)?;
        let node_ip = match (self.node_ip, self.network) {
            (Some(ip), _) => ip,
            (None, Mode::Loopback) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (None, Mode::Routed) => network::detect_node_ip()
                .context("this machine has no address but loopback; name the node's with --node-ip")?
                .into(),
        };
        let peers = node::peers_config_at(self.network, node_ip, &node_name);
        let cluster_cidr = (self.network == Mode::Routed).then_some(self.cluster_cidr);
        let config = wherry_proxy::Config {
            mode: self.proxy_mode,
            cluster_cidrs: cluster_cidr.map(IpNet::V4).into_iter().collect(),
            ..wherry_proxy::Config::loopback(node_name, node_ip)
        };
        until_asked("proxy", |lifecycle| async {
            let Some(peers) = peers else {
                return Ok(wherry_proxy::run(client, config, lifecycle).await?);
            };
            let beside = lifecycle.part("pod-network");
            let proxy = wherry_proxy::run(client.clone(), config, lifecycle);
            let network = wherry_kubelet::network::run_peers(client, peers, beside);
            tokio::try_join!(proxy.map_err(anyhow::Error::from), network.map_err(anyhow::Error::from))?;
            Ok(())
        })
        .await
    }
}

/// Run one component until Ctrl-C, then let it drain.
async fn until_asked<F>(name: &'static str, start: impl FnOnce(Lifecycle) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let (lifecycle, mut report) = Lifecycle::new();
    let stop = lifecycle.shutdown.clone();
    let run = start(lifecycle);
    tokio::pin!(run);
    let asked = async {
        tokio::select! {
            asked = shutdown::asked() => return asked,
            is_ready = report.wait_ready() => if is_ready { tracing::info!(component = name, "ready") },
        }
        shutdown::asked().await
    };
    tokio::select! {
        ended = &mut run => return ended.and_then(|()| anyhow::bail!("the {name} ended early")),
        asked = asked => asked?,
    }
    stop.cancel();
    run.await
}
