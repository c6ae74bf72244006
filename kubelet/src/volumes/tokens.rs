//! Service account tokens for projected volumes, by TokenRequest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use super::payload::{TokenKey, Tokens, needed_tokens};
use crate::pod::backoff::elapsed;

/// A token older than this is renewed whatever its lifetime. Source: Kubernetes.
const LONGEST_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone)]
struct Held {
    token: String,
    requested_at: Timestamp,
    expires_at: Timestamp,
}

impl Held {
    /// Renewed at four fifths of its life.
    fn renew_at(&self) -> Timestamp {
        let life = elapsed(self.requested_at, self.expires_at);
        let wait = (life * 4 / 5).min(LONGEST_AGE);
        self.requested_at.checked_add(wait).unwrap_or(self.expires_at)
    }
}

/// The tokens of one pod.
#[derive(Debug, Default)]
pub(crate) struct PodTokens {
    held: Mutex<HashMap<TokenKey, Held>>,
}

impl PodTokens {
    /// The tokens that a pod needs, requested where missing or old.
    pub(crate) async fn current(&self, client: &Client, pod: &Pod, now: Timestamp) -> Tokens {
        let mut tokens = Tokens::new();
        for key in needed_tokens(pod) {
            let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
            if let Some(held) = known.as_ref().filter(|held| now < held.renew_at()) {
                tokens.insert(key, Ok(held.token.clone()));
                continue;
            }
            match request(client, pod, &key, now).await {
                Ok(held) => {
                    tokens.insert(key.clone(), Ok(held.token.clone()));
                    self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key, held);
                }
                Err(error) => {
                    let still_good = known.filter(|held| now < held.expires_at);
                    tokens.insert(key, still_good.map_or(Err(error), |held| Ok(held.token)));
                }
            }
        }
        tokens
    }

    /// When the next token is to be renewed.
    pub(crate) fn next_renewal(&self) -> Option<Timestamp> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values().map(Held::renew_at).min()
    }
}

async fn request(client: &Client, pod: &Pod, key: &TokenKey, now: Timestamp) -> Result<Held, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account =
        pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|name| !name.is_empty());
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!key.audience.is_empty()).then(|| vec![key.audience.clone()]),
            expiration_seconds: Some(key.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let name = account.unwrap_or("default");
    let answer: TokenRequest = api
        .create_subresource("token", name, &PostParams::default(), &body)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status.unwrap_or_default();
    match (status.token, status.expiration_timestamp) {
        (Some(token), Some(expires_at)) => Ok(Held { token, requested_at: now, expires_at: expires_at.0 }),
        _ => Err("the API server answered without a token".to_owned()),
    }
}
