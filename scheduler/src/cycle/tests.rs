use super::*;
use std::sync::Arc;

use crate::cache::Cache;
use crate::testing::{node, node_with, pod, pod_on, pod_with};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

fn cluster(
    nodes: impl IntoIterator<Item = Arc<Node>>,
    pods: impl IntoIterator<Item = Arc<PodInfo>>,
) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.set_node(node);
    }
    for pod in pods {
        cache.set_pod(pod);
    }
    cache
}

/// The node's name, or the message.
fn decide(cache: &Cache, pod: &PodInfo) -> String {
    let profile = Profile::default_plugins("default-scheduler");
    match cycle(cache.snapshot(), &profile, pod, 0) {
        Decision::Bind { node, .. } => node,
        Decision::Unschedulable(diagnosis) => diagnosis.to_string(),
    }
}

fn tainted(name: &str, key: &str, effect: &str) -> Arc<Node> {
    node_with(name, json!({ "spec": { "taints": [{ "key": key, "value": "x", "effect": effect }] } }))
}

fn labelled(name: &str, key: &str, value: &str) -> Arc<Node> {
    node_with(name, json!({ "metadata": { "labels": { key: value } } }))
}

fn asking(resources: Value) -> Arc<PodInfo> {
    pod_with("a", json!({ "containers": [{ "name": "main", "resources": { "requests": resources } }] }))
}

#[test]
fn every_reason_is_told_in_kubernetes_words() {
    let port =
        json!({ "containers": [{ "name": "main", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    let full = node_with("n1", json!({ "status": { "allocatable": { "pods": "1" } } }));
    let cases: Vec<(&str, Cache, Arc<PodInfo>, &str)> = vec![
        ("no nodes", cluster([], []), pod("a", "1"), "no nodes available to schedule pods"),
        (
            "cordoned",
            cluster([node_with("n1", json!({ "spec": { "unschedulable": true } }))], []),
            pod("a", "1"),
            "0/1 nodes are available: 1 node(s) were unschedulable.",
        ),
        (
            "another node asked for",
            cluster([node("n1", "4")], []),
            pod_on("a", "1", "n2"),
            "0/1 nodes are available: 1 node(s) didn't match the requested node name.",
        ),
        (
            "taints",
            cluster([tainted("n1", "a", "NoSchedule"), tainted("n2", "b", "NoExecute")], []),
            pod("a", "1"),
            "0/2 nodes are available: 2 node(s) had untolerated taint(s).",
        ),
        (
            "selector",
            cluster([node("n1", "4"), node("n2", "4")], []),
            pod_with("a", json!({ "nodeSelector": { "disk": "ssd" } })),
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "ports",
            cluster(
                [node("n1", "4")],
                [{
                    let mut holder = (*pod_with("holder", port.clone()).pod).clone();
                    holder.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
                    Arc::new(PodInfo::new(Arc::new(holder)))
                }],
            ),
            pod_with("a", port),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        ),
        (
            "resources",
            cluster([node("n1", "4")], [pod_on("other", "3500m", "n1")]),
            asking(json!({ "cpu": "1", "memory": "9Gi", "example.com/gpu": "1" })),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory.",
        ),
        (
            "too many pods",
            cluster([full], [pod_on("other", "0", "n1")]),
            pod("a", "0"),
            "0/1 nodes are available: 1 Too many pods.",
        ),
        (
            "several",
            cluster([tainted("n1", "a", "NoSchedule"), node("n2", "1"), node("n3", "1")], []),
            pod("a", "2"),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu.",
        ),
        (
            "a node by name, as DaemonSets ask for it",
            cluster([tainted("n1", "a", "NoSchedule"), node("n2", "4"), node("n3", "4")], []),
            pod_with(
                "a",
                json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": [
                    { "key": "metadata.name", "operator": "In", "values": ["n1"] },
                ] }] },
            } } }),
            ),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
        ),
    ];
    for (told, cache, pod, expected) in cases {
        assert_eq!(decide(&cache, &pod), expected, "{told}");
    }
}

#[test]
fn the_best_node_is_taken() {
    let with_image = node_with(
        "n2",
        json!({ "status": { "images": [{ "names": ["example.com/a:1"], "sizeBytes": 900_000_000 }] } }),
    );
    let preferring = |weight: i32| {
        pod_with(
            "a",
            json!({ "affinity": { "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": weight, "preference": {
                "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }],
            } }],
        } } }),
        )
    };
    let tolerating = |key: &str| {
        pod_with(
            "a",
            json!({ "tolerations": [{ "key": key, "operator": "Exists" }],
            "containers": [{ "name": "main", "resources": { "requests": { "cpu": "1" } } }] }),
        )
    };
    let imaged = pod_with("a", json!({ "containers": [{ "name": "main", "image": "example.com/a:1" }] }));
    let cases: Vec<(&str, Cache, Arc<PodInfo>, &str)> = vec![
        ("the only one that will do", cluster([node("n1", "1"), node("n2", "4")], []), pod("a", "2"), "n2"),
        (
            "the emptier one",
            cluster([node("n1", "4"), node("n2", "4")], [pod_on("b", "1", "n1")]),
            pod("a", "1"),
            "n2",
        ),
        ("the greater one", cluster([node("n1", "4"), node("n2", "8")], []), pod("a", "1"), "n2"),
        ("the first of equals", cluster([node("n1", "4"), node("n2", "4")], []), pod("a", "1"), "n1"),
        (
            "the preferred one",
            cluster([node("n1", "4"), labelled("n2", "disk", "ssd")], []),
            preferring(1),
            "n2",
        ),
        (
            "one without a taint that is disliked",
            cluster([tainted("n1", "k", "PreferNoSchedule"), node("n2", "4")], []),
            pod("a", "1"),
            "n2",
        ),
        (
            "one with it, if tolerated",
            cluster([tainted("n1", "k", "PreferNoSchedule"), node("n2", "4")], []),
            tolerating("k"),
            "n1",
        ),
        (
            "the one that tolerance opens",
            cluster([tainted("n1", "k", "NoSchedule"), node("n2", "500m")], []),
            tolerating("k"),
            "n1",
        ),
        ("the one that has the image", cluster([node("n1", "4"), with_image], []), imaged, "n2"),
    ];
    for (told, cache, pod, expected) in cases {
        assert_eq!(decide(&cache, &pod), expected, "{told}");
    }
}

