use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn replica_set(replicas: i32) -> ReplicaSet {
    let mut replica_set: ReplicaSet = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "rs-1", "generation": 3 },
        "spec": { "replicas": replicas, "selector": {}, "template": {
            "metadata": { "labels": { "app": "web" }, "annotations": { "note": "x" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] },
        } },
    }))
    .expect("a replica set");
    if let Some(spec) = &mut replica_set.spec {
        spec.selector = LabelSelector::default();
    }
    replica_set
}

/// A ready, running pod on node `n`, 1000 s old, with fields replaced.
fn pod(name: &str, changes: &Value) -> Arc<Pod> {
    let ago = |seconds: i64| Timestamp::from_second(NOW - seconds).expect("a time").to_string();
    let text = |key: &str, default: &str| changes[key].as_str().unwrap_or(default).to_owned();
    let number = |key: &str, default: i64| changes[key].as_i64().unwrap_or(default);
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "labels": { "app": text("app", "web") },
                "creationTimestamp": ago(number("age", 1000)),
                "annotations": { "controller.kubernetes.io/pod-deletion-cost": text("cost", "0") },
            },
            "spec": { "nodeName": text("node", "n"), "containers": [] },
            "status": {
                "phase": text("phase", "Running"),
                "conditions": [{ "type": "Ready", "status": text("ready", "True"), "lastTransitionTime": ago(number("readyFor", 900)) }],
                "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": number("restarts", 0) }],
            },
        }))
        .expect("a pod"),
    )
}

#[test]
fn missing_pods_are_created_up_to_the_burst() {
    let one = [pod("a", &json!({}))];
    for (replicas, active, expected) in [
        (0, &[][..], Scale::Nothing),
        (3, &[][..], Scale::Create(3)),
        (3, &one[..], Scale::Create(2)),
        (1, &one[..], Scale::Nothing),
        (5000, &[][..], Scale::Create(500)),
        (0, &one[..], Scale::Delete(one.to_vec())),
    ] {
        assert_eq!(plan_scale(&replica_set(replicas), active, active, now()), expected, "{replicas}");
    }
}

#[test]
fn of_two_pods_the_less_useful_one_goes() {
    for (why, goes, stays) in [
        (
            "not assigned",
            json!({ "node": "", "phase": "Pending", "age": 9999 }),
            json!({ "phase": "Pending", "ready": "False" }),
        ),
        ("pending", json!({ "phase": "Pending" }), json!({})),
        ("unknown", json!({ "phase": "Unknown" }), json!({ "ready": "False" })),
        ("not ready", json!({ "ready": "False" }), json!({ "cost": "-5" })),
        ("cheap", json!({ "cost": "-5", "restarts": 0 }), json!({ "restarts": 9 })),
        ("malformed cost is zero", json!({ "cost": "-1" }), json!({ "cost": "+1e" })),
        ("ready for less long", json!({ "readyFor": 10 }), json!({ "readyFor": 900, "restarts": 3 })),
        ("restarted more", json!({ "restarts": 3 }), json!({ "restarts": 1, "age": 5 })),
        ("younger", json!({ "age": 5 }), json!({})),
    ] {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let (goes, stays) = (pod(first, &goes), pod(second, &stays));
            let active = [stays.clone(), goes.clone()];
            let expected = Scale::Delete(vec![goes]);
            assert_eq!(plan_scale(&replica_set(1), &active, &[], now()), expected, "{why}");
        }
    }
}

#[test]
fn pods_on_crowded_nodes_go_first() {
    let (lonely, crowded) =
        (pod("a", &json!({ "node": "n1", "readyFor": 5 })), pod("b", &json!({ "node": "n2" })));
    let sibling = pod("of-another-replica-set", &json!({ "node": "n2" }));
    let active = [lonely, crowded.clone()];
    let related = [active[0].clone(), active[1].clone(), sibling];
    assert_eq!(plan_scale(&replica_set(1), &active, &related, now()), Scale::Delete(vec![crowded]));
}

#[test]
fn ages_of_the_same_magnitude_are_decided_by_uid() {
    let (older, younger) = (pod("a", &json!({ "readyFor": 900 })), pod("b", &json!({ "readyFor": 890 })));
    let active = [younger, older.clone()];
    assert_eq!(plan_scale(&replica_set(1), &active, &[], now()), Scale::Delete(vec![older]));
}

#[test]
fn a_new_pod_is_the_template_with_the_owner() {
    let pod = new_pod(&replica_set(1));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(pod.metadata.annotations, Some([("note".to_owned(), "x".to_owned())].into()));
    let owner = &pod.metadata.owner_references.expect("an owner")[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("ReplicaSet", "rs-1"));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
}

#[test]
fn the_status_counts_pods_and_says_when_the_next_becomes_available() {
    let mut replica_set = replica_set(4);
    if let Some(spec) = &mut replica_set.spec {
        spec.min_ready_seconds = Some(30);
    }
    let active = [
        pod("a", &json!({})),
        pod("b", &json!({ "readyFor": 10 })),
        pod("c", &json!({ "readyFor": 25 })),
        pod("d", &json!({ "ready": "False", "app": "other" })),
    ];
    let (status, next) = plan_status(&replica_set, &active, 2, None, now());
    let summary = (
        status.replicas,
        status.fully_labeled_replicas,
        status.ready_replicas,
        status.available_replicas,
        status.terminating_replicas,
        status.observed_generation,
    );
    assert_eq!(summary, (4, Some(3), Some(3), Some(1), Some(2), Some(3)));
    assert_eq!(next, Some(Duration::from_secs(5)));
}

#[test]
fn a_failure_is_a_condition_until_it_is_over() {
    let mut replica_set = replica_set(1);
    let failure = Failure { reason: "FailedCreate", message: "pods \"x\" is forbidden".into() };
    let (status, _) = plan_status(&replica_set, &[], 0, Some(&failure), now());
    let condition = &status.conditions.as_ref().expect("a condition")[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("ReplicaFailure", Some("FailedCreate"))
    );
    replica_set.status = Some(status.clone());
    let later = Failure { reason: "FailedCreate", message: "another".into() };
    let (unchanged, _) = plan_status(&replica_set, &[], 0, Some(&later), now());
    assert!(is_same_status(&status, &unchanged), "the first failure stays");
    let (over, _) = plan_status(&replica_set, &[], 0, None, now());
    assert_eq!(over.conditions, None);
    assert!(!is_same_status(&status, &over));
}
