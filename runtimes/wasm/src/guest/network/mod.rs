//! A pod's network as its guests have it: where they may bind and connect, what names lead to, and a loopback of their own.
//!
//! Called by the guests' contexts; calls the kernel and the pod's name servers.
//!
//! Invariants:
//! - A guest's sockets are at the pod's address, whatever address it binds; 0.0.0.0 means the pod's.
//! - 127.0.0.1 is the pod's own: it leads to guests of the same pod and to nobody else.
//! - Nothing of the machine is reached: where an address is the machine's own (loopback mode, and the range of the guests),
//!   only a socket that listens at that very address is connected to, never one that listens at all addresses.

mod host;
mod hosts;
mod leads;
mod listeners;
mod lookup;
mod loopback;
mod peers;
mod resolver;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use tokio::net::{TcpSocket, TcpStream};
use wasmtime_wasi::sockets::SocketAddrUse;
use wherry_runtimes::PodSandboxConfig;

use super::outbound::{ALLOWED_HOSTS, Outbound};
use crate::Config;
use leads::Leads;
use listeners::Transport;
use loopback::Loopback;
use peers::Peers;
use resolver::{Found, Resolver};

pub(crate) use host::{HeldPorts, PodSockets, add_to_linker};
pub(crate) use resolver::LookupError;

/// The loopback that guests know: nobody's addresses but their own. The rest of 127.0.0.0/8 is pods and Services in
/// loopback mode.
const GUEST_LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 24);

/// The network of one pod.
pub(crate) struct PodNetwork {
    outbound: Outbound,
    /// Where its guests listen: the pod's address, or the node's for a pod of the host network.
    listen_ip: IpAddr,
    has_own_ip: bool,
    /// Addresses that are this machine's own, of which whoever listens at all addresses has the ports.
    local: Vec<IpNet>,
    resolver: Resolver,
    leads: Leads,
    loopback: Arc<Loopback>,
    peers: Peers,
}

/// Whether a guest may connect to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Right {
    /// It may.
    Granted,
    /// It may, if one of these names leads there.
    IfNamed(Vec<String>),
    /// It may not.
    Denied,
}

