//! A pod's `/etc/hosts`.
//!
//! Source: Kubernetes' `kubelet_pods.go` (`makeHostsMount`, `ensureHostsFile`).

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, HostAlias, Pod};
use wherry_runtimes::Mount;

use super::hostname::pod_hostname;

/// Where containers look for it.
pub const CONTAINER_PATH: &str = "/etc/hosts";

/// The text of a pod's hosts file; `host` is the node's own file, for pods in the node's network.
pub fn hosts_text(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    let mut text = if spec.and_then(|s| s.host_network) == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (name, domain) = pod_hostname(pod, cluster_domain);
        for ip in pod_ips {
            let _ = match domain.as_str() {
                "" => writeln!(text, "{ip}\t{name}"),
                domain => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
            };
        }
        text
    };
    add_aliases(&mut text, aliases);
    text
}

fn add_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
}

/// Whether the kubelet gives a container its hosts file: not when it brings one itself. A guest sees a file as a directory
/// that holds it, so that a mount of that directory stands in its way too.
pub fn is_managed(container: &Container, is_guest: bool) -> bool {
    !container.volume_mounts.iter().flatten().any(|mount| {
        let path = mount.mount_path.trim_end_matches('/');
        path == CONTAINER_PATH || (is_guest && matches!(path, "" | "/etc"))
    })
}

/// Writes the file below the pod's directory and answers its mount. Blocking.
pub fn hosts_mount(pod_dir: &Path, text: &str) -> io::Result<Mount> {
    let path = pod_dir.join("etc-hosts");
    let is_current = std::fs::read(&path).is_ok_and(|known| known == text.as_bytes());
    if !is_current {
        std::fs::create_dir_all(pod_dir)?;
        // Written in place: containers that have it mounted see the same file.
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    Ok(Mount {
        container_path: CONTAINER_PATH.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_pods_own_names_come_first_then_its_aliases() {
        let aliases = json!([{"ip": "10.1.2.3", "hostnames": ["a.remote", "b.remote"]}]);
        let text = hosts_text(
            &pod(json!({"subdomain": "s", "hostAliases": aliases})),
            &["10.0.0.5".to_owned(), "fd00::5".to_owned()],
            "cluster.local",
            "",
        );
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n10.0.0.5\tp.s.n.svc.cluster.local\tp\nfd00::5\tp.s.n.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n10.1.2.3\ta.remote\tb.remote\n"
        );
    }

    #[test]
    fn a_pod_in_the_nodes_network_has_the_nodes_file() {
        let text =
            hosts_text(&pod(json!({"hostNetwork": true})), &["10.0.0.1".to_owned()], "c", "127.0.0.1 me\n");
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n");
    }

    #[test]
    fn a_container_that_brings_its_own_file_keeps_it() {
        let with = |path: &str| -> Container {
            serde_json::from_value(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": path}]}))
                .unwrap()
        };
        assert!(!is_managed(&with("/etc/hosts"), false));
        assert!(!is_managed(&with("/etc/hosts/"), false));
        assert!(is_managed(&with("/etc"), false));
        assert!(!is_managed(&with("/etc/"), true));
        assert!(is_managed(&with("/data"), true));
        let directory = tempfile::tempdir().unwrap();
        let mount = hosts_mount(directory.path(), "x\n").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&mount.host_path).unwrap().as_str(), mount.container_path.as_str()),
            ("x\n", "/etc/hosts")
        );
    }
}
