//! `/exec`, `/attach`, `/portForward`, `/run`: streams between a client and a runtime.
//!
//! The runtime prepares the stream and answers a URL; the client's connection is joined with it. SPDY goes through as
//! bytes; a WebSocket is translated to SPDY, which is all that containerd's server is asked for.
//!
//! Source: `k8s.io/kubernetes/pkg/kubelet/server/server.go`, `pkg/kubelet/kubelet_pods.go`.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wherry_runtimes::streaming::channels::websocket;
use wherry_runtimes::streaming::dial::{self, Answer, Target};
use wherry_runtimes::streaming::remote_command::{self, Options, Streams};
use wherry_runtimes::streaming::upgrade::{self, Transport};
use wherry_runtimes::streaming::{Error, IDLE_TIMEOUT, port_forward, status, tunnel};
use wherry_runtimes::{
    AttachRequest, ContainerFilter, ContainerState, ExecRequest, PodSandboxFilter, PodSandboxState,
    PortForwardRequest,
};

use super::refusal;
use crate::kubelet::Kubelet;
use crate::pod::{labels, mirrored_uid};
use crate::runtimes::NodeRuntime;

/// Streams of this node at once.
const MAX_STREAMS: usize = 2048;

/// Places for streams.
#[derive(Clone)]
struct Places(Arc<Semaphore>);

/// The routes; who may use them is checked around them.
pub(super) fn routes() -> Router<Arc<Kubelet>> {
    Router::new()
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(exec_of_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(attach_of_uid))
        .route("/portForward/{namespace}/{pod}", any(forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(forward_of_uid))
        .route("/run/{namespace}/{pod}/{container}", post(run))
        .route("/run/{namespace}/{pod}/{uid}/{container}", post(run_of_uid))
        .layer(Extension(Places(Arc::new(Semaphore::new(MAX_STREAMS)))))
}

type Pairs = Vec<(String, String)>;

/// Which pod, and which container if it is about one.
struct Wanted {
    namespace: String,
    pod: String,
    uid: Option<String>,
    container: String,
}

impl From<(String, String, String)> for Wanted {
    fn from((namespace, pod, container): (String, String, String)) -> Self {
        Self { namespace, pod, uid: None, container }
    }
}

impl From<(String, String, String, String)> for Wanted {
    fn from((namespace, pod, uid, container): (String, String, String, String)) -> Self {
        Self { namespace, pod, uid: Some(uid), container }
    }
}

type OfContainer = Path<(String, String, String)>;
type OfUid = Path<(String, String, String, String)>;
type Shared = (State<Arc<Kubelet>>, Extension<Places>, Query<Pairs>);

async fn exec(shared: Shared, Path(path): OfContainer, request: Request) -> Response {
    command(shared, &path.into(), request, Kind::Exec).await
}

async fn exec_of_uid(shared: Shared, Path(path): OfUid, request: Request) -> Response {
    command(shared, &path.into(), request, Kind::Exec).await
}

async fn attach(shared: Shared, Path(path): OfContainer, request: Request) -> Response {
    command(shared, &path.into(), request, Kind::Attach).await
}

async fn attach_of_uid(shared: Shared, Path(path): OfUid, request: Request) -> Response {
    command(shared, &path.into(), request, Kind::Attach).await
}

async fn run(shared: Shared, Path(path): OfContainer) -> Response {
    run_to_end(shared, &path.into()).await
}

async fn run_of_uid(shared: Shared, Path(path): OfUid) -> Response {
    run_to_end(shared, &path.into()).await
}

async fn forward(
    shared: Shared,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Response {
    ports(shared, &Wanted { namespace, pod, uid: None, container: String::new() }, request).await
}

async fn forward_of_uid(
    shared: Shared,
    Path((namespace, pod, uid)): OfContainer,
    request: Request,
) -> Response {
    ports(shared, &Wanted { namespace, pod, uid: Some(uid), container: String::new() }, request).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
}

/// Which streams a request wants. Only `1` is yes.
fn options(pairs: &Pairs) -> Result<Options, &'static str> {
    let is_set = |name: &str| pairs.iter().any(|(key, value)| key == name && value == "1");
    Options { stdin: is_set("input"), stdout: is_set("output"), stderr: is_set("error"), tty: is_set("tty") }
        .checked()
}

async fn command(
    (State(kubelet), Extension(places), Query(pairs)): Shared,
    wanted: &Wanted,
    request: Request,
    kind: Kind,
) -> Response {
    let options = match options(&pairs) {
        Ok(options) => options,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why.to_owned()),
    };
    let Some(transport) = upgrade::requested(request.headers()) else { return not_an_upgrade() };
    let protocols = remote_command::protocols(transport);
    let negotiated = upgrade::negotiate(request.headers(), transport, protocols);
    let granted = negotiated.and_then(|it| upgrade::granted(request.headers(), transport, &it));
    let granted = match granted {
        Ok(granted) => granted,
        Err(error) => return refusal(upgrade::refusal_code(&error), error.to_string()),
    };
    let found = match find_pod(&kubelet, wanted) {
        Ok(pod) => find_container(&kubelet, &pod, &wanted.container).await,
        Err(refused) => Err(refused),
    };
    let (runtime, container_id) = match found {
        Ok(found) => found,
        Err(refused) => return refused,
    };
    let Options { stdin, stdout, stderr, tty } = options;
    let url = match kind {
        Kind::Exec => {
            let cmd = pairs.into_iter().filter(|(key, _)| key == "command").map(|(_, word)| word).collect();
            runtime.service.exec(&ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }).await
        }
        Kind::Attach => {
            runtime.service.attach(&AttachRequest { container_id, stdin, tty, stdout, stderr }).await
        }
    };
    let offered = upgrade::protocols(request.headers(), Transport::Spdy);
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    let upstream = match transport {
        Transport::Spdy => connect(url, &offered).await,
        Transport::WebSocket => connect(url, &[remote_command::V4]).await,
    };
    let (headers, upstream) = match upstream {
        Ok(upstream) => upstream,
        Err(refused) => return refused,
    };
    let Some(place) = places.take() else { return too_many() };
    match transport {
        Transport::Spdy => join(&kubelet, place, request, spdy_granted(&headers), |client| async {
            tunnel::both_ways(client, upstream, IDLE_TIMEOUT).await
        }),
        Transport::WebSocket => join(&kubelet, place, request, granted, move |client| async move {
            let translate = async |streams: Streams| {
                let status = remote_command::request(upstream, options, streams).await;
                status.unwrap_or_else(|error| status::to_bytes(&status::of_failure(error)))
            };
            remote_command::serve(client, Transport::WebSocket, options, translate).await
        }),
    }
}

