//! CRI's verbs on the fake's tables.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::watch;

use super::script::{Behaviour, Exit, OnStop};
use super::state::{ContainerRecord, KILLED, Sandbox, print};
use super::{FakeRuntime, Shared};
use crate::{
    AttachRequest, CgroupDriver, Container, ContainerAttributes, ContainerConfig, ContainerEventType,
    ContainerFilter, ContainerResources, ContainerState, ContainerStats, ContainerStatsFilter,
    ContainerStatus, CpuUsage, Error, EventStream, ExecRequest, ExecSyncResponse, LinuxContainerResources,
    LinuxPodSandboxStats, LinuxRuntimeConfiguration, MemoryUsage, PodSandbox, PodSandboxAttributes,
    PodSandboxConfig, PodSandboxFilter, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatus, PodSandboxStatusResponse, PortForwardRequest, Result,
    RuntimeCondition, RuntimeConfig, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler, RuntimeService,
    RuntimeStatus, StatusResponse, VersionResponse,
};

/// Memory that a running container is said to use.
const CONTAINER_MEMORY_BYTES: u64 = 1 << 20;

/// Handlers that sandboxes may ask for; the empty one is the default.
const HANDLERS: [&str; 3] = ["", "wasmtime", "runc"];

impl FakeRuntime {
    fn behaviour_of(&self, config: &ContainerConfig) -> Behaviour {
        let state = self.state();
        let by_id = state.images.get(&config.image.image).into_iter().flat_map(|image| &image.repo_tags);
        std::iter::once(&config.image.image)
            .chain(std::iter::once(&config.image.user_specified_image))
            .chain(by_id)
            .find_map(|name| state.scripts.get(name))
            .cloned()
            .unwrap_or_default()
    }