#[test]
fn in_a_large_cluster_only_a_part_is_looked_at_and_the_next_cycle_goes_on_there() {
    for (nodes, expected) in
        [(1, 1), (99, 99), (100, 100), (1000, 420), (5000, 500), (10_000, 500), (20_000, 1000)]
    {
        assert_eq!(feasible_nodes_to_find(nodes), expected, "{nodes}");
    }
    let cache = cluster((0..1000).map(|n| node(&format!("n{n}"), "4")), []);
    let profile = Profile::default_plugins("default-scheduler");
    let pod = pod("a", "1");
    for (start, expected) in [(0, "n0"), (420, "n420"), (840, "n840"), (1260, "n260")] {
        let decision = cycle(cache.snapshot(), &profile, &pod, start);
        assert_eq!(decision, Decision::Bind { node: expected.to_owned(), evaluated: 420 }, "{start}");
    }
}

#[test]
fn pods_are_spread_over_equal_nodes() {
    let mut cache = cluster((0..4).map(|n| node(&format!("n{n}"), "4")), []);
    for n in 0..16 {
        let pod = pod(&format!("p{n}"), "500m");
        let node = decide(&cache, &pod);
        cache.assume(pod, &node);
    }
    let counts: Vec<_> = cache.snapshot().nodes().iter().map(|node| node.pod_count).collect();
    assert_eq!(counts, [4; 4]);
}

#[test]
fn what_is_assumed_is_not_given_away_twice() {
    let mut cache = cluster([node("n1", "1")], []);
    let first = pod("first", "600m");
    assert_eq!(decide(&cache, &first), "n1");
    cache.assume(first, "n1");
    assert_eq!(decide(&cache, &pod("second", "600m")), "0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn rejecting_plugins_know_which_events_may_help() {
    use crate::framework::{ClusterEvent, Filter};
    use crate::plugins::{
        NodeAffinity, NodeName, NodePorts, NodeResourcesFit, NodeUnschedulable, TaintToleration,
    };
    let info = |node: Arc<Node>| crate::snapshot::NodeInfo::new(node);
    let (small, large) = (info(node("n1", "1")), info(node("n1", "4")));
    let cordoned = info(node_with("n1", json!({ "spec": { "unschedulable": true } })));
    let dirty = info(tainted("n1", "k", "NoSchedule"));
    let ssd = info(labelled("n1", "disk", "ssd"));
    let port = |port: i32| {
        pod_with(
            "p",
            json!({ "containers": [{ "name": "m", "ports": [{ "containerPort": 1, "hostPort": port }] }] }),
        )
    };
    let (gone, other_gone) = (port(80), port(81));
    let wanting_ssd = pod_with("a", json!({ "nodeSelector": { "disk": "ssd" } }));
    let cases: Vec<(&dyn Filter, Arc<PodInfo>, ClusterEvent<'_>, bool)> = vec![
        (&NodeResourcesFit, pod("a", "2"), ClusterEvent::NodeAdded(&small), false),
        (&NodeResourcesFit, pod("a", "2"), ClusterEvent::NodeUpdated(&large), true),
        (&NodeResourcesFit, pod("a", "2"), ClusterEvent::AssignedPodGone(&gone), true),
        (&TaintToleration, pod("a", "2"), ClusterEvent::NodeAdded(&dirty), false),
        (&TaintToleration, pod("a", "2"), ClusterEvent::NodeUpdated(&large), true),
        (&TaintToleration, pod("a", "2"), ClusterEvent::AssignedPodGone(&gone), false),
        (&NodeUnschedulable, pod("a", "2"), ClusterEvent::NodeUpdated(&cordoned), false),
        (&NodeUnschedulable, pod("a", "2"), ClusterEvent::NodeUpdated(&large), true),
        (&NodeAffinity, wanting_ssd.clone(), ClusterEvent::NodeAdded(&large), false),
        (&NodeAffinity, wanting_ssd, ClusterEvent::NodeAdded(&ssd), true),
        (&NodePorts, port(80), ClusterEvent::AssignedPodGone(&gone), true),
        (&NodePorts, port(80), ClusterEvent::AssignedPodGone(&other_gone), false),
        (&NodeName, pod_on("a", "1", "n2"), ClusterEvent::NodeAdded(&large), false),
        (&NodeName, pod_on("a", "1", "n1"), ClusterEvent::NodeAdded(&large), true),
    ];
    for (filter, pod, event, expected) in cases {
        assert_eq!(filter.may_help(&pod, event), expected, "{} {event:?}", filter.name());
    }
}
