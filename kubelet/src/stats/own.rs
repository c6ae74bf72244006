//! The kubelet's own metrics: `/metrics` and `/metrics/probes`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wherry_runtimes::{ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState};

use super::exposition::{Family, Kind, number};
use crate::kubelet::Kubelet;
use crate::probes::ProbeKind;

/// How a probe came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeResult {
    /// It succeeded.
    Successful,
    /// It failed.
    Failed,
    /// It could not be run.
    Unknown,
}

impl ProbeResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Successful => "successful",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// Pod and container that were probed: namespace, pod, uid, container.
type Subject = (String, String, String, String);

/// Probes since the kubelet started, by pod; those of a pod go with it.
#[derive(Debug, Default)]
pub(crate) struct ProbeCounts(Mutex<BTreeMap<(Subject, ProbeKind, ProbeResult), u64>>);

impl ProbeCounts {
    /// Counts one.
    pub(crate) fn count(&self, subject: Subject, kind: ProbeKind, result: ProbeResult) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((subject, kind, result)).or_default() += 1;
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|((_, _, known, _), _, _), _| known != uid);
    }

    /// The metrics.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut total = Family::new(
            "prober_probe",
            "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
            Kind::Counter,
        );
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (((namespace, pod, uid, container), kind, result), count) in counts.iter() {
            let labels = vec![
                ("container", container.clone()),
                ("namespace", namespace.clone()),
                ("pod", pod.clone()),
                ("pod_uid", uid.clone()),
                ("probe_type", kind.as_str().to_owned()),
                ("result", result.as_str().to_owned()),
            ];
            total.add(labels, number(*count));
        }
        vec![total]
    }
}

/// What the kubelet says of itself. Source: the names of Kubernetes' `pkg/kubelet/metrics`.
pub(crate) async fn families(kubelet: &Arc<Kubelet>) -> Vec<Family> {
    let mut node =
        Family::new("kubelet_node_name", "[ALPHA] The node's name. The count is always 1.", Kind::Gauge);
    node.add(vec![("node", kubelet.config.node_name.clone())], 1.0);
    let mut working = Family::new("kubelet_working_pods", "Number of pods that have a worker.", Kind::Gauge);
    working.add(Vec::new(), count(kubelet.workers.uids().len()));
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sandboxes = 0_usize;
    for runtime in kubelet.runtimes.all() {
        for container in
            runtime.service.list_containers(&ContainerFilter::default()).await.unwrap_or_default()
        {
            let state = match container.state {
                ContainerState::Created => "created",
                ContainerState::Running => "running",
                ContainerState::Exited => "exited",
                ContainerState::Unknown => "unknown",
            };
            *by_state.entry(state).or_default() += 1;
        }
        let ready = PodSandboxFilter { state: Some(PodSandboxState::Ready), ..PodSandboxFilter::default() };
        sandboxes += runtime.service.list_pod_sandbox(&ready).await.unwrap_or_default().len();
    }
    let mut pods = Family::new(
        "kubelet_running_pods",
        "[BETA] Number of pods that have a running pod sandbox",
        Kind::Gauge,
    );
    pods.add(Vec::new(), count(sandboxes));
    let mut containers = Family::new(
        "kubelet_running_containers",
        "[BETA] Number of containers currently running",
        Kind::Gauge,
    );
    for (state, number) in by_state {
        containers.add(vec![("container_state", state.to_owned())], count(number));
    }
    vec![node, working, pods, containers]
}

fn count(value: usize) -> f64 {
    number(u64::try_from(value).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_until_their_pod_is_gone() {
        let counts = ProbeCounts::default();
        let subject = |uid: &str| ("n".to_owned(), "p".to_owned(), uid.to_owned(), "c".to_owned());
        counts.count(subject("1"), ProbeKind::Liveness, ProbeResult::Failed);
        counts.count(subject("1"), ProbeKind::Liveness, ProbeResult::Failed);
        counts.count(subject("2"), ProbeKind::Readiness, ProbeResult::Successful);
        let samples = counts.families().remove(0).samples;
        assert_eq!(samples.iter().map(|s| s.value).collect::<Vec<_>>(), [2.0, 1.0]);
        counts.forget("1");
        assert_eq!(counts.families().remove(0).samples.len(), 1);
    }
}
