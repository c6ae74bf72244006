//! Volumes, as the guest sees them.

use crate::support::{COMMAND, HTTP, TestCluster, eventually, get};

#[test]
fn two_containers_share_an_empty_dir_and_a_sub_path_shows_its_part_only() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "shares",
        &serde_json::json!({
            "restartPolicy": "OnFailure",
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "containers": [
                {"name": "writer", "image": COMMAND, "args": ["writes", "/part/note", "a note"],
                 "volumeMounts": [{"name": "shared", "mountPath": "/part", "subPath": "inner/part"}]},
                {"name": "reader", "image": HTTP, "ports": [{"containerPort": 8080}],
                 "volumeMounts": [{"name": "shared", "mountPath": "/whole"}]},
            ],
        })
        .to_string(),
    );
    let address = cluster.pod_address("shares", 8080);
    eventually("the note", || {
        let body = crate::support::try_get(address, "/file?/whole/inner/part/note")
            .map_err(|error| error.to_string())?;
        if body == (200, "a note".to_owned()) { Ok(()) } else { Err(format!("{body:?}")) }
    });
}

#[test]
fn a_service_account_token_in_a_volume_is_accepted_by_the_api_server() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.ok(&["create", "serviceaccount", "reader"]);
    cluster.ok(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]);
    cluster.ok(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"]);
    cluster.pod(
        "identified",
        &serde_json::json!({"serviceAccountName": "reader", "containers": [
            {"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}]},
        ]})
        .to_string(),
    );
    cluster.wait_ready_pod("identified");
    let address = cluster.pod_address("identified", 8080);
    let file =
        |name: &str| get(address, &format!("/file?/var/run/secrets/kubernetes.io/serviceaccount/{name}"));
    assert_eq!(file("namespace"), "default");
    let token = file("token");
    assert_eq!(token.split('.').count(), 3, "{token}");
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.crt");
    std::fs::write(&ca, file("ca.crt")).unwrap();

    let server = cluster.ok(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let with_token = |arguments: &[&str]| {
        let mut command = std::process::Command::new("kubectl");
        command.env("KUBECONFIG", "/dev/null").env("HOME", directory.path());
        command.args([
            "--server",
            &server,
            "--certificate-authority",
            ca.to_str().unwrap(),
            "--token",
            &token,
        ]);
        let output = command.args(arguments).output().unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (pods, errors) = with_token(&["get", "pods", "-o", "name"]);
    assert_eq!((pods.as_str(), errors.as_str()), ("pod/identified\n", ""));
    let (_, refused) = with_token(&["get", "secrets"]);
    let expected = "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:default:reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"\n";
    assert_eq!(refused, expected);

    // The token is bound to the pod: with the pod it ends.
    cluster.ok(&["delete", "pod", "identified", "--wait"]);
    eventually("the end of the token", || {
        let (_, errors) = with_token(&["get", "pods"]);
        if errors.contains("Unauthorized") || errors.contains("must be logged in") {
            Ok(())
        } else {
            Err(errors)
        }
    });
}

#[test]
fn the_downward_api_follows_labels_and_a_host_path_is_read_only_when_so_mounted() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let host = tempfile::tempdir().unwrap();
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(host.path().join("given"), "by the host").unwrap();
    let host_path =
        serde_json::json!({"name": "host", "hostPath": {"path": host.path(), "type": "Directory"}});
    cluster.pod_with(
        "looks",
        r#"{"labels": {"app": "looks", "tier": "front"}}"#,
        &serde_json::json!({
            "volumes": [
                {"name": "info", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "limits/memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
                ]}},
                host_path,
            ],
            "containers": [{
                "name": "main", "image": HTTP, "ports": [{"containerPort": 8080}], "resources": {"limits": {"memory": "32Mi"}},
                "volumeMounts": [{"name": "info", "mountPath": "/info"}, {"name": "host", "mountPath": "/host", "readOnly": true}],
            }],
        })
        .to_string(),
    );
    cluster.wait_ready_pod("looks");
    let address = cluster.pod_address("looks", 8080);
    assert_eq!(get(address, "/file?/info/labels"), "app=\"looks\"\ntier=\"front\"");
    assert_eq!(get(address, "/file?/info/limits/memory"), "32");
    assert_eq!(get(address, "/file?/host/given"), "by the host");
    cluster.ok(&["label", "pod", "looks", "colour=red"]);
    eventually("the new label", || {
        let labels = get(address, "/file?/info/labels");
        if labels.contains("colour=\"red\"") { Ok(()) } else { Err(labels) }
    });

    for (name, read_only) in [("may-not-write", true), ("may-write", false)] {
        cluster.pod(
            name,
            &serde_json::json!({
                "restartPolicy": "Never",
                "volumes": [host_path],
                "containers": [{
                    "name": "main", "image": COMMAND, "args": ["writes", "/host/taken", "by the guest"],
                    "volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": read_only}],
                }],
            })
            .to_string(),
        );
        if read_only {
            cluster.wait_status(name, "Error");
            assert!(!host.path().join("taken").exists());
        } else {
            cluster.wait_status(name, "Completed");
            assert_eq!(std::fs::read_to_string(host.path().join("taken")).unwrap(), "by the guest");
        }
    }
}
