//! Registration of the node and its status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use wherry_client::backoff::Backoff;
use wherry_client::volumes::LOCAL_PATH_DIRECTORY;
use wherry_runtimes::ImageSpec;

use super::conditions::{CONTAINER_RUNTIME_READY, Health, conditions};
use super::machine::{Machine, architecture};
use crate::config::{Config, RuntimeRole};
use crate::kubelet::Kubelet;
use crate::pod::resources::Amounts;

/// The status is looked at this often. Source: Kubernetes' `nodeStatusUpdateFrequency`.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// An unchanged status is written this often. Source: Kubernetes' `nodeStatusReportFrequency`.
const REPORT_INTERVAL: Duration = Duration::from_secs(300);
/// Most images in the status. Source: Kubernetes' `nodeStatusMaxImages`.
const MAX_IMAGES: usize = 50;
/// Most names of one image in the status. Source: Kubernetes.
const MAX_IMAGE_NAMES: usize = 5;

/// Labels of the node.
pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    labels
}

/// What pods may use. Huge pages are not for anything else: the memory is without them.
pub(crate) fn allocatable(config: &Config, machine: &Machine) -> Amounts {
    let reserved = config.reserved_memory_bytes.saturating_add(machine.hugepages.values().sum());
    let mut amounts: Amounts = [
        ("cpu", machine.cpu_millicores - config.reserved_cpu_millicores),
        ("memory", machine.memory_bytes - reserved),
        ("ephemeral-storage", machine.storage_bytes / 10 * 9),
        ("pods", i64::from(config.max_pods)),
    ]
    .map(|(name, amount)| (name.to_owned(), amount.max(0)))
    .into();
    amounts.extend(machine.hugepages.iter().map(|(size, bytes)| (hugepages_name(*size), *bytes)));
    amounts
}

/// `hugepages-2Mi`.
fn hugepages_name(size_bytes: u64) -> String {
    format!("hugepages-{}", binary(i64::try_from(size_bytes).unwrap_or(i64::MAX)))
}

/// A number of bytes with the largest binary suffix that leaves it whole.
fn binary(bytes: i64) -> String {
    let suffixes = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let fitting = suffixes.iter().find(|(shift, _)| bytes != 0 && bytes % (1_i64 << shift) == 0);
    fitting.map_or_else(|| bytes.to_string(), |(shift, suffix)| format!("{}{suffix}", bytes >> shift))
}

fn quantities(config: &Config, machine: &Machine) -> [BTreeMap<String, Quantity>; 2] {
    let mut hugepages = BTreeMap::from([(1 << 30, 0), (2 << 20, 0)]);
    hugepages.extend(&machine.hugepages);
    let hugepages =
        hugepages.into_iter().map(|(size, bytes)| (hugepages_name(size), Quantity(binary(bytes))));
    let hugepages: BTreeMap<String, Quantity> = hugepages.collect();
    let allocatable_bytes = allocatable(config, machine).get("memory").copied().unwrap_or(0);
    let of = |cpu: i64, memory: i64, storage: String| {
        let cpu = if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        [
            ("cpu", cpu),
            ("memory", format!("{}Ki", memory / 1024)),
            ("ephemeral-storage", storage),
            ("pods", config.max_pods.to_string()),
        ]
        .map(|(name, quantity)| (name.to_owned(), Quantity(quantity)))
        .into_iter()
        .chain(hugepages.clone())
        .collect()
    };
    [
        of(machine.cpu_millicores, machine.memory_bytes, format!("{}Ki", machine.storage_bytes / 1024)),
        of(
            machine.cpu_millicores - config.reserved_cpu_millicores,
            allocatable_bytes,
            (machine.storage_bytes / 10 * 9).to_string(),
        ),
    ]
}

/// Registers the node and keeps its status, until the kubelet stops. `registered` is told once the node is there.
pub(crate) async fn report(
    kubelet: Arc<Kubelet>,
    machine: Machine,
    port: u16,
    registered: tokio::sync::watch::Sender<bool>,
) {
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(7));
    let mut node = loop {
        match register(&kubelet, &api).await {
            Ok(node) => break node,
            Err(error) => {
                tracing::debug!(%error, "node cannot be registered");
                tokio::select! {
                    () = kubelet.shutdown.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                }
            }
        }
    };
    let mut written_at: Option<Instant> = None;
    loop {
        let status = node_status(&kubelet, &machine, port, node.status.as_ref()).await;
        let is_due = written_at.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
        let mut pause = CHECK_INTERVAL;
        if is_due || essence(&status) != essence(&node.status.clone().unwrap_or_default()) {
            match api
                .patch_status(
                    &kubelet.config.node_name,
                    &PatchParams::default(),
                    &Patch::Strategic(&patch(&status)),
                )
                .await
            {
                Ok(patched) => {
                    node = patched;
                    written_at = Some(Instant::now());
                    backoff.reset();
                    registered.send_replace(true);
                }
                Err(kube::Error::Api(error)) if error.code == 404 => match register(&kubelet, &api).await {
                    Ok(fresh) => {
                        node = fresh;
                        written_at = None;
                        pause = Duration::from_millis(100);
                    }
                    Err(_) => pause = backoff.next_delay(),
                },
                Err(error) => {
                    tracing::debug!(%error, "node status cannot be written");
                    pause = backoff.next_delay();
                }
            }
        }
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = kubelet.network.changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn register(kubelet: &Kubelet, api: &Api<Node>) -> kube::Result<Node> {
    let config = &kubelet.config;
    let pod_cidr = Some(kubelet.network.range_to_register()).filter(|range| !range.is_empty());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            annotations: Some(annotations(kubelet)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            pod_cidrs: pod_cidr.clone().map(|range| vec![range]),
            pod_cidr,
            ..NodeSpec::default()
        }),
        status: None,
    };
    match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let known = api.get(&config.node_name).await?;
            let (wanted, told) = (labels(config), annotations(kubelet));
            if has_all(known.metadata.labels.as_ref(), &wanted)
                && has_all(known.metadata.annotations.as_ref(), &told)
            {
                return Ok(known);
            }
            let patch = json!({ "metadata": { "labels": wanted, "annotations": told } });
            api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(&patch)).await
        }
        other => other,
    }
}

