use serde_json::{Value, json};

use super::super::template::template_hash;
use super::*;

const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

/// A deployment of image `new` with some fields of its spec replaced.
fn deployment(replicas: i32, spec: &Value) -> Deployment {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "d", "generation": 2 },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "template": template("new"),
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } } },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("a deployment")
}

/// A replica set of this image with so many wanted, existing and available pods, last scaled for a deployment of
/// `desired`.
fn set(image: &str, revision: i32, sizes: (i32, i32, i32), desired: (i32, i32)) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": { "name": format!("web-{image}"), "namespace": "shop", "uid": image, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{revision:02}Z"),
            "annotations": { "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": desired.0.to_string(),
                "deployment.kubernetes.io/max-replicas": desired.1.to_string() } },
        "spec": { "replicas": sizes.0, "selector": {}, "template": template(image) },
        "status": { "replicas": sizes.1, "readyReplicas": sizes.2, "availableReplicas": sizes.2, "observedGeneration": 1 },
    }))
    .expect("a replica set")
}

fn plan_of(deployment: &Deployment, sets: &[ReplicaSet]) -> Plan {
    let (replica_sets, running_pods_of) = (sets.to_vec(), Vec::new());
    plan(Observed { deployment, replica_sets, running_pods_of, now: now() })
}

/// The names and new sizes of what is resized.
fn resized(plan: &Plan) -> Vec<(String, i32)> {
    let name = |set: &ReplicaSet| set.metadata.name.clone().unwrap_or_default();
    let scaled = plan.update.iter().filter(|update| update.scaled_from.is_some());
    scaled.map(|update| (name(&update.replica_set), size(&update.replica_set))).collect()
}

fn sizes(expected: &[(&str, i32)]) -> Vec<(String, i32)> {
    expected.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

fn condition<'a>(plan: &'a Plan, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = conditions::get(&plan.status, type_)?;
    Some((&condition.status, condition.reason.as_deref()?, condition.message.as_deref()?))
}

#[test]
fn a_new_deployment_gets_a_replica_set_of_its_whole_size() {
    let deployment = deployment(3, &json!({ "minReadySeconds": 5 }));
    let plan = plan_of(&deployment, &[]);
    let set = plan.create.as_ref().expect("it is created");
    let spec = deployment.spec.as_ref().expect("a spec");
    let hash = template_hash(&spec.template, None);
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(json!(set.metadata.labels), json!({ "app": "web", "pod-template-hash": hash }));
    assert_eq!(
        json!(set.spec.as_ref().map(|spec| &spec.selector)),
        json!({ "matchLabels": { "app": "web", "pod-template-hash": hash } })
    );
    assert_eq!(
        json!(set.metadata.annotations),
        json!({
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        })
    );
    assert_eq!((size(set), set.spec.as_ref().and_then(|spec| spec.min_ready_seconds)), (3, Some(5)));
    let owner = &set.metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!(
        (owner.kind.as_str(), owner.api_version.as_str(), owner.controller),
        ("Deployment", "apps/v1", Some(true))
    );
    assert_eq!(plan.revision.as_deref(), Some("1"));
    let created = format!("Created new replica set \"web-{hash}\"");
    assert_eq!(condition(&plan, "Progressing"), Some(("True", "NewReplicaSetCreated", created.as_str())));
    assert_eq!(
        condition(&plan, "Available"),
        Some(("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."))
    );
    assert_eq!((plan.status.unavailable_replicas, plan.status.observed_generation), (Some(3), Some(2)));
}

