//! A command's streams, or a container's: standard input and outputs, the error channel, terminal sizes.
//!
//! Source: `k8s.io/apimachinery/pkg/util/remotecommand`, protocol versions 4 and 5.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::channels::{channels, message, websocket};
use super::spdy::{self, Connection, Headers, Role, Stream};
use super::upgrade::Transport;
use super::{BoxRead, BoxWrite, CREATION_TIMEOUT, Error, IDLE_TIMEOUT, Io};

/// The protocol since Kubernetes 1.4: a `Status` on the error channel.
pub const V4: &str = "v4.channel.k8s.io";
/// The protocol since Kubernetes 1.30: over WebSocket too, the end of standard input can be told.
pub const V5: &str = "v5.channel.k8s.io";

/// What is spoken over a transport.
pub fn protocols(transport: Transport) -> &'static [&'static str] {
    match transport {
        Transport::WebSocket => &[V5, V4],
        Transport::Spdy => &[V4],
    }
}

/// The largest `Status` of a runtime that is passed on, in bytes.
const MAX_STATUS_BYTES: u64 = 64 * 1024;
/// What was written at the end has so long to reach the client.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;
const ERROR: usize = 3;
const RESIZE: usize = 4;
/// Names of the streams over SPDY; their numbers over WebSocket are their places here.
const NAMES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; never with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Options {
    /// Checks them as Kubernetes does: some stream must be wanted, and a terminal has one output.
    ///
    /// # Errors
    /// No stream is wanted.
    pub fn checked(self) -> Result<Self, &'static str> {
        if !(self.stdin || self.stdout || self.stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        Ok(Self { stderr: self.stderr && !self.tty, ..self })
    }

    fn wants(self, stream: usize) -> bool {
        match stream {
            STDIN => self.stdin,
            STDOUT => self.stdout,
            STDERR => self.stderr,
            RESIZE => self.tty,
            _ => true,
        }
    }
}

/// The streams of a session, those that are wanted.
#[derive(Default)]
pub struct Streams {
    /// What the client types.
    pub stdin: Option<BoxRead>,
    /// What it is shown.
    pub stdout: Option<BoxWrite>,
    /// What it is shown beside that.
    pub stderr: Option<BoxWrite>,
    /// Sizes of its terminal; see [`super::terminal::Sizes`].
    pub resize: Option<BoxRead>,
}

