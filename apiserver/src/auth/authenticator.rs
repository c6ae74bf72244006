//! Who makes a request that came over the network.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use wherry_machinery::status::{Reason, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::token_file::TokenFile;
use crate::identity::Identity;
use crate::registry::Refusal;
use crate::tokens::{Rejection, Verified, Verifier};

/// What the certificate that a client showed says, once per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCertificate {
    /// The authority signed it.
    Valid {
        /// Whom it names.
        identity: Identity,
        /// When it ends.
        not_after_unix_seconds: i64,
    },
    /// It is of another authority, or for another use.
    Invalid,
}

impl PeerCertificate {
    /// Reads a certificate whose signature was verified: the common name is the user, the organizations are the groups.
    pub fn of_verified(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Self::Invalid };
        let user = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let Some(user) = user.filter(|user| !user.is_empty()) else { return Self::Invalid };
        let groups = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok());
        Self::Valid {
            identity: Identity::new(user, groups),
            not_after_unix_seconds: certificate.validity().not_after.timestamp(),
        }
    }
}

/// Asks every source of identities in turn: the client certificate, then the bearer token.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Arc<Verifier>,
    token_file: TokenFile,
    anonymous: Anonymous,
}

/// What to do with requests without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// They are `system:anonymous`.
    Allowed,
    /// They are refused.
    Refused,
}

/// The 401 of wrong or missing credentials; it tells nothing else.
pub fn unauthorized() -> Refusal {
    Box::new(Status::failure(Reason::Unauthorized, "Unauthorized"))
}

impl Authenticator {
    /// An authenticator.
    pub fn new(tokens: Arc<Verifier>, token_file: TokenFile, anonymous: Anonymous) -> Self {
        Self { tokens, token_file, anonymous }
    }

    /// Who makes the request.
    ///
    /// # Errors
    /// 401 when credentials were given and none is good, or none were given and anonymous requests are refused.
    pub fn authenticate(
        &self,
        peer: Option<&PeerCertificate>,
        headers: &HeaderMap,
        now_unix_seconds: i64,
    ) -> Result<Identity, Refusal> {
        if let Some(PeerCertificate::Valid { identity, not_after_unix_seconds }) = peer
            && *not_after_unix_seconds >= now_unix_seconds
        {
            return Ok(identity.clone());
        }
        match (bearer_token(headers), peer) {
            (Some(token), _) => self
                .authenticate_token(token, &[], now_unix_seconds)
                .map(|verified| verified.identity)
                .map_err(|rejection| {
                    tracing::debug!(%rejection, "a bearer token was refused");
                    unauthorized()
                }),
            (None, Some(_)) => Err(unauthorized()),
            (None, None) if self.anonymous == Anonymous::Allowed => Ok(Identity::anonymous()),
            (None, None) => Err(unauthorized()),
        }
    }

    /// Whose bearer token it is, for one of `audiences` (empty: the API server's own).
    ///
    /// # Errors
    /// Why it is worth nothing.
    pub fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
        now_unix_seconds: i64,
    ) -> Result<Verified, Rejection> {
        if let Some(identity) = self.token_file.identity(token) {
            return Ok(Verified { identity: identity.clone(), audiences: audiences.to_vec() });
        }
        self.tokens.verify(token, audiences, now_unix_seconds)
    }
}

/// The token of `Authorization: Bearer <token>`.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::pki::{ClientIdentity, Pki};
    use crate::tokens::{DEFAULT_ISSUER, Objects, Signer};

    struct Nothing;

    impl Objects for Nothing {
        fn object(&self, _: &str, _: &str, _: &str) -> Option<serde_json::Value> {
            None
        }
    }

    fn authenticator(anonymous: Anonymous) -> Authenticator {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Signer::new(DEFAULT_ISSUER, &key).unwrap();
        let file = TokenFile::parse("secret,ann,u1,\"a,b\"\n").unwrap();
        Authenticator::new(Arc::new(Verifier::new(&signer, Arc::new(Nothing)).unwrap()), file, anonymous)
    }

    fn bearer(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(text))])
    }

    #[test]
    fn a_certificate_names_its_user_until_it_ends() {
        let directory = std::env::temp_dir().join(format!("wherry-authenticator-{}", uuid::Uuid::new_v4()));
        let pki = Pki::open(&directory).unwrap();
        let pem = pki.client(&ClientIdentity::Admin).unwrap().certificate_pem;
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let peer = PeerCertificate::of_verified(&pem.contents.into());
        let PeerCertificate::Valid { identity, not_after_unix_seconds } = &peer else { panic!("{peer:?}") };
        assert_eq!(identity.user, "kubernetes-admin");
        assert_eq!(identity.groups, ["system:masters", "system:authenticated"]);
        let authenticator = authenticator(Anonymous::Allowed);
        let at = |now| authenticator.authenticate(Some(&peer), &HeaderMap::new(), now);
        assert_eq!(at(*not_after_unix_seconds).as_ref(), Ok(identity));
        assert_eq!(at(not_after_unix_seconds + 1).unwrap_err().code, 401);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn wrong_credentials_are_refused_and_absent_ones_are_anonymous() {
        let allowed = authenticator(Anonymous::Allowed);
        let ann = allowed.authenticate(None, &bearer("Bearer secret"), 0).unwrap();
        assert_eq!((ann.user.as_str(), ann.groups.len()), ("ann", 3));
        assert_eq!(
            allowed.authenticate(None, &bearer("Bearer wrong"), 0).unwrap_err().message,
            "Unauthorized"
        );
        assert_eq!(
            allowed.authenticate(Some(&PeerCertificate::Invalid), &HeaderMap::new(), 0).unwrap_err().code,
            401
        );
        assert!(allowed.authenticate(Some(&PeerCertificate::Invalid), &bearer("Bearer secret"), 0).is_ok());
        assert_eq!(allowed.authenticate(None, &HeaderMap::new(), 0), Ok(Identity::anonymous()));
        assert!(authenticator(Anonymous::Refused).authenticate(None, &HeaderMap::new(), 0).is_err());
    }
}
