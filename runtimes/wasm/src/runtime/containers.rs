//! Containers: made, started, watched to their end, stopped, removed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_runtimes::files::remove_tree;
use wherry_runtimes::{
    ContainerConfig, ContainerEventType, ContainerResources, ContainerState, ContainerStatus, Error,
    LinuxContainerResources, PodSandboxConfig, PodSandboxState, Result,
};

use super::Inner;
use super::port::http_port;
use super::state::{Container, LiveContainer, State};
use crate::code::Program;
use crate::guest::{
    ContainerMemory, Cpu, Ending, Grants, HttpServer, LogFile, Meter, Mounts, ServerLimits, Stdio, arguments,
    run_command,
};

/// Bytes of input that wait for a guest.
const INPUT_BYTES: usize = 64 * 1024;

/// What runs of a started container, with its listening socket if it has one.
enum Work {
    Command,
    Http(TcpListener, SocketAddr),
}

impl Inner {
    pub(super) async fn create(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        if config.metadata.name.is_empty() {
            return Err(Error::InvalidArgument("container config has no name".to_owned()));
        }
        self.check_can_create(&self.state(), pod_sandbox_id, config)?;
        let image = self.images.find(&config.image.image)?;
        let image = image.ok_or_else(|| Error::not_found("image", &config.image.image))?;
        let wasm = self.images.blob_path(&image.wasm_digest)?;
        let program = self.code.program(&image.wasm_digest, wasm).await?;
        let id = self.new_id(&config.metadata.name);
        let mounts = Mounts::prepare(&config.mounts, &self.scratch(&id))?;
        let log_path = log_path(sandbox_config, config);
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let memory = Arc::new(ContainerMemory::new(memory_limit(&resources)));
        let cpu = Arc::new(Cpu::default());
        cpu.set_quota(resources.cpu_quota, resources.cpu_period);
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: self.now(),
            image: config.image.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            image_id: image.id.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            resources: Some(ContainerResources { linux: Some(resources) }),
            ..Default::default()
        };
        let (stdio, input) = standard_input(config);
        let live = LiveContainer {
            config: config.clone(),
            image,
            program,
            mounts,
            log: Arc::new(LogFile::new(log_path)),
            memory,
            cpu,
            grants: OnceLock::new(),
            stdio,
            input: tokio::sync::Mutex::new(input),
            drain: CancellationToken::new(),
            kill: self.shutdown.child_token(),
        };
        self.insert(pod_sandbox_id, status, live)?;
        Ok(id)
    }

    fn insert(&self, pod_sandbox_id: &str, status: ContainerStatus, live: LiveContainer) -> Result<()> {
        let id = status.id.clone();
        let mut state = self.state();
        // Again: much may have happened while the guest was compiled.
        self.check_can_create(&state, pod_sandbox_id, &live.config)?;
        let container = Container {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            status: status.clone(),
            live: Some(Arc::new(live)),
            ended: watch::Sender::new(false),
        };
        state.containers.insert(id.clone(), container);
        if let Some(sandbox) = state.sandboxes.get_mut(pod_sandbox_id) {
            sandbox.containers.insert(id.clone());
        }
        self.emit(&state, pod_sandbox_id, &id, ContainerEventType::Created);
        drop(state);
        self.saved.put_container(pod_sandbox_id, &status);
        Ok(())
    }

    fn check_can_create(&self, state: &State, pod_sandbox_id: &str, config: &ContainerConfig) -> Result<()> {
        let sandbox = state.sandbox(pod_sandbox_id)?;
        if sandbox.status.state != PodSandboxState::Ready {
            return Err(Error::FailedPrecondition(format!("sandbox {pod_sandbox_id:?} is not ready")));
        }
        match state.containers_of(pod_sandbox_id).find(|c| c.status.metadata == config.metadata) {
            Some(other) => {
                Err(Error::AlreadyExists(format!("container name is reserved for {:?}", other.status.id)))
            }
            None => Ok(()),
        }
    }

    /// Listens (an HTTP guest), tells that it runs, and sets it running.
    pub(super) fn start(self: &Arc<Self>, id: &str) -> Result<()> {
        let handle = self.guests.handle().cloned();
        let handle = handle.ok_or_else(|| Error::Unavailable("the runtime is stopping".to_owned()))?;
        let (live, network, mappings, hostname) = {
            let state = self.state();
            let container = state.container(id)?;
            let live = startable(id, container)?;
            let sandbox = state.sandbox(&container.pod_sandbox_id)?;
            match &sandbox.live {
                Some(of_sandbox) if sandbox.status.state == PodSandboxState::Ready => {
                    let mappings = of_sandbox.config.port_mappings.clone();
                    let hostname = of_sandbox.config.hostname.clone();
                    (live, Arc::clone(&of_sandbox.network), mappings, hostname)
                }
                _ => {
                    let sandbox = &container.pod_sandbox_id;
                    return Err(Error::FailedPrecondition(format!("sandbox {sandbox:?} is not ready")));
                }
            }
        };
        if let Some(mount) = live.config.mounts.iter().find(|mount| mount.container_path == "/etc/hosts") {
            network.use_hosts_file(Path::new(&mount.host_path));
        }
        let arguments = arguments(&live.image, &live.config, &hostname);
        let work = match live.program.as_ref() {
            Program::Module(_) | Program::Command(_) => Work::Command,
            Program::Http(_) => {
                let port = http_port(&live.config.annotations, &mappings, &arguments.env);
                let address = SocketAddr::new(network.listen_ip(), port);
                let listener = listen(&handle, address)?;
                Work::Http(listener, address)
            }
        };
        live.log.create().map_err(|error| Error::Internal(format!("make container log: {error}")))?;
        let grants = Grants {
            arguments: Arc::new(arguments),
            mounts: live.mounts.directories.clone().into(),
            network,
            log: Arc::clone(&live.log),
            memory: Arc::clone(&live.memory),
            stdio: live.stdio.clone(),
        };
        let _ = live.grants.set(grants.clone());
        self.set_running(id)?;
        let supervisor = Arc::clone(self).supervise(id.to_owned(), live, work, grants, handle.clone());
        self.supervisors.spawn_on(supervisor, &handle);
        Ok(())
    }

    fn set_running(&self, id: &str) -> Result<()> {
        let now = self.now();
        let mut state = self.state();
        let container = state.containers.get_mut(id).ok_or_else(|| Error::not_found("container", id))?;
        startable(id, container)?;
        container.status.state = ContainerState::Running;
        container.status.started_at = now;
        let pod_sandbox_id = container.pod_sandbox_id.clone();
        self.emit(&state, &pod_sandbox_id, id, ContainerEventType::Started);
        Ok(())
    }

    async fn supervise(
        self: Arc<Self>,
        id: String,
        live: Arc<LiveContainer>,
        work: Work,
        grants: Grants,
        guests: tokio::runtime::Handle,
    ) {
        let ticking = self.engines.ticking();
        let ending = match work {
            Work::Command => {
                let run = run_command(Arc::clone(&live.program), grants);
                let mut task = guests.spawn(Meter::new(run, Arc::clone(&live.cpu), ticking));
                tokio::select! {
                    ended = &mut task => {
                        ended.unwrap_or_else(|fault| Ending::trapped(&format!("a fault in the host: {fault}")))
                    }
                    () = live.kill.cancelled() => {
                        task.abort();
                        // It is gone at its next epoch; until then it counts as running.
                        match task.await {
                            Ok(ending) => ending,
                            Err(_) => Ending::killed(),
                        }
                    }
                }
            }
            Work::Http(listener, address) => {
                let limits = ServerLimits {
                    request_timeout: self.config.request_timeout,
                    requests: self.config.max_requests_per_container,
                    connections: self.config.max_connections_per_container,
                };
                let server = HttpServer::new(
                    Arc::clone(&live.program),
                    grants,
                    (Arc::clone(&live.cpu), ticking),
                    Arc::clone(&self.slots),
                    limits,
                    address,
                );
                server.serve(listener, live.drain.clone(), live.kill.clone()).await;
                if live.kill.is_cancelled() { Ending::killed() } else { Ending::exited(0) }
            }
        };
        live.mounts.copy_back();
        live.log.close();
        self.finish(&id, &ending);
    }

    /// Created or Running to Exited, with its event; a container that has ended stays as it is.
    fn finish(&self, id: &str, ending: &Ending) {
        let now = self.now();
        let mut guard = self.state();
        let Some(container) = guard.containers.get_mut(id) else { return };
        if container.status.state == ContainerState::Exited {
            return;
        }
        let status = &mut container.status;
        status.state = ContainerState::Exited;
        status.finished_at = now;
        status.exit_code = ending.code;
        status.reason.clone_from(&ending.reason);
        status.message.clone_from(&ending.message);
        let (pod_sandbox_id, status) = (container.pod_sandbox_id.clone(), status.clone());
        // Saved before anybody is told, so that a removal that follows does not find its file made again.
        self.saved.put_container(&pod_sandbox_id, &status);
        if let Some(container) = guard.containers.get(id) {
            container.ended.send_replace(true);
        }
        self.emit(&guard, &pod_sandbox_id, id, ContainerEventType::Stopped);
    }

    /// A container that never ran has no supervisor that could end it.
    pub(super) fn end_if_created(&self, id: &str) {
        let created =
            self.state().containers.get(id).is_some_and(|c| c.status.state == ContainerState::Created);
        if created {
            self.finish(id, &Ending::killed());
        }
    }

    /// Drains, waits at most `timeout`, kills, waits for the end. A command cannot be asked: it has until the timeout.
    pub(super) async fn stop(&self, id: &str, timeout: Duration) {
        self.end_if_created(id);
        let (live, mut ended) = {
            let state = self.state();
            let Some(container) = state.containers.get(id) else { return };
            let Some(live) = container.live.clone() else { return };
            (live, container.ended.subscribe())
        };
        live.drain.cancel();
        if tokio::time::timeout(timeout, ended.wait_for(|ended| *ended)).await.is_err() {
            live.kill.cancel();
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    pub(super) async fn remove_container(&self, id: &str) {
        if let Some(live) = self.state().containers.get(id).and_then(|container| container.live.clone()) {
            live.kill.cancel();
        }
        self.stop(id, Duration::ZERO).await;
        let mut state = self.state();
        let Some(container) = state.containers.remove(id) else { return };
        let pod_sandbox_id = container.pod_sandbox_id;
        if let Some(sandbox) = state.sandboxes.get_mut(&pod_sandbox_id) {
            sandbox.containers.remove(id);
        }
        self.emit(&state, &pod_sandbox_id, id, ContainerEventType::Deleted);
        drop(state);
        self.saved.remove_container(id);
        if let Err(error) = remove_tree(&self.scratch(id)) {
            tracing::warn!(id, "files of a container cannot be removed: {error}");
        }
    }

    pub(super) fn update_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        let mut state = self.state();
        let container = state.containers.get_mut(id).ok_or_else(|| Error::not_found("container", id))?;
        let live = container.live.as_ref().filter(|_| container.status.state != ContainerState::Exited);
        let live = live.ok_or_else(|| Error::FailedPrecondition(format!("container {id:?} has exited")))?;
        // As in CRI, zero leaves a setting as it is.
        let mut merged = container.status.resources.take().and_then(|r| r.linux).unwrap_or_default();
        if resources.memory_limit_in_bytes != 0 {
            merged.memory_limit_in_bytes = resources.memory_limit_in_bytes;
            live.memory.set_limit(memory_limit(&merged));
        }
        if resources.cpu_quota != 0 {
            merged.cpu_quota = resources.cpu_quota;
        }
        if resources.cpu_period != 0 {
            merged.cpu_period = resources.cpu_period;
        }
        if resources.cpu_shares != 0 {
            merged.cpu_shares = resources.cpu_shares;
        }
        live.cpu.set_quota(merged.cpu_quota, merged.cpu_period);
        container.status.resources = Some(ContainerResources { linux: Some(merged) });
        Ok(())
    }

    /// Where single mounted files of a container are.
    fn scratch(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("scratch").join(id)
    }
}

