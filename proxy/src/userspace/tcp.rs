//! TCP: accept, choose, connect, copy both ways.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{SharedBalancer, choose};

/// How long an endpoint may take to accept before another one is tried. Endpoints are on this machine: one whose queue is
/// full, or that is just closing, does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a client waits while no endpoint accepts: in an update the rules are a moment behind the endpoints.
const PATIENCE: Duration = Duration::from_millis(1000);

/// The first pause before all endpoints are tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Waiting connections, as the kernel counts them.
const BACKLOG: i32 = 4096;

/// A listener on `address`, which may have been in use a moment ago.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where accepted connections live.
pub(super) struct Connections {
    pub(super) tasks: TaskTracker,
    /// A permit each.
    pub(super) room: Arc<Semaphore>,
    pub(super) shutdown: CancellationToken,
}

/// Accept until `accepting` ends; connections live on until they end by themselves or `shutdown` does.
pub(super) async fn accept(
    listener: TcpListener,
    balancer: SharedBalancer,
    accepting: CancellationToken,
    connections: Connections,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            accepted = accept_one(&listener, &connections.room) => accepted,
        };
        match accepted {
            Ok((stream, client, permit)) => {
                let balancer = balancer.clone();
                let shutdown = connections.shutdown.clone();
                connections.tasks.spawn(async move {
                    let _ended = shutdown.run_until_cancelled(serve(stream, client, &balancer)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is room for it.
async fn accept_one(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let (stream, client) = listener.accept().await?;
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    Ok((stream, client, permit))
}

async fn serve(mut client_side: TcpStream, client: SocketAddr, balancer: &SharedBalancer) {
    let Some(mut endpoint_side) = connect(client, balancer).await else {
        // Nobody is there: a reset, as the kernel would answer.
        if let Err(error) = socket2::SockRef::from(&client_side).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot reset the connection");
        }
        return;
    };
    for stream in [&client_side, &endpoint_side] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    }
    if let Err(error) = copy_bidirectional(&mut client_side, &mut endpoint_side).await {
        tracing::trace!(%client, %error, "connection broke");
    }
}

/// A connection to an endpoint; one that does not accept is passed over. While there are endpoints, and none accepts, they
/// and those that take their place are tried for a while.
async fn connect(client: SocketAddr, balancer: &SharedBalancer) -> Option<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let mut failed = Vec::new();
        while let Some(endpoint) = choose(balancer, client, &failed) {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => tracing::debug!(%endpoint, %error, "endpoint does not accept"),
                Err(_) => tracing::debug!(%endpoint, "endpoint does not answer"),
            }
            failed.push(endpoint);
        }
        if failed.is_empty() || Instant::now() + pause > deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
