//! What a node's silence or conditions mean: its conditions, its taints, and who must leave it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The conditions that a kubelet reports, and that are unknown when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions that keep pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The status of the node's Ready condition; Unknown when it has none.
pub(super) fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |condition| condition.status.as_str())
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// The conditions of a node that has been silent for too long; `None` when they say so already.
pub(super) fn conditions_of_silent_node(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let old = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = old.clone();
    for type_ in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
    (conditions != old).then_some(conditions)
}

/// The taints that the node is to have, those of others kept; `None` when it has them already.
pub(super) fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready_status(node) {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        _ => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_ours = |taint: &Taint| {
        let is_known = taint.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == taint.key);
        (is_known && taint.effect == "NoSchedule")
            || ([NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
                && ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()))
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<_> =
        old.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            taints.push(Taint { key, effect, time_added: Some(Time(now)), value: None });
        }
    }
    (taints != old).then_some(taints)
}

/// When a pod has to leave its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It may stay.
    Never,
    /// It has to leave now.
    Now,
    /// It may stay for this long.
    After(Duration),
}

/// When `pod` has to leave a node with these taints.
pub(super) fn eviction(pod: &Pod, taints: &[Taint], now: Timestamp) -> Eviction {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut leave_at: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let used = tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        let mut stays = None;
        for toleration in used {
            stays = Some(shorter(stays.flatten(), toleration.toleration_seconds));
        }
        match stays {
            None => return Eviction::Now,
            Some(None) => {}
            Some(Some(seconds)) => {
                // What is tolerated begins with the taint, also for a controller that was started later.
                let since = taint.time_added.as_ref().map_or(now, |time| time.0);
                let until =
                    since.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
                leave_at = Some(leave_at.map_or(until, |earlier| earlier.min(until)));
            }
        }
    }
    match leave_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default()) {
        None => Eviction::Never,
        Some(left) if left.is_zero() => Eviction::Now,
        Some(left) => Eviction::After(left),
    }
}

/// The shorter of two times, where none is for ever.
fn shorter(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
                && given(&toleration.key).is_some()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    fn node(conditions: &Value, taints: &Value, unschedulable: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n", "creationTimestamp": at(0).to_string() },
            "spec": { "taints": taints, "unschedulable": unschedulable },
            "status": { "conditions": conditions },
        }))
        .expect("a node")
    }

    #[test]
    fn the_conditions_of_a_silent_node_are_unknown() {
        let ready = json!([{ "type": "Ready", "status": "True" }, { "type": "NetworkUnavailable", "status": "False" }]);
        let silent =
            conditions_of_silent_node(&node(&ready, &json!([]), false), at(50)).expect("they change");
        let words: Vec<_> = silent
            .iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            words,
            [
                "Ready=Unknown NodeStatusUnknown",
                "NetworkUnavailable=False ",
                "MemoryPressure=Unknown NodeStatusNeverUpdated",
                "DiskPressure=Unknown NodeStatusNeverUpdated",
                "PIDPressure=Unknown NodeStatusNeverUpdated",
            ]
        );
        assert_eq!(conditions_of_silent_node(&node(&json!(silent), &json!([]), false), at(60)), None);
    }

    #[test]
    fn taints_follow_conditions_and_leave_those_of_others_alone() {
        let ready = |status: &str| json!([{ "type": "Ready", "status": status }]);
        let own = json!([{ "key": "gpu", "effect": "NoSchedule", "value": "a" }]);
        let unreachable = json!([
            { "key": "node.kubernetes.io/unreachable", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" },
            { "key": "gpu", "effect": "NoSchedule", "value": "a" },
        ]);
        for (what, conditions, taints_before, unschedulable, expected) in [
            ("ready", ready("True"), &own, false, None),
            (
                "silent",
                ready("Unknown"),
                &own,
                false,
                Some(vec!["gpu:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (
                "not ready",
                ready("False"),
                &unreachable,
                false,
                Some(vec!["gpu:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]),
            ),
            ("still silent", ready("Unknown"), &unreachable, false, None),
            ("back", ready("True"), &unreachable, false, Some(vec!["gpu:NoSchedule"])),
            ("cordoned", ready("True"), &own, true, Some(vec!["gpu:NoSchedule", "unschedulable:NoSchedule"])),
            (
                "under pressure",
                json!([{ "type": "Ready", "status": "True" }, { "type": "DiskPressure", "status": "True" }]),
                &own,
                false,
                Some(vec!["gpu:NoSchedule", "disk-pressure:NoSchedule"]),
            ),
        ] {
            let found = taints(&node(&conditions, taints_before, unschedulable), at(0)).map(|taints| {
                let short = |taint: &Taint| {
                    format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect)
                };
                taints.iter().map(short).collect::<Vec<_>>()
            });
            assert_eq!(
                found,
                expected.map(|taints| taints.into_iter().map(str::to_owned).collect()),
                "{what}"
            );
        }
    }

    #[test]
    fn pods_leave_when_their_tolerations_run_out() {
        let unreachable = Taint {
            key: UNREACHABLE.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(0))),
            value: None,
        };
        let for_seconds = |seconds: i64| json!({ "key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
        let after = |seconds| Eviction::After(Duration::from_secs(seconds));
        for (tolerations, now, expected) in [
            (json!([]), 0, Eviction::Now),
            (json!([for_seconds(300)]), 10, after(290)),
            (json!([for_seconds(300)]), 300, Eviction::Now),
            (json!([for_seconds(0)]), 0, Eviction::Now),
            (json!([for_seconds(300), for_seconds(60)]), 0, after(60)),
            (json!([{ "operator": "Exists" }]), 0, Eviction::Never),
            (json!([{ "operator": "Exists" }, for_seconds(60)]), 0, after(60)),
            (json!([{ "key": UNREACHABLE }]), 0, Eviction::Never),
            (json!([{ "key": UNREACHABLE, "operator": "Equal", "value": "x" }]), 0, Eviction::Now),
            (json!([{ "key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule" }]), 0, Eviction::Now),
            (json!([{ "key": "other", "operator": "Exists" }]), 0, Eviction::Now),
        ] {
            let pod = json!({ "spec": { "containers": [], "tolerations": tolerations } });
            let pod = serde_json::from_value(pod).expect("a pod");
            assert_eq!(
                eviction(&pod, std::slice::from_ref(&unreachable), at(now)),
                expected,
                "{tolerations} {now}"
            );
        }
        let soft = Taint { effect: "NoSchedule".into(), ..unreachable };
        assert_eq!(eviction(&Pod::default(), &[soft], at(0)), Eviction::Never);
    }
}
