//! `wherry kubeconfig`.

use anyhow::Context as _;
use clap::Args;
use kube::config::Kubeconfig;
use wherry_apiserver::pki::{ClientIdentity, Pki};

use super::DataDirArguments;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    directory: DataDirArguments,
    /// The kubeconfig of the kubelet of this node, which may read and write only what is its own.
    #[arg(long, value_name = "NAME", conflicts_with = "proxy")]
    node: Option<String>,
    /// The kubeconfig of a node's service proxy.
    #[arg(long)]
    proxy: bool,
}

impl Arguments {
    /// Print it.
    #[expect(clippy::print_stdout, reason = "printing is what the command is for")]
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let data_dir = self.directory.data_dir()?;
        let administrators = data_dir.read_kubeconfig().with_context(|| {
            format!(
                "there is no kubeconfig at {}; start a cluster with `wherry up` first",
                data_dir.kubeconfig().display()
            )
        })?;
        let identity = match (&self.node, self.proxy) {
            (Some(name), _) => ClientIdentity::Kubelet { node_name: name.clone() },
            (None, true) => ClientIdentity::Proxy,
            (None, false) => {
                print!("{administrators}");
                return Ok(());
            }
        };
        let known =
            Kubeconfig::from_yaml(&administrators).context("the administrator's kubeconfig is damaged")?;
        let cluster = known.clusters.into_iter().next().and_then(|named| named.cluster);
        let server = cluster.and_then(|cluster| cluster.server);
        let server = server.context("the administrator's kubeconfig names no server")?;
        print!("{}", Pki::open(&data_dir.pki())?.kubeconfig(&server, &identity)?);
        Ok(())
    }
}