/// What the node tells of its volumes.
fn annotations(kubelet: &Kubelet) -> BTreeMap<String, String> {
    let directory = kubelet.volume_rules.local_volumes.to_string_lossy().into_owned();
    [
        ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned()),
        (LOCAL_PATH_DIRECTORY.to_owned(), directory),
    ]
    .into()
}

fn has_all(present: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> bool {
    present.is_some_and(|present| wanted.iter().all(|(key, value)| present.get(key) == Some(value)))
}

async fn node_status(
    kubelet: &Kubelet,
    machine: &Machine,
    port: u16,
    old: Option<&NodeStatus>,
) -> NodeStatus {
    let config = &kubelet.config;
    let mut problems = Vec::new();
    let mut handlers = Vec::new();
    let mut images = Vec::new();
    let mut optional = None;
    for runtime in kubelet.runtimes.all() {
        let mut problems_of_runtime = Vec::new();
        match runtime.service.status().await {
            Ok(status) => {
                for condition in status.status.conditions.iter().filter(|c| !c.status) {
                    let what = if condition.r#type == "NetworkReady" {
                        "container runtime network"
                    } else {
                        "container runtime"
                    };
                    problems_of_runtime.push(format!(
                        "{what} not ready: {}=false reason:{} message:{}",
                        condition.r#type, condition.reason, condition.message
                    ));
                }
                handlers.extend(status.runtime_handlers.into_iter().map(|handler| NodeRuntimeHandler {
                    name: Some(handler.name),
                    features: handler.features.map(|f| NodeRuntimeHandlerFeatures {
                        recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
                        user_namespaces: Some(f.user_namespaces),
                    }),
                }));
            }
            Err(error) => problems_of_runtime.push(format!("container runtime is down: {error}")),
        }
        match runtime.role {
            RuntimeRole::Required => problems.extend(problems_of_runtime),
            RuntimeRole::Optional => optional = Some(problems_of_runtime),
        }
        if let Ok(list) = runtime.service.list_images(&ImageSpec::default()).await {
            images.extend(list.into_iter().map(|image| {
                let names: Vec<String> =
                    image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_IMAGE_NAMES).collect();
                ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
            }));
        }
    }
    images.sort_by(|a, b| (b.size_bytes, &a.names).cmp(&(a.size_bytes, &b.names)));
    images.truncate(MAX_IMAGES);
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers.dedup_by(|a, b| a.name == b.name);
    let default = kubelet.runtimes.default_runtime();
    let root_dir = config.root_dir.clone();
    let free = tokio::task::spawn_blocking(move || Machine::free(&root_dir)).await.unwrap_or_default();
    let [capacity, allocatable] = quantities(config, machine);
    let known = old.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    NodeStatus {
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".to_owned(), address: kubelet.host_ip.clone() },
            NodeAddress { type_: "Hostname".to_owned(), address: config.node_name.clone() },
        ]),
        daemon_endpoints: (port > 0).then(|| NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("{}://{}", default.name(), default.version()),
            kernel_version: machine.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.kubelet_version(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            swap: None,
        }),
        images: Some(images),
        runtime_handlers: (!handlers.is_empty()).then_some(handlers),
        conditions: Some(conditions(
            &Health { free, problems, container_runtime: optional, network: kubelet.network.condition() },
            known,
            kubelet.now(),
        )),
        ..NodeStatus::default()
    }
}

/// What makes a status worth writing before its time: everything but heartbeats.
fn essence(status: &NodeStatus) -> Value {
    let mut status = status.clone();
    status.conditions = status.conditions.map(|conditions| {
        let own = [
            "MemoryPressure",
            "DiskPressure",
            "PIDPressure",
            "Ready",
            "NetworkUnavailable",
            CONTAINER_RUNTIME_READY,
        ];
        let mut conditions: Vec<_> =
            conditions.into_iter().filter(|c| own.contains(&c.type_.as_str())).collect();
        for condition in &mut conditions {
            condition.last_heartbeat_time = None;
        }
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        conditions
    });
    status.volumes_attached = None;
    status.volumes_in_use = None;
    serde_json::to_value(status).unwrap_or_default()
}

fn patch(status: &NodeStatus) -> Value {
    let mut status = serde_json::to_value(status).unwrap_or_default();
    // Addresses merge by type; those that are not ours any more have to go.
    if let Some(Value::Array(addresses)) = status.get_mut("addresses") {
        addresses.insert(0, json!({ "$patch": "replace" }));
    }
    json!({ "status": status })
}
