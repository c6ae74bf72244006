//! TLS and connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::auth::Certified;
use crate::config::ServerTls;
use crate::error::Error;
use crate::kubelet::Kubelet;

/// A TLS handshake takes no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request takes no longer, the wait of an idle connection for the next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// An HTTP/2 client that is silent is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Requests of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 100;
/// Most connections at once. The callers are the API server and monitoring.
const MAX_CONNECTIONS: usize = 512;

pub(super) async fn listen(kubelet: &Arc<Kubelet>, tls: &ServerTls, router: Router) -> Result<u16, Error> {
    let acceptor = acceptor(tls)?;
    let address = SocketAddr::new(kubelet.config.node_ip, kubelet.config.port);
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let port = listener.local_addr().map_err(|source| Error::Listen { address, source })?.port();
    kubelet.tasks.spawn(serve(kubelet.clone(), listener, acceptor, router));
    Ok(port)
}

fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, Error> {
    let bad = |detail: String| Error::Certificate { detail };
    let certificates = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.to_string()))
    };
    let key =
        PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca_pem)? {
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate_pem)?, key)
        .map_err(|error| bad(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(kubelet: Arc<Kubelet>, listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let slots = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: not to be tried again at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), kubelet.shutdown.clone());
        kubelet.tasks.spawn(async move {
            shutdown.run_until_cancelled(connection(stream, acceptor, router)).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let certified = stream.get_ref().1.peer_certificates().and_then(|chain| Certified::of(chain.first()?));
    let router = router.layer(axum::Extension(certified));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(MAX_STREAMS);
    let served =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the node API ended");
    }
}
