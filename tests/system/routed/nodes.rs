//! Several nodes.

use std::net::SocketAddr;

use super::is_possible;
use crate::support::{HTTP, Outside, SecondNode, Site, TestCluster, eventually, guest_file, try_get};

/// A pod with the HTTP guest on a node; what it answers to the others is the path.
fn pod_on(cluster: &TestCluster, node: &str) -> SocketAddr {
    let name = format!("on-{node}");
    let metadata = serde_json::json!({
        "labels": {"app": "everywhere", "on": node},
        "annotations": {"wherry.dev/allowed-outbound-hosts": "10.42.0.0/16"},
    });
    let spec = serde_json::json!({
        "nodeName": node,
        "containers": [{"name": "main", "image": HTTP, "imagePullPolicy": "Never", "ports": [{"containerPort": 8080}]}],
    });
    cluster.pod_with(&name, &metadata.to_string(), &spec.to_string());
    cluster.wait_ready_pod(&name);
    cluster.pod_address(&name, 8080)
}

/// `ip route` of what leads to the other nodes.
fn routes(machine: &crate::support::Routed) -> String {
    machine.namespace().ip("route show proto 88")
}

#[test]
fn pods_of_all_nodes_reach_each_other_directly_on_one_link_and_through_a_tunnel_elsewhere() {
    if !is_possible("pods of all nodes reach each other") {
        return;
    }
    let outside = Outside::new();
    let first = outside.machine(1, None);
    let (near, far) = (outside.machine(2, None), outside.machine_elsewhere(1, None));
    let cluster = TestCluster::start_at(Site::Routed(Box::new(first)), Some(outside), &[]);
    cluster.load_guests();
    let mut near = SecondNode::join(&cluster, "near", near);
    let far = SecondNode::join(&cluster, "far", far);
    for node in ["near", "far"] {
        eventually("the node", || {
            let output =
                cluster.kubectl(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=5s"]);
            if output.code == 0 { Ok(()) } else { Err(format!("{output:?}\n{}\n{}", near.log(), far.log())) }
        });
    }
    let file = guest_file(HTTP);
    for node in [&near, &far] {
        node.load_image(file.to_str().unwrap(), HTTP);
    }
    let ranges =
        cluster.ok(&["get", "nodes", "-o", "jsonpath={range .items[*]}{.spec.podCIDR}{\"\\n\"}{end}"]);
    let mut ranges: Vec<&str> = ranges.lines().collect();
    ranges.sort_unstable();
    assert_eq!(ranges, ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);

    let pods = ["test-node", "near", "far"].map(|node| pod_on(&cluster, node));
    let machines = [cluster.site().machine().unwrap(), near.machine(), far.machine()];
    for (from, machine) in machines.iter().enumerate() {
        for (to, pod) in pods.iter().enumerate() {
            // The machine itself, and the pod on it by way of its guest.
            machine.namespace().within(|| {
                eventually("an answer", || match try_get(*pod, "/direct") {
                    Ok((200, body)) if body == "hello from /direct\n" => Ok(()),
                    other => Err(format!("from {from} to {to}: {other:?}\n{}", routes(machine))),
                });
                let path = format!("/get?{pod}/by-guest");
                let answer = try_get(pods[from], &path).map_err(|error| error.to_string());
                assert_eq!(
                    answer,
                    Ok((200, "200: hello from /by-guest\n\n".to_owned())),
                    "from {from} to {to}"
                );
            });
        }
    }

    let own = routes(machines[0]);
    let near_ip = near.node_ip();
    assert!(own.contains(&format!("via {near_ip} dev eth0")), "{own}");
    assert!(own.contains("dev wherry.1 onlink"), "{own}");
    let far_routes = routes(machines[2]);
    assert_eq!(
        far_routes.lines().filter(|line| line.contains("dev wherry.1 onlink")).count(),
        2,
        "{far_routes}"
    );

    // A node that is gone is led to no more, and its range is another's to have.
    let node_range = cluster.ok(&["get", "node", "near", "-o", "jsonpath={.spec.podCIDR}"]);
    near.stop();
    cluster.ok(&["delete", "node", "near"]);
    eventually("the end of the route", || {
        let routes = routes(cluster.site().machine().unwrap());
        if routes.contains(&node_range) { Err(routes) } else { Ok(()) }
    });
    // An immutable range is the API server's promise, whoever asks.
    let patch = r#"{"spec":{"podCIDR":"10.42.77.0/24","podCIDRs":["10.42.77.0/24"]}}"#;
    let refused = cluster.kubectl(&["patch", "node", "far", "--type=merge", "-p", patch]);
    assert!(refused.stderr.contains("node updates may not change podCIDR"), "{refused:?}");
}

#[test]
fn a_cluster_without_a_range_left_says_so_and_gives_out_what_comes_back() {
    if !is_possible("a cluster without a range left") {
        return;
    }
    let outside = Outside::new();
    let machine = outside.machine(1, None);
    let cluster =
        TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &["--pod-cidr=10.42.0.0/23"]);
    let node = |name: &str| {
        cluster.apply(
            &serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).to_string(),
        );
    };
    let range = |name: &str| cluster.ok(&["get", "node", name, "-o", "jsonpath={.spec.podCIDR}"]);
    node("second");
    eventually("the second node's range", || {
        let range = range("second");
        if range == "10.42.1.0/24" { Ok(()) } else { Err(range) }
    });
    node("third");
    eventually("the event", || {
        let events = cluster.ok(&["get", "events", "-A", "--field-selector=involvedObject.name=third"]);
        if events.contains("Node third status is now: CIDRNotAvailable") { Ok(()) } else { Err(events) }
    });
    assert_eq!(range("third"), "");
    cluster.ok(&["delete", "node", "second"]);
    eventually("the third node's range", || {
        let range = range("third");
        if range == "10.42.1.0/24" { Ok(()) } else { Err(range) }
    });
}
