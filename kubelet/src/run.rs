//! Putting the parts together, and taking them apart in order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Client;
use tokio_util::task::TaskTracker;
use wherry_client::volumes::LOCAL_PATH_NODE;
use wherry_client::{EventRecorder, Informers, Lifecycle, Selection};

use crate::cgroups::{PodCgroups, hierarchies};
use crate::config::{Config, RuntimeRole};
use crate::error::Error;
use crate::kubelet::Kubelet;
use crate::node::{self, Machine};
use crate::objects::Objects;
use crate::pod::container_config::NodeFacts;
use crate::pod::dns_config::HostDns;
use crate::pod::unsupported::Kernel;
use crate::pod::workers::Workers;
use crate::probes::http::ProbeClient;
use crate::runtimes::NodeRuntimes;
use crate::static_pods::{self, StaticPods};
use crate::stats::{ProbeCounts, Rates};
use crate::volumes::host_path::Rules;
use crate::volumes::{local_path, size_limits};
use crate::{network, pleg, server};

/// Most logs that are read at the same time. Source: a quarter of tokio's 512 threads for blocking work.
const MAX_LOG_READERS: usize = 128;

/// The node's own resolver. Source: Kubernetes' default `resolvConf`.
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// Runs the kubelet until the lifecycle ends. Guests keep running; the next kubelet takes them over.
pub async fn run(client: Client, mut config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    // Without links from here on: below them, none is followed.
    config.root_dir = made_directory(&config.root_dir)?;
    config.log_dir = made_directory(&config.log_dir)?;
    made_directory(&config.root_dir.join("pods"))?;
    let volume_rules = volume_rules(&config)?;
    let shutdown = lifecycle.shutdown.child_token();
    let tasks = TaskTracker::new();
    let runtimes = NodeRuntimes::connect(&config).await?;
    let pod_network = network::PodNetwork::new(&config.pod_cidr, config.routed.is_some());
    for runtime in runtimes.all().iter().filter(|r| r.role == RuntimeRole::Required) {
        // Followers tell it again to each new process; here a range that is refused ends the start.
        let configured = runtime.configure(&pod_network.range()).await;
        configured.map_err(|source| Error::Runtime { verb: "UpdateRuntimeConfig", source })?;
    }
    let machine = Machine::measure(&config.root_dir)?;
    let workers = Arc::<Workers>::default();
    let informers = Informers::new(client.clone(), &lifecycle);
    let told = workers.clone();
    let objects = Objects::new(&client, &tasks, &shutdown, Arc::new(move |pods| told.sources_changed(pods)));
    let http = ProbeClient::new().map_err(|error| Error::Certificate { detail: error.to_string() })?;
    let by_node = Selection::fields(format!("spec.nodeName={}", config.node_name));
    let pods = informers.of_selected::<Pod>(by_node);
    let kubelet = Arc::new(Kubelet {
        recorder: EventRecorder::new(client.clone(), "kubelet", config.node_name.clone()),
        pods: pods.clone(),
        services: informers.of::<Service>(),
        runtime_classes: informers.of::<RuntimeClass>(),
        own_node: informers
            .of_selected::<Node>(Selection::fields(format!("metadata.name={}", config.node_name))),
        allocatable: node::allocatable(&config, &machine),
        node_facts: NodeFacts {
            cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
            cluster_domain: config.cluster_domain.clone(),
            host_dns: HostDns::parse(&std::fs::read_to_string(RESOLVER_FILE).unwrap_or_default()),
            memory_bytes: machine.memory_bytes,
            hugepage_bytes: machine.hugepages.keys().copied().collect(),
            seccomp_root: config.root_dir.join("seccomp"),
        },
        cgroups: config.cgroup_root.as_deref().map(|root| {
            let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            Arc::new(PodCgroups::new(hierarchies(&mounted), root, &node::allocatable(&config, &machine)))
        }),
        kernel: Kernel::measure(),
        machine_millicores: machine.cpu_millicores,
        rates: Rates::default(),
        probe_counts: ProbeCounts::default(),
        host_ip: config.node_ip.to_string(),
        static_pods: StaticPods::default(),
        adopted: Mutex::new(HashMap::new()),
        volume_rules,
        admitted: Mutex::default(),
        log_readers: Arc::new(tokio::sync::Semaphore::new(MAX_LOG_READERS)),
        http,
        objects,
        workers,
        runtimes,
        network: pod_network,
        client,
        config,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    });

    let port = server::start(&kubelet).await?;
    let mut subscriptions = Vec::new();
    let mut adopted = Vec::new();
    for runtime in kubelet.runtimes.all() {
        let (sender, subscribed) = tokio::sync::oneshot::channel();
        // One that is not there yet tells the workers what it has when it comes.
        if runtime.problem().is_none() {
            subscriptions.push(subscribed);
            adopted.push(runtime.clone());
        }
        tasks.spawn(pleg::follow(kubelet.clone(), runtime.clone(), sender));
    }
    futures::future::join_all(subscriptions).await;
    for runtime in &adopted {
        pleg::adopt(&kubelet, runtime)
            .await
            .map_err(|source| Error::Runtime { verb: "ListContainers", source })?;
    }
    let (registered, mut is_registered) = tokio::sync::watch::channel(false);
    tasks.spawn(node::report(kubelet.clone(), machine, port, registered));
    tasks.spawn(node::renew(kubelet.clone()));
    if let Some(routed) = kubelet.config.routed.clone() {
        tasks.spawn(network::bring_up(kubelet.clone(), routed));
    }

    let start = async {
        // Environment and runtime of a pod depend on these.
        let synced = futures::join!(kubelet.services.wait_synced(), kubelet.runtime_classes.wait_synced());
        if synced != (true, true) {
            return;
        }
        let seen = kubelet.clone();
        pods.subscribe(move |change| seen.pod_changed(change));
        if let Some(directory) = kubelet.config.static_pod_dir.clone() {
            tasks.spawn(static_pods::follow(kubelet.clone(), directory));
        }
        if !pods.wait_synced().await || is_registered.wait_for(|is| *is).await.is_err() {
            return;
        }
        let (collected, stopped) = (kubelet.clone(), shutdown.clone());
        tasks.spawn(async move { stopped.run_until_cancelled(crate::garbage::collect(collected)).await });
        let (limited, stopped) = (kubelet.clone(), shutdown.clone());
        tasks.spawn(async move { stopped.run_until_cancelled(size_limits::enforce(limited)).await });
        // Of a node whose name is no label the provisioner makes no volumes.
        if wherry_machinery::names::label_value(&kubelet.config.node_name).is_empty() {
            let own = Selection::labels(format!("{LOCAL_PATH_NODE}={}", kubelet.config.node_name));
            let volumes = informers.of_selected::<PersistentVolume>(own);
            let (kept, stopped) = (kubelet.clone(), shutdown.clone());
            tasks.spawn(async move { stopped.run_until_cancelled(local_path::follow(kept, volumes)).await });
        }
        lifecycle.readiness.set_ready();
    };
    shutdown.run_until_cancelled(start).await;
    shutdown.cancelled().await;

    tasks.close();
    tasks.wait().await;
    informers.shut_down().await;
    Ok(())
}

/// What pods may have of the node's files.
fn volume_rules(config: &Config) -> Result<Rules, Error> {
    let local_volumes = config.root_dir.join(local_path::DIRECTORY);
    local_path::make_root(&local_volumes, config.runtime_owner_uid)
        .map_err(|source| Error::Directory { path: local_volumes.clone(), source })?;
    let mut protected = vec![config.root_dir.clone(), config.log_dir.clone()];
    // Links on the way to them would hide them.
    protected.extend(config.protected_dirs.iter().filter_map(|directory| directory.canonicalize().ok()));
    Ok(Rules { protected, local_volumes, runtime_owner_uid: config.runtime_owner_uid })
}

/// Makes a directory that is missing, and answers its real path.
fn made_directory(path: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .map_err(|source| Error::Directory { path: path.to_owned(), source })
}
