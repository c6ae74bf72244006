//! The whole scheduler against an API server of a few lines: lists, watches, bindings, conditions, events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use wherry_client::Lifecycle;

use crate::testing::{node_with, pod_with};
use crate::{Config, run};

/// Pods and nodes by name, and whoever watches them.
struct Server {
    state: Mutex<Objects>,
    changes: broadcast::Sender<(&'static str, Value)>,
}

#[derive(Default)]
struct Objects {
    revision: u64,
    kinds: BTreeMap<&'static str, BTreeMap<String, Value>>,
    events: Vec<String>,
    bindings: usize,
    refuse_bindings: usize,
}

type Frames = futures::stream::BoxStream<'static, Result<http_body::Frame<Bytes>, Infallible>>;

fn frame(value: &Value) -> Result<http_body::Frame<Bytes>, Infallible> {
    Ok(http_body::Frame::data(Bytes::from(format!("{value}\n"))))
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::channel(4096).0 })
    }

    fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        wherry_client::connect::in_process(tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        }))
    }

    fn put(&self, kind: &'static str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        object["apiVersion"] = json!("v1");
        object["kind"] = json!(if kind == "pods" { "Pod" } else { "Node" });
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let is_new = state.kinds.entry(kind).or_default().insert(name, object.clone()).is_none();
        let change = json!({ "type": if is_new { "ADDED" } else { "MODIFIED" }, "object": object });
        let _ = self.changes.send((kind, change));
    }

    fn delete(&self, kind: &'static str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let mut object = state.kinds.get_mut(kind).unwrap().remove(name).unwrap();
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let _ = self.changes.send((kind, json!({ "type": "DELETED", "object": object })));
    }

    fn get(&self, kind: &'static str, name: &str) -> Value {
        let state = self.state.lock().unwrap();
        state.kinds.get(kind).and_then(|objects| objects.get(name)).cloned().unwrap_or_default()
    }

    async fn answer(&self, request: Request<Body>) -> Response<StreamBody<Frames>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path: Vec<_> = parts.uri.path().trim_matches('/').split('/').collect();
        let query = parts.uri.query().unwrap_or_default();
        let (code, answer) = match (&parts.method, &path[..]) {
            (&Method::GET, ["api", "v1", kind] | ["apis", _, "v1", kind]) if query.contains("watch") => {
                return self.watch(kind, query);
            }
            (&Method::GET, ["api", "v1", kind] | ["apis", _, "v1", kind]) => (200, self.list(kind)),
            (&Method::POST, [.., "pods", name, "binding"]) => self.bind(name, &body),
            (&Method::PATCH, [.., "pods", name, "status"]) => (200, self.patch_status(name, &body)),
            (&Method::POST, [.., "events"]) => {
                let told =
                    format!("{} {}", body["reason"].as_str().unwrap(), body["message"].as_str().unwrap());
                self.state.lock().unwrap().events.push(told);
                (201, body)
            }
            (&Method::PATCH, [.., "events", _]) => (200, body),
            other => panic!("not expected: {other:?}"),
        };
        let frames = futures::stream::iter([frame(&answer)]).boxed();
        Response::builder().status(code).body(StreamBody::new(frames)).unwrap()
    }

    fn list(&self, kind: &str) -> Value {
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state.kinds.get(kind).into_iter().flat_map(BTreeMap::values).cloned().collect();
        let kind = if kind == "pods" { "PodList" } else { "NodeList" };
        json!({ "apiVersion": "v1", "kind": kind, "items": items,
            "metadata": { "resourceVersion": state.revision.to_string() } })
    }

    fn watch(&self, kind: &str, query: &str) -> Response<StreamBody<Frames>> {
        let state = self.state.lock().unwrap();
        let changes = self.changes.subscribe();
        let mut first = Vec::new();
        if query.contains("sendInitialEvents=true") {
            for object in state.kinds.get(kind).into_iter().flat_map(BTreeMap::values) {
                first.push(json!({ "type": "ADDED", "object": object }));
            }
            first.push(json!({ "type": "BOOKMARK", "object": {
                "apiVersion": "v1", "kind": if kind == "pods" { "Pod" } else { "Node" }, "metadata": {
                    "resourceVersion": state.revision.to_string(),
                    "annotations": { "k8s.io/initial-events-end": "true" },
                },
            } }));
        }
        let kind = kind.to_owned();
        let changes = futures::stream::unfold(changes, |mut changes| async move {
            changes.recv().await.ok().map(|change| (change, changes))
        });
        let changes = changes.filter_map(move |(of, change)| {
            let is_mine = of == kind;
            async move { is_mine.then_some(change) }
        });
        let frames = futures::stream::iter(first).chain(changes).map(|value| frame(&value)).boxed();
        Response::builder().status(200).body(StreamBody::new(frames)).unwrap()
    }

    fn bind(&self, name: &str, binding: &Value) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                "reason": reason, "message": "no" }),
            )
        };
        let mut pod = self.get("pods", name);
        if pod.is_null() {
            return failure(404, "NotFound");
        }
        {
            let mut state = self.state.lock().unwrap();
            if state.refuse_bindings > 0 {
                state.refuse_bindings -= 1;
                return failure(500, "InternalError");
            }
            state.bindings += 1;
        }
        assert_eq!(binding["target"]["kind"], "Node");
        assert_eq!(binding["metadata"]["uid"], pod["metadata"]["uid"], "the pod that was decided upon");
        assert!(pod["spec"]["nodeName"].is_null(), "{name} is bound once");
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put("pods", pod);
        (201, json!({ "apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201 }))
    }

    fn patch_status(&self, name: &str, patch: &Value) -> Value {
        let mut pod = self.get("pods", name);
        pod["status"]["conditions"] = patch["status"]["conditions"].clone();
        self.put("pods", pod.clone());
        pod
    }

    async fn until<T>(&self, told: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                if let Some(found) = check(self) {
                    return found;
                }
                // Events are written without a change that is watched: look again after a while, too.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.unwrap_or_else(|_| panic!("{told}"))
    }

    async fn until_bound(&self, name: &str) -> String {
        let node = |server: &Self| server.get("pods", name)["spec"]["nodeName"].as_str().map(str::to_owned);
        self.until(&format!("{name} is bound"), node).await
    }

    async fn until_condition(&self, name: &str) -> Value {
        let condition = |server: &Self| Some(server.get("pods", name)["status"]["conditions"][0].clone());
        let is_there = |server: &Self| condition(server).filter(|condition| !condition.is_null());
        self.until(&format!("{name} has a condition"), is_there).await
    }

    fn put_node(&self, name: &str, parts: Value) {
        self.put("nodes", serde_json::to_value(&*node_with(name, parts)).unwrap());
    }

    fn put_pod(&self, name: &str, spec: Value) {
        self.put("pods", serde_json::to_value(&*pod_with(name, spec).pod).unwrap());
    }
}

async fn with_scheduler<T>(server: &Arc<Server>, test: impl Future<Output = T>) -> T {
    let (lifecycle, mut report) = Lifecycle::new();
    let shutdown = lifecycle.shutdown.clone();
    let running = tokio::spawn(run(server.client(), Config::default(), lifecycle));
    assert!(report.wait_ready().await);
    let result = test.await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    result
}

fn asking(cpu: &str) -> Value {
    json!({ "containers": [{ "name": "main", "resources": { "requests": { "cpu": cpu } } }] })
}

#[tokio::test]
async fn a_pod_is_bound_and_its_owner_is_told() {
    let server = Server::new();
    server.put_node("n1", json!({}));
    server.put_pod("before", asking("1"));
    with_scheduler(&server, async {
        assert_eq!(server.until_bound("before").await, "n1");
        server.put_pod("after", asking("1"));
        assert_eq!(server.until_bound("after").await, "n1");
        let expected = "Scheduled Successfully assigned default/after to n1";
        let is_told = |server: &Server| {
            server.state.lock().unwrap().events.iter().any(|event| event == expected).then_some(())
        };
        server.until("the event", is_told).await;
    })
    .await;
}

#[tokio::test]
async fn an_unschedulable_pod_is_told_why_and_bound_when_a_node_comes_that_will_do() {
    let server = Server::new();
    server.put_node("small", json!({ "status": { "allocatable": { "cpu": "1" } } }));
    server.put_node("tainted", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }));
    server.put_pod("a", asking("2"));
    with_scheduler(&server, async {
        let condition = server.until_condition("a").await;
        let message = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).";
        assert_eq!(condition["type"], "PodScheduled");
        assert_eq!(condition["status"], "False");
        assert_eq!(condition["reason"], "Unschedulable");
        assert_eq!(condition["message"], message);
        let is_told = |server: &Server| {
            let state = server.state.lock().unwrap();
            state.events.contains(&format!("FailedScheduling {message}")).then_some(())
        };
        server.until("the event", is_told).await;
        server.put_node("large", json!({ "status": { "allocatable": { "cpu": "4" } } }));
        assert_eq!(server.until_bound("a").await, "large");
    })
    .await;
}

