//! Pods that hold Linux containers and Wasm guests: one sandbox of the container runtime, which owns the pod's network, and
//! beside it a sandbox of the Wasm runtime that borrows it.
//!
//! To the pod's worker this is one runtime. The borrowed sandbox is made when the first guest is, carries the id of the other
//! in a label, and goes with it. Nothing here has to be remembered: whatever is not known is asked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use wherry_runtimes::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, Error, EventStream, ExecRequest, ExecSyncResponse, Image,
    ImageFsInfoResponse, ImageService, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig,
    PodSandboxFilter, PodSandboxState, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatusResponse,
    PortForwardRequest, Result, Runtime, RuntimeConfig, RuntimeConfigResponse, RuntimeService,
    StatusResponse, VersionResponse,
};

use crate::pod::labels;

/// The two runtimes as one.
pub(crate) struct MixedRuntime {
    linux: Arc<dyn Runtime>,
    wasm: Arc<dyn Runtime>,
    wasm_handler: String,
    /// Containers that are known to be guests.
    guests: Mutex<HashSet<String>>,
    /// Held while a sandbox is borrowed, so that two guests of a pod find the same one.
    borrowing: tokio::sync::Mutex<()>,
}

impl MixedRuntime {
    /// Sandboxes are those of `linux`; containers whose image is for `wasm_handler` are guests of `wasm`.
    pub(crate) fn new(linux: Arc<dyn Runtime>, wasm: Arc<dyn Runtime>, wasm_handler: &str) -> Self {
        Self {
            linux,
            wasm,
            wasm_handler: wasm_handler.to_owned(),
            guests: Mutex::default(),
            borrowing: tokio::sync::Mutex::default(),
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashSet<String>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime that has a container; what neither has is the container runtime's to answer for.
    async fn of(&self, container_id: &str) -> Result<&Arc<dyn Runtime>> {
        if self.guests().contains(container_id) {
            return Ok(&self.wasm);
        }
        match self.linux.container_status(container_id).await {
            Ok(_) => Ok(&self.linux),
            Err(error) if error.is_not_found() => match self.wasm.container_status(container_id).await {
                Ok(_) => {
                    self.guests().insert(container_id.to_owned());
                    Ok(&self.wasm)
                }
                Err(error) if error.is_not_found() => Ok(&self.linux),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// The sandboxes that borrow from one.
    async fn borrowers(&self, pod_sandbox_id: &str) -> Result<Vec<PodSandbox>> {
        let filter = PodSandboxFilter {
            label_selector: [(labels::SANDBOX_OF.to_owned(), pod_sandbox_id.to_owned())].into(),
            ..PodSandboxFilter::default()
        };
        self.wasm.list_pod_sandbox(&filter).await
    }

    /// The sandbox in which a guest of the pod is made.
    async fn borrowed(
        &self,
        pod_sandbox_id: &str,
        config: &PodSandboxConfig,
    ) -> Result<(String, PodSandboxConfig)> {
        let _one_at_a_time = self.borrowing.lock().await;
        let borrowers = self.borrowers(pod_sandbox_id).await?;
        let mut config = config.clone();
        config.labels.insert(labels::SANDBOX_OF.to_owned(), pod_sandbox_id.to_owned());
        if let Some(ready) = borrowers.iter().find(|sandbox| sandbox.state == PodSandboxState::Ready) {
            config.metadata.attempt = ready.metadata.attempt;
            config.annotations.clone_from(&ready.annotations);
            return Ok((ready.id.clone(), config));
        }
        // Those of former sandboxes of the pod count too: their names are taken.
        let of_pod = PodSandboxFilter {
            label_selector: [(labels::POD_UID.to_owned(), config.metadata.uid.clone())].into(),
            ..PodSandboxFilter::default()
        };
        let taken = self.wasm.list_pod_sandbox(&of_pod).await?;
        config.metadata.attempt = taken.iter().map(|s| s.metadata.attempt + 1).max().unwrap_or(0);
        let lender = self.linux.pod_sandbox_status(pod_sandbox_id).await?.status;
        let network = lender.network.unwrap_or_default();
        let ips: Vec<String> = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .filter(|ip| !ip.is_empty())
            .collect();
        config.annotations.insert(labels::NETWORK_OF.to_owned(), pod_sandbox_id.to_owned());
        config.annotations.insert(labels::NETWORK_IPS.to_owned(), ips.join(","));
        let id = self.wasm.run_pod_sandbox(&config, &self.wasm_handler).await?;
        Ok((id, config))
    }
}

/// Takes from a sandbox's configuration what only this module may put there: a pod's author writes labels and annotations too.
pub(crate) fn without_reserved(mut config: PodSandboxConfig) -> PodSandboxConfig {
    config.labels.remove(labels::SANDBOX_OF);
    config.annotations.remove(labels::NETWORK_OF);
    config.annotations.remove(labels::NETWORK_IPS);
    config
}

#[async_trait]
impl RuntimeService for MixedRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        self.linux.version().await
    }

    async fn status(&self) -> Result<StatusResponse> {
        self.linux.status().await
    }

    async fn runtime_config(&self) -> Result<RuntimeConfigResponse> {
        self.linux.runtime_config().await
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        self.linux.update_runtime_config(config).await
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        self.linux.run_pod_sandbox(config, runtime_handler).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        for borrower in self.borrowers(id).await? {
            self.wasm.stop_pod_sandbox(&borrower.id).await?;
        }
        self.linux.stop_pod_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        for borrower in self.borrowers(id).await? {
            let filter =
                ContainerFilter { pod_sandbox_id: borrower.id.clone(), ..ContainerFilter::default() };
            for guest in self.wasm.list_containers(&filter).await? {
                self.guests().remove(&guest.id);
            }
            self.wasm.remove_pod_sandbox(&borrower.id).await?;
        }
        self.linux.remove_pod_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let mut answer = self.linux.pod_sandbox_status(id).await?;
        for borrower in self.borrowers(id).await? {
            match self.wasm.pod_sandbox_status(&borrower.id).await {
                Ok(of_guests) => answer.containers_statuses.extend(of_guests.containers_statuses),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answer)
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        self.linux.list_pod_sandbox(filter).await
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        if config.image.runtime_handler != self.wasm_handler {
            return self.linux.create_container(pod_sandbox_id, config, sandbox_config).await;
        }
        let (sandbox, sandbox_config) = self.borrowed(pod_sandbox_id, sandbox_config).await?;
        let id = self.wasm.create_container(&sandbox, config, &sandbox_config).await?;
        self.guests().insert(id.clone());
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.of(id).await?.start_container(id).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.of(id).await?.stop_container(id, timeout).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.of(id).await?.remove_container(id).await?;
        self.guests().remove(id);
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let mut all = self.linux.list_containers(filter).await?;
        all.extend(self.wasm.list_containers(filter).await?);
        Ok(all)
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.of(id).await?.container_status(id).await
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        self.of(id).await?.update_container_resources(id, resources).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.of(id).await?.reopen_container_log(id).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        self.of(id).await?.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        self.of(&request.container_id).await?.exec(request).await
    }

    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        self.of(&request.container_id).await?.attach(request).await
    }

    async fn port_forward(&self, request: &PortForwardRequest) -> Result<String> {
        self.linux.port_forward(request).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        self.of(id).await?.container_stats(id).await
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        self.linux.list_container_stats(filter).await
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        self.linux.pod_sandbox_stats(id).await
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        self.linux.list_pod_sandbox_stats(filter).await
    }

    async fn events(&self) -> Result<EventStream> {
        Err(Error::Unimplemented("each of the two runtimes has its own events".to_owned()))
    }
}

#[async_trait]
impl ImageService for MixedRuntime {
    async fn list_images(&self, filter: &ImageSpec) -> Result<Vec<Image>> {
        self.linux.list_images(filter).await
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.linux.image_status(image).await
    }

    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        self.linux.pull_image(image, auth, sandbox_config).await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        self.linux.remove_image(image).await
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        self.linux.image_fs_info().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wherry_runtimes::fake::FakeRuntime;
    use wherry_runtimes::{ContainerMetadata, PodSandboxMetadata};

    fn config_of(uid: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: "p".to_owned(),
                uid: uid.to_owned(),
                namespace: "n".to_owned(),
                attempt: 0,
            },
            labels: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            ..PodSandboxConfig::default()
        }
    }

    fn container(name: &str, handler: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
            image: ImageSpec {
                image: "i".to_owned(),
                runtime_handler: handler.to_owned(),
                ..ImageSpec::default()
            },
            ..ContainerConfig::default()
        }
    }

