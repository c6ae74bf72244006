//! Volumes that say by labels in which zones they are.

use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// The labels of zones and regions, in the present and the old form of each.
const LABELS: [[&str; 2]; 2] = [
    ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"],
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"],
];
/// Between the zones of a volume that is in several.
const SEPARATOR: &str = "__";

/// Zones of volumes that the pod's claims are bound to.
#[derive(Debug)]
pub struct VolumeZone;

impl Filter for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, cluster: &Snapshot) -> Verdict {
        if pod.claims.is_empty() {
            return Verdict::Feasible;
        }
        let of_node = |forms: &[&str; 2]| {
            let labels = node.node.metadata.labels.as_ref()?;
            forms.iter().find_map(|label| labels.get(*label))
        };
        // A node that says nothing of zones is in all of them.
        if LABELS.iter().all(|forms| of_node(forms).is_none()) {
            return Verdict::Feasible;
        }
        let is_elsewhere = cluster.volumes().bound_volumes(pod).any(|volume| {
            LABELS.iter().any(|forms| {
                let labels = volume.metadata.labels.as_ref();
                let zones = labels.and_then(|labels| forms.iter().find_map(|label| labels.get(*label)));
                zones.is_some_and(|zones| {
                    of_node(forms).is_none_or(|zone| !zones.split(SEPARATOR).any(|given| given == zone))
                })
            })
        });
        if is_elsewhere {
            Verdict::unresolvable("node(s) had no available volume zone")
        } else {
            Verdict::Feasible
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::AssignedPodGone(_) => false,
            ClusterEvent::VolumesChanged | ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated(_) => {
                !pod.claims.is_empty()
            }
        }
    }
}
