//! Telling a pod's owner what became of it: events and the condition PodScheduled.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use wherry_client::{EventRecorder, EventType, is_not_found, object_ref};

use crate::bind::Failure;
use crate::pod_info::PodInfo;

const CONDITION: &str = "PodScheduled";

/// The pod has its node.
pub(crate) fn scheduled(recorder: &EventRecorder, pod: &PodInfo, node: &str) {
    let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
    recorder.event(&object_ref(&*pod.pod), EventType::Normal, "Scheduled", message);
}

/// The pod has no node.
pub(crate) async fn failed(client: &Client, recorder: &EventRecorder, pod: &PodInfo, failure: &Failure) {
    if matches!(failure, Failure::Gone) {
        return;
    }
    let message = failure.to_string();
    recorder.event(&object_ref(&*pod.pod), EventType::Warning, "FailedScheduling", message.clone());
    let Some(condition) = changed_condition(&pod.pod, reason(failure), message, Timestamp::now()) else {
        return;
    };
    let patch = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [condition] } });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    match api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => {}
        Err(error) => tracing::warn!(pod = %pod.key, %error, "the pod's condition was not written"),
    }
}

fn reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::Unschedulable { .. } => "Unschedulable",
        Failure::Gone | Failure::Rejected { .. } | Failure::Volumes { .. } | Failure::VolumesLate => {
            "SchedulerError"
        }
    }
}

/// The condition, if it is not what the pod has already. The time of transition stays while the status does.
fn changed_condition(pod: &Pod, reason: &str, message: String, now: Timestamp) -> Option<PodCondition> {
    let present = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == CONDITION));
    let was_false = present.filter(|present| present.status == "False");
    if was_false.is_some_and(|present| {
        present.reason.as_deref() == Some(reason) && present.message.as_deref() == Some(&message)
    }) {
        return None;
    }
    let since = was_false.and_then(|present| present.last_transition_time.clone()).unwrap_or(Time(now));
    Some(PodCondition {
        type_: CONDITION.to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_differs_and_keeps_its_time_while_false() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let before: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod = |status: &str, reason: &str, message: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": { "generation": 3 }, "status": { "conditions": [{
                "type": "PodScheduled", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": before.to_string(),
            }] } }))
            .unwrap()
        };
        for (told, pod, expected) in [
            ("none yet", Pod::default(), Some(now)),
            ("the same", pod("False", "Unschedulable", "why"), None),
            ("another message", pod("False", "Unschedulable", "other"), Some(before)),
            ("another reason", pod("False", "SchedulingGated", "why"), Some(before)),
            ("another status", pod("True", "", ""), Some(now)),
        ] {
            let condition = changed_condition(&pod, "Unschedulable", "why".to_owned(), now);
            let since = condition.as_ref().and_then(|condition| condition.last_transition_time.clone());
            assert_eq!(since.map(|Time(since)| since), expected, "{told}");
            if let Some(condition) = condition {
                assert_eq!(condition.observed_generation, pod.metadata.generation);
            }
        }
    }
}