    #[tokio::test]
    async fn guests_borrow_the_sandbox_of_their_pod_and_go_with_it() {
        let (linux, wasm) = (FakeRuntime::default(), FakeRuntime::default());
        for runtime in [&linux, &wasm] {
            runtime.add_image("i");
            let network_config = wherry_runtimes::NetworkConfig { pod_cidr: "10.1.0.0/24".to_owned() };
            runtime.update_runtime_config(RuntimeConfig { network_config }).await.unwrap();
        }
        // Two fakes count alike; ids of real runtimes never meet.
        for number in 0..10 {
            let other = config_of(&format!("other-{number}"));
            let sandbox = wasm.run_pod_sandbox(&other, "").await.unwrap();
            wasm.remove_pod_sandbox(&sandbox).await.unwrap();
        }
        let new = || MixedRuntime::new(Arc::new(linux.clone()), Arc::new(wasm.clone()), "wasmtime");
        let mixed = new();
        let config = config_of("u");
        let sandbox = mixed.run_pod_sandbox(&config, "").await.unwrap();
        let native = mixed.create_container(&sandbox, &container("native", "runc"), &config).await.unwrap();
        let guests = [container("a", "wasmtime"), container("b", "wasmtime")];
        let [first, second] = guests.each_ref().map(|guest| mixed.create_container(&sandbox, guest, &config));
        let (first, second) = futures::join!(first, second);
        let (first, second) = (first.unwrap(), second.unwrap());
        let inner = wasm.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap();
        assert_eq!(inner.len(), 1);
        assert_eq!(inner[0].labels[labels::SANDBOX_OF], sandbox);
        let ip = linux.pod_sandbox_status(&sandbox).await.unwrap().status.network.unwrap().ip;
        assert_eq!(inner[0].annotations[labels::NETWORK_IPS], ip);

        // Another kubelet finds everything without having been told.
        let next = new();
        for id in [&native, &first, &second] {
            next.start_container(id).await.unwrap();
        }
        let of_pod = next.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!(of_pod.status.id, sandbox);
        assert_eq!(of_pod.containers_statuses.len(), 3);
        next.stop_pod_sandbox(&sandbox).await.unwrap();
        let again = next.create_container(&sandbox, &container("c", "wasmtime"), &config).await;
        assert!(again.is_ok(), "a sandbox that was lost is borrowed anew: {again:?}");
        next.remove_pod_sandbox(&sandbox).await.unwrap();
        assert!(wasm.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap().is_empty());
        assert!(linux.list_pod_sandbox(&PodSandboxFilter::default()).await.unwrap().is_empty());
    }
}
