//! The way to a node's kubelet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HOST, HeaderMap, UPGRADE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_machinery::status::{Reason, Status};

use super::listener::StreamEnd;
use super::tls::Error;
use super::tunnel;
use crate::pki::{ClientIdentity, Pki};
use crate::registry::{Refusal, Registry};

/// Source: the kubelet's `DefaultKubeletPort`.
const DEFAULT_PORT: u16 = 10250;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of a kubelet's error is shown.
const MAX_ERROR_BYTES: usize = 4096;
/// Streams through this server at once.
const MAX_TUNNELS: usize = 4096;
/// What a client says of the stream that it wants: passed on, and nothing else.
const STREAM_HEADERS: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("x-stream-protocol-version"),
    http::header::SEC_WEBSOCKET_KEY,
    http::header::SEC_WEBSOCKET_VERSION,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    http::header::SEC_WEBSOCKET_ACCEPT,
    http::header::SEC_WEBSOCKET_EXTENSIONS,
];
/// Headers that are one connection's own. Source: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
];

/// Speaks HTTPS to kubelets, as the API server.
#[derive(Clone)]
pub(super) struct NodeConnection {
    tls: TlsConnector,
    tasks: TaskTracker,
    tunnels: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl NodeConnection {
    /// Connections that trust `pki`'s authority and show its kubelet client certificate.
    pub(super) fn new(pki: &Pki, tasks: TaskTracker, shutdown: CancellationToken) -> Result<Self, Error> {
        let pem = |what| move |source| Error::Pem { what, source };
        let credential = pki.client(&ClientIdentity::ApiServerKubeletClient)?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(pki.ca_pem().as_bytes()) {
            roots.add(authority.map_err(pem("authority"))?).map_err(Error::Certificate)?;
        }
        let chain = CertificateDer::pem_slice_iter(credential.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(pem("kubelet client certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes())
            .map_err(pem("kubelet client key"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::Certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(Error::Certificate)?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            tasks,
            tunnels: Arc::new(Semaphore::new(MAX_TUNNELS)),
            shutdown,
        })
    }

    /// GETs a path of a node's kubelet and passes the answer on as it comes.
    ///
    /// # Errors
    /// 404 for a node that is not there, 500 for one that does not answer, what the kubelet refuses as it words it.
    pub(super) async fn get(&self, registry: &Registry, node: &str, path: &str) -> Result<Body, Refusal> {
        let address = address(registry, node)?;
        let failed = |error: &dyn std::fmt::Display| {
            let url = format!("https://{}:{}{path}", address.0, address.1);
            Box::new(Status::internal(format!("Get {}: {error}", wherry_machinery::field::go_quote(&url))))
        };
        let answered = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(address, request(path)?)).await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => {
                return Err(failed(
                    &"net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
                ));
            }
        };
        if response.status().is_success() {
            return Ok(Body::new(response.into_body()));
        }
        Err(refused(response).await)
    }

    /// Passes a request on and its answer back, whatever it is.
    ///
    /// # Errors
    /// 404 for a node that is not there, 500 for one that does not answer.
    pub(super) async fn pass(
        &self,
        registry: &Registry,
        node: &str,
        path: &str,
        asked: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let address = address(registry, node)?;
        let (parts, body) = asked.into_parts();
        let mut onward = request(path)?.map(|_| body);
        *onward.method_mut() = parts.method;
        *onward.headers_mut() = parts.headers;
        HOP_BY_HOP.iter().for_each(|name| drop(onward.headers_mut().remove(name)));
        let mut response = self.dial(address, onward).await?.map(Body::new);
        HOP_BY_HOP.iter().for_each(|name| drop(response.headers_mut().remove(name)));
        Ok(response)
    }

    /// Asks a kubelet for the upgrade that the client asks for. When it is granted, the client's connection and the
    /// kubelet's become one, until either ends or the server stops; what the kubelet refuses is passed on as it is.
    ///
    /// # Errors
    /// 404 for a node that is not there, 500 for one that does not answer, 429 when there are too many streams.
    pub(super) async fn upgrade(
        &self,
        registry: &Registry,
        node: &str,
        path: &str,
        mut asked: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let Ok(place) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            let text = "too many streams are open, please try again later";
            return Err(Status::failure(Reason::TooManyRequests, text).into());
        };
        let address = address(registry, node)?;
        let mut onward = request(path)?;
        asked.method().clone_into(onward.method_mut());
        copy_headers(asked.headers(), onward.headers_mut());
        let answered = tokio::time::timeout(CONNECT_TIMEOUT, self.dial(address, onward)).await;
        let answered = answered.unwrap_or_else(|_| Err(dialing(&"i/o timeout")));
        let mut response = answered?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(Body::new));
        }
        let (client, kubelet) = (hyper::upgrade::on(&mut asked), hyper::upgrade::on(&mut response));
        // In process there is no connection that could end; there the server itself does.
        let end = asked.extensions().get::<StreamEnd>().map_or(&self.shutdown, |end| &end.0).clone();
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            let _place = place;
            let moving = async {
                let (client, kubelet) = tokio::try_join!(client, kubelet)?;
                tunnel::both_ways(TokioIo::new(client), TokioIo::new(kubelet)).await;
                Ok::<_, hyper::Error>(())
            };
            tokio::select! {
                moved = moving => {
                    if let Err(error) = moved {
                        tracing::debug!(%error, "a stream to a node did not begin");
                    }
                }
                () = end.cancelled() => {}
                () = shutdown.cancelled() => {}
            }
        });
        let mut granted = Response::new(Body::empty());
        *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        copy_headers(response.headers(), granted.headers_mut());
        Ok(granted)
    }

    /// The answer of a kubelet; an error is worded as Kubernetes' upgrade proxy does.
    async fn dial(
        &self,
        address: (IpAddr, u16),
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Refusal> {
        self.connect(address, request).await.map_err(|error| dialing(&error))
    }

    async fn connect(
        &self,
        (host, port): (IpAddr, u16),
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ConnectError> {
        let stream = TcpStream::connect((host, port)).await.map_err(ConnectError::Connect)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let stream = self.tls.connect(ServerName::from(host), stream).await.map_err(ConnectError::Tls)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ConnectError::Http)?;
        // Ends with the body of its one answer, or when it is upgraded.
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a kubelet broke");
            }
        });
        let name = HeaderValue::from_str(&std::net::SocketAddr::from((host, port)).to_string());
        request.headers_mut().insert(HOST, name.map_err(|error| ConnectError::Request(error.into()))?);
        sender.send_request(request).await.map_err(ConnectError::Http)
    }
}

