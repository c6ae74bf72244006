//! kubectl's commands, each as against a Kubernetes cluster.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use crate::support::{TestCluster, eventually};

/// A cluster with hello-http rolled out.
fn with_hello() -> TestCluster {
    let cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    cluster
}

fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn get_prints_kubernetes_columns() {
    let cluster = with_hello();
    let table = |arguments: &[&str]| -> Vec<Vec<String>> {
        let text = cluster.ok(arguments);
        text.lines()
            .map(|line| {
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
            })
            .collect()
    };
    let nodes = table(&["get", "nodes"]);
    assert_eq!(nodes[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    assert_eq!(nodes[1][..2], ["test-node", "Ready"]);
    let pods = table(&["get", "pods", "-A", "-o", "wide"]);
    assert_eq!(
        pods[0],
        [
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED NODE",
            "READINESS GATES"
        ]
    );
    assert_eq!(pods.len(), 4);
    for pod in &pods[1..] {
        assert_eq!((pod[2].as_str(), pod[3].as_str(), pod[4].as_str()), ("1/1", "Running", "0"), "{pod:?}");
        assert_eq!(pod[7], "test-node");
    }
    let deployments = table(&["get", "deploy", "-o", "wide"]);
    assert_eq!(
        deployments[0],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    );
    assert_eq!(deployments[1][..4], ["hello-http", "3/3", "3", "3"]);
    let services = table(&["get", "svc"]);
    assert_eq!(services[0], ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(services[1][1], "ClusterIP");
    let slices = table(&["get", "endpointslices", "-l", "kubernetes.io/service-name=hello-http"]);
    assert_eq!(slices[0], ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]);
    assert_eq!(slices[1][3].split(',').count(), 3, "{slices:?}");
    contains_all(
        &cluster.ok(&["api-resources"]),
        &["deployments", "deploy", "apps/v1", "endpointslices", "rolebindings"],
    );
    contains_all(
        &cluster.ok(&["get", "pods", "-o", "yaml"]),
        &["qosClass: Burstable", &format!("podIP: {}", cluster.site().pod_prefix())],
    );
}

#[test]
fn a_rollout_is_updated_watched_undone_and_its_history_kept() {
    let cluster = with_hello();
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let wasm = crate::support::samples_folder().join("hello-http/hello-http.wasm");
    let loaded =
        cluster.wherry(&["image", "load", wasm.to_str().unwrap(), "--name", "samples/hello-http:v2"]);
    assert_eq!(loaded.code, 0, "{loaded:?}");

    cluster.ok(&["set", "image", "deployment/hello-http", "hello=samples/hello-http:v2"]);
    let status = cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);
    contains_all(&status, &[r#"deployment "hello-http" successfully rolled out"#]);
    let history = cluster.ok(&["rollout", "history", "deployment/hello-http"]);
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");

    cluster.ok(&["rollout", "undo", "deployment/hello-http"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);
    assert_eq!(cluster.ok(&["get", "deployment", "hello-http", "-o", image]), "samples/hello-http:v1");
    let history = cluster.ok(&["rollout", "history", "deployment/hello-http"]);
    let revisions: Vec<&str> = history
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.parse::<u32>().is_ok())
        .collect();
    assert_eq!(revisions, ["2", "3"], "{history}");

    cluster.ok(&["rollout", "pause", "deployment/hello-http"]);
    cluster.ok(&["set", "env", "deployment/hello-http", "A=b"]);
    let updated =
        cluster.ok(&["get", "deployment", "hello-http", "-o", "jsonpath={.status.updatedReplicas}"]);
    assert!(updated != "3" || cluster.ok(&["get", "rs", "--no-headers"]).lines().count() == 2);
    cluster.ok(&["rollout", "resume", "deployment/hello-http"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);
    cluster.ok(&["rollout", "restart", "deployment/hello-http"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=90s"]);

    cluster.ok(&["scale", "deployment/hello-http", "--replicas=1"]);
    eventually("one pod", || {
        let pods = cluster.ok(&["get", "pods", "-l", "app=hello-http", "-o", "name"]);
        if pods.lines().count() == 1 { Ok(()) } else { Err(pods) }
    });
    let events = cluster.ok(&["get", "events"]);
    contains_all(
        &events,
        &[
            "ScalingReplicaSet",
            "Scaled up replica set hello-http-",
            "SuccessfulCreate",
            "Scheduled",
            "Pulled",
            "Created",
            "Started",
            "Killing",
        ],
    );
}

#[test]
fn describe_shows_what_a_person_needs() {
    let cluster = with_hello();
    let pod = cluster.ok(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    contains_all(
        &cluster.ok(&["describe", "pod", &pod]),
        &[
            &format!("Node:                test-node/{}", cluster.node_ip()),
            "Status:              Running",
            "State:          Running",
            "QoS Class:                   Burstable",
            "Successfully assigned default/",
            "Started container",
        ],
    );
    contains_all(
        &cluster.ok(&["describe", "deploy", "hello-http"]),
        &[
            "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
            "NewReplicaSetAvailable",
            "Scaled up replica set",
        ],
    );
    contains_all(
        &cluster.ok(&["describe", "node", "test-node"]),
        &["KubeletReady", "Allocatable:", "hello-http-", "Kubelet Version:"],
    );
    let service = cluster.ok(&["describe", "svc", "hello-http"]);
    contains_all(&service, &["Selector:", "app=hello-http", "Endpoints:", ":8080"]);
    contains_all(
        &cluster.ok(&["explain", "deployment.spec.strategy"]),
        &["FIELD: strategy <DeploymentStrategy>", "rollingUpdate", "DESCRIPTION:"],
    );
}

#[test]
fn watch_and_follow_stream_as_things_happen() {
    let cluster = TestCluster::start();
    let mut watch = cluster
        .kubectl_command()
        .args(["get", "configmaps", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/kube-root-ca.crt");
    cluster.ok(&["create", "configmap", "seen"]);
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/seen");
    watch.kill().unwrap();
    watch.wait().unwrap();

    cluster.load_sample("go-cron-like");
    cluster.apply_sample("go-cron-like");
    eventually("the log", || {
        let output = cluster.kubectl(&["logs", "-f", "go-cron-like"]);
        if output.code == 0 && output.stdout.lines().count() == 3 {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert_eq!(cluster.ok(&["logs", "go-cron-like", "--tail=1"]), "run 3: [water the plants]\n");
    let stamped = cluster.ok(&["logs", "go-cron-like", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.contains("Z run 3"), "{stamped}");
    assert_eq!(cluster.ok(&["logs", "go-cron-like", "--since=1h"]).lines().count(), 3);
}

#[test]
fn objects_are_created_exposed_run_labelled_patched_and_deleted() {
    let cluster = TestCluster::start();
    cluster.load_sample("hello-http");
    cluster.ok(&["create", "namespace", "n"]);
    let in_n = |arguments: &[&str]| -> String {
        let mut all = vec!["-n", "n"];
        all.extend(arguments);
        cluster.ok(&all)
    };
    in_n(&["create", "configmap", "c", "--from-literal=a=1"]);
    in_n(&["create", "secret", "generic", "s", "--from-literal=p=w"]);
    assert_eq!(in_n(&["get", "secret", "s", "-o", "jsonpath={.data.p}"]), "dw==");
    in_n(&["create", "deployment", "d", "--image=samples/hello-http:v1", "--port=8080"]);
    in_n(&["expose", "deployment", "d", "--port=8080"]);
    in_n(&["rollout", "status", "deployment/d", "--timeout=60s"]);
    in_n(&["run", "p", "--image=samples/hello-http:v1", "--port=8080"]);
    in_n(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    in_n(&["label", "pod", "p", "tier=front"]);
    in_n(&["annotate", "pod", "p", "note=x"]);
    assert_eq!(
        in_n(&["get", "pods", "-l", "tier=front", "-o", "jsonpath={.items[*].metadata.annotations.note}"]),
        "x"
    );

    in_n(&[
        "patch",
        "deployment",
        "d",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello-http","env":[{"name":"A","value":"1"}]}]}}}}"#,
    ]);
    in_n(&["patch", "deployment", "d", "--type=merge", "-p", r#"{"spec":{"replicas":2}}"#]);
    in_n(&[
        "patch",
        "deployment",
        "d",
        "--type=json",
        "-p",
        r#"[{"op":"add","path":"/metadata/labels/x","value":"y"}]"#,
    ]);
    let patched = "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[0].name} {.spec.replicas} {.metadata.labels.x}";
    assert_eq!(in_n(&["get", "deployment", "d", "-o", patched]), "samples/hello-http:v1 A 2 y");

    let manifest = in_n(&["get", "configmap", "c", "-o", "yaml"]).replace("a: \"1\"", "a: \"2\"");
    let diff = cluster.kubectl_with_input(&["-n", "n", "diff", "-f", "-"], &manifest);
    assert_eq!(diff.code, 1, "{diff:?}");
    contains_all(&diff.stdout, &["-  a: \"1\"", "+  a: \"2\""]);

    assert_eq!(cluster.kubectl(&["auth", "can-i", "create", "pods"]).stdout, "yes\n");
    let denied =
        cluster.kubectl(&["auth", "can-i", "create", "pods", "--as=system:serviceaccount:n:default"]);
    assert_eq!((denied.stdout.as_str(), denied.code), ("no\n", 1));
    let forbidden = cluster.kubectl(&["get", "pods", "-n", "n", "--as=system:serviceaccount:n:default"]);
    contains_all(
        &forbidden.stderr,
        &[
            r#"pods is forbidden: User "system:serviceaccount:n:default" cannot list resource "pods" in API group "" in the namespace "n""#,
        ],
    );

    cluster.ok(&["delete", "namespace", "n", "--timeout=60s"]);
    assert!(cluster.kubectl(&["get", "namespace", "n"]).stderr.contains(r#"namespaces "n" not found"#));
    let left = cluster.ok(&[
        "get",
        "all,configmaps,secrets",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.metadata.namespace}{\"\\n\"}{end}",
    ]);
    assert!(left.lines().all(|namespace| namespace != "n"), "{left}");
}

#[test]
fn a_node_is_cordoned_and_drained() {
    let cluster = with_hello();
    cluster.ok(&["cordon", "test-node"]);
    contains_all(&cluster.ok(&["get", "nodes"]), &["Ready,SchedulingDisabled"]);
    cluster.ok(&["drain", "test-node", "--ignore-daemonsets", "--timeout=60s"]);
    eventually("pods that wait", || {
        let table = cluster.ok(&["get", "pods", "--no-headers"]);
        if table.lines().count() == 3 && table.lines().all(|line| line.contains("Pending")) {
            Ok(())
        } else {
            Err(table)
        }
    });
    let events = cluster.ok(&["get", "events", "--field-selector=reason=FailedScheduling"]);
    contains_all(&events, &["0/1 nodes are available: 1 node(s) were unschedulable."]);
    cluster.ok(&["uncordon", "test-node"]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
}

#[test]
fn server_side_apply_tells_conflicts_shares_fields_and_removes_what_is_no_longer_applied() {
    let cluster = with_hello();
    let hello = |replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: hello-http\nspec:\n  replicas: {replicas}\n"
        )
    };
    let apply = |arguments: &[&str], manifest: &str| {
        let all = [&["apply", "--server-side", "-f", "-"], arguments].concat();
        cluster.kubectl_with_input(&all, manifest)
    };
    let refused = apply(&["--field-manager=autoscaler"], &hello(2));
    contains_all(
        &refused.stderr,
        &["Apply failed with 1 conflict", "kubectl-client-side-apply", "using apps/v1", ".spec.replicas"],
    );
    assert_ne!(refused.code, 0);
    let forced = apply(&["--field-manager=autoscaler", "--force-conflicts"], &hello(2));
    assert_eq!(forced.stdout, "deployment.apps/hello-http serverside-applied\n", "{}", forced.stderr);
    let replicas = ["get", "deployment", "hello-http", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.ok(&replicas), "2");
    let owners =
        "jsonpath={range .metadata.managedFields[*]}{.manager}/{.operation}/{.subresource}{\"\\n\"}{end}";
    let owners = cluster.ok(&["get", "deployment", "hello-http", "--show-managed-fields", "-o", owners]);
    contains_all(&owners, &["autoscaler/Apply/", "kube-controller-manager/Update/status"]);

    let config = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n{data}");
    for data in ["  a: \"1\"\n  b: \"1\"\n", "  a: \"1\"\n"] {
        let applied = apply(&[], &config(data));
        assert_eq!(applied.stdout, "configmap/c serverside-applied\n", "{}", applied.stderr);
    }
    assert_eq!(cluster.ok(&["get", "configmap", "c", "-o", "jsonpath={.data}"]), r#"{"a":"1"}"#);
    let diff = cluster.kubectl_with_input(&["diff", "--server-side", "-f", "-"], &config("  a: \"2\"\n"));
    contains_all(&diff.stdout, &["-  a: \"1\"", "+  a: \"2\""]);
}

#[test]
fn a_disruption_budget_stands_in_the_way_of_a_drain_until_it_has_something_to_give() {
    let cluster = with_hello();
    let budget = |least: u32| {
        format!(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: b\nspec:\n  minAvailable: {least}\n  \
             selector:\n    matchLabels:\n      app: hello-http\n"
        )
    };
    cluster.apply(&budget(3));
    let allowed = |count: &str| {
        eventually("the budget's status", || {
            let path = "jsonpath={.status.disruptionsAllowed}/{.status.currentHealthy}";
            let found = cluster.ok(&["get", "pdb", "b", "-o", path]);
            if found == count { Ok(()) } else { Err(found) }
        });
    };
    allowed("0/3");
    let node = cluster.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let drain = ["drain", &node, "--ignore-daemonsets", "--timeout=3s", "--pod-selector=app=hello-http"];
    let refused = cluster.kubectl(&drain);
    assert_ne!(refused.code, 0);
    contains_all(&refused.stderr, &["Cannot evict pod as it would violate the pod's disruption budget."]);
    cluster.apply(&budget(2));
    allowed("1/3");
    // One goes; its successor has nowhere to run while the node is cordoned, so the others stay.
    let refused = cluster.kubectl(&drain);
    assert_ne!(refused.code, 0);
    allowed("0/2");
    cluster.ok(&["uncordon", &node]);
    allowed("1/3");
}
