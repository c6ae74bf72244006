//! CRI's runtime verbs.

use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use wherry_runtimes::{
    AttachRequest, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerState, ContainerStats,
    ContainerStatsFilter, ContainerStatus, Error, EventStream, ExecRequest, ExecSyncResponse,
    LinuxContainerResources, LinuxRuntimeConfiguration, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxState, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatusResponse, PortForwardRequest,
    Result, RuntimeCondition, RuntimeConfig, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeService, RuntimeStatus, StatusResponse, VersionResponse,
};

use super::{HANDLERS, WasmRuntime};

#[async_trait]
impl RuntimeService for WasmRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "wherry-wasm".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> Result<StatusResponse> {
        let has_range = self.inner.state().addresses.range().is_some();
        let ready = RuntimeCondition {
            r#type: "RuntimeReady".to_owned(),
            status: !self.inner.shutdown.is_cancelled(),
            ..Default::default()
        };
        let network = RuntimeCondition {
            r#type: "NetworkReady".to_owned(),
            status: has_range,
            reason: if has_range { "" } else { "PodCIDRNotKnown" }.to_owned(),
            message: if has_range { "" } else { "the node's pod CIDR is not known yet" }.to_owned(),
        };
        let handler = |name: &&str| RuntimeHandler { name: (*name).to_owned(), ..Default::default() };
        Ok(StatusResponse {
            status: RuntimeStatus { conditions: vec![ready, network] },
            runtime_handlers: HANDLERS.iter().map(handler).collect(),
            features: Some(RuntimeFeatures { supplemental_groups_policy: false }),
        })
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        // Guests have no cgroups; the driver that needs no other service is the one that does no harm.
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let cidrs = config.network_config.pod_cidr;
        // A dual-stack node names two ranges; guests listen on the IPv4 one.
        let Some(first) = cidrs.split(',').map(str::trim).find(|c| !c.is_empty() && !c.contains("::")) else {
            return Ok(());
        };
        let range: Ipv4Net = first
            .parse()
            .map_err(|error| Error::InvalidArgument(format!("invalid pod CIDR {first:?}: {error}")))?;
        if range.prefix_len() > 29 {
            return Err(Error::InvalidArgument(format!("pod CIDR {first:?} is too small")));
        }
        self.inner.state().addresses.set_range(range.trunc());
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        self.inner.run_sandbox(config, runtime_handler)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.inner.stop_sandbox(id).await;
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.inner.remove_sandbox(id).await;
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let state = self.inner.state();
        let status = state.sandbox(id)?.status.clone();
        Ok(PodSandboxStatusResponse {
            status,
            containers_statuses: state.statuses_of(id),
            timestamp: self.inner.now(),
        })
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.inner.state();
        if let Some(sandbox) = state.sandboxes.get(&filter.id) {
            return Ok(filter
                .matches(&sandbox.status)
                .then(|| sandbox.status.to_list_item())
                .into_iter()
                .collect());
        }
        let matching = state.sandboxes.values().filter(|sandbox| filter.matches(&sandbox.status));
        Ok(matching.map(|sandbox| sandbox.status.to_list_item()).collect())
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        self.inner.create(pod_sandbox_id, config, sandbox_config).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.inner.start(id)
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.inner.stop(id, timeout).await;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.inner.remove_container(id).await;
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.inner.state();
        let matches = |c: &super::state::Container| filter.matches(&c.pod_sandbox_id, &c.status);
        if state.sandboxes.contains_key(&filter.pod_sandbox_id) {
            let matching = state.containers_of(&filter.pod_sandbox_id).filter(|c| matches(c));
            return Ok(matching.map(|c| c.status.to_list_item(&c.pod_sandbox_id)).collect());
        }
        let matching = state.containers.values().filter(|c| matches(c));
        Ok(matching.map(|c| c.status.to_list_item(&c.pod_sandbox_id)).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(self.inner.state().container(id)?.status.clone())
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        self.inner.update_resources(id, resources)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let log = {
            let state = self.inner.state();
            let container = state.container(id)?;
            let running = container.status.state == ContainerState::Running;
            let live = container.live.as_ref().filter(|_| running);
            live.map(|live| std::sync::Arc::clone(&live.log))
                .ok_or_else(|| Error::FailedPrecondition(format!("container {id:?} is not running")))?
        };
        log.reopen().map_err(|error| Error::Internal(format!("reopen container log: {error}")))
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        self.inner.exec_to_end(id, command, timeout).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        self.inner.exec_url(request)
    }

    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        self.inner.attach_url(request)
    }

    async fn port_forward(&self, request: &PortForwardRequest) -> Result<String> {
        self.inner.port_forward_url(request)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        Ok(self.inner.stats_of(self.inner.state().container(id)?))
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let state = self.inner.state();
        let matching = state.containers.values().filter(|container| {
            container.status.state == ContainerState::Running
                && filter.matches(&container.pod_sandbox_id, &container.status)
        });
        Ok(matching.map(|container| self.inner.stats_of(container)).collect())
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let state = self.inner.state();
        Ok(self.inner.sandbox_stats_of(&state, state.sandbox(id)?))
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let state = self.inner.state();
        let matching = state.sandboxes.values().filter(|sandbox| {
            sandbox.status.state == PodSandboxState::Ready && filter.matches(&sandbox.status)
        });
        Ok(matching.map(|sandbox| self.inner.sandbox_stats_of(&state, sandbox)).collect())
    }

    async fn events(&self) -> Result<EventStream> {
        Ok(self.inner.events.subscribe(&self.inner.shutdown))
    }
}
