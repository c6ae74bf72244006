//! `wherry wasm-runtime`: CRI v1 on a Unix socket, without privileges.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;
use wherry_runtime_wasm::{
    ClusterDns, Config, WasmRuntime,
    privileges::{self, drop_privileges},
};

use super::shutdown;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The socket on which CRI v1 is served. Its directory should hold nothing else: it is given to the runtime's user.
    #[arg(long, value_name = "unix:///PATH")]
    listen: String,
    /// Where images, compiled code and state are kept.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The range of all pods' addresses.
    #[arg(long, value_name = "CIDR", default_value = "127.64.0.0/16")]
    pod_cidr: Ipv4Net,
    /// The range of the Services' addresses, which every guest may connect to.
    #[arg(long, value_name = "CIDR", default_value = "127.96.0.0/16")]
    service_cidr: Ipv4Net,
    /// The node's address, where pods of the host network listen.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    node_ip: IpAddr,
    /// Pods' name server at IP is asked at IP:PORT, where cluster DNS listens, whether or not IP has a port 53.
    #[arg(long, value_name = "IP=IP:PORT", value_parser = cluster_dns)]
    cluster_dns: Option<ClusterDns>,
    /// The cluster's domain, within which every guest may look names up.
    #[arg(long, value_name = "DOMAIN", default_value = crate::network::CLUSTER_DOMAIN)]
    cluster_domain: String,
    /// The user to become when started by root.
    #[arg(long, value_name = "UID", default_value_t = default_uid())]
    uid: u32,
    /// The group to become when started by root.
    #[arg(long, value_name = "GID", default_value_t = default_uid())]
    gid: u32,
}

fn cluster_dns(text: &str) -> Result<ClusterDns, String> {
    let (ip, listen) = text.split_once('=').ok_or_else(|| "it is not IP=IP:PORT".to_owned())?;
    let service_ip = ip.parse().map_err(|error| format!("{ip:?}: {error}"))?;
    let listen = listen.parse().map_err(|error| format!("{listen:?}: {error}"))?;
    Ok(ClusterDns { service_ip, listen })
}

fn default_uid() -> u32 {
    privileges::Options::new("", "").uid
}

/// The user that a runtime started by us runs as, if that is another than we are.
pub(super) fn owner_uid() -> Option<u32> {
    nix::unistd::geteuid().is_root().then(default_uid)
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let socket = PathBuf::from(self.listen.strip_prefix("unix://").unwrap_or(&self.listen));
        let socket_dir = socket.parent().filter(|directory| directory.is_absolute());
        let socket_dir =
            socket_dir.with_context(|| format!("--listen {:?} must be unix:///PATH", self.listen))?;
        let options = privileges::Options {
            uid: self.uid,
            gid: self.gid,
            ..privileges::Options::new(&self.root, socket_dir)
        };
        // Before the async runtime: privileges are a thread's own, and it makes threads.
        let dropped = drop_privileges(&options).context("cannot give up privileges")?;
        tracing::debug!(uid = dropped.uid, low_ports = dropped.low_ports, "privileges given up");
        super::block_on(serve(self, socket))
    }
}

async fn serve(arguments: Arguments, socket: PathBuf) -> anyhow::Result<()> {
    let config = Config {
        cluster_cidrs: vec![arguments.pod_cidr.into()],
        service_cidrs: vec![arguments.service_cidr.into()],
        node_ip: arguments.node_ip,
        cluster_dns: arguments.cluster_dns,
        cluster_domain: arguments.cluster_domain,
        ..Config::new(arguments.root)
    };
    let runtime = Arc::new(WasmRuntime::start(config).await.context("cannot start the wasm runtime")?);
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (runtime, stop) = (Arc::clone(&runtime), stop.clone());
        async move { wherry_runtime_cri::serve(runtime, &socket, stop).await }
    });
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended??),
        asked = shutdown::asked() => asked?,
    }
    stop.cancel();
    serving.await??;
    runtime.stop().await;
    Ok(())
}
