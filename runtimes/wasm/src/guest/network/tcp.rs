//! `wasi:sockets/tcp` on a pod's network.

use futures::FutureExt as _;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketResult, TcpSocket};

use super::host::{Binding, PodSockets};
use super::listeners::Transport::Tcp;

impl Host for PodSockets<'_> {}

impl HostTcpSocket for PodSockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        match self.network.binding(Tcp, local_address.into())? {
            Binding::At(real) => self.inner.start_bind(this, network, real.into()).await,
            Binding::Loopback { at, port } => {
                self.inner.start_bind(Resource::new_borrow(rep), network, at.into()).await?;
                let real = self.inner.local_address(Resource::<TcpSocket>::new_borrow(rep))?;
                let bound = self.network.hold(Tcp, port, real.into())?;
                self.held.sockets.insert(rep, bound);
                Ok(())
            }
        }
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.inner.finish_bind(this)
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let real = self.network.real(Tcp, remote_address.into());
        if !self.network.is_served(Tcp, real) {
            return Err(ErrorCode::ConnectionRefused.into());
        }
        let socket = || Resource::<TcpSocket>::new_borrow(this.rep());
        let network_again = Resource::<Network>::new_borrow(network.rep());
        if let Some(source) = self.network.source_for(real)
            && self.inner.local_address(socket()).is_err()
        {
            // The check of our own address waits for nobody; a socket that is not fit to be bound is not fit to connect.
            let bound = HostTcpSocket::start_bind(&mut self.inner, socket(), network_again, source.into());
            bound.now_or_never().unwrap_or(Err(ErrorCode::WouldBlock.into()))?;
            self.inner.finish_bind(socket())?;
        }
        self.inner.start_connect(this, network, real.into())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.inner.finish_connect(this)
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.inner.start_listen(this).await
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.inner.finish_listen(this)
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let rep = this.rep();
        let is_private = self.held.sockets.contains_key(&rep);
        loop {
            let (socket, input, output) = self.inner.accept(Resource::new_borrow(rep))?;
            if !is_private {
                return Ok((socket, input, output));
            }
            // The pod's loopback is for whoever comes from the pod.
            let peer = self.inner.remote_address(Resource::<TcpSocket>::new_borrow(socket.rep()));
            if peer.is_ok_and(|peer| std::net::SocketAddr::from(peer).ip() == self.network.listen_ip()) {
                return Ok((socket, input, output));
            }
            self.inner.table.delete(input)?;
            self.inner.table.delete(output)?;
            self.inner.table.delete(socket)?;
        }
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let real = self.inner.local_address(this)?;
        Ok(self.network.shown(Tcp, real.into()).into())
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let real = self.inner.remote_address(this)?;
        Ok(self.network.shown(Tcp, real.into()).into())
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.inner.is_listening(this)
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        HostTcpSocket::address_family(&mut self.inner, this)
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.inner.set_listen_backlog_size(this, value)
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        self.inner.keep_alive_enabled(this)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.inner.set_keep_alive_enabled(this, value)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        self.inner.keep_alive_idle_time(this)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.inner.set_keep_alive_idle_time(this, value)
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        self.inner.keep_alive_interval(this)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.inner.set_keep_alive_interval(this, value)
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        self.inner.keep_alive_count(this)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.inner.set_keep_alive_count(this, value)
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        self.inner.hop_limit(this)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.inner.set_hop_limit(this, value)
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        HostTcpSocket::receive_buffer_size(&mut self.inner, this)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        HostTcpSocket::set_receive_buffer_size(&mut self.inner, this, value)
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        HostTcpSocket::send_buffer_size(&mut self.inner, this)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        HostTcpSocket::set_send_buffer_size(&mut self.inner, this, value)
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        HostTcpSocket::subscribe(&mut self.inner, this)
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, shutdown_type: ShutdownType) -> SocketResult<()> {
        self.inner.shutdown(this, shutdown_type)
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.held.sockets.remove(&this.rep());
        HostTcpSocket::drop(&mut self.inner, this)
    }
}
