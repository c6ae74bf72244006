//! A pod with what the plugins need of it, read once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Toleration, Volume};
use wherry_client::ObjectKey;
use wherry_client::volumes::ephemeral_claim_name;

use crate::host_ports::{HostPort, host_ports};
use crate::resources::{Resources, Weight, pod_requests, pod_weight};
use crate::selector::{PreferredTerm, RequiredNodes};

/// A pod as the scheduler sees it.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Tells it from another pod of the same name.
    pub uid: String,
    /// Pods of higher priority go first.
    pub priority: i32,
    /// What it needs.
    pub requests: Resources,
    /// What it counts for in scores.
    pub weight: Weight,
    /// Ports of the node that it wants for itself.
    pub host_ports: Vec<HostPort>,
    /// Nodes that will do.
    pub required_nodes: RequiredNodes,
    /// Nodes that it would rather have.
    pub preferred_nodes: Vec<PreferredTerm>,
    /// Its images, init containers' included, in canonical form.
    pub images: Vec<String>,
    /// How many containers it has, init containers included.
    pub container_count: usize,
    /// The claims that it uses.
    pub claims: Vec<ClaimUse>,
}

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Whether it is made for the pod, with the pod.
    pub is_ephemeral: bool,
}

fn claims(pod: &Pod) -> Vec<ClaimUse> {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let pod_name = metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claim = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => {
            Some(ClaimUse { key: ObjectKey::new(namespace, source.claim_name.clone()), is_ephemeral: false })
        }
        (None, Some(_)) => Some(ClaimUse {
            key: ObjectKey::new(namespace, ephemeral_claim_name(pod_name, &volume.name)),
            is_ephemeral: true,
        }),
        (None, None) => None,
    };
    volumes.iter().filter_map(claim).collect()
}

impl PodInfo {
    /// Reads the pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref();
        let containers = || {
            spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
        };
        Self {
            key: ObjectKey::of(&*pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            requests: pod_requests(&pod),
            weight: pod_weight(&pod),
            host_ports: host_ports(&pod),
            required_nodes: spec.map(RequiredNodes::of).unwrap_or_default(),
            preferred_nodes: spec.map(PreferredTerm::all_of).unwrap_or_default(),
            images: containers()
                .filter_map(|container| Some(canonical_image(container.image.as_deref()?)))
                .collect(),
            container_count: containers().count(),
            claims: claims(&pod),
            pod,
        }
    }

    /// The node it is to run on, if that is settled or asked for.
    pub fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Taints that it does not mind.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// The names of the gates that keep it from being scheduled.
    pub fn gates(&self) -> Vec<&str> {
        let gates = self.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
        gates.into_iter().flatten().map(|gate| gate.name.as_str()).collect()
    }

    /// Whether all its containers have ended for good.
    pub fn is_terminal(&self) -> bool {
        is_terminal(&self.pod)
    }
}

/// Whether all containers of the pod have ended for good: it takes no resources any more.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// An image as nodes report it: with the tag `latest` if it has neither tag nor digest.
pub fn canonical_image(image: &str) -> String {
    let has_tag = image.rfind(':') > image.rfind('/');
    if has_tag { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(canonical_image(image), expected, "{image}");
        }
    }
}
