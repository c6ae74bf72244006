//! The annotations by which Deployment and ReplicaSets know of each other: revision, history, sizes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::strategy::{max_surge, replicas};

/// The revision of a template.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a template had before a rollback made it the newest again.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the replica set was last scaled.
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The deployment's size with surge when the replica set was last scaled.
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The longest revision history, in bytes.
const HISTORY_BYTES: usize = 2000;

/// Annotations that a replica set has for itself.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

fn annotation<'a>(replica_set: &'a ReplicaSet, name: &str) -> Option<&'a String> {
    replica_set.metadata.annotations.as_ref()?.get(name)
}

/// The revision of a replica set; zero when it has none.
pub(super) fn revision(replica_set: &ReplicaSet) -> i64 {
    annotation(replica_set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// The deployment's size that the replica set was last scaled for.
pub(super) fn desired_replicas(replica_set: &ReplicaSet) -> Option<i32> {
    annotation(replica_set, DESIRED_REPLICAS)?.parse().ok()
}

/// The deployment's size with surge that the replica set was last scaled for.
pub(super) fn max_replicas(replica_set: &ReplicaSet) -> Option<i32> {
    annotation(replica_set, MAX_REPLICAS)?.parse().ok()
}

/// Notes the deployment's present size; whether that changed anything.
pub(super) fn set_replicas(deployment: &Deployment, replica_set: &mut ReplicaSet) -> bool {
    let desired = replicas(deployment);
    let annotations = replica_set.metadata.annotations.get_or_insert_default();
    let sizes = [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, desired.saturating_add(max_surge(deployment)))];
    let mut changed = false;
    for (name, size) in sizes {
        changed |= set(annotations, name, size.to_string());
    }
    changed
}

/// Copies the deployment's annotations to its newest replica set and gives it `revision`, unless it has a later one
/// already; whether that changed anything.
pub(super) fn set_for_newest(
    deployment: &Deployment,
    replica_set: &mut ReplicaSet,
    new_revision: i64,
) -> bool {
    let annotations = replica_set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&name.as_str()) {
            changed |= set(annotations, name, value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_revision = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody else's business.
            Err(_) => return false,
        },
    };
    if old_revision < new_revision {
        annotations.insert(REVISION.to_owned(), new_revision.to_string());
        changed = true;
        if let Some(old) = old {
            let history = annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
            let history = appended_history(history, &old);
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    changed
}

/// The history with `old` at its end; the oldest revisions go when it becomes too long.
fn appended_history(history: &str, old: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(old);
    while revisions.len() > 1 && revisions.join(",").len() > HISTORY_BYTES {
        revisions.remove(0);
    }
    revisions.join(",")
}

fn set(annotations: &mut BTreeMap<String, String>, name: &str, value: String) -> bool {
    if annotations.get(name) == Some(&value) {
        return false;
    }
    annotations.insert(name.to_owned(), value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "annotations": {
                "kubernetes.io/change-cause": "new image", "deployment.kubernetes.io/revision": "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            } },
            "spec": { "replicas": 4, "selector": {}, "template": {} },
        }))
        .expect("valid")
    }

    #[test]
    fn the_newest_replica_set_gets_the_deployments_annotations_and_a_revision() {
        let mut replica_set = ReplicaSet::default();
        assert!(set_for_newest(&deployment(), &mut replica_set, 2));
        let expected =
            [("deployment.kubernetes.io/revision", "2"), ("kubernetes.io/change-cause", "new image")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(replica_set.metadata.annotations, Some(expected.into()));
        assert!(!set_for_newest(&deployment(), &mut replica_set, 2), "nothing is left to change");
        assert!(!set_for_newest(&deployment(), &mut replica_set, 1), "revisions do not go back");
    }

    #[test]
    fn a_rollback_remembers_the_former_revisions() {
        let mut replica_set = ReplicaSet::default();
        for revision in [1, 4, 9] {
            set_for_newest(&deployment(), &mut replica_set, revision);
        }
        let annotations = replica_set.metadata.annotations.expect("annotations");
        assert_eq!(annotations.get(REVISION_HISTORY).map(String::as_str), Some("1,4"));
        assert_eq!(annotations.get(REVISION).map(String::as_str), Some("9"));
    }

    #[test]
    fn a_long_history_loses_its_beginning() {
        let long = (1000..1600).map(|number: i32| number.to_string()).collect::<Vec<_>>().join(",");
        let appended = appended_history(&long, "1600");
        assert!(
            appended.len() <= HISTORY_BYTES && appended.ends_with(",1600") && !appended.starts_with("1000")
        );
    }
}
