//! A cluster whose store is etcd.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use crate::support::{TestCluster, TestEtcd, eventually, get};

/// A cluster on this etcd, with hello-http rolled out.
fn with_hello(etcd: &TestEtcd) -> TestCluster {
    let cluster = TestCluster::start_with(&["--store", &etcd.store()]);
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    cluster
}

/// `kubectl get configmaps -w`, past what was there before.
fn watch(cluster: &TestCluster) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut watch = cluster
        .kubectl_command()
        .args(["get", "configmaps", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "configmap/kube-root-ca.crt"));
    (watch, lines)
}

#[test]
fn a_cluster_on_etcd_serves_watches_and_is_there_again_after_a_restart() {
    let etcd = TestEtcd::start();
    let mut cluster = with_hello(&etcd);
    assert!(!cluster.data_dir().join("state.redb").exists(), "the embedded store was used");
    get(cluster.service("hello-http"), "/");

    let (mut watching, mut lines) = watch(&cluster);
    cluster.ok(&["create", "configmap", "first"]);
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/first");
    cluster.ok(&["label", "configmap", "first", "seen=yes"]);
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/first");
    cluster.ok(&["create", "configmap", "second"]);
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/second");
    watching.kill().unwrap();
    watching.wait().unwrap();

    let identities = "jsonpath={.items[*].metadata.uid}";
    let before = cluster.ok(&["get", "deployments,services,configmaps", "-o", identities]);
    let status = cluster.stop();
    assert!(status.success(), "{status}\n{}", cluster.log());
    cluster.start_again();
    assert_eq!(cluster.ok(&["get", "deployments,services,configmaps", "-o", identities]), before);
    eventually("the pods after the restart", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if table.contains("3/3") { Ok(()) } else { Err(table) }
    });
    get(cluster.service("hello-http"), "/");
}

#[test]
fn a_cluster_converges_after_its_etcd_was_killed_and_started_again() {
    let mut etcd = TestEtcd::start();
    let cluster = with_hello(&etcd);
    let service = cluster.service("hello-http");

    for round in 0..3 {
        etcd.kill();
        // What runs goes on without a store, and what is written is refused, not lost.
        get(service, "/without-a-store");
        let refused = cluster.kubectl(&["create", "configmap", &format!("refused-{round}"), "--request-timeout=3s"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        etcd.start_again();

        let name = format!("accepted-{round}");
        eventually("a write after the restart", || {
            let output = cluster.kubectl(&["create", "configmap", &name]);
            if output.code == 0 { Ok(()) } else { Err(output.stderr) }
        });
        let (mut watching, lines) = watch(&cluster);
        let later = format!("later-{round}");
        cluster.ok(&["create", "configmap", &later]);
        assert!(lines.map_while(Result::ok).any(|line| line == format!("configmap/{later}")));
        watching.kill().unwrap();
        watching.wait().unwrap();

        let replicas = 4 + round;
        cluster.ok(&["scale", "deployment/hello-http", &format!("--replicas={replicas}")]);
        eventually("the scaled deployment", || {
            let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
            if table.contains(&format!("{replicas}/{replicas}")) { Ok(()) } else { Err(table) }
        });
        get(service, "/");
    }
    cluster.ok(&["get", "--raw", "/readyz"]);
}
