//! Signing, and telling the world with which key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Claims, Error};

/// Signs tokens with an EC P-256 key (ES256).
pub struct Signer {
    issuer: String,
    key_id: String,
    encoding: EncodingKey,
    x: String,
    y: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer from a PKCS #8 PEM key.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn new(issuer: impl Into<String>, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| Error::Key)?;
        let encoding = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|_| Error::Key)?;
        // An uncompressed point: 4, then both coordinates.
        let (x, y) = match key.public_key_raw() {
            [4, point @ ..] if point.len() == 64 => point.split_at(32),
            _ => return Err(Error::Key),
        };
        let spki = key.subject_public_key_info();
        Ok(Self {
            issuer: issuer.into(),
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)),
            encoding,
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token that says `claims`.
    ///
    /// # Errors
    /// [`Error::Sign`].
    pub fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(Error::Sign)
    }

    /// The key that verifies what this signer signs.
    pub(super) fn decoding_key(&self) -> Result<DecodingKey, Error> {
        DecodingKey::from_ec_components(&self.x, &self.y).map_err(|_| Error::Key)
    }

    /// The document of `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": self.x, "y": self.y,
        }]})
    }

    /// The document of `/.well-known/openid-configuration`; `external_url` is where the key set can be fetched.
    pub fn discovery(&self, external_url: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{external_url}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}
