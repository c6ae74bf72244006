//! Kernel parameters of the network namespace that a pod network needs.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;

/// Packets of pods pass through this machine.
const FORWARDING: &str = "net.ipv4.ip_forward";
/// Packets between pods on one bridge pass the rules of Services too, or answers would come from the wrong address.
const BRIDGED: &str = "net.bridge.bridge-nf-call-iptables";

/// A parameter and the value that it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    name: &'static str,
    value: &'static str,
}

const PARAMETERS: [Parameter; 2] =
    [Parameter { name: FORWARDING, value: "1" }, Parameter { name: BRIDGED, value: "1" }];

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All parameters are as they must be.
    AllSet,
    /// The kernel has no filtering of bridged packets.
    NoBridgeFilter,
}

/// Set what is not as it must be.
pub(super) fn set_all() -> Result<Outcome, Error> {
    set_below(Path::new("/proc/sys"))
}

fn set_below(root: &Path) -> Result<Outcome, Error> {
    let mut outcome = Outcome::AllSet;
    for Parameter { name, value } in PARAMETERS {
        let path = root.join(name.split('.').collect::<PathBuf>());
        let failed = |source| Error::Sysctl { name, value, source };
        match std::fs::read_to_string(&path) {
            Ok(present) if present.trim() == value => {}
            Ok(_) => std::fs::write(&path, value).map_err(failed)?,
            Err(error) if name == BRIDGED && error.kind() == io::ErrorKind::NotFound => {
                outcome = Outcome::NoBridgeFilter;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_set_and_what_the_kernel_lacks_is_said() {
        let root = tempfile::tempdir().unwrap();
        assert!(set_below(root.path()).unwrap_err().to_string().contains("sysctl -w net.ipv4.ip_forward=1"));
        let forwarding = root.path().join("net/ipv4/ip_forward");
        std::fs::create_dir_all(forwarding.parent().unwrap()).unwrap();
        std::fs::write(&forwarding, "0\n").unwrap();
        assert_eq!(set_below(root.path()).unwrap(), Outcome::NoBridgeFilter);
        assert_eq!(std::fs::read_to_string(&forwarding).unwrap(), "1");
        let bridged = root.path().join("net/bridge/bridge-nf-call-iptables");
        std::fs::create_dir_all(bridged.parent().unwrap()).unwrap();
        std::fs::write(&bridged, "1\n").unwrap();
        assert_eq!(set_below(root.path()).unwrap(), Outcome::AllSet);
        assert_eq!(std::fs::read_to_string(&bridged).unwrap(), "1\n");
    }
}
