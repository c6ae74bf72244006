//! `wherry reset`: a machine as it was before.

use clap::Args;
use wherry_kubelet::network;

use super::DataDirArguments;
use crate::{leftovers, node};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    directory: DataDirArguments,
    /// Remove the data directory too: every object, image, volume and certificate in it.
    #[arg(long)]
    forget: bool,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let data_dir = self.directory.data_dir()?;
        let root = data_dir.root();
        if !root.exists() {
            say(&format!("there is no {}, so nothing that a cluster left", root.display()));
            return Ok(());
        }
        // A directory that was named by mistake, a home perhaps, has no such content.
        anyhow::ensure!(
            data_dir.run().is_dir(),
            "{} is not the data directory of a cluster; it is left as it is",
            root.display()
        );
        // Held until the end, so that nothing starts meanwhile.
        let _locks = ["up", "apiserver", "kubelet"].map(|what| data_dir.lock(what));
        for lock in &_locks {
            if let Err(error) = lock {
                anyhow::bail!("{error}");
            }
        }
        let ended = leftovers::end_processes(root)?;
        let unmounted = leftovers::unmount_below(root)?;
        say(&format!("{ended} processes ended, {unmounted} mounts undone"));
        if nix::unistd::geteuid().is_root() {
            network::remove_all(Some(&node::cni_config(&data_dir))).await?;
            wherry_proxy::clean_up().await?;
            say("rules of Services, routes and devices of the pod network removed");
        }
        if self.forget {
            std::fs::remove_dir_all(root)?;
            say(&format!("removed {}", root.display()));
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "this is what the user waits for")]
fn say(text: &str) {
    println!("{text}");
}
