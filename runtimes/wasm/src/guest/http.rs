//! Serving an HTTP guest: the host listens, and makes an instance for each request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::closing;
use super::ending::bounded;
use super::memory::InstanceMemory;
use super::{ComponentGuest, Cpu, Grants, Meter, Sockets};
use crate::code::{Program, Ticking};

/// Bounds of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerLimits {
    /// From the first byte of a request's head to the end of its guest.
    pub(crate) request_timeout: Duration,
    /// Requests of one container at once; more wait.
    pub(crate) requests: usize,
    /// Connections of one container; more wait in the kernel's queue.
    pub(crate) connections: usize,
}

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Requests of one HTTP/2 connection at once. Source: the specification recommends no less than 100.
const STREAMS_PER_CONNECTION: u32 = 100;

/// How long a kept connection may be without a request once the container stops. A client that asks within it is
/// answered, and told that the connection ends; before that its next request may be on the way already.
const IDLE_AT_END: Duration = Duration::from_secs(1);

/// How long to wait when the machine has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A guest behind a listening socket.
pub(crate) struct HttpServer {
    program: Arc<Program>,
    grants: Grants,
    cpu: Arc<Cpu>,
    ticking: Ticking,
    limits: ServerLimits,
    /// Instances of all containers together: the slots of the pool.
    slots: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    address: SocketAddr,
    /// Guests of requests; they may go on after their response has begun.
    guests: TaskTracker,
    kill: CancellationToken,
}

impl HttpServer {
    pub(crate) fn new(
        program: Arc<Program>,
        grants: Grants,
        metering: (Arc<Cpu>, Ticking),
        slots: Arc<Semaphore>,
        limits: ServerLimits,
        address: SocketAddr,
    ) -> Arc<Self> {
        let (cpu, ticking) = metering;
        Arc::new(Self {
            program,
            grants,
            cpu,
            ticking,
            requests: Arc::new(Semaphore::new(limits.requests)),
            limits,
            slots,
            address,
            guests: TaskTracker::new(),
            kill: CancellationToken::new(),
        })
    }

