//! UDP: a socket to an endpoint per client, forgotten when it has been idle.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{SharedBalancer, choose};

/// As kube-proxy's userspace mode had it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Clients served at the same time; a datagram of a further one is dropped, as a full queue drops it.
const MAX_CLIENTS: usize = 4096;

/// Datagrams that wait for one client's endpoint.
const QUEUE_LENGTH: usize = 64;

/// Relay datagrams until `accepting` ends.
pub(super) async fn relay(socket: UdpSocket, balancer: SharedBalancer, accepting: CancellationToken) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        tokio::select! {
            () = accepting.cancelled() => return,
            Some(ended) = tasks.join_next() => {
                if let Ok(client) = ended {
                    flows.remove(&client);
                }
            }
            received = socket.recv_from(&mut buffer) => {
                let (length, client) = match received {
                    Ok(received) => received,
                    // An ICMP error of an earlier answer: it concerns one client only.
                    Err(error) => { tracing::trace!(%error, "cannot receive"); continue; }
                };
                let datagram = buffer[..length].to_vec();
                let queued = flows.get(&client).map(|flow| flow.try_send(datagram.clone()));
                // A closed queue is a flow that has just ended: its successor is made at once.
                if !matches!(queued, None | Some(Err(mpsc::error::TrySendError::Closed(_)))) || flows.len() >= MAX_CLIENTS {
                    continue;
                }
                let Some(endpoint) = choose(&balancer, client, &[]) else { continue };
                let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
                if sender.try_send(datagram).is_ok() {
                    flows.insert(client, sender);
                    let socket = Arc::clone(&socket);
                    tasks.spawn(async move {
                        if let Err(error) = flow(&socket, client, endpoint, receiver).await {
                            tracing::debug!(%client, %endpoint, %error, "flow ended");
                        }
                        client
                    });
                }
            }
        }
    }
}

async fn flow(
    front: &UdpSocket,
    client: SocketAddr,
    endpoint: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let any = if endpoint.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let back = UdpSocket::bind(any).await?;
    back.connect(endpoint).await?;
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let step = timeout(IDLE_TIMEOUT, async {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => back.send(&datagram).await.map(|_| true),
                    None => Ok(false),
                },
                received = back.recv(&mut buffer) => {
                    front.send_to(&buffer[..received?], client).await.map(|_| true)
                }
            }
        });
        match step.await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}
