//! Volumes of containers, on a machine of the test's own.

use crate::support::{BUSYBOX, Outside, Site, TestCluster, eventually, missing_for_containers};

/// Mount points below the cluster's data, as its processes see them.
fn mounts(cluster: &TestCluster) -> Vec<String> {
    let pods = cluster.data_dir().canonicalize().unwrap().join("kubelet/pods");
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", cluster.pid())).unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(pods.to_str().unwrap())).map(str::to_owned).collect()
}

#[test]
fn containers_have_claims_sub_paths_and_memory_and_no_link_leads_out_of_a_volume() {
    if let Some(missing) = missing_for_containers() {
        eprintln!("SKIPPED: volumes of containers: {missing}");
        return;
    }
    let outside = Outside::new();
    let machine = outside.machine(1, None);
    let cluster = TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &[]);
    cluster.ok(&["wait", "--for=condition=ContainerRuntimeReady", "node", "--all", "--timeout=60s"]);
    cluster.load_busybox();
    let claim = serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.apply(&claim.to_string());
    let says = |name: &str, script: &str, mounts: serde_json::Value| serde_json::json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], "volumeMounts": mounts});
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "parts"},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "shared", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
            "initContainers": [says(
                "first",
                "echo kept >/data/note; echo file >/shared/file; /bin/busybox ln -s / /shared/escape; /bin/busybox ln -s ../../.. /shared/up",
                serde_json::json!([{"name": "data", "mountPath": "/data", "subPath": "inner"}, {"name": "shared", "mountPath": "/shared"}]),
            )],
            "containers": [says(
                "main",
                "cat /whole/inner/note; ls /etc-of; ls /up-of; cat /one-file; \
                 echo x 2>/dev/null >/read-only/note || echo refused; \
                 /bin/busybox grep ' /memory ' /proc/mounts; sleep 1000000",
                serde_json::json!([
                    {"name": "data", "mountPath": "/whole"},
                    {"name": "data", "mountPath": "/read-only", "subPath": "inner", "readOnly": true},
                    {"name": "shared", "mountPath": "/etc-of", "subPath": "escape/etc"},
                    {"name": "shared", "mountPath": "/up-of", "subPath": "up/proc"},
                    {"name": "shared", "mountPath": "/one-file", "subPath": "file"},
                    {"name": "memory", "mountPath": "/memory"},
                ]),
            )],
        },
    });
    cluster.apply(&pod.to_string());
    cluster.wait_ready_pod("parts");
    let log = eventually("the container's last line", || {
        let log = cluster.ok(&["logs", "parts"]);
        if log.contains("/memory") { Ok(log) } else { Err(log) }
    });
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..3], ["kept", "file", "refused"], "{log}");
    assert!(lines[3].starts_with("tmpfs /memory tmpfs rw") && lines[3].contains("size=1024k"), "{log}");
    // The memory and five sub paths, the first container's among them.
    assert_eq!(mounts(&cluster).len(), 6, "{:?}", mounts(&cluster));

    cluster.ok(&["delete", "pod", "parts"]);
    eventually("the end of the mounts", || {
        let mounted = mounts(&cluster);
        if mounted.is_empty() { Ok(()) } else { Err(format!("{mounted:?}")) }
    });
    let volume = cluster.ok(&["get", "pv", "-o", "jsonpath={.items[0].spec.local.path}"]);
    assert_eq!(std::fs::read_to_string(format!("{volume}/inner/note")).unwrap(), "kept\n");
    cluster.ok(&["delete", "pvc", "data"]);
    eventually("the end of the data", || {
        if std::path::Path::new(&volume).exists() { Err(volume.clone()) } else { Ok(()) }
    });
}
