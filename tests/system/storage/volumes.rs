//! Volumes that an administrator made.

use std::os::unix::fs::PermissionsExt;

use crate::support::{COMMAND, TestCluster, eventually};

fn apply(cluster: &TestCluster, object: &serde_json::Value) {
    cluster.apply(&object.to_string());
}

/// A pod that writes a file into the claim.
fn writer(cluster: &TestCluster, name: &str, claim: &str) {
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        "containers": [{"name": "main", "image": COMMAND, "args": ["writes", "/data/note", "by the guest"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    cluster.pod(name, &spec.to_string());
}

#[test]
fn the_smallest_volume_that_fits_is_bound_and_kept_when_its_claim_is_gone() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let host = tempfile::tempdir().unwrap();
    for (name, size) in [("large", "5Gi"), ("small", "2Gi"), ("tiny", "1Mi")] {
        let path = host.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        apply(
            &cluster,
            &serde_json::json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                    "hostPath": {"path": path}},
            }),
        );
    }
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o755)).unwrap();
    eventually("available volumes", || {
        let phases = cluster.ok(&["get", "pv", "-o", "jsonpath={.items[*].status.phase}"]);
        if phases == "Available Available Available" { Ok(()) } else { Err(phases) }
    });
    let claim = serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand", "resources": {"requests": {"storage": "1Gi"}}},
    });
    apply(&cluster, &claim);
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=30s"]);
    assert_eq!(cluster.ok(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]), "small");
    writer(&cluster, "writer", "data");
    cluster.wait_status("writer", "Completed");
    assert_eq!(std::fs::read_to_string(host.path().join("small/note")).unwrap(), "by the guest");

    cluster.ok(&["delete", "pod", "writer"]);
    cluster.ok(&["delete", "pvc", "data"]);
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Released", "pv/small", "--timeout=30s"]);
    assert!(host.path().join("small/note").exists());
    // A new claim of the same name gets another: the data of the old one is not given away.
    apply(&cluster, &claim);
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=30s"]);
    assert_eq!(cluster.ok(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]), "large");

    // A bound volume is only marked; with it a claim loses its data and says so.
    cluster.ok(&["delete", "pv", "large", "--wait=false"]);
    let table = cluster.ok(&["get", "pv", "large", "--no-headers"]);
    assert!(table.contains("Terminating"), "{table}");
    cluster.ok(&["patch", "pv", "large", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Lost", "pvc/data", "--timeout=30s"]);
    let told = cluster.ok(&["describe", "pvc", "data"]);
    assert!(
        told.contains("Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        "{told}"
    );
}

#[test]
fn a_volume_of_another_node_and_one_of_a_kind_that_is_not_here_are_told_of() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let volume = |name: &str, source: serde_json::Value| {
        let mut volume = serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name},
        });
        for (key, value) in source.as_object().unwrap() {
            volume["spec"][key] = value.clone();
        }
        apply(&cluster, &volume);
        apply(
            &cluster,
            &serde_json::json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}},
            }),
        );
        cluster.ok(&[
            "wait",
            "--for=jsonpath={.status.phase}=Bound",
            &format!("pvc/{name}"),
            "--timeout=30s",
        ]);
        writer(&cluster, name, name);
    };
    let told = |name: &str, expected: &str| {
        eventually(expected, || {
            let events = cluster.pod_events(name);
            if events.contains(expected) { Ok(()) } else { Err(events) }
        });
    };
    let elsewhere = serde_json::json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["another"]}]}]}});
    volume("far", serde_json::json!({"local": {"path": "/somewhere"}, "nodeAffinity": elsewhere}));
    told("far", "0/1 nodes are available: 1 node(s) had volume node affinity conflict.");
    volume("foreign", serde_json::json!({"nfs": {"server": "127.0.0.1", "path": "/"}}));
    told("foreign", "no volume plugin matched");
    let own = cluster.data_dir().join("pki");
    volume("own", serde_json::json!({"hostPath": {"path": own}}));
    told("own", "leads to the cluster's own files");
}
