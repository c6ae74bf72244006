//! Telling whose token it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wherry_machinery::{metadata, time};

use super::{Claims, Error, ObjectReference, Objects, Signer};
use crate::identity::Identity;

/// Clocks differ: so many seconds of grace for beginning and end. Source: go-jose's `DefaultLeeway`.
const LEEWAY_SECONDS: i64 = 60;
/// An object that is being deleted is worth nothing so many seconds after its end. Source: `serviceaccount/claims.go`.
const DELETION_GRACE_SECONDS: i64 = 60;
/// Signatures are checked once per token; so many tokens are remembered.
const REMEMBERED_TOKENS: usize = 4096;
/// No token of ours comes near that.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not one of ours: another authenticator may know it.
    #[error("not a token of this issuer")]
    Foreign,
    /// The signature or the form is wrong.
    #[error("invalid bearer token")]
    Malformed,
    /// It is too old, or not valid yet.
    #[error("service account token has expired or is not valid yet")]
    Time,
    /// It is for somebody else.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// For whom it is.
        found: Vec<String>,
        /// For whom it should be.
        wanted: Vec<String>,
    },
    /// What it is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
}

/// A token that is worth something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose.
    pub identity: Identity,
    /// Those of the wanted audiences for which it is.
    pub audiences: Vec<String>,
}

/// Verifies tokens of one issuer.
pub struct Verifier {
    issuer: String,
    key: DecodingKey,
    objects: Arc<dyn Objects>,
    remembered: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier of what `signer` signs.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn new(signer: &Signer, objects: Arc<dyn Objects>) -> Result<Self, Error> {
        Ok(Self {
            issuer: signer.issuer().to_owned(),
            key: signer.decoding_key()?,
            objects,
            remembered: Mutex::default(),
        })
    }

    /// Whose token it is, for one of `audiences` (empty: the issuer itself, as the API server's own requests).
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now_unix_seconds: i64,
    ) -> Result<Verified, Rejection> {
        let claims = self.claims(token)?;
        if claims.nbf > now_unix_seconds + LEEWAY_SECONDS
            || claims.iat > now_unix_seconds + LEEWAY_SECONDS
            || claims.exp < now_unix_seconds - LEEWAY_SECONDS
        {
            return Err(Rejection::Time);
        }
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        let audiences: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(Rejection::Audience { found: claims.aud.clone(), wanted: wanted.to_vec() });
        }
        Ok(Verified { identity: self.identity(&claims, now_unix_seconds)?, audiences })
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, Rejection> {
        if token.len() > MAX_TOKEN_BYTES || token.split('.').count() != 3 {
            return Err(Rejection::Foreign);
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(claims) = remembered {
            return Ok(claims);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        // Times and audiences are judged by `verify`, at every use.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation).map_err(|error| {
            match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidIssuer => Rejection::Foreign,
                _ => Rejection::Malformed,
            }
        })?;
        let claims = Arc::new(claims.claims);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_TOKENS {
            remembered.clear();
        }
        remembered.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    /// The identity, if everything that the token is bound to is there.
    fn identity(&self, claims: &Claims, now_unix_seconds: i64) -> Result<Identity, Rejection> {
        let bound = &claims.bound;
        let alive = |resource: &str, reference: &ObjectReference| -> Result<(), Rejection> {
            let namespace = if resource == "nodes" { "" } else { &bound.namespace };
            let object =
                self.objects.object(resource, namespace, &reference.name).ok_or(Rejection::Invalidated)?;
            let same = metadata::uid(&object) == reference.uid;
            if same && !is_long_gone(&object, now_unix_seconds) {
                Ok(())
            } else {
                Err(Rejection::Invalidated)
            }
        };
        if claims.sub != format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name) {
            return Err(Rejection::Malformed);
        }
        alive("serviceaccounts", &bound.serviceaccount)?;
        if let Some(secret) = &bound.secret {
            alive("secrets", secret)?;
        }
        if let Some(pod) = &bound.pod {
            alive("pods", pod)?;
        } else if let Some(node) = &bound.node {
            alive("nodes", node)?;
        }
        let mut identity = Identity::service_account(&bound.namespace, &bound.serviceaccount.name);
        identity.uid.clone_from(&bound.serviceaccount.uid);
        identity.extra = extra(claims);
        Ok(identity)
    }
}

fn is_long_gone(object: &Value, now_unix_seconds: i64) -> bool {
    metadata::deletion_timestamp(object)
        .and_then(|text| time::parse(text).ok())
        .is_some_and(|end| end.unix_seconds() + DELETION_GRACE_SECONDS < now_unix_seconds)
}

fn extra(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    if !claims.jti.is_empty() {
        add("credential-id", format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &claims.bound.pod {
        add("pod-name", pod.name.clone());
        add("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &claims.bound.node {
        add("node-name", node.name.clone());
        if !node.uid.is_empty() {
            add("node-uid", node.uid.clone());
        }
    }
    extra
}
