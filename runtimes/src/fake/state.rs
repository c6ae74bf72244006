//! The fake's tables, and how a container or sandbox ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::script::{Behaviour, Exit};
use super::{Clock, Shared};
use crate::log::{LineCutter, Stream, unix_nanos};
use crate::{
    ContainerConfig, ContainerEventResponse, ContainerEventType, ContainerState, ContainerStatus, Error,
    Image, PodSandboxConfig, PodSandboxState, PodSandboxStatus, Result,
};

/// Calls kept for [`super::FakeRuntime::calls`].
pub(super) const KEPT_CALLS: usize = 100_000;

/// Exit code of a killed container: 128 + SIGKILL.
pub(super) const KILLED: i32 = 137;

#[derive(Default)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, ContainerRecord>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) scripts: HashMap<String, Behaviour>,
    pub(super) failing_pulls: HashMap<String, Error>,
    pub(super) failures: HashMap<String, VecDeque<Error>>,
    pub(super) calls: VecDeque<String>,
    pub(super) pod_cidr: Option<(Ipv4Addr, u32)>,
    pub(super) next_id: u64,
    /// Ends the present streams of events.
    pub(super) events_broken: CancellationToken,
    next_address: u32,
}

pub(super) struct Sandbox {
    pub(super) status: PodSandboxStatus,
    pub(super) config: PodSandboxConfig,
    pub(super) containers: BTreeSet<String>,
}

pub(super) struct ContainerRecord {
    pub(super) pod_sandbox_id: String,
    pub(super) status: ContainerStatus,
    pub(super) config: ContainerConfig,
    /// Absolute path of the log, when there is one.
    pub(super) log_path: Option<PathBuf>,
    /// The state, for whoever waits for the end.
    pub(super) ended: watch::Sender<bool>,
}

impl State {
    /// Ids are 64 hexadecimal digits, as containerd's are.
    pub(super) fn new_id(&mut self, kind: char) -> String {
        self.next_id += 1;
        format!("{:016x}{:048x}", self.next_id.wrapping_mul(0x9e37_79b9_7f4a_7c15), u64::from(kind))
    }

    /// The next free address of the pod CIDR, never the network address itself, and not the one just given back.
    pub(super) fn allocate_address(&mut self) -> Result<String> {
        let (network, prefix) = self.pod_cidr.unwrap_or((Ipv4Addr::new(10, 88, 0, 0), 16));
        let size = 1_u32.checked_shl(32 - prefix).unwrap_or(u32::MAX);
        let used: BTreeSet<&str> = self
            .sandboxes
            .values()
            .filter_map(|s| s.status.network.as_ref())
            .map(|network| network.ip.as_str())
            .collect();
        for _ in 0..size {
            self.next_address = (self.next_address + 1) % size;
            let address = Ipv4Addr::from_bits(network.to_bits() + self.next_address).to_string();
            if self.next_address != 0 && self.next_address != size - 1 && !used.contains(address.as_str()) {
                return Ok(address);
            }
        }
        Err(Error::ResourceExhausted(format!("no address left in {network}/{prefix}")))
    }

    pub(super) fn set_pod_cidr(&mut self, cidr: &str) -> Result<()> {
        let invalid = || Error::InvalidArgument(format!("invalid pod CIDR {cidr:?}"));
        let (address, prefix) = cidr.split_once('/').ok_or_else(invalid)?;
        let address = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => address,
            _ => return Err(invalid()),
        };
        let prefix = prefix.parse::<u32>().ok().filter(|p| *p <= 30).ok_or_else(invalid)?;
        self.pod_cidr = Some((address, prefix));
        Ok(())
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox> {
        self.sandboxes.get(id).ok_or_else(|| Error::not_found("sandbox", id))
    }

    pub(super) fn container(&self, id: &str) -> Result<&ContainerRecord> {
        self.containers.get(id).ok_or_else(|| Error::not_found("container", id))
    }

    pub(super) fn container_mut(&mut self, id: &str) -> Result<&mut ContainerRecord> {
        self.containers.get_mut(id).ok_or_else(|| Error::not_found("container", id))
    }

    pub(super) fn statuses_of(&self, pod_sandbox_id: &str) -> Vec<ContainerStatus> {
        self.sandboxes
            .get(pod_sandbox_id)
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter_map(|id| self.containers.get(id))
            .map(|container| container.status.clone())
            .collect()
    }
}

impl Shared {
    pub(super) fn now(&self) -> i64 {
        unix_nanos(self.clock.now())
    }

    pub(super) fn emit(&self, state: &State, pod_sandbox_id: &str, id: &str, kind: ContainerEventType) {
        self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind,
            created_at: self.now(),
            pod_sandbox_status: state.sandboxes.get(pod_sandbox_id).map(|s| s.status.clone()),
            containers_statuses: state.statuses_of(pod_sandbox_id),
        });
    }

    /// Running to Exited, with its event; any other state stays as it is.
    pub(super) fn finish(&self, state: &mut State, id: &str, exit: &Exit) {
        let now = self.now();
        let Some(container) = state.containers.get_mut(id) else { return };
        if container.status.state != ContainerState::Running {
            return;
        }
        let status = &mut container.status;
        status.state = ContainerState::Exited;
        status.finished_at = now;
        status.exit_code = exit.code;
        status.reason = exit.reason().to_owned();
        status.message = exit.message.clone();
        container.ended.send_replace(true);
        let pod_sandbox_id = container.pod_sandbox_id.clone();
        self.emit(state, &pod_sandbox_id, id, ContainerEventType::Stopped);
    }

    /// Kills the containers, gives the address back, and tells; again is nothing.
    pub(super) fn stop_sandbox(&self, state: &mut State, id: &str) {
        let Some(sandbox) = state.sandboxes.get(id) else { return };
        for container in sandbox.containers.clone() {
            self.finish(state, &container, &Exit::code(KILLED));
        }
        let Some(sandbox) = state.sandboxes.get_mut(id) else { return };
        if sandbox.status.state == PodSandboxState::Ready {
            sandbox.status.state = PodSandboxState::NotReady;
            sandbox.status.network = None;
            self.emit(state, id, id, ContainerEventType::Stopped);
        }
    }

    /// Removes the container whatever its state, with its events.
    pub(super) fn remove(&self, state: &mut State, id: &str) {
        self.finish(state, id, &Exit::code(KILLED));
        let Some(container) = state.containers.remove(id) else { return };
        container.ended.send_replace(true);
        if let Some(sandbox) = state.sandboxes.get_mut(&container.pod_sandbox_id) {
            sandbox.containers.remove(id);
        }
        self.emit(state, &container.pod_sandbox_id, id, ContainerEventType::Deleted);
    }
}

/// Appends what a container prints to its log file.
pub(super) fn print(
    path: &std::path::Path,
    clock: &dyn Clock,
    lines: &[(Stream, String)],
) -> std::io::Result<()> {
    use std::io::Write;
    let mut log = Vec::new();
    for (stream, line) in lines {
        let mut cutter = LineCutter::new(*stream);
        cutter.write(clock.now(), line.as_bytes(), &mut log);
        cutter.finish(clock.now(), &mut log);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(&log)
}
