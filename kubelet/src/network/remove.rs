//! Undoing all of it.

use super::netlink::{Kernel, Owner};
use super::plan::{Network, differences};
use super::{BRIDGE, CniConfig, Error};

/// Removes every route, device and file of the pod network; what is not there is no error. Pods that still run have no
/// network afterwards.
///
/// # Errors
/// The kernel refused a step, or a file cannot be removed.
pub async fn remove_all(cni: Option<&CniConfig>) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    for owner in [Owner::Peers, Owner::Node] {
        for step in differences(&Network::default(), &kernel.observe(owner).await?) {
            kernel.apply(owner, &step).await?;
        }
    }
    kernel.remove_link(BRIDGE).await?;
    cni.map_or(Ok(()), CniConfig::remove)
}