#[test]
fn a_rolling_update_goes_up_within_the_surge_and_down_within_availability() {
    for (why, replicas, rolling, old, new, expected) in [
        ("up first", 4, ("25%", "25%"), (4, 4, 4), (0, 0, 0), &[("web-new", 1)][..]),
        ("down by what may be missing", 4, ("25%", "25%"), (4, 4, 4), (1, 1, 0), &[("web-old", 3)]),
        ("then up again", 4, ("25%", "25%"), (3, 3, 3), (1, 1, 0), &[("web-new", 2)]),
        ("not down while the new are not available", 4, ("25%", "25%"), (3, 3, 3), (2, 2, 0), &[]),
        ("down when they are", 4, ("25%", "25%"), (3, 3, 3), (2, 2, 1), &[("web-old", 2)]),
        ("never fewer than wanted", 3, ("1", "0"), (3, 3, 3), (1, 1, 0), &[]),
        ("unhealthy old ones go at once", 3, ("1", "1"), (3, 3, 1), (1, 1, 0), &[("web-old", 2)]),
        ("all at once", 3, ("100%", "0"), (3, 3, 3), (0, 0, 0), &[("web-new", 3)]),
        ("no surge: down first", 3, ("0", "1"), (3, 3, 3), (0, 0, 0), &[("web-old", 2)]),
        ("the last step", 4, ("25%", "25%"), (1, 1, 1), (4, 4, 4), &[("web-old", 0)]),
        ("a new one that is too large", 4, ("25%", "25%"), (0, 0, 0), (6, 6, 6), &[("web-new", 4)]),
    ] {
        let value = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
        let strategy = json!({ "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": value(rolling.0), "maxUnavailable": value(rolling.1) } });
        let deployment = deployment(replicas, &json!({ "strategy": strategy }));
        let noted = (replicas, replicas + max_surge(&deployment));
        let sets = [set("old", 1, old, noted), set("new", 2, new, noted)];
        assert_eq!(resized(&plan_of(&deployment, &sets)), sizes(expected), "{why}");
    }
}

#[test]
fn a_change_of_size_is_spread_over_the_sets_in_proportion() {
    for (why, replicas, old, new, noted, expected) in [
        ("one set takes all", 5, (0, 0, 0), (3, 3, 3), (3, 4), &[("web-new", 5)][..]),
        ("up", 10, (4, 4, 4), (2, 2, 1), (5, 6), &[("web-old", 8), ("web-new", 4)]),
        ("down", 5, (8, 8, 8), (4, 4, 2), (10, 12), &[("web-old", 4), ("web-new", 2)]),
        ("to nothing", 0, (4, 4, 4), (2, 2, 1), (5, 6), &[("web-old", 0), ("web-new", 0)]),
    ] {
        let strategy =
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "20%", "maxUnavailable": 0 } });
        let deployment = deployment(replicas, &json!({ "strategy": strategy }));
        let sets = [set("old", 1, old, noted), set("new", 2, new, noted)];
        let plan = plan_of(&deployment, &sets);
        assert_eq!(resized(&plan), sizes(expected), "{why}");
        let desired = plan.update.iter().map(|update| desired_replicas(&update.replica_set));
        assert!(desired.into_iter().all(|noted| noted == Some(replicas)), "{why}: the new size is noted");
    }
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let sets = [set("old", 1, (3, 3, 3), (3, 4))];
    let plan_paused = plan_of(&deployment(5, &json!({ "paused": true })), &sets);
    assert_eq!(resized(&plan_paused), sizes(&[("web-old", 5)]));
    assert_eq!(plan_paused.create, None);
    assert_eq!(
        condition(&plan_paused, "Progressing"),
        Some(("Unknown", "DeploymentPaused", "Deployment is paused"))
    );
    let mut resumed = deployment(3, &json!({}));
    resumed.status = Some(plan_paused.status);
    let plan_resumed = plan_of(&resumed, &sets);
    assert!(plan_resumed.create.is_some());
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let deployment = deployment(3, &json!({ "strategy": { "type": "Recreate" } }));
    let with_pods = |sets: &[ReplicaSet], pods: &[&str]| {
        let running_pods_of = pods.iter().map(|uid| (*uid).to_owned()).collect();
        plan(Observed { deployment: &deployment, replica_sets: sets.to_vec(), running_pods_of, now: now() })
    };
    let down = with_pods(&[set("old", 1, (3, 3, 3), (3, 3))], &["old", "old", "old"]);
    assert_eq!((resized(&down), down.create), (sizes(&[("web-old", 0)]), None));
    let terminating = with_pods(&[set("old", 1, (0, 0, 0), (3, 3))], &["old"]);
    assert_eq!((resized(&terminating), terminating.create), (vec![], None));
    let gone = with_pods(&[set("old", 1, (0, 0, 0), (3, 3))], &[]);
    assert_eq!(gone.create.as_ref().map(size), Some(3));
}

#[test]
fn a_rollback_gives_the_old_template_the_newest_revision() {
    let deployment = deployment(3, &json!({}));
    let sets = [set("new", 1, (0, 0, 0), (3, 4)), set("other", 2, (3, 3, 3), (3, 4))];
    let plan = plan_of(&deployment, &sets);
    assert_eq!(plan.create, None);
    assert_eq!(plan.revision.as_deref(), Some("3"));
    let rolled_back = &plan.update[0].replica_set;
    let annotations = rolled_back.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations.get("deployment.kubernetes.io/revision-history").map(String::as_str), Some("1"));
    assert_eq!(size(rolled_back), 1);
}

