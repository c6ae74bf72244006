//! Claims get volumes where the pod is to run.

use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// Volumes that a pod's claims are bound to, or can be bound to.
#[derive(Debug)]
pub struct VolumeBinding;

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<String> {
        cluster.volumes().obstacle(pod)
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, cluster: &Snapshot) -> Verdict {
        if pod.claims.is_empty() {
            return Verdict::Feasible;
        }
        match cluster.volumes().plan(pod, node) {
            Ok(_) => Verdict::Feasible,
            Err(reasons) => Verdict::UnschedulableAndUnresolvable(reasons),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::VolumesChanged => !pod.claims.is_empty(),
            ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated(_) => true,
            ClusterEvent::AssignedPodGone(_) => false,
        }
    }
}
