//! The sockets: UDP and TCP on one address.
//!
//! The cluster's own names are answered where the question is read, without a task. A name that is asked for elsewhere
//! takes a task and one of a bounded number of permits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::respond::{Responder, Response, encode, overloaded, udp_limit};

/// Questions that wait for the node's resolvers at the same time. Source: `max_concurrent 1000` in kubeadm's Corefile.
const MAX_PENDING: usize = 1000;

/// TCP connections at the same time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;

/// How long a TCP connection may be silent. Source: RFC 7766 asks for a few seconds; CoreDNS has 8.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Both sockets of the server.
pub(super) struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Sockets {
    /// Opens both on the same address.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self { udp: Arc::new(udp), tcp })
    }

    /// Where they are.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until `shutdown`; then what was begun is let go.
    pub(super) async fn serve(
        self,
        responder: Arc<Responder>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let tasks = TaskTracker::new();
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        let served = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = udp(&self.udp, &responder, &tasks, &pending, &shutdown) => ended,
            () = tcp(&self.tcp, &responder, &tasks, &pending, &shutdown) => Ok(()),
        };
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        served
    }
}

async fn udp(
    socket: &Arc<UdpSocket>,
    responder: &Arc<Responder>,
    tasks: &TaskTracker,
    pending: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) if is_of_a_client(&error) => continue,
            Err(error) => return Err(error),
        };
        // A port of 0 cannot be answered.
        let Some(question) = buffer.get(..length).filter(|_| client.port() != 0) else { continue };
        match responder.begin(question) {
            None => {}
            Some(Response::Ready(response)) => {
                if let Some(bytes) = encode(response, udp_limit(question)) {
                    send(socket, &bytes, client).await;
                }
            }
            Some(Response::Pending(response, name, kind)) => {
                let limit = udp_limit(question);
                let Ok(permit) = Arc::clone(pending).try_acquire_owned() else {
                    if let Some(bytes) = encode(overloaded(*response), limit) {
                        send(socket, &bytes, client).await;
                    }
                    continue;
                };
                let (socket, responder, shutdown) =
                    (Arc::clone(socket), Arc::clone(responder), shutdown.clone());
                tasks.spawn(async move {
                    let answer = responder.complete(*response, &name, kind);
                    if let Some(response) = shutdown.run_until_cancelled(answer).await
                        && let Some(bytes) = encode(response, limit)
                    {
                        send(&socket, &bytes, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// Errors that an earlier answer came back with: they say nothing of the socket.
fn is_of_a_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "cannot answer");
    }
}

async fn tcp(
    listener: &TcpListener,
    responder: &Arc<Responder>,
    tasks: &TaskTracker,
    pending: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let (responder, pending, shutdown) =
                    (Arc::clone(responder), Arc::clone(pending), shutdown.clone());
                tasks.spawn(async move {
                    let served = shutdown.run_until_cancelled(connection(stream, &responder, &pending)).await;
                    if let Some(Err(error)) = served {
                        tracing::trace!(%client, %error, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One question after the other, each with its length before it. Source: RFC 1035, 4.2.2.
async fn connection(mut stream: TcpStream, responder: &Responder, pending: &Semaphore) -> io::Result<()> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let question =
            tokio::time::timeout(IDLE_TIMEOUT, read_message(&mut stream)).await.map_err(timed_out)?;
        let Some(question) = question? else { return Ok(()) };
        let response = match responder.begin(&question) {
            None => return Ok(()),
            Some(Response::Ready(response)) => response,
            Some(Response::Pending(response, name, kind)) => match pending.try_acquire() {
                Ok(_permit) => responder.complete(*response, &name, kind).await,
                Err(_) => overloaded(*response),
            },
        };
        let Some(bytes) = encode(response, u16::MAX) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        tokio::time::timeout(IDLE_TIMEOUT, stream.write_all(&framed)).await.map_err(timed_out)??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
