//! The endpoints in process, on the embedded store.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::registry::context::Machine;

struct Server {
    router: Router,
    shutdown: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn server() -> Server {
    let store =
        Arc::new(wherry_storage::Embedded::in_memory(wherry_storage::embedded::Options::default()).unwrap());
    let registry = Arc::new(Registry::new(
        store,
        crate::kinds::table(),
        crate::admission::plugins(),
        Arc::new(crate::codec::Codec::builtin().unwrap()),
        Arc::new(Machine),
    ));
    let shutdown = CancellationToken::new();
    let revision = registry.feed().load().await.unwrap();
    let feed = Arc::clone(registry.feed());
    let stop = shutdown.clone();
    tokio::spawn(async move { feed.run(revision, stop).await });
    let api = Api::new(registry, Arc::new(NoConnector), shutdown.clone()).unwrap();
    let server = Server { router: resource_router(api), shutdown };
    let (code, _) = server.call("POST", "/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await;
    assert_eq!(code, 201);
    server
}

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

impl Server {
    async fn raw(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Identity::admin("tester"));
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, uri: &str, body: Value) -> (u16, Value) {
        let content_type =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.raw(method, uri, &[("content-type", content_type)], body).await;
        let code = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        self.call("GET", uri, Value::Null).await
    }

    async fn map(&self, name: &str, labels: Value) -> Value {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"v": "1"}});
        let (code, object) = self.call("POST", MAPS, body).await;
        assert_eq!(code, 201, "{object}");
        object
    }

    /// Begins a watch; the lines come one by one.
    async fn watch(&self, uri: &str) -> futures::stream::BoxStream<'static, Value> {
        let response = self.raw("GET", uri, &[], Body::empty()).await;
        assert_eq!(response.status(), 200);
        Box::pin(
            response
                .into_body()
                .into_data_stream()
                .map(|chunk| serde_json::from_slice(&chunk.unwrap()).unwrap()),
        )
    }
}

async fn next(stream: &mut (impl futures::Stream<Item = Value> + Unpin)) -> Value {
    tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = server().await;
    let created = server.map("a", json!({})).await;
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(created["metadata"]["namespace"], "ns");
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string());
    let uri = format!("{MAPS}/a");
    assert_eq!(server.get(&uri).await, (200, created.clone()));

    let (code, twice) = server.call("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code, twice["message"].as_str().unwrap()), (409, "configmaps \"a\" already exists"));

    let mut changed = created.clone();
    changed["data"]["v"] = "2".into();
    let (code, updated) = server.call("PUT", &uri, changed.clone()).await;
    assert_eq!((code, &updated["data"]["v"]), (200, &json!("2")));
    assert_ne!(version(&updated), version(&created));
    let (code, stale) = server.call("PUT", &uri, changed).await;
    assert_eq!((code, stale["reason"].as_str().unwrap()), (409, "Conflict"));

    let (_, same) = server.call("PUT", &uri, updated.clone()).await;
    assert_eq!(version(&same), version(&updated), "an unchanged write is no write");
    let (code, patched) = server.call("PATCH", &uri, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((code, &patched["metadata"]["labels"]["x"]), (200, &json!("y")));

    let (code, status) = server.call("DELETE", &uri, Value::Null).await;
    assert_eq!((code, &status["status"], &status["details"]["name"]), (200, &json!("Success"), &json!("a")));
    let (code, gone) = server.get(&uri).await;
    assert_eq!((code, gone["message"].as_str().unwrap()), (404, "configmaps \"a\" not found"));
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let server = server().await;
    let (code, object) =
        server.call("POST", &format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, 201);
    assert!(object["metadata"].get("resourceVersion").is_none());
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
    let created = server.map("a", json!({})).await;
    let (_, patched) =
        server.call("PATCH", &format!("{MAPS}/a?dryRun=All"), json!({"data": {"v": "9"}})).await;
    assert_eq!((&patched["data"]["v"], version(&patched)), (&json!("9"), version(&created)));
    assert_eq!(server.call("DELETE", &format!("{MAPS}/a?dryRun=All"), Value::Null).await.0, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await, (200, created));
}

#[tokio::test]
async fn generated_names_are_the_base_and_five_characters() {
    let server = server().await;
    let (code, object) = server.call("POST", MAPS, json!({"metadata": {"generateName": "g-"}})).await;
    let name = object["metadata"]["name"].as_str().unwrap();
    assert_eq!((code, name.len(), &name[..2]), (201, 7, "g-"));
}

