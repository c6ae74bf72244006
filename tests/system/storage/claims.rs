//! Claims of the default class.

use crate::support::{COMMAND, HTTP, TestCluster, eventually, get};

/// A claim of the default class.
fn claim(cluster: &TestCluster, name: &str) {
    let claim = serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.apply(&claim.to_string());
}

/// A pod that does something with the claim.
fn pod(cluster: &TestCluster, name: &str, claim: &str, arguments: &[&str]) {
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        "containers": [{"name": "main", "image": COMMAND, "args": arguments,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    cluster.pod(name, &spec.to_string());
}

fn row(cluster: &TestCluster, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["get", "--no-headers"];
    all.extend(arguments);
    cluster.ok(&all).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_claim_is_bound_with_its_first_pod_and_its_data_stays_until_it_is_deleted() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let class = row(&cluster, &["sc"]);
    assert_eq!(
        class[..6],
        ["local-path", "(default)", "wherry.dev/local-path", "Delete", "WaitForFirstConsumer", "false"]
    );

    claim(&cluster, "data");
    eventually("the reason why the claim waits", || {
        let told = cluster.ok(&["describe", "pvc", "data"]);
        if told.contains("waiting for first consumer to be created before binding") {
            Ok(())
        } else {
            Err(told)
        }
    });
    assert_eq!(row(&cluster, &["pvc", "data"])[..3], ["data", "Pending", "local-path"]);

    pod(&cluster, "writer", "data", &["writes", "/data/note", "kept"]);
    cluster.wait_status("writer", "Completed");
    let bound = row(&cluster, &["pvc", "data"]);
    assert_eq!([&bound[1], &bound[3], &bound[4], &bound[5]], ["Bound", "1Gi", "RWO", "local-path"]);
    let volume = bound[2].clone();
    assert!(volume.starts_with("pvc-"), "{volume}");
    let of_volume = row(&cluster, &["pv", &volume]);
    assert_eq!(of_volume[1..7], ["1Gi", "RWO", "Delete", "Bound", "default/data", "local-path"]);
    let events = cluster.ok(&["describe", "pvc", "data"]);
    for reason in ["ExternalProvisioning", "Provisioning ", "ProvisioningSucceeded"] {
        assert!(events.contains(reason), "{reason}: {events}");
    }
    let directory = cluster.ok(&["get", "pv", &volume, "-o", "jsonpath={.spec.local.path}"]);
    assert_eq!(std::fs::read_to_string(format!("{directory}/note")).unwrap(), "kept");

    // Another pod finds the data, also after the first is gone.
    cluster.ok(&["delete", "pod", "writer"]);
    let spec = serde_json::json!({
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}],
        "containers": [{"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    cluster.pod("reader", &spec.to_string());
    cluster.wait_ready_pod("reader");
    assert_eq!(get(cluster.pod_address("reader", 8080), "/file?/data/note"), "kept");

    // A claim in use is only marked; with the pod the claim goes, with the claim the volume, with the volume the data.
    cluster.ok(&["delete", "pvc", "data", "--wait=false"]);
    assert_eq!(row(&cluster, &["pvc", "data"])[1], "Terminating");
    pod(&cluster, "late", "data", &["writes", "/data/late", ""]);
    eventually("the refusal of a later pod", || {
        let events = cluster.pod_events("late");
        if events.contains("persistentvolumeclaim \"data\" is being deleted") { Ok(()) } else { Err(events) }
    });
    cluster.ok(&["delete", "pod", "late"]);
    assert!(std::path::Path::new(&directory).exists());
    cluster.ok(&["delete", "pod", "reader"]);
    eventually("the end of claim, volume and data", || {
        let left = cluster.ok(&["get", "pv,pvc", "-o", "name"]);
        let is_there = std::path::Path::new(&directory).exists();
        if left.is_empty() && !is_there { Ok(()) } else { Err(format!("{left} {is_there}")) }
    });
}

#[test]
fn a_pod_waits_for_its_claim_and_says_why() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    pod(&cluster, "early", "later", &["writes", "/data/note", "x"]);
    eventually("the reason", || {
        let events = cluster.pod_events("early");
        let expected = "0/1 nodes are available: persistentvolumeclaim \"later\" not found.";
        if events.contains(expected) { Ok(()) } else { Err(events) }
    });
    claim(&cluster, "later");
    cluster.wait_status("early", "Completed");

    let immediate = serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "nobody-s"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.apply(&immediate.to_string());
    pod(&cluster, "waits", "nobody-s", &["writes", "/data/note", "x"]);
    eventually("the reason", || {
        let events = cluster.pod_events("waits");
        let expected = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
        if events.contains(expected) { Ok(()) } else { Err(events) }
    });
    eventually("the claim's reason", || {
        let told = cluster.ok(&["describe", "pvc", "nobody-s"]);
        let expected = "no persistent volumes available for this claim and no storage class is set";
        if told.contains(expected) { Ok(()) } else { Err(told) }
    });
}

#[test]
fn an_ephemeral_volume_goes_with_its_pod() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
            "metadata": {"labels": {"kind": "scratch"}},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Mi"}}}}}}],
        "containers": [{"name": "main", "image": COMMAND, "args": ["writes", "/scratch/note", "x"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
    });
    cluster.pod("owner", &spec.to_string());
    cluster.wait_status("owner", "Completed");
    let row = row(&cluster, &["pvc", "-l", "kind=scratch"]);
    assert_eq!([&row[0], &row[1], &row[4]], ["owner-scratch", "Bound", "RWOP"]);
    cluster.ok(&["delete", "pod", "owner"]);
    eventually("the end of claim and volume", || {
        let left = cluster.ok(&["get", "pv,pvc", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
