//! The environment of a guest.

use crate::support::{COMMAND, TestCluster};

#[test]
fn the_environment_holds_services_resources_fields_and_whole_config_maps() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-data"},
            "spec": {"selector": {"app": "none"}, "ports": [{"name": "web", "port": 8081}]}}"#,
    );
    cluster.ok(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=COLOUR=green",
        "--from-literal=SIZE=small",
    ]);
    cluster.ok(&["create", "secret", "generic", "keys", "--from-literal=token=abc"]);
    let service = cluster.service("my-data").ip();
    let kubernetes = cluster.service("kubernetes").ip();
    let resource = |resource: &str, divisor: &str| serde_json::json!({"resourceFieldRef": {"resource": resource, "divisor": divisor}});
    cluster.pod_with(
        "shows",
        r#"{"labels": {"tier": "backend"}}"#,
        &serde_json::json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": COMMAND, "args": ["shows", "$(COLOUR) $(MY_DATA_SERVICE_PORT) $$(COLOUR) $(NONE)"],
                "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1500m", "memory": "64Mi"}},
                "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "SECRET_", "secretRef": {"name": "keys"}},
                            {"configMapRef": {"name": "absent", "optional": true}}],
                "env": [
                    {"name": "SIZE", "value": "large"},
                    {"name": "BOTH", "value": "$(COLOUR)-$(SIZE)"},
                    {"name": "CPU", "valueFrom": resource("limits.cpu", "1m")},
                    {"name": "CORES", "valueFrom": resource("limits.cpu", "1")},
                    {"name": "MEMORY", "valueFrom": resource("limits.memory", "1Mi")},
                    {"name": "REQUESTED", "valueFrom": resource("requests.cpu", "1m")},
                    {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
            }],
        })
        .to_string(),
    );
    cluster.wait_status("shows", "Completed");
    let log = cluster.ok(&["logs", "shows"]);
    let ip = cluster.pod_field("shows", ".status.podIP");
    for line in [
        "arg 2: green 8081 $(COLOUR) $(NONE)".to_owned(),
        format!("env: MY_DATA_SERVICE_HOST={service}"),
        "env: MY_DATA_SERVICE_PORT=8081".to_owned(),
        "env: MY_DATA_SERVICE_PORT_WEB=8081".to_owned(),
        format!("env: MY_DATA_PORT_8081_TCP_ADDR={service}"),
        format!("env: MY_DATA_PORT=tcp://{service}:8081"),
        format!("env: KUBERNETES_SERVICE_HOST={kubernetes}"),
        "env: COLOUR=green".to_owned(),
        "env: SIZE=large".to_owned(),
        "env: BOTH=green-large".to_owned(),
        "env: SECRET_token=abc".to_owned(),
        "env: CPU=1500".to_owned(),
        "env: CORES=2".to_owned(),
        "env: MEMORY=64".to_owned(),
        "env: REQUESTED=10".to_owned(),
        "env: TIER=backend".to_owned(),
        "env: NODE=test-node".to_owned(),
        format!("env: IP={ip}"),
        "env: HOSTNAME=shows".to_owned(),
    ] {
        assert!(log.lines().any(|seen| seen == line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn a_container_waits_for_its_config_map() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let reference = |key: &str| serde_json::json!({"configMapKeyRef": {"name": "later", "key": key}});
    cluster.pod(
        "waits",
        &serde_json::json!({"restartPolicy": "Never", "containers": [{
            "name": "main", "image": COMMAND, "args": ["shows"], "env": [{"name": "COLOUR", "valueFrom": reference("colour")}],
        }]})
        .to_string(),
    );
    cluster.wait_status("waits", "CreateContainerConfigError");
    let message = cluster.pod_field("waits", ".status.containerStatuses[0].state.waiting.message");
    assert_eq!(message, "configmap \"later\" not found");
    cluster.wait_events("waits", &["Warning Failed Error: configmap \"later\" not found"]);

    cluster.ok(&["create", "configmap", "later", "--from-literal=shape=round"]);
    cluster
        .wait_events("waits", &["Warning Failed Error: couldn't find key colour in ConfigMap default/later"]);
    cluster.ok(&["patch", "configmap", "later", "-p", r#"{"data":{"colour":"blue"}}"#]);
    cluster.wait_status("waits", "Completed");
    assert!(cluster.ok(&["logs", "waits"]).contains("env: COLOUR=blue\n"));
}
