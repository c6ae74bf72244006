//! A CRI v1 endpoint as a runtime.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as wire;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use wherry_runtimes::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, Error, EventStream, ExecRequest, ExecSyncResponse, Image,
    ImageFsInfoResponse, ImageService, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig,
    PodSandboxFilter, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatusResponse, PortForwardRequest,
    Result, RuntimeConfig, RuntimeConfigResponse, RuntimeService, StatusResponse, VersionResponse,
};

use crate::code::from_status;
use crate::convert::{Convert, list};
use crate::socket;

/// The largest answer, in bytes: a list of 10,000 pods is some 10 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// How long an ordinary call may take. Source: the kubelet's default `runtimeRequestTimeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What a stop may take beyond its grace period.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// A CRI v1 endpoint. Clones share one connection, which is made again when it broke.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Client {
    /// The endpoint `unix:///path` (or an absolute path). Connects at the first call, and again after a break; calls
    /// meanwhile fail as [`Error::Unavailable`].
    pub fn connect(endpoint: &str) -> std::result::Result<Self, crate::Error> {
        let path = socket::path_of(endpoint)?;
        // The authority is never looked up: the connector goes to the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        })
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }
}

/// A request that gives up after the ordinary time.
fn call<T>(message: T) -> Request<T> {
    within(CALL_TIMEOUT, message)
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Whole seconds, rounded up: a grace period is never shortened.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}

/// A message that the other side must not leave out.
fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Internal(format!("the runtime answered without {field}")))
}

#[async_trait]
impl RuntimeService for Client {
    async fn version(&self) -> Result<VersionResponse> {
        let request = wire::VersionRequest { version: "v1".to_owned() };
        let answer =
            self.runtime().version(call(request)).await.map_err(|status| from_status(&status))?.into_inner();
        Ok(answer.convert())
    }

    async fn status(&self) -> Result<StatusResponse> {
        let request = wire::StatusRequest { verbose: false };
        let answer =
            self.runtime().status(call(request)).await.map_err(|status| from_status(&status))?.into_inner();
        Ok(answer.convert())
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        let request = wire::RuntimeConfigRequest {};
        let answer = self
            .runtime()
            .runtime_config(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.convert())
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let request = wire::UpdateRuntimeConfigRequest { runtime_config: Some(config.convert()) };
        self.runtime().update_runtime_config(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = wire::RunPodSandboxRequest {
            config: Some(config.clone().convert()),
            runtime_handler: runtime_handler.to_owned(),
        };
        let answer = self
            .runtime()
            .run_pod_sandbox(within(2 * CALL_TIMEOUT, request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime().stop_pod_sandbox(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime().remove_pod_sandbox(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self
            .runtime()
            .pod_sandbox_status(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.convert())
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let request = wire::ListPodSandboxRequest { filter: Some(filter.clone().convert()) };
        let answer = self
            .runtime()
            .list_pod_sandbox(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(list(answer.items))
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            config: Some(config.clone().convert()),
            sandbox_config: Some(sandbox_config.clone().convert()),
        };
        let answer = self
            .runtime()
            .create_container(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = wire::StartContainerRequest { container_id: id.to_owned() };
        self.runtime().start_container(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let request = wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds(timeout) };
        self.runtime()
            .stop_container(within(timeout.saturating_add(STOP_MARGIN), request))
            .await
            .map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = wire::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime().remove_container(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let request = wire::ListContainersRequest { filter: Some(filter.clone().convert()) };
        let answer = self
            .runtime()
            .list_containers(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(list(answer.containers))
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self
            .runtime()
            .container_status(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        required("a status", answer.status).map(Convert::convert)
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources.clone().convert()),
            ..Default::default()
        };
        self.runtime()
            .update_container_resources(call(request))
            .await
            .map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = wire::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime().reopen_container_log(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        let message = wire::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: seconds(timeout),
        };
        // No limit asked for is no limit given.
        let request = if timeout.is_zero() {
            Request::new(message)
        } else {
            within(timeout.saturating_add(STOP_MARGIN), message)
        };
        let answer = self.runtime().exec_sync(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().convert())
    }

    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        let request = call(request.clone().convert());
        let answer = self.runtime().exec(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().url)
    }

    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        let request = call(request.clone().convert());
        let answer = self.runtime().attach(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().url)
    }

    async fn port_forward(&self, request: &PortForwardRequest) -> Result<String> {
        let request = call(request.clone().convert());
        let answer = self.runtime().port_forward(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().url)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let request = wire::ContainerStatsRequest { container_id: id.to_owned() };
        let answer = self
            .runtime()
            .container_stats(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        required("stats", answer.stats).map(Convert::convert)
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let request = wire::ListContainerStatsRequest { filter: Some(filter.clone().convert()) };
        let answer = self
            .runtime()
            .list_container_stats(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(list(answer.stats))
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let request = wire::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
        let answer = self
            .runtime()
            .pod_sandbox_stats(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        required("stats", answer.stats).map(Convert::convert)
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let request = wire::ListPodSandboxStatsRequest { filter: Some(filter.clone().convert()) };
        let answer = self
            .runtime()
            .list_pod_sandbox_stats(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(list(answer.stats))
    }

    async fn events(&self) -> Result<EventStream> {
        let request = Request::new(wire::GetEventsRequest {});
        let events = self
            .runtime()
            .get_container_events(request)
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(events.map(|event| event.map(Convert::convert).map_err(|status| from_status(&status))).boxed())
    }
}

#[async_trait]
impl ImageService for Client {
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>> {
        let request = wire::ListImagesRequest {
            filter: Some(wire::ImageFilter { image: Some(filter.clone().convert()) }),
        };
        let answer = self
            .images()
            .list_images(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(list(answer.images))
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let request = wire::ImageStatusRequest { image: Some(image.clone().convert()), verbose: false };
        let answer = self
            .images()
            .image_status(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.image.map(Convert::convert))
    }

    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        // A pull takes as long as it takes: no deadline, the caller may drop the call.
        let request = Request::new(wire::PullImageRequest {
            image: Some(image.clone().convert()),
            auth: auth.cloned().map(Convert::convert),
            sandbox_config: Some(sandbox_config.clone().convert()),
        });
        let answer = self.images().pull_image(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().image_ref)
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let request = wire::RemoveImageRequest { image: Some(image.clone().convert()) };
        self.images().remove_image(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        let request = wire::ImageFsInfoRequest {};
        let answer = self
            .images()
            .image_fs_info(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        Ok(answer.convert())
    }
}