#[tokio::test]
async fn a_pod_waits_until_another_makes_room() {
    let server = Server::new();
    server.put_node("n1", json!({ "status": { "allocatable": { "cpu": "1" } } }));
    server.put_pod("first", asking("800m"));
    with_scheduler(&server, async {
        server.until_bound("first").await;
        server.put_pod("second", asking("800m"));
        server.until_condition("second").await;
        server.delete("pods", "first");
        assert_eq!(server.until_bound("second").await, "n1");
    })
    .await;
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again_and_holds_no_room_meanwhile() {
    let server = Server::new();
    server.put_node("n1", json!({ "status": { "allocatable": { "cpu": "1" } } }));
    server.state.lock().unwrap().refuse_bindings = 1;
    with_scheduler(&server, async {
        server.put_pod("refused", asking("800m"));
        let condition = server.until_condition("refused").await;
        assert_eq!(condition["reason"], "SchedulerError");
        assert!(condition["message"].as_str().unwrap().starts_with("binding rejected: "), "{condition}");
        assert_eq!(server.until_bound("refused").await, "n1");
    })
    .await;
}

#[tokio::test]
async fn gated_pods_and_those_of_other_schedulers_are_left_alone() {
    let server = Server::new();
    server.put_node("n1", json!({}));
    server.put_pod("gated", json!({ "schedulingGates": [{ "name": "example.com/gate" }] }));
    server.put_pod("others", json!({ "schedulerName": "another" }));
    server.put_pod("mine", json!({}));
    with_scheduler(&server, async {
        server.until_bound("mine").await;
        for name in ["gated", "others"] {
            assert!(server.get("pods", name)["spec"]["nodeName"].is_null(), "{name}");
        }
        server.put_pod("gated", json!({ "schedulingGates": [] }));
        assert_eq!(server.until_bound("gated").await, "n1");
    })
    .await;
}

#[tokio::test]
async fn a_burst_is_bound_once_each_and_no_node_gets_more_than_it_has() {
    const PODS: usize = 300;
    let server = Server::new();
    for n in 0..10 {
        server.put_node(&format!("n{n}"), json!({ "status": { "allocatable": { "cpu": "3" } } }));
    }
    with_scheduler(&server, async {
        for n in 0..PODS {
            server.put_pod(&format!("p{n:03}"), asking("100m"));
        }
        for n in 0..PODS {
            server.until_bound(&format!("p{n:03}")).await;
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for pod in server.state.lock().unwrap().kinds["pods"].values() {
            *counts.entry(pod["spec"]["nodeName"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert!(counts.values().all(|count| *count == 30), "{counts:?}");
        assert_eq!(server.state.lock().unwrap().bindings, PODS);
    })
    .await;
}
