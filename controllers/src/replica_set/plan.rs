//! What a ReplicaSet needs: pods to create, pods to delete, its status.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use wherry_client::object_ref::controller_ref;

use crate::availability::{Availability, availability};
use crate::pods;

/// How many pods are created or deleted in one go, as in Kubernetes.
pub(super) const BURST: usize = 500;

/// How the number of pods is to change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    /// As many as there should be.
    Nothing,
    /// So many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Arc<Pod>>),
}

/// How many replicas are wanted.
pub(super) fn desired_replicas(replica_set: &ReplicaSet) -> usize {
    let replicas = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

/// Compares the wanted number with the active pods. `related` are the active pods of all replica sets of the same owner:
/// nodes with many of them give theirs up first.
pub(super) fn plan_scale(
    replica_set: &ReplicaSet,
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    now: Timestamp,
) -> Scale {
    let desired = desired_replicas(replica_set);
    match active.len().cmp(&desired) {
        Ordering::Equal => Scale::Nothing,
        Ordering::Less => Scale::Create((desired - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - desired).min(BURST);
            Scale::Delete(pods_to_delete(active, related, surplus, now))
        }
    }
}

fn pods_to_delete(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| !pods::node_name(pod).is_empty()) {
        *on_node.entry(pods::node_name(pod)).or_default() += 1;
    }
    let mut candidates: Vec<_> = active.to_vec();
    candidates.sort_by(|a, b| deletion_order(a, b, &on_node, now));
    candidates.truncate(count);
    candidates
}

/// Which of two pods goes first: kube-controller-manager's `ActivePodsWithRanks`.
fn deletion_order(a: &Pod, b: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let is_assigned = |pod: &Pod| !pods::node_name(pod).is_empty();
    let rank = |pod: &Pod| on_node.get(pods::node_name(pod)).copied().unwrap_or_default();
    is_assigned(a)
        .cmp(&is_assigned(b))
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| match (pods::is_ready(a), pods::is_ready(b)) {
            (true, true) => younger_first(a, b, pods::ready_since(a), pods::ready_since(b), now),
            _ => Ordering::Equal,
        })
        .then_with(|| compare_restarts(a, b))
        .then_with(|| younger_first(a, b, created(a), created(b), now))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

/// The annotation `controller.kubernetes.io/pod-deletion-cost`; malformed ones count as zero.
fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost =
        annotations.and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.filter(|cost| *cost == "0" || !cost.trim_start_matches('-').starts_with(['0', '+']))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or_default()
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Without a time first, then the younger; ages of about the same magnitude (powers of two) count as equal, so that the
/// choice among them is random (by uid), and old pods are not always spared.
fn younger_first(
    a: &Pod,
    b: &Pod,
    a_since: Option<Timestamp>,
    b_since: Option<Timestamp>,
    now: Timestamp,
) -> Ordering {
    match (a_since, b_since) {
        (a_since, b_since) if a_since == b_since => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a_since), Some(b_since)) => age_magnitude(a_since, now)
            .cmp(&age_magnitude(b_since, now))
            .then_with(|| pods::uid(a).cmp(pods::uid(b))),
    }
}

fn age_magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

/// The one whose containers restarted more goes first; running sidecars count when the containers are equal.
fn compare_restarts(a: &Pod, b: &Pod) -> Ordering {
    let restarts = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let init = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
        let most = |statuses: Option<&Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
            statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or_default()
        };
        (most(statuses), most(init))
    };
    restarts(b).cmp(&restarts(a))
}

/// A pod of this replica set, to be created.
pub(super) fn new_pod(replica_set: &ReplicaSet) -> Pod {
    let template = replica_set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let template_metadata = template.metadata.unwrap_or_default();
    let name = replica_set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: replica_set.metadata.namespace.clone(),
            labels: template_metadata.labels,
            annotations: template_metadata.annotations,
            finalizers: template_metadata.finalizers,
            owner_references: Some(vec![controller_ref(replica_set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// What became of the attempt to scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(super) reason: &'static str,
    /// What the API server said.
    pub(super) message: String,
}

/// The status that the pods add up to, and when it will change by time alone.
pub(super) fn plan_status(
    replica_set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = replica_set.spec.as_ref();
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|metadata| metadata.labels.as_ref());
    let min_ready_seconds = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
    let (mut fully_labeled, mut ready, mut available, mut next) = (0, 0, 0, None::<Duration>);
    for pod in active {
        let has = |(key, value): (&String, &String)| {
            pod.metadata.labels.as_ref().is_some_and(|labels| labels.get(key) == Some(value))
        };
        fully_labeled += usize::from(template_labels.into_iter().flatten().all(has));
        match availability(pod, min_ready_seconds, now) {
            Availability::NotReady => {}
            Availability::Available => {
                ready += 1;
                available += 1;
            }
            Availability::After(left) => {
                ready += 1;
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
    }
    let old = replica_set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(fully_labeled)),
        ready_replicas: Some(count(ready)),
        available_replicas: Some(count(available)),
        terminating_replicas: Some(count(terminating)),
        observed_generation: replica_set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
    };
    (status, next)
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let is_set = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some(failure) if !is_set => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// Whether two statuses say the same; absent counts are zero.
pub(super) fn is_same_status(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let counts = |status: &ReplicaSetStatus| {
        [
            Some(status.replicas),
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.terminating_replicas,
        ]
        .map(Option::unwrap_or_default)
    };
    counts(a) == counts(b)
        && a.observed_generation == b.observed_generation
        && a.conditions.as_deref().unwrap_or_default() == b.conditions.as_deref().unwrap_or_default()
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
