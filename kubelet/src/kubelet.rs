//! What every part of the kubelet shares.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_client::{EventRecorder, EventType, Informer, object_ref};

use crate::cgroups::PodCgroups;
use crate::config::Config;
use crate::network::PodNetwork;
use crate::objects::Objects;
use crate::pod::admission::NodeLoad;
use crate::pod::container_config::NodeFacts;
use crate::pod::observed::PodObserved;
use crate::pod::resources::Amounts;
use crate::pod::unsupported::Kernel;
use crate::pod::workers::Workers;
use crate::runtimes::{NodeRuntime, NodeRuntimes};
use crate::stats::{ProbeCounts, Rates};
use crate::volumes::host_path::Rules;

/// A pod's sandboxes and containers that ran before this kubelet started.
pub(crate) struct Adopted {
    pub(crate) runtime: Arc<NodeRuntime>,
    pub(crate) observed: PodObserved,
}

/// The shared state of one kubelet.
pub(crate) struct Kubelet {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    pub(crate) runtimes: NodeRuntimes,
    pub(crate) network: PodNetwork,
    pub(crate) pods: Informer<Pod>,
    pub(crate) services: Informer<Service>,
    pub(crate) runtime_classes: Informer<RuntimeClass>,
    pub(crate) own_node: Informer<Node>,
    pub(crate) objects: Objects,
    pub(crate) workers: Arc<Workers>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) allocatable: Amounts,
    pub(crate) node_facts: NodeFacts,
    /// Cgroups of pods whose runtime has them; `None` leaves them to the runtime.
    pub(crate) cgroups: Option<Arc<PodCgroups>>,
    pub(crate) kernel: Kernel,
    /// Thousandths of a core that the machine has.
    pub(crate) machine_millicores: i64,
    pub(crate) rates: Rates,
    pub(crate) probe_counts: ProbeCounts,
    pub(crate) host_ip: String,
    pub(crate) static_pods: crate::static_pods::StaticPods,
    pub(crate) http: crate::probes::http::ProbeClient,
    pub(crate) adopted: Mutex<HashMap<String, Adopted>>,
    pub(crate) volume_rules: Rules,
    pub(crate) admitted: Mutex<NodeLoad>,
    /// Logs that are read at the same time; each reader holds a thread that volumes need too.
    pub(crate) log_readers: Arc<tokio::sync::Semaphore>,
}

impl Kubelet {
    /// The present time.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// A pod's own directory.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.root_dir.join("pods").join(path_part(uid))
    }

    /// The directory of a pod's logs.
    pub(crate) fn log_dir(&self, pod: &Pod) -> PathBuf {
        let metadata = &pod.metadata;
        self.config.log_dir.join(path_part(&format!(
            "{}_{}_{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default()
        )))
    }

    /// Records an event about a pod.
    pub(crate) fn pod_event(&self, pod: &Pod, kind: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(&pod_reference(pod), kind, reason, message.into());
    }

    /// Records an event about a container of a pod.
    pub(crate) fn container_event(
        &self,
        pod: &Pod,
        container: &str,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let is_init = pod
            .spec
            .as_ref()
            .and_then(|s| s.init_containers.as_ref())
            .is_some_and(|c| c.iter().any(|c| c.name == container));
        let list = match () {
            () if is_init => "initContainers",
            () if crate::pod::ephemeral::is_ephemeral(pod, container) => "ephemeralContainers",
            () => "containers",
        };
        let reference =
            ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..pod_reference(pod) };
        self.recorder.event(&reference, kind, reason, message.into());
    }

    /// Whether something that ran before this kubelet started has not been claimed by a pod yet.
    pub(crate) fn has_adopted(&self) -> bool {
        !self.adopted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes what ran of a pod before this kubelet started.
    pub(crate) fn take_adopted(&self, uid: &str) -> Option<Adopted> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }
}

/// A name as one part of a path, whatever it says: names come from manifests, annotations and the runtime's labels too.
pub(crate) fn path_part(name: &str) -> String {
    match name {
        "" | "." | ".." => format!("_{name}"),
        name => name.replace(['/', '\0'], "_"),
    }
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    object_ref(pod)
}

/// `name_namespace(uid)`, as the kubelet names pods in messages.
pub(crate) fn format_pod(pod: &Pod) -> String {
    format!(
        "{}_{}({})",
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::path_part;
    use std::path::Path;

    #[test]
    fn no_name_leads_out_of_its_directory() {
        for name in ["", ".", "..", "/etc", "../../etc", "a/../../b", "a/", "a\0b", "plain", "a_b-c.d", "..."]
        {
            let joined = Path::new("/base").join(path_part(name));
            assert_eq!(joined.parent(), Some(Path::new("/base")), "{name:?}");
            assert_eq!(joined.components().count(), 3, "{name:?}");
        }
    }
}
