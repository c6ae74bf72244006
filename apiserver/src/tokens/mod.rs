//! Service-account tokens: signed claims that are bound to objects.
//!
//! Called by `auth` (who is this?) and by `serviceaccounts/token` (give me one). The signing key is `pki`'s.
//!
//! # Guarantees
//! A token is worth something only while its signature, time and audience are right *and* the service account (and pod,
//! secret or node) that it is bound to exists with the same uid.

mod claims;
mod request;
mod signer;
mod verifier;

pub use claims::{Bound, Claims, ObjectReference};
pub use request::{DEFAULT_LIFETIME_SECONDS, TokenRequest, token_request};
pub use signer::Signer;
pub use verifier::{Rejection, Verified, Verifier};

/// The issuer when none is configured: Kubernetes' own default.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";

/// Where bound objects are looked up.
pub trait Objects: Send + Sync {
    /// The object as it is now; core group only.
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<serde_json::Value>;
}

/// Why tokens cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file does not hold an EC P-256 key.
    #[error("the service account key is not an EC P-256 key")]
    Key,
    /// The claims could not be signed.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

#[cfg(test)]
mod tests;
