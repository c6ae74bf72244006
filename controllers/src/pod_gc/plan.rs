//! Which pods nobody will finish.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// The terminated pods that are too many: the oldest beyond the threshold, evicted ones first.
pub(super) fn surplus_terminated(all: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    let mut terminated: Vec<_> =
        all.iter().filter(|pod| pods::is_terminal(pod) && !pods::is_terminating(pod)).cloned().collect();
    let surplus = terminated.len().saturating_sub(threshold);
    if threshold == 0 || surplus == 0 {
        return Vec::new();
    }
    let is_evicted =
        |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
    terminated.sort_by_cached_key(|pod| {
        (!is_evicted(pod), pod.metadata.creation_timestamp.clone(), pods::name(pod).to_owned())
    });
    terminated.truncate(surplus);
    terminated
}

/// The nodes that pods are bound to and that do not exist.
pub(super) fn missing_nodes(all: &[Arc<Pod>], exists: impl Fn(&str) -> bool) -> HashSet<String> {
    let bound = all.iter().map(|pod| pods::node_name(pod)).filter(|node| !node.is_empty());
    bound.filter(|node| !exists(node)).map(str::to_owned).collect()
}

/// Whether the pod is being deleted and was never bound: no kubelet will finish that.
pub(super) fn is_unscheduled_terminating(pod: &Pod) -> bool {
    pods::is_terminating(pod) && pods::node_name(pod).is_empty()
}

/// The conditions and the phase of a pod whose node is gone.
pub(super) fn failed_status(pod: &Pod, now: Timestamp) -> Option<serde_json::Value> {
    if pods::is_terminal(pod) {
        return None;
    }
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByPodGC".to_owned()),
        message: Some("PodGC: node no longer exists".to_owned()),
        last_transition_time: Some(Time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
    Some(serde_json::json!({ "status": { "phase": "Failed", "conditions": conditions } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, phase: &str, node: &str, created: i64, reason: &str) -> Arc<Pod> {
        let created = Timestamp::from_second(1_700_000_000 + created).expect("a time").to_string();
        let pod = json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "reason": reason },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn the_oldest_terminated_pods_beyond_the_threshold_go_and_evicted_ones_first() {
        let all = [
            pod("old", "Succeeded", "n", 1, ""),
            pod("running", "Running", "n", 0, ""),
            pod("new", "Failed", "n", 9, ""),
            pod("evicted", "Failed", "n", 5, "Evicted"),
        ];
        for (threshold, expected) in
            [(3, &[][..]), (2, &["evicted"][..]), (1, &["evicted", "old"][..]), (0, &[][..])]
        {
            let surplus = surplus_terminated(&all, threshold);
            assert_eq!(
                surplus.iter().map(|pod| pods::name(pod)).collect::<Vec<_>>(),
                expected,
                "{threshold}"
            );
        }
    }

    #[test]
    fn nodes_that_pods_name_and_that_do_not_exist_are_missing() {
        let all = [
            pod("a", "Running", "gone", 0, ""),
            pod("b", "Running", "here", 0, ""),
            pod("c", "Pending", "", 0, ""),
        ];
        assert_eq!(missing_nodes(&all, |node| node == "here"), HashSet::from(["gone".to_owned()]));
    }

    #[test]
    fn a_pod_of_a_lost_node_fails_unless_it_had_ended() {
        let failed =
            failed_status(&pod("a", "Running", "gone", 0, ""), Timestamp::UNIX_EPOCH).expect("a status");
        assert_eq!(failed["status"]["phase"], "Failed");
        assert_eq!(failed["status"]["conditions"][0]["reason"], "DeletionByPodGC");
        assert_eq!(failed_status(&pod("a", "Succeeded", "gone", 0, ""), Timestamp::UNIX_EPOCH), None);
    }
}