#[test]
fn a_complete_deployment_says_so_and_drops_revisions_beyond_the_limit() {
    let deployment = deployment(2, &json!({ "revisionHistoryLimit": 1 }));
    let sets = [
        set("a", 1, (0, 0, 0), (2, 3)),
        set("b", 2, (0, 0, 0), (2, 3)),
        set("c", 3, (0, 0, 0), (2, 3)),
        set("new", 4, (2, 2, 2), (2, 3)),
    ];
    let plan = plan_of(&deployment, &sets);
    let deleted: Vec<_> = plan.delete.iter().filter_map(|set| set.metadata.name.as_deref()).collect();
    assert_eq!(deleted, ["web-a", "web-b"]);
    let done = ("True", "NewReplicaSetAvailable", "ReplicaSet \"web-new\" has successfully progressed.");
    assert_eq!(condition(&plan, "Progressing"), Some(done));
    let available = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    assert_eq!(condition(&plan, "Available"), Some(available));
    assert_eq!(plan.again_after, None);
    // And then there is nothing more to do.
    let mut settled = deployment.clone();
    settled.status = Some(plan.status.clone());
    settled.metadata.annotations = Some([(annotations::REVISION.to_owned(), "4".to_owned())].into());
    let again = plan_of(&settled, &sets[2..]);
    assert_eq!((again.update, again.delete, again.revision), (vec![], vec![], None));
    assert_eq!(again.status, plan.status);
}

#[test]
fn progress_moves_the_deadline_and_its_absence_ends_it() {
    let progressing = |seconds_ago: i64, reason: &str, ready: i32| {
        let since = Timestamp::from_second(NOW - seconds_ago).expect("a time").to_string();
        json!({ "replicas": 3, "updatedReplicas": 3, "readyReplicas": ready, "availableReplicas": ready,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": reason, "message": "m",
                "lastUpdateTime": since, "lastTransitionTime": since }] })
    };
    for (why, status, expected, again) in [
        ("one more is ready", progressing(100, "ReplicaSetUpdated", 0), "ReplicaSetUpdated", Some(601)),
        ("nothing new yet", progressing(100, "ReplicaSetUpdated", 1), "ReplicaSetUpdated", Some(501)),
        ("for too long", progressing(601, "ReplicaSetUpdated", 1), "ProgressDeadlineExceeded", None),
        (
            "it had been complete",
            progressing(9999, "NewReplicaSetAvailable", 1),
            "NewReplicaSetAvailable",
            None,
        ),
    ] {
        let mut deployment = deployment(3, &json!({}));
        deployment.status = serde_json::from_value(status).ok();
        let plan = plan_of(&deployment, &[set("new", 1, (3, 3, 1), (3, 4))]);
        assert_eq!(condition(&plan, "Progressing").map(|condition| condition.1), Some(expected), "{why}");
        assert_eq!(plan.again_after, again.map(Duration::from_secs), "{why}");
    }
    let mut forever = deployment(3, &json!({ "progressDeadlineSeconds": i32::MAX }));
    forever.status = serde_json::from_value(progressing(9999, "ReplicaSetUpdated", 1)).ok();
    assert_eq!(condition(&plan_of(&forever, &[set("new", 1, (3, 3, 1), (3, 4))]), "Progressing"), None);
}

#[test]
fn the_failure_of_a_replica_set_is_the_deployments_too() {
    let mut failing = set("new", 1, (3, 0, 0), (3, 4));
    if let Some(status) = &mut failing.status {
        status.conditions = serde_json::from_value(json!([
            { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota" },
        ]))
        .ok();
    }
    let mut deployment = deployment(3, &json!({}));
    let plan = plan_of(&deployment, &[failing]);
    assert_eq!(condition(&plan, "ReplicaFailure"), Some(("True", "FailedCreate", "exceeded quota")));
    deployment.status = Some(plan.status);
    let over = plan_of(&deployment, &[set("new", 1, (3, 3, 0), (3, 4))]);
    assert_eq!(condition(&over, "ReplicaFailure"), None);
}

#[test]
fn a_deployment_that_is_being_deleted_only_counts() {
    let mut deployment = deployment(3, &json!({}));
    deployment.metadata.deletion_timestamp = Some(Time(now()));
    let plan = plan_of(&deployment, &[set("old", 1, (3, 3, 3), (3, 4))]);
    assert_eq!((plan.create, plan.update, plan.status.ready_replicas), (None, vec![], Some(3)));
}
