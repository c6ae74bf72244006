//! `sizeLimit` of emptyDir volumes: a pod that writes more is evicted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::mount::empty_dir_path;
use super::usage::usage_bytes;
use crate::kubelet::Kubelet;
use crate::pod::resources::amount;

/// Time between two looks. Source: the kubelet's eviction manager.
const INTERVAL: Duration = Duration::from_secs(10);

/// A volume that may take so much.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limited {
    name: String,
    /// As the pod says it, for the message.
    limit: String,
    limit_bytes: u64,
}

/// The limited volumes of a pod. What is in memory is limited by the kernel.
fn limited(pod: &Pod) -> Vec<Limited> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let limit = |volume: &k8s_openapi::api::core::v1::Volume| {
        let source = volume.empty_dir.as_ref()?;
        let limit = source.size_limit.as_ref()?;
        let limit_bytes = u64::try_from(amount("ephemeral-storage", limit)?).ok()?;
        let is_in_memory = source.medium.as_deref() == Some("Memory");
        // Zero is no limit.
        (limit_bytes > 0 && !is_in_memory).then(|| Limited {
            name: volume.name.clone(),
            limit: limit.0.clone(),
            limit_bytes,
        })
    };
    volumes.iter().filter_map(limit).collect()
}

/// The message for a pod that took too much; in Kubernetes' words. Blocking.
fn excess(pod_dir: &Path, volumes: &[Limited]) -> Option<String> {
    volumes.iter().find_map(|volume| {
        let used = usage_bytes(&empty_dir_path(pod_dir, &volume.name), volume.limit_bytes).ok()?;
        (used > volume.limit_bytes).then(|| {
            format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, volume.limit)
        })
    })
}

/// Looks at all pods again and again; for ever. May be dropped at any moment.
pub(crate) async fn enforce(kubelet: Arc<Kubelet>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for pod in kubelet.pods.store().list() {
            let volumes = limited(&pod);
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if volumes.is_empty() {
                continue;
            }
            let Some(mailbox) = kubelet.workers.get(&uid) else { continue };
            let pod_dir = kubelet.pod_dir(&uid);
            let looked = tokio::task::spawn_blocking(move || excess(&pod_dir, &volumes)).await;
            if let Ok(Some(message)) = looked {
                mailbox.post(|inbox| inbox.eviction = Some(message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_limited_volumes_on_disk_are_looked_at() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": [
            {"name": "free", "emptyDir": {}},
            {"name": "zero", "emptyDir": {"sizeLimit": "0"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "disk", "emptyDir": {"sizeLimit": "1Mi"}},
        ]}}))
        .unwrap();
        let expected = Limited { name: "disk".to_owned(), limit: "1Mi".to_owned(), limit_bytes: 1 << 20 };
        assert_eq!(limited(&pod), [expected]);
    }

    #[test]
    fn too_much_is_told_in_kubernetes_words() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let volume = empty_dir_path(&root, "disk");
        std::fs::create_dir_all(&volume).unwrap();
        let volumes = [Limited { name: "disk".to_owned(), limit: "1Mi".to_owned(), limit_bytes: 1 << 20 }];
        assert_eq!(excess(&root, &volumes), None);
        std::fs::write(volume.join("file"), vec![7; 2 << 20]).unwrap();
        assert_eq!(
            excess(&root, &volumes).as_deref(),
            Some("Usage of EmptyDir volume \"disk\" exceeds the limit \"1Mi\". ")
        );
    }
}
