//! Nodes that are cordoned take no new pods, but for those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// `spec.unschedulable` of a node.
#[derive(Debug)]
pub struct NodeUnschedulable;

/// Whether new pods are wanted, or the pod does not mind.
fn verdict(pod: &PodInfo, node: &NodeInfo) -> Verdict {
    if !node.is_unschedulable() {
        return Verdict::Feasible;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if tolerates(pod.tolerations(), &taint) {
        Verdict::Feasible
    } else {
        Verdict::unresolvable("node(s) were unschedulable")
    }
}

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        verdict(pod, node)
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        let (ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated(node)) = event else { return false };
        verdict(pod, node) == Verdict::Feasible
    }
}
