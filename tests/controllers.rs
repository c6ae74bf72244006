//! The controllers against a real API server in the same process. Nobody runs the pods: the tests report their status.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event as Watched};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wherry_apiserver::identity::Identity;
use wherry_apiserver::pki::{ClientIdentity, Pki};
use wherry_apiserver::{ApiServer, Config};
use wherry_client::{Lifecycle, connect};
use wherry_storage::embedded::{Embedded, Options};

/// An API server with the controllers, as long as it is kept.
struct Cluster {
    client: Client,
    server: ApiServer,
    lifecycle: Lifecycle,
    controllers: tokio::task::JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Cluster {
    async fn start(config: wherry_controllers::Config) -> Self {
        let data = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(&data.path().join("pki")).unwrap());
        let store = Arc::new(Embedded::open(&data.path().join("store.redb"), Options::default()).unwrap());
        let server = ApiServer::start(Config::new(store, pki, "127.0.0.1:6443")).await.unwrap();
        let (lifecycle, mut report) = Lifecycle::new();
        let of_controllers = connect::in_process(server.router_as(ClientIdentity::Controllers.identity()));
        let controllers_lifecycle = lifecycle.clone();
        let controllers = tokio::spawn(async move {
            wherry_controllers::run(of_controllers, config, controllers_lifecycle).await.unwrap();
        });
        let ready = tokio::time::timeout(Duration::from_secs(60), report.wait_ready()).await;
        assert_eq!(ready, Ok(true), "{:?}", report.reasons());
        let client = connect::in_process(server.router_as(Identity::admin("test")));
        Self { client, server, lifecycle, controllers, _data: data }
    }

    async fn stop(self) {
        self.lifecycle.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.controllers)
            .await
            .expect("the controllers drain")
            .unwrap();
        self.server.stop().await;
    }

    async fn namespace(&self, name: &str) {
        create(&Api::<Namespace>::all(self.client.clone()), json!({ "metadata": { "name": name } })).await;
        // No pod is admitted before its service account is there.
        wait_for(&self.api::<ServiceAccount>(name), "the default service account", |accounts| {
            accounts.iter().any(|account| account.name_any() == "default")
        })
        .await;
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reports the pods as running and ready, as a kubelet would.
    async fn make_ready(&self, namespace: &str, pods: &[Arc<Pod>]) {
        for (number, pod) in pods.iter().enumerate() {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            let status = json!({ "status": { "phase": "Running", "podIP": format!("127.64.0.{}", number + 1),
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }] } });
            patch_status(&self.api::<Pod>(namespace), &pod.name_any(), status).await;
        }
    }

    /// Reports pods as ready until `done` says that the deployment is where it should be.
    async fn roll(&self, namespace: &str, name: &str, done: impl Fn(&Deployment) -> bool) -> Arc<Deployment> {
        let deployments = self.api::<Deployment>(namespace);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let deployment = Arc::new(deployments.get(name).await.unwrap());
            if done(&deployment) {
                return deployment;
            }
            assert!(Instant::now() < deadline, "still not there: {:?}", deployment.status);
            let pods = self.api::<Pod>(namespace).list(&ListParams::default()).await.unwrap().items;
            let pending: Vec<_> = pods.into_iter().filter(|pod| !is_ready(pod)).map(Arc::new).collect();
            self.make_ready(namespace, &pending).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn patch_status<K: Clone + DeserializeOwned + Debug>(api: &Api<K>, name: &str, status: Value) {
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
}

/// Watches until the objects are as `wanted` and returns them.
async fn wait_for<K>(api: &Api<K>, what: &str, wanted: impl Fn(&[Arc<K>]) -> bool) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut objects: BTreeMap<String, Arc<K>> = BTreeMap::new();
    let events = watcher::watcher(api.clone(), watcher::Config::default().streaming_lists());
    let mut events = std::pin::pin!(events);
    let seen = async {
        let mut is_complete = false;
        while let Some(event) = events.next().await {
            match event.unwrap() {
                Watched::Init => objects.clear(),
                Watched::InitApply(object) | Watched::Apply(object) => {
                    objects.insert(object.name_any(), Arc::new(object));
                }
                Watched::Delete(object) => drop(objects.remove(&object.name_any())),
                Watched::InitDone => is_complete = true,
            }
            let all: Vec<_> = objects.values().cloned().collect();
            if is_complete && wanted(&all) {
                return all;
            }
        }
        unreachable!("a watch does not end")
    };
    match tokio::time::timeout(Duration::from_secs(60), seen).await {
        Ok(all) => all,
        Err(_) => panic!("{what} did not come about; there is {objects:#?}"),
    }
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [
                { "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] },
            ] } },
        },
    })
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let (Some(status), Some(spec)) = (&deployment.status, &deployment.spec) else { return false };
    status.observed_generation == deployment.metadata.generation
        && [status.updated_replicas, status.available_replicas, status.replicas]
            .iter()
            .all(|count| *count == spec.replicas)
}

