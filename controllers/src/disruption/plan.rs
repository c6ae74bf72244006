//! How many pods a PodDisruptionBudget lets go.
//!
//! Source: KEP-85; `k8s.io/kubernetes/pkg/controller/disruption`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// How long an evicted pod counts as going before its deletion is seen. Source: `DeletionTimeout`.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// The condition of a budget.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// What decides, beside the budget and its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The pods that the owners of the budget's pods want, all together.
    pub(super) by_owners: i64,
}

/// The status that the budget should have, and when it is to be computed again by itself.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    found: &[Arc<Pod>],
    wanted: Wanted,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let before = budget.status.clone().unwrap_or_default();
    let (going, again) = going(&before, found, now);
    let (expected, desired) = expected_and_desired(budget, found.len(), wanted);
    let healthy = found
        .iter()
        .filter(|pod| {
            pods::is_ready(pod) && !pods::is_terminating(pod) && !going.contains_key(pods::name(pod))
        })
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let number = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(before.conditions.as_deref(), allowed, budget.metadata.generation, now)),
        current_healthy: Some(number(healthy)),
        desired_healthy: Some(number(desired)),
        disrupted_pods: (!going.is_empty()).then_some(going),
        disruptions_allowed: Some(number(allowed)),
        expected_pods: Some(number(expected)),
        observed_generation: budget.metadata.generation,
    };
    (status, again)
}

/// The pods that were evicted and whose deletion is not seen yet.
fn going(
    before: &PodDisruptionBudgetStatus,
    found: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut again: Option<Duration> = None;
    let mut going = BTreeMap::new();
    for (name, since) in before.disrupted_pods.iter().flatten() {
        let is_there = found.iter().any(|pod| pods::name(pod) == name && !pods::is_terminating(pod));
        let age = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        let Some(left) = DELETION_TIMEOUT.checked_sub(age).filter(|_| is_there) else { continue };
        again = Some(again.map_or(left, |again| again.min(left)));
        going.insert(name.clone(), since.clone());
    }
    (going, again)
}

/// How many pods there should be, and how many of them must stay healthy.
fn expected_and_desired(budget: &PodDisruptionBudget, found: usize, wanted: Wanted) -> (i64, i64) {
    let spec = budget.spec.clone().unwrap_or_default();
    let found = i64::try_from(found).unwrap_or(i64::MAX);
    if let Some(unavailable) = &spec.max_unavailable {
        let expected = wanted.by_owners;
        return (expected, (expected - part_of(unavailable, expected)).max(0));
    }
    match &spec.min_available {
        Some(least @ IntOrString::String(_)) => (wanted.by_owners, part_of(least, wanted.by_owners)),
        Some(least) => (found, part_of(least, found)),
        // Neither is set: every pod may go.
        None => (found, 0),
    }
}

/// A number, or a percentage of a whole, rounded up.
fn part_of(value: &IntOrString, whole: i64) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => {
            let percent =
                text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
            whole.saturating_mul(percent).saturating_add(99) / 100
        }
    }
}

fn conditions(
    before: Option<&[Condition]>,
    allowed: i64,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut all = before.unwrap_or_default().to_vec();
    let own = all.iter().find(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let since =
        own.filter(|own| own.status == status).map_or(Time(now), |own| own.last_transition_time.clone());
    all.retain(|condition| condition.type_ != DISRUPTION_ALLOWED);
    all.push(Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: since,
    });
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn some_pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize| {
            let status = if number < ready { "True" } else { "False" };
            let pod = json!({"metadata": {"name": format!("p{number}")},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        (0..ready + unready).map(pod).collect()
    }

    fn zero() -> Value {
        json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
    }

    #[test]
    fn a_budget_lets_go_what_is_healthy_beyond_what_must_stay() {
        // (specification, ready, not ready, wanted by the owners) -> (expected, desired, healthy, allowed)
        for (spec, ready, unready, by_owners, expected) in [
            (json!({"minAvailable": 2}), 3, 0, 3, [3, 2, 3, 1].map(Some)),
            (json!({"minAvailable": 2}), 1, 2, 3, [3, 2, 1, 0].map(Some)),
            (json!({"minAvailable": "50%"}), 3, 0, 5, [5, 3, 3, 0].map(Some)),
            (json!({"maxUnavailable": 1}), 3, 0, 3, [3, 2, 3, 1].map(Some)),
            (json!({"maxUnavailable": "34%"}), 3, 0, 3, [3, 1, 3, 2].map(Some)),
            (json!({"maxUnavailable": 9}), 3, 0, 3, [3, 0, 3, 3].map(Some)),
            (json!({"minAvailable": 1}), 0, 0, 0, [0, 1, 0, 0].map(Some)),
        ] {
            let (status, again) = status(
                &budget(spec.clone(), zero()),
                &some_pods(ready, unready),
                Wanted { by_owners },
                Timestamp::UNIX_EPOCH,
            );
            let got = [
                status.expected_pods,
                status.desired_healthy,
                status.current_healthy,
                status.disruptions_allowed,
            ];
            assert_eq!(got, expected, "{spec}");
            assert_eq!((status.observed_generation, again), (Some(2), None));
        }
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_is_or_the_eviction_came_to_nothing() {
        let mut before = zero();
        before["disruptedPods"] = json!({"p0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"});
        let budget = budget(json!({"minAvailable": 1}), before);
        let at = |seconds: i64| {
            let now = Timestamp::from_second(seconds).unwrap();
            let (status, again) = status(&budget, &some_pods(2, 0), Wanted { by_owners: 2 }, now);
            (status.current_healthy.unwrap(), status.disrupted_pods.map_or(0, |pods| pods.len()), again)
        };
        assert_eq!(at(20), (1, 1, Some(Duration::from_secs(100))));
        assert_eq!(at(121), (2, 0, None));
    }
}
