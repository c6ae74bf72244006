//! UDP: a socket to an endpoint per client, forgotten when it has been idle.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{SharedBalancer, choose, has_endpoint};

/// As kube-proxy's userspace mode had it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest datagram.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Clients served at the same time; a datagram of a further one is dropped, as a full queue drops it.
const MAX_CLIENTS: usize = 4096;

/// Datagrams that wait for one client's endpoint.
const QUEUE_LENGTH: usize = 64;

/// One client's way to its endpoint.
struct Flow {
    endpoint: SocketAddr,
    datagrams: mpsc::Sender<Vec<u8>>,
}

/// Relay datagrams until `accepting` ends.
pub(super) async fn relay(socket: UdpSocket, balancer: SharedBalancer, accepting: CancellationToken) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        tokio::select! {
            () = accepting.cancelled() => return,
            Some(ended) = tasks.join_next() => {
                // Unless it has a successor already.
                if let Ok(client) = ended
                    && flows.get(&client).is_some_and(|flow| flow.datagrams.is_closed())
                {
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
                // There is no connection to keep: a client of an endpoint that is gone gets another at once.
                if flows.get(&client).is_some_and(|flow| !has_endpoint(&balancer, flow.endpoint)) {
                    flows.remove(&client);
                }
                let queued = flows.get(&client).map(|flow| flow.datagrams.try_send(datagram.clone()));
                // A closed queue is a flow that has just ended: its successor is made at once.
                if !matches!(queued, None | Some(Err(mpsc::error::TrySendError::Closed(_)))) || flows.len() >= MAX_CLIENTS {
                    continue;
                }
                let Some(endpoint) = choose(&balancer, client, &[]) else { continue };
                let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
                if sender.try_send(datagram).is_ok() {
                    flows.insert(client, Flow { endpoint, datagrams: sender });
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{super::balancer::Balancer, *};

    async fn answer(endpoint: &UdpSocket, text: &[u8]) {
        let mut buffer = [0; 16];
        let (length, from) =
            timeout(Duration::from_secs(10), endpoint.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], b"ask");
        endpoint.send_to(text, from).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_of_an_endpoint_that_is_gone_is_answered_by_another_at_once() {
        let bind = || async { UdpSocket::bind("127.0.0.1:0").await.unwrap() };
        let (front, one, two, client) = (bind().await, bind().await, bind().await, bind().await);
        client.connect(front.local_addr().unwrap()).await.unwrap();
        let first = vec![one.local_addr().unwrap()];
        let balancer: SharedBalancer = Arc::new(Mutex::new(Balancer::new(None, first)));
        let accepting = CancellationToken::new();
        let relaying = tokio::spawn(relay(front, Arc::clone(&balancer), accepting.clone()));
        let mut buffer = [0; 16];
        for (endpoint, text) in [(&one, b"one"), (&one, b"one"), (&two, b"two"), (&two, b"two")] {
            balancer.lock().unwrap().update(None, vec![endpoint.local_addr().unwrap()], None);
            client.send(b"ask").await.unwrap();
            answer(endpoint, text).await;
            let length = timeout(Duration::from_secs(10), client.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(&buffer[..length], text);
        }
        accepting.cancel();
        relaying.await.unwrap();
    }
}