fn revision_of(deployment: &Deployment) -> Option<&str> {
    deployment.annotations().get("deployment.kubernetes.io/revision").map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_gets_its_service_account_and_certificate_and_they_come_back() {
    let config = wherry_controllers::Config { root_ca_pem: Some("PEM".to_owned()), ..Default::default() };
    let cluster = Cluster::start(config).await;
    cluster.namespace("shop").await;
    let (accounts, config_maps) = (cluster.api::<ServiceAccount>("shop"), cluster.api::<ConfigMap>("shop"));
    wait_for(&accounts, "the default service account", |all| all.len() == 1).await;
    let published = wait_for(&config_maps, "the certificate", |all| all.len() == 1).await;
    assert_eq!(published[0].name_any(), "kube-root-ca.crt");
    assert_eq!(
        published[0].data.as_ref().and_then(|data| data.get("ca.crt")).map(String::as_str),
        Some("PEM")
    );
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    wait_for(&accounts, "the service account again", |all| all.len() == 1).await;
    let emptied = Patch::Merge(json!({ "data": null }));
    config_maps.patch("kube-root-ca.crt", &PatchParams::default(), &emptied).await.unwrap();
    wait_for(&config_maps, "the certificate again", |all| all.iter().any(|map| map.data.is_some())).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_and_back_and_scales() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    let deployments = cluster.api::<Deployment>("shop");
    create(&deployments, deployment("web", 3, "image:1")).await;
    let first = cluster.roll("shop", "web", is_rolled_out).await;
    assert_eq!(revision_of(&first), Some("1"));
    let conditions: BTreeMap<_, _> = first
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|condition| (condition.type_.as_str(), condition.reason.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(conditions["Available"], "MinimumReplicasAvailable");
    assert_eq!(conditions["Progressing"], "NewReplicaSetAvailable");

    let image = |image: &str| {
        Patch::Strategic(
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } }),
        )
    };
    deployments.patch("web", &PatchParams::default(), &image("image:2")).await.unwrap();
    let second = cluster.roll("shop", "web", |d| revision_of(d) == Some("2") && is_rolled_out(d)).await;
    assert_eq!(second.status.as_ref().and_then(|status| status.ready_replicas), Some(3));
    let sets = cluster.api::<ReplicaSet>("shop").list(&ListParams::default()).await.unwrap().items;
    let mut sizes: Vec<_> = sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);

    // What `kubectl rollout undo` does: the template of before.
    deployments.patch("web", &PatchParams::default(), &image("image:1")).await.unwrap();
    cluster.roll("shop", "web", |d| revision_of(d) == Some("3") && is_rolled_out(d)).await;
    let sets = cluster.api::<ReplicaSet>("shop").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2, "the old replica set is used again");

    deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": 1 } })))
        .await
        .unwrap();
    cluster
        .roll("shop", "web", |d| {
            d.spec.as_ref().and_then(|spec| spec.replicas) == Some(1) && is_rolled_out(d)
        })
        .await;
    wait_for(&cluster.api::<Pod>("shop"), "one pod", |all| all.len() == 1).await;
    let told = |wanted: &'static str| {
        move |all: &[Arc<Event>]| {
            all.iter().any(|event| event.message.as_deref().is_some_and(|text| text.starts_with(wanted)))
        }
    };
    let events = cluster.api::<Event>("shop");
    wait_for(&events, "the scaling event", told("Scaled up replica set web-")).await;
    wait_for(&events, "the creation event", told("Created pod: web-")).await;
    wait_for(&events, "the deletion event", told("Deleted pod: web-")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_never_has_more_pods_than_it_wants() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    let pods = cluster.api::<Pod>("shop");
    create(&cluster.api::<Deployment>("shop"), deployment("web", 200, "image:1")).await;
    wait_for(&pods, "200 pods", |all| all.len() == 200).await;
    // No watch says that something will not happen: many times the time that a wrong one would take.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 200);
    // A deleted pod is replaced, by one.
    let victim = pods.list(&ListParams::default()).await.unwrap().items[0].name_any();
    pods.delete(&victim, &DeleteParams::default()).await.unwrap();
    let all = wait_for(&pods, "another pod", |all| {
        all.len() == 200 && all.iter().all(|pod| pod.name_any() != victim)
    })
    .await;
    assert_eq!(all.len(), 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_a_controller_are_adopted_and_those_that_stop_matching_are_released() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    let pods = cluster.api::<Pod>("shop");
    let orphan = json!({ "metadata": { "name": "orphan", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    create(&pods, orphan).await;
    create(&cluster.api::<ReplicaSet>("shop"), deployment("web", 2, "i")).await;
    let owned = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.kind == "ReplicaSet");
    wait_for(&pods, "two owned pods", |all| all.len() == 2 && all.iter().all(|pod| owned(pod))).await;
    let relabel = Patch::Merge(json!({ "metadata": { "labels": { "app": "debugged" } } }));
    pods.patch("orphan", &PatchParams::default(), &relabel).await.unwrap();
    let is_orphan = |pod: &Arc<Pod>| pod.name_any() == "orphan" && !owned(pod);
    wait_for(&pods, "the release", |all| all.len() == 3 && all.iter().any(is_orphan)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_the_readiness_of_pods() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] } });
    create(&cluster.api::<Service>("shop"), service).await;
    let slices = cluster.api::<EndpointSlice>("shop");
    wait_for(&slices, "an empty slice", |all| all.len() == 1).await;
    create(&cluster.api::<Deployment>("shop"), deployment("web", 2, "i")).await;
    let pods = wait_for(&cluster.api::<Pod>("shop"), "two pods", |all| all.len() == 2).await;
    cluster.make_ready("shop", &pods).await;
    let ready = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter().flatten();
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    let filled =
        wait_for(&slices, "two endpoints", |all| all.iter().map(|slice| ready(slice)).sum::<usize>() == 2)
            .await;
    assert_eq!(filled.len(), 1);
    assert_eq!(json!(filled[0].ports), json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    let addresses = |all: &[Arc<Endpoints>]| {
        let subsets = all.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
        subsets.map(|subset| subset.addresses.as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    let endpoints = cluster.api::<Endpoints>("shop");
    wait_for(&endpoints, "two addresses", |all| addresses(all) == 2).await;
    let broken = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    patch_status(&cluster.api::<Pod>("shop"), &pods[0].name_any(), broken).await;
    wait_for(&slices, "one ready endpoint", |all| all.iter().map(|slice| ready(slice)).sum::<usize>() == 1)
        .await;
    cluster.api::<Service>("shop").delete("web", &DeleteParams::default()).await.unwrap();
    wait_for(&slices, "no slices", |all| all.is_empty()).await;
    wait_for(&endpoints, "no endpoints", |all| all.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_go_with_their_owner_in_the_way_that_was_asked_for() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    let deployments = cluster.api::<Deployment>("shop");
    let (sets, pods) = (cluster.api::<ReplicaSet>("shop"), cluster.api::<Pod>("shop"));
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        create(&deployments, deployment("web", 2, "i")).await;
        wait_for(&pods, "two pods", |all| all.len() == 2).await;
        deployments.delete("web", &params).await.unwrap();
        wait_for(&deployments, "no deployment", |all| all.is_empty()).await;
        if params.propagation_policy == DeleteParams::foreground().propagation_policy {
            // The owner goes last.
            assert!(sets.list(&ListParams::default()).await.unwrap().items.is_empty());
        }
        wait_for(&sets, "no replica sets", |all| all.is_empty()).await;
        wait_for(&pods, "no pods", |all| all.is_empty()).await;
    }
    create(&deployments, deployment("web", 2, "i")).await;
    wait_for(&pods, "two pods", |all| all.len() == 2).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    wait_for(&deployments, "no deployment", |all| all.is_empty()).await;
    let orphaned = sets.list(&ListParams::default()).await.unwrap().items;
    assert!(orphaned.len() == 1 && orphaned[0].owner_references().is_empty());
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 2);
    // Who names an owner that never was does not stay.
    let stray = json!({ "metadata": { "name": "stray", "ownerReferences": [
        { "apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "11111111-1111-1111-1111-111111111111" },
    ] } });
    create(&cluster.api::<ConfigMap>("shop"), stray).await;
    wait_for(&cluster.api::<ConfigMap>("shop"), "no stray", |all| {
        all.iter().all(|map| map.name_any() != "stray")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_goes_with_its_content() {
    let cluster = Cluster::start(wherry_controllers::Config::default()).await;
    cluster.namespace("shop").await;
    create(&cluster.api::<Deployment>("shop"), deployment("web", 3, "i")).await;
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    create(&cluster.api::<ConfigMap>("shop"), held).await;
    wait_for(&cluster.api::<Pod>("shop"), "three pods", |all| all.len() == 3).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let says = |all: &[Arc<Namespace>], type_: &str, status: &str| {
        let conditions = all
            .iter()
            .filter(|ns| ns.name_any() == "shop")
            .filter_map(|ns| ns.status.as_ref()?.conditions.as_ref());
        conditions.flatten().any(|condition| condition.type_ == type_ && condition.status == status)
    };
    wait_for(&namespaces, "the condition", |all| says(all, "NamespaceFinalizersRemaining", "True")).await;
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    cluster.api::<ConfigMap>("shop").patch("held", &PatchParams::default(), &release).await.unwrap();
    wait_for(&namespaces, "the end", |all| all.iter().all(|ns| ns.name_any() != "shop")).await;
    assert!(cluster.api::<Pod>("shop").list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_marked_and_tainted_and_its_pods_leave() {
    let config = wherry_controllers::Config {
        node_monitor_grace_period: Duration::from_millis(500),
        orphaned_pod_quarantine: Duration::from_millis(100),
        ..Default::default()
    };
    let cluster = Cluster::start(config).await;
    cluster.namespace("shop").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    create(&nodes, json!({ "metadata": { "name": "n1" } })).await;
    patch_status(&nodes, "n1", json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }] } })).await;
    let pods = cluster.api::<Pod>("shop");
    let impatient = json!({ "metadata": { "name": "impatient" }, "spec": { "nodeName": "n1",
        "containers": [{ "name": "c", "image": "i" }],
        "tolerations": [{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0 },
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }] } });
    create(&pods, impatient).await;
    let silent = wait_for(&nodes, "the taints", |all| {
        let taints = all.iter().filter_map(|node| node.spec.as_ref()?.taints.as_ref()).flatten();
        taints.filter(|taint| taint.key == "node.kubernetes.io/unreachable").count() == 2
    })
    .await;
    let conditions =
        silent[0].status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").expect("a Ready condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    wait_for(&pods, "the eviction", |all| all.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()))
        .await;
    // Nobody is there to finish the deletion until the node is given up.
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    wait_for(&pods, "no pods", |all| all.is_empty()).await;
    cluster.stop().await;
}
