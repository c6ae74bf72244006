//! Who may use the node's API.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::FromDer;

use super::refusal;
use crate::kubelet::Kubelet;

/// Answers of the API server are kept for this long.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Most answers kept.
const MAX_KEPT: usize = 1024;

/// The name and groups in a client certificate that the cluster's authority signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certified {
    name: String,
    groups: Vec<String>,
}

impl Certified {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(Self { name, groups })
    }
}

type Cache<T> = Mutex<HashMap<String, (Instant, T)>>;

/// Decides about requests.
pub(super) struct Authority {
    kubelet: Arc<Kubelet>,
    tokens: Cache<Option<UserInfo>>,
    accesses: Cache<bool>,
}

impl Authority {
    pub(super) fn new(kubelet: Arc<Kubelet>) -> Self {
        Self { kubelet, tokens: Mutex::default(), accesses: Mutex::default() }
    }

    async fn token_user(&self, token: &str) -> Option<UserInfo> {
        let key: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(known) = kept(&self.tokens, &key) {
            return known;
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.kubelet.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.ok()?;
        let user = answer.status.filter(|s| s.authenticated == Some(true)).and_then(|s| s.user);
        keep(&self.tokens, key, user.clone());
        user
    }

    async fn may(&self, name: &str, groups: &[String], verb: &str, subresource: &str) -> bool {
        // Quoted, so that no name can pass for another name with groups.
        let key = format!("{name:?} {groups:?} {verb} {subresource}");
        if let Some(known) = kept(&self.accesses, &key) {
            return known;
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(name.to_owned()),
                groups: Some(groups.to_vec()),
                resource_attributes: Some(ResourceAttributes {
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.kubelet.config.node_name.clone()),
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.kubelet.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => {
                let allowed = answer.status.is_some_and(|s| s.allowed);
                keep(&self.accesses, key, allowed);
                allowed
            }
            Err(_) => false,
        }
    }
}

fn kept<T: Clone>(cache: &Cache<T>, key: &str) -> Option<T> {
    let cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    cache.get(key).filter(|(at, _)| at.elapsed() < KEPT_FOR).map(|(_, value)| value.clone())
}

fn keep<T>(cache: &Cache<T>, key: String, value: T) {
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= MAX_KEPT {
        cache.retain(|_, (at, _)| at.elapsed() < KEPT_FOR);
        if cache.len() >= MAX_KEPT {
            cache.clear();
        }
    }
    cache.insert(key, (Instant::now(), value));
}

/// The part of the node that a path is about, as authorisation names it.
fn subresource(path: &str) -> &'static str {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "healthz" => "healthz",
        "pods" | "runningpods" => "pods",
        "configz" => "configz",
        _ => "proxy",
    }
}

/// What the request does to the node, as authorisation names it. A stream runs something, whatever its method: a right to
/// read is not enough for it.
fn verb(method: &Method, path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if matches!(first, "exec" | "attach" | "portForward" | "run") {
        return "create";
    }
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Lets a request through, or answers 401 or 403.
pub(super) async fn check(State(authority): State<Arc<Authority>>, request: Request, next: Next) -> Response {
    let certified = request.extensions().get::<Option<Certified>>().cloned().flatten();
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let (name, mut groups) = match (certified, token) {
        (Some(certified), _) => {
            if authority.kubelet.config.trusted_client_names.contains(&certified.name) {
                return next.run(request).await;
            }
            (certified.name, certified.groups)
        }
        (None, Some(token)) => match authority.token_user(&token).await {
            Some(user) => (user.username.unwrap_or_default(), user.groups.unwrap_or_default()),
            None => return refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
        },
        (None, None) => return refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
    };
    if !groups.iter().any(|group| group == "system:authenticated") {
        groups.push("system:authenticated".to_owned());
    }
    let (verb, subresource) =
        (verb(request.method(), request.uri().path()), subresource(request.uri().path()));
    if authority.may(&name, &groups, verb, subresource).await
        || (subresource != "proxy" && authority.may(&name, &groups, verb, "proxy").await)
    {
        return next.run(request).await;
    }
    let text =
        format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])");
    refusal(StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_about_parts_of_the_node() {
        for (path, expected) in [
            ("/containerLogs/a/b/c", "proxy"),
            ("/stats/summary", "stats"),
            ("/metrics", "metrics"),
            ("/pods", "pods"),
            ("/healthz", "healthz"),
        ] {
            assert_eq!(subresource(path), expected);
        }
    }

    #[test]
    fn streams_are_created_whatever_their_method() {
        for (path, expected) in
            [("/exec/ns/p/c", "create"), ("/portForward/ns/p", "create"), ("/containerLogs/ns/p/c", "get")]
        {
            assert_eq!(verb(&Method::GET, path), expected);
        }
    }
}
