//! emptyDir in memory and with a limit, and sub paths.

use crate::support::{COMMAND, HTTP, TestCluster, eventually, get};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What is mounted below the cluster's directory, as its processes see it.
fn mounts(cluster: &TestCluster) -> Vec<String> {
    let directory = cluster.data_dir().canonicalize().unwrap();
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", cluster.pid())).unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(directory.to_str().unwrap())).map(str::to_owned).collect()
}

#[test]
fn an_empty_dir_in_memory_is_a_file_system_of_its_own_and_goes_with_its_pod() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let spec = serde_json::json!({
        "volumes": [{"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "initContainers": [{"name": "first", "image": COMMAND, "args": ["writes", "/fast/note", "in memory"],
            "volumeMounts": [{"name": "fast", "mountPath": "/fast"}]}],
        "containers": [{"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}],
            "volumeMounts": [{"name": "fast", "mountPath": "/fast"}]}],
    });
    cluster.pod("fast", &spec.to_string());
    if !is_root() {
        eventually("the refusal", || {
            let events = cluster.pod_events("fast");
            let expected = "emptyDir in memory needs a node that runs as root";
            if events.contains(expected) { Ok(()) } else { Err(events) }
        });
        return;
    }
    cluster.wait_ready_pod("fast");
    assert_eq!(get(cluster.pod_address("fast", 8080), "/file?/fast/note"), "in memory");
    let mounted = mounts(&cluster);
    assert_eq!(mounted.len(), 1, "{mounted:?}");
    assert!(mounted[0].ends_with("/volumes/kubernetes.io~empty-dir/fast"), "{mounted:?}");
    cluster.ok(&["delete", "pod", "fast"]);
    // Without grace the object goes first.
    eventually("the end of the mount", || {
        let mounted = mounts(&cluster);
        if mounted.is_empty() { Ok(()) } else { Err(format!("{mounted:?}")) }
    });
}

#[test]
fn a_pod_that_writes_more_than_its_empty_dir_may_take_is_evicted() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let text = "x".repeat(64 << 10);
    let spec = serde_json::json!({
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "16Ki"}}],
        "initContainers": [{"name": "first", "image": COMMAND, "args": ["writes", "/scratch/big", text],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
        "containers": [{"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}]}],
    });
    cluster.pod("greedy", &spec.to_string());
    eventually("the eviction", || {
        let fields = "jsonpath={.status.phase} {.status.reason} {.status.message}";
        let status = cluster.ok(&["get", "pod", "greedy", "-o", fields]);
        let expected = "Failed Evicted Usage of EmptyDir volume \"scratch\" exceeds the limit \"16Ki\". ";
        if status == expected { Ok(()) } else { Err(status) }
    });
    assert!(cluster.pod_events("greedy").contains("Evicted"));
}

#[test]
fn a_sub_path_with_variables_is_made_inside_the_volume_and_cannot_be_written_where_it_is_read_only() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let mount = |read_only: bool| serde_json::json!([{"name": "shared", "mountPath": "/own", "subPathExpr": "pods/$(POD)", "readOnly": read_only}]);
    let variables =
        serde_json::json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [{"name": "writes", "image": COMMAND, "args": ["writes", "/own/note", "mine"],
            "env": variables, "volumeMounts": mount(false)}],
        "containers": [
            {"name": "may-not", "image": COMMAND, "args": ["writes", "/own/other", "x"], "env": variables,
             "volumeMounts": mount(true)},
            {"name": "sees", "image": HTTP, "ports": [{"containerPort": 8080}],
             "volumeMounts": [{"name": "shared", "mountPath": "/whole"}]},
        ],
    });
    cluster.pod("parts", &spec.to_string());
    eventually("the refused write", || {
        let code = ".status.containerStatuses[?(@.name==\"may-not\")].state.terminated.exitCode";
        let code = cluster.pod_field("parts", code);
        if code.is_empty() || code == "0" { Err(code) } else { Ok(()) }
    });
    let address = cluster.pod_address("parts", 8080);
    assert_eq!(get(address, "/file?/whole/pods/parts/note"), "mine");
    let other = get(address, "/file?/whole/pods/parts/other");
    assert!(other.contains("No such file"), "{other}");
}
