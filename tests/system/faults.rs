//! What is killed comes back, and nothing that was acknowledged is lost.

use std::collections::BTreeMap;

use crate::support::{TestCluster, eventually, get};

/// How often the process is killed during writes.
const KILLS: usize = 50;

#[test]
fn fifty_kills_during_writes_lose_nothing_and_revisions_never_go_back() {
    let mut cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut highest = 0;

    for round in 0..KILLS {
        let writer = Writer::start(&cluster, round);
        // A few milliseconds more in every round, so that the kill falls into different moments.
        std::thread::sleep(std::time::Duration::from_millis(30 + 7 * u64::try_from(round % 20).unwrap()));
        cluster.kill();
        acknowledged.extend(writer.finish());
        cluster.start_again();

        // Raw: kubectl's own lists have no revision.
        let list = cluster.ok(&[
            "get",
            "--raw",
            "/api/v1/namespaces/default/configmaps?labelSelector=written%3Dyes",
        ]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let revision: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(revision >= highest, "the revision went back from {highest} to {revision} in round {round}");
        highest = revision;
        let found: BTreeMap<&str, u64> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let metadata = &item["metadata"];
                let version = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
                (metadata["name"].as_str().unwrap(), version)
            })
            .collect();
        for (name, version) in &acknowledged {
            assert_eq!(found.get(name.as_str()), Some(version), "{name} was acknowledged (round {round})");
        }
        highest = highest.max(acknowledged.values().copied().max().unwrap_or(0));
    }
    assert!(acknowledged.len() > KILLS, "only {} writes were acknowledged", acknowledged.len());

    eventually("the pods after all that", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if table.contains("3/3") { Ok(()) } else { Err(table) }
    });
    get(cluster.service("hello-http"), "/");
}

/// Clients that create ConfigMaps until the server is gone, and remember what was acknowledged.
struct Writer {
    task: std::thread::JoinHandle<BTreeMap<String, u64>>,
}

impl Writer {
    fn start(cluster: &TestCluster, round: usize) -> Self {
        let kubeconfig = cluster.kubeconfig();
        let task = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = wherry_client::connect::from_kubeconfig(&kubeconfig).await.unwrap();
                let writers = (0..4).map(|writer| write_until_it_fails(client.clone(), round, writer));
                futures::future::join_all(writers).await.into_iter().flatten().collect()
            })
        });
        Self { task }
    }

    fn finish(self) -> BTreeMap<String, u64> {
        self.task.join().unwrap()
    }
}

async fn write_until_it_fails(client: kube::Client, round: usize, writer: usize) -> Vec<(String, u64)> {
    use k8s_openapi::api::core::v1::ConfigMap;
    let api: kube::Api<ConfigMap> = kube::Api::namespaced(client, "default");
    let mut acknowledged = Vec::new();
    for number in 0..10_000 {
        let name = format!("w-{round}-{writer}-{number}");
        let map: ConfigMap = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"written": "yes"}},
            "data": {"number": number.to_string()},
        }))
        .unwrap();
        match api.create(&kube::api::PostParams::default(), &map).await {
            Ok(created) => {
                acknowledged.push((name, created.metadata.resource_version.unwrap().parse().unwrap()));
            }
            Err(_) => break,
        }
    }
    acknowledged
}

#[test]
fn pods_run_again_after_the_wasm_runtime_alone_was_killed() {
    let cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let service = cluster.service("hello-http");
    let runtime = cluster.runtime_pid().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(runtime), nix::sys::signal::Signal::SIGKILL).unwrap();

    eventually("another runtime", || match cluster.runtime_pid() {
        Some(pid) if pid != runtime => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually("pods that run again", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if !table.contains("3/3") {
            return Err(table);
        }
        crate::support::try_get(service, "/").map(|_| ()).map_err(|error| error.to_string())
    });
}

#[test]
fn guests_never_stop_when_the_node_alone_is_killed() {
    let mut cluster = TestCluster::start();
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let runtime = cluster.runtime_pid().unwrap();
    let columns = "jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let before = cluster.ok(&["get", "pods", "-o", columns]);
    let address =
        cluster.ok(&["get", "pods", "-o", "jsonpath={.items[0].status.podIP}:8080"]).parse().unwrap();

    cluster.kill();
    for _ in 0..20 {
        get(address, "/while-the-node-is-away");
    }
    cluster.start_again();
    assert_eq!(cluster.runtime_pid(), Some(runtime));
    eventually("the adopted pods", || {
        let table = cluster.ok(&["get", "deployment", "hello-http", "--no-headers"]);
        if table.contains("3/3") { Ok(()) } else { Err(table) }
    });
    assert_eq!(cluster.ok(&["get", "pods", "-o", columns]), before, "the guests are others than before");
    get(address, "/");
}
