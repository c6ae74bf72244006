//! Nodes that a pod selects by label or name, and nodes that it would rather have.

use crate::framework::{ClusterEvent, Filter, Score, Verdict, normalize_by_greatest};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// `spec.nodeSelector` and `spec.affinity.nodeAffinity`.
#[derive(Debug)]
pub struct NodeAffinity;

fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let none = std::collections::BTreeMap::new();
    pod.required_nodes.matches(&node.name, node.node.metadata.labels.as_ref().unwrap_or(&none))
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn candidates<'a>(&self, pod: &'a PodInfo) -> Option<Vec<&'a str>> {
        pod.required_nodes.named_nodes()
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        if matches(pod, node) {
            Verdict::Feasible
        } else {
            Verdict::unresolvable("node(s) didn't match Pod's node affinity/selector")
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        let (ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated(node)) = event else { return false };
        matches(pod, node)
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn is_concerned(&self, pod: &PodInfo) -> bool {
        !pod.preferred_nodes.is_empty()
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) -> i64 {
        let none = std::collections::BTreeMap::new();
        let labels = node.node.metadata.labels.as_ref().unwrap_or(&none);
        pod.preferred_nodes
            .iter()
            .filter(|preferred| preferred.term.matches(&node.name, labels))
            .map(|preferred| preferred.weight)
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_greatest(scores, false);
    }
}
