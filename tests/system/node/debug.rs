//! `kubectl debug`: a container more in a pod that runs.

use crate::support::{COMMAND, TestCluster, eventually};

#[test]
fn an_ephemeral_container_runs_once_beside_the_others() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "looked-at",
        &serde_json::json!({"containers": [{"name": "main", "image": COMMAND, "args": ["sleeps"]}]})
            .to_string(),
    );
    cluster.wait_ready_pod("looked-at");
    let started = cluster.pod_field("looked-at", ".status.containerStatuses[0].state.running.startedAt");

    cluster.ok(&[
        "debug",
        "looked-at",
        &format!("--image={COMMAND}"),
        "--image-pull-policy=IfNotPresent",
        "--container=looker",
        "--arguments-only",
        "--",
        "exits",
        "3",
    ]);
    let state = ".status.ephemeralContainerStatuses[0].state.terminated.exitCode";
    eventually("the end of the ephemeral container", || match cluster.pod_field("looked-at", state) {
        code if code == "3" => Ok(()),
        other => Err(other + &cluster.ok(&["get", "pod", "looked-at", "-o", "jsonpath={.status}"])),
    });
    assert_eq!(cluster.pod_field("looked-at", ".status.ephemeralContainerStatuses[0].restartCount"), "0");
    // Nothing of it shows in the pod's own state.
    assert_eq!(cluster.pod_status("looked-at"), "Running");
    let again = cluster.pod_field("looked-at", ".status.containerStatuses[0].state.running.startedAt");
    assert_eq!(again, started);
    cluster.wait_events("looked-at", &["Normal Started Started container looker"]);
    let logs = cluster.kubectl(&["logs", "looked-at", "-c", "looker"]);
    assert_eq!(logs.code, 0, "{logs:?}");
    let removed = cluster.kubectl(&[
        "patch",
        "pod",
        "looked-at",
        "--subresource=ephemeralcontainers",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/spec/ephemeralContainers/0"}]"#,
    ]);
    assert!(removed.stderr.contains("may not be removed"), "{removed:?}");
    cluster.ok(&["delete", "pod", "looked-at", "--wait"]);
}
