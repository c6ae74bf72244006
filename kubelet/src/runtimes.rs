//! The node's runtimes: which one a pod gets, and their answers as the kubelet's own types.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use wherry_runtimes::{
    ContainerState, ContainerStatus, ImageSpec, NetworkConfig, PodSandboxState, PodSandboxStatus, Runtime,
    RuntimeConfig,
};

use crate::error::Error;
use crate::pod::labels;
use crate::pod::observed::{ContainerObserved, ContainerPhase, SandboxObserved};

/// One runtime of the node.
pub(crate) struct NodeRuntime {
    /// Handler of the RuntimeClass that chooses it.
    pub(crate) handler: String,
    /// Name: prefix of container ids.
    pub(crate) name: String,
    /// Version, for `nodeInfo`.
    pub(crate) version: String,
    /// The runtime.
    pub(crate) service: Arc<dyn Runtime>,
}

impl NodeRuntime {
    /// Tells the runtime the range of the node's pods. Its process does not keep it; saying it again changes nothing.
    pub(crate) async fn configure(&self, pod_cidr: &str) -> Result<(), wherry_runtimes::Error> {
        if pod_cidr.is_empty() {
            return Ok(());
        }
        let network_config = NetworkConfig { pod_cidr: pod_cidr.to_owned() };
        self.service.update_runtime_config(RuntimeConfig { network_config }).await
    }
}

/// All runtimes.
pub(crate) struct NodeRuntimes {
    all: Vec<Arc<NodeRuntime>>,
    default: Arc<NodeRuntime>,
}

impl NodeRuntimes {
    pub(crate) async fn connect(config: &crate::config::Config) -> Result<Self, Error> {
        let mut all = Vec::new();
        for entry in &config.runtimes {
            let version =
                entry.runtime.version().await.map_err(|source| Error::Runtime { verb: "Version", source })?;
            all.push(Arc::new(NodeRuntime {
                handler: entry.handler.clone(),
                name: version.runtime_name,
                version: version.runtime_version,
                service: entry.runtime.clone(),
            }));
        }
        let default = all
            .iter()
            .find(|r| config.default_handler.is_empty() || r.handler == config.default_handler)
            .cloned()
            .ok_or_else(|| Error::NoRuntime { handler: config.default_handler.clone() })?;
        Ok(Self { all, default })
    }

    pub(crate) fn all(&self) -> &[Arc<NodeRuntime>] {
        &self.all
    }

    pub(crate) fn default_runtime(&self) -> &Arc<NodeRuntime> {
        &self.default
    }

    /// The runtime of a RuntimeClass' handler.
    pub(crate) fn by_handler(&self, handler: &str) -> Option<Arc<NodeRuntime>> {
        self.all.iter().find(|r| r.handler == handler).cloned()
    }

    /// The runtime that knows an image already, the default one preferred; the default one when none does.
    pub(crate) async fn by_image(&self, image: &str) -> Arc<NodeRuntime> {
        if self.all.len() == 1 {
            return self.default.clone();
        }
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let others = self.all.iter().filter(|r| !Arc::ptr_eq(r, &self.default));
        for runtime in std::iter::once(&self.default).chain(others) {
            if matches!(runtime.service.image_status(&spec).await, Ok(Some(_))) {
                return runtime.clone();
            }
        }
        self.default.clone()
    }
}

fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()).flatten()
}

/// A sandbox's status as the kubelet sees it.
pub(crate) fn sandbox_observed(status: &PodSandboxStatus) -> SandboxObserved {
    let network = status.network.as_ref();
    let first = network.map(|n| n.ip.clone()).filter(|ip| !ip.is_empty());
    let further = network.map(|n| n.additional_ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>());
    SandboxObserved {
        id: status.id.clone(),
        attempt: status.metadata.attempt,
        is_ready: status.state == PodSandboxState::Ready,
        created_at: timestamp(status.created_at).unwrap_or_default(),
        ips: first.into_iter().chain(further.into_iter().flatten()).collect(),
    }
}

/// A container's status as the kubelet sees it.
pub(crate) fn container_observed(status: &ContainerStatus, sandbox_id: &str) -> ContainerObserved {
    let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
    let image = [&status.image.user_specified_image, &status.image.image, &status.image_ref]
        .into_iter()
        .find(|image| !image.is_empty())
        .cloned()
        .unwrap_or_default();
    ContainerObserved {
        id: status.id.clone(),
        name: status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_else(|| status.metadata.name.clone()),
        sandbox_id: sandbox_id.to_owned(),
        restart_count: annotation(labels::CONTAINER_RESTART_COUNT).parse().unwrap_or(status.metadata.attempt),
        phase: match status.state {
            ContainerState::Created => ContainerPhase::Created,
            ContainerState::Running => ContainerPhase::Running,
            ContainerState::Exited => ContainerPhase::Exited,
            ContainerState::Unknown => ContainerPhase::Unknown,
        },
        created_at: timestamp(status.created_at).unwrap_or_default(),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image,
        image_id: if status.image_ref.is_empty() {
            status.image_id.clone()
        } else {
            status.image_ref.clone()
        },
        hash: annotation(labels::CONTAINER_HASH),
        log_path: status.log_path.clone(),
        ..ContainerObserved::default()
    }
}
