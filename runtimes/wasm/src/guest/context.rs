//! What a guest is granted, and the store that holds it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wherry_runtimes::log::Stream;

use super::log_file::GuestOutput;
use super::memory::InstanceMemory;
use super::network::{HeldPorts, PodNetwork, PodSockets, Right};
use super::send::Sending;
use super::{Arguments, ContainerMemory, GuestMount, LogFile, Stdio};
use crate::code::Program;

/// The largest set of HTTP headers that a guest can build, in bytes. Source: wasmtime's own default.
const MAX_HEADERS_BYTES: usize = 128 * 1024;

/// Most host resources (streams, requests, descriptors) that one instance may hold.
const MAX_RESOURCES: usize = 100_000;

/// Most random bytes at once.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// What every instance of a container gets.
#[derive(Clone)]
pub(crate) struct Grants {
    pub(crate) arguments: Arc<Arguments>,
    pub(crate) mounts: Arc<[GuestMount]>,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) log: Arc<LogFile>,
    pub(crate) memory: Arc<ContainerMemory>,
    pub(crate) stdio: Stdio,
}

/// The state of a core module's store.
pub(crate) struct ModuleGuest {
    pub(crate) wasi: WasiP1Ctx,
    memory: InstanceMemory,
}

/// The state of a component's store.
pub(crate) struct ComponentGuest {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    sending: Sending,
    held_ports: HeldPorts,
    memory: InstanceMemory,
}

impl ComponentGuest {
    /// The instance's sockets on its pod's network.
    pub(crate) fn pod_sockets(&mut self) -> PodSockets<'_> {
        PodSockets {
            inner: WasiSocketsCtxView { ctx: self.wasi.sockets(), table: &mut self.table },
            network: &self.sending.network,
            held: &mut self.held_ports,
        }
    }

    /// Where the container's lines go.
    pub(crate) fn log(&self) -> Arc<LogFile> {
        Arc::clone(&self.sending.log)
    }
}

impl WasiView for ComponentGuest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentGuest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.sending, table: &mut self.table, ctx: &mut self.http }
    }
}

/// A store, and whether it was refused memory: that outlives the store.
pub(crate) struct Prepared<T: 'static> {
    pub(crate) store: Store<T>,
    pub(crate) refused: Arc<std::sync::atomic::AtomicBool>,
}

impl Grants {
    /// A fresh store for a core module.
    pub(crate) fn module_store(&self, engine: &Engine) -> wasmtime::Result<Prepared<ModuleGuest>> {
        let memory = InstanceMemory::new(&self.memory);
        let refused = memory.refused();
        let guest = ModuleGuest { wasi: self.context(Sockets::Denied)?.build_p1(), memory };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.memory);
        Program::be_fair(&mut store);
        Ok(Prepared { store, refused })
    }

    /// A fresh store for a component.
    pub(crate) fn component_store(
        &self,
        engine: &Engine,
        sockets: Sockets,
        memory: InstanceMemory,
    ) -> wasmtime::Result<Prepared<ComponentGuest>> {
        let refused = memory.refused();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_HEADERS_BYTES);
        let guest = ComponentGuest {
            wasi: self.context(sockets)?.build(),
            table,
            http,
            sending: Sending { network: Arc::clone(&self.network), log: Arc::clone(&self.log) },
            held_ports: HeldPorts::default(),
            memory,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.memory);
        Program::be_fair(&mut store);
        Ok(Prepared { store, refused })
    }

    fn context(&self, sockets: Sockets) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtx::builder();
        builder
            .args(&self.arguments.args)
            .envs(&self.arguments.env)
            .initial_cwd(&self.arguments.working_dir)
            .max_random_size(MAX_RANDOM_BYTES);
        match self.stdio.guest_outputs() {
            Some((stdout, stderr)) => builder.stdout(stdout).stderr(stderr),
            None => builder
                .stdout(GuestOutput::new(&self.log, Stream::Stdout))
                .stderr(GuestOutput::new(&self.log, Stream::Stderr)),
        };
        if let Some(input) = self.stdio.take_input() {
            builder.stdin(input);
        }
        for mount in self.mounts.iter() {
            let what = || format!("mount {} at {}", mount.host.display(), mount.guest);
            let held = mount.open().map_err(|error| wasmtime::Error::from(error).context(what()))?;
            builder
                .preopened_dir(held.path(), &mount.guest, mount.permissions())
                .map_err(|error| error.context(what()))?;
        }
        if sockets == Sockets::AsGranted {
            let (network, log) = (Arc::clone(&self.network), Arc::clone(&self.log));
            // Names are looked up by the pod's own resolver; WASI's would be the machine's.
            builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(false).socket_addr_check(
                move |address, usage| {
                    Box::pin(socket_allowed(Arc::clone(&network), Arc::clone(&log), address, usage))
                },
            );
        }
        Ok(builder)
    }
}

/// Whether an instance may open sockets at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// An HTTP guest's world has none; preview 1 cannot open any.
    Denied,
    /// As the pod's grants say.
    AsGranted,
}

async fn socket_allowed(
    network: Arc<PodNetwork>,
    log: Arc<LogFile>,
    address: SocketAddr,
    usage: SocketAddrUse,
) -> bool {
    let allowed = match network.socket_use(address, usage) {
        Right::Granted => true,
        Right::Denied => false,
        // The guest looked a granted name up long ago, or elsewhere: the address is good if the name leads there now.
        Right::IfNamed(names) => {
            let lookup = tokio::spawn(async move { network.leads_to(names, address).await });
            AbortOnDropHandle::new(lookup).await.unwrap_or(false)
        }
    };
    if !allowed {
        log.line(&format!("socket refused: {usage:?} {address} is not granted to this pod"));
    }
    allowed
}
