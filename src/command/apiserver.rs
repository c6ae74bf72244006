//! `wherry apiserver`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;
use wherry_apiserver::pki::ClientIdentity;

use super::{DataDirArguments, network, shutdown, store};
use crate::cluster::Api;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    directory: DataDirArguments,
    /// Where to listen; port 0 takes any that is free [default: 127.0.0.1:6443, or the node's address in routed mode].
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// A node whose kubelet runs alone: its kubeconfig is written to pki/kubelet-NAME.yaml. May be given again.
    #[arg(long, value_name = "NAME")]
    node_name: Vec<String>,
    #[command(flatten)]
    network: network::NetworkArguments,
    #[command(flatten)]
    store: store::StoreArguments,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let network = self.network.resolve()?;
        let listen = network::listen(self.listen, &network)?;
        for name in &self.node_name {
            let wrong = wherry_machinery::names::dns1123_subdomain(name);
            anyhow::ensure!(wrong.is_empty(), "--node-name {name:?}: {}", wrong.join("; "));
        }
        let data_dir = self.directory.data_dir()?;
        let _lock = data_dir.lock("apiserver")?;
        let store = self.store.open(&data_dir).await?;
        let api = Api::start(&data_dir, listen, &network, store).await?;
        let address = network.reached_at(api.address);
        let url = format!("https://{address}");
        api.pki
            .write_kubeconfig(&data_dir.kubeconfig(), &url, &ClientIdentity::Admin)
            .context("cannot write the kubeconfig")?;
        // What the other components need to run alone, each as itself.
        let kubelets = self.node_name.iter().map(|name| {
            (format!("kubelet-{name}.yaml"), ClientIdentity::Kubelet { node_name: name.clone() })
        });
        let components = [
            ("scheduler.yaml".to_owned(), ClientIdentity::Scheduler),
            ("controllers.yaml".to_owned(), ClientIdentity::Controllers),
            ("proxy.yaml".to_owned(), ClientIdentity::Proxy),
            ("dns.yaml".to_owned(), ClientIdentity::Dns),
        ];
        for (file, identity) in components.into_iter().chain(kubelets) {
            let path = data_dir.pki().join(file);
            api.pki
                .write_kubeconfig(&path, &url, &identity)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        tracing::info!(%address, kubeconfig = %data_dir.kubeconfig().display(), "the API is served");
        let stop = CancellationToken::new();
        let serve = api.server.serve(api.listener, api.tls, stop.clone());
        tokio::pin!(serve);
        tokio::select! {
            () = &mut serve => anyhow::bail!("the API server stopped serving"),
            asked = shutdown::asked() => asked?,
        }
        stop.cancel();
        serve.await;
        api.server.stop().await;
        Ok(())
    }
}
