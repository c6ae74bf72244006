//! TLS: the certificate that is served, and what clients show.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::auth::PeerCertificate;
use crate::pki::{self, Pki, ServingNames};

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates are not to be had.
    #[error("the serving certificate is not to be had")]
    Pki(#[from] pki::Error),
    /// A certificate or key does not read.
    #[error("the {what} is not PEM")]
    Pem {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and key do not work together.
    #[error("the serving certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The authority's certificate cannot verify clients.
    #[error("the client authority cannot be used")]
    ClientAuthority(#[source] rustls::server::VerifierBuilderError),
}

/// What a listener needs to speak TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// Serves under `names` with a certificate of `pki`'s authority, and knows clients by certificates of the same.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(pki: &Pki, names: &ServingNames) -> Result<Self, Error> {
        let credential = pki.serving(names)?;
        let pem = |what| move |source| Error::Pem { what, source };
        let chain = CertificateDer::pem_slice_iter(credential.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(pem("serving certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes()).map_err(pem("serving key"))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(pki.ca_pem().as_bytes()) {
            roots.add(authority.map_err(pem("client authority"))?).map_err(Error::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(Error::ClientAuthority)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Certificate)?
            .with_client_cert_verifier(Arc::new(AnyCertificate { inner: Arc::clone(&verifier) }))
            .with_single_cert(chain, key)
            .map_err(Error::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier })
    }

    pub(super) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// What the certificates of a client say; `None` if it showed none.
    pub(super) fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<PeerCertificate> {
        let [end_entity, intermediates @ ..] = certificates? else { return None };
        Some(match self.verifier.verify_client_cert(end_entity, intermediates, UnixTime::now()) {
            Ok(_) => PeerCertificate::of_verified(end_entity),
            Err(error) => {
                tracing::debug!(%error, "a client certificate was refused");
                PeerCertificate::Invalid
            }
        })
    }
}

/// Takes any certificate whose key the client holds. Whether it is worth something is judged after the handshake, so that a
/// wrong one is answered with 401 (or its bearer token counts), as Kubernetes does, and not with a broken connection.
#[derive(Debug)]
struct AnyCertificate {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