    fn stats_of(&self, container: &ContainerRecord) -> ContainerStats {
        let (now, status) = (self.shared.now(), &container.status);
        let running = status.state == ContainerState::Running;
        let used_nanos = u64::try_from(if running { now - status.started_at } else { 0 }).unwrap_or(0) / 1000;
        let memory_bytes = if running { CONTAINER_MEMORY_BYTES } else { 0 };
        ContainerStats {
            attributes: ContainerAttributes {
                id: status.id.clone(),
                metadata: status.metadata.clone(),
                labels: status.labels.clone(),
                annotations: status.annotations.clone(),
            },
            cpu: Some(CpuUsage {
                timestamp: now,
                usage_core_nano_seconds: Some(used_nanos),
                usage_nano_cores: None,
            }),
            memory: Some(MemoryUsage {
                timestamp: now,
                working_set_bytes: Some(memory_bytes),
                usage_bytes: Some(memory_bytes),
                rss_bytes: Some(memory_bytes),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// Ends the container after its scripted time, unless it ended before.
async fn exit_later(shared: std::sync::Weak<Shared>, id: String, after: Duration, exit: Exit) {
    let Some(now) = shared.upgrade() else { return };
    let (clock, shutdown) = (Arc::clone(&now.clock), now.shutdown.clone());
    drop(now);
    tokio::select! {
        () = clock.sleep(after) => {}
        () = shutdown.cancelled() => return,
    }
    if let Some(shared) = shared.upgrade() {
        let mut state = shared.lock();
        shared.finish(&mut state, &id, &exit);
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        drop(self.shared.enter("Version", "")?);
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> Result<StatusResponse> {
        drop(self.shared.enter("Status", "")?);
        let condition =
            |r#type: &str| RuntimeCondition { r#type: r#type.to_owned(), status: true, ..Default::default() };
        Ok(StatusResponse {
            status: RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] },
            runtime_handlers: HANDLERS
                .iter()
                .map(|name| RuntimeHandler { name: (*name).to_owned(), ..Default::default() })
                .collect(),
            features: Some(RuntimeFeatures { supplemental_groups_policy: false }),
        })
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        drop(self.shared.enter("RuntimeConfig", "")?);
        Ok(RuntimeConfigResponse {
            linux: Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs }),
        })
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let mut state = self.shared.enter("UpdateRuntimeConfig", "")?;
        match config.network_config.pod_cidr.as_str() {
            "" => Ok(()),
            cidr => state.set_pod_cidr(cidr),
        }
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let mut state = self.shared.enter("RunPodSandbox", "")?;
        if config.metadata.name.is_empty() || config.metadata.uid.is_empty() {
            return Err(Error::InvalidArgument("sandbox config has no pod name or uid".to_owned()));
        }
        if !HANDLERS.contains(&runtime_handler) {
            return Err(Error::InvalidArgument(format!("no runtime for {runtime_handler:?} is configured")));
        }
        if let Some(other) = state.sandboxes.values().find(|s| s.config.metadata == config.metadata) {
            return Err(Error::AlreadyExists(format!("sandbox is reserved for {:?}", other.status.id)));
        }
        let ip = state.allocate_address()?;
        let id = state.new_id('s');
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::Ready,
            created_at: self.shared.now(),
            network: Some(PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
            linux: None,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: runtime_handler.to_owned(),
        };
        let sandbox = Sandbox { status, config: config.clone(), containers: Default::default() };
        state.sandboxes.insert(id.clone(), sandbox);
        self.shared.emit(&state, &id, &id, ContainerEventType::Created);
        self.shared.emit(&state, &id, &id, ContainerEventType::Started);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut state = self.shared.enter("StopPodSandbox", id)?;
        self.shared.stop_sandbox(&mut state, id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut state = self.shared.enter("RemovePodSandbox", id)?;
        self.shared.stop_sandbox(&mut state, id);
        let Some(sandbox) = state.sandboxes.get(id) else { return Ok(()) };
        for container in sandbox.containers.clone() {
            self.shared.remove(&mut state, &container);
        }
        self.shared.emit(&state, id, id, ContainerEventType::Deleted);
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let state = self.shared.enter("PodSandboxStatus", id)?;
        let status = state.sandbox(id)?.status.clone();
        Ok(PodSandboxStatusResponse {
            status,
            containers_statuses: state.statuses_of(id),
            timestamp: self.shared.now(),
        })
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.shared.enter("ListPodSandbox", "")?;
        let matching = state.sandboxes.values().filter(|s| filter.matches(&s.status));
        Ok(matching.map(|s| s.status.to_list_item()).collect())
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        let behaviour = self.behaviour_of(config);
        let mut state = self.shared.enter("CreateContainer", &config.metadata.name)?;
        if config.metadata.name.is_empty() {
            return Err(Error::InvalidArgument("container config has no name".to_owned()));
        }
        if let Some(error) = behaviour.create_error {
            return Err(error);
        }
        if state.sandbox(pod_sandbox_id)?.status.state != PodSandboxState::Ready {
            return Err(Error::FailedPrecondition(format!("sandbox {pod_sandbox_id:?} is not ready")));
        }
        if let Some(other) = state.statuses_of(pod_sandbox_id).iter().find(|s| s.metadata == config.metadata)
        {
            return Err(Error::AlreadyExists(format!("container name is reserved for {:?}", other.id)));
        }
        let Some(image) = state
            .images
            .values()
            .find(|image| image.id == config.image.image || image.repo_tags.contains(&config.image.image))
        else {
            return Err(Error::not_found("image", &config.image.image));
        };
        let image_id = image.id.clone();
        let image_ref = image.repo_digests.first().cloned().unwrap_or_else(|| image_id.clone());
        let log_path = (!sandbox_config.log_directory.is_empty() && !config.log_path.is_empty())
            .then(|| Path::new(&sandbox_config.log_directory).join(&config.log_path));
        let id = state.new_id('c');
        let linux = config.linux.as_ref();
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: self.shared.now(),
            image: config.image.clone(),
            image_ref,
            image_id,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            resources: linux
                .and_then(|linux| linux.resources.clone())
                .map(|resources| ContainerResources { linux: Some(resources) }),
            ..Default::default()
        };
        let record = ContainerRecord {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            status,
            config: config.clone(),
            log_path,
            ended: watch::Sender::new(false),
        };
        state.containers.insert(id.clone(), record);
        if let Some(sandbox) = state.sandboxes.get_mut(pod_sandbox_id) {
            sandbox.containers.insert(id.clone());
        }
        self.shared.emit(&state, pod_sandbox_id, &id, ContainerEventType::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let config = self.shared.enter("StartContainer", id)?.container(id)?.config.clone();
        let behaviour = self.behaviour_of(&config);
        if !behaviour.start_delay.is_zero() {
            self.shared.clock.sleep(behaviour.start_delay).await;
        }
        let mut state = self.shared.lock();
        let now = self.shared.now();
        let container = state.container_mut(id)?;
        if container.status.state != ContainerState::Created {
            return Err(Error::FailedPrecondition(format!("container {id:?} was started before")));
        }
        if let Some(error) = behaviour.start_error {
            return Err(error);
        }
        container.status.state = ContainerState::Running;
        container.status.started_at = now;
        if let Some(path) = &container.log_path {
            print(path, self.shared.clock.as_ref(), &behaviour.output)
                .map_err(|source| Error::Internal(format!("write log {}: {source}", path.display())))?;
        }
        let pod_sandbox_id = container.pod_sandbox_id.clone();
        self.shared.emit(&state, &pod_sandbox_id, id, ContainerEventType::Started);
        if let Some((after, exit)) = behaviour.exit {
            let shared = Arc::downgrade(&self.shared);
            self.shared.tasks.spawn(exit_later(shared, id.to_owned(), after, exit));
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let (config, mut ended) = {
            let mut state = self.shared.enter("StopContainer", id)?;
            let Ok(container) = state.container_mut(id) else { return Ok(()) };
            match container.status.state {
                ContainerState::Exited => return Ok(()),
                ContainerState::Created | ContainerState::Unknown => {
                    container.status.state = ContainerState::Exited;
                    container.status.exit_code = KILLED;
                    container.status.reason = "Error".to_owned();
                    container.status.finished_at = self.shared.now();
                    container.ended.send_replace(true);
                    let pod_sandbox_id = container.pod_sandbox_id.clone();
                    self.shared.emit(&state, &pod_sandbox_id, id, ContainerEventType::Stopped);
                    return Ok(());
                }
                ContainerState::Running => (container.config.clone(), container.ended.subscribe()),
            }
        };
        let (after, exit) = match self.behaviour_of(&config).on_stop {
            OnStop::Exit(after, exit) if after <= timeout => (after, exit),
            OnStop::Exit(..) | OnStop::Ignore => (timeout, Exit::code(KILLED)),
        };
        if !after.is_zero() {
            tokio::select! {
                () = self.shared.clock.sleep(after) => {}
                // It may end by itself meanwhile; removal drops the sender, which ends the wait too.
                _ = ended.wait_for(|ended| *ended) => return Ok(()),
            }
        }
        self.shared.finish(&mut self.shared.lock(), id, &exit);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let mut state = self.shared.enter("RemoveContainer", id)?;
        self.shared.remove(&mut state, id);
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.shared.enter("ListContainers", "")?;
        let matching = state.containers.values().filter(|c| filter.matches(&c.pod_sandbox_id, &c.status));
        Ok(matching.map(|c| c.status.to_list_item(&c.pod_sandbox_id)).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let state = self.shared.enter("ContainerStatus", id)?;
        Ok(state.container(id)?.status.clone())
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        let mut state = self.shared.enter("UpdateContainerResources", id)?;
        let container = state.container_mut(id)?;
        if container.status.state == ContainerState::Exited {
            return Err(Error::FailedPrecondition(format!("container {id:?} has exited")));
        }
        container.status.resources = Some(ContainerResources { linux: Some(resources.clone()) });
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let state = self.shared.enter("ReopenContainerLog", id)?;
        let container = state.container(id)?;
        if container.status.state != ContainerState::Running {
            return Err(Error::FailedPrecondition(format!("container {id:?} is not running")));
        }
        match &container.log_path {
            Some(path) => print(path, self.shared.clock.as_ref(), &[])
                .map_err(|source| Error::Internal(format!("reopen log {}: {source}", path.display()))),
            None => Ok(()),
        }
    }

    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        _timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        drop(self.shared.enter("ExecSync", container_id)?);
        let exit_code = self.shared.exec_code(container_id)?;
        let stdout = format!("{}\n", command.join(" ")).into_bytes();
        Ok(ExecSyncResponse { stdout, stderr: Vec::new(), exit_code })
    }

    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        drop(self.shared.enter("Exec", &request.container_id)?);
        self.shared.exec_code(&request.container_id)?;
        self.shared.streaming()?.exec(request)
    }

    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        drop(self.shared.enter("Attach", &request.container_id)?);
        self.shared.exec_code(&request.container_id)?;
        self.shared.streaming()?.attach(request)
    }

    async fn port_forward(&self, request: &PortForwardRequest) -> Result<String> {
        self.shared.enter("PortForward", &request.pod_sandbox_id)?.sandbox(&request.pod_sandbox_id)?;
        self.shared.streaming()?.port_forward(request)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let state = self.shared.enter("ContainerStats", id)?;
        Ok(self.stats_of(state.container(id)?))
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let state = self.shared.enter("ListContainerStats", "")?;
        let matching = state.containers.values().filter(|c| {
            c.status.state == ContainerState::Running && filter.matches(&c.pod_sandbox_id, &c.status)
        });
        Ok(matching.map(|c| self.stats_of(c)).collect())
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        self.shared.enter("PodSandboxStats", id)?.sandbox(id)?;
        let filter = PodSandboxStatsFilter { id: id.to_owned(), ..Default::default() };
        let mut all = self.list_pod_sandbox_stats(&filter).await?;
        all.pop().ok_or_else(|| Error::FailedPrecondition(format!("sandbox {id:?} is not ready")))
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let state = self.shared.enter("ListPodSandboxStats", "")?;
        let ready = state
            .sandboxes
            .values()
            .filter(|s| s.status.state == PodSandboxState::Ready && filter.matches(&s.status));
        Ok(ready
            .map(|sandbox| PodSandboxStats {
                attributes: PodSandboxAttributes {
                    id: sandbox.status.id.clone(),
                    metadata: sandbox.status.metadata.clone(),
                    labels: sandbox.status.labels.clone(),
                    annotations: sandbox.status.annotations.clone(),
                },
                linux: Some(LinuxPodSandboxStats {
                    containers: sandbox
                        .containers
                        .iter()
                        .filter_map(|id| state.containers.get(id))
                        .map(|container| self.stats_of(container))
                        .collect(),
                    ..Default::default()
                }),
            })
            .collect())
    }

    async fn events(&self) -> Result<EventStream> {
        let broken = self.shared.enter("GetContainerEvents", "")?.events_broken.clone();
        let events = self.shared.events.subscribe(&self.shared.shutdown);
        Ok(events.take_until(broken.cancelled_owned()).boxed())
    }
}