/// A GET of a kubelet's path.
fn request(path: &str) -> Result<Request<Body>, Refusal> {
    Request::get(path).body(Body::empty()).map_err(|error| Box::new(Status::bad_request(error.to_string())))
}

fn dialing(error: &dyn std::fmt::Display) -> Refusal {
    Box::new(Status::internal(format!("error dialing backend: {error}")))
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &STREAM_HEADERS {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// Where a request to a kubelet failed.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("dial: {0}")]
    Connect(#[source] std::io::Error),
    #[error("tls: {0}")]
    Tls(#[source] std::io::Error),
    #[error("{0}")]
    Http(#[source] hyper::Error),
    #[error("{0}")]
    Request(#[source] http::Error),
}

/// Where a node's kubelet listens.
fn address(registry: &Registry, node: &str) -> Result<(IpAddr, u16), Refusal> {
    let kind = registry.kind("", "v1", "nodes").ok_or_else(crate::http::no_such_resource)?;
    let object = registry.cached(kind, "", node).ok_or_else(|| kind.not_found(node))?.value();
    let host = internal_ip(&object).ok_or_else(|| {
        Box::new(Status::internal(format!(
            "no preferred addresses found; known addresses: {}",
            known(&object)
        )))
    })?;
    let port = object
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0);
    Ok((host, port.unwrap_or(DEFAULT_PORT)))
}

fn addresses(node: &Value) -> impl Iterator<Item = &Value> {
    node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten()
}

fn internal_ip(node: &Value) -> Option<IpAddr> {
    addresses(node)
        .filter(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"))
        .find_map(|address| address.get("address")?.as_str()?.parse().ok())
}

fn known(node: &Value) -> String {
    let shown: Vec<String> = addresses(node).map(ToString::to_string).collect();
    format!("[{}]", shown.join(" "))
}

/// What the kubelet says, as the API server's own refusal. Source: `registry/generic/rest/response_checker.go`.
async fn refused(response: Response<Incoming>) -> Refusal {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Box::new(match code {
        400 => Status::bad_request(text),
        404 => Status::failure(Reason::NotFound, text),
        500 => Status::internal(text),
        code => Status::failure(Reason::InternalError, text).with_code(code),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_reached_by_its_internal_address() {
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "not an address"},
            {"type": "InternalIP", "address": "127.0.0.7"},
        ]}});
        assert_eq!(internal_ip(&node), Some([127, 0, 0, 7].into()));
        assert_eq!(internal_ip(&json!({})), None);
    }
}
