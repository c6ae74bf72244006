//! HTTP requests of probes and hooks: a new connection each time, certificates not checked, as in Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer that are read. Source: Kubernetes.
const MAX_BODY_BYTES: usize = 10 * 1024;

/// A request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Whether over TLS.
    pub is_tls: bool,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Path with query.
    pub path: String,
    /// Headers of the probe.
    pub headers: Vec<(String, String)>,
}

impl HttpRequest {
    /// The address as text.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }
}

/// `host:port`, with brackets around IPv6 addresses.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
}

/// The number of a port that may be named by the container.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
                .ok_or_else(|| format!("couldn't find port: {name} in container: {}", container.name))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// The request of an `httpGet` action.
pub fn http_request(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
) -> Result<HttpRequest, String> {
    let path = action.path.as_deref().unwrap_or("/");
    Ok(HttpRequest {
        is_tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_owned()),
        port: resolve_port(&action.port, container)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// Sends requests of probes.
#[derive(Clone)]
pub struct ProbeClient {
    tls: TlsConnector,
}

impl ProbeClient {
    /// A client that checks no certificate.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyCertificate { provider: provider.clone() });
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a GET; the error is worded as Go's HTTP client words it.
    pub async fn get(&self, request: &HttpRequest, timeout: Duration) -> Result<HttpAnswer, String> {
        let failed = |reason: String| format!("Get {:?}: {reason}", request.url());
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
            )),
        }
    }

    async fn exchange(&self, request: &HttpRequest) -> Result<HttpAnswer, String> {
        let stream = connect(&request.host, request.port).await?;
        if request.is_tls {
            let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
            send(stream, request).await
        } else {
            send(stream, request).await
        }
    }
}

/// Connects; the error is worded as Go words it.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = authority(host, port);
    let stream = TcpStream::connect(&address).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {address}: {reason}")
    })?;
    // Small writes must not wait for each other.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn send<S>(stream: S, request: &HttpRequest) -> Result<HttpAnswer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http::Request::get(&request.path);
    let mut has = (false, false, false);
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        has.0 |= name == HOST;
        has.1 |= name == USER_AGENT;
        has.2 |= name == http::header::ACCEPT;
        builder =
            builder.header(name, HeaderValue::try_from(value.as_str()).map_err(|error| error.to_string())?);
    }
    if !has.0 {
        builder = builder.header(HOST, authority(&request.host, request.port));
    }
    if !has.1 {
        builder = builder.header(USER_AGENT, "kube-probe/1.36");
    }
    if !has.2 {
        builder = builder.header(http::header::ACCEPT, "*/*");
    }
    let message = builder
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(message).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = match Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        Ok(HttpAnswer { status, body })
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer has been read to its end.
        _ = &mut connection => exchange.await,
    }
}

/// Accepts every certificate: probes ask whether something answers, not who.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
