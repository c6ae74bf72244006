//! Services at the socket, by eBPF: where a program connects to a Service's address, or sends a datagram there, the kernel puts
//! an endpoint's address in its place, and shows the program the Service's when it asks who its peer is. No packet is
//! translated, nothing is tracked, and a Service costs the same among ten as among ten thousand.
//!
//! [`Sockets`] is complete for processes of this machine and connections to ClusterIPs and external addresses. What arrives from
//! elsewhere, and what `demand` leaves out, is the part of packet filters: [`Layered`] puts a second backend behind this one.
//! That one has all rules, so that whatever sockets do not serve (maps that are full, a cgroup of another hierarchy) is served.
//!
//! *Flow.* `demand` (what a rule asks of sockets) -> `plan` (which writes) -> `maps` (carries them out); `programs` loads,
//! attaches and pins. The programs are in `bpf/`; `layout` is what both sides must agree on.
//!
//! *Guarantees.* A connection is given an endpoint of the old rules or of the new ones. With a BPF file system, sockets are
//! served on while this process is down; a restart takes maps and programs over, and replaces a former version's without a gap.
//!
//! Source: the kernel's `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`; 5.18 or newer (`bpf_set_retval`).

mod demand;
mod layered;
mod layout;
mod maps;
mod mounts;
mod plan;
mod programs;
#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

pub use layered::Layered;
pub use programs::Error;

use crate::{Backend, BackendError, Config, ProxyMode, backend::Applied, nftables::Nftables, rules::Ruleset};
use demand::demands;
use maps::Maps;
use mounts::Mounts;
use plan::{Change, Plan, State};
use programs::Programs;

/// The directory of all our pins on a BPF file system.
const PINS: &str = "wherry";

/// Where programs are attached and pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory of the cgroup (v2) whose processes are served, with all cgroups below it.
    pub cgroup: PathBuf,
    /// The directory of the pins, on a BPF file system. Without one, sockets are served as long as this process lives.
    pub pins: Option<PathBuf>,
}

impl Place {
    /// Where this configuration means: its cgroup, or the root of all; and pins that are told from those of other clusters on
    /// the same machine.
    ///
    /// # Errors
    /// [`Error::NoCgroup`], [`Error::OthersSockets`], [`Error::Mounts`].
    pub fn of(config: &Config) -> Result<Self, Error> {
        let mounts = Mounts::read().map_err(Error::Mounts)?;
        let cgroup = match &config.cgroup {
            Some(cgroup) => cgroup.clone(),
            None => mounts.cgroup2.ok_or(Error::NoCgroup)?,
        };
        if config.cgroup.is_none() && mounts::is_whole_machine(&cgroup) && mounts::is_network_apart() {
            return Err(Error::OthersSockets);
        }
        // A BPF file system takes no dots.
        let digest = Sha256::digest(format!("{} {:?}", config.node_name, config.cluster_cidrs));
        let name: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { cgroup, pins: mounts.bpf.map(|bpf| bpf.join(PINS).join(name)) })
    }
}

/// Mode `ebpf`: [`Sockets`], and nftables behind.
///
/// # Errors
/// [`BackendError::Unavailable`]: there is no cgroup to serve.
pub fn backend(config: &Config) -> Result<Box<dyn Backend>, BackendError> {
    let place = Place::of(config).map_err(unavailable)?;
    Ok(Box::new(Layered::new(Box::new(Sockets::new(place)), Box::new(Nftables::new(config)))))
}

/// Whether this kernel can do it, for this process. Nothing stays.
///
/// # Errors
/// Why not.
pub fn probe(place: &Place) -> Result<(), Error> {
    programs::probe(&place.cgroup)
}

/// Whether mode `ebpf` works on this machine, or why not.
pub(crate) async fn probe_for(config: &Config) -> Result<(), String> {
    let place = Place::of(config).map_err(|error| chain(&error))?;
    Nftables::probe().map_err(|error| format!("nftables, which serves what sockets cannot: {error}"))?;
    let probed = tokio::task::spawn_blocking(move || probe(&place)).await;
    probed.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
}

/// End what a former run left: sockets are no longer served, once no process holds the programs.
///
/// # Errors
/// [`Error::PinDirectory`].
pub fn clean_up(place: &Place) -> Result<(), Error> {
    place.pins.as_deref().map_or(Ok(()), |pins: &Path| programs::clean_up(pins))
}

