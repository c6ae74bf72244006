//! Every sample does what its README says.

use crate::support::{TestCluster, eventually, get};

#[test]
fn hello_http_answers_from_all_three_replicas() {
    let cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let service = cluster.service("hello-http");
    let pods =
        cluster.ok(&["get", "pods", "-l", "app=hello-http", "-o", "jsonpath={.items[*].metadata.name}"]);
    let pods: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(pods.len(), 3);
    let mut silent = pods.clone();
    eventually("an answer from every pod", || {
        let body = get(service, "/some/path?q=1");
        assert!(body.ends_with("you asked for /some/path?q=1\n"), "{body}");
        silent.retain(|pod| !body.contains(pod));
        if silent.is_empty() { Ok(()) } else { Err(format!("{silent:?} did not answer")) }
    });
}

#[test]
fn greeter_config_sees_a_changed_config_map_without_a_restart() {
    let cluster = TestCluster::start();
    cluster.apply_sample("greeter-config");
    cluster.ok(&["rollout", "status", "deployment/greeter-config", "--timeout=60s"]);
    let service = cluster.service("greeter-config");
    assert_eq!(get(service, "/"), "greeting: Good morning\nat start: Good morning\nsecret: 13 characters\n");

    let patch = r#"{"data":{"greeting":"Good evening"}}"#;
    cluster.ok(&["patch", "configmap", "greeter-config", "--type=merge", "-p", patch]);
    eventually("the changed greeting", || {
        let body = get(service, "/");
        if body.starts_with("greeting: Good evening\nat start: Good morning\n") { Ok(()) } else { Err(body) }
    });
    let restarts =
        cluster.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"]);
    assert_eq!(restarts, "0");
}

#[test]
fn batch_ends_with_the_exit_code_it_was_asked_for() {
    let cluster = TestCluster::start();
    cluster.apply_sample("batch");
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/batch", "--timeout=60s"]);
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/batch-fails", "--timeout=60s"]);
    assert_eq!(cluster.ok(&["logs", "batch"]), "2262 primes below 20000\n");
    let failed = cluster.ok(&["logs", "batch-fails"]);
    assert!(failed.contains("ending with exit code 3, as asked\n"), "{failed}");
    let state = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(cluster.ok(&["get", "pod", "batch", "-o", state]), "0 Completed");
    assert_eq!(cluster.ok(&["get", "pod", "batch-fails", "-o", state]), "3 Error");
    let table = cluster.ok(&["get", "pods", "--no-headers"]);
    let statuses: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(statuses, [["batch", "0/1", "Completed"], ["batch-fails", "0/1", "Error"]], "{table}");
}

#[test]
fn stateful_volume_keeps_the_visitors_book_until_the_claim_is_deleted() {
    let cluster = TestCluster::start();
    for before in ["0 before me\n", "1 before me\n"] {
        cluster.apply_sample("stateful-volume");
        cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/visitor", "--timeout=60s"]);
        assert_eq!(cluster.ok(&["logs", "visitor"]), before);
        if before.starts_with('0') {
            cluster.ok(&["delete", "pod", "visitor"]);
        }
    }
    cluster.ok(&["delete", "pvc", "visitors-book", "--wait=false"]);
    let table = cluster.ok(&["get", "pvc", "--no-headers"]);
    assert!(table.contains("Terminating"), "{table}");
    cluster.ok(&["delete", "pod", "visitor"]);
    eventually("the end of claim and volume", || {
        let left = cluster.ok(&["get", "pv,pvc", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn go_cron_like_reads_its_arguments() {
    let cluster = TestCluster::start();
    cluster.apply_sample("go-cron-like");
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/go-cron-like", "--timeout=90s"]);
    let log = cluster.ok(&["logs", "go-cron-like"]);
    assert_eq!(log, "run 1: [water the plants]\nrun 2: [water the plants]\nrun 3: [water the plants]\n");
}

#[test]
fn crash_is_restarted_with_back_off() {
    let cluster = TestCluster::start();
    cluster.apply_sample("crash");
    eventually("the back-off", || {
        let table = cluster.ok(&["get", "pod", "crash", "--no-headers"]);
        if table.contains("CrashLoopBackOff") { Ok(()) } else { Err(table) }
    });
    let last = cluster.ok(&[
        "get",
        "pod",
        "crash",
        "-o",
        "jsonpath={.status.containerStatuses[0].lastState.terminated}",
    ]);
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["reason"], "Error", "{last}");
    assert!(last["message"].as_str().unwrap_or_default().contains("unreachable"), "{last}");
    assert_eq!(cluster.ok(&["logs", "crash", "--previous"]), "about to trap\n");
    let description = cluster.ok(&["describe", "pod", "crash"]);
    assert!(description.contains("Back-off restarting failed container"), "{description}");
}

#[test]
fn memory_hog_is_oom_killed() {
    let cluster = TestCluster::start();
    cluster.apply_sample("memory-hog");
    cluster.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/memory-hog", "--timeout=60s"]);
    let state = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(cluster.ok(&["get", "pod", "memory-hog", "-o", state]), "137 OOMKilled");
    let log = cluster.ok(&["logs", "memory-hog"]);
    assert!(log.contains("24 MiB\n") && !log.contains("32 MiB\n"), "{log}");
}

#[test]
#[ignore = "needs guests of make samples"]
fn functions() {
    let cluster = TestCluster::start();
    for (name, language) in [("python-function", "Python"), ("js-function", "JavaScript")] {
        cluster.apply_sample(name);
        let deployment = format!("deployment/{name}");
        // The first start compiles an interpreter.
        cluster.ok(&["rollout", "status", &deployment, "--timeout=180s"]);
        let selector = format!("app={name}");
        let pod = cluster.ok(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].metadata.name}"]);
        let body = get(cluster.service(name), "/some/path");
        assert_eq!(body, format!("Hello from {language} in {pod}, you asked for /some/path\n"));
    }
}

/// Small guests are kept prebuilt; they must do what their source does.
#[test]
fn prebuilt_guests_behave_as_guests_built_from_source() {
    let cluster = TestCluster::start();
    for name in ["batch", "crash", "memory-hog"] {
        let folder = crate::support::samples_folder().join(name);
        let mut seen = Vec::new();
        for file in [folder.join(format!("{name}.wasm")), folder.join("build").join(format!("{name}.wasm"))] {
            let pod = format!("{name}-{}", seen.len());
            let image = format!("compare/{pod}:v1");
            let loaded = cluster.wherry(&["image", "load", file.to_str().unwrap(), "--name", &image]);
            assert_eq!(loaded.code, 0, "{loaded:?}; samples/build.sh builds the guests");
            let overrides = r#"{"spec":{"containers":[{"name":"NAME","image":"IMAGE","resources":{"limits":{"memory":"16Mi"}}}]}}"#;
            let overrides = overrides.replace("NAME", &pod).replace("IMAGE", &image);
            cluster.ok(&["run", &pod, "--image", &image, "--restart=Never", "--overrides", &overrides]);
            let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
            let code =
                eventually("the end of the pod", || match cluster.ok(&["get", "pod", &pod, "-o", code]) {
                    empty if empty.is_empty() => Err(format!("{pod} has not ended")),
                    code => Ok(code),
                });
            seen.push((code, cluster.ok(&["logs", &pod])));
        }
        assert_eq!(seen[0], seen[1], "{name}");
    }
}
