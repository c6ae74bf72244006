//! Claims that are for one pod alone.

use std::borrow::Cow;

use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// The access mode ReadWriteOncePod.
#[derive(Debug)]
pub struct VolumeRestrictions;

impl Filter for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter(&self, pod: &PodInfo, _node: &NodeInfo, cluster: &Snapshot) -> Verdict {
        if cluster.volumes().is_taken_by_another(pod) {
            let reason = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            Verdict::Unschedulable(vec![Cow::Borrowed(reason)])
        } else {
            Verdict::Feasible
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::AssignedPodGone(gone) => {
                gone.claims.iter().any(|claim| pod.claims.iter().any(|own| own.key == claim.key))
            }
            ClusterEvent::VolumesChanged => !pod.claims.is_empty(),
            ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated(_) => false,
        }
    }
}
