//! Pod sandboxes: a name, an address, and what the pod may reach.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use wherry_runtimes::{
    ContainerEventType, Error, NamespaceMode, PodSandboxConfig, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus, Result,
};

use super::state::{LiveSandbox, Sandbox};
use super::{HANDLERS, Inner};
use crate::guest::PodNetwork;

/// Label of a sandbox that is to borrow the network of another: the id of that one.
const SANDBOX_OF: &str = "wherry.dev/sandbox-of";

impl Inner {
    pub(super) fn run_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        if config.metadata.name.is_empty() || config.metadata.uid.is_empty() {
            return Err(Error::InvalidArgument("sandbox config has no pod name or uid".to_owned()));
        }
        if !HANDLERS.contains(&runtime_handler) {
            return Err(Error::InvalidArgument(format!("no runtime for {runtime_handler:?} is configured")));
        }
        if config.labels.contains_key(SANDBOX_OF) {
            let text = "this runtime cannot borrow the network of another sandbox: a WebAssembly container cannot share a pod with Linux containers yet";
            return Err(Error::FailedPrecondition(text.to_owned()));
        }
        let id = self.new_id(&config.metadata.uid);
        let mut guard = self.state();
        let state = &mut *guard;
        let (ip, listen_ip) = if is_host_network(config) {
            (None, self.config.node_ip)
        } else {
            if state.addresses.range().is_none() {
                return Err(Error::Unavailable("the node's pod CIDR is not known yet".to_owned()));
            }
            let ip = state.addresses.allocate(Instant::now(), self.config.address_rest);
            let ip = ip.ok_or_else(|| {
                Error::ResourceExhausted("the node's pod CIDR has no free address left".to_owned())
            })?;
            (Some(ip), IpAddr::V4(ip))
        };
        let range = state.addresses.range();
        let network = PodNetwork::new(&self.config, config, listen_ip, ip.is_some(), range);
        let inserted = network.map_err(Error::InvalidArgument).and_then(|network| {
            let sandbox = self.make_sandbox(&id, config, runtime_handler, network);
            let status = sandbox.status.clone();
            state.insert_sandbox(sandbox).map(|()| status)
        });
        let status = match inserted {
            Ok(status) => status,
            Err(error) => {
                if let Some(ip) = ip {
                    state.addresses.release(Instant::now(), ip);
                }
                return Err(error);
            }
        };
        self.emit(state, &id, &id, ContainerEventType::Created);
        self.emit(state, &id, &id, ContainerEventType::Started);
        drop(guard);
        self.saved.put_sandbox(&status);
        Ok(id)
    }

    fn make_sandbox(
        &self,
        id: &str,
        config: &PodSandboxConfig,
        runtime_handler: &str,
        network: PodNetwork,
    ) -> Sandbox {
        Sandbox {
            status: PodSandboxStatus {
                id: id.to_owned(),
                metadata: config.metadata.clone(),
                state: PodSandboxState::Ready,
                created_at: self.now(),
                network: network
                    .own_ip()
                    .map(|ip| PodSandboxNetworkStatus { ip: ip.to_string(), additional_ips: Vec::new() }),
                linux: None,
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                runtime_handler: runtime_handler.to_owned(),
            },
            containers: Default::default(),
            live: Some(LiveSandbox { config: Arc::new(config.clone()), network: Arc::new(network) }),
        }
    }

    /// Kills the containers, waits for their end, and gives the address back. Again, or without the sandbox: nothing.
    pub(super) async fn stop_sandbox(&self, id: &str) {
        let mut ends = Vec::new();
        for container in self.state().containers_of(id) {
            if let Some(live) = &container.live {
                live.kill.cancel();
            }
            ends.push((container.status.id.clone(), container.ended.subscribe()));
        }
        for (container, mut ended) in ends {
            self.end_if_created(&container);
            // The sender lives in the table; if it is gone, so is the container.
            let _ = ended.wait_for(|ended| *ended).await;
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(sandbox) = state.sandboxes.get_mut(id) else { return };
        if sandbox.status.state == PodSandboxState::NotReady {
            return;
        }
        sandbox.status.state = PodSandboxState::NotReady;
        let ip = sandbox.status.network.take().and_then(|network| network.ip.parse().ok());
        if let Some(ip) = ip {
            state.addresses.release(Instant::now(), ip);
        }
        let status = sandbox.status.clone();
        self.emit(state, id, id, ContainerEventType::Stopped);
        drop(guard);
        self.saved.put_sandbox(&status);
    }

    pub(super) async fn remove_sandbox(&self, id: &str) {
        self.stop_sandbox(id).await;
        let containers: Vec<String> =
            self.state().containers_of(id).map(|container| container.status.id.clone()).collect();
        for container in containers {
            self.remove_container(&container).await;
        }
        let mut state = self.state();
        if !state.sandboxes.contains_key(id) {
            return;
        }
        self.emit(&state, id, id, ContainerEventType::Deleted);
        state.remove_sandbox(id);
        drop(state);
        self.saved.remove_sandbox(id);
    }
}

fn is_host_network(config: &PodSandboxConfig) -> bool {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let namespaces = security.and_then(|security| security.namespace_options.as_ref());
    namespaces.is_some_and(|namespaces| namespaces.network == NamespaceMode::Node)
}
