//! The kubelet with the fake runtime and an API server in memory: pods from their binding to their end.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod api;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::MockApi;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use wherry_client::Lifecycle;
use wherry_kubelet::{Config, RuntimeEntry, RuntimeRole};
use wherry_runtimes::fake::{Behaviour, Exit, FakeRuntime, SystemClock};
use wherry_runtimes::{ContainerFilter, Error, RuntimeService as _};

struct Node {
    api: MockApi,
    runtime: Arc<FakeRuntime>,
    directory: tempfile::TempDir,
    lifecycle: Lifecycle,
    kubelet: JoinHandle<Result<(), wherry_kubelet::Error>>,
}

impl Node {
    async fn start() -> Self {
        let runtime = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
        Self::start_with(MockApi::new(), runtime, tempfile::tempdir().unwrap(), |_| {}).await
    }

    async fn start_with(
        api: MockApi,
        runtime: Arc<FakeRuntime>,
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (lifecycle, mut report) = Lifecycle::new();
        let mut config = Config {
            node_name: "node-1".to_owned(),
            root_dir: directory.path().join("kubelet"),
            log_dir: directory.path().join("logs"),
            runtimes: vec![RuntimeEntry {
                handler: "wasmtime".to_owned(),
                runtime: runtime.clone(),
                role: RuntimeRole::Required,
            }],
            port: 0,
            pod_cidr: "127.64.0.0/16".to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let kubelet = tokio::spawn(wherry_kubelet::run(api.client(), config, lifecycle.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(20), report.wait_ready()).await.unwrap());
        Self { api, runtime, directory, lifecycle, kubelet }
    }

    async fn stop(self) -> (MockApi, Arc<FakeRuntime>, tempfile::TempDir) {
        self.lifecycle.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.kubelet).await.unwrap().unwrap().unwrap();
        (self.api, self.runtime, self.directory)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.api.client(), "default")
    }

    async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["nodeName"] = json!("node-1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    async fn config_map(&self, name: &str, data: Value) {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let api: Api<ConfigMap> = Api::namespaced(self.api.client(), "default");
        let object: ConfigMap = serde_json::from_value(object).unwrap();
        match api.get_opt(name).await.unwrap() {
            None => api.create(&PostParams::default(), &object).await.unwrap(),
            Some(_) => api.replace(name, &PostParams::default(), &object).await.unwrap(),
        };
    }

    /// Waits until a pod's status satisfies `check`, and answers it.
    async fn until(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        let mut last = Value::Null;
        while Instant::now() < end {
            if let Some(pod) = self.pods().get_opt(name).await.unwrap() {
                last = serde_json::to_value(pod).unwrap()["status"].clone();
                if check(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("pod {name} never was {what}: {last:#}");
    }

    async fn gone(&self, name: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.pods().get_opt(name).await.unwrap().is_some() {
            assert!(Instant::now() < end, "pod {name} is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn events(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.api
            .objects("/api/v1/events")
            .iter()
            .map(|e| format!("{} {}: {}", text(&e["type"]), text(&e["reason"]), text(&e["message"])))
            .collect()
    }

    async fn saw_event(&self, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.events().iter().any(|event| event == wanted) {
            assert!(Instant::now() < end, "no event {wanted:?} in {:#?}", self.events());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn is_ready(status: &Value) -> bool {
    status["phase"] == "Running"
        && status["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn waiting_reason(status: &Value, index: usize) -> &str {
    status["containerStatuses"][index]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

fn one_container(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_becomes_running_and_ready_and_is_deleted_without_a_trace() {
    let node = Node::start().await;
    node.create("web", one_container("web:1")).await;
    let started = Instant::now();
    let status = node.until("web", "ready", is_ready).await;
    eprintln!("bound to Ready: {:?}", started.elapsed());
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert!(status["podIP"].as_str().unwrap().starts_with("127."));
    let container = &status["containerStatuses"][0];
    assert_eq!(
        (&container["ready"], &container["started"], &container["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    let types: Vec<&str> =
        status["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    );
    node.saw_event("Normal Pulling: Pulling image \"web:1\"").await;
    node.saw_event("Normal Created: Created container: c").await;
    node.saw_event("Normal Started: Started container c").await;

    node.pods().delete("web", &DeleteParams::default()).await.unwrap();
    node.gone("web").await;
    node.saw_event("Normal Killing: Stopping container c").await;
    assert!(node.runtime.list_containers(&ContainerFilter::default()).await.unwrap().is_empty());
    let is_empty = |path: &Path| std::fs::read_dir(path).unwrap().next().is_none();
    assert!(
        is_empty(&node.directory.path().join("kubelet/pods"))
            && is_empty(&node.directory.path().join("logs"))
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_registers_with_what_the_machine_has() {
    let node = Node::start().await;
    let nodes = node.api.objects("/api/v1/nodes");
    assert_eq!(nodes[0]["metadata"]["labels"]["kubernetes.io/hostname"], "node-1");
    let status = &nodes[0]["status"];
    let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("KubeletReady")));
    assert_eq!(status["capacity"]["pods"], "10000");
    assert!(status["nodeInfo"]["kubeletVersion"].as_str().unwrap().starts_with("v1.36.0+wherry"));
    let end = Instant::now() + Duration::from_secs(5);
    while node.api.objects("/apis/coordination.k8s.io/v1/leases").is_empty() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lease = &node.api.objects("/apis/coordination.k8s.io/v1/leases")[0];
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseDurationSeconds"]),
        (&json!("node-1"), &json!(40))
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_is_restarted_with_back_off_and_shows_crash_loop() {
    let node = Node::start().await;
    let exit = Exit { code: 3, reason: String::new(), message: "it broke".to_owned() };
    node.runtime.script(
        "crash:1",
        Behaviour { exit: Some((Duration::from_millis(5), exit)), ..Behaviour::default() },
    );
    let pod = node.create("crash", one_container("crash:1")).await;
    let status = node.until("crash", "in back-off", |s| waiting_reason(s, 0) == "CrashLoopBackOff").await;
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    let uid = pod.metadata.uid.unwrap();
    assert_eq!(
        container["state"]["waiting"]["message"],
        format!("back-off 10s restarting failed container=c pod=crash_default({uid})")
    );
    let last = &container["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"], &last["message"]),
        (&json!(3), &json!("Error"), &json!("it broke"))
    );
    assert_eq!(status["phase"], "Running");
    node.saw_event(&format!(
        "Warning BackOff: Back-off restarting failed container c in pod crash_default({uid})"
    ))
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_not_restarted_succeed_or_fail_by_their_exit_codes() {
    let node = Node::start().await;
    for (name, code, phase) in [("good", 0, "Succeeded"), ("bad", 4, "Failed")] {
        let image = format!("{name}:1");
        let behaviour =
            Behaviour { exit: Some((Duration::from_millis(5), Exit::code(code))), ..Behaviour::default() };
        node.runtime.script(&image, behaviour);
        let mut spec = one_container(&image);
        spec["restartPolicy"] = json!("Never");
        node.create(name, spec).await;
        let status = node.until(name, phase, |s| s["phase"] == phase).await;
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    }
    let ready = |s: &Value| {
        s["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap()["reason"].clone()
    };
    assert_eq!(ready(&node.until("good", "written", |s| s["phase"] == "Succeeded").await), "PodCompleted");
    node.pods().delete("good", &DeleteParams::default()).await.unwrap();
    node.gone("good").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_before_the_others() {
    let node = Node::start().await;
    for image in ["first:1", "second:1"] {
        let behaviour =
            Behaviour { exit: Some((Duration::from_millis(20), Exit::code(0))), ..Behaviour::default() };
        node.runtime.script(image, behaviour);
    }
    let mut spec = one_container("main:1");
    spec["initContainers"] = json!([
        {"name": "one", "image": "first:1"},
        {"name": "side", "image": "side:1", "restartPolicy": "Always"},
        {"name": "two", "image": "second:1"}]);
    node.create("init", spec).await;
    let status = node.until("init", "ready", is_ready).await;
    let init = status["initContainerStatuses"].as_array().unwrap();
    assert_eq!(init[0]["state"]["terminated"]["reason"], "Completed");
    assert!(init[1]["state"]["running"].is_object());
    assert_eq!(init[2]["state"]["terminated"]["reason"], "Completed");
    let finished = |index: usize| init[index]["state"]["terminated"]["finishedAt"].as_str().unwrap();
    assert!(finished(0) <= init[1]["state"]["running"]["startedAt"].as_str().unwrap());
    assert!(finished(2) <= status["containerStatuses"][0]["state"]["running"]["startedAt"].as_str().unwrap());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_config_map_is_said_and_the_pod_starts_as_soon_as_it_exists() {
    let node = Node::start().await;
    let mut spec = one_container("web:1");
    spec["containers"][0]["env"] =
        json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]);
    node.create("web", spec).await;
    let status = node.until("web", "refused", |s| waiting_reason(s, 0) == "CreateContainerConfigError").await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"settings\" not found"
    );
    node.saw_event("Warning Failed: Error: configmap \"settings\" not found").await;
    let asked = Instant::now();
    node.config_map("settings", json!({"a": "1"})).await;
    node.until("web", "ready", is_ready).await;
    assert!(asked.elapsed() < Duration::from_secs(2));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_hold_their_files_and_follow_their_config_map() {
    let node = Node::start().await;
    node.config_map("settings", json!({"greeting": "hello"})).await;
    let mut spec = one_container("web:1");
    spec["volumes"] = json!([
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "settings", "mountPath": "/s"}, {"name": "scratch", "mountPath": "/t", "subPath": "a/b"}]);
    let pod = node.create("web", spec).await;
    node.until("web", "ready", is_ready).await;
    let volumes = node.directory.path().join("kubelet/pods").join(pod.metadata.uid.unwrap()).join("volumes");
    let read = |path: &str| std::fs::read_to_string(volumes.join(path)).unwrap_or_default();
    assert_eq!(read("kubernetes.io~configmap/settings/greeting"), "hello");
    assert_eq!(read("kubernetes.io~projected/api/token"), "a-token");
    assert_eq!(read("kubernetes.io~projected/api/labels"), "app=\"web\"");
    assert!(volumes.join("kubernetes.io~empty-dir/scratch/a/b").is_dir());
    node.config_map("settings", json!({"greeting": "good day"})).await;
    let end = Instant::now() + Duration::from_secs(2);
    while read("kubernetes.io~configmap/settings/greeting") != "good day" {
        assert!(Instant::now() < end, "the file did not change");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_said_and_tried_again() {
    let node = Node::start().await;
    node.runtime.fail_pull("gone:1", Some(wherry_runtimes::Error::NotFound("no such image".to_owned())));
    node.create("web", one_container("gone:1")).await;
    node.until("web", "ErrImagePull", |s| waiting_reason(s, 0) == "ErrImagePull").await;
    let status = node.until("web", "ImagePullBackOff", |s| waiting_reason(s, 0) == "ImagePullBackOff").await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "Back-off pulling image \"gone:1\": ErrImagePull: no such image"
    );
    assert_eq!(status["phase"], "Pending");
    node.saw_event("Warning Failed: Failed to pull image \"gone:1\": no such image").await;
    node.saw_event("Warning Failed: Error: ErrImagePull").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_takes_running_guests_over() {
    let node = Node::start().await;
    node.create("web", one_container("web:1")).await;
    let before = node.until("web", "ready", is_ready).await;
    let (api, runtime, directory) = node.stop().await;
    let ids = |list: Vec<wherry_runtimes::Container>| list.into_iter().map(|c| c.id).collect::<Vec<_>>();
    let running = ids(runtime.list_containers(&ContainerFilter::default()).await.unwrap());
    runtime.clear_calls();
    let node = Node::start_with(api, runtime.clone(), directory, |_| {}).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = node.until("web", "ready", is_ready).await;
    assert_eq!(before["containerStatuses"][0]["containerID"], after["containerStatuses"][0]["containerID"]);
    assert_eq!(ids(runtime.list_containers(&ContainerFilter::default()).await.unwrap()), running);
    assert!(
        !runtime
            .calls()
            .iter()
            .any(|call| call.starts_with("CreateContainer") || call.starts_with("StopContainer"))
    );
    // What was deleted while no kubelet ran is removed by the next one.
    let (api, runtime, directory) = node.stop().await;
    let pods: Api<Pod> = Api::namespaced(api.client(), "default");
    pods.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    let node = Node::start_with(api, runtime.clone(), directory, |_| {}).await;
    let end = Instant::now() + Duration::from_secs(5);
    while !runtime.list_containers(&ContainerFilter::default()).await.unwrap().is_empty() {
        assert!(Instant::now() < end, "the orphan is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_fit_fails_with_the_reason() {
    let node = Node::start().await;
    let mut spec = one_container("web:1");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "4000"}});
    node.create("big", spec).await;
    let status = node.until("big", "failed", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "OutOfcpu");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("Pod was rejected: Node didn't have enough resource: cpu")
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_runs_has_a_mirror_and_goes_with_its_manifest() {
    let manifests = tempfile::tempdir().unwrap();
    let path = manifests.path().to_owned();
    std::fs::write(
        path.join("web.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: static}\nspec: {containers: [{name: c, image: 'web:1'}]}\n",
    )
    .unwrap();
    let runtime = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
    let directory = tempfile::tempdir().unwrap();
    let from = path.clone();
    let node =
        Node::start_with(MockApi::new(), runtime, directory, |config| config.static_pod_dir = Some(from))
            .await;
    node.until("static-node-1", "ready", is_ready).await;
    std::fs::remove_file(path.join("web.yaml")).unwrap();
    node.gone("static-node-1").await;
    let end = Instant::now() + Duration::from_secs(10);
    while !node.runtime.list_containers(&ContainerFilter::default()).await.unwrap().is_empty() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

/// Answers HTTP on a free port: 200 while the flag is set, else 500.
async fn http_server(is_healthy: Arc<std::sync::atomic::AtomicBool>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().fallback(move || {
        let is_healthy = is_healthy.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            if is_healthy {
                axum::http::StatusCode::OK
            } else {
                axum::http::StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    let is_healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let port = http_server(is_healthy.clone()).await;
    let node = Node::start().await;
    let probe = |path: &str| json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path}, "periodSeconds": 1, "failureThreshold": 1});
    let mut spec = one_container("web:1");
    spec["containers"][0]["readinessProbe"] = probe("/ready");
    node.create("web", spec).await;
    node.until("web", "running", |s| s["phase"] == "Running").await;
    node.saw_event("Warning Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 500").await;
    let status = node.until("web", "running", |s| s["phase"] == "Running").await;
    assert!(!is_ready(&status));
    is_healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    node.until("web", "ready", is_ready).await;
    is_healthy.store(false, std::sync::atomic::Ordering::SeqCst);
    node.until("web", "unready again", |s| !is_ready(s)).await;

    let mut spec = one_container("web:1");
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["containers"][0]["livenessProbe"] = probe("/live");
    node.create("live", spec).await;
    node.saw_event("Normal Killing: Container c failed liveness probe, will be restarted").await;
    node.until("live", "restarted", |s| s["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_pays_no_heed_is_killed_after_its_grace_and_a_shorter_grace_is_followed() {
    let node = Node::start().await;
    let stubborn = Behaviour { on_stop: wherry_runtimes::fake::OnStop::Ignore, ..Behaviour::default() };
    node.runtime.script("stubborn:1", stubborn);
    node.create("web", one_container("stubborn:1")).await;
    node.until("web", "ready", is_ready).await;
    let asked = Instant::now();
    node.pods().delete("web", &DeleteParams::default().grace_period(60)).await.unwrap();
    node.saw_event("Normal Killing: Stopping container c").await;
    node.pods().delete("web", &DeleteParams::default().grace_period(1)).await.unwrap();
    node.gone("web").await;
    assert!(asked.elapsed() >= Duration::from_secs(1) && asked.elapsed() < Duration::from_secs(20));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_past_its_deadline_fails() {
    let node = Node::start().await;
    let mut spec = one_container("web:1");
    spec["activeDeadlineSeconds"] = json!(1);
    node.create("web", spec).await;
    let status = node.until("web", "failed", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sandbox_is_replaced_and_its_containers_start_again() {
    let node = Node::start().await;
    node.create("web", one_container("web:1")).await;
    let before = node.until("web", "ready", is_ready).await;
    let sandboxes =
        node.runtime.list_pod_sandbox(&wherry_runtimes::PodSandboxFilter::default()).await.unwrap();
    node.runtime.break_sandbox(&sandboxes[0].id);
    let is_new =
        |s: &Value| s["containerStatuses"][0]["containerID"] != before["containerStatuses"][0]["containerID"];
    let after = node.until("web", "ready again", |s| is_ready(s) && is_new(s)).await;
    assert_eq!(after["containerStatuses"][0]["restartCount"], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_runtime_gave_no_events_is_found_out_and_it_is_configured_again() {
    let node = Node::start().await;
    node.create("web", one_container("web:1")).await;
    let before = node.until("web", "ready", is_ready).await;
    let sandboxes =
        node.runtime.list_pod_sandbox(&wherry_runtimes::PodSandboxFilter::default()).await.unwrap();
    for _ in 0..3 {
        node.runtime.fail_next("GetContainerEvents", Error::Unavailable("connection refused".to_owned()));
    }
    node.runtime.clear_calls();
    node.runtime.break_events();
    node.runtime.break_sandbox(&sandboxes[0].id);
    let is_new =
        |s: &Value| s["containerStatuses"][0]["containerID"] != before["containerStatuses"][0]["containerID"];
    node.until("web", "ready again", |s| is_ready(s) && is_new(s)).await;
    let calls = node.runtime.calls();
    assert!(calls.contains(&"UpdateRuntimeConfig".to_owned()), "{calls:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_maker_got_no_answer_is_used_and_removed_with_its_pod() {
    let node = Node::start().await;
    node.runtime.fail_next("PodSandboxStatus", Error::Unavailable("connection reset".to_owned()));
    node.create("web", one_container("web:1")).await;
    node.until("web", "ready", is_ready).await;
    node.pods().delete("web", &DeleteParams::default()).await.unwrap();
    node.gone("web").await;
    let all = wherry_runtimes::PodSandboxFilter::default();
    assert!(node.runtime.list_pod_sandbox(&all).await.unwrap().is_empty());
    node.stop().await;
}

/// Certificates of a cluster's authority, the node, and two clients.
struct Certificates {
    ca_pem: String,
    node: (String, String),
    api_server: (String, String),
    stranger: (String, String),
}

fn certificates() -> Certificates {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let make = |name: &str, addresses: Vec<String>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut certificate = rcgen::CertificateParams::new(addresses).unwrap();
        certificate.distinguished_name = rcgen::DistinguishedName::new();
        certificate.distinguished_name.push(rcgen::DnType::CommonName, name);
        (certificate.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    Certificates {
        node: make("system:node:node-1", vec!["127.0.0.1".to_owned()]),
        api_server: make("kube-apiserver", Vec::new()),
        stranger: make("stranger", Vec::new()),
        ca_pem,
    }
}

/// GETs from the node's API with a client certificate, or none.
async fn node_get(port: u16, ca_pem: &str, client: Option<&(String, String)>, path: &str) -> (u16, String) {
    use http_body_util::BodyExt as _;
    use rustls::pki_types::pem::PemObject as _;
    let certificate = |pem: &str| rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(ca_pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some((pem, key)) => {
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(pem)], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "node")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    driver.abort();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_had_from_the_node_api_by_those_who_may() {
    let certificates = certificates();
    let runtime = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
    let (pem, key) = certificates.node.clone();
    let tls = wherry_kubelet::ServerTls {
        certificate_pem: pem,
        key_pem: key,
        client_ca_pem: certificates.ca_pem.clone(),
    };
    let node = Node::start_with(MockApi::new(), runtime, tempfile::tempdir().unwrap(), |config| {
        config.tls = Some(tls);
        config.trusted_client_names = vec!["kube-apiserver".to_owned()];
    })
    .await;
    let output = vec![
        (wherry_runtimes::log::Stream::Stdout, "hello".to_owned()),
        (wherry_runtimes::log::Stream::Stderr, "world".to_owned()),
    ];
    let exit = Some((Duration::from_millis(400), Exit::code(1)));
    node.runtime.script("talks:1", Behaviour { output, exit, ..Behaviour::default() });
    node.create("web", one_container("talks:1")).await;
    node.until("web", "running", |s| s["phase"] == "Running").await;
    let port = node.api.objects("/api/v1/nodes")[0]["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .unwrap();
    let port = u16::try_from(port).unwrap();
    let get = async |client: Option<&(String, String)>, path: &str| {
        node_get(port, &certificates.ca_pem, client, path).await
    };
    let trusted = Some(&certificates.api_server);

    let followed = get(trusted, "/containerLogs/default/web/c?follow=true").await;
    assert_eq!(followed, (200, "hello\nworld\n".to_owned()), "ends with the container");
    node.until("web", "in back-off", |s| waiting_reason(s, 0) == "CrashLoopBackOff").await;
    assert_eq!(get(trusted, "/containerLogs/default/web/c?tailLines=1").await, (200, "world\n".to_owned()));
    assert_eq!(
        get(trusted, "/containerLogs/default/web/c?previous=true&limitBytes=3").await,
        (200, "hel".to_owned())
    );
    let refused = get(trusted, "/containerLogs/default/web/nope").await;
    assert_eq!(refused, (404, "container \"nope\" not found in pod \"web\"\n".to_owned()));
    assert_eq!(get(trusted, "/containerLogs/default/none/c").await.0, 404);
    assert_eq!(get(trusted, "/healthz").await, (200, "ok".to_owned()));
    assert!(get(trusted, "/pods").await.1.contains("\"web\""));
    assert!(get(trusted, "/metrics").await.1.contains("kubelet_working_pods 1"));

    assert_eq!(get(None, "/pods").await.0, 401);
    assert_eq!(get(Some(&certificates.stranger), "/pods").await.0, 403);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_pods_start_at_once() {
    let node = Node::start().await;
    node.runtime.add_image("web:1");
    let started = Instant::now();
    let names: Vec<String> = (0..300).map(|n| format!("p-{n}")).collect();
    for name in &names {
        node.create(name, one_container("web:1")).await;
    }
    for name in &names {
        node.until(name, "ready", is_ready).await;
    }
    eprintln!("300 pods in {:?}", started.elapsed());
    let stopping = Instant::now();
    node.stop().await;
    eprintln!("stopped in {:?}", stopping.elapsed());
}
