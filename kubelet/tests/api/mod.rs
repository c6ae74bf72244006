//! An API server of two hundred lines: enough of REST, watch and patch for a kubelet, in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

#[derive(Clone)]
pub(crate) struct MockApi {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<(u64, &'static str, String, Value)>,
}

#[derive(Default)]
struct Inner {
    revision: u64,
    objects: BTreeMap<String, Value>,
    log: Vec<(u64, &'static str, String, Value)>,
}

struct Target {
    /// Path of the collection in all namespaces: `/api/v1/pods`.
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let prefix = if parts[0] == "api" { 2 } else { 3 };
        let (head, mut rest) = parts.split_at(prefix);
        let mut namespace = None;
        if rest.len() >= 3 && rest[0] == "namespaces" {
            namespace = Some(rest[1].to_owned());
            rest = &rest[2..];
        }
        Self {
            resource: format!("/{}/{}", head.join("/"), rest[0]),
            namespace,
            name: rest.get(1).map(|s| (*s).to_owned()),
            subresource: rest.get(2).map(|s| (*s).to_owned()),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.resource, self.namespace.as_deref().unwrap_or_default())
    }

    fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}/", self.resource),
            None => format!("{}/", self.resource),
        }
    }
}

impl MockApi {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), events: broadcast::Sender::new(100_000) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let router = axum::Router::new().fallback(serve).with_state(self.clone());
        kube::Client::new(router, "default")
    }

    pub(crate) fn objects(&self, resource: &str) -> Vec<Value> {
        let inner = self.inner.lock().unwrap();
        inner
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("{resource}/")))
            .map(|(_, v)| v.clone())
            .collect()
    }

    fn put(&self, kind: &'static str, key: String, mut object: Value) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.revision += 1;
        let revision = inner.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        if kind == "DELETED" {
            inner.objects.remove(&key);
        } else {
            inner.objects.insert(key.clone(), object.clone());
        }
        inner.log.push((revision, kind, key.clone(), object.clone()));
        let _ = self.events.send((revision, kind, key, object.clone()));
        object
    }
}

fn matches(selector: Option<&String>, object: &Value) -> bool {
    selector.is_none_or(|selector| {
        selector.split(',').all(|term| {
            let (field, value) = term.split_once('=').unwrap();
            let at = field.split('.').fold(object, |at, part| &at[part]);
            at.as_str().unwrap_or_default() == value.trim_start_matches('=')
        })
    })
}

fn answer(code: u16, body: &Value) -> Response {
    let builder = Response::builder().status(code).header("content-type", "application/json");
    builder.body(Body::from(body.to_string())).unwrap()
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": reason, "metadata": {}});
    answer(code, &body)
}

