//! `wherry up` itself.

use crate::support::{TestCluster, eventually, get};

#[test]
fn a_stopped_cluster_is_there_again_and_every_component_reports_in_readyz() {
    let mut cluster = TestCluster::start();
    let verbose = cluster.ok(&["get", "--raw", "/readyz?verbose"]);
    for component in ["scheduler", "controllers", "kubelet", "proxy", "wasm-runtime"] {
        assert!(verbose.contains(&format!("[+]{component} ok")), "{verbose}");
    }
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let runtime = cluster.runtime_pid().unwrap();

    let status = cluster.stop();
    assert!(status.success(), "{status}\n{}", cluster.log());
    assert_eq!(cluster.runtime_pid(), None, "the runtime {runtime} outlived Ctrl-C");

    cluster.start_again();
    eventually("the answer after the restart", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if table.contains("3/3") { Ok(()) } else { Err(table) }
    });
    get(cluster.service("hello-http"), "/");
}

#[test]
fn a_second_up_on_the_same_data_is_refused_with_a_clear_message() {
    let cluster = TestCluster::start();
    let second = cluster.wherry(&["up", "--listen", "127.0.0.1:0"]);
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains(&format!("is in use by process {}", cluster.pid())), "{}", second.stderr);
}

#[test]
fn the_kubeconfig_is_printed_and_the_version_names_kubernetes() {
    let cluster = TestCluster::start();
    let printed = cluster.wherry(&["kubeconfig"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert_eq!(printed.stdout, std::fs::read_to_string(cluster.kubeconfig()).unwrap());
    let version = cluster.ok(&["version"]);
    assert!(version.contains("Server Version: v1.36.0"), "{version}");
}

#[test]
fn images_are_loaded_listed_inspected_and_removed() {
    let cluster = TestCluster::start();
    cluster.load_sample("batch");
    let list = cluster.wherry(&["image", "ls"]);
    assert!(list.stdout.contains("samples/batch"), "{list:?}");
    let inspect = cluster.wherry(&["image", "inspect", "samples/batch:v1"]);
    assert!(inspect.stdout.contains("sha256:"), "{inspect:?}");
    let removed = cluster.wherry(&["image", "rm", "samples/batch:v1"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let list = cluster.wherry(&["image", "ls"]);
    assert!(!list.stdout.contains("samples/batch"), "{list:?}");
    let missing = cluster.wherry(&["image", "inspect", "samples/batch:v1"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("samples/batch:v1"), "{missing:?}");
}
