//! What pods use, as their runtimes count it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use wherry_runtimes::{
    ContainerStats as CriContainer, ContainerStatsFilter, CpuUsage, LinuxPodSandboxStats, MemoryUsage,
    NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxFilter, PodSandboxState,
    PodSandboxStats, PodSandboxStatsFilter, SwapUsage,
};

use super::model::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, PodReference, PodStats,
    ProcessStats, SwapStats,
};
use super::rates::Rates;
use crate::pod::labels;
use crate::runtimes::NodeRuntime;

/// Sandboxes of a runtime with what they use; put together from containers where the runtime has no such call.
pub(super) async fn sandboxes(runtime: &NodeRuntime) -> Vec<PodSandboxStats> {
    match runtime.service.list_pod_sandbox_stats(&PodSandboxStatsFilter::default()).await {
        Ok(found) => found,
        Err(_) => from_containers(runtime).await.unwrap_or_default(),
    }
}

async fn from_containers(runtime: &NodeRuntime) -> Result<Vec<PodSandboxStats>, wherry_runtimes::Error> {
    let filter = PodSandboxFilter { state: Some(PodSandboxState::Ready), ..PodSandboxFilter::default() };
    let sandboxes = runtime.service.list_pod_sandbox(&filter).await?;
    let containers = runtime.service.list_container_stats(&ContainerStatsFilter::default()).await?;
    let mut by_pod: BTreeMap<String, Vec<CriContainer>> = BTreeMap::new();
    for container in containers {
        if let Some(uid) = container.attributes.labels.get(labels::POD_UID) {
            by_pod.entry(uid.clone()).or_default().push(container);
        }
    }
    Ok(sandboxes
        .into_iter()
        .map(|sandbox| {
            let containers = by_pod.remove(&sandbox.metadata.uid).unwrap_or_default();
            PodSandboxStats {
                attributes: PodSandboxAttributes {
                    id: sandbox.id,
                    metadata: sandbox.metadata,
                    labels: sandbox.labels,
                    annotations: sandbox.annotations,
                },
                linux: Some(LinuxPodSandboxStats {
                    cpu: total_cpu(&containers),
                    memory: total_memory(&containers),
                    containers,
                    ..LinuxPodSandboxStats::default()
                }),
            }
        })
        .collect())
}

fn total_cpu(containers: &[CriContainer]) -> Option<CpuUsage> {
    let used: Vec<&CpuUsage> = containers.iter().filter_map(|c| c.cpu.as_ref()).collect();
    Some(CpuUsage {
        timestamp: used.iter().map(|u| u.timestamp).max()?,
        usage_core_nano_seconds: Some(used.iter().filter_map(|u| u.usage_core_nano_seconds).sum()),
        usage_nano_cores: None,
    })
}

fn total_memory(containers: &[CriContainer]) -> Option<MemoryUsage> {
    let used: Vec<&MemoryUsage> = containers.iter().filter_map(|c| c.memory.as_ref()).collect();
    let sum = |field: fn(&MemoryUsage) -> Option<u64>| Some(used.iter().filter_map(|u| field(u)).sum());
    Some(MemoryUsage {
        timestamp: used.iter().map(|u| u.timestamp).max()?,
        working_set_bytes: sum(|u| u.working_set_bytes),
        usage_bytes: sum(|u| u.usage_bytes),
        rss_bytes: sum(|u| u.rss_bytes),
        page_faults: sum(|u| u.page_faults),
        major_page_faults: sum(|u| u.major_page_faults),
        available_bytes: None,
    })
}

/// A sandbox as the summary shows it. The pod, when it is known, says since when and with which images.
pub(super) fn pod_stats(
    sandbox: PodSandboxStats,
    pod: Option<&Pod>,
    file_system: Option<FsStats>,
    rates: &Rates,
) -> PodStats {
    let metadata = sandbox.attributes.metadata;
    let linux = sandbox.linux.unwrap_or_default();
    let status = pod.and_then(|pod| pod.status.as_ref());
    PodStats {
        pod_ref: PodReference { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid },
        start_time: status.and_then(|s| s.start_time.as_ref()).map(|time| time.0),
        cpu: cpu(&sandbox.attributes.id, linux.cpu.as_ref(), rates),
        memory: memory(linux.memory.as_ref()),
        network: linux.network.as_ref().map(network),
        processes: linux.process.as_ref().map(|p| ProcessStats { process_count: p.process_count }),
        containers: linux
            .containers
            .iter()
            // Some runtimes list containers that have ended; they use nothing.
            .filter(|container| {
                container.cpu.as_ref().is_some_and(|cpu| cpu.usage_core_nano_seconds.is_some())
            })
            .map(|container| container_stats(container, pod, file_system, rates))
            .collect(),
        ..PodStats::default()
    }
}

