//! Clients other than kubectl: kube-rs and the Python client.

use std::{path::Path, process::Command, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{Controller, controller::Action, watcher},
};

use crate::support::TestCluster;

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_lists_watches_and_patches() {
    let cluster = TestCluster::start();
    let client = wherry_client::connect::from_kubeconfig(&cluster.kubeconfig()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let names: Vec<String> = namespaces
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(|namespace| namespace.name_any())
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);

    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let watch = WatchParams::default().labels("app=kube-rs").timeout(20);
    let mut events = maps.watch(&watch, &version).await.unwrap().boxed();
    let mut map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("m".to_owned()),
            labels: Some([("app".to_owned(), "kube-rs".to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    maps.create(&PostParams::default(), &map).await.unwrap();
    maps.patch("m", &PatchParams::default(), &Patch::Merge(serde_json::json!({"data": {"k": "1"}})))
        .await
        .unwrap();
    let stale = maps.get("m").await.unwrap();
    maps.patch("m", &PatchParams::default(), &Patch::Strategic(serde_json::json!({"data": {"l": "2"}})))
        .await
        .unwrap();
    map.data = None;
    map.metadata.resource_version = stale.metadata.resource_version;
    let conflict = maps.replace("m", &PostParams::default(), &map).await.unwrap_err();
    assert!(conflict.to_string().contains("the object has been modified"), "{conflict}");
    maps.delete("m", &DeleteParams::default()).await.unwrap();

    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            WatchEvent::Added(map) => seen.push(format!("added {}", map.data.unwrap_or_default().len())),
            WatchEvent::Modified(map) => {
                seen.push(format!("modified {}", map.data.unwrap_or_default().len()))
            }
            WatchEvent::Deleted(_) => {
                seen.push("deleted".to_owned());
                break;
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(seen, ["added 0", "modified 1", "modified 2", "deleted"]);
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failed(#[from] kube::Error);

/// A controller that answers every ConfigMap `question-*` with a ConfigMap `answer-*`.
async fn reconcile(
    question: std::sync::Arc<ConfigMap>,
    client: std::sync::Arc<kube::Client>,
) -> Result<Action, Failed> {
    let name = question.name_any();
    if let Some(rest) = name.strip_prefix("question-") {
        let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), "default");
        let answer = format!("answer-{rest}");
        if maps.get_opt(&answer).await?.is_none() {
            let map = ConfigMap {
                metadata: ObjectMeta { name: Some(answer), ..ObjectMeta::default() },
                data: question.data.clone(),
                ..ConfigMap::default()
            };
            maps.create(&PostParams::default(), &map).await?;
        }
    }
    Ok(Action::await_change())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_written_with_kube_rs_reconciles() {
    let cluster = TestCluster::start();
    let client = wherry_client::connect::from_kubeconfig(&cluster.kubeconfig()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let controller = Controller::new(maps, watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), client.into())
        .for_each(|_| async {});
    let controller = tokio::spawn(controller);
    cluster.ok(&["create", "configmap", "question-1", "--from-literal=k=v"]);
    cluster.ok(&["wait", "--for=create", "configmap/answer-1", "--timeout=30s"]);
    assert_eq!(cluster.ok(&["get", "configmap", "answer-1", "-o", "jsonpath={.data.k}"]), "v");
    controller.abort();
}

#[test]
fn the_python_client_creates_watches_reads_logs_and_deletes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "the Python client is missing; `make test-venv` installs it");
    let cluster = TestCluster::start();
    cluster.load_sample("batch");
    let output = Command::new(python)
        .arg(root.join("tests/system/client.py"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), cluster.state());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "phases end in Succeeded\n168 primes below 1000\nits deletion was watched\ngone\n"
    );
}
