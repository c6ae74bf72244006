//! Which probes run for a pod now.

use std::collections::HashSet;

use super::backoff::elapsed;
use super::observed::{ContainerPhase, Verdict};
use super::worker::{Stage, Worker};
use crate::probes::{ProbeKind, ProbeTarget};

impl Worker {
    pub(super) fn update_probes(&mut self) {
        let running: HashSet<String> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.phase == ContainerPhase::Running)
            .map(|c| c.id.clone())
            .collect();
        let (stage, stopping) = (self.stage, &self.stopping);
        self.probes.retain(|id, kind| {
            running.contains(id)
                && (kind == ProbeKind::Readiness || (stage == Stage::Sync && !stopping.contains(id)))
        });
        if self.stage != Stage::Sync {
            return;
        }
        let Some(runtime) = self.runtime.clone() else { return };
        let now = self.kubelet.now();
        let seen: Vec<_> =
            self.observed.containers.iter().filter(|c| c.phase == ContainerPhase::Running).cloned().collect();
        for seen in seen {
            let Some(container) = self.container(&seen.name).cloned() else { continue };
            let is_started = container.startup_probe.is_none() || seen.verdicts.startup == Verdict::Success;
            let startup_runs = !is_started && seen.verdicts.startup == Verdict::Pending;
            let wanted = [
                (ProbeKind::Startup, container.startup_probe.clone().filter(|_| startup_runs)),
                (ProbeKind::Liveness, container.liveness_probe.clone().filter(|_| is_started)),
                (ProbeKind::Readiness, container.readiness_probe.clone().filter(|_| is_started)),
            ];
            for (kind, probe) in wanted {
                let Some(probe) = probe.filter(|_| !self.probes.is_running(&seen.id, kind)) else { continue };
                let target = ProbeTarget {
                    kubelet: self.kubelet.clone(),
                    runtime: runtime.clone(),
                    pod: self.pod.clone(),
                    container: container.clone(),
                    container_id: seen.id.clone(),
                    pod_ip: self.pod_ips().into_iter().next().unwrap_or_default(),
                    mailbox: self.mailbox.clone(),
                    age: elapsed(seen.started_at.unwrap_or(now), now),
                };
                self.probes.start(target, kind, probe);
            }
        }
    }
}