fn startable(id: &str, container: &Container) -> Result<Arc<LiveContainer>> {
    match &container.live {
        Some(live) if container.status.state == ContainerState::Created => Ok(Arc::clone(live)),
        _ => Err(Error::FailedPrecondition(format!("container {id:?} was started before"))),
    }
}

fn log_path(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Option<PathBuf> {
    if sandbox.log_directory.is_empty() || config.log_path.is_empty() {
        return None;
    }
    Some(Path::new(&sandbox.log_directory).join(&config.log_path))
}

/// The input of a container that has one: what its guest reads, and where it is typed.
fn standard_input(config: &ContainerConfig) -> (Stdio, Option<tokio::io::DuplexStream>) {
    if !config.stdin {
        return (Stdio::default(), None);
    }
    let (typed, read) = tokio::io::duplex(INPUT_BYTES);
    let stdio = Stdio { input: Stdio::input(Box::new(read)), is_terminal: config.tty, ..Stdio::default() };
    (stdio, Some(typed))
}

fn memory_limit(resources: &LinuxContainerResources) -> u64 {
    u64::try_from(resources.memory_limit_in_bytes).unwrap_or(0)
}

/// Listens on the threads of guests. The socket is ready when this returns, so the container may be called running.
fn listen(guests: &tokio::runtime::Handle, address: SocketAddr) -> Result<TcpListener> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::FailedPrecondition(format!(
            "listen on {address}: another container of the pod has the port"
        )),
        _ => Error::Internal(format!("listen on {address}: {error}")),
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let _inside = guests.enter();
    TcpListener::from_std(listener).map_err(failed)
}
