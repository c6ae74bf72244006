//! Forwarded ports: over SPDY each TCP connection is a pair of streams, one for data, one for what went wrong.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::channels::{channels, websocket};
use super::spdy::{self, Connection, Headers, Offer, Role, Stream};
use super::{CREATION_TIMEOUT, Error, IDLE_TIMEOUT, Io, tunnel};

/// The protocol over SPDY.
pub const V1: &str = "portforward.k8s.io";
/// SPDY inside a WebSocket: kubectl's way since 1.31. Both names mean the same.
pub const TUNNELLED: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"];
/// Channels over a WebSocket, two for each port: the way of the Python client. Not for kubectl.
pub const CHANNELS: &str = "v4.channel.k8s.io";
/// Ports of one request by channels. Two channels each, and numbers of channels are bytes.
pub const MAX_PORTS: usize = 120;

/// Pairs of which one stream has not come yet.
const MAX_HALVES: usize = 256;
/// How often halves without partner are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// What was written at the end has so long to reach the client.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest message of an error stream that is passed on, in bytes.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// One TCP connection to be.
struct Pair {
    port: u16,
    since: Instant,
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves a client's connections until it goes: `forward` connects a data stream with a port.
///
/// *Cancellation*: all connections end when the client goes, and when this future is dropped.
///
/// # Errors
/// The client broke the protocol, or its connection broke.
pub async fn serve<T: Io, F>(io: T, pod: &str, forward: impl Fn(u16, Stream) -> F + Send) -> Result<(), Error>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (connection, driver) = spdy::connect(io, Role::Server, IDLE_TIMEOUT)?;
    let session = accept_pairs(&connection, pod, forward);
    tokio::select! {
        ended = driver.run() => Ok(ended?),
        () = session => Ok(()),
    }
}

async fn accept_pairs<F>(connection: &Connection, pod: &str, forward: impl Fn(u16, Stream) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut halves: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let offer = tokio::select! {
            offer = connection.accept() => offer,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = sweep.tick() => {
                halves.retain(|_, pair| pair.since.elapsed() < CREATION_TIMEOUT);
                continue;
            }
        };
        let Some(offer) = offer else { break };
        let Some(Pair { port, data: Some(data), error: Some(mut error), .. }) = paired(&mut halves, offer)
        else {
            continue;
        };
        let forwarding = forward(port, data);
        let pod = pod.to_owned();
        connections.spawn(async move {
            if let Err(why) = forwarding.await {
                let text = format!("error forwarding port {port} to pod {pod}, uid : {why}");
                let _ = error.write_all(text.as_bytes()).await;
            }
            let _ = error.shutdown().await;
            let _ = error.flush().await;
        });
    }
    // The driver has ended, and the streams with it.
    connections.join_all().await;
}

/// Puts a stream to its partner; answers the pair when it is whole.
fn paired(halves: &mut HashMap<String, Pair>, offer: Offer) -> Option<Pair> {
    let headers = offer.headers();
    let port: u16 = headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
    let id = headers.get("requestid")?.to_owned();
    let is_data = match headers.get("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    if !halves.contains_key(&id) && halves.len() >= MAX_HALVES {
        return None;
    }
    let since = Instant::now();
    let pair = halves.entry(id.clone()).or_insert(Pair { port, since, data: None, error: None });
    let place = if is_data { &mut pair.data } else { &mut pair.error };
    if place.is_some() || pair.port != port {
        return None;
    }
    *place = Some(offer.accept());
    if pair.data.is_some() && pair.error.is_some() { halves.remove(&id) } else { None }
}

/// Connects a data stream with a local TCP connection until both directions have ended.
///
/// # Errors
/// The port cannot be connected to, in Go's words.
pub async fn forward_tcp(address: std::net::SocketAddr, stream: Stream) -> Result<(), String> {
    let network = if address.is_ipv4() { "tcp4" } else { "tcp6" };
    let connected = timeout(CREATION_TIMEOUT, tokio::net::TcpStream::connect(address)).await;
    let tcp = match connected {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                _ => error.to_string(),
            };
            return Err(format!("dial {network} {address}: {why}"));
        }
        Err(_) => return Err(format!("dial {network} {address}: i/o timeout")),
    };
    let _ = tcp.set_nodelay(true);
    // Either side may break off whenever it likes; that is no failure of the forwarding.
    let _ = tunnel::both_ways(tcp, stream, IDLE_TIMEOUT).await;
    Ok(())
}

