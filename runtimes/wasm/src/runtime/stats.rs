//! What containers and sandboxes use.

use wherry_runtimes::{
    ContainerAttributes, ContainerState, ContainerStats, CpuUsage, LinuxPodSandboxStats, MemoryUsage,
    PodSandboxAttributes, PodSandboxStats, ProcessUsage,
};

use super::Inner;
use super::state::{Container, Sandbox, State};

/// CPU time and memory as numbers.
#[derive(Clone, Copy, Default)]
struct Used {
    cpu_nanos: u64,
    memory_bytes: u64,
    limit_bytes: Option<u64>,
}

fn used(container: &Container) -> Used {
    let Some(live) = &container.live else { return Used::default() };
    Used {
        cpu_nanos: live.cpu.used_nanos(),
        memory_bytes: live.memory.used_bytes(),
        limit_bytes: live.memory.limit_bytes(),
    }
}

fn cpu(now: i64, used: Used) -> CpuUsage {
    CpuUsage { timestamp: now, usage_core_nano_seconds: Some(used.cpu_nanos), usage_nano_cores: None }
}

fn memory(now: i64, used: Used) -> MemoryUsage {
    MemoryUsage {
        timestamp: now,
        working_set_bytes: Some(used.memory_bytes),
        available_bytes: used.limit_bytes.map(|limit| limit.saturating_sub(used.memory_bytes)),
        usage_bytes: Some(used.memory_bytes),
        rss_bytes: Some(used.memory_bytes),
        page_faults: None,
        major_page_faults: None,
    }
}

impl Inner {
    pub(super) fn stats_of(&self, container: &Container) -> ContainerStats {
        let (now, used) = (self.now(), used(container));
        ContainerStats {
            attributes: ContainerAttributes {
                id: container.status.id.clone(),
                metadata: container.status.metadata.clone(),
                labels: container.status.labels.clone(),
                annotations: container.status.annotations.clone(),
            },
            cpu: Some(cpu(now, used)),
            memory: Some(memory(now, used)),
            ..Default::default()
        }
    }

    pub(super) fn sandbox_stats_of(&self, state: &State, sandbox: &Sandbox) -> PodSandboxStats {
        let now = self.now();
        let running: Vec<&Container> = state
            .containers_of(&sandbox.status.id)
            .filter(|container| container.status.state == ContainerState::Running)
            .collect();
        let total =
            state.containers_of(&sandbox.status.id).map(used).fold(Used::default(), |total, one| Used {
                cpu_nanos: total.cpu_nanos + one.cpu_nanos,
                memory_bytes: total.memory_bytes + one.memory_bytes,
                limit_bytes: None,
            });
        PodSandboxStats {
            attributes: PodSandboxAttributes {
                id: sandbox.status.id.clone(),
                metadata: sandbox.status.metadata.clone(),
                labels: sandbox.status.labels.clone(),
                annotations: sandbox.status.annotations.clone(),
            },
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(cpu(now, total)),
                memory: Some(memory(now, total)),
                network: None,
                process: Some(ProcessUsage {
                    timestamp: now,
                    process_count: Some(u64::try_from(running.len()).unwrap_or(u64::MAX)),
                }),
                containers: running.into_iter().map(|container| self.stats_of(container)).collect(),
            }),
        }
    }
}