async fn ports(
    (State(kubelet), Extension(places), Query(pairs)): Shared,
    wanted: &Wanted,
    request: Request,
) -> Response {
    let Some(transport) = upgrade::requested(request.headers()) else { return not_an_upgrade() };
    let [tunnelled, tunnelled_too] = port_forward::TUNNELLED;
    let protocols: &[&str] = match transport {
        Transport::Spdy => &[port_forward::V1],
        Transport::WebSocket => &[tunnelled, tunnelled_too, port_forward::CHANNELS],
    };
    let protocol = match upgrade::negotiate(request.headers(), transport, protocols) {
        Ok(protocol) => protocol,
        Err(error) => return refusal(upgrade::refusal_code(&error), error.to_string()),
    };
    let granted = match upgrade::granted(request.headers(), transport, &protocol) {
        Ok(granted) => granted,
        Err(error) => return refusal(upgrade::refusal_code(&error), error.to_string()),
    };
    let is_by_channels = protocol == port_forward::CHANNELS;
    let wanted_ports = match wanted_ports(&pairs) {
        Ok(ports) if ports.is_empty() && is_by_channels => {
            return refusal(StatusCode::BAD_REQUEST, "query parameter \"port\" is required".to_owned());
        }
        Ok(ports) => ports,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why),
    };
    let found = match find_pod(&kubelet, wanted) {
        Ok(pod) => find_sandbox(&kubelet, &pod).await,
        Err(refused) => Err(refused),
    };
    let (runtime, pod_sandbox_id) = match found {
        Ok(found) => found,
        Err(refused) => return refused,
    };
    let port = wanted_ports.iter().copied().map(i32::from).collect();
    let url = runtime.service.port_forward(&PortForwardRequest { pod_sandbox_id, port }).await;
    let (headers, upstream) = match connect(url, &[port_forward::V1]).await {
        Ok(upstream) => upstream,
        Err(refused) => return refused,
    };
    let Some(place) = places.take() else { return too_many() };
    match transport {
        Transport::Spdy => join(&kubelet, place, request, spdy_granted(&headers), |client| async {
            tunnel::both_ways(client, upstream, IDLE_TIMEOUT).await
        }),
        Transport::WebSocket => join(&kubelet, place, request, granted, move |client| async move {
            if is_by_channels {
                return port_forward::translate_channels(client, upstream, &wanted_ports).await;
            }
            tunnel::websocket(websocket(client).await, upstream, IDLE_TIMEOUT).await
        }),
    }
}