fn container_stats(
    container: &CriContainer,
    pod: Option<&Pod>,
    file_system: Option<FsStats>,
    rates: &Rates,
) -> ContainerStats {
    let name = &container.attributes.metadata.name;
    let status = pod.and_then(|pod| status_of(pod, name));
    let started = status.and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    ContainerStats {
        name: name.clone(),
        id: container.attributes.id.clone(),
        image: status.map(|s| s.image.clone()).unwrap_or_default(),
        start_time: started.map(|time| time.0),
        cpu: cpu(&container.attributes.id, container.cpu.as_ref(), rates),
        memory: memory(container.memory.as_ref()),
        rootfs: container.writable_layer.as_ref().map(|layer| FsStats {
            time: time(layer.timestamp),
            used_bytes: layer.used_bytes,
            inodes_used: layer.inodes_used,
            ..file_system.unwrap_or_default()
        }),
        logs: None,
        swap: container.swap.as_ref().map(swap),
    }
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default()
}

fn cpu(key: &str, usage: Option<&CpuUsage>, rates: &Rates) -> Option<CpuStats> {
    let usage = usage?;
    let looked = usage.usage_core_nano_seconds.and_then(|used| rates.look(key, usage.timestamp, used));
    Some(CpuStats {
        time: time(usage.timestamp),
        // Some runtimes say 0 where they have not looked twice.
        usage_nano_cores: usage.usage_nano_cores.filter(|rate| *rate > 0).or(looked),
        usage_core_nano_seconds: usage.usage_core_nano_seconds,
    })
}

fn memory(usage: Option<&MemoryUsage>) -> Option<MemoryStats> {
    usage.map(|usage| MemoryStats {
        time: time(usage.timestamp),
        available_bytes: usage.available_bytes,
        usage_bytes: usage.usage_bytes,
        working_set_bytes: usage.working_set_bytes,
        rss_bytes: usage.rss_bytes,
        page_faults: usage.page_faults,
        major_page_faults: usage.major_page_faults,
    })
}

fn swap(usage: &SwapUsage) -> SwapStats {
    SwapStats {
        time: time(usage.timestamp),
        swap_available_bytes: usage.swap_available_bytes,
        swap_usage_bytes: usage.swap_usage_bytes,
    }
}

fn network(usage: &NetworkUsage) -> NetworkStats {
    let interface = |usage: &NetworkInterfaceUsage| InterfaceStats {
        name: usage.name.clone(),
        rx_bytes: usage.rx_bytes,
        rx_errors: usage.rx_errors,
        tx_bytes: usage.tx_bytes,
        tx_errors: usage.tx_errors,
    };
    NetworkStats {
        time: time(usage.timestamp),
        default: usage.default_interface.as_ref().map(interface),
        interfaces: usage.interfaces.iter().map(interface).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wherry_runtimes::ContainerAttributes;

    #[test]
    fn containers_that_have_ended_are_not_told() {
        let container = |id: &str, used: Option<u64>| CriContainer {
            attributes: ContainerAttributes { id: id.to_owned(), ..ContainerAttributes::default() },
            cpu: Some(CpuUsage { usage_core_nano_seconds: used, ..CpuUsage::default() }),
            ..CriContainer::default()
        };
        let linux = LinuxPodSandboxStats {
            containers: vec![container("runs", Some(1)), container("ended", None)],
            ..LinuxPodSandboxStats::default()
        };
        let sandbox = PodSandboxStats { linux: Some(linux), ..PodSandboxStats::default() };
        let found = pod_stats(sandbox, None, None, &Rates::default());
        let ids: Vec<&str> = found.containers.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["runs"]);
    }
}
