//! A runtime as a CRI v1 endpoint.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_cri::v1 as wire;
use k8s_cri::v1::image_service_server::{ImageService, ImageServiceServer};
use k8s_cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};
use wherry_runtimes::Runtime;

use crate::Error;
use crate::code::to_status;
use crate::convert::{Convert, list};
use crate::socket;

/// The largest request, in bytes. Source: the kubelet's own limit for CRI, 16 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long calls may go on after `shutdown`.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `runtime` at the Unix socket `path` until `shutdown`, then lets calls end.
///
/// *Guarantees*: the socket is for its owner only (0600) and removed at the end.
///
/// *Errors*: the socket cannot be made, or another process serves it.
pub async fn serve(runtime: Arc<dyn Runtime>, path: &Path, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = socket::listen(path)?;
    let endpoint = Endpoint { runtime, shutdown: shutdown.clone() };
    let server = tonic::transport::Server::builder()
        .add_service(
            RuntimeServiceServer::new(endpoint.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            ImageServiceServer::new(endpoint)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.clone().cancelled_owned());
    let ended = tokio::select! {
        ended = server => ended.map_err(Error::Serve),
        // A client that keeps a call open may not hold up the end for ever.
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    };
    let _ = std::fs::remove_file(path);
    ended
}

#[derive(Clone)]
struct Endpoint {
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

/// A message that CRI requires.
fn required<T>(field: &str, value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| Status::invalid_argument(format!("{field} is required")))
}

/// Seconds of a request; CRI says nothing of negative ones, and means "at once".
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[async_trait]
impl RuntimeService for Endpoint {
    async fn version(&self, request: Request<wire::VersionRequest>) -> Answer<wire::VersionResponse> {
        drop(request);
        let answer = self.runtime.version().await.map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusResponse> {
        drop(request);
        let answer = self.runtime.status().await.map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }

    async fn runtime_config(
        &self,
        request: Request<wire::RuntimeConfigRequest>,
    ) -> Answer<wire::RuntimeConfigResponse> {
        drop(request);
        let answer = self.runtime.runtime_config().await.map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<wire::UpdateRuntimeConfigRequest>,
    ) -> Answer<wire::UpdateRuntimeConfigResponse> {
        let request = request.into_inner();
        let config = required("runtime_config", request.runtime_config)?;
        self.runtime.update_runtime_config(config.convert()).await.map_err(to_status)?;
        Ok(Response::new(wire::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<wire::RunPodSandboxRequest>,
    ) -> Answer<wire::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = required("config", request.config)?.convert();
        let answer =
            self.runtime.run_pod_sandbox(&config, &request.runtime_handler).await.map_err(to_status)?;
        Ok(Response::new(wire::RunPodSandboxResponse { pod_sandbox_id: answer }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<wire::StopPodSandboxRequest>,
    ) -> Answer<wire::StopPodSandboxResponse> {
        let request = request.into_inner();
        self.runtime.stop_pod_sandbox(&request.pod_sandbox_id).await.map_err(to_status)?;
        Ok(Response::new(wire::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<wire::RemovePodSandboxRequest>,
    ) -> Answer<wire::RemovePodSandboxResponse> {
        let request = request.into_inner();
        self.runtime.remove_pod_sandbox(&request.pod_sandbox_id).await.map_err(to_status)?;
        Ok(Response::new(wire::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<wire::PodSandboxStatusRequest>,
    ) -> Answer<wire::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let answer = self.runtime.pod_sandbox_status(&request.pod_sandbox_id).await.map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<wire::ListPodSandboxRequest>,
    ) -> Answer<wire::ListPodSandboxResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default().convert();
        let answer = self.runtime.list_pod_sandbox(&filter).await.map_err(to_status)?;
        Ok(Response::new(wire::ListPodSandboxResponse { items: list(answer) }))
    }

    async fn create_container(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Answer<wire::CreateContainerResponse> {
        let request = request.into_inner();
        let config = required("config", request.config)?.convert();
        let sandbox_config = required("sandbox_config", request.sandbox_config)?.convert();
        let answer = self
            .runtime
            .create_container(&request.pod_sandbox_id, &config, &sandbox_config)
            .await
            .map_err(to_status)?;
        Ok(Response::new(wire::CreateContainerResponse { container_id: answer }))
    }

    async fn start_container(
        &self,
        request: Request<wire::StartContainerRequest>,
    ) -> Answer<wire::StartContainerResponse> {
        let request = request.into_inner();
        self.runtime.start_container(&request.container_id).await.map_err(to_status)?;
        Ok(Response::new(wire::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<wire::StopContainerRequest>,
    ) -> Answer<wire::StopContainerResponse> {
        let request = request.into_inner();
        self.runtime
            .stop_container(&request.container_id, seconds(request.timeout))
            .await
            .map_err(to_status)?;
        Ok(Response::new(wire::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<wire::RemoveContainerRequest>,
    ) -> Answer<wire::RemoveContainerResponse> {
        let request = request.into_inner();
        self.runtime.remove_container(&request.container_id).await.map_err(to_status)?;
        Ok(Response::new(wire::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Answer<wire::ListContainersResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default().convert();
        let answer = self.runtime.list_containers(&filter).await.map_err(to_status)?;
        Ok(Response::new(wire::ListContainersResponse { containers: list(answer) }))
    }

    async fn container_status(
        &self,
        request: Request<wire::ContainerStatusRequest>,
    ) -> Answer<wire::ContainerStatusResponse> {
        let request = request.into_inner();
        let answer = self.runtime.container_status(&request.container_id).await.map_err(to_status)?;
        Ok(Response::new(wire::ContainerStatusResponse {
            status: Some(answer.convert()),
            ..Default::default()
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<wire::UpdateContainerResourcesRequest>,
    ) -> Answer<wire::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let resources = required("linux", request.linux)?.convert();
        self.runtime
            .update_container_resources(&request.container_id, &resources)
            .await
            .map_err(to_status)?;
        Ok(Response::new(wire::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<wire::ReopenContainerLogRequest>,
    ) -> Answer<wire::ReopenContainerLogResponse> {
        let request = request.into_inner();
        self.runtime.reopen_container_log(&request.container_id).await.map_err(to_status)?;
        Ok(Response::new(wire::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<wire::ExecSyncRequest>) -> Answer<wire::ExecSyncResponse> {
        let request = request.into_inner();
        let answer = self
            .runtime
            .exec_sync(&request.container_id, &request.cmd, seconds(request.timeout))
            .await
            .map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }

    async fn container_stats(
        &self,
        request: Request<wire::ContainerStatsRequest>,
    ) -> Answer<wire::ContainerStatsResponse> {
        let request = request.into_inner();
        let answer = self.runtime.container_stats(&request.container_id).await.map_err(to_status)?;
        Ok(Response::new(wire::ContainerStatsResponse { stats: Some(answer.convert()) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<wire::ListContainerStatsRequest>,
    ) -> Answer<wire::ListContainerStatsResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default().convert();
        let answer = self.runtime.list_container_stats(&filter).await.map_err(to_status)?;
        Ok(Response::new(wire::ListContainerStatsResponse { stats: list(answer) }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<wire::PodSandboxStatsRequest>,
    ) -> Answer<wire::PodSandboxStatsResponse> {
        let request = request.into_inner();
        let answer = self.runtime.pod_sandbox_stats(&request.pod_sandbox_id).await.map_err(to_status)?;
        Ok(Response::new(wire::PodSandboxStatsResponse { stats: Some(answer.convert()) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<wire::ListPodSandboxStatsRequest>,
    ) -> Answer<wire::ListPodSandboxStatsResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default().convert();
        let answer = self.runtime.list_pod_sandbox_stats(&filter).await.map_err(to_status)?;
        Ok(Response::new(wire::ListPodSandboxStatsResponse { stats: list(answer) }))
    }

    async fn exec(&self, request: Request<wire::ExecRequest>) -> Answer<wire::ExecResponse> {
        let url = self.runtime.exec(&request.into_inner().convert()).await.map_err(to_status)?;
        Ok(Response::new(wire::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Answer<wire::AttachResponse> {
        let url = self.runtime.attach(&request.into_inner().convert()).await.map_err(to_status)?;
        Ok(Response::new(wire::AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<wire::PortForwardRequest>,
    ) -> Answer<wire::PortForwardResponse> {
        let url = self.runtime.port_forward(&request.into_inner().convert()).await.map_err(to_status)?;
        Ok(Response::new(wire::PortForwardResponse { url }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<wire::CheckpointContainerRequest>,
    ) -> Answer<wire::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpointing a container is not supported by this runtime"))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<wire::ListMetricDescriptorsRequest>,
    ) -> Answer<wire::ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("listing metric descriptors is not supported by this runtime"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<wire::ListPodSandboxMetricsRequest>,
    ) -> Answer<wire::ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("listing sandbox metrics is not supported by this runtime"))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<wire::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<wire::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = self.runtime.events().await.map_err(to_status)?;
        // An error ends a gRPC stream: a reader that missed events subscribes again and lists, as after any break.
        let events = events
            .map(|event| event.map(Convert::convert).map_err(to_status))
            .take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(events)))
    }
}

#[async_trait]
impl ImageService for Endpoint {
    async fn list_images(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Answer<wire::ListImagesResponse> {
        let request = request.into_inner();
        let filter = request.filter.and_then(|filter| filter.image).unwrap_or_default().convert();
        let answer = self.runtime.list_images(&filter).await.map_err(to_status)?;
        Ok(Response::new(wire::ListImagesResponse { images: list(answer) }))
    }

    async fn image_status(
        &self,
        request: Request<wire::ImageStatusRequest>,
    ) -> Answer<wire::ImageStatusResponse> {
        let request = request.into_inner();
        let image = required("image", request.image)?.convert();
        let answer = self.runtime.image_status(&image).await.map_err(to_status)?;
        Ok(Response::new(wire::ImageStatusResponse {
            image: answer.map(Convert::convert),
            ..Default::default()
        }))
    }

    async fn pull_image(&self, request: Request<wire::PullImageRequest>) -> Answer<wire::PullImageResponse> {
        let request = request.into_inner();
        let image = required("image", request.image)?.convert();
        let auth = request.auth.map(Convert::convert);
        let sandbox_config = request.sandbox_config.unwrap_or_default().convert();
        let answer =
            self.runtime.pull_image(&image, auth.as_ref(), &sandbox_config).await.map_err(to_status)?;
        Ok(Response::new(wire::PullImageResponse { image_ref: answer }))
    }

    async fn remove_image(
        &self,
        request: Request<wire::RemoveImageRequest>,
    ) -> Answer<wire::RemoveImageResponse> {
        let request = request.into_inner();
        let image = required("image", request.image)?.convert();
        self.runtime.remove_image(&image).await.map_err(to_status)?;
        Ok(Response::new(wire::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        request: Request<wire::ImageFsInfoRequest>,
    ) -> Answer<wire::ImageFsInfoResponse> {
        drop(request);
        let answer = self.runtime.image_fs_info().await.map_err(to_status)?;
        Ok(Response::new(answer.convert()))
    }
}
