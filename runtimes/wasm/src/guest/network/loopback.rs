//! A pod's own loopback: what its guests bind there is at an address of the pod that nobody else is told.
//!
//! A guest that binds 127.0.0.1:8080 gets a socket at the pod's address and a port of the kernel's choice. Its fellows
//! in the pod, who connect to 127.0.0.1:8080, are led there; anybody else who finds the port is turned away, because he
//! does not come from the pod's address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::listeners::Transport;

/// The sockets on the loopback of one pod.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    ports: Mutex<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    /// Where a port of the guests' loopback really is.
    real: HashMap<(Transport, u16), SocketAddr>,
    /// The port as guests know it.
    known: HashMap<(Transport, SocketAddr), u16>,
}

/// A port of the loopback, as long as its socket lives.
#[derive(Debug)]
pub(super) struct Bound {
    loopback: Arc<Loopback>,
    transport: Transport,
    port: u16,
    real: SocketAddr,
}

impl Loopback {
    /// Whether somebody has the port.
    pub(super) fn is_taken(&self, transport: Transport, port: u16) -> bool {
        self.lock().real.contains_key(&(transport, port))
    }

    /// `port` is really at `real`; `None` if somebody has it.
    pub(super) fn bind(self: &Arc<Self>, transport: Transport, port: u16, real: SocketAddr) -> Option<Bound> {
        let mut ports = self.lock();
        if ports.real.contains_key(&(transport, port)) {
            return None;
        }
        ports.real.insert((transport, port), real);
        ports.known.insert((transport, real), port);
        Some(Bound { loopback: Arc::clone(self), transport, port, real })
    }

    /// Where a port really is, if a guest has bound it here.
    pub(super) fn real(&self, transport: Transport, port: u16) -> Option<SocketAddr> {
        self.lock().real.get(&(transport, port)).copied()
    }

    /// The address as guests know it, if it is one of theirs here.
    pub(super) fn known(&self, transport: Transport, real: SocketAddr) -> Option<SocketAddr> {
        let port = *self.lock().known.get(&(transport, real))?;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut ports = self.loopback.lock();
        ports.real.remove(&(self.transport, self.port));
        ports.known.remove(&(self.transport, self.real));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_by_its_own_number_as_long_as_its_socket_lives() {
        let loopback = Arc::new(Loopback::default());
        let real: SocketAddr = "127.64.0.5:40001".parse().unwrap();
        let bound = loopback.bind(Transport::Tcp, 8080, real).unwrap();
        assert!(loopback.bind(Transport::Tcp, 8080, "127.64.0.5:40002".parse().unwrap()).is_none());
        assert_eq!(loopback.real(Transport::Tcp, 8080), Some(real));
        assert_eq!(loopback.real(Transport::Udp, 8080), None);
        assert_eq!(loopback.known(Transport::Tcp, real).unwrap().to_string(), "127.0.0.1:8080");
        drop(bound);
        assert!(
            loopback.real(Transport::Tcp, 8080).is_none() && loopback.known(Transport::Tcp, real).is_none()
        );
        assert!(!loopback.is_taken(Transport::Tcp, 8080));
    }
}
