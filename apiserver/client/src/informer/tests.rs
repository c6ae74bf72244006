use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::mpsc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// One answer of the scripted server: a status, and the lines of a watch (or the one line of another answer).
type Answer = (u16, Vec<Value>);

/// A client of a server that gives these answers in turn, then leaves watches open; and what it was asked.
fn scripted(answers: Vec<Answer>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let script = Arc::new(Mutex::new(VecDeque::from(answers)));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().expect("not poisoned").push(request.uri().to_string());
        let answer = script.lock().expect("not poisoned").pop_front();
        async move {
            let (status, lines) = answer.unwrap_or((200, vec![]));
            let ends = lines.last().is_some_and(|line| line == "EOF");
            let bytes = lines
                .into_iter()
                .filter(|line| line != "EOF")
                .map(|line| Ok::<_, Infallible>(http_body_frame(format!("{line}\n"))));
            let body = futures::stream::iter(bytes);
            let open = futures::stream::pending().take_until(async move {
                if !(ends || status != 200) {
                    std::future::pending::<()>().await;
                }
            });
            let body = StreamBody(Box::pin(body.chain(open)));
            Ok::<_, Infallible>(Response::builder().status(status).body(body).expect("a response"))
        }
    });
    (crate::connect::in_process(service), asked)
}

fn http_body_frame(text: String) -> http_body::Frame<bytes::Bytes> {
    http_body::Frame::data(text.into())
}

type Frames = futures::stream::BoxStream<'static, Result<http_body::Frame<bytes::Bytes>, Infallible>>;

/// A body made of a stream of frames.
struct StreamBody(Frames);

impl http_body::Body for StreamBody {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.0.poll_next_unpin(context)
    }
}

fn config_map(name: &str, uid: &str, revision: u64) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "namespace": "shop", "name": name, "uid": uid, "resourceVersion": revision.to_string(),
        "labels": { "owner": format!("o-{uid}") },
        "managedFields": [{ "manager": "kubectl" }],
    } })
}

fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn initial_events_end(revision: u64) -> Value {
    event(
        "BOOKMARK",
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "resourceVersion": revision.to_string(), "annotations": { "k8s.io/initial-events-end": "true" },
    } }),
    )
}

/// Subscribes and hands over each change as a line.
fn changes(informer: &Informer<ConfigMap>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    informer.subscribe(move |change| {
        let key = crate::ObjectKey::of(change.object().as_ref());
        let uid = change.object().metadata.uid.clone().unwrap_or_default();
        let kind = match change {
            Change::Added(_) => "added",
            Change::Updated { .. } => "updated",
            Change::Deleted(_) => "deleted",
        };
        let _ = sender.send(format!("{kind} {key} {uid}"));
    });
    receiver
}

fn expect(changes: &mpsc::Receiver<String>, expected: &[&str]) {
    let mut seen: Vec<_> = expected
        .iter()
        .map(|_| changes.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| "nothing".to_owned()))
        .collect();
    seen.sort();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streaming_list_fills_the_store_and_its_indexes_without_managed_fields() {
    let (client, asked) = scripted(vec![(
        200,
        vec![
            event("ADDED", config_map("a", "1", 3)),
            event("ADDED", config_map("b", "2", 4)),
            initial_events_end(5),
        ],
    )]);
    let (lifecycle, _report) = Lifecycle::new();
    let informers = Informers::new(client, &lifecycle);
    let informer = informers.of::<ConfigMap>();
    informer.add_index("owner", |object| {
        object.metadata.labels.iter().flat_map(|l| l.values().cloned()).collect()
    });
    assert!(informer.wait_synced().await);
    assert!(asked.lock().expect("not poisoned")[0].contains("sendInitialEvents=true"));
    let store = informer.store();
    assert_eq!(store.len(), 2);
    assert_eq!(store.list_namespace("shop").len(), 2);
    assert!(store.get("shop", "a").is_some_and(|object| object.metadata.managed_fields.is_none()));
    assert_eq!(store.indexed("owner", "o-2").len(), 1);
    assert!(store.indexed("owner", "o-3").is_empty());
    // A late subscriber is told of what exists.
    expect(&changes(&informer), &["added shop/a 1", "added shop/b 2"]);
    // Asked for again, it is the same informer.
    assert!(informers.of::<ConfigMap>().has_synced());
    informers.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_disconnected_is_reported_and_remade_objects_are_deleted_and_added() {
    let gone = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old" });
    let (client, _asked) = scripted(vec![
        (
            200,
            vec![
                event("ADDED", config_map("a", "1", 3)),
                event("ADDED", config_map("b", "2", 4)),
                event("ADDED", config_map("c", "3", 4)),
                event("ADDED", config_map("same", "4", 4)),
                initial_events_end(5),
                event("ERROR", gone),
            ],
        ),
        (
            200,
            vec![
                event("ADDED", config_map("a", "1", 9)),
                event("ADDED", config_map("c", "33", 9)),
                event("ADDED", config_map("same", "4", 4)),
                initial_events_end(9),
                event("DELETED", config_map("a", "1", 10)),
            ],
        ),
    ]);
    let (lifecycle, _report) = Lifecycle::new();
    let informer = Informers::new(client, &lifecycle).of::<ConfigMap>();
    let changes = changes(&informer);
    expect(&changes, &["added shop/a 1", "added shop/b 2", "added shop/c 3", "added shop/same 4"]);
    expect(
        &changes,
        &["added shop/c 33", "deleted shop/a 1", "deleted shop/b 2", "deleted shop/c 3", "updated shop/a 1"],
    );
    assert_eq!(informer.store().len(), 2);
    lifecycle.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_streaming_lists_is_listed_and_watched() {
    let refusal = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422, "message": "no" });
    let list = json!({ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "resourceVersion": "7" },
        "items": [config_map("a", "1", 3)] });
    let (client, asked) = scripted(vec![
        (422, vec![refusal]),
        (200, vec![list, "EOF".into()]),
        (200, vec![event("MODIFIED", config_map("a", "1", 8))]),
    ]);
    let (lifecycle, _report) = Lifecycle::new();
    let informer = Informers::new(client, &lifecycle).of::<ConfigMap>();
    let changes = changes(&informer);
    expect(&changes, &["added shop/a 1"]);
    expect(&changes, &["updated shop/a 1"]);
    let asked = asked.lock().expect("not poisoned").clone();
    assert!(asked[2].contains("resourceVersion=7"), "{asked:?}");
    lifecycle.shutdown.cancel();
}

#[tokio::test]
async fn waiting_for_an_informer_that_is_stopped_ends() {
    let (client, _asked) = scripted(vec![]);
    let (lifecycle, _report) = Lifecycle::new();
    let informers = Informers::new(client, &lifecycle);
    let informer = informers.of::<ConfigMap>();
    informers.shut_down().await;
    assert!(!informer.wait_synced().await);
}
