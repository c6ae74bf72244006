//! Images that are not here, and those that a registry has.

use crate::support::{COMMAND, HTTP, Registry, TestCluster, get, guest_file};

fn one_container(image: &str, policy: &str) -> String {
    serde_json::json!({"restartPolicy": "Never", "containers": [
        {"name": "main", "image": image, "imagePullPolicy": policy, "args": ["prints"], "ports": [{"containerPort": 8080}]},
    ]})
    .to_string()
}

#[test]
fn an_image_that_cannot_be_had_is_told_as_kubernetes_tells_it() {
    let cluster = TestCluster::start();
    // Nothing listens there: the port was free a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let image = format!("{closed}/x/missing:v1");
    cluster.pod("missing", &one_container(&image, "IfNotPresent"));
    cluster.pod("never", &one_container("test/never:v1", "Never"));
    cluster.wait_status("never", "ErrImageNeverPull");
    let text = "Container image \"test/never:v1\" is not present with pull policy of Never";
    assert_eq!(cluster.pod_field("never", ".status.containerStatuses[0].state.waiting.message"), text);
    cluster.wait_events(
        "never",
        &[&format!("Warning ErrImageNeverPull {text}"), "Warning Failed Error: ErrImageNeverPull"],
    );

    cluster.wait_status("missing", "ImagePullBackOff");
    cluster.wait_events(
        "missing",
        &[
            &format!("Normal Pulling Pulling image \"{image}\""),
            &format!("Warning Failed Failed to pull image \"{image}\": "),
            "Warning Failed Error: ErrImagePull",
            &format!("Normal BackOff Back-off pulling image \"{image}\""),
            "Warning Failed Error: ImagePullBackOff",
        ],
    );
    let message = cluster.pod_field("missing", ".status.containerStatuses[0].state.waiting.message");
    assert!(message.starts_with(&format!("Back-off pulling image \"{image}\": ErrImagePull: ")), "{message}");
    assert_eq!(cluster.pod_field("missing", ".status.phase"), "Pending");
    let logs = cluster.kubectl(&["logs", "missing"]);
    assert_eq!(
        logs.stderr,
        "Error from server (BadRequest): container \"main\" in pod \"missing\" is waiting to start: trying and failing to pull image\n"
    );
}

#[test]
fn images_come_from_a_registry_by_command_and_by_pod() {
    let cluster = TestCluster::start();
    // After the cluster, on its machine.
    let registry = Registry::start();
    registry.push_wasm("team/command", "v1", &guest_file(COMMAND));
    registry.push_wasm("team/http", "v1", &guest_file(HTTP));

    let command = registry.image("team/command:v1");
    let pulled = cluster.wherry(&["image", "pull", &command]);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert!(cluster.wherry(&["image", "ls"]).stdout.contains("team/command"));
    cluster.pod("here-already", &one_container(&command, "Never"));
    cluster.wait_status("here-already", "Completed");
    assert_eq!(cluster.ok(&["logs", "here-already"]), "hello\noops\n");

    let absent = cluster.wherry(&["image", "pull", &registry.image("team/command:v2")]);
    assert_ne!(absent.code, 0);
    assert!(absent.stderr.contains("team/command:v2"), "{}", absent.stderr);

    let http = registry.image("team/http:v1");
    cluster.pod("pulls", &one_container(&http, "Always"));
    cluster.wait_ready_pod("pulls");
    assert_eq!(get(cluster.pod_address("pulls", 8080), "/x"), "hello from /x\n");
    cluster.wait_events(
        "pulls",
        &[
            &format!("Normal Pulling Pulling image \"{http}\""),
            &format!("Normal Pulled Successfully pulled image \"{http}\" in "),
        ],
    );
    let id = cluster.pod_field("pulls", ".status.containerStatuses[0].imageID");
    assert!(id.contains("sha256:"), "{id}");
}
