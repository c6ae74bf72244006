//! Nodes that are cordoned take no new pods, but for those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::NodeInfo;

/// `spec.unschedulable` of a node.
#[derive(Debug)]
pub struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
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

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        let (ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated(node)) = event else { return false };
        self.filter(pod, node) == Verdict::Feasible
    }
}
