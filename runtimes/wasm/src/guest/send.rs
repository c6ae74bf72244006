//! Outgoing HTTP requests of guests: only where the pod may, checked on the address that is really connected to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::LogFile;
use super::network::{DialError, LookupError, PodNetwork};

/// How long a guest may wait where it sets no time itself.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The hooks of one instance.
pub(crate) struct Sending {
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) log: Arc<LogFile>,
}

type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Transmission), Error>;

impl WasiHttpHooks for Sending {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Transmission,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (network, log) = (Arc::clone(&self.network), Arc::clone(&self.log));
        Box::new(async move {
            let options = options.unwrap_or_default();
            send(request, options, &network, &log).await
        })
    }
}

async fn send(
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
    network: &PodNetwork,
    log: &LogFile,
) -> Sent {
    let authority = request.uri().authority().cloned().ok_or(Error::HttpRequestUriInvalid)?;
    let tls = request.uri().scheme() == Some(&Scheme::HTTPS);
    let connect = connect(&authority, tls, network, log);
    let stream = tokio::time::timeout(options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT), connect)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Inside the connection only the path is named.
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = path.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = http::Uri::from_parts(parts).map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut connection = Box::pin(connection);
    let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let exchange = async {
        let response = sender.send_request(request);
        tokio::pin!(response);
        tokio::select! {
            biased;
            response = &mut response => Ok::<_, Error>((response?, true)),
            ended = &mut connection => {
                // The other side closed right after its answer: the answer is there already.
                let response = response.await;
                ended?;
                Ok((response?, false))
            }
        }
    };
    let (response, open) =
        tokio::time::timeout(first_byte, exchange).await.map_err(|_| Error::ConnectionReadTimeout)??;
    let rest: Transmission =
        Box::new(async move { if open { connection.await.map_err(Error::from) } else { Ok(()) } });
    Ok((response.map(|body| body.map_err(Error::from).boxed_unsync()), rest))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(
    authority: &Authority,
    tls: bool,
    network: &PodNetwork,
    log: &LogFile,
) -> Result<Box<dyn Stream>, Error> {
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = network.connect(host, port).await.map_err(|error| match error {
        DialError::NotGranted(what) => {
            log.line(&format!(
                "request to {authority} refused: {what} (grant it with the pod annotation {})",
                super::outbound::ALLOWED_HOSTS
            ));
            Error::HttpRequestDenied
        }
        DialError::Lookup(LookupError::Unavailable) => Error::DnsTimeout,
        DialError::Lookup(_) => {
            Error::DnsError { rcode: Some("address not available".to_owned()), info_code: None }
        }
        DialError::Connect(error) => Error::Connect(error),
    })?;
    let _ = stream.set_nodelay(true);
    if !tls {
        return Ok(Box::new(stream));
    }
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::TlsProtocolError)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::TlsCertificateError)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Ok(Box::new(connector.connect(name, stream).await.map_err(Error::Tls)?))
}
