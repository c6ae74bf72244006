//! A connection: a handle for whoever opens and accepts streams, and the driver that moves its bytes.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::Decoder;
use super::state::Shared;
use super::{Error, Headers, Role, Stream};

/// Read at once, in bytes.
const READ_BYTES: usize = 32 * 1024;
/// A peer that was told goodbye has so long to read it and to close its end.
const LINGER: Duration = Duration::from_secs(2);

/// Takes over a connection. Nothing happens on it until the driver runs.
///
/// # Errors
/// The compressor cannot be made.
pub fn connect<T>(io: T, role: Role, idle: Duration) -> Result<(Connection, Driver<T>), Error>
where
    T: AsyncRead + AsyncWrite + Send,
{
    let shared = Arc::new(Shared::new(role)?);
    let end = End(Arc::clone(&shared));
    Ok((Connection { shared }, Driver { io, idle, end }))
}

/// A handle on a connection. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    /// Opens a stream and waits until the peer has accepted it.
    ///
    /// # Errors
    /// The connection has ended, or the peer refuses.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let id = self.shared.lock().open(headers)?;
        let stream = Stream::new(Arc::clone(&self.shared), id);
        poll_fn(|cx| self.shared.lock().poll_reply(id, cx)).await?;
        Ok(stream)
    }

    /// The next stream that the peer opens; `None` when there will be none.
    pub async fn accept(&self) -> Option<Offer> {
        let (id, headers) = poll_fn(|cx| self.shared.lock().poll_offer(cx)).await?;
        Some(Offer { shared: Arc::clone(&self.shared), id, headers, is_taken: false })
    }

    /// Says goodbye. What was written before is sent still; then the driver ends.
    pub fn close(&self) {
        self.shared.lock().close();
    }
}

/// A stream that the peer has opened. Refused if it is dropped.
#[derive(Debug)]
pub struct Offer {
    shared: Arc<Shared>,
    id: u32,
    headers: Headers,
    is_taken: bool,
}

impl Offer {
    /// What the peer says of it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Takes it.
    pub fn accept(mut self) -> Stream {
        self.is_taken = true;
        self.shared.lock().accept(self.id);
        Stream::new(Arc::clone(&self.shared), self.id)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.is_taken {
            self.shared.lock().refuse(self.id);
        }
    }
}

/// Whatever way the driver ends, its streams end with it.
#[derive(Debug)]
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}

/// Moves the bytes of a connection.
#[derive(Debug)]
pub struct Driver<T> {
    io: T,
    idle: Duration,
    end: End,
}

impl<T: AsyncRead + AsyncWrite + Send> Driver<T> {
    /// Runs the connection to its end.
    ///
    /// *Cancellation*: dropping the future drops the connection; streams see it as broken.
    ///
    /// # Errors
    /// The connection broke, the peer does not keep to the protocol, or nothing has come or gone for the idle time.
    pub async fn run(self) -> Result<(), Error> {
        let Self { io, idle, end } = self;
        let shared = &end.0;
        let (read, write) = tokio::io::split(io);
        let (reading, writing) = (read_frames(read, shared), write_frames(write, shared));
        tokio::pin!(reading, writing);
        tokio::select! {
            ended = &mut reading => {
                // What waits to be sent may still be wanted: a peer may close one direction first.
                shared.lock().end();
                let _ = timeout(LINGER, writing).await;
                ended
            }
            ended = &mut writing => {
                // Closing with unread bytes would take from the peer what it has not read yet.
                let _ = timeout(LINGER, reading).await;
                ended
            }
            () = idling(shared, idle) => Err(Error::Idle(idle)),
        }
    }
}