/// The ports in the query, once each as often as they are said.
fn wanted_ports(pairs: &Pairs) -> Result<Vec<u16>, String> {
    let lists = pairs.iter().filter(|(key, _)| key == "port").flat_map(|(_, list)| list.split(','));
    let ports: Result<Vec<u16>, String> = lists
        .map(|text| {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            port.ok_or_else(|| format!("unable to parse {text:?} as a port"))
        })
        .collect();
    match ports {
        Ok(ports) if ports.len() > port_forward::MAX_PORTS => Err("too many ports".to_owned()),
        ports => ports,
    }
}

/// `/run`: a command to its end, with its output as the answer.
async fn run_to_end((State(kubelet), _, Query(pairs)): Shared, wanted: &Wanted) -> Response {
    let found = match find_pod(&kubelet, wanted) {
        Ok(pod) => find_container(&kubelet, &pod, &wanted.container).await,
        Err(refused) => Err(refused),
    };
    let (runtime, id) = match found {
        Ok(found) => found,
        Err(refused) => return refused,
    };
    let line = pairs.iter().find(|(key, _)| key == "cmd").map_or("", |(_, line)| line.as_str());
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let ran = runtime.service.exec_sync(&id, &words, std::time::Duration::ZERO).await;
    match ran {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let code = if output.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            (code, [(header::CONTENT_TYPE, "text/plain")], text).into_response()
        }
        Err(error) => refused_by_runtime(&error),
    }
}

fn find_pod(kubelet: &Kubelet, wanted: &Wanted) -> Result<Arc<Pod>, Response> {
    let pod = kubelet.pods.store().get(&wanted.namespace, &wanted.pod);
    let pod = pod.filter(|pod| wanted.uid.is_none() || pod.metadata.uid == wanted.uid);
    pod.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

/// A static pod runs under its own uid, not its mirror's.
fn runtime_uid(pod: &Pod) -> String {
    mirrored_uid(pod).or_else(|| pod.metadata.uid.clone()).unwrap_or_default()
}

/// The running container of that name, whichever runtime has it.
async fn find_container(
    kubelet: &Kubelet,
    pod: &Pod,
    name: &str,
) -> Result<(Arc<NodeRuntime>, String), Response> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let filter = ContainerFilter {
        state: Some(ContainerState::Running),
        label_selector: [pair(labels::POD_UID, &runtime_uid(pod)), pair(labels::CONTAINER_NAME, name)].into(),
        ..ContainerFilter::default()
    };
    for runtime in kubelet.runtimes.all() {
        let containers = runtime.service.list_containers(&filter).await.unwrap_or_default();
        if let Some(newest) = containers.into_iter().max_by_key(|container| container.created_at) {
            return Ok((Arc::clone(runtime), newest.id));
        }
    }
    Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})")))
}

