//! Putting the summary together.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::disk::{self, Usage, file_system};
use super::model::{FsStats, PodStats, RuntimeStats, Summary, VolumeStats};
use super::{node, pods};
use crate::kubelet::{Kubelet, path_part};

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// CPU and memory: no file is counted.
    CpuAndMemory,
    /// Everything.
    Full,
}

/// Looks at the node and everything that runs on it.
pub(crate) async fn summary(kubelet: &Arc<Kubelet>, detail: Detail) -> Summary {
    let now = kubelet.now();
    let measuring = kubelet.clone();
    let node = tokio::task::spawn_blocking(move || {
        let config = &measuring.config;
        node::measure(&config.node_name, &config.root_dir, &measuring.rates, now)
    });
    let node = node.await.unwrap_or_default();
    let known: HashMap<(String, String), Arc<Pod>> = kubelet
        .pods
        .store()
        .list()
        .into_iter()
        .map(|pod| {
            let key = |text: &Option<String>| text.clone().unwrap_or_default();
            ((key(&pod.metadata.namespace), key(&pod.metadata.name)), pod)
        })
        .collect();
    let mut found = Vec::new();
    let mut runtime_stats = RuntimeStats::default();
    for runtime in kubelet.runtimes.all() {
        for sandbox in pods::sandboxes(runtime).await {
            let metadata = &sandbox.attributes.metadata;
            let pod = known.get(&(metadata.namespace.clone(), metadata.name.clone()));
            found.push(pods::pod_stats(sandbox, pod.map(Arc::as_ref), node.fs, &kubelet.rates));
        }
        if detail == Detail::Full {
            let image_fs = image_fs(kubelet, runtime).await;
            merge(&mut runtime_stats.image_fs, image_fs);
        }
    }
    found.sort_by(|a, b| {
        (&a.pod_ref.namespace, &a.pod_ref.name).cmp(&(&b.pod_ref.namespace, &b.pod_ref.name))
    });
    kubelet.rates.forget(i64::try_from(now.as_nanosecond()).unwrap_or(0));
    let mut node = node;
    if detail == Detail::Full {
        runtime_stats.container_fs = node.fs;
        node.runtime = Some(runtime_stats);
        let (counting, fs) = (kubelet.clone(), node.fs);
        let counted = tokio::task::spawn_blocking(move || count_files(&counting, found, fs));
        found = counted.await.unwrap_or_default();
    }
    Summary { node, pods: found }
}

/// The file system of a runtime's images, with what they take of it.
async fn image_fs(kubelet: &Arc<Kubelet>, runtime: &crate::runtimes::NodeRuntime) -> Option<FsStats> {
    let info = runtime.service.image_fs_info().await.ok()?;
    let usage = info.image_filesystems.into_iter().next()?;
    let path = PathBuf::from(&usage.fs_id.mountpoint);
    let now = kubelet.now();
    let fs = tokio::task::spawn_blocking(move || file_system(&path, now)).await.ok().flatten();
    Some(FsStats { used_bytes: usage.used_bytes, inodes_used: usage.inodes_used, ..fs.unwrap_or_default() })
}

/// Several runtimes keep images: what they take together, on the first one's file system.
fn merge(into: &mut Option<FsStats>, more: Option<FsStats>) {
    let Some(more) = more else { return };
    match into {
        None => *into = Some(more),
        Some(known) => {
            let add = |a: Option<u64>, b: Option<u64>| Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0)));
            known.used_bytes = add(known.used_bytes, more.used_bytes);
            known.inodes_used = add(known.inodes_used, more.inodes_used);
        }
    }
}

/// Adds logs, volumes and their sum. Blocking.
fn count_files(kubelet: &Kubelet, pods: Vec<PodStats>, file_system: Option<FsStats>) -> Vec<PodStats> {
    let Some(file_system) = file_system else { return pods };
    let mut budget = disk::MAX_ENTRIES;
    pods.into_iter()
        .map(|mut pod| {
            let reference = &pod.pod_ref;
            let logs = kubelet
                .config
                .log_dir
                .join(path_part(&format!("{}_{}_{}", reference.namespace, reference.name, reference.uid)));
            let mut total = Usage::default();
            for container in &mut pod.containers {
                let usage = disk::usage(&logs.join(path_part(&container.name)), &mut budget);
                container.logs = Some(file_system.used_by(usage));
                total += usage;
                if let Some(rootfs) = &container.rootfs {
                    total += Usage {
                        bytes: rootfs.used_bytes.unwrap_or(0),
                        inodes: rootfs.inodes_used.unwrap_or(0),
                    };
                }
            }
            let volumes = kubelet.pod_dir(&reference.uid).join("volumes");
            for plugin in entries(&volumes) {
                for volume in entries(&plugin) {
                    let usage = disk::usage(&volume, &mut budget);
                    total += usage;
                    let name = volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    pod.volumes.push(VolumeStats { fs: file_system.used_by(usage), name });
                }
            }
            pod.ephemeral_storage = Some(file_system.used_by(total));
            pod
        })
        .collect()
}

fn entries(directory: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
