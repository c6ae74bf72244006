//! What a pod asks for must be left on its node; nodes with more left are better.

use std::borrow::Cow;

use crate::framework::{ClusterEvent, Filter, MAX_NODE_SCORE, Score, Verdict};
use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::snapshot::{NodeInfo, Snapshot};

/// Resource requests, with the strategy LeastAllocated.
#[derive(Debug)]
pub struct NodeResourcesFit;

/// Which resources of the pod are more than what is left, of how much in all.
fn insufficient(pod: &Resources, used: &Resources, all: &Resources) -> Vec<(Cow<'static, str>, bool)> {
    let mut found = Vec::new();
    let mut check = |reason: fn() -> Cow<'static, str>, wanted: i64, used: i64, all: i64| {
        if wanted > 0 && wanted > all - used {
            found.push((reason(), wanted > all));
        }
    };
    check(|| "Insufficient cpu".into(), pod.cpu_millicores, used.cpu_millicores, all.cpu_millicores);
    check(|| "Insufficient memory".into(), pod.memory_bytes, used.memory_bytes, all.memory_bytes);
    check(
        || "Insufficient ephemeral-storage".into(),
        pod.ephemeral_storage_bytes,
        used.ephemeral_storage_bytes,
        all.ephemeral_storage_bytes,
    );
    for (name, wanted) in &pod.scalars {
        if *wanted > 0 && *wanted > all.scalar(name) - used.scalar(name) {
            found.push((format!("Insufficient {name}").into(), *wanted > all.scalar(name)));
        }
    }
    found
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _cluster: &Snapshot) -> Verdict {
        let mut reasons = Vec::new();
        if node.pod_count + 1 > node.allocatable_pods {
            reasons.push(Cow::Borrowed("Too many pods"));
        }
        let insufficient = insufficient(&pod.requests, &node.requested, &node.allocatable);
        // More than the node has at all: that no other pod is there would not help.
        let is_unresolvable = insufficient.iter().any(|(_, more_than_all)| *more_than_all);
        reasons.extend(insufficient.into_iter().map(|(reason, _)| reason));
        match (reasons.is_empty(), is_unresolvable) {
            (true, _) => Verdict::Feasible,
            (false, false) => Verdict::Unschedulable(reasons),
            (false, true) => Verdict::UnschedulableAndUnresolvable(reasons),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated(node) => {
                insufficient(&pod.requests, &Resources::default(), &node.allocatable).is_empty()
            }
            // It was one pod less, at any rate, and perhaps what it had is enough.
            ClusterEvent::AssignedPodGone(_) => true,
            ClusterEvent::VolumesChanged => false,
        }
    }
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _snapshot: &Snapshot) -> i64 {
        let shares = [
            free_share(
                node.weight.cpu_millicores + pod.weight.cpu_millicores,
                node.allocatable.cpu_millicores,
            ),
            free_share(node.weight.memory_bytes + pod.weight.memory_bytes, node.allocatable.memory_bytes),
        ];
        // What a node does not have does not count.
        let (sum, count) =
            shares.into_iter().flatten().fold((0, 0), |(sum, count), share| (sum + share, count + 1));
        if count == 0 { 0 } else { sum / count }
    }
}

/// How much of all is free, in hundredths; `None` if there is none at all.
fn free_share(used: i64, all: i64) -> Option<i64> {
    match all {
        ..=0 => None,
        _ if used > all => Some(0),
        _ => {
            let share = i128::from(all - used) * i128::from(MAX_NODE_SCORE) / i128::from(all);
            Some(i64::try_from(share).unwrap_or(MAX_NODE_SCORE))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_share_is_in_hundredths() {
        for (used, all, expected) in [
            (0, 4000, Some(100)),
            (1000, 4000, Some(75)),
            (4000, 4000, Some(0)),
            (5000, 4000, Some(0)),
            (1, 0, None),
        ] {
            assert_eq!(free_share(used, all), expected, "{used} of {all}");
        }
        assert_eq!(free_share(1 << 61, 1 << 62), Some(50), "a large number does not overflow");
    }

    #[test]
    fn what_is_not_asked_for_cannot_be_missing() {
        let used = Resources { cpu_millicores: 9, memory_bytes: 9, ..Resources::default() };
        let all = Resources { cpu_millicores: 4, memory_bytes: 10, ..Resources::default() };
        let wanted = Resources {
            memory_bytes: 2,
            scalars: [("example.com/a".to_owned(), 1), ("example.com/b".to_owned(), 0)].into(),
            ..Resources::default()
        };
        let found = insufficient(&wanted, &used, &all);
        assert_eq!(
            found,
            [("Insufficient memory".into(), false), ("Insufficient example.com/a".into(), true)]
        );
    }
}
