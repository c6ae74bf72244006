//! The two traits: CRI's verbs.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerEventResponse, ContainerFilter,
    ContainerStats, ContainerStatsFilter, ContainerStatus, Error, ExecRequest, ExecSyncResponse, Image,
    ImageFsInfoResponse, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatusResponse, PortForwardRequest, Result,
    RuntimeConfig, RuntimeConfigResponse, StatusResponse, VersionResponse,
};

/// Events as they happen; ends when the runtime stops. [`Error::DataLoss`] inside it means that some were missed.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse>>;

/// Pod sandboxes and containers. Verbs and their meanings are CRI v1's `RuntimeService`.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    /// Name and versions.
    async fn version(&self) -> Result<VersionResponse>;
    /// Health, handlers and features.
    async fn status(&self) -> Result<StatusResponse>;
    /// Settings that the kubelet follows.
    async fn runtime_config(&self) -> Result<RuntimeConfigResponse>;
    /// Tells the runtime the node's part of the pod network. May be called again with the same value.
    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()>;

    /// Makes a sandbox and brings it to Ready; answers its id.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    /// Kills what runs in the sandbox and gives its address back. Idempotent; an unknown id is not an error.
    async fn stop_pod_sandbox(&self, pod_sandbox_id: &str) -> Result<()>;
    /// Removes the sandbox and its containers, killing them where needed. Idempotent.
    async fn remove_pod_sandbox(&self, pod_sandbox_id: &str) -> Result<()>;
    /// The sandbox and its containers.
    async fn pod_sandbox_status(&self, pod_sandbox_id: &str) -> Result<PodSandboxStatusResponse>;
    /// Sandboxes that match.
    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    /// Makes a container in a Ready sandbox; answers its id.
    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a Created container.
    async fn start_container(&self, container_id: &str) -> Result<()>;
    /// Stops a container: asks, waits at most `timeout`, kills; returns when it has Exited. Idempotent.
    async fn stop_container(&self, container_id: &str, timeout: Duration) -> Result<()>;
    /// Removes a container, killing it where needed. Idempotent.
    async fn remove_container(&self, container_id: &str) -> Result<()>;
    /// Containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;
    /// One container.
    async fn container_status(&self, container_id: &str) -> Result<ContainerStatus>;
    /// Changes the resources of a Created or Running container.
    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: &LinuxContainerResources,
    ) -> Result<()>;
    /// Opens the log file again, after it was rotated away.
    async fn reopen_container_log(&self, container_id: &str) -> Result<()>;

    /// Runs a command in a container to its end; a zero `timeout` means without limit.
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let _ = (command, timeout);
        Err(Error::Unimplemented(format!(
            "this runtime cannot run a command inside container {container_id:?}"
        )))
    }

    /// Prepares a command in a container with streams; answers the URL where it is run, once, when it is connected to.
    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        Err(Error::Unimplemented(format!(
            "this runtime cannot run a command inside container {:?}",
            request.container_id
        )))
    }

    /// Prepares an attachment to a running container; answers its URL.
    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        Err(Error::Unimplemented(format!(
            "this runtime cannot attach to container {:?}",
            request.container_id
        )))
    }

    /// Prepares connections to ports of a sandbox; answers their URL.
    async fn port_forward(&self, request: &PortForwardRequest) -> Result<String> {
        Err(Error::Unimplemented(format!(
            "this runtime cannot forward ports of sandbox {:?}",
            request.pod_sandbox_id
        )))
    }

    /// Usage of one container.
    async fn container_stats(&self, container_id: &str) -> Result<ContainerStats>;
    /// Usage of containers that match and run.
    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>>;
    /// Usage of one sandbox.
    async fn pod_sandbox_stats(&self, pod_sandbox_id: &str) -> Result<PodSandboxStats>;
    /// Usage of sandboxes that match and are Ready.
    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>>;

    /// Subscribes to events from now on. Subscribe first, then list: nothing is missed between.
    async fn events(&self) -> Result<EventStream>;
}

/// Images. Verbs and their meanings are CRI v1's `ImageService`.
#[async_trait]
pub trait ImageService: Send + Sync {
    /// All images, or (filter not empty) the one that the filter names.
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>>;
    /// The image of that name, digest or id; `None` when it is not here.
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>>;
    /// Fetches an image; answers the reference (id) to put into [`ContainerConfig::image`].
    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String>;
    /// Removes an image and all its names. Idempotent.
    async fn remove_image(&self, image: &ImageSpec) -> Result<()>;
    /// Usage of the file systems that hold images.
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse>;
}

/// Both services at one endpoint, as a node usually has them.
pub trait Runtime: RuntimeService + ImageService {}

impl<T: RuntimeService + ImageService + ?Sized> Runtime for T {}
