//! `wasi:sockets` on a pod's network: WASI's own implementation with the pod's addresses in the place of the machine's.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, HostNetwork};
use wasmtime_wasi::p2::bindings::sockets::{tcp, udp};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use super::listeners::Transport;
use super::loopback::Bound;
use super::{PodNetwork, lookup};
use crate::guest::ComponentGuest;

/// Ports of the pod's loopback that one instance holds, by its sockets' numbers, and streams of datagrams that belong to
/// such sockets. They go with the instance.
#[derive(Debug, Default)]
pub(crate) struct HeldPorts {
    pub(super) sockets: HashMap<u32, Bound>,
    pub(super) streams: HashSet<u32>,
}

/// The type of [`PodSockets`] for the linker.
struct OfPod;

impl HasData for OfPod {
    type Data<'a> = PodSockets<'a>;
}

/// An instance's sockets.
pub(crate) struct PodSockets<'a> {
    pub(crate) inner: WasiSocketsCtxView<'a>,
    pub(crate) network: &'a Arc<PodNetwork>,
    pub(crate) held: &'a mut HeldPorts,
}

impl network::Host for PodSockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.network_error_code(error)
    }
}

impl HostNetwork for PodSockets<'_> {
    fn drop(&mut self, this: Resource<network::Network>) -> wasmtime::Result<()> {
        HostNetwork::drop(&mut self.inner, this)
    }
}

/// What a guest's `bind` comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    /// A socket at this address.
    At(SocketAddr),
    /// A port of the pod's loopback: a socket at this address, known by that port; 0 for any.
    Loopback { at: SocketAddr, port: u16 },
}

/// Puts the pod's sockets and names in the place of WASI's own.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp::add_to_linker::<ComponentGuest, OfPod>(linker, ComponentGuest::pod_sockets)?;
    udp::add_to_linker::<ComponentGuest, OfPod>(linker, ComponentGuest::pod_sockets)?;
    lookup::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl PodNetwork {
    /// Where a guest's socket is bound that asks for `asked`.
    pub(super) fn binding(&self, transport: Transport, asked: SocketAddr) -> Result<Binding, ErrorCode> {
        let (ip, port) = (asked.ip(), asked.port());
        if self.is_guest_loopback(ip) {
            if port != 0 && self.loopback.is_taken(transport, port) {
                return Err(ErrorCode::AddressInUse);
            }
            return Ok(Binding::Loopback { at: SocketAddr::new(self.listen_ip, 0), port });
        }
        if !ip.is_unspecified() || ip.is_ipv4() != self.listen_ip.is_ipv4() {
            return Ok(Binding::At(asked));
        }
        if port != 0 && self.loopback.is_taken(transport, port) {
            return Err(ErrorCode::AddressInUse);
        }
        // From a loopback address nothing leaves the machine: a socket that may have to stays unbound.
        let stays_open = transport == Transport::Udp
            && port == 0
            && self.listen_ip.is_loopback()
            && self.outbound.reaches_outside();
        Ok(Binding::At(if stays_open { asked } else { SocketAddr::new(self.listen_ip, port) }))
    }

    /// Notes that a socket of the loopback is bound.
    pub(super) fn hold(&self, transport: Transport, port: u16, real: SocketAddr) -> Result<Bound, ErrorCode> {
        let port = if port == 0 { real.port() } else { port };
        self.loopback.bind(transport, port, real).ok_or(ErrorCode::AddressInUse)
    }
}
