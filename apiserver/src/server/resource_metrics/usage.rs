//! The use of resources as the difference of two summaries. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// What of a kubelet's summary is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Summary {
    node: Counted,
    pods: Vec<Pod>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    pod_ref: Reference,
    containers: Vec<Counted>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: String,
    namespace: String,
    uid: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Counted {
    name: String,
    start_time: Option<Timestamp>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

/// Use at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Billionths of a core.
    pub(super) cpu_nanocores: u64,
    /// The working set.
    pub(super) memory_bytes: u64,
}

/// Use of a pod's containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodUsage {
    /// When the second look was.
    pub(super) at_seconds: i64,
    /// Time between the two looks.
    pub(super) window_nanoseconds: u64,
    /// By name.
    pub(super) containers: BTreeMap<String, Used>,
}

/// Use of a node and its pods, by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeUsage {
    pub(super) at_seconds: i64,
    pub(super) window_nanoseconds: u64,
    pub(super) total: Option<Used>,
    pub(super) pods: BTreeMap<(String, String), PodUsage>,
}

/// Use between two looks, and the time between them; `None` where one of them says nothing, or where the counter belongs
/// to something that started in between.
fn between(first: &Counted, second: &Counted) -> Option<(Used, Timestamp, u64)> {
    let (a, b) = (first.cpu?, second.cpu?);
    let (used_a, used_b) = (a.usage_core_nano_seconds?, b.usage_core_nano_seconds?);
    let window = u64::try_from(b.time.as_nanosecond() - a.time.as_nanosecond()).ok().filter(|w| *w > 0)?;
    if used_b < used_a || first.start_time != second.start_time {
        return None;
    }
    let nanocores = u128::from(used_b - used_a) * 1_000_000_000 / u128::from(window);
    let used = Used {
        cpu_nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX),
        memory_bytes: second.memory?.working_set_bytes?,
    };
    Some((used, b.time, window))
}

/// The use between two summaries of one node. A pod counts when all of its containers do.
pub(super) fn usage(first: &Summary, second: &Summary) -> NodeUsage {
    let total = between(&first.node, &second.node);
    let before: BTreeMap<&str, &Pod> = first.pods.iter().map(|pod| (pod.pod_ref.uid.as_str(), pod)).collect();
    let pods = second
        .pods
        .iter()
        .filter_map(|pod| {
            let earlier = before.get(pod.pod_ref.uid.as_str())?;
            let mut found = PodUsage::default();
            for container in &pod.containers {
                let known = earlier.containers.iter().find(|known| known.name == container.name)?;
                let (used, at, window) = between(known, container)?;
                found.at_seconds = at.as_second();
                found.window_nanoseconds = window;
                found.containers.insert(container.name.clone(), used);
            }
            let key = (pod.pod_ref.namespace.clone(), pod.pod_ref.name.clone());
            (!found.containers.is_empty()).then_some((key, found))
        })
        .collect();
    NodeUsage {
        at_seconds: total.map_or(0, |(_, at, _)| at.as_second()),
        window_nanoseconds: total.map_or(0, |(_, _, window)| window),
        total: total.map(|(used, _, _)| used),
        pods,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(second: i64, used: u64, start: &str) -> Summary {
        let time = Timestamp::from_second(second).unwrap().to_string();
        let cpu = json!({"time": time, "usageNanoCores": 7, "usageCoreNanoSeconds": used});
        let memory = json!({"time": time, "workingSetBytes": 4096, "usageBytes": 9000});
        serde_json::from_value(json!({
            "node": {"nodeName": "n1", "cpu": cpu, "memory": memory, "fs": {"time": time}},
            "pods": [{"podRef": {"name": "p", "namespace": "n", "uid": "u"}, "containers": [
                {"name": "c", "startTime": start, "cpu": cpu, "memory": memory}]}],
        }))
        .unwrap()
    }

    #[test]
    fn two_looks_tell_the_use() {
        let start = "2026-01-01T00:00:00Z";
        let found = usage(&summary(100, 1_000_000_000, start), &summary(102, 2_000_000_000, start));
        let used = Used { cpu_nanocores: 500_000_000, memory_bytes: 4096 };
        assert_eq!(
            (found.total, found.at_seconds, found.window_nanoseconds),
            (Some(used), 102, 2_000_000_000)
        );
        let pod = &found.pods[&("n".to_owned(), "p".to_owned())];
        assert_eq!(pod.containers["c"], used);
    }

    #[test]
    fn what_started_between_the_looks_is_not_known_yet() {
        let first = summary(100, 1_000_000_000, "2026-01-01T00:00:00Z");
        let second = summary(102, 2_000_000_000, "2026-01-02T00:00:00Z");
        assert!(usage(&first, &second).pods.is_empty());
        let back = summary(102, 1, "2026-01-01T00:00:00Z");
        assert_eq!(usage(&first, &back), NodeUsage::default());
        assert_eq!(usage(&Summary::default(), &first).pods.len(), 0);
        assert_eq!(usage(&first, &first).total, None);
    }
}
