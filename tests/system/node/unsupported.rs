//! What a guest cannot be given.

use crate::support::{COMMAND, TestCluster};

#[test]
fn what_a_guest_cannot_have_is_refused_and_what_means_nothing_to_it_is_told() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let with = |security: serde_json::Value| serde_json::json!({"containers": [{"name": "main", "image": COMMAND, "args": ["sleeps"], "securityContext": security}]});
    cluster.pod("mighty", &with(serde_json::json!({"privileged": true})).to_string());
    cluster.wait_status("mighty", "UnsupportedField");
    assert_eq!(
        cluster.pod_field("mighty", ".status.message"),
        "Pod was rejected: a WebAssembly guest cannot have spec.containers[main].securityContext.privileged"
    );
    assert_eq!(cluster.pod_field("mighty", ".status.phase"), "Failed");

    cluster.pod(
        "numbered",
        &with(serde_json::json!({"runAsUser": 1000, "allowPrivilegeEscalation": false})).to_string(),
    );
    cluster.wait_ready_pod("numbered");
    cluster.wait_events(
        "numbered",
        &["Warning UnsupportedField Fields without effect here: spec.containers[main].securityContext.runAsUser"],
    );
}
