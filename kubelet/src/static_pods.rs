//! Static pods: manifests in a directory of the node, shown in the API by mirror pods.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use sha2::{Digest, Sha256};
use wherry_machinery::decode::{Limits, decode_yaml};
use wherry_machinery::names;

use crate::kubelet::Kubelet;
use crate::pod::labels;
use crate::pod::mirrored_uid;
use crate::pod::worker::Origin;

/// Largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 10 << 20;
/// The directory is looked at this often. Source: Kubernetes' `fileCheckFrequency` is 20 s; a look costs little.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A manifest that is not a pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("manifest cannot be read")]
    Read(#[source] std::io::Error),
    #[error("manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    #[error("manifest cannot be parsed: {0}")]
    Parse(String),
    #[error("manifest is not a v1 Pod with a name")]
    NotAPod,
    #[error("invalid {what} name {name:?}")]
    InvalidName { what: &'static str, name: String },
}

/// Mirror pods by namespace and name.
#[derive(Default)]
pub(crate) struct StaticPods {
    mirrors: Mutex<HashMap<(String, String), Arc<Pod>>>,
    changed: tokio::sync::Notify,
}

impl StaticPods {
    pub(crate) fn mirror_seen(&self, pod: &Arc<Pod>) {
        lock(&self.mirrors).insert(key(pod), pod.clone());
        self.changed.notify_one();
    }

    pub(crate) fn mirror_gone(&self, pod: &Arc<Pod>) {
        lock(&self.mirrors).remove(&key(pod));
        self.changed.notify_one();
    }

    /// The mirror of exactly this definition.
    fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        lock(&self.mirrors).get(&key(pod)).filter(|mirror| mirrored_uid(mirror) == pod.metadata.uid).cloned()
    }

    fn mirrors(&self) -> HashMap<(String, String), Arc<Pod>> {
        lock(&self.mirrors).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// A manifest as the pod that runs: named after the node, with a uid made from its content.
pub(crate) fn static_pod(manifest: &[u8], source: &str, node_name: &str) -> Result<Pod, ManifestError> {
    // YAML with JSON inside it: one reader for both, the API server's.
    let document = decode_yaml(manifest, &Limits::default())
        .map_err(|error| ManifestError::Parse(error.to_string()))?
        .into_value();
    let mut pod: Pod =
        serde_json::from_value(document).map_err(|error| ManifestError::Parse(error.to_string()))?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty()).ok_or(ManifestError::NotAPod)?;
    check_names(&pod)?;
    let mut hasher = Sha256::new();
    hasher.update(node_name);
    hasher.update(source);
    hasher.update(manifest);
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    pod.metadata.name = Some(format!("{name}-{node_name}"));
    pod.metadata.namespace =
        Some(pod.metadata.namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned()));
    pod.metadata.uid = Some(hash.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::CONFIG_HASH.to_owned(), hash);
    annotations.insert(labels::CONFIG_SOURCE.to_owned(), "file".to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    spec.enable_service_links.get_or_insert(true);
    spec.termination_grace_period_seconds.get_or_insert(30);
    let everything = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(everything);
    pod.status = None;
    Ok(pod)
}

/// Names become parts of paths and of other names; no API server has looked at these.
fn check_names(pod: &Pod) -> Result<(), ManifestError> {
    type Check = fn(&str) -> Vec<String>;
    let (label, subdomain): (Check, Check) = (names::dns1123_label, names::dns1123_subdomain);
    let metadata = &pod.metadata;
    let mut all = vec![("pod", metadata.name.as_deref().unwrap_or_default(), subdomain)];
    all.extend(metadata.namespace.as_deref().filter(|n| !n.is_empty()).map(|n| ("namespace", n, label)));
    if let Some(spec) = &pod.spec {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.extend(containers.map(|container| ("container", container.name.as_str(), label)));
        all.extend(spec.volumes.iter().flatten().map(|volume| ("volume", volume.name.as_str(), label)));
    }
    match all.into_iter().find(|(_, name, check)| !check(name).is_empty()) {
        Some((what, name, _)) => Err(ManifestError::InvalidName { what, name: name.to_owned() }),
        None => Ok(()),
    }
}

/// The object that shows a static pod in the API.
fn mirror_of(pod: &Pod, node_name: &str, node_uid: &str) -> Pod {
    let mut mirror = pod.clone();
    let hash = pod.metadata.uid.clone().unwrap_or_default();
    mirror.metadata.uid = None;
    mirror.metadata.annotations.get_or_insert_default().insert(labels::CONFIG_MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror
}

fn read_manifests(directory: &Path, node_name: &str) -> BTreeMap<String, Result<Pod, ManifestError>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_manifest = [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
            (is_manifest && !name.starts_with('.')).then(|| {
                let path = entry.path();
                let read = || {
                    // Asked first: opening a FIFO would wait for ever.
                    if !std::fs::metadata(&path).map_err(ManifestError::Read)?.is_file() {
                        return Err(ManifestError::Read(std::io::ErrorKind::InvalidInput.into()));
                    }
                    let mut bytes = Vec::new();
                    let file = std::fs::File::open(&path).map_err(ManifestError::Read)?;
                    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(ManifestError::Read)?;
                    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
                        return Err(ManifestError::TooLarge);
                    }
                    static_pod(&bytes, &name, node_name)
                };
                (name.clone(), read())
            })
        })
        .collect()
}