/// Why a guest's request goes nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name leads nowhere.
    #[error("the host cannot be looked up: {0}")]
    Lookup(#[source] LookupError),
    /// The pod may not.
    #[error("{0}")]
    NotGranted(&'static str),
    /// Nobody answers.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
}

impl PodNetwork {
    /// The network of a sandbox whose guests listen at `listen_ip`; `range` is that of the node's guests.
    ///
    /// # Errors
    /// The pod's annotation cannot be read; in words for its author.
    pub(crate) fn new(
        config: &Config,
        sandbox: &PodSandboxConfig,
        listen_ip: IpAddr,
        has_own_ip: bool,
        range: Option<Ipv4Net>,
    ) -> Result<Self, String> {
        let outbound = Outbound::parse(
            sandbox.annotations.get(ALLOWED_HOSTS).map(String::as_str),
            config,
            has_own_ip.then_some(listen_ip),
        )?;
        let loopback = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
        Ok(Self {
            outbound,
            listen_ip,
            has_own_ip,
            local: [loopback].into_iter().chain(range.map(IpNet::V4)).collect(),
            resolver: Resolver::new(sandbox.dns_config.as_ref(), config.cluster_dns.as_ref()),
            leads: Leads::default(),
            loopback: Arc::default(),
            peers: Peers::default(),
        })
    }

    /// The pod's own file of hosts, as one of its containers has it mounted; the first one counts.
    pub(crate) fn use_hosts_file(&self, file: &Path) {
        self.resolver.use_hosts_file(file);
    }

    /// Where the pod's containers listen.
    pub(crate) fn listen_ip(&self) -> IpAddr {
        self.listen_ip
    }

    /// The pod's own address; `None` for a pod of the host network.
    pub(crate) fn own_ip(&self) -> Option<IpAddr> {
        self.has_own_ip.then_some(self.listen_ip)
    }

    /// Whether the address is on the guests' own loopback.
    fn is_guest_loopback(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        self.has_own_ip
            && GUEST_LOOPBACK.contains(&v4)
            && ip != self.listen_ip
            && !self.outbound.is_of_the_cluster(ip)
    }

    /// Where a guest's destination really is.
    fn real(&self, transport: Transport, address: SocketAddr) -> SocketAddr {
        if !self.is_guest_loopback(address.ip()) {
            return address;
        }
        // What is not bound on the loopback is bound at all addresses, which are the pod's own.
        let of_pod = SocketAddr::new(self.listen_ip, address.port());
        self.loopback.real(transport, address.port()).unwrap_or(of_pod)
    }

    /// Where a guest's datagrams to `address` go; `None` if nobody of the cluster is there. Who has sent some is answered.
    fn datagrams_to(&self, address: SocketAddr) -> Option<SocketAddr> {
        if self.peers.is_known(address, Instant::now()) {
            return Some(address);
        }
        let real = self.real(Transport::Udp, address);
        self.is_served(Transport::Udp, real).then_some(real)
    }

    /// A datagram has come; its sender's address as the guest knows it.
    fn datagram_from(&self, real: SocketAddr) -> SocketAddr {
        let shown = self.shown(Transport::Udp, real);
        if shown == real {
            self.peers.note(real, Instant::now());
        }
        shown
    }

    /// An address as the guest knows it.
    fn shown(&self, transport: Transport, real: SocketAddr) -> SocketAddr {
        self.loopback.known(transport, real).unwrap_or(real)
    }

    /// Whether a connection reaches a socket of the cluster and not one of the machine.
    fn is_served(&self, transport: Transport, real: SocketAddr) -> bool {
        if !self.local.iter().any(|range| range.contains(&real.ip())) {
            return true;
        }
        listeners::listens_exactly(transport, real).unwrap_or_else(|error| {
            tracing::warn!(%real, %error, "the kernel does not say who listens; the connection is refused");
            false
        })
    }

    /// The address to connect from: the pod's, wherever it leads out of the machine or stays on it together with the
    /// destination's.
    fn source_for(&self, destination: SocketAddr) -> Option<SocketAddr> {
        let same_side = self.listen_ip.is_ipv4() == destination.is_ipv4()
            && self.listen_ip.is_loopback() == destination.ip().is_loopback();
        (self.has_own_ip && same_side).then(|| SocketAddr::new(self.listen_ip, 0))
    }

    /// Whether a guest may connect to `real`, as far as is known without asking anybody.
    pub(crate) fn right(&self, real: SocketAddr) -> Right {
        if self.outbound.may_connect(real) {
            return Right::Granted;
        }
        let ip = real.ip().to_canonical();
        if let Some(known) = self.leads.of(ip, Instant::now()) {
            let names: Vec<String> =
                known.names.into_iter().filter(|name| self.outbound.may_connect_as(name, real)).collect();
            match names.is_empty() {
                false if known.is_fresh => return Right::Granted,
                false => return Right::IfNamed(names),
                true => {}
            }
        }
        let names = self.outbound.names_for(real);
        if names.is_empty() { Right::Denied } else { Right::IfNamed(names) }
    }

    /// Whether one of the names leads to the address now.
    pub(crate) async fn leads_to(&self, names: Vec<String>, real: SocketAddr) -> bool {
        for name in names {
            let found = self.resolve(&format!("{name}.")).await;
            if found.is_ok_and(|found| found.addresses.contains(&real.ip().to_canonical())) {
                return true;
            }
        }
        false
    }

    /// What a name leads to, for a guest of this pod; where it leads is remembered.
    pub(super) async fn resolve(&self, host: &str) -> Result<Found, LookupError> {
        let found = self.resolver.find(host, |name| self.outbound.may_resolve(name)).await?;
        self.leads.note(&found.names, &found.addresses, Instant::now());
        Ok(found)
    }

    /// A connection of the host's on behalf of a guest.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let is_literal = host.parse::<IpAddr>().is_ok();
        let found = self.resolve(host).await.map_err(|error| match error {
            LookupError::NotGranted => {
                DialError::NotGranted("the host is not among the allowed outbound hosts")
            }
            error => DialError::Lookup(error),
        })?;
        let mut failed = None;
        for ip in found.addresses {
            let real = self.real(Transport::Tcp, SocketAddr::new(ip, port));
            let granted = match self.right(real) {
                Right::Granted => true,
                Right::IfNamed(names) => self.leads_to(names, real).await,
                Right::Denied => false,
            };
            if !granted {
                continue;
            }
            // The checked address itself is connected to, so a name cannot lead elsewhere meanwhile.
            match self.dial(real).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        Err(match failed {
            Some(error) => DialError::Connect(error),
            None if is_literal => {
                DialError::NotGranted("the address is not among the allowed outbound hosts")
            }
            None => DialError::NotGranted("the host leads to no address that the pod may reach"),
        })
    }

    async fn dial(&self, real: SocketAddr) -> io::Result<TcpStream> {
        if !self.is_served(Transport::Tcp, real) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let socket = if real.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source_for(real) {
            socket.set_reuseaddr(true)?;
            socket.bind(source)?;
        }
        socket.connect(real).await
    }

    /// Whether a socket of a guest may be used so; `None`: if the names of [`Self::right`] lead there.
    pub(crate) fn socket_use(&self, real: SocketAddr, usage: SocketAddrUse) -> Right {
        let decided = |allowed| if allowed { Right::Granted } else { Right::Denied };
        match usage {
            // An outgoing connection binds all addresses with no port of its own; listening there is refused below.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                decided(real.ip() == self.listen_ip || (real.ip().is_unspecified() && real.port() == 0))
            }
            SocketAddrUse::TcpListen => decided(real.ip() == self.listen_ip),
            // Whoever could reach the socket may: NetworkPolicy is not the guest's business.
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => Right::Granted,
            SocketAddrUse::UdpSend if self.peers.is_known(real, Instant::now()) => Right::Granted,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => self.right(real),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
