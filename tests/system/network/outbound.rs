//! Requests that guests send.

use crate::support::{Answering, HTTP, TestCluster, get};

fn function() -> String {
    serde_json::json!({"containers": [{"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}]}]})
        .to_string()
}

#[test]
fn a_guest_reaches_services_and_what_its_annotation_lists_and_nothing_else() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "target"},
            "spec": {"selector": {"app": "target"}, "ports": [{"port": 8080}]}}"#,
    );
    cluster.pod_with("target", r#"{"labels": {"app": "target"}}"#, &function());
    cluster.wait_ready_pod("target");
    let target = cluster.pod_address("target", 8080);
    cluster.pod("plain", &function());
    let annotations =
        serde_json::json!({"annotations": {"wherry.dev/allowed-outbound-hosts": target.to_string()}});
    cluster.pod_with("allowed", &annotations.to_string(), &function());
    // Whatever it asks for, the machine's own loopback is not to be had.
    let everything =
        serde_json::json!({"annotations": {"wherry.dev/allowed-outbound-hosts": "*,127.0.0.0/8"}});
    cluster.pod_with("greedy", &everything.to_string(), &function());
    cluster.pod_with(
        "mistaken",
        r#"{"annotations": {"wherry.dev/allowed-outbound-hosts": "no such:thing"}}"#,
        &function(),
    );
    for pod in ["plain", "allowed", "greedy"] {
        cluster.wait_ready_pod(pod);
    }
    let ask = |pod: &str, what: &str| get(cluster.pod_address(pod, 8080), &format!("/get?{what}"));
    let service = cluster.service("target");

    assert_eq!(ask("plain", &format!("{service}/a")), "200: hello from /a\n\n");
    let refused = ask("plain", &format!("{target}/a"));
    assert!(refused.contains("HttpRequestDenied"), "{refused}");
    assert_eq!(ask("allowed", &format!("{target}/b")), "200: hello from /b\n\n");
    let log = cluster.ok(&["logs", "plain"]);
    assert!(log.contains("wherry.dev/allowed-outbound-hosts"), "the guest's author is told why: {log}");

    let server = Answering::at("127.0.0.1:0".parse().unwrap(), 200);
    for pod in ["plain", "allowed", "greedy"] {
        let refused = ask(pod, &format!("{}/", server.address()));
        // 127.0.0.1 is the guest's own, and nobody listens there.
        assert!(refused.contains("ConnectionRefused"), "{pod}: {refused}");
    }
    crate::support::eventually("the word about the mistake", || {
        let events = cluster.pod_events("mistaken");
        if events.contains("cannot read \"no such:thing\" as host[:port]") { Ok(()) } else { Err(events) }
    });
}
