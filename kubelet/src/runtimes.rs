//! The node's runtimes: which one a pod gets, and their answers as the kubelet's own types.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use wherry_runtimes::{
    ContainerState, ContainerStatus, ImageSpec, NetworkConfig, PodSandboxState, PodSandboxStatus, Runtime,
    RuntimeConfig, VersionResponse,
};

use crate::config::{ImageKindsEntry, RuntimeRole};
use crate::error::Error;
use crate::images::pull_secrets::credentials;
use crate::images::reference::with_default_tag;
use crate::mixed::MixedRuntime;
use crate::pod::labels;
use crate::pod::observed::{ContainerObserved, ContainerPhase, SandboxObserved};

/// How long a runtime that the node can do without is waited for at the start.
const OPTIONAL_PATIENCE: Duration = Duration::from_secs(1);
/// How long a registry may take to say what an image is.
const KIND_TIMEOUT: Duration = Duration::from_secs(10);

/// What a runtime runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Processes in namespaces and cgroups.
    Linux,
    /// WebAssembly guests.
    Wasm,
}

/// The name that the Wasm runtime gives itself.
const WASM_RUNTIME_NAME: &str = "wherry-wasm";

/// One runtime of the node.
pub(crate) struct NodeRuntime {
    /// Handler of the RuntimeClass that chooses it.
    pub(crate) handler: String,
    /// What the node does without it.
    pub(crate) role: RuntimeRole,
    /// Name and version, once it has said them.
    version: Arc<OnceLock<VersionResponse>>,
    /// Why it cannot be used now; nothing when it can.
    problem: tokio::sync::watch::Sender<Option<String>>,
    /// The runtime.
    pub(crate) service: Arc<dyn Runtime>,
}

impl NodeRuntime {
    fn new(handler: &str, service: Arc<dyn Runtime>, role: RuntimeRole) -> Self {
        let waiting = format!("the runtime for {handler:?} has not answered yet");
        let problem = tokio::sync::watch::Sender::new(Some(waiting));
        Self { handler: handler.to_owned(), role, version: Arc::default(), problem, service }
    }

    /// Name: prefix of container ids.
    pub(crate) fn name(&self) -> &str {
        match self.version.get() {
            Some(version) => &version.runtime_name,
            None => "containerd",
        }
    }

    /// Version, for `nodeInfo`.
    pub(crate) fn version(&self) -> &str {
        self.version.get().map_or("", |version| &version.runtime_version)
    }

    /// Why it cannot be used now.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Whether it can be used, as its follower sees it.
    pub(crate) fn set_problem(&self, problem: Option<String>) {
        self.problem.send_if_modified(|known| {
            let is_new = *known != problem;
            *known = problem;
            is_new
        });
    }

    /// Asks for name and version, once.
    pub(crate) async fn introduce(&self) -> Result<(), wherry_runtimes::Error> {
        if self.version.get().is_none() {
            let version = self.service.version().await?;
            let _ = self.version.set(version);
        }
        Ok(())
    }

    /// What it runs.
    pub(crate) fn kind(&self) -> RuntimeKind {
        if self.name() == WASM_RUNTIME_NAME { RuntimeKind::Wasm } else { RuntimeKind::Linux }
    }

    /// Tells the runtime the range of the node's pods. Its process does not keep it; saying it again changes nothing.
    pub(crate) async fn configure(&self, pod_cidr: &str) -> Result<(), wherry_runtimes::Error> {
        if pod_cidr.is_empty() {
            return Ok(());
        }
        let network_config = NetworkConfig { pod_cidr: pod_cidr.to_owned() };
        self.service.update_runtime_config(RuntimeConfig { network_config }).await
    }

    async fn has(&self, image: &str) -> bool {
        let image = with_default_tag(image);
        let spec = ImageSpec { image, runtime_handler: self.handler.clone(), ..ImageSpec::default() };
        matches!(self.service.image_status(&spec).await, Ok(Some(_)))
    }
}

/// All runtimes.
pub(crate) struct NodeRuntimes {
    all: Vec<Arc<NodeRuntime>>,
    default: Arc<NodeRuntime>,
    /// The optional runtime's sandboxes, with guests of the default runtime in them where a pod has some.
    mixed: Option<Arc<NodeRuntime>>,
    kinds: ImageKindsEntry,
}

