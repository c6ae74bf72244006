//! Taints of nodes, and pods that tolerate them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{ClusterEvent, Filter, Score, Verdict, normalize_by_greatest};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// `spec.taints` and `spec.tolerations`.
#[derive(Debug)]
pub struct TaintToleration;

/// Whether the pod minds the node's taints.
fn verdict(pod: &PodInfo, node: &NodeInfo) -> Verdict {
    let is_untolerated = |taint: &Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(pod.tolerations(), taint)
    };
    if node.taints().iter().any(is_untolerated) {
        // Kubernetes does not name the taint since 1.35: pods' owners need not know nodes' taints.
        Verdict::unresolvable("node(s) had untolerated taint(s)")
    } else {
        Verdict::Feasible
    }
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        verdict(pod, node)
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        let (ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated(node)) = event else { return false };
        verdict(pod, node) == Verdict::Feasible
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) -> i64 {
        let is_disliked =
            |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(pod.tolerations(), taint);
        i64::try_from(node.taints().iter().filter(is_disliked).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_greatest(scores, true);
    }
}

/// Whether one of the tolerations is for the taint.
pub(super) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && match toleration.operator.as_deref().unwrap_or_default() {
                "Exists" => true,
                "" | "Equal" => {
                    toleration.value.as_deref().unwrap_or_default()
                        == taint.value.as_deref().unwrap_or_default()
                }
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        let taint = Taint {
            key: "dedicated".to_owned(),
            value: Some("gpu".to_owned()),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        for (toleration, expected) in [
            (
                json!({ "key": "dedicated", "operator": "Equal", "value": "gpu", "effect": "NoSchedule" }),
                true,
            ),
            (json!({ "key": "dedicated", "value": "gpu" }), true),
            (json!({ "key": "dedicated", "operator": "Exists" }), true),
            (json!({ "operator": "Exists" }), true),
            (json!({ "operator": "Exists", "effect": "NoExecute" }), false),
            (json!({ "key": "dedicated", "value": "cpu" }), false),
            (json!({ "key": "other", "operator": "Exists" }), false),
            (json!({ "key": "dedicated", "operator": "Near", "value": "gpu" }), false),
        ] {
            let tolerations = [serde_json::from_value(toleration.clone()).unwrap()];
            assert_eq!(tolerates(&tolerations, &taint), expected, "{toleration}");
        }
        assert!(!tolerates(&[], &taint));
    }
}
