//! Every component as a process of its own, with its own identity.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{Component, TestCluster, eventually, get, try_get};

/// Uid, address, container ID and restarts of every pod.
const GUESTS: &str = "jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";

/// A cluster in parts with hello-http rolled out.
fn with_hello() -> TestCluster {
    let cluster = TestCluster::start_in_parts();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    cluster
}

fn scaled(cluster: &TestCluster, replicas: usize) {
    cluster.ok(&["scale", "deployment/hello-http", &format!("--replicas={replicas}")]);
    eventually("the scaled deployment", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if table.contains(&format!("{replicas}/{replicas}")) { Ok(()) } else { Err(table) }
    });
    eventually("the endpoints", || {
        let slices = "jsonpath={.items[*].endpoints[*].addresses[0]}";
        let selector = "kubernetes.io/service-name=hello-http";
        let addresses = cluster.ok(&["get", "endpointslices", "-l", selector, "-o", slices]);
        if addresses.split_whitespace().count() == replicas { Ok(()) } else { Err(addresses) }
    });
}

#[test]
fn components_in_processes_of_their_own_make_a_cluster_and_each_may_be_killed() {
    let mut cluster = with_hello();
    let service = cluster.service("hello-http");
    get(service, "/");
    let log = cluster.ok(&["logs", "deployment/hello-http"]);
    assert!(!log.contains("Error"), "{log}");
    for (replicas, component) in (4..).zip(Component::ALL) {
        cluster.kill_component(component);
        cluster.start_component(component);
        scaled(&cluster, replicas);
        eventually("an answer", || try_get(service, "/").map_err(|error| error.to_string()));
    }

    cluster.kill();
    get(service, "/without-an-api-server");
    cluster.start_api_server_again();
    scaled(&cluster, 3);
    get(service, "/");
    let log = cluster.log();
    assert!(!log.contains("is forbidden"), "a component may not do what it must:\n{log}");
}

#[test]
fn guests_never_stop_when_the_kubelet_is_killed_and_the_next_one_adopts_them() {
    let mut cluster = with_hello();
    let service = cluster.service("hello-http");
    let before = cluster.ok(&["get", "pods", "-o", GUESTS]);
    assert_eq!(before.lines().filter(|line| line.ends_with(" 0")).count(), 3, "{before}");
    let runtime = cluster.runtime_pid().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut answers = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                get(service, "/");
                answers += 1;
            }
            answers
        }
    });
    cluster.kill_component(Component::Kubelet);
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.start_component(Component::Kubelet);
    // A pod that is new shows that the kubelet is there and has seen the others.
    scaled(&cluster, 4);
    stop.store(true, Ordering::Relaxed);
    let answers = asking.join().expect("every request was answered");
    assert!(answers > 10, "only {answers} requests");

    assert_eq!(cluster.runtime_pid(), Some(runtime));
    let after = cluster.ok(&["get", "pods", "-o", GUESTS]);
    for guest in before.lines() {
        assert!(after.contains(guest), "{guest} is missing in:\n{after}");
    }
}
