//! `wasi:sockets/udp` on a pod's network.

use std::net::SocketAddr;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{DynPollable, SocketResult, UdpSocket};

use super::host::{Binding, PodSockets};
use super::listeners::Transport::Udp;

impl Host for PodSockets<'_> {}

impl HostUdpSocket for PodSockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        match self.network.binding(Udp, local_address.into())? {
            Binding::At(real) => HostUdpSocket::start_bind(&mut self.inner, this, network, real.into()).await,
            Binding::Loopback { at, port } => {
                let socket = Resource::new_borrow(rep);
                HostUdpSocket::start_bind(&mut self.inner, socket, network, at.into()).await?;
                let real = self.inner.local_address(Resource::<UdpSocket>::new_borrow(rep))?;
                let bound = self.network.hold(Udp, port, real.into())?;
                self.held.sockets.insert(rep, bound);
                Ok(())
            }
        }
    }

    fn finish_bind(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        HostUdpSocket::finish_bind(&mut self.inner, this)
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let rep = this.rep();
        let real = match remote_address {
            Some(remote) => {
                Some(self.network.datagrams_to(remote.into()).ok_or(ErrorCode::ConnectionRefused)?)
            }
            None => None,
        };
        let (incoming, outgoing) = self.inner.stream(this, real.map(IpSocketAddress::from)).await?;
        if self.held.sockets.contains_key(&rep) {
            self.held.streams.insert(incoming.rep());
        }
        Ok((incoming, outgoing))
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let real = HostUdpSocket::local_address(&mut self.inner, this)?;
        Ok(self.network.shown(Udp, real.into()).into())
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let real = HostUdpSocket::remote_address(&mut self.inner, this)?;
        Ok(self.network.shown(Udp, real.into()).into())
    }

    fn address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        HostUdpSocket::address_family(&mut self.inner, this)
    }

    fn unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        self.inner.unicast_hop_limit(this)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        self.inner.set_unicast_hop_limit(this, value)
    }

    fn receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        HostUdpSocket::receive_buffer_size(&mut self.inner, this)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        HostUdpSocket::set_receive_buffer_size(&mut self.inner, this, value)
    }

    fn send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        HostUdpSocket::send_buffer_size(&mut self.inner, this)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        HostUdpSocket::set_send_buffer_size(&mut self.inner, this, value)
    }

    fn subscribe(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        HostUdpSocket::subscribe(&mut self.inner, this)
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.held.sockets.remove(&this.rep());
        HostUdpSocket::drop(&mut self.inner, this)
    }
}

impl HostIncomingDatagramStream for PodSockets<'_> {
    fn receive(
        &mut self,
        this: Resource<IncomingDatagramStream>,
        max_results: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let is_private = self.held.streams.contains(&this.rep());
        let mut datagrams = self.inner.receive(this, max_results)?;
        // The pod's loopback is for whoever comes from the pod.
        let of_pod = |address: IpSocketAddress| SocketAddr::from(address).ip() == self.network.listen_ip();
        datagrams.retain(|datagram| !is_private || of_pod(datagram.remote_address));
        for datagram in &mut datagrams {
            datagram.remote_address = self.network.datagram_from(datagram.remote_address.into()).into();
        }
        Ok(datagrams)
    }

    fn subscribe(
        &mut self,
        this: Resource<IncomingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostIncomingDatagramStream::subscribe(&mut self.inner, this)
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.held.streams.remove(&this.rep());
        HostIncomingDatagramStream::drop(&mut self.inner, this)
    }
}

impl HostOutgoingDatagramStream for PodSockets<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        self.inner.check_send(this)
    }

    fn send(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
        datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let all = u64::try_from(datagrams.len()).unwrap_or(u64::MAX);
        let mut kept = Vec::with_capacity(datagrams.len());
        let mut places = Vec::with_capacity(datagrams.len());
        for (place, mut datagram) in (0_u64..).zip(datagrams) {
            if let Some(remote) = datagram.remote_address {
                // Nobody of the cluster is there: lost, as datagrams are.
                let Some(real) = self.network.datagrams_to(remote.into()) else { continue };
                datagram.remote_address = Some(real.into());
            }
            kept.push(datagram);
            places.push(place);
        }
        let sent = self.inner.send(this, kept)?;
        // The first that was not sent, among all that there were.
        let first_left = usize::try_from(sent).ok().and_then(|sent| places.get(sent).copied());
        Ok(first_left.unwrap_or(all))
    }

    fn subscribe(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutgoingDatagramStream::subscribe(&mut self.inner, this)
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        HostOutgoingDatagramStream::drop(&mut self.inner, this).await
    }
}
