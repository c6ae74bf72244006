//! `wherry kubeconfig`.

use anyhow::Context as _;

use crate::data_dir::DataDir;

/// Print the administrator's kubeconfig.
#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
pub(super) fn print(data_dir: &DataDir) -> anyhow::Result<()> {
    let text = data_dir.read_kubeconfig().with_context(|| {
        format!(
            "there is no kubeconfig at {}; start a cluster with `wherry up` first",
            data_dir.kubeconfig().display()
        )
    })?;
    print!("{text}");
    Ok(())
}