/// Follows the manifest directory until the kubelet stops.
pub(crate) async fn follow(kubelet: Arc<Kubelet>, directory: std::path::PathBuf) {
    let mut running: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    loop {
        let node_name = kubelet.config.node_name.clone();
        let from = directory.clone();
        let manifests =
            tokio::task::spawn_blocking(move || read_manifests(&from, &node_name)).await.unwrap_or_default();
        let mut wanted: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        for (file, pod) in manifests {
            match pod {
                Ok(pod) => {
                    wanted.insert(pod.metadata.uid.clone().unwrap_or_default(), Arc::new(pod));
                }
                Err(error) => tracing::warn!(%file, error = %error, "static pod manifest is not usable"),
            }
        }
        for (uid, pod) in &running {
            if !wanted.contains_key(uid)
                && let Some(mailbox) = kubelet.workers.get(uid)
            {
                let pod = pod.clone();
                mailbox.post(|inbox| {
                    inbox.pod = Some(pod);
                    inbox.is_removed = true;
                });
            }
        }
        for (uid, pod) in &wanted {
            if kubelet.workers.get(uid).is_none() {
                // The former definition of the same pod has to be gone first.
                let is_replaced = running
                    .iter()
                    .any(|(old, p)| old != uid && key(p) == key(pod) && kubelet.workers.get(old).is_some());
                if !is_replaced {
                    kubelet.dispatch(pod, Origin::Static);
                    // Its mirror may have been there first.
                    if let (Some(mirror), Some(mailbox)) =
                        (kubelet.static_pods.mirror_of(pod), kubelet.workers.get(uid))
                    {
                        mailbox.post(|inbox| inbox.mirror = Some(mirror));
                    }
                }
            }
        }
        running.retain(|uid, _| !wanted.contains_key(uid) && kubelet.workers.get(uid).is_some());
        running.extend(wanted.clone());
        mirror(&kubelet, &wanted).await;
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = kubelet.static_pods.changed.notified() => {}
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}

async fn mirror(kubelet: &Arc<Kubelet>, wanted: &BTreeMap<String, Arc<Pod>>) {
    let mirrors = kubelet.static_pods.mirrors();
    for ((namespace, name), mirror) in &mirrors {
        let hash = mirror.metadata.annotations.as_ref().and_then(|a| a.get(labels::CONFIG_MIRROR));
        let is_current = hash.is_some_and(|hash| wanted.contains_key(hash))
            && mirror.metadata.deletion_timestamp.is_none();
        if !is_current {
            let api: Api<Pod> = Api::namespaced(kubelet.client.clone(), namespace);
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: mirror.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            if let Err(error) = api.delete(name, &params).await {
                tracing::debug!(%error, %namespace, %name, "mirror pod cannot be deleted");
            }
        }
    }
    let node = kubelet.own_node.store().get("", &kubelet.config.node_name);
    let Some(node_uid) = node.and_then(|n| n.metadata.uid.clone()) else { return };
    for pod in wanted.values() {
        let (namespace, name) = key(pod);
        if mirrors.contains_key(&(namespace.clone(), name.clone())) {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(kubelet.client.clone(), &namespace);
        let object = mirror_of(pod, &kubelet.config.node_name, &node_uid);
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, %namespace, %name, "mirror pod cannot be made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_a_pod_named_after_the_node() {
        let yaml = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i\n";
        let pod = static_pod(yaml, "web.yaml", "node-1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.metadata.uid.as_deref().map(str::len), Some(32));
        let mirror = mirror_of(&pod, "node-1", "u");
        assert_eq!(mirror.metadata.annotations.unwrap()[labels::CONFIG_MIRROR], pod.metadata.uid.unwrap());
        assert!(static_pod(b"{}", "x.json", "n").is_err());
        assert!(static_pod(b"a: [", "x.yaml", "n").is_err());
        for bad in [
            r#"{"metadata": {"name": "../../etc"}}"#,
            r#"{"metadata": {"name": "a", "namespace": "../b"}}"#,
            r#"{"metadata": {"name": "a"}, "spec": {"containers": [{"name": "../c"}]}}"#,
            r#"{"metadata": {"name": "a"}, "spec": {"containers": [], "volumes": [{"name": "/v"}]}}"#,
        ] {
            let error = static_pod(bad.as_bytes(), "x.json", "n").unwrap_err();
            assert!(matches!(error, ManifestError::InvalidName { .. }), "{bad}: {error}");
        }
    }
}
