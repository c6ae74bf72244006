//! A pod that names its node can run nowhere else.

use crate::framework::{ClusterEvent, Filter, Verdict};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// `spec.nodeName`.
#[derive(Debug)]
pub struct NodeName;

/// Whether the node is the one asked for.
fn verdict(pod: &PodInfo, node: &NodeInfo) -> Verdict {
    match pod.node_name() {
        Some(name) if name != node.name => {
            Verdict::unresolvable("node(s) didn't match the requested node name")
        }
        _ => Verdict::Feasible,
    }
}

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        verdict(pod, node)
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::NodeAdded(node) if verdict(pod, node) == Verdict::Feasible)
    }
}
