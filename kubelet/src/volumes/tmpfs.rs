//! `emptyDir` in memory.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};
use nix::mount::{MsFlags, mount};

use super::mount_table::mounts_below;
use crate::pod::resources::{Amounts, amount, amounts};

/// How many bytes a volume in memory may take: its limit, the pod's memory limit (if every container has one) or what pods can
/// have of the node, whichever is least. `None` if nobody says.
///
/// Source: Kubernetes' `SizeMemoryBackedVolumes`.
pub fn size_bytes(pod: &Pod, volume: &Volume, allocatable: &Amounts) -> Option<i64> {
    let of_volume = volume.empty_dir.as_ref()?.size_limit.as_ref().and_then(|limit| amount("memory", limit));
    let of_node = allocatable.get("memory").copied();
    [of_volume.filter(|bytes| *bytes > 0), pod_limit_bytes(pod), of_node].into_iter().flatten().min()
}

fn pod_limit_bytes(pod: &Pod) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let limit = |container: &k8s_openapi::api::core::v1::Container| {
        amounts(container.resources.as_ref()?.limits.as_ref()).get("memory").copied()
    };
    let running: Option<Vec<i64>> = spec.containers.iter().map(limit).collect();
    let starting: Option<Vec<i64>> = spec.init_containers.iter().flatten().map(limit).collect();
    let sum = running?.into_iter().fold(0_i64, i64::saturating_add);
    Some(starting?.into_iter().fold(sum, i64::max))
}

/// Mounts memory at an existing directory, unless that was done before.
///
/// # Errors
/// `PermissionDenied` where the kubelet is not root.
pub fn set_up(path: &Path, size_bytes: Option<i64>) -> io::Result<()> {
    if mounts_below(path)?.iter().any(|point| point == path) {
        return Ok(());
    }
    let mut options = "mode=0777".to_owned();
    if let Some(bytes) = size_bytes {
        options.push_str(&format!(",size={bytes}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_least_of_all_limits_counts() {
        let volume = |limit: Option<&str>| -> Volume {
            let mut empty_dir = json!({"medium": "Memory"});
            if let Some(limit) = limit {
                empty_dir["sizeLimit"] = limit.into();
            }
            serde_json::from_value(json!({"name": "v", "emptyDir": empty_dir})).unwrap()
        };
        let pod = |limits: &[Option<&str>]| -> Pod {
            let containers: Vec<_> = limits
                .iter()
                .map(|limit| match limit {
                    Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
                    None => json!({"name": "c"}),
                })
                .collect();
            serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
        };
        let node: Amounts = [("memory".to_owned(), 1 << 30)].into();
        let table = [
            (pod(&[None]), volume(None), 1 << 30),
            (pod(&[None]), volume(Some("1Mi")), 1 << 20),
            (pod(&[Some("2Mi"), Some("3Mi")]), volume(None), 5 << 20),
            (pod(&[Some("2Mi"), None]), volume(Some("64Mi")), 64 << 20),
        ];
        for (pod, volume, expected) in table {
            assert_eq!(size_bytes(&pod, &volume, &node), Some(expected));
        }
    }
}