impl NodeRuntimes {
    pub(crate) async fn connect(config: &crate::config::Config) -> Result<Self, Error> {
        let mut all = Vec::new();
        for entry in &config.runtimes {
            let runtime = NodeRuntime::new(&entry.handler, entry.runtime.clone(), entry.role);
            let introduced = match entry.role {
                RuntimeRole::Required => runtime.introduce().await,
                RuntimeRole::Optional => {
                    let answer = tokio::time::timeout(OPTIONAL_PATIENCE, runtime.introduce()).await;
                    answer.unwrap_or_else(|_| {
                        Err(wherry_runtimes::Error::DeadlineExceeded("it does not answer".to_owned()))
                    })
                }
            };
            match (introduced, entry.role) {
                (Ok(()), _) => runtime.set_problem(None),
                (Err(error), RuntimeRole::Optional) => {
                    tracing::info!(%error, handler = %entry.handler, "this runtime is not there yet");
                    runtime.set_problem(Some(error.to_string()));
                }
                (Err(source), RuntimeRole::Required) => {
                    return Err(Error::Runtime { verb: "Version", source });
                }
            }
            all.push(Arc::new(runtime));
        }
        let default = all
            .iter()
            .find(|r| config.default_handler.is_empty() || r.handler == config.default_handler)
            .cloned()
            .ok_or_else(|| Error::NoRuntime { handler: config.default_handler.clone() })?;
        let mixed = all.iter().find(|r| r.role == RuntimeRole::Optional).map(|linux| {
            let service = MixedRuntime::new(linux.service.clone(), default.service.clone(), &default.handler);
            let version = linux.version.clone();
            let (handler, role, problem) = (linux.handler.clone(), linux.role, linux.problem.clone());
            Arc::new(NodeRuntime { handler, role, version, problem, service: Arc::new(service) })
        });
        Ok(Self { all, default, mixed, kinds: config.image_kinds.clone() })
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

    /// The runtime of a pod whose sandboxes and containers are found in this one: its guests, if any, come with it.
    pub(crate) fn of_pods_in(&self, runtime: &Arc<NodeRuntime>) -> Arc<NodeRuntime> {
        match &self.mixed {
            Some(mixed) if runtime.role == RuntimeRole::Optional => mixed.clone(),
            _ => runtime.clone(),
        }
    }

    /// The runtime of pods that hold containers and guests, where the node can run such.
    pub(crate) fn mixed_runtime(&self) -> Option<Arc<NodeRuntime>> {
        self.mixed.clone()
    }

    /// Whether containers of a pod of this runtime may be in either of two.
    pub(crate) fn is_mixed(&self, runtime: &Arc<NodeRuntime>) -> bool {
        self.mixed.as_ref().is_some_and(|mixed| Arc::ptr_eq(mixed, runtime))
    }

    /// The runtime for a pod with these images: the default one when it can run them all, else the one that can hold
    /// containers and guests.
    pub(crate) async fn by_images(&self, images: &[String], secrets: &[Arc<Secret>]) -> Arc<NodeRuntime> {
        let Some(mixed) = &self.mixed else { return self.default.clone() };
        let found = join_all(images.iter().map(|image| self.by_image(image, secrets))).await;
        let all_default = found.iter().all(|runtime| Arc::ptr_eq(runtime, &self.default));
        if all_default { self.default.clone() } else { mixed.clone() }
    }

    /// The runtime for one image: one that has it, the default one preferred; else the one that its registry's word
    /// means; without one, the container runtime, whose words about it are those that people know.
    pub(crate) async fn by_image(&self, image: &str, secrets: &[Arc<Secret>]) -> Arc<NodeRuntime> {
        let Some(linux) = self.all.iter().find(|r| r.role == RuntimeRole::Optional) else {
            return self.default.clone();
        };
        for runtime in [&self.default, linux] {
            if runtime.has(image).await {
                return runtime.clone();
            }
        }
        let Some(kinds) = &self.kinds.0 else { return linux.clone() };
        let credentials = credentials(image, secrets.iter().map(AsRef::as_ref));
        let image = with_default_tag(image);
        let asked = kinds.handler_of(&image, &credentials);
        match tokio::time::timeout(KIND_TIMEOUT, asked).await {
            Ok(Ok(handler)) => self.by_handler(&handler).unwrap_or_else(|| linux.clone()),
            Ok(Err(error)) => {
                tracing::debug!(%error, %image, "cannot tell what this image is");
                linux.clone()
            }
            Err(_) => linux.clone(),
        }
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
        runtime: annotation(labels::CONTAINER_RUNTIME),
        log_path: status.log_path.clone(),
        ..ContainerObserved::default()
    }
}
