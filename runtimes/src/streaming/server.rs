//! The streaming server of a runtime: each prepared request has a URL with a token that nobody can guess and that is
//! good once.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming` (`request_cache.go`, `server.go`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::remote_command::{self, Options, Streams};
use super::spdy::Stream;
use super::upgrade::{self, Transport};
use super::{Error, port_forward, status};
use crate::{AttachRequest, ExecRequest, PortForwardRequest};

/// A prepared request is good for so long. Source: `cacheTTL`.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Prepared requests at once. Source: `maxInFlight`.
const MAX_PREPARED: usize = 1000;
/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// A client takes no longer for its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a runtime does with streams.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs a command to its end; answers its exit code, or why it could not be run.
    async fn exec(&self, request: &ExecRequest, streams: Streams) -> Result<i32, String>;
    /// Attaches to a container until it ends.
    async fn attach(&self, request: &AttachRequest, streams: Streams) -> Result<(), String>;
    /// Connects a stream with a port of a sandbox.
    async fn port_forward(&self, pod_sandbox_id: &str, port: u16, stream: Stream) -> Result<(), String>;
}

/// What a token stands for.
#[derive(Debug)]
enum Prepared {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

impl Prepared {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// A streaming server on a loopback port of its own.
pub struct StreamingServer {
    address: SocketAddr,
    prepared: Mutex<HashMap<String, (Instant, Prepared)>>,
    handler: Arc<dyn Handler>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for StreamingServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamingServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl StreamingServer {
    /// Listens on a free port of 127.0.0.1 and serves until `shutdown`. Called within an async runtime; what it spawns is
    /// among `tasks`.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(
        handler: Arc<dyn Handler>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> std::io::Result<Arc<Self>> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let server =
            Arc::new(Self { address, prepared: Mutex::default(), handler, tasks: tasks.clone(), shutdown });
        tasks.spawn(Arc::clone(&server).accept(listener));
        Ok(server)
    }

    /// The URL of a command.
    ///
    /// # Errors
    /// Too many requests wait for their client, or no stream is wanted.
    pub fn exec(&self, request: &ExecRequest) -> crate::Result<String> {
        checked(request.stdin, request.stdout, request.stderr, request.tty)?;
        self.prepare(Prepared::Exec(request.clone()))
    }

    /// The URL of an attachment.
    ///
    /// # Errors
    /// As for [`Self::exec`].
    pub fn attach(&self, request: &AttachRequest) -> crate::Result<String> {
        checked(request.stdin, request.stdout, request.stderr, request.tty)?;
        self.prepare(Prepared::Attach(request.clone()))
    }

    /// The URL of forwarded ports.
    ///
    /// # Errors
    /// Too many requests wait for their client.
    pub fn port_forward(&self, request: &PortForwardRequest) -> crate::Result<String> {
        self.prepare(Prepared::PortForward(request.clone()))
    }

    fn prepare(&self, prepared: Prepared) -> crate::Result<String> {
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let url = format!("http://{}/{}/{token}", self.address, prepared.kind());
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (since, _)| since.elapsed() < TOKEN_LIFE);
        if all.len() >= MAX_PREPARED {
            let text = "maximum number of in-flight requests exceeded".to_owned();
            return Err(crate::Error::ResourceExhausted(text));
        }
        all.insert(token, (Instant::now(), prepared));
        Ok(url)
    }

    /// What a path's token stands for; never twice.
    fn take(&self, path: &str) -> Option<Prepared> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, prepared) = all.remove(token)?;
        (since.elapsed() < TOKEN_LIFE && prepared.kind() == kind).then_some(prepared)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let server = Arc::clone(&self);
            self.tasks.spawn(async move {
                let shutdown = server.shutdown.clone();
                shutdown.run_until_cancelled(server.connection(stream)).await;
                drop(place);
            });
        }
    }

    /// Requests of a connection, until one of them becomes a stream.
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (sender, mut session) = tokio::sync::mpsc::channel(1);
        let service = service_fn(|mut request: Request<Incoming>| {
            let (answer, granted) = self.answer(&request);
            if let Some(granted) = granted {
                // There is room: a connection that was upgraded has no second request.
                let _ = sender.try_send((granted, hyper::upgrade::on(&mut request)));
            }
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a streaming connection broke");
            return;
        }
        let Ok((granted, upgrade)) = session.try_recv() else { return };
        let Ok(upgraded) = upgrade.await else { return };
        if let Err(error) = self.run(granted, TokioIo::new(upgraded)).await {
            tracing::debug!(%error, "a stream broke");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> (Response<Full<Bytes>>, Option<Granted>) {
        let Some(prepared) = self.take(request.uri().path()) else {
            return (plain(StatusCode::NOT_FOUND, "404 page not found"), None);
        };
        match grant(request, prepared) {
            Ok((answer, granted)) => (answer, Some(granted)),
            Err(error) => (plain(upgrade::refusal_code(&error), &error.to_string()), None),
        }
    }

    async fn run(&self, granted: Granted, io: TokioIo<hyper::upgrade::Upgraded>) -> Result<(), Error> {
        let Granted { transport, prepared } = granted;
        match prepared {
            Prepared::Exec(request) => {
                let options = Options {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    tty: request.tty,
                };
                remote_command::serve(io, transport, options, async |streams| {
                    let ended = self.handler.exec(&request, streams).await;
                    status::to_bytes(&ended.map_or_else(status::of_failure, status::of_exit_code))
                })
                .await
            }
            Prepared::Attach(request) => {
                let options = Options {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    tty: request.tty,
                };
                remote_command::serve(io, transport, options, async |streams| {
                    let ended = self.handler.attach(&request, streams).await;
                    let status = ended.map(|()| status::of_exit_code(0));
                    status::to_bytes(&status.unwrap_or_else(status::of_failed_attachment))
                })
                .await
            }
            Prepared::PortForward(request) => {
                let (handler, sandbox) = (Arc::clone(&self.handler), request.pod_sandbox_id.clone());
                port_forward::serve(io, &request.pod_sandbox_id, move |port, stream| {
                    let (handler, sandbox) = (Arc::clone(&handler), sandbox.clone());
                    async move { handler.port_forward(&sandbox, port, stream).await }
                })
                .await
            }
        }
    }
}

/// A request whose upgrade was granted.
struct Granted {
    transport: Transport,
    prepared: Prepared,
}

fn grant(request: &Request<Incoming>, prepared: Prepared) -> Result<(Response<Full<Bytes>>, Granted), Error> {
    let headers = request.headers();
    let transport = upgrade::requested(headers)
        .ok_or_else(|| Error::Upgrade("missing upgrade headers in request".to_owned()))?;
    let ours: &[&str] = match (&prepared, transport) {
        (Prepared::PortForward(_), Transport::Spdy) => &[port_forward::V1],
        (Prepared::PortForward(_), Transport::WebSocket) => {
            return Err(Error::Upgrade("ports are forwarded over SPDY".to_owned()));
        }
        (_, transport) => remote_command::protocols(transport),
    };
    let protocol = upgrade::negotiate(headers, transport, ours)?;
    let answer = upgrade::granted(headers, transport, &protocol)?;
    Ok((answer, Granted { transport, prepared }))
}

fn checked(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> crate::Result<()> {
    if tty && stderr {
        let text = "tty and stderr cannot both be true".to_owned();
        return Err(crate::Error::InvalidArgument(text));
    }
    let options = Options { stdin, stdout, stderr, tty };
    options.checked().map(drop).map_err(|why| crate::Error::InvalidArgument(why.to_owned()))
}

fn plain(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