#[tokio::test]
async fn lists_select_and_page_through_one_revision() {
    let server = server().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1"), ("d", "1")] {
        server.map(name, json!({"l": label})).await;
    }
    let (_, list) = server.get(&format!("{MAPS}?labelSelector=l%3D1")).await;
    assert_eq!(names(&list), ["a", "c", "d"]);
    assert!(list["items"][0].get("kind").is_none() && list["kind"] == "ConfigMapList");
    let (_, list) = server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await;
    assert_eq!(names(&list), ["b"]);
    let (_, list) = server.get("/api/v1/configmaps").await;
    assert_eq!(names(&list), ["a", "b", "c", "d"]);

    let (_, first) = server.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(2)));
    server.call("DELETE", &format!("{MAPS}/c"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"], "the second page shows the revision of the first");
    assert_eq!(version(&second), version(&first));
    assert!(second["metadata"].get("continue").is_none());
    let (_, past) =
        server.get(&format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", version(&first))).await;
    assert_eq!(names(&past), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_watch_replays_and_follows() {
    let server = server().await;
    let zero = server.map("zero", json!({"l": "0"})).await;
    server.map("a", json!({"l": "in"})).await;
    let uri = format!("{MAPS}?watch=true&labelSelector=l%3Din&resourceVersion={}", version(&zero));
    let mut stream = server.watch(&uri).await;
    assert_eq!(next(&mut stream).await["type"], "ADDED");
    server.call("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"l": "out"}}})).await;
    let left = next(&mut stream).await;
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["l"]),
        (&json!("DELETED"), &json!("in"))
    );
    server.call("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"l": "in"}}})).await;
    assert_eq!(next(&mut stream).await["type"], "ADDED");
    server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"v": "2"}})).await;
    assert_eq!(next(&mut stream).await["type"], "MODIFIED");
    server.call("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(next(&mut stream).await["type"], "DELETED");
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    let server = server().await;
    server.map("a", json!({})).await;
    let last = server.map("b", json!({})).await;
    let uri = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    );
    let mut stream = server.watch(&uri).await;
    assert_eq!(next(&mut stream).await["object"]["metadata"]["name"], "a");
    assert_eq!(next(&mut stream).await["object"]["metadata"]["name"], "b");
    let bookmark = next(&mut stream).await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(version(&bookmark["object"]), version(&last));
    server.map("c", json!({})).await;
    assert_eq!(next(&mut stream).await["type"], "ADDED");
}

#[tokio::test]
async fn a_watch_ends_after_its_timeout() {
    let server = server().await;
    let mut stream = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    assert!(tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let server = server().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["e.org/x"]}});
    assert_eq!(server.call("POST", MAPS, body).await.0, 201);
    let uri = format!("{MAPS}/a");
    let (_, marked) = server.call("DELETE", &uri, Value::Null).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let (_, again) = server.call("DELETE", &format!("{uri}?propagationPolicy=Foreground"), Value::Null).await;
    assert_eq!(again["metadata"]["finalizers"], json!(["e.org/x", "foregroundDeletion"]));
    let (code, _) = server.call("PATCH", &uri, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!((code, server.get(&uri).await.0), (200, 404));
}

