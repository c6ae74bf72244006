//! `kubectl top`, and the numbers behind it.

use crate::support::{COMMAND, TestCluster, eventually};

#[test]
fn top_shows_what_nodes_pods_and_containers_use() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let container = |name: &str| serde_json::json!({"name": name, "image": COMMAND, "args": ["logs", "0"]});
    cluster.pod_with(
        "counted",
        r#"{"labels": {"app": "counted"}}"#,
        &serde_json::json!({"containers": [container("left"), container("right")]}).to_string(),
    );
    cluster.wait_ready_pod("counted");

    let nodes = cluster.ok(&["top", "node"]);
    let lines: Vec<Vec<&str>> = nodes.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], "{nodes}");
    assert_eq!(lines[1][0], "test-node");
    assert!(lines[1][1].ends_with('m') && lines[1][3].ends_with("Mi") && lines[1][3] != "0Mi", "{nodes}");

    let pods = eventually("the pod's numbers", || {
        let top = cluster.kubectl(&["top", "pod", "-l", "app=counted", "--containers", "--no-headers"]);
        if top.code == 0 && top.stdout.lines().count() == 2 {
            Ok(top.stdout)
        } else {
            Err(format!("{top:?}"))
        }
    });
    let names: Vec<&str> = pods.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(names, ["left", "right"], "{pods}");
    let other = cluster.kubectl(&["top", "pod", "-l", "app=other"]);
    assert_eq!(other.stderr, "No resources found in default namespace.\n");
    let absent = cluster.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/none"]);
    assert!(absent.stderr.contains("nodemetrics.metrics.k8s.io \"none\" not found"), "{absent:?}");

    // Who may see pods may see what they use; who may not, not.
    cluster.ok(&["create", "serviceaccount", "watcher"]);
    let account = "--as=system:serviceaccount:default:watcher";
    let refused = cluster.kubectl(&["top", "pod", account]);
    assert!(refused.stderr.contains("pods.metrics.k8s.io is forbidden"), "{refused:?}");
    cluster.ok(&[
        "create",
        "rolebinding",
        "watcher",
        "--clusterrole=view",
        "--serviceaccount=default:watcher",
    ]);
    eventually("the right to look", || {
        let top = cluster.kubectl(&["top", "pod", "counted", account, "--no-headers"]);
        if top.code == 0 { Ok(()) } else { Err(format!("{top:?}")) }
    });
}

#[test]
fn the_nodes_summary_and_metrics_tell_of_guests_as_of_containers() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let spec = serde_json::json!({
        "containers": [{"name": "main", "image": COMMAND, "args": ["logs", "0"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    });
    cluster.pod("told", &spec.to_string());
    cluster.wait_ready_pod("told");
    let get = |path: &str| cluster.ok(&["get", "--raw", &format!("/api/v1/nodes/test-node/proxy{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&get("/stats/summary")).unwrap();
    let node = &summary["node"];
    for field in
        ["/cpu/usageCoreNanoSeconds", "/memory/workingSetBytes", "/fs/capacityBytes", "/rlimit/maxpid"]
    {
        assert!(node.pointer(field).and_then(serde_json::Value::as_u64) > Some(0), "{field}: {node:#}");
    }
    let pod = summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "told").unwrap();
    assert_eq!(pod["volume"][0]["name"], "scratch");
    assert!(pod["ephemeral-storage"]["usedBytes"].as_u64() > Some(0), "{pod:#}");
    let container = &pod["containers"][0];
    assert!(container["memory"]["workingSetBytes"].as_u64() > Some(0), "{pod:#}");
    assert!(container["logs"]["usedBytes"].is_u64() && container["startTime"].is_string(), "{pod:#}");

    let labels = r#"{container="main",namespace="default",pod="told"}"#;
    assert!(get("/metrics/resource").contains(&format!("container_memory_working_set_bytes{labels} ")));
    assert!(get("/metrics/cadvisor").contains("machine_cpu_cores "));
    assert!(get("/metrics").contains("kubelet_running_pods 1.0"));
}