/// Serves the channels of a WebSocket by a streaming server's SPDY connection: one connection for each port.
///
/// # Errors
/// Either connection broke.
pub async fn translate_channels<A: Io, B: Io>(client: A, server: B, ports: &[u16]) -> Result<(), Error> {
    let (connection, driver) = spdy::connect(server, Role::Client, IDLE_TIMEOUT)?;
    let count = u8::try_from(ports.len() * 2).unwrap_or(u8::MAX - 1);
    let (ends, channels) = channels(websocket(client).await, count, Vec::new());
    let session = async {
        let mut ends = ends.into_iter();
        let mut ports_served = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let (Some(data), Some(error)) = (ends.next(), ends.next()) else { break };
            ports_served.push(translate_port(&connection, number, *port, data, error));
        }
        for ended in futures::future::join_all(ports_served).await {
            ended?;
        }
        Ok::<_, Error>(())
    };
    let driver = driver.run();
    tokio::pin!(channels, session, driver);
    tokio::select! {
        ended = &mut channels => ended,
        ended = &mut driver => Ok(ended?),
        ended = &mut session => {
            connection.close();
            let _ = timeout(FLUSH_TIMEOUT, channels).await;
            ended
        }
    }
}

async fn translate_port(
    connection: &Connection,
    number: usize,
    port: u16,
    mut data: DuplexStream,
    mut error: DuplexStream,
) -> Result<(), Error> {
    // The first bytes of each channel are its port.
    data.write_all(&port.to_le_bytes()).await?;
    error.write_all(&port.to_le_bytes()).await?;
    let (text, id) = (port.to_string(), number.to_string());
    let headers =
        |kind| Headers::new([("streamtype", kind), ("port", text.as_str()), ("requestid", id.as_str())]);
    let mut errors = connection.open(headers("error")).await?;
    errors.shutdown().await?;
    let stream = connection.open(headers("data")).await?;
    let moving = tunnel::both_ways(data, stream, IDLE_TIMEOUT);
    let complaining = async {
        let mut message = Vec::new();
        let _ = errors.take(MAX_MESSAGE_BYTES).read_to_end(&mut message).await;
        let _ = error.write_all(&message).await;
    };
    let (moved, ()) = tokio::join!(moving, complaining);
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn opened(connection: &Connection, id: &str, port: u16) -> (Stream, Stream) {
        let text = port.to_string();
        let headers = |kind| Headers::new([("streamType", kind), ("port", text.as_str()), ("requestID", id)]);
        let error = connection.open(headers("error")).await.unwrap();
        (connection.open(headers("data")).await.unwrap(), error)
    }

    #[tokio::test]
    async fn connections_are_forwarded_side_by_side_and_a_closed_port_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut got = Vec::new();
                tcp.read_to_end(&mut got).await.unwrap();
                tcp.write_all(&got).await.unwrap();
            }
        });
        let (near, far) = tokio::io::duplex(4096);
        tasks.spawn(async move {
            let forward =
                move |port: u16, stream| forward_tcp(std::net::SocketAddr::new(address.ip(), port), stream);
            serve(far, "p", forward).await.unwrap();
        });
        let (client, driver) = spdy::connect(near, Role::Client, IDLE_TIMEOUT).unwrap();
        tasks.spawn(async move { driver.run().await.unwrap() });
        let mut streams = Vec::new();
        for number in 0..20 {
            streams.push(opened(&client, &number.to_string(), address.port()).await);
        }
        for (number, (data, error)) in streams.iter_mut().enumerate() {
            let sent = vec![u8::try_from(number).unwrap(); 50_000];
            data.write_all(&sent).await.unwrap();
            data.shutdown().await.unwrap();
            let (mut got, mut complaint) = (Vec::new(), String::new());
            data.read_to_end(&mut got).await.unwrap();
            error.read_to_string(&mut complaint).await.unwrap();
            assert!(got == sent && complaint.is_empty(), "{complaint}");
        }
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (_data, mut error) = opened(&client, "closed", unused).await;
        let mut complaint = String::new();
        error.read_to_string(&mut complaint).await.unwrap();
        assert_eq!(
            complaint,
            format!(
                "error forwarding port {unused} to pod p, uid : dial tcp4 127.0.0.1:{unused}: connect: connection refused"
            )
        );
        client.close();
    }
}