async fn read_frames(mut from: impl AsyncRead + Unpin, shared: &Shared) -> Result<(), Error> {
    let (mut decoder, mut bytes) = (Decoder::default(), BytesMut::with_capacity(READ_BYTES));
    loop {
        while let Some(frame) = decoder.decode(&mut bytes)? {
            shared.lock().handle(frame)?;
            poll_fn(|cx| shared.lock().poll_room(cx)).await;
        }
        bytes.reserve(READ_BYTES);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

async fn write_frames(mut to: impl AsyncWrite + Unpin, shared: &Shared) -> Result<(), Error> {
    while let Some(bytes) = poll_fn(|cx| shared.lock().poll_outgoing(cx)).await {
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await?;
    Ok(())
}

async fn idling(shared: &Shared, idle: Duration) {
    loop {
        let until = shared.lock().last_active() + idle;
        if until <= tokio::time::Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// Two ends of one connection, both driven.
    fn pair(tasks: &mut JoinSet<Result<(), Error>>) -> (Connection, Connection) {
        let (one, two) = tokio::io::duplex(4096);
        let (client, driver) = connect(one, Role::Client, IDLE).unwrap();
        tasks.spawn(driver.run());
        let (server, driver) = connect(two, Role::Server, IDLE).unwrap();
        tasks.spawn(driver.run());
        (client, server)
    }

    #[tokio::test]
    async fn streams_carry_any_amount_both_ways_and_end_one_half_at_a_time() {
        let mut tasks = JoinSet::new();
        let (client, server) = pair(&mut tasks);
        let accepting = async { server.accept().await.unwrap().accept() };
        let (near, far) = tokio::join!(client.open(Headers::new([("n", "1")])), accepting);
        let (mut near, mut far) = (near.unwrap(), far);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let echo = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let asking = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut got = Vec::new();
            near.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(echo, asking);
        assert!(got == sent);
        assert!(near.write_all(b"x").await.is_err());
        client.close();
        server.close();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_does_not_hold_up_another() {
        let mut tasks = JoinSet::new();
        let (client, server) = pair(&mut tasks);
        let accept = || async { server.accept().await.unwrap().accept() };
        let (stuck, _unread) = tokio::join!(client.open(Headers::default()), accept());
        let (live, mut read) = tokio::join!(client.open(Headers::default()), accept());
        let (mut stuck, mut live) = (stuck.unwrap(), live.unwrap());
        let flood = async { stuck.write_all(&vec![0; 2_000_000]).await };
        let talk = async {
            let mut buffer = vec![0; 600_000];
            let (written, got) = tokio::join!(live.write_all(&[7; 600_000]), read.read_exact(&mut buffer));
            written.unwrap();
            got.unwrap();
        };
        tokio::select! {
            _ = flood => panic!("nobody has read it"),
            () = talk => {}
        }
    }

    #[tokio::test]
    async fn a_refused_stream_and_a_broken_connection_are_errors_and_never_hang() {
        let mut tasks = JoinSet::new();
        let (client, server) = pair(&mut tasks);
        let (refused, ()) = tokio::join!(client.open(Headers::default()), async {
            drop(server.accept().await.unwrap());
        });
        assert!(refused.is_err());
        let accept = async { server.accept().await.unwrap().accept() };
        let (near, far) = tokio::join!(client.open(Headers::default()), accept);
        let mut near = near.unwrap();
        drop(far);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0, "a reset is an end");
        let accept = async { server.accept().await.unwrap().accept() };
        let (near, _far) = tokio::join!(client.open(Headers::default()), accept);
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        assert!(near.unwrap().read(&mut [0; 8]).await.is_err());
        assert!(server.accept().await.is_none());
        assert!(matches!(client.open(Headers::default()).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn an_idle_connection_ends() {
        let (one, _two) = tokio::io::duplex(64);
        let (_client, driver) = connect(one, Role::Client, Duration::from_millis(20)).unwrap();
        assert!(matches!(driver.run().await, Err(Error::Idle(_))));
    }

    #[tokio::test]
    async fn a_peer_without_flow_control_is_written_to_without_windows_and_pings_come_back() {
        use super::super::frame::{Frame, FrameEncoder, encode};
        let (one, mut two) = tokio::io::duplex(64 * 1024);
        let (server, driver) = connect(one, Role::Server, IDLE).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let (mut encoder, mut bytes) = (FrameEncoder::new().unwrap(), BytesMut::new());
        let syn = Frame::SynStream { id: 1, headers: Headers::default(), fin: false, unidirectional: false };
        encode(&syn, &mut encoder, &mut bytes).unwrap();
        encode(&Frame::Ping { id: 1 }, &mut encoder, &mut bytes).unwrap();
        two.write_all(&bytes).await.unwrap();
        let mut stream = server.accept().await.unwrap().accept();
        let write = async {
            stream.write_all(&[1; 500_000]).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let read = async {
            let (mut decoder, mut from) = (Decoder::default(), BytesMut::new());
            let (mut length, mut pongs) = (0, 0);
            loop {
                while let Some(frame) = decoder.decode(&mut from).unwrap() {
                    match frame {
                        Frame::Data { fin: true, .. } => return (length, pongs),
                        Frame::Data { bytes, .. } => length += bytes.len(),
                        Frame::Ping { id: 1 } => pongs += 1,
                        _ => {}
                    }
                }
                two.read_buf(&mut from).await.unwrap();
            }
        };
        let ((), seen) = tokio::join!(write, read);
        assert_eq!(seen, (500_000, 1));
    }
}