/// The pod's sandbox.
async fn find_sandbox(kubelet: &Kubelet, pod: &Pod) -> Result<(Arc<NodeRuntime>, String), Response> {
    let filter = PodSandboxFilter {
        state: Some(PodSandboxState::Ready),
        label_selector: [(labels::POD_UID.to_owned(), runtime_uid(pod))].into(),
        ..PodSandboxFilter::default()
    };
    for runtime in kubelet.runtimes.all() {
        let sandboxes = runtime.service.list_pod_sandbox(&filter).await.unwrap_or_default();
        // One that borrows the network of another has none of its own.
        let own = sandboxes.into_iter().filter(|sandbox| !sandbox.labels.contains_key(labels::SANDBOX_OF));
        if let Some(newest) = own.max_by_key(|sandbox| sandbox.created_at) {
            return Ok((Arc::clone(runtime), newest.id));
        }
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let text = format!("pod not found ({:?})", format!("{name}_{namespace}"));
    Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, text))
}

type Upstream = TokioIo<hyper::upgrade::Upgraded>;

/// The runtime's end of the stream.
async fn connect(
    url: Result<String, wherry_runtimes::Error>,
    protocols: &[&str],
) -> Result<(HeaderMap, Upstream), Response> {
    let url = url.map_err(|error| refused_by_runtime(&error))?;
    let failed = |error: Error| {
        tracing::warn!(%error, "a runtime's streaming server could not be used");
        refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let target = Target::parse(&url).map_err(failed)?;
    match dial::upgrade(&target, dial::spdy_headers(protocols)).await.map_err(failed)? {
        Answer::Granted(headers, upstream) => Ok((headers, upstream)),
        Answer::Refused(code, text) => Err(refusal(code, text)),
    }
}

/// The answer to a client of SPDY: the runtime's own.
fn spdy_granted(headers: &HeaderMap) -> Response {
    let mut granted = Response::new(Body::empty());
    *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    granted.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    for name in [header::UPGRADE, upgrade::PROTOCOL_VERSION] {
        if let Some(value) = headers.get(&name) {
            granted.headers_mut().insert(name, value.clone());
        }
    }
    granted
}

/// Sends the answer, and runs the stream when the client's connection has become one.
fn join<F>(
    kubelet: &Kubelet,
    place: OwnedSemaphorePermit,
    mut request: Request,
    granted: Response,
    stream: impl FnOnce(Upstream) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Result<(), Error>> + Send,
{
    let (upgrade, shutdown) = (hyper::upgrade::on(&mut request), kubelet.shutdown.clone());
    kubelet.tasks.spawn(async move {
        let running = async {
            match upgrade.await {
                Ok(client) => {
                    if let Err(error) = stream(TokioIo::new(client)).await {
                        tracing::debug!(%error, "a stream ended early");
                    }
                }
                Err(error) => tracing::debug!(%error, "a stream did not begin"),
            }
        };
        shutdown.run_until_cancelled(running).await;
        drop(place);
    });
    granted
}

impl Places {
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

fn not_an_upgrade() -> Response {
    refusal(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request".to_owned())
}

fn too_many() -> Response {
    refusal(StatusCode::TOO_MANY_REQUESTS, "too many streams are open on this node".to_owned())
}

/// Source: `k8s.io/kubelet/pkg/cri/streaming/errors.go` (`WriteError`).
fn refused_by_runtime(error: &wherry_runtimes::Error) -> Response {
    let code = match error {
        wherry_runtimes::Error::NotFound(_) => StatusCode::NOT_FOUND,
        wherry_runtimes::Error::ResourceExhausted(_) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refusal(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Pairs {
        let split = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        text.split('&').filter_map(split).collect()
    }

    #[test]
    fn options_are_read_as_the_kubelet_reads_them() {
        let all = options(&pairs("input=1&output=1&error=1")).unwrap();
        assert_eq!(all, Options { stdin: true, stdout: true, stderr: true, tty: false });
        assert!(!options(&pairs("output=1&error=1&tty=1")).unwrap().stderr);
        assert!(options(&pairs("output=true")).is_err());
    }

    #[test]
    fn ports_are_numbers_in_lists() {
        assert_eq!(wanted_ports(&pairs("port=80,8080&port=90")).unwrap(), [80, 8080, 90]);
        assert_eq!(wanted_ports(&pairs("x=1")).unwrap(), [0_u16; 0]);
        for bad in ["port=http", "port=0", "port=70000", "port=80,"] {
            assert!(wanted_ports(&pairs(bad)).is_err(), "{bad}");
        }
    }
}