/// As [`clean_up`], for every cluster that was served on this machine. One that is served now notices, and mends it.
pub(crate) fn clean_up_all() -> Result<(), BackendError> {
    let mounts = Mounts::read().map_err(|source| unavailable(Error::Mounts(source)))?;
    mounts.bpf.map_or(Ok(()), |bpf| programs::clean_up(&bpf.join(PINS)).map_err(unavailable))
}

/// As [`clean_up`], where that configuration means. Where nothing of ours can be, there is nothing to clean up.
pub(crate) fn clean_up_of(config: &Config) -> Result<(), BackendError> {
    match Place::of(config) {
        Ok(place) => clean_up(&place).map_err(unavailable),
        Err(_) => Ok(()),
    }
}

/// The backend. See the module.
pub struct Sockets {
    kernel: Arc<Mutex<Kernel>>,
}

/// What is in force.
struct Kernel {
    place: Place,
    opened: Option<(Programs, Maps)>,
    /// Programs that were opened before, and serve until those that replace them do.
    former: Option<Programs>,
    /// What the maps hold; `None` where that must be read.
    state: Option<State>,
    /// What `state` stands for.
    ruleset: Arc<Ruleset>,
}

impl Sockets {
    /// Nothing happens before the first [`Backend::apply`].
    pub fn new(place: Place) -> Self {
        let kernel = Kernel { place, opened: None, former: None, state: None, ruleset: Arc::default() };
        Self { kernel: Arc::new(Mutex::new(kernel)) }
    }

    /// Runs to its end even where the caller is gone: the maps' state is always known.
    async fn with_kernel<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Kernel) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let kernel = Arc::clone(&self.kernel);
        let done = tokio::task::spawn_blocking(move || {
            let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut kernel)
        });
        done.await.unwrap_or_else(|error| Err(BackendError::at("write BPF maps")(io::Error::other(error))))
    }
}

#[async_trait]
impl Backend for Sockets {
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError> {
        let ruleset = Arc::clone(ruleset);
        self.with_kernel(move |kernel| kernel.apply(ruleset)).await
    }

    async fn verify(&mut self) -> Result<bool, BackendError> {
        self.with_kernel(Kernel::verify).await
    }

    async fn close(self: Box<Self>) {}
}

impl Kernel {
    fn apply(&mut self, ruleset: Arc<Ruleset>) -> Result<Applied, BackendError> {
        let (mut programs, mut maps) = match self.opened.take() {
            Some(opened) => opened,
            None => Programs::open(self.place.clone()).map_err(unavailable)?,
        };
        let done = self.fill(&mut maps, ruleset);
        // Filled first: no connection finds a part of the Services only.
        let done = done.and_then(|applied| programs.attach().map(|()| applied).map_err(unavailable));
        if done.is_ok() {
            self.former = None;
        }
        self.opened = Some((programs, maps));
        done
    }

    fn fill(&mut self, maps: &mut Maps, ruleset: Arc<Ruleset>) -> Result<Applied, BackendError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => {
                self.ruleset = Arc::default();
                State::adopt(&maps.read().map_err(BackendError::at("read BPF maps"))?)
            }
        };
        let differences = Ruleset::differences(&self.ruleset, &ruleset);
        let changed = differences.len();
        let changes = differences.into_iter().map(|difference| Change {
            name: difference.name.clone(),
            demands: difference.new.map(|rule| demands(difference.name, rule)).unwrap_or_default(),
        });
        let Plan { writes, unserved } = state.plan(changes.collect());
        for write in &writes {
            maps.write(*write).map_err(BackendError::at("write BPF maps"))?;
        }
        if unserved > 0 {
            tracing::warn!(
                unserved,
                "Service ports without room in the maps, or at another one's address: packet filters serve them"
            );
        }
        if !writes.is_empty() {
            tracing::debug!(changed, writes = writes.len(), "sockets are served by new rules");
        }
        self.state = Some(state);
        self.ruleset = ruleset;
        Ok(Applied { changed, unserved: 0 })
    }

    fn verify(&mut self) -> Result<bool, BackendError> {
        let (Some((programs, maps)), Some(state)) = (&mut self.opened, &self.state) else { return Ok(false) };
        if !programs.is_in_place() {
            self.state = None;
            self.former = self.opened.take().map(|(programs, _)| programs);
            return Ok(false);
        }
        let is_in_force = maps.read().map_err(BackendError::at("read BPF maps"))? == state.tables();
        if !is_in_force {
            self.state = None;
        }
        Ok(is_in_force)
    }
}

fn unavailable(error: Error) -> BackendError {
    BackendError::Unavailable { mode: ProxyMode::Ebpf, reason: chain(&error) }
}

/// With all its causes: which of them matters differs from kernel to kernel.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
