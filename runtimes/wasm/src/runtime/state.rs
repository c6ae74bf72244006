//! What the runtime knows: sandboxes, containers, addresses.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_runtimes::{
    ContainerConfig, ContainerStatus, Error, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus, Result,
};

use crate::addresses::Addresses;
use crate::code::Program;
use crate::guest::{ContainerMemory, Cpu, Grants, LogFile, Mounts, PodNetwork, Stdio};
use crate::image::ImageRecord;

#[derive(Default)]
pub(super) struct State {
    pub(super) sandboxes: HashMap<String, Sandbox>,
    pub(super) containers: HashMap<String, Container>,
    pub(super) addresses: Addresses,
    reserved: HashMap<(String, String, String, u32), String>,
}

pub(super) struct Sandbox {
    pub(super) status: PodSandboxStatus,
    pub(super) containers: BTreeSet<String>,
    /// What only a sandbox of this process has; one from before has none and is NotReady.
    pub(super) live: Option<LiveSandbox>,
}

pub(super) struct LiveSandbox {
    pub(super) config: Arc<PodSandboxConfig>,
    /// Where its containers listen, and what they may reach.
    pub(super) network: Arc<PodNetwork>,
}

pub(super) struct Container {
    pub(super) pod_sandbox_id: String,
    pub(super) status: ContainerStatus,
    /// What only a container of this process has.
    pub(super) live: Option<Arc<LiveContainer>>,
    /// Whether it has ended.
    pub(super) ended: watch::Sender<bool>,
}

/// What a container needs to run.
pub(super) struct LiveContainer {
    pub(super) config: ContainerConfig,
    pub(super) image: ImageRecord,
    pub(super) program: Arc<Program>,
    pub(super) mounts: Mounts,
    pub(super) log: Arc<LogFile>,
    pub(super) memory: Arc<ContainerMemory>,
    pub(super) cpu: Arc<Cpu>,
    /// What its instances are granted; known from its start on.
    pub(super) grants: OnceLock<Grants>,
    /// Standard input of a container that has one: the guest's end of it, until it starts.
    pub(super) stdio: Stdio,
    /// The end that attached clients type into.
    pub(super) input: tokio::sync::Mutex<Option<DuplexStream>>,
    /// Asks an HTTP server to accept no more, and to end with its last request.
    pub(super) drain: CancellationToken,
    /// Ends the guest.
    pub(super) kill: CancellationToken,
}

fn key(metadata: &PodSandboxMetadata) -> (String, String, String, u32) {
    (metadata.uid.clone(), metadata.namespace.clone(), metadata.name.clone(), metadata.attempt)
}

impl State {
    /// Puts a sandbox in, unless another has its name.
    pub(super) fn insert_sandbox(&mut self, sandbox: Sandbox) -> Result<()> {
        let key = key(&sandbox.status.metadata);
        if let Some(other) = self.reserved.get(&key) {
            return Err(Error::AlreadyExists(format!("pod sandbox name is reserved for {other:?}")));
        }
        self.reserved.insert(key, sandbox.status.id.clone());
        self.sandboxes.insert(sandbox.status.id.clone(), sandbox);
        Ok(())
    }

    pub(super) fn remove_sandbox(&mut self, id: &str) -> Option<Sandbox> {
        let sandbox = self.sandboxes.remove(id)?;
        self.reserved.remove(&key(&sandbox.status.metadata));
        Some(sandbox)
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox> {
        self.sandboxes.get(id).ok_or_else(|| Error::not_found("sandbox", id))
    }

    pub(super) fn container(&self, id: &str) -> Result<&Container> {
        self.containers.get(id).ok_or_else(|| Error::not_found("container", id))
    }

    pub(super) fn containers_of(&self, pod_sandbox_id: &str) -> impl Iterator<Item = &Container> {
        let ids = self.sandboxes.get(pod_sandbox_id).into_iter().flat_map(|sandbox| &sandbox.containers);
        ids.filter_map(|id| self.containers.get(id))
    }

    pub(super) fn statuses_of(&self, pod_sandbox_id: &str) -> Vec<ContainerStatus> {
        self.containers_of(pod_sandbox_id).map(|container| container.status.clone()).collect()
    }
}