    /// Accepts until `drain`, then lets requests end and kept connections run out; ends all at once at `kill`.
    ///
    /// *Cancellation*: dropping it closes the socket and all connections; guests end at their next epoch.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        drain: CancellationToken,
        kill: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(self.limits.connections));
        // Whatever way this ends, no guest outlives it.
        let _guests_end = self.kill.clone().drop_guard();
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = kill.cancelled() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let server = Arc::clone(&self);
                    connections.spawn(server.connection(stream, Some(permit), drain.clone(), kill.clone()));
                }
                Err(error) => {
                    tracing::warn!(address = %self.address, "cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        for stream in closing::close(listener).await {
            // The kernel's queue is short: these few may be more than `limits.connections`.
            connections.spawn(Arc::clone(&self).connection(stream, None, drain.clone(), kill.clone()));
        }
        connections.close();
        self.guests.close();
        tokio::select! {
            () = async { connections.wait().await; self.guests.wait().await } => {}
            () = kill.cancelled() => {}
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        _permit: Option<OwnedSemaphorePermit>,
        drain: CancellationToken,
        kill: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
        let is_http2 = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            let (server, drain) = (Arc::clone(&self), drain.clone());
            let has_one_stream = request.version() < Version::HTTP_2;
            is_http2.store(!has_one_stream, Ordering::Relaxed);
            async move {
                let mut response = server.respond(request).await;
                if has_one_stream && drain.is_cancelled() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = kill.cancelled() => return,
            () = drain.cancelled() => {}
        }
        // HTTP/2 says goodbye in a frame of its own. A connection of HTTP/1.1 that seems idle may carry a request that is
        // not here yet: closing it now would reset it.
        if !is_http2.load(Ordering::Relaxed) {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = kill.cancelled() => return,
                () = tokio::time::sleep(IDLE_AT_END) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = kill.cancelled() => {}
        }
    }

    /// The guest's response, or one that says what went wrong.
    async fn respond(&self, request: Request<Incoming>) -> Response<HyperOutgoingBody> {
        let what = format!("{} {}", request.method(), request.uri().path());
        match tokio::time::timeout(self.limits.request_timeout, self.handle(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => {
                self.grants.log.line(&format!("request {what}: {}", failure.why));
                plain(failure.status, failure.told)
            }
            Err(_) => {
                self.grants.log.line(&format!("request {what}: no response within the time limit"));
                plain(StatusCode::GATEWAY_TIMEOUT, "the guest did not respond in time\n")
            }
        }
    }

    async fn handle(&self, mut request: Request<Incoming>) -> Result<Response<HyperOutgoingBody>, Failure> {
        let Program::Http(program) = self.program.as_ref() else {
            return Err(Failure::guest("the guest is not an HTTP guest".to_owned()));
        };
        // An HTTP/1.0 client need not name the host; a guest always sees one.
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&self.address.to_string())
                .map_err(|error| Failure::guest(error.to_string()))?;
            request.headers_mut().insert(header::HOST, host);
        }
        let of_container =
            Arc::clone(&self.requests).acquire_owned().await.map_err(|_| Failure::closing())?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Failure::closing())?;
        let memory = self.grants.memory.room().await;
        let (sender, receiver) = oneshot::channel();
        let run = run_request(program.clone(), self.grants.clone(), memory, request, sender);
        let run = Meter::new(run, Arc::clone(&self.cpu), self.ticking.clone());
        let (kill, timeout) = (self.kill.clone(), self.limits.request_timeout);
        let guest = self.guests.spawn(async move {
            let _permits = (of_container, slot);
            tokio::select! {
                ended = run => ended,
                () = kill.cancelled() => Err("the container was stopped".to_owned()),
                () = tokio::time::sleep(timeout) => Err("the guest did not end in time".to_owned()),
            }
        });
        let guest = AbortOnDrop(Some(guest));
        match receiver.await {
            Ok(Ok(response)) => {
                // It may go on while its body is sent, and longer; how it ends is worth a line if it is bad.
                let log = Arc::clone(&self.grants.log);
                let ended = guest.detach();
                self.guests.spawn(async move {
                    if let Err(why) = flatten(ended).await {
                        log.line(&format!("guest failed after its response began: {why}"));
                    }
                });
                Ok(response)
            }
            Ok(Err(code)) => Err(Failure::guest(format!("the guest answered with an error: {code}"))),
            // The sender went away with the store: the guest ended without a response.
            Err(_) => {
                let why = match flatten(guest.detach()).await {
                    Ok(()) => "the guest ended without a response".to_owned(),
                    Err(why) => why,
                };
                Err(Failure::guest(why))
            }
        }
    }
}

/// A guest's task that ends when nobody waits for its response any more.
struct AbortOnDrop(Option<tokio::task::JoinHandle<Result<(), String>>>);

impl AbortOnDrop {
    fn detach(mut self) -> Option<tokio::task::JoinHandle<Result<(), String>>> {
        self.0.take()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

async fn flatten(task: Option<tokio::task::JoinHandle<Result<(), String>>>) -> Result<(), String> {
    match task {
        Some(task) => task.await.map_err(|error| format!("a fault in the host: {error}"))?,
        None => Ok(()),
    }
}

async fn run_request(
    program: ProxyPre<ComponentGuest>,
    grants: Grants,
    memory: InstanceMemory,
    request: Request<Incoming>,
    sender: oneshot::Sender<Result<Response<HyperOutgoingBody>, ErrorCode>>,
) -> Result<(), String> {
    let mut prepared = grants
        .component_store(program.engine(), Sockets::Denied, memory)
        .map_err(|error| format!("cannot start: {error:#}"))?;
    let store = &mut prepared.store;
    let run = async {
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let response = store.data_mut().http().new_response_outparam(sender)?;
        let instance = program.instantiate_async(&mut *store).await?;
        instance.wasi_http_incoming_handler().call_handle(&mut *store, request, response).await
    };
    match run.await {
        Ok(()) => Ok(()),
        Err(error) if prepared.refused.load(Ordering::Relaxed) => {
            let limit = grants.memory.limit_bytes().unwrap_or(0);
            Err(bounded(&format!("memory limit of {limit} bytes exceeded: {error:?}")))
        }
        Err(error) => Err(bounded(&format!("{error:?}"))),
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

struct Failure {
    status: StatusCode,
    /// For the container's log.
    why: String,
    /// For the client: nothing of the inside.
    told: &'static str,
}

impl Failure {
    fn guest(why: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, why, told: "the guest failed\n" }
    }

    fn closing() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            why: "the server is closing".to_owned(),
            told: "closing\n",
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
