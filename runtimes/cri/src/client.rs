//! A CRI v1 endpoint as a runtime.

use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryFutureExt};
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
    ImageFsInfoResponse, ImageService, ImageSpec, LinuxContainerResources, LinuxPodSandboxStats, PodSandbox,
    PodSandboxAttributes, PodSandboxConfig, PodSandboxFilter, PodSandboxState, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatusResponse, PortForwardRequest, Result, RuntimeConfig,
    RuntimeConfigResponse, RuntimeHandler, RuntimeService, StatusResponse, VersionResponse,
};

use crate::code::from_status;
use crate::containerd::events;
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
    channel: Channel,
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
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            channel,
        })
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    /// The connection, for what containerd offers beside CRI.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Statistics of a sandbox from those of its containers: it has no cgroup of its own.
    async fn summed_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let status = self.pod_sandbox_status(id).await?.status;
        let filter =
            ContainerStatsFilter { pod_sandbox_id: id.to_owned(), ..ContainerStatsFilter::default() };
        let containers = self.list_container_stats(&filter).await?;
        Ok(PodSandboxStats {
            attributes: PodSandboxAttributes {
                id: status.id,
                metadata: status.metadata,
                labels: status.labels,
                annotations: status.annotations,
            },
            linux: Some(LinuxPodSandboxStats { containers, ..LinuxPodSandboxStats::default() }),
        })
    }

    /// The containers of a sandbox, asked for one by one.
    async fn containers_of(&self, pod_sandbox_id: &str) -> Result<Vec<ContainerStatus>> {
        let filter =
            ContainerFilter { pod_sandbox_id: pod_sandbox_id.to_owned(), ..ContainerFilter::default() };
        let mut statuses = Vec::new();
        for container in self.list_containers(&filter).await? {
            match self.container_status(&container.id).await {
                Ok(status) => statuses.push(status),
                // Removed meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(statuses)
    }
}

/// Stopping and removing what is not there is no error; not all runtimes know.
fn idempotent<T>(answer: std::result::Result<T, tonic::Status>) -> Result<()> {
    match answer.map_err(|status| from_status(&status)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Handlers that a runtime has although its status does not list them: containerd before 2.0 shows its configuration.
fn configured_handlers(info: &std::collections::HashMap<String, String>) -> Vec<RuntimeHandler> {
    let config = info.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let runtimes = config.as_ref().and_then(|config| config.pointer("/containerd/runtimes")?.as_object());
    runtimes
        .into_iter()
        .flat_map(|runtimes| runtimes.keys())
        .map(|name| RuntimeHandler { name: name.clone(), features: None })
        .collect()
}

/// How long a runtime may take to say that it has no events.
const EVENTS_PATIENCE: Duration = Duration::from_millis(500);

/// Whether a container was refused because its sandbox does not run any more: containerd misses the sandbox's task.
fn is_sandbox_over(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::NotFound
        && status.message().contains("failed to get sandbox container task")
}

/// Whether containerd has no statistics of a sandbox because nobody gave it a cgroup.
fn has_no_own_cgroup(status: &tonic::Status) -> bool {
    status.message().contains("cgroupPath is empty")
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
        let request = wire::StatusRequest { verbose: true };
        let mut answer =
            self.runtime().status(call(request)).await.map_err(|status| from_status(&status))?.into_inner();
        let info = std::mem::take(&mut answer.info);
        let mut answer: StatusResponse = answer.convert();
        if answer.runtime_handlers.is_empty() {
            answer.runtime_handlers = configured_handlers(&info);
        }
        Ok(answer)
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
        let ranges = &config.network_config.pod_cidr;
        if let Some(bad) = ranges.split(',').find(|range| range.trim().parse::<ipnet::IpNet>().is_err()) {
            return Err(Error::InvalidArgument(format!("invalid pod CIDR {bad:?}")));
        }
        let request = wire::UpdateRuntimeConfigRequest { runtime_config: Some(config.convert()) };
        self.runtime().update_runtime_config(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        if config.metadata.name.is_empty() || config.metadata.uid.is_empty() {
            return Err(Error::InvalidArgument("sandbox config has no pod name or uid".to_owned()));
        }
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
        idempotent(self.runtime().stop_pod_sandbox(call(request)).await)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        idempotent(self.runtime().remove_pod_sandbox(call(request)).await)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self
            .runtime()
            .pod_sandbox_status(call(request))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        let mut answer: PodSandboxStatusResponse = answer.convert();
        // A runtime that tells of the containers says when that was.
        if answer.timestamp == 0 && answer.containers_statuses.is_empty() {
            answer.containers_statuses = self.containers_of(id).await?;
        }
        Ok(answer)
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
        match self.runtime().create_container(call(request)).await {
            Ok(answer) => Ok(answer.into_inner().container_id),
            Err(status) if is_sandbox_over(&status) => {
                Err(Error::FailedPrecondition(status.message().to_owned()))
            }
            Err(status) => Err(from_status(&status)),
        }
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = wire::StartContainerRequest { container_id: id.to_owned() };
        self.runtime().start_container(call(request)).await.map_err(|status| from_status(&status))?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let request = wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds(timeout) };
        let request = within(timeout.saturating_add(STOP_MARGIN), request);
        idempotent(self.runtime().stop_container(request).await)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = wire::RemoveContainerRequest { container_id: id.to_owned() };
        idempotent(self.runtime().remove_container(call(request)).await)
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
        let mut status: ContainerStatus = required("a status", answer.status)?.convert();
        // containerd notes the start after it has been told of the end, where that comes at once.
        if status.finished_at > 0 {
            status.started_at = status.started_at.min(status.finished_at);
        }
        Ok(status)
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
        match self.runtime().pod_sandbox_stats(call(request)).await {
            Ok(answer) => required("stats", answer.into_inner().stats).map(Convert::convert),
            Err(status) if has_no_own_cgroup(&status) => self.summed_stats(id).await,
            Err(status) => Err(from_status(&status)),
        }
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let request = wire::ListPodSandboxStatsRequest { filter: Some(filter.clone().convert()) };
        match self.runtime().list_pod_sandbox_stats(call(request)).await {
            Ok(answer) => Ok(list(answer.into_inner().stats)),
            // containerd gives up on all of them where one has no cgroup of its own.
            Err(status) if has_no_own_cgroup(&status) => {
                let ready = PodSandboxFilter {
                    id: filter.id.clone(),
                    state: Some(PodSandboxState::Ready),
                    label_selector: filter.label_selector.clone(),
                };
                let mut all = Vec::new();
                for sandbox in self.list_pod_sandbox(&ready).await? {
                    all.push(self.pod_sandbox_stats(&sandbox.id).await?);
                }
                Ok(all)
            }
            Err(status) => Err(from_status(&status)),
        }
    }

    async fn events(&self) -> Result<EventStream> {
        let mut runtime = self.runtime();
        let request = Request::new(wire::GetEventsRequest {});
        let events =
            async move { runtime.get_container_events(request).await.map(tonic::Response::into_inner) };
        let mut events = events.boxed();
        // Some answer at once, some with their first event only; a runtime that has no events says so at once.
        let events = tokio::select! {
            events = &mut events => match events {
                Ok(events) => events.boxed(),
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    return events::subscribe(self.clone(), self.channel()).await;
                }
                Err(status) => return Err(from_status(&status)),
            },
            () = tokio::time::sleep(EVENTS_PATIENCE) => events.try_flatten_stream().boxed(),
        };
        Ok(events
            .map(|event: std::result::Result<_, tonic::Status>| {
                event.map(Convert::convert).map_err(|status| from_status(&status))
            })
            .boxed())
    }
}

#[async_trait]
impl ImageService for Client {
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>> {
        // containerd passes over the filter.
        if !filter.image.is_empty() {
            return Ok(self.image_status(filter).await?.into_iter().collect());
        }
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