/// Serves one session on an upgraded connection: `run` does the work and answers what the error channel says at the end.
///
/// *Cancellation*: `run` is dropped when the client goes, and when this future is.
///
/// # Errors
/// The client broke the protocol, or its connection broke.
pub async fn serve<T: Io, F>(
    io: T,
    transport: Transport,
    options: Options,
    run: impl FnOnce(Streams) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Vec<u8>>,
{
    match transport {
        Transport::WebSocket => serve_websocket(io, options, run).await,
        Transport::Spdy => serve_spdy(io, options, run).await,
    }
}

async fn serve_websocket<T: Io, F>(
    io: T,
    options: Options,
    run: impl FnOnce(Streams) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Vec<u8>>,
{
    // An empty message on the lowest output says that the session stands.
    let lowest = [STDOUT, STDERR].into_iter().find(|stream| options.wants(*stream)).unwrap_or(ERROR);
    let first = vec![message(u8::try_from(lowest).unwrap_or(0), b"")];
    let count = u8::try_from(NAMES.len()).unwrap_or(0);
    let (ends, driver) = channels(websocket(io).await, count, first);
    let session = async move {
        let mut ends: Vec<Option<DuplexStream>> = ends.into_iter().map(Some).collect();
        let mut take =
            |stream: usize| ends.get_mut(stream).and_then(Option::take).filter(|_| options.wants(stream));
        let streams = Streams {
            stdin: take(STDIN).map(|end| Box::new(end) as BoxRead),
            stdout: take(STDOUT).map(|end| Box::new(end) as BoxWrite),
            stderr: take(STDERR).map(|end| Box::new(end) as BoxWrite),
            resize: take(RESIZE).map(|end| Box::new(end) as BoxRead),
        };
        let error = take(ERROR);
        let status = run(streams).await;
        if let Some(mut error) = error {
            let _ = error.write_all(&status).await;
        }
    };
    tokio::pin!(driver, session);
    tokio::select! {
        ended = &mut driver => ended,
        () = &mut session => timeout(FLUSH_TIMEOUT, driver).await.unwrap_or(Ok(())),
    }
}

async fn serve_spdy<T: Io, F>(io: T, options: Options, run: impl FnOnce(Streams) -> F) -> Result<(), Error>
where
    F: Future<Output = Vec<u8>>,
{
    let (connection, driver) = spdy::connect(io, Role::Server, IDLE_TIMEOUT)?;
    let session = async {
        let accepted = timeout(CREATION_TIMEOUT, accept(&connection, options)).await;
        let (streams, mut error) = accepted.map_err(|_| Error::Creation)??;
        let status = run(streams).await;
        error.write_all(&status).await?;
        error.shutdown().await?;
        connection.close();
        Ok(())
    };
    let driver = driver.run();
    tokio::pin!(driver, session);
    tokio::select! {
        ended = &mut driver => Ok(ended?),
        ended = &mut session => {
            connection.close();
            let _ = timeout(FLUSH_TIMEOUT, driver).await;
            ended
        }
    }
}

/// The streams that the client opens, whatever their order.
async fn accept(connection: &Connection, options: Options) -> Result<(Streams, Stream), Error> {
    let mut got: [Option<Stream>; NAMES.len()] = Default::default();
    while (0..NAMES.len()).any(|stream| options.wants(stream) && got[stream].is_none()) {
        let offer = connection.accept().await.ok_or(spdy::Error::Closed)?;
        let kind = offer.headers().get("streamtype").unwrap_or_default();
        // What is not wanted, and what there is already, is refused by being dropped.
        if let Some(place) = NAMES.iter().position(|name| *name == kind)
            && options.wants(place)
            && got[place].is_none()
        {
            got[place] = Some(offer.accept());
        }
    }
    let [stdin, stdout, stderr, error, resize] = got;
    let error = error.ok_or(spdy::Error::Closed)?;
    let streams = Streams {
        stdin: stdin.map(|stream| Box::new(stream) as BoxRead),
        stdout: stdout.map(|stream| Box::new(stream) as BoxWrite),
        stderr: stderr.map(|stream| Box::new(stream) as BoxWrite),
        resize: resize.map(|stream| Box::new(stream) as BoxRead),
    };
    Ok((streams, error))
}

/// Asks a streaming server over an upgraded SPDY connection, and connects its streams with `streams`; answers what its error
/// channel said.
///
/// # Errors
/// The connection broke before the end.
pub async fn request<T: Io>(io: T, options: Options, streams: Streams) -> Result<Vec<u8>, Error> {
    let (connection, driver) = spdy::connect(io, Role::Client, IDLE_TIMEOUT)?;
    let session = async {
        let status = converse(&connection, options, streams).await;
        connection.close();
        status
    };
    let driver = driver.run();
    tokio::pin!(driver, session);
    tokio::select! {
        status = &mut session => {
            let _ = timeout(FLUSH_TIMEOUT, driver).await;
            status
        }
        // What has come may not have been passed on yet.
        _ = &mut driver => session.await,
    }
}

async fn converse(connection: &Connection, options: Options, streams: Streams) -> Result<Vec<u8>, Error> {
    let open = async |stream: usize| -> Result<Option<Stream>, Error> {
        if !options.wants(stream) {
            return Ok(None);
        }
        let opened = connection.open(Headers::new([("streamtype", NAMES[stream])]));
        Ok(Some(timeout(CREATION_TIMEOUT, opened).await.map_err(|_| Error::Creation)??))
    };
    // Error first: the order of Kubernetes' clients.
    let error = open(ERROR).await?;
    let (stdin, stdout) = (open(STDIN).await?, open(STDOUT).await?);
    let (stderr, resize) = (open(STDERR).await?, open(RESIZE).await?);
    let status = async {
        let mut status = Vec::new();
        if let Some(error) = error {
            error.take(MAX_STATUS_BYTES).read_to_end(&mut status).await?;
        }
        Ok::<_, Error>(status)
    };
    let outputs = async {
        let ((), (), status) =
            tokio::join!(pass(stdout, streams.stdout), pass(stderr, streams.stderr), status);
        status
    };
    let inputs = async {
        tokio::join!(pass_kept(streams.stdin, stdin), pass_kept(streams.resize, resize));
    };
    tokio::select! {
        status = outputs => status,
        () = inputs => unreachable_end().await,
    }
}

/// Inputs never end a session.
async fn unreachable_end<T>() -> T {
    std::future::pending().await
}

/// Copies to the end of `from`, and tells `to`.
async fn pass(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // Either side may go before the other; how the session ends is said elsewhere.
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

/// The same for an input: what it goes to is kept open for as long as the session, because dropping it would be a reset.
async fn pass_kept(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        unreachable_end::<()>().await;
    }
    unreachable_end::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::status;
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

    const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

    /// Echoes its input, complains, and ends with 7.
    async fn echo(mut streams: Streams) -> Vec<u8> {
        let mut stdout = streams.stdout.take().unwrap();
        tokio::io::copy(&mut streams.stdin.take().unwrap(), &mut stdout).await.unwrap();
        streams.stderr.take().unwrap().write_all(b"done").await.unwrap();
        status::to_bytes(&status::of_exit_code(7))
    }

    fn ends() -> (Streams, DuplexStream, DuplexStream, DuplexStream) {
        let [(i, input), (o, output), (e, errors)] = [(); 3].map(|()| tokio::io::duplex(1 << 20));
        let streams = Streams {
            stdin: Some(Box::new(i)),
            stdout: Some(Box::new(o)),
            stderr: Some(Box::new(e)),
            resize: None,
        };
        (streams, input, output, errors)
    }

    #[tokio::test]
    async fn a_session_over_spdy_carries_all_streams_and_the_status() {
        let (near, far) = tokio::io::duplex(4096);
        let (streams, mut input, mut output, mut errors) = ends();
        let sent = vec![b'x'; 700_000];
        let talk = async {
            input.write_all(&sent).await.unwrap();
            input.shutdown().await.unwrap();
            let (mut out, mut err) = (Vec::new(), String::new());
            output.read_to_end(&mut out).await.unwrap();
            errors.read_to_string(&mut err).await.unwrap();
            (out, err)
        };
        let (served, status, (out, err)) =
            tokio::join!(serve(far, Transport::Spdy, ALL, echo), request(near, ALL, streams), talk);
        served.unwrap();
        assert!(out == sent);
        assert_eq!(err, "done");
        assert!(String::from_utf8(status.unwrap()).unwrap().contains("NonZeroExitCode"));
    }

    #[tokio::test]
    async fn a_session_over_websocket_ends_its_input_by_the_signal_of_version_5() {
        let (near, far) = tokio::io::duplex(4096);
        let client = async {
            let mut client = WebSocketStream::from_raw_socket(near, WsRole::Client, None).await;
            assert_eq!(client.next().await.unwrap().unwrap(), message(1, b""));
            client.send(message(0, b"hello")).await.unwrap();
            client.send(message(255, &[0])).await.unwrap();
            let mut seen: [Vec<u8>; 5] = Default::default();
            while let Some(Ok(got)) = client.next().await {
                let got = got.into_data();
                if let Some((number @ 0..5, bytes)) = got.split_first() {
                    seen[usize::from(*number)].extend_from_slice(bytes);
                }
            }
            seen
        };
        let (served, seen) = tokio::join!(serve(far, Transport::WebSocket, ALL, echo), client);
        served.unwrap();
        assert_eq!((&seen[1][..], &seen[2][..]), (&b"hello"[..], &b"done"[..]));
        assert!(String::from_utf8_lossy(&seen[3]).contains("exit status 7"));
    }

    #[tokio::test]
    async fn a_client_that_goes_takes_its_session_along() {
        for transport in [Transport::Spdy, Transport::WebSocket] {
            let (near, far) = tokio::io::duplex(4096);
            let only_out = Options { stdout: true, ..Options::default() };
            let forever = |_| std::future::pending::<Vec<u8>>();
            let serving = serve(far, transport, only_out, forever);
            let going = async {
                tokio::task::yield_now().await;
                drop(near);
            };
            let (served, ()) = tokio::join!(serving, going);
            let _ = served;
        }
    }

    #[test]
    fn options_are_checked_as_kubernetes_does() {
        assert!(Options { tty: true, ..Options::default() }.checked().is_err());
        let terminal = Options { stdout: true, stderr: true, tty: true, stdin: true };
        assert!(!terminal.checked().unwrap().stderr);
    }
}
