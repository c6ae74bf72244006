//! Probes go to the pod's address, where a test may listen as well as a guest.

use std::net::TcpListener;

use crate::support::{Answering, COMMAND, Health, TestCluster, eventually};

#[test]
fn a_startup_probe_holds_back_the_liveness_probe_that_then_restarts_the_container() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "probed",
        &serde_json::json!({"containers": [{
            "name": "main", "image": COMMAND, "args": ["sleeps"],
            "startupProbe": {"httpGet": {"path": "/", "port": 9000}, "periodSeconds": 1, "failureThreshold": 60},
            "livenessProbe": {"httpGet": {"path": "/", "port": 9000}, "periodSeconds": 1, "failureThreshold": 2},
        }]})
        .to_string(),
    );
    let address = cluster.pod_address("probed", 9000);
    cluster.wait_events(
        "probed",
        &[&format!("Warning Unhealthy Startup probe failed: Get \"http://{}", cluster.site().pod_prefix())],
    );
    // Time enough for two failures of the liveness probe, if it were at work.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let state = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].started} {.status.containerStatuses[0].ready}";
    assert_eq!(cluster.ok(&["get", "pod", "probed", "-o", state]), "0 false false");
    assert!(!cluster.pod_events("probed").contains("Liveness"), "{}", cluster.pod_events("probed"));

    let server = Answering::at(address, 200);
    cluster.wait_ready_pod("probed");
    assert_eq!(cluster.ok(&["get", "pod", "probed", "-o", state]), "0 true true");

    server.answer(503);
    cluster.wait_events(
        "probed",
        &[
            "Warning Unhealthy Liveness probe failed: HTTP probe failed with statuscode: 503",
            "Normal Killing Container main failed liveness probe, will be restarted",
        ],
    );
    server.answer(200);
    eventually("the restarted container", || {
        let state = cluster.ok(&["get", "pod", "probed", "-o", state]);
        if state == "1 true true" { Ok(()) } else { Err(state) }
    });
}

#[test]
fn a_tcp_readiness_probe_decides_whether_a_pod_is_an_endpoint() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "checked"},
            "spec": {"selector": {"app": "checked"}, "ports": [{"port": 9001}]}}"#,
    );
    cluster.pod_with(
        "checked",
        r#"{"labels": {"app": "checked"}}"#,
        &serde_json::json!({"containers": [{
            "name": "main", "image": COMMAND, "args": ["sleeps"],
            "readinessProbe": {"tcpSocket": {"port": 9001}, "periodSeconds": 1, "failureThreshold": 1},
        }]})
        .to_string(),
    );
    let address = cluster.pod_address("checked", 9001);
    let refused =
        format!("Warning Unhealthy Readiness probe failed: dial tcp {address}: connect: connection refused");
    cluster.wait_events("checked", &[&refused]);
    cluster.wait_status("checked", "Running");
    let endpoints = || {
        cluster.ok(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=checked",
            "-o",
            "jsonpath={.items[*].endpoints[*].conditions.ready}",
        ])
    };
    assert_eq!(endpoints(), "false");

    let listener = TcpListener::bind(address).unwrap();
    cluster.wait_ready_pod("checked");
    eventually("the ready endpoint", || if endpoints() == "true" { Ok(()) } else { Err(endpoints()) });

    drop(listener);
    eventually("the endpoint that is not ready", || {
        if endpoints() == "false" { Ok(()) } else { Err(endpoints()) }
    });
    assert_eq!(cluster.pod_field("checked", ".status.containerStatuses[0].restartCount"), "0");
}

#[test]
fn a_grpc_liveness_probe_asks_for_its_service_and_restarts_the_container() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "healthy",
        &serde_json::json!({"containers": [{
            "name": "main", "image": COMMAND, "args": ["sleeps"],
            "startupProbe": {"tcpSocket": {"port": 9002}, "periodSeconds": 1, "failureThreshold": 60},
            "livenessProbe": {"grpc": {"port": 9002, "service": "shop"}, "periodSeconds": 1, "failureThreshold": 1},
        }]})
        .to_string(),
    );
    let server = Health::at(cluster.pod_address("healthy", 9002), "shop");
    cluster.wait_ready_pod("healthy");
    // Time enough for two probes that succeed.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(
        cluster.pod_field("healthy", ".status.containerStatuses[0].restartCount"),
        "0",
        "{}",
        cluster.pod_events("healthy")
    );
    server.say(Health::NOT_SERVING);
    cluster.wait_events(
        "healthy",
        &[
            "Warning Unhealthy Liveness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
            "Normal Killing Container main failed liveness probe, will be restarted",
        ],
    );
    server.say(Health::SERVING);
    eventually("the restarted container", || {
        let count = cluster.pod_field("healthy", ".status.containerStatuses[0].restartCount");
        if count == "0" { Err(count) } else { Ok(()) }
    });
    cluster.wait_ready_pod("healthy");
}
