//! Pods from a directory of the node.

use crate::support::{COMMAND, TestCluster, eventually};

#[test]
fn a_manifest_in_the_directory_is_a_pod_that_follows_it() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("keeper.yaml");
    let write = |argument: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: keeper, labels: {{app: keeper}}}}\nspec:\n  runtimeClassName: wasmtime\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: {COMMAND}, args: [logs, \"{argument}\"]}}\n"
        );
        std::fs::write(&manifest, text).unwrap();
    };
    write("1");
    std::fs::write(directory.path().join("notes.txt"), "not a manifest").unwrap();
    std::fs::write(directory.path().join("broken.yaml"), "kind: [").unwrap();

    let cluster = TestCluster::start_with(&["--static-pod-dir", directory.path().to_str().unwrap()]);
    cluster.load_guests();
    eventually("the mirror pod", || {
        let found =
            cluster.kubectl(&["wait", "--for=condition=Ready", "pod/keeper-test-node", "--timeout=2s"]);
        if found.code == 0 { Ok(()) } else { Err(format!("{}\n{}", found.stderr, cluster.state())) }
    });
    let owner = cluster.pod_field("keeper-test-node", ".metadata.ownerReferences[0].kind");
    assert_eq!(owner, "Node");
    let source = "jsonpath={.metadata.annotations.kubernetes\\.io/config\\.source}";
    assert_eq!(cluster.ok(&["get", "pod", "keeper-test-node", "-o", source]), "file");
    let log = cluster.ok(&["logs", "keeper-test-node"]);
    assert!(log.starts_with("000000 0000"), "{log}");

    // A mirror is only a picture: deleting it stops nothing, and it comes back.
    let uid =
        || cluster.kubectl(&["get", "pod", "keeper-test-node", "-o", "jsonpath={.metadata.uid}"]).stdout;
    let container = || {
        let path = "jsonpath={.status.containerStatuses[0].containerID}";
        cluster.kubectl(&["get", "pod", "keeper-test-node", "-o", path]).stdout
    };
    let (first_uid, first_container) = (uid(), container());
    assert!(!first_container.is_empty());
    cluster.ok(&["delete", "pod", "keeper-test-node", "--wait=false"]);
    eventually("another mirror of the same containers", || {
        let (uid, container) = (uid(), container());
        if !uid.is_empty() && uid != first_uid && container == first_container {
            Ok(())
        } else {
            Err(format!("{uid} {container}"))
        }
    });

    write("3");
    eventually("the changed pod", || {
        let arguments = cluster
            .kubectl(&["get", "pod", "keeper-test-node", "-o", "jsonpath={.spec.containers[0].args[1]}"])
            .stdout;
        let (container, status) = (container(), cluster.pod_status("keeper-test-node"));
        let is_new =
            arguments == "3" && !container.is_empty() && container != first_container && status == "Running";
        if is_new { Ok(()) } else { Err(format!("{arguments} {container} {status}")) }
    });
    let log = cluster.ok(&["logs", "keeper-test-node"]);
    assert!(log.lines().filter(|line| line.len() == 1000).count() == 3, "{log}");

    std::fs::remove_file(&manifest).unwrap();
    eventually("the end of the pod", || {
        let left = cluster.kubectl(&["get", "pods", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
