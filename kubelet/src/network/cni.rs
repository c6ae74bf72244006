//! The CNI configuration of containers: a bridge with addresses of the node's first half, and host ports.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde_json::json;

use super::{BRIDGE, Error};

/// The one file in our own directory. Container runtimes take the first by name.
const FILE: &str = "10-wherry.conflist";

/// Version of the CNI specification that the configuration is written for: the newest that Debian 12's plugins know.
const CNI_VERSION: &str = "1.0.0";

/// Extensions of files that are CNI configuration. Source: libcni's `ConfFiles`.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Where CNI configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// Our own configuration goes here, and nothing else.
    pub directory: PathBuf,
    /// Where an administrator or another network puts its own: if there is any, it counts, and ours is not written.
    pub others: PathBuf,
    /// Where `host-local` keeps who has which address.
    pub state: PathBuf,
}

impl CniConfig {
    /// The directory whose configuration counts on this node: what the container runtime is to be pointed to.
    pub fn directory_in_force(&self) -> &Path {
        if self.others_file().is_some() { &self.others } else { &self.directory }
    }

    /// The first file of somebody else's configuration.
    pub fn others_file(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.others).ok()?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
            path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e))
                && path.is_file()
        });
        files.min()
    }

    /// Write our configuration if it differs; whether it was written.
    pub(super) fn write(&self, range: Ipv4Net, mtu: Option<u32>) -> Result<bool, Error> {
        let text = conflist(range, mtu, &self.state);
        let path = self.directory.join(FILE);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(false);
        }
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(&self.directory).map_err(failed)?;
        // The runtime watches the directory and must never read half a file; it does not look at this name.
        let temporary = self.directory.join(".wherry.new");
        let mut file = fs::File::create(&temporary).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)?;
        Ok(true)
    }

    /// Remove our configuration, and who had which address.
    pub(super) fn remove(&self) -> Result<(), Error> {
        for path in [&self.directory, &self.state] {
            match fs::remove_dir_all(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::File { path: path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The configuration for containers with addresses of `range`.
fn conflist(range: Ipv4Net, mtu: Option<u32>, state: &Path) -> String {
    let mut bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": true,
        // Of a former range, on a bridge that is still there.
        "forceAddress": true,
        // A pod may reach itself through a Service.
        "hairpinMode": true,
        // The proxy's rules masquerade what leaves the cluster.
        "ipMasq": false,
        "ipam": { "type": "host-local", "dataDir": state, "ranges": [[{ "subnet": range }]] },
    });
    if let Some(bytes) = mtu {
        bridge["mtu"] = bytes.into();
    }
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true });
    let all = json!({ "cniVersion": CNI_VERSION, "name": "wherry", "plugins": [bridge, portmap] });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path) -> CniConfig {
        CniConfig { directory: root.join("own"), others: root.join("etc"), state: root.join("ipam") }
    }

    #[test]
    fn containers_get_addresses_of_their_half_on_our_bridge() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let range = "10.42.0.0/25".parse().unwrap();
        assert!(config.write(range, Some(1450)).unwrap());
        assert!(!config.write(range, Some(1450)).unwrap(), "nothing has changed");
        let text = fs::read_to_string(config.directory.join(FILE)).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bridge = &written["plugins"][0];
        assert_eq!(
            (&bridge["type"], &bridge["bridge"], &bridge["mtu"]),
            (&json!("bridge"), &json!(BRIDGE), &json!(1450))
        );
        assert_eq!(bridge["ipam"]["ranges"], json!([[{ "subnet": "10.42.0.0/25" }]]));
        assert_eq!(written["plugins"][1]["type"], "portmap");
        assert!(config.write("10.42.1.0/25".parse().unwrap(), None).unwrap());
        assert_eq!(fs::read_dir(&config.directory).unwrap().count(), 1);
        config.remove().unwrap();
        assert!(!config.directory.exists());
        config.remove().unwrap();
    }

    #[test]
    fn configuration_that_is_there_already_counts() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        assert_eq!(config.directory_in_force(), config.directory);
        fs::create_dir_all(&config.others).unwrap();
        fs::write(config.others.join("README"), "").unwrap();
        assert_eq!(config.directory_in_force(), config.directory);
        for name in ["20-b.conflist", "10-a.conf"] {
            fs::write(config.others.join(name), "{}").unwrap();
        }
        assert_eq!(config.directory_in_force(), config.others);
        assert_eq!(config.others_file(), Some(config.others.join("10-a.conf")));
    }
}