#[tokio::test]
async fn preconditions_of_a_deletion_must_hold() {
    let server = server().await;
    let object = server.map("a", json!({})).await;
    let uri = format!("{MAPS}/a");
    let (code, refused) =
        server.call("DELETE", &uri, json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(code, 409);
    assert_eq!(
        refused["message"].as_str().unwrap(),
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match \
             the ResourceVersion in record ({}). The object might have been modified",
            version(&object)
        )
    );
    let uid = &object["metadata"]["uid"];
    assert_eq!(server.call("DELETE", &uri, json!({"preconditions": {"uid": uid}})).await.0, 200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = server().await;
    server.map("a", json!({"l": "1"})).await;
    server.map("b", json!({"l": "2"})).await;
    let (code, list) = server.call("DELETE", &format!("{MAPS}?labelSelector=l%3D1"), Value::Null).await;
    assert_eq!((code, names(&list)), (200, vec!["a"]));
    assert_eq!(names(&server.get(MAPS).await.1), ["b"]);
}

#[tokio::test]
async fn a_namespace_terminates_until_it_is_finalized_and_takes_nothing_new() {
    let server = server().await;
    let (code, object) = server.call("DELETE", "/api/v1/namespaces/ns", Value::Null).await;
    assert_eq!((code, &object["status"]["phase"]), (200, &json!("Terminating")));
    let (code, refused) = server.call("POST", MAPS, json!({"metadata": {"name": "late"}})).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "configmaps \"late\" is forbidden: unable to create new content in namespace ns because it is being terminated"
    );
    let body = json!({"metadata": {"name": "ns"}, "spec": {"finalizers": []}});
    assert_eq!(server.call("PUT", "/api/v1/namespaces/ns/finalize", body).await.0, 200);
    assert_eq!(server.get("/api/v1/namespaces/ns").await.0, 404);
    let (code, refused) = server.call("POST", MAPS, json!({"metadata": {"name": "late"}})).await;
    assert_eq!((code, refused["message"].as_str().unwrap()), (404, "namespaces \"ns\" not found"));
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_kubernetes_words() {
    let server = server().await;
    let table = [
        ("GET", "/api/v1/nothings", 404, "the server could not find the requested resource"),
        ("GET", "/apis/apps/v9/deployments", 404, "the server could not find the requested resource"),
        (
            "GET",
            "/api/v1/namespaces/ns/secrets/s/status",
            404,
            "the server could not find the requested resource",
        ),
        ("PUT", MAPS, 405, "the server does not allow this method on the requested resource"),
        (
            "POST",
            "/api/v1/configmaps",
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "DELETE",
            "/api/v1/namespaces",
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/ns/configmaps?timeout=abc",
            400,
            "invalid timeout specified in the request URL - time: invalid duration \"abc\"",
        ),
        (
            "GET",
            "/api/v1/namespaces/ns/configmaps?resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             unless resourceVersion is provided",
        ),
    ];
    for (method, uri, code, message) in table {
        let (got, status) = server.call(method, uri, Value::Null).await;
        assert_eq!((got, status["message"].as_str().unwrap()), (code, message), "{method} {uri}");
    }
    let big = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"a":"{}"}}}}"#, "x".repeat(10_000_000));
    let response = server.raw("POST", MAPS, &[], big).await;
    assert_eq!(response.status(), 413);
    let response = server.raw("GET", MAPS, &[("accept", "application/xml")], Body::empty()).await;
    assert_eq!(response.status(), 406);
    let response = server.raw("POST", MAPS, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(response.status(), 415);
}

#[tokio::test]
async fn tables_and_metadata_are_other_shapes_of_the_same_objects() {
    let server = server().await;
    server.map("a", json!({})).await;
    let shaped = async |kind: &str, uri: &str| -> Value {
        let accept = format!("application/json;as={kind};v=v1;g=meta.k8s.io");
        let response = server.raw("GET", uri, &[("accept", &accept)], Body::empty()).await;
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap())
            .unwrap()
    };
    let table = shaped("Table", MAPS).await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = shaped("PartialObjectMetadataList", MAPS).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("data").is_none());
    assert_eq!(shaped("PartialObjectMetadata", MAPS).await["code"], 406);
    assert_eq!(shaped("PartialObjectMetadata", &format!("{MAPS}/a")).await["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn writers_that_meet_lose_nothing() {
    let server = server().await;
    server.map("a", json!({})).await;
    let uri = format!("{MAPS}/a");
    let writes = (0..8).map(|n| server.call("PATCH", &uri, json!({"data": {format!("k{n}"): "x"}})));
    for (code, object) in futures::future::join_all(writes).await {
        assert_eq!(code, 200, "{object}");
    }
    assert_eq!(server.get(&uri).await.1["data"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn a_large_list_is_the_objects_own_bytes_and_says_how_long_it_is() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        let body = json!({"metadata": {"name": name}, "data": {"v": "x".repeat(40_000)}});
        assert_eq!(server.call("POST", MAPS, body).await.0, 201);
    }
    let response = server.raw("GET", MAPS, &[], Body::empty()).await;
    let announced = http_body::Body::size_hint(response.body()).exact().unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert_eq!(bytes.len() as u64, announced);
    assert_eq!(names(&serde_json::from_slice(&bytes).unwrap()), ["a", "b", "c"]);
}