async fn serve(State(api): State<MockApi>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let query: BTreeMap<String, String> =
        axum::extract::Query::try_from_uri(&head.uri).map(|q| q.0).unwrap_or_default();
    let target = Target::of(head.uri.path());
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match (head.method.as_str(), target.name.clone()) {
        ("GET", None) if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
            watch(&api, &target, query)
        }
        ("GET", None) => {
            let inner = api.inner.lock().unwrap();
            let prefix = target.prefix();
            let items: Vec<&Value> = inner
                .objects
                .iter()
                .filter(|(key, object)| {
                    key.starts_with(&prefix) && matches(query.get("fieldSelector"), object)
                })
                .map(|(_, object)| object)
                .collect();
            let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
                "metadata": {"resourceVersion": inner.revision.to_string()}});
            answer(200, &list)
        }
        ("GET", Some(name)) => match api.inner.lock().unwrap().objects.get(&target.key(&name)) {
            Some(object) => answer(200, object),
            None => status(404, "NotFound"),
        },
        ("POST", Some(_)) if target.subresource.as_deref() == Some("token") => {
            let expires = k8s_openapi::jiff::Timestamp::now() + std::time::Duration::from_secs(3600);
            let mut token = body;
            token["status"] = json!({"token": "a-token", "expirationTimestamp": expires.to_string()});
            answer(201, &token)
        }
        ("POST", _) => {
            let mut object = body;
            let name = object["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
            let name = if target.resource.ends_with("/events") { format!("{name}-{}", rand()) } else { name };
            if api.inner.lock().unwrap().objects.contains_key(&target.key(&name)) {
                return status(409, "AlreadyExists");
            }
            object["metadata"]["name"] = json!(name);
            if let Some(namespace) = &target.namespace {
                object["metadata"]["namespace"] = json!(namespace);
            }
            object["metadata"]["uid"] = json!(format!("uid-{}", rand()));
            object["metadata"]["generation"] = json!(1);
            answer(201, &api.put("ADDED", target.key(&name), object))
        }
        ("PUT", Some(name)) => answer(200, &api.put("MODIFIED", target.key(&name), body)),
        ("PATCH", Some(name)) => {
            let known = api.inner.lock().unwrap().objects.get(&target.key(&name)).cloned();
            let Some(mut object) = known else { return status(404, "NotFound") };
            let uid = &body["metadata"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return status(409, "Conflict");
            }
            merge(&mut object, &body);
            answer(200, &api.put("MODIFIED", target.key(&name), object))
        }
        ("DELETE", Some(name)) => {
            let known = api.inner.lock().unwrap().objects.get(&target.key(&name)).cloned();
            let Some(mut object) = known else { return status(404, "NotFound") };
            let grace = body["gracePeriodSeconds"]
                .as_i64()
                .or(object["spec"]["terminationGracePeriodSeconds"].as_i64());
            let wanted = &body["preconditions"]["uid"];
            if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
                return status(409, "Conflict");
            }
            if target.resource == "/api/v1/pods" && grace != Some(0) && object["spec"]["nodeName"].is_string()
            {
                object["metadata"]["deletionTimestamp"] =
                    json!(k8s_openapi::jiff::Timestamp::now().to_string());
                object["metadata"]["deletionGracePeriodSeconds"] = json!(grace.unwrap_or(30));
                return answer(200, &api.put("MODIFIED", target.key(&name), object));
            }
            answer(200, &api.put("DELETED", target.key(&name), object))
        }
        _ => status(405, "MethodNotAllowed"),
    }
}

fn watch(api: &MockApi, target: &Target, query: BTreeMap<String, String>) -> Response {
    let prefix = target.prefix();
    let selector = query.get("fieldSelector").cloned();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1024);
    let (mut events, backlog) = {
        let inner = api.inner.lock().unwrap();
        let events = api.events.subscribe();
        let is_wanted =
            |key: &str, object: &Value| key.starts_with(&prefix) && matches(selector.as_ref(), object);
        let mut backlog: Vec<Value> = Vec::new();
        if query.get("sendInitialEvents").is_some_and(|v| v == "true") {
            let present = inner.objects.iter().filter(|(key, object)| is_wanted(key, object));
            backlog.extend(present.map(|(_, object)| json!({"type": "ADDED", "object": object})));
            backlog.push(json!({"type": "BOOKMARK", "object": {"kind": "Bookmark", "apiVersion": "v1", "metadata": {
                "resourceVersion": inner.revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}));
        } else {
            let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
            let missed = inner
                .log
                .iter()
                .filter(|(revision, _, key, object)| *revision > from && is_wanted(key, object));
            backlog.extend(missed.map(|(_, kind, _, object)| json!({"type": kind, "object": object})));
        }
        (events, backlog)
    };
    tokio::spawn(async move {
        for event in backlog {
            if sender.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() {
                return;
            }
        }
        while let Ok((_, kind, key, object)) = events.recv().await {
            if key.starts_with(&prefix) && matches(selector.as_ref(), &object) {
                let event = json!({"type": kind, "object": object});
                if sender.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() {
                    return;
                }
            }
        }
    });
    let stream =
        futures::stream::unfold(
            receiver,
            |mut receiver| async move { Some((receiver.recv().await?, receiver)) },
        );
    Response::builder().header("content-type", "application/json").body(Body::from_stream(stream)).unwrap()
}

/// As much of a strategic merge patch as the kubelet sends.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                object.as_object_mut().unwrap().remove(key);
            }
            Value::Array(items) if items.first().is_some_and(|i| i["$patch"] == "replace") => {
                object[key] = json!(items[1..]);
            }
            Value::Array(items) if key == "conditions" => {
                let mut known = object[key].as_array().cloned().unwrap_or_default();
                for item in items {
                    match known.iter_mut().find(|k| k["type"] == item["type"]) {
                        Some(known) => merge(known, item),
                        None => known.push(item.clone()),
                    }
                }
                object[key] = json!(known);
            }
            Value::Object(_) => {
                merge(object.as_object_mut().unwrap().entry(key).or_insert(Value::Null), value)
            }
            other => object[key] = other.clone(),
        }
    }
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
