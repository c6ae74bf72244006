//! Init containers.

use crate::support::{COMMAND, HTTP, TestCluster, eventually, get};

#[test]
fn init_containers_run_one_after_the_other_before_the_pod_serves() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "prepared",
        &serde_json::json!({
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": [
                {"name": "first", "image": COMMAND, "args": ["writes", "/shared/file", "from the first"],
                 "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
                {"name": "second", "image": COMMAND, "args": ["reads", "/shared/file"],
                 "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
            ],
            "containers": [
                {"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}],
                 "volumeMounts": [{"name": "shared", "mountPath": "/shared", "readOnly": true}]},
            ],
        })
        .to_string(),
    );
    cluster.wait_ready_pod("prepared");
    assert_eq!(get(cluster.pod_address("prepared", 8080), "/file?/shared/file"), "from the first");
    assert_eq!(cluster.ok(&["logs", "prepared", "-c", "second"]), "/shared/file: from the first\n");
    let states = cluster.pod_field("prepared", ".status.initContainerStatuses[*].state.terminated.reason");
    assert_eq!(states, "Completed Completed");
    let conditions = "jsonpath={range .status.conditions[*]}{.type}={.status} {end}";
    let conditions = cluster.ok(&["get", "pod", "prepared", "-o", conditions]);
    for condition in ["Initialized=True", "ContainersReady=True", "Ready=True", "PodScheduled=True"] {
        assert!(conditions.contains(condition), "{conditions}");
    }
}

#[test]
fn a_failing_init_container_is_tried_again_or_ends_the_pod() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let spec = |policy: &str, arguments: serde_json::Value| {
        serde_json::json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "setup", "image": COMMAND, "args": arguments}],
            "containers": [{"name": "main", "image": COMMAND, "args": ["sleeps"]}],
        })
        .to_string()
    };
    cluster.pod("retried", &spec("Always", serde_json::json!(["exits", "4"])));
    cluster.pod("given-up", &spec("Never", serde_json::json!(["exits", "5"])));
    cluster.pod("stuck", &spec("Always", serde_json::json!(["sleeps"])));
    cluster.wait_status("stuck", "Init:0/1");
    cluster.wait_status("given-up", "Init:Error");
    assert_eq!(cluster.pod_field("given-up", ".status.phase"), "Failed");
    cluster.wait_status("retried", "Init:CrashLoopBackOff");
    assert_eq!(cluster.pod_field("retried", ".status.phase"), "Pending");
    cluster.wait_events(
        "retried",
        &["Warning BackOff Back-off restarting failed container setup in pod retried_default("],
    );
    let last = cluster.pod_field("retried", ".status.initContainerStatuses[0].lastState.terminated.exitCode");
    assert_eq!(last, "4");
    let main = cluster.pod_field("retried", ".status.containerStatuses[0].state.waiting.reason");
    assert_eq!(main, "PodInitializing");
}

#[test]
fn restart_policy_on_failure_repeats_failures_only() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let container =
        |name: &str, code: &str| serde_json::json!({"name": name, "image": COMMAND, "args": ["exits", code]});
    cluster.pod(
        "done",
        &serde_json::json!({"restartPolicy": "OnFailure", "containers": [container("a", "0")]}).to_string(),
    );
    cluster.pod(
        "repeats",
        &serde_json::json!({"restartPolicy": "OnFailure", "containers": [container("bad", "1"), container("good", "0")]})
            .to_string(),
    );
    cluster.wait_status("done", "Completed");
    eventually("the restart of the container that failed", || {
        let columns = "jsonpath={range .status.containerStatuses[*]}{.name}={.restartCount} {end}";
        let counts = cluster.ok(&["get", "pod", "repeats", "-o", columns]);
        if counts.contains("good=0") && !counts.contains("bad=0") { Ok(()) } else { Err(counts) }
    });
    cluster.wait_status("repeats", "CrashLoopBackOff");
    assert_eq!(cluster.pod_field("repeats", ".status.phase"), "Running");
}
