//! A cluster whose store is etcd.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
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
fn watch(mut kubectl: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut watch =
        kubectl.args(["get", "configmaps", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
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

    let (mut watching, mut lines) = watch(cluster.kubectl_command());
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
        let refused =
            cluster.kubectl(&["create", "configmap", &format!("refused-{round}"), "--request-timeout=3s"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        etcd.start_again();

        let name = format!("accepted-{round}");
        eventually("a write after the restart", || {
            let output = cluster.kubectl(&["create", "configmap", &name]);
            if output.code == 0 { Ok(()) } else { Err(output.stderr) }
        });
        let (mut watching, lines) = watch(cluster.kubectl_command());
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

#[test]
fn two_servers_over_one_etcd_are_one_cluster() {
    let etcd = TestEtcd::start();
    let cluster = with_hello(&etcd);
    let second = cluster.second_api_server(&etcd.store());
    let pod = cluster.ok(&["get", "pods", "-o", "name"]).lines().next().unwrap().to_owned();
    second.ok(&["logs", &pod]);

    // Each server's watchers see what was written through the other.
    for (round, watched) in [cluster.kubectl_command(), second.kubectl_command()].into_iter().enumerate() {
        let (mut watching, mut lines) = watch(watched);
        for number in [2 * round, 2 * round + 1] {
            let name = format!("zebra-{number}");
            let create = ["create", "configmap", &name];
            if round == 0 {
                second.ok(&create)
            } else {
                cluster.ok(&create)
            };
            assert!(lines.by_ref().map_while(Result::ok).any(|line| line == format!("configmap/{name}")));
        }
        watching.kill().unwrap();
        watching.wait().unwrap();
    }

    // What one server has acknowledged, the other knows at once; what is old is refused by both.
    cluster.ok(&["create", "configmap", "shared", "--from-literal=round=0"]);
    for round in 1..=20 {
        let old = cluster.ok(&["get", "configmap", "shared", "-o", "json"]);
        second.ok(&["patch", "configmap", "shared", "-p", &format!(r#"{{"data":{{"round":"{round}"}}}}"#)]);
        let seen = cluster.ok(&["get", "configmap", "shared", "-o", "jsonpath={.data.round}"]);
        assert_eq!(seen, round.to_string());
        let refused = cluster.kubectl_with_input(&["replace", "-f", "-"], &old);
        assert!(refused.stderr.contains("the object has been modified"), "{refused:?}");
    }
    let both = ["get", "configmaps,pods", "-o", "jsonpath={.items[*].metadata.resourceVersion}"];
    assert_eq!(cluster.ok(&both), second.ok(&both));
}
