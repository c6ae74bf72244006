//! `wherry kubelet`.

use clap::Args;
use wherry_apiserver::pki::Pki;

use super::{DataDirArguments, component, network, shutdown, up, wasm_runtime};
use crate::{logging, node::Node, supervise::Supervisor};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: component::ClusterArguments,
    #[command(flatten)]
    directory: DataDirArguments,
    #[command(flatten)]
    node: up::NodeArguments,
    #[command(flatten)]
    network: network::NetworkArguments,
    /// A Wasm runtime that runs already [default: start one].
    #[arg(long, value_name = "unix:///PATH")]
    runtime_endpoint: Option<String>,
}

impl Arguments {
    pub(super) async fn run(self, log: &str, log_format: logging::Format) -> anyhow::Result<()> {
        let network = self.network.resolve_on_node()?;
        let data_dir = self.directory.data_dir()?;
        let _lock = data_dir.lock("kubelet")?;
        let wasm = up::wasm_process(&data_dir, &network, log, log_format)?;
        let runtime_socket = match &self.runtime_endpoint {
            Some(endpoint) => endpoint.strip_prefix("unix://").unwrap_or(endpoint).into(),
            None => wasm.socket.clone(),
        };
        let node = Node {
            data_dir: data_dir.clone(),
            node_name: self.node.node_name()?,
            port: self.node.kubelet_port,
            network,
            static_pod_dir: self.node.static_pod_dir.clone(),
            runtime_owner_uid: wasm_runtime::owner_uid(),
            runtime_socket,
            container_runtime: self.node.container_runtime(&data_dir, &network),
        };
        let config = node.kubelet_config(&Pki::open(&data_dir.pki())?)?;
        let client = self.cluster.client().await?;

        let mut supervisor = Supervisor::default();
        let asked = shutdown::asked();
        tokio::pin!(asked);
        if self.runtime_endpoint.is_none() {
            supervisor.spawn("wasm-runtime", move |lifecycle| {
                let wasm = wasm.clone();
                Box::pin(async move { wasm.run(lifecycle).await })
            });
            let board = supervisor.board();
            // The kubelet gives up on a runtime that does not answer.
            tokio::select! {
                asked = &mut asked => {
                    supervisor.stop().await;
                    return asked;
                }
                () = board.wait_ready("wasm-runtime") => {}
            }
        }
        node.supervise_containerd(&mut supervisor);
        supervisor.spawn("kubelet", move |lifecycle| {
            let (client, config) = (client.clone(), config.clone());
            Box::pin(async move { Ok(wherry_kubelet::run(client, config, lifecycle).await?) })
        });
        let result = asked.await;
        supervisor.stop().await;
        result
    }
}
