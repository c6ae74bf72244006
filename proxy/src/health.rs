//! `healthCheckNodePort`: load balancers ask each node whether it has endpoints of a Service with
//! `externalTrafficPolicy: Local`.
//!
//! Source: kube-proxy (`pkg/proxy/healthcheck`): the status, the header and the body are its.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wherry_client::events::{EventRecorder, EventType};

use crate::rules::HealthCheck;

/// Questions at once; load balancers are few.
const MAX_CONNECTIONS: usize = 128;

/// How long a question may take to be asked.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest question, bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// One port that is answered on.
struct Answering {
    check: Arc<Mutex<HealthCheck>>,
    stop: CancellationToken,
}

/// The ports that are answered on.
pub(crate) struct HealthChecks {
    addresses: Vec<IpAddr>,
    answering: BTreeMap<u16, Answering>,
    /// Ports that could not be opened, with the words that were reported.
    refused: BTreeMap<u16, String>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl HealthChecks {
    /// Nothing is answered yet. Ports will be opened on these addresses.
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            answering: BTreeMap::new(),
            refused: BTreeMap::new(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Answer for these Services, by port; returns how many ports could not be opened. `report` is told of each once.
    pub(crate) fn apply(
        &mut self,
        checks: &BTreeMap<u16, HealthCheck>,
        report: impl Fn(&HealthCheck, &str),
    ) -> usize {
        self.answering.retain(|port, answering| {
            let stays = checks.contains_key(port);
            if !stays {
                answering.stop.cancel();
            }
            stays
        });
        self.refused.retain(|port, _| checks.contains_key(port));
        for (port, check) in checks {
            if let Some(answering) = self.answering.get(port) {
                *answering.check.lock().unwrap_or_else(PoisonError::into_inner) = check.clone();
                continue;
            }
            match self.open(*port, check) {
                Ok(answering) => {
                    self.refused.remove(port);
                    self.answering.insert(*port, answering);
                }
                Err(error) => {
                    let words = format!("cannot listen on healthCheckNodePort {port}: {error}");
                    if self.refused.get(port) != Some(&words) {
                        report(check, &words);
                        self.refused.insert(*port, words);
                    }
                }
            }
        }
        self.refused.len()
    }

    fn open(&self, port: u16, check: &HealthCheck) -> io::Result<Answering> {
        let check = Arc::new(Mutex::new(check.clone()));
        let stop = self.stop.child_token();
        let mut listeners = Vec::new();
        for ip in &self.addresses {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(SocketAddr::new(*ip, port)),
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            if ip.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(*ip, port).into())?;
            socket.listen(64)?;
            listeners.push(TcpListener::from_std(socket.into())?);
        }
        for listener in listeners {
            let serve =
                serve(listener, Arc::clone(&check), Arc::clone(&self.room), self.tasks.clone(), stop.clone());
            self.tasks.spawn(serve);
        }
        Ok(Answering { check, stop })
    }

    /// Close every port and connection.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Tell of a port that cannot be opened, in the log and in an event.
pub(crate) fn report(recorder: &EventRecorder, check: &HealthCheck, words: &str) {
    tracing::warn!(namespace = &*check.namespace, service = &*check.service, "{words}");
    let service = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(check.namespace.to_string()),
        name: Some(check.service.to_string()),
        ..ObjectReference::default()
    };
    recorder.event(&service, EventType::Warning, "FailedToStartServiceHealthcheck", words);
}

/// The addresses on which health checks are answered: those of node ports.
pub(crate) fn addresses(node_port_addresses: &[IpAddr]) -> Vec<IpAddr> {
    if node_port_addresses.is_empty() {
        return vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    }
    node_port_addresses.to_vec()
}

async fn serve(
    listener: TcpListener,
    check: Arc<Mutex<HealthCheck>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((stream, permit))
        };
        let Some(accepted) = stop.run_until_cancelled(accept).await else { return };
        let Ok((stream, permit)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (check, stop) = (Arc::clone(&check), stop.clone());
        tasks.spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let check = check.lock().unwrap_or_else(PoisonError::into_inner).clone();
                async move { Ok::<_, Infallible>(answer(&check)) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
            let connection = http.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::trace!(%error, "health check");
            }
            drop(permit);
        });
    }
}

/// What a load balancer is told. Pure.
fn answer(check: &HealthCheck) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "service": { "namespace": &*check.namespace, "name": &*check.service },
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": true,
    });
    let status = if check.local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert("X-Content-Type-Options", http::HeaderValue::from_static("nosniff"));
    headers.insert("X-Load-Balancing-Endpoint-Weight", http::HeaderValue::from(check.local_endpoints));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_node_with_endpoints_is_healthy_and_one_without_is_not() {
        for (local_endpoints, status) in [(2, 200), (0, 503)] {
            let check = HealthCheck { namespace: "d".into(), service: "s".into(), local_endpoints };
            let response = answer(&check);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["X-Load-Balancing-Endpoint-Weight"], local_endpoints.to_string());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["service"]["namespace"], "d");
            assert_eq!(body["service"]["name"], "s");
            assert_eq!(body["localEndpoints"], local_endpoints);
            assert_eq!(body["serviceProxyHealthy"], true);
        }
    }

    fn check(local_endpoints: usize) -> HealthCheck {
        HealthCheck { namespace: "d".into(), service: "s".into(), local_endpoints }
    }

    async fn ask(port: u16) -> io::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn ports_open_follow_the_endpoints_and_close_with_their_services() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut health = HealthChecks::new(&[Ipv4Addr::LOCALHOST.into()]);
        let told = std::cell::RefCell::new(Vec::new());
        let report = |_: &HealthCheck, words: &str| told.borrow_mut().push(words.to_owned());
        for (local_endpoints, want) in [(0, "HTTP/1.1 503 Service Unavailable"), (1, "HTTP/1.1 200 OK")] {
            assert_eq!(health.apply(&BTreeMap::from([(port, check(local_endpoints))]), report), 0);
            assert_eq!(ask(port).await.unwrap(), want);
        }
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let checks = BTreeMap::from([(taken_port, check(1))]);
        assert_eq!(health.apply(&checks, report), 1);
        assert_eq!(health.apply(&checks, report), 1);
        assert_eq!(told.borrow().len(), 1, "told once");
        health.close().await;
        assert!(ask(port).await.is_err(), "the port is closed");
    }
}
